//! Erasing an actor from the policy journal, for the audit log's erasures (design.md §2.8).
//!
//! Invariant: when it is done, neither the journal's files nor the index of revisions hold the name as an actor.
//! Not here: the audit log's own records, and finishing after a crash (`audit::eraser`).

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::audit::{ActorFiles, AuditError};
use super::change::ChangeError;
use super::history::History;
use super::writer::Order;
use crate::policy::name::Id;

/// The way to the policy writer; none once the engine closes.
pub(super) type Orders = Arc<Mutex<Option<SyncSender<Order>>>>;

/// See the module.
pub(super) struct PolicyActors {
    pub(super) orders: Orders,
    pub(super) history: Arc<History>,
}

impl ActorFiles for PolicyActors {
    fn erase(&mut self, organization: Option<&Id>, name: &str) -> Result<(), AuditError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::EraseActor { organization: organization.cloned(), name: name.to_owned(), reply };
        send(&self.orders, order).map_err(|error| match error {
            ChangeError::ShuttingDown => AuditError::ShuttingDown,
            other => AuditError::NotWritable(other.to_string()),
        })?;
        let erased = answer.blocking_recv().map_err(|_| AuditError::ShuttingDown)?;
        erased.map_err(|error| AuditError::NotWritable(error.to_string()))?;
        self.history.forget();
        Ok(())
    }
}

/// Sends the policy writer an order.
pub(super) fn send(orders: &Orders, order: Order) -> Result<(), ChangeError> {
    let orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = orders.as_ref().ok_or(ChangeError::ShuttingDown)?;
    sender.try_send(order).map_err(|error| match error {
        TrySendError::Full(_) => ChangeError::Overloaded,
        TrySendError::Disconnected(_) => ChangeError::ShuttingDown,
    })
}
