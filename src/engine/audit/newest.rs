//! The newest durable record, for those who wait for more.
//!
//! Invariant: nobody outside holds the channel's lock: they get the number. The audit log's writer takes that lock to
//! announce records, so a subscriber that held one look while it took another would wait behind the writer, and the writer
//! for the first look to end.
//! Not here: what is written (`writer`).

use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

/// Follows the sequence of the newest durable record. It gives numbers:
///
/// ```
/// # fn f(audit: &portcullis::engine::audit::AuditLog) {
/// let mut newest = audit.newest();
/// let both = (newest.look(), newest.look());
/// # }
/// ```
///
/// and no look that stays open, during which a second one could wait for ever:
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

    /// Waits until there is a newer one than was looked at.
    ///
    /// # Errors
    ///
    /// The service has ended.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.0.changed().await
    }
}
