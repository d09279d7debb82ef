//! Futures that wait until a record is durable.
//!
//! Waking a task of another thread costs a system call. So the futures that wait on one thread form a group. The writer
//! wakes the first of each group, which wakes the others of its thread at almost no cost. A future that may not be polled
//! when it is woken, such as an answer whose client does not read, waits apart from the groups.
//!
//! Invariant: no future whose record is durable stays asleep. A future that leaves its group, also by being dropped, wakes
//! all others of the group whose records are durable.
//! Not here: deadlines (`AuditLog::durable`).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::locks::IgnorePoison;

/// Groups; more threads than that share them. The last one is for futures that wait apart.
const GROUPS: usize = 16;
const APART: usize = GROUPS;

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The newest durable record.
    durable: AtomicU64,
    groups: [Mutex<Group>; GROUPS + 1],
}

/// Wakers, by the record they wait for and a unique number.
#[derive(Debug, Default)]
struct Group {
    wakers: BTreeMap<(u64, u64), Waker>,
    /// The last number that was given.
    numbered: u64,
}

/// Ends when a record is durable.
#[derive(Debug)]
pub(super) struct DurableWait<'a> {
    waiting: &'a Waiting,
    sequence: u64,
    apart: bool,
    /// The group and the number in it; none before it waits.
    entry: Option<(usize, u64)>,
}

impl Waiting {
    pub(super) fn new(durable: u64) -> Self {
        Self { durable: AtomicU64::new(durable), groups: Default::default() }
    }

    /// Waits for a record. Poll it soon after it was woken, or drop it: either wakes the others of its group.
    pub(super) fn durable(&self, sequence: u64) -> DurableWait<'_> {
        DurableWait { waiting: self, sequence, apart: false, entry: None }
    }

    /// Waits for a record apart from the groups: no other future depends on this one.
    pub(super) fn durable_apart(&self, sequence: u64) -> DurableWait<'_> {
        DurableWait { apart: true, ..self.durable(sequence) }
    }

    /// The records up to this one have become durable.
    pub(super) fn publish(&self, durable: u64) {
        self.durable.store(durable, Ordering::Release);
        for at in 0..GROUPS {
            let first = self.group(at).first(durable);
            if let Some(waker) = first {
                waker.wake();
            }
        }
        let apart = self.group(APART).take(durable);
        for waker in apart.into_values() {
            waker.wake();
        }
    }

    #[expect(clippy::indexing_slicing, reason = "no number of a group is greater than `APART`, the last")]
    fn group(&self, at: usize) -> MutexGuard<'_, Group> {
        self.groups[at.min(APART)].lock().ignore_poison()
    }

    fn has(&self, sequence: u64) -> bool {
        self.durable.load(Ordering::Acquire) >= sequence
    }
}

impl Group {
    /// The first, where its record is among those up to `durable`.
    fn first(&self, durable: u64) -> Option<Waker> {
        let ((sequence, _), waker) = self.wakers.first_key_value()?;
        (*sequence <= durable).then(|| waker.clone())
    }

    /// Takes out all whose records are among those up to `durable`.
    fn take(&mut self, durable: u64) -> BTreeMap<(u64, u64), Waker> {
        let after = self.wakers.split_off(&(durable + 1, 0));
        std::mem::replace(&mut self.wakers, after)
    }
}

impl DurableWait<'_> {
    /// Registers the waker. True where the record has become durable meanwhile: then there is nothing to wait for.
    fn enter(&mut self, context: &Context<'_>) -> bool {
        let at = match self.entry {
            Some((at, _)) => at,
            None if self.apart => APART,
            None => own_group(),
        };
        let mut group = self.waiting.group(at);
        // Checked under the lock: `publish` stores first and locks then, so it finds every waker registered before.
        if self.waiting.has(self.sequence) {
            return true;
        }
        let number = self.entry.map_or_else(
            || {
                group.numbered += 1;
                group.numbered
            },
            |(_, number)| number,
        );
        match group.wakers.get_mut(&(self.sequence, number)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => drop(group.wakers.insert((self.sequence, number), context.waker().clone())),
        }
        self.entry = Some((at, number));
        false
    }

    /// Leaves the group, and wakes the others whose records are durable.
    fn leave(&mut self) {
        let Some((at, number)) = self.entry.take() else { return };
        let mut group = self.waiting.group(at);
        group.wakers.remove(&(self.sequence, number));
        if self.apart {
            return;
        }
        let woken = group.take(self.waiting.durable.load(Ordering::Acquire));
        drop(group);
        for waker in woken.into_values() {
            waker.wake();
        }
    }
}

impl Future for DurableWait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting.has(self.sequence) || self.enter(context) {
            self.leave();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for DurableWait<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The group of this thread.
fn own_group() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static GROUP: usize = THREADS.fetch_add(1, Ordering::Relaxed) % GROUPS;
    }
    GROUP.with(|group| *group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(durable: &mut DurableWait<'_>, waker: &Waker) -> bool {
        Pin::new(durable).poll(&mut Context::from_waker(waker)).is_ready()
    }

    /// A waker that counts.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_first_is_woken_and_wakes_the_others_whose_records_are_durable() {
        let waiting = Waiting::new(0);
        let counts: Vec<std::sync::Arc<Count>> = (0..3).map(|_| std::sync::Arc::default()).collect();
        let wakers: Vec<Waker> = counts.iter().map(|count| Waker::from(std::sync::Arc::clone(count))).collect();
        let mut waiters: Vec<DurableWait<'_>> = (1..=3).map(|sequence| waiting.durable(sequence)).collect();
        assert!(waiters.iter_mut().zip(&wakers).all(|(waiter, waker)| !poll(waiter, waker)));

        waiting.publish(2);
        assert_eq!(counts.iter().map(|count| count.get()).collect::<Vec<_>>(), [1, 0, 0]);
        assert!(poll(&mut waiters[0], &wakers[0]));
        assert_eq!(counts.iter().map(|count| count.get()).collect::<Vec<_>>(), [1, 1, 0]);
        assert!(poll(&mut waiters[1], &wakers[1]));
        assert!(!poll(&mut waiters[2], &wakers[2]));

        waiting.publish(3);
        assert_eq!(counts[2].get(), 1);
        assert!(poll(&mut waiters[2], &wakers[2]));
    }

    #[test]
    fn all_that_wait_apart_are_woken_and_hold_up_no_other() {
        let waiting = Waiting::new(0);
        let counts: [std::sync::Arc<Count>; 3] = Default::default();
        let wakers = counts.each_ref().map(|count| Waker::from(std::sync::Arc::clone(count)));
        let mut apart = [waiting.durable_apart(1), waiting.durable_apart(1)];
        assert!(apart.iter_mut().zip(&wakers).all(|(waiter, waker)| !poll(waiter, waker)));
        let mut in_group = waiting.durable(1);
        assert!(!poll(&mut in_group, &wakers[2]));
        waiting.publish(1);
        assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1, 1]);
        assert!(poll(&mut in_group, &wakers[2]));
        assert!(apart.iter_mut().zip(&wakers).all(|(waiter, waker)| poll(waiter, waker)));
    }

    #[test]
    fn one_that_is_dropped_after_it_was_woken_leaves_none_asleep() {
        let waiting = Waiting::new(0);
        let (first, second): (std::sync::Arc<Count>, std::sync::Arc<Count>) = Default::default();
        let mut leaving = waiting.durable(1);
        let mut staying = waiting.durable(1);
        assert!(!poll(&mut leaving, &Waker::from(std::sync::Arc::clone(&first))));
        assert!(!poll(&mut staying, &Waker::from(std::sync::Arc::clone(&second))));
        waiting.publish(1);
        assert_eq!((first.get(), second.get()), (1, 0));
        drop(leaving);
        assert_eq!(second.get(), 1);
        assert!(poll(&mut staying, Waker::noop()));
    }
}
