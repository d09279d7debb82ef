//! The sequence of the newest durable record, for subscribers that wait for more.
//!
//! Invariant: callers get a number, never a guard of the channel's lock. The audit writer takes that lock to announce
//! records. A subscriber that held one guard and asked for a second would deadlock with the writer.
//! Not here: what is written (`writer`).

use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

/// Follows the sequence of the newest durable record. It returns numbers:
///
/// ```
/// # fn f(audit: &portcullis::engine::audit::AuditLog) {
/// let mut newest = audit.newest();
/// let both = (newest.look(), newest.look());
/// # }
/// ```
///
/// and no guards, of which a second one could deadlock:
///
/// ```compile_fail
/// # fn f(audit: &portcullis::engine::audit::AuditLog) {
/// let mut newest = audit.newest();
/// let both = (newest.borrow(), newest.borrow());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Newest(watch::Receiver<u64>);

impl Newest {
    pub(super) fn new(receiver: watch::Receiver<u64>) -> Self {
        Self(receiver)
    }

    /// The newest sequence now, 0 where there is none. [`Newest::changed`] waits for a newer one.
    pub fn look(&mut self) -> u64 {
        *self.0.borrow_and_update()
    }

    /// Waits until there is a newer one than [`Newest::look`] returned last.
    ///
    /// # Errors
    ///
    /// The service has ended.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.0.changed().await
    }
}
