//! Locks after a panic.
//!
//! The standard library poisons a lock when a thread panics while it holds it. Here the data can still be trusted: code
//! that holds a lock changes the data in steps that each leave it consistent, and runs a caller's closure only between
//! two such steps. So one failed call does not fail all later ones.
//! A thread whose panic leaves work undone, such as a writer, refuses further work when it is dropped.
//!
//! Invariant: data behind a lock is consistent wherever the code that holds the lock can panic.
//! Not here: locks across an `await`, which are tokio's and are never poisoned.

use std::sync::{LockResult, PoisonError};

/// Takes a lock whether or not it is poisoned.
pub(crate) trait IgnorePoison {
    /// The guard, or what a `Condvar` returns with it.
    type Guard;

    /// The guard of a lock, also after a panic.
    fn ignore_poison(self) -> Self::Guard;
}

impl<G> IgnorePoison for LockResult<G> {
    type Guard = G;

    fn ignore_poison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use super::IgnorePoison;

    #[test]
    fn a_lock_is_taken_after_a_panic() {
        let lock = Mutex::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = lock.lock().ignore_poison();
            panic!("as in a test");
        }));
        assert!(panicked.is_err() && lock.is_poisoned());
        assert_eq!(*lock.lock().ignore_poison(), 1);
    }
}
