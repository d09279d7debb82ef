//! Work that takes tens of milliseconds or more: problems, previews, permitted ranges.
//!
//! Invariant: it never runs on the threads that answer Checks, and only a few pieces run at a time.
//! Not here: the work itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status;
use crate::locks::IgnorePoison;

/// Pieces of work that run at the same time.
const RUNNING_MAX: usize = 2;

/// Results that are kept of each kind.
const KEPT_MAX: usize = 4;

/// A pool for heavy work.
pub(super) struct HeavyWork {
    permits: Arc<Semaphore>,
}

/// The last results of one kind of work, each with what it is the result of.
pub(super) struct Recent<T> {
    results: Mutex<VecDeque<(String, Arc<T>)>>,
}

impl Default for HeavyWork {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(RUNNING_MAX)) }
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
        let permit = self.permit().await?;
        blocking(permit, work).await.map(|(result, _)| result)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.permits).acquire_owned().await.map_err(|error| status::internal(&error))
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
        let permit = self.permit().await?;
        // A call that waited meanwhile may have computed the same result.
        if let Some(result) = recent.get(&key) {
            return Ok(result);
        }
        // The permit is held until the result is kept, so that the next call finds it.
        let (result, _permit) = blocking(permit, work).await?;
        Ok(recent.keep(key, result))
    }
}

/// Runs work on a thread of its own, and returns its permit with the result. The work goes on after a call is given up, so
/// the work holds the permit, not the call.
async fn blocking<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, OwnedSemaphorePermit), Status> {
    tokio::task::spawn_blocking(move || (work(), permit)).await.map_err(|error| status::internal(&error))
}

impl<T> Recent<T> {
    fn get(&self, key: &str) -> Option<Arc<T>> {
        let results = self.results.lock().ignore_poison();
        results.iter().find(|(kept, _)| kept == key).map(|(_, result)| Arc::clone(result))
    }

    fn keep(&self, key: String, result: T) -> Arc<T> {
        let mut results = self.results.lock().ignore_poison();
        // An equal call that ran at the same time may have been faster.
        if let Some((_, result)) = results.iter().find(|(kept, _)| *kept == key) {
            return Arc::clone(result);
        }
        let result = Arc::new(result);
        results.push_front((key, Arc::clone(&result)));
        results.truncate(KEPT_MAX);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    #[tokio::test]
    async fn work_of_a_call_that_was_given_up_counts_until_it_ends() {
        let pool = HeavyWork::default();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (begun, ended) = (Arc::new(begun), Arc::new(Mutex::new(ended)));
        let work = || {
            let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
            pool.run(move || {
                begun.send(()).unwrap();
                ended.lock().unwrap().recv()
            })
        };
        for _ in 0..RUNNING_MAX {
            tokio::select! {
                _ = work() => panic!("the work cannot end yet"),
                _ = begins.recv() => {}
            }
        }
        assert_eq!(pool.permits.available_permits(), 0);
        (0..RUNNING_MAX).for_each(|_| end.send(()).unwrap());
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), pool.run(|| 7)).await.unwrap().unwrap(), 7);
    }
}
