//! Who may change the set of files of the log: one at a time.
//!
//! It is held while the disk works. The maintenance waits for it as long as it takes, for nothing else can be done; whoever
//! answers a call waits for a bounded time, and comes first, so that a long work of many steps cannot keep it out.
//!
//! Invariant: whoever waits for a bounded time gets an answer in it, even while the disk does not answer.
//! Not here: what the files are (`units`), and who changes them (`sealer`, `eraser`, `pruner`).

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::locks::IgnorePoison;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Layout {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// How many wait for a bounded time.
    guests: usize,
}

/// The right to change the set of files. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub(super) struct Held<'a>(&'a Layout);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state.lock().ignore_poison().held = false;
        self.0.changed.notify_all();
    }
}

impl Layout {
    /// Waits until nobody has it and no guest waits.
    pub(super) fn hold(&self) -> Held<'_> {
        let state = self.state.lock().ignore_poison();
        let taken = |state: &mut State| state.held || state.guests > 0;
        self.changed.wait_while(state, taken).ignore_poison().held = true;
        Held(self)
    }

    /// Waits until nobody has it, at most for `timeout`. None where that is over.
    pub(super) fn hold_within(&self, timeout: Duration) -> Option<Held<'_>> {
        let mut state = self.state.lock().ignore_poison();
        state.guests += 1;
        let (mut state, _) = self.changed.wait_timeout_while(state, timeout, |state| state.held).ignore_poison();
        state.guests -= 1;
        let held = std::mem::replace(&mut state.held, true);
        drop(state);
        if held {
            // Perhaps the last guest gives up; who waits for guests has to look again.
            self.changed.notify_all();
            return None;
        }
        Some(Held(self))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Layout;

    #[test]
    fn a_guest_gives_up_while_it_is_held_and_comes_before_the_maintenance() {
        let layout = Layout::default();
        let held = layout.hold();
        assert!(layout.hold_within(Duration::from_millis(10)).is_none());
        std::thread::scope(|scope| {
            let guest = scope.spawn(|| layout.hold_within(Duration::from_mins(1)).is_some());
            while layout.state.lock().unwrap().guests == 0 {
                std::thread::yield_now();
            }
            drop(held);
            // Waits for the guest, who is done when this returns.
            drop(layout.hold());
            assert_eq!(layout.state.lock().unwrap().guests, 0);
            assert!(guest.join().unwrap());
        });
        assert!(layout.hold_within(Duration::ZERO).is_some());
    }
}
