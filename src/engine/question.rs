//! The question of a Check and its answer.
//!
//! Invariant: every field of a question is parsed; nothing malformed becomes one.
//! Not here: parsing and wording (`api::decision`), deciding (`check`).

use std::time::Duration;

use thiserror::Error;

use super::audit::AuditError;
use super::sessions::TooManySessions;
use crate::audit::record::DecisionId;
use crate::audit::session::SessionId;
use crate::policy::address::Address;
use crate::policy::decision::{Level, Reason};
use crate::policy::name::{Id, NodePath};
use crate::policy::rule::ConnectionType;

/// The question of a Check.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where the connection comes from.
    pub address: Address,
    /// How the person connects.
    pub connection_type: ConnectionType,
    /// What the person connects to.
    pub target: NodePath<'a>,
    /// Who connects; empty where that is not said.
    pub user_email: &'a str,
    /// Ends the session when it is not renewed for this long; shells only.
    pub session_lease: Option<Duration>,
    /// The caller's own identifier.
    pub request_id: &'a str,
    /// The oldest revision of the organization that may answer; 0 accepts any.
    pub min_revision: u64,
    /// The oldest revision of the cluster that may answer; 0 accepts any.
    pub min_cluster_revision: u64,
}

/// The answer to a Check.
#[derive(Clone, Debug)]
pub struct Answer {
    /// At which step the decision fell, and how.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<Id>,
    /// The node that refused, as a level of the target's name.
    pub level: Option<Level>,
    /// The session that the connection belongs to.
    pub session: Option<SessionId>,
    /// The organization's revision that decided; 0 when it does not exist.
    pub revision: u64,
    /// The cluster's revision that decided.
    pub cluster_revision: u64,
    /// Names this decision.
    pub decision_id: DecisionId,
    /// Its record; 0 where it is not recorded.
    pub sequence: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckError {
    /// The organization's policy is older than the caller accepts.
    #[error("`{organization}` is at revision {current}, and the check asks for {wanted} at least: try again")]
    RevisionNotReached {
        /// The organization's name.
        organization: String,
        /// Its revision here; 0 when it does not exist.
        current: u64,
        /// The revision asked for.
        wanted: u64,
    },
    /// The cluster's policy is older than the caller accepts.
    #[error("the cluster is at revision {current}, and the check asks for {wanted} at least: try again")]
    ClusterRevisionNotReached {
        /// Its revision here.
        current: u64,
        /// The revision asked for.
        wanted: u64,
    },
    /// The decision cannot be recorded.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// It would open one session too many.
    #[error(transparent)]
    TooManySessions(#[from] TooManySessions),
}
