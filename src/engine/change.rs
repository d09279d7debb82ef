//! A change of policy: what is asked for, and what comes back.
//!
//! Invariant: a change that is answered as applied is durable and visible to every Check that begins afterwards.
//! Not here: how it is carried out (`writer`).

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::Engine;
use super::audit::AuditError;
use super::directory::OrganizationView;
use super::prospect::GateOptions;
use super::writer::Order;
use crate::policy::judging::Refusal;
use crate::policy::name::Id;
use crate::policy::node::NodePatch;
use crate::policy::organization::Cluster;
use crate::policy::plan::{Mutation, PlanError, Violation};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    /// What is to change.
    pub target: ChangeTarget,
    /// What parsing the request found wrong; refused with everything else that is wrong with it.
    pub violations: Vec<Violation>,
    /// Who asks.
    pub actor: Arc<str>,
    /// The caller's comment.
    pub comment: Arc<str>,
    /// Whether to judge the change and leave it at that.
    pub validate_only: bool,
    /// Conditions on what it may do, besides those that the organization has.
    pub gates: GateOptions,
    /// Whether any gate has a say.
    pub is_gated: bool,
    /// Undo it unless it is confirmed within this time; inside an organization only.
    pub confirm_within: Option<Duration>,
}

/// What is to change.
#[derive(Clone, Debug)]
pub enum ChangeTarget {
    /// The cluster's node.
    Cluster {
        /// Guards the node.
        etag: Option<String>,
        /// The new values.
        patch: NodePatch,
    },
    /// A new organization.
    CreateOrganization {
        /// Its id.
        id: Id,
        /// Its fields.
        patch: NodePatch,
    },
    /// An organization less.
    DeleteOrganization {
        /// Its id.
        id: Id,
        /// Guards its node.
        etag: Option<String>,
        /// Whether what is below it may go with it.
        force: bool,
    },
    /// Something in an organization.
    Organization {
        /// Its id.
        id: Id,
        /// What.
        mutation: Mutation,
    },
}

/// A change that was carried out, or was found acceptable where only that was asked.
#[derive(Clone, Debug)]
pub struct Changed {
    /// What the object's owner looks like afterwards.
    pub after: After,
    /// The revision that now holds. A change without effect, and one that was only judged, leave it as it was.
    pub revision: u64,
}

/// The policy after a change.
#[derive(Clone, Debug)]
pub enum After {
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// An organization.
    Organization(OrganizationView),
    /// The organization is gone.
    Deleted,
}

/// Why a change was not made.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// It is not acceptable.
    #[error(transparent)]
    Refused(#[from] PlanError),
    /// Gates refuse it.
    #[error("{}", refusals(.0))]
    Gated(Vec<Refusal>),
    /// It cannot be made durable now and is not in force. A later start finds it only where the process ends before the
    /// journal is writable again.
    #[error("the policy journal cannot be written now, so the change is not in force: {0}; try again")]
    NotWritable(String),
    /// It cannot be put on the record now.
    #[error(transparent)]
    NotRecordable(#[from] AuditError),
    /// It is larger than the journal takes in one piece.
    #[error("the change is too large for one step: {0}")]
    TooLarge(String),
    /// Too many changes wait already.
    #[error("too many changes are waiting: try again in a moment")]
    Overloaded,
    /// The service is ending.
    #[error("the service is shutting down: try again on another or later")]
    ShuttingDown,
}

/// All that is refused, in one line.
fn refusals(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Engine {
    /// Carries out a change: returns when it is durable and visible.
    pub async fn change(&self, request: ChangeRequest) -> Result<Changed, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Change { request: Box::new(request), reply })?;
        answer.await.map_err(|_| ChangeError::ShuttingDown)?
    }
}
