//! Those who wait until their record is durable.
//!
//! Waking somebody who runs on another thread costs a call of the system. So those who began to wait on one thread form a
//! crowd: the first of a crowd is woken by whoever writes, and wakes the others, which on their own thread costs next to
//! nothing. Who might not be polled after it was woken, such as an answer whose client does not read, waits apart from them.
//!
//! Invariant: nobody whose record is durable waits on, whoever goes away meanwhile: who leaves a crowd, be it because the
//! caller is gone, wakes all in it whose records are durable.
//! Not here: how long somebody waits (`AuditLog::durable`).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Crowds; more threads than that share them. Behind them come those who wait apart.
const CROWDS: usize = 16;
const APART: usize = CROWDS;

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The newest durable record.
    durable: AtomicU64,
    crowds: [Mutex<Crowd>; CROWDS + 1],
}

/// By the record that is waited for and a number that no other has.
#[derive(Debug, Default)]
struct Crowd {
    wakers: BTreeMap<(u64, u64), Waker>,
    numbered: u64,
}

/// Ends when a record is durable.
#[derive(Debug)]
pub(super) struct Durable<'a> {
    waiting: &'a Waiting,
    sequence: u64,
    apart: bool,
    /// The crowd, and the number in it.
    place: Option<(usize, u64)>,
}

impl Waiting {
    pub(super) fn new(durable: u64) -> Self {
        Self { durable: AtomicU64::new(durable), crowds: Default::default() }
    }

    /// Waits for a record. To be polled soon after it was woken, or dropped: others wait for that.
    pub(super) fn durable(&self, sequence: u64) -> Durable<'_> {
        Durable { waiting: self, sequence, apart: false, place: None }
    }

    /// The same, and nobody waits for this one.
    pub(super) fn durable_apart(&self, sequence: u64) -> Durable<'_> {
        Durable { apart: true, ..self.durable(sequence) }
    }

    /// The records up to this one have become durable.
    pub(super) fn publish(&self, durable: u64) {
        self.durable.store(durable, Ordering::Release);
        for at in 0..CROWDS {
            let first = self.crowd(at).first(durable);
            if let Some(waker) = first {
                waker.wake();
            }
        }
        let apart = self.crowd(APART).take(durable);
        for waker in apart.into_values() {
            waker.wake();
        }
    }

    #[expect(clippy::indexing_slicing, reason = "no number of a crowd is greater than `APART`, the last")]
    fn crowd(&self, at: usize) -> MutexGuard<'_, Crowd> {
        self.crowds[at.min(APART)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, sequence: u64) -> bool {
        self.durable.load(Ordering::Acquire) >= sequence
    }
}

impl Crowd {
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

impl Durable<'_> {
    /// Waits on, as the context says. Whether the record became durable meanwhile.
    fn enter(&mut self, context: &Context<'_>) -> bool {
        let at = match self.place {
            Some((at, _)) => at,
            None if self.apart => APART,
            None => own_crowd(),
        };
        let mut crowd = self.waiting.crowd(at);
        // Whoever publishes looks into the crowd afterwards.
        if self.waiting.has(self.sequence) {
            return true;
        }
        let number = self.place.map_or_else(
            || {
                crowd.numbered += 1;
                crowd.numbered
            },
            |(_, number)| number,
        );
        match crowd.wakers.get_mut(&(self.sequence, number)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => drop(crowd.wakers.insert((self.sequence, number), context.waker().clone())),
        }
        self.place = Some((at, number));
        false
    }

    fn leave(&mut self) {
        let Some((at, number)) = self.place.take() else { return };
        let mut crowd = self.waiting.crowd(at);
        crowd.wakers.remove(&(self.sequence, number));
        if self.apart {
            return;
        }
        let woken = crowd.take(self.waiting.durable.load(Ordering::Acquire));
        drop(crowd);
        for waker in woken.into_values() {
            waker.wake();
        }
    }
}

impl Future for Durable<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting.has(self.sequence) || self.enter(context) {
            self.leave();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Durable<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The crowd of this thread.
fn own_crowd() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static CROWD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % CROWDS;
    }
    CROWD.with(|crowd| *crowd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(durable: &mut Durable<'_>, waker: &Waker) -> bool {
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
        let mut waiters: Vec<Durable<'_>> = (1..=3).map(|sequence| waiting.durable(sequence)).collect();
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
    fn all_who_wait_apart_are_woken_and_hold_nobody_up() {
        let waiting = Waiting::new(0);
        let counts: [std::sync::Arc<Count>; 3] = Default::default();
        let wakers = counts.each_ref().map(|count| Waker::from(std::sync::Arc::clone(count)));
        let mut apart = [waiting.durable_apart(1), waiting.durable_apart(1)];
        assert!(apart.iter_mut().zip(&wakers).all(|(waiter, waker)| !poll(waiter, waker)));
        let mut in_crowd = waiting.durable(1);
        assert!(!poll(&mut in_crowd, &wakers[2]));
        waiting.publish(1);
        assert_eq!(counts.each_ref().map(|count| count.get()), [1, 1, 1]);
        assert!(poll(&mut in_crowd, &wakers[2]));
        assert!(apart.iter_mut().zip(&wakers).all(|(waiter, waker)| poll(waiter, waker)));
    }

    #[test]
    fn who_goes_away_after_it_was_woken_leaves_nobody_behind() {
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
