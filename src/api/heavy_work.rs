//! Work that takes tens of milliseconds or more: problems, previews, permitted ranges.
//!
//! Invariant: it never runs on the threads that answer Checks, and only a few pieces run at a time.
//! Not here: the work itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tonic::Status;

use super::status;
use crate::locks::IgnorePoison;

/// Pieces of work that run at the same time.
const RUNNING_MAX: usize = 2;

/// Results that are kept of each kind.
const KEPT_MAX: usize = 4;

/// A pool for heavy work.
pub(super) struct HeavyWork {
    permits: Semaphore,
}

/// The last results of one kind of work, each with what it is the result of.
pub(super) struct Recent<T> {
    results: Mutex<VecDeque<(String, Arc<T>)>>,
}

impl Default for HeavyWork {
    fn default() -> Self {
        Self { permits: Semaphore::new(RUNNING_MAX) }
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { results: Mutex::default() }
    }
}

impl HeavyWork {
    /// Runs work once the pool has room.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let _permit = self.permits.acquire().await.map_err(|error| status::internal(&error))?;
        tokio::task::spawn_blocking(work).await.map_err(|error| status::internal(&error))
    }

    /// The result that is kept under a key. If there is none, does the work and keeps its result.
    pub(super) async fn recall<T: Send + Sync + 'static>(
        &self,
        recent: &Recent<T>,
        key: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Arc<T>, Status> {
        if let Some(result) = recent.get(&key) {
            return Ok(result);
        }
        let _permit = self.permits.acquire().await.map_err(|error| status::internal(&error))?;
        // A call that waited meanwhile may have computed the same result.
        if let Some(result) = recent.get(&key) {
            return Ok(result);
        }
        let result = tokio::task::spawn_blocking(work).await.map_err(|error| status::internal(&error))?;
        Ok(recent.keep(key, result))
    }
}

impl<T> Recent<T> {
    fn get(&self, key: &str) -> Option<Arc<T>> {
        let results = self.results.lock().ignore_poison();
        results.iter().find(|(kept, _)| kept == key).map(|(_, result)| Arc::clone(result))
    }

    fn keep(&self, key: String, result: T) -> Arc<T> {
        let result = Arc::new(result);
        let mut results = self.results.lock().ignore_poison();
        results.push_front((key, Arc::clone(&result)));
        results.truncate(KEPT_MAX);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn equal_work_is_done_once_and_the_oldest_result_is_dropped() {
        let (pool, recent) = (HeavyWork::default(), Recent::default());
        let recall = |key: usize, result: usize| pool.recall(&recent, key.to_string(), move || result);
        let (one, other) = tokio::join!(recall(0, 1), recall(0, 1));
        assert!(Arc::ptr_eq(&one.unwrap(), &recall(0, 2).await.unwrap()));
        assert_eq!(*other.unwrap(), 1);
        for key in 1..=KEPT_MAX {
            assert_eq!(*recall(key, key).await.unwrap(), key);
        }
        assert_eq!(*recall(0, 3).await.unwrap(), 3);
    }
}
