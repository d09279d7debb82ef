//! A parallel map over many items, which a start uses for all organizations.
//!
//! Invariant: results are in the order of the items for any number of threads; a panic in one thread is a panic of the
//! caller.
//! Not here: what the work is (`start`).

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism, scope};

/// Items that a thread takes together: few, so that all threads end at about the same time; enough that taking them
/// costs almost nothing.
const TAKEN: usize = 16;

/// How many threads can run in parallel.
pub fn threads() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Calls `run` for each item and returns the results. Runs on `threads` threads, the caller's among them, or on fewer
/// where the operating system does not start as many.
pub fn map<T: Sync, R: Send>(items: &[T], threads: usize, run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if threads <= 1 || items.len() <= TAKEN {
        return items.iter().map(run).collect();
    }
    let parts: Vec<&[T]> = items.chunks(TAKEN).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done: Vec<(usize, Vec<R>)> = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(at) else { return done };
            done.push((at, part.iter().map(&run).collect()));
        }
    };
    let mut done = scope(|scope| {
        let helpers = (1..threads).filter_map(|_| Builder::new().spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_whatever_the_number_of_threads() {
        let items: Vec<usize> = (0..1_000).collect();
        let doubled: Vec<usize> = items.iter().map(|item| 2 * item).collect();
        for count in [0, 1, 15, 16, 17, 999, 1_000] {
            for threads in [1, 2, 7] {
                assert_eq!(map(&items[..count], threads, |item| 2 * item), doubled[..count]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "at 500")]
    fn a_panic_of_one_is_a_panic_of_the_whole() {
        map(&(0..1_000).collect::<Vec<usize>>(), 2, |item| assert!(*item != 500, "at {item}"));
    }
}
