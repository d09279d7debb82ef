//! A change of policy on its way: what is asked for, what is durable, and what comes back.
//!
//! Invariant: a change that is answered as made is durable and visible to every Check that begins afterwards.
//! Not here: how it is planned (`planning`), written (`writer`) and applied (`apply`).

use std::sync::Arc;
use std::time::Duration;

use super::audit::AuditError;
use super::counters::RuleCounters;
use super::directory::OrganizationView;
use super::prospect::GateOptions;
use crate::policy::change::Change;
use crate::policy::judging::Refusal;
use crate::policy::name::Id;
use crate::policy::node::NodePatch;
use crate::policy::plan::{Mutation, PlanError, Violation};
use crate::policy::state::Outcome;
use thiserror::Error;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    /// What is to change.
    pub target: ChangeTarget,
    /// What parsing the request found wrong; reported together with the violations that planning finds.
    pub violations: Vec<Violation>,
    /// Who asks.
    pub actor: Arc<str>,
    /// The caller's comment.
    pub comment: Arc<str>,
    /// Whether to plan and judge the change without making it.
    pub validate_only: bool,
    /// Conditions on what it may do, besides those that the organization has.
    pub gates: GateOptions,
    /// Whether gates and limits apply. Only going back to an earlier policy is exempt.
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
    /// Deletes an organization.
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

/// A durable change and its outcome.
#[derive(Clone, Copy)]
pub(super) struct DurableChange<'a> {
    /// The sequence of its record in the policy journal.
    pub(super) sequence: u64,
    /// The length of that record.
    pub(super) bytes: usize,
    pub(super) change: &'a Change,
    pub(super) outcome: &'a Outcome,
}

/// A change that was carried out or, with `validate_only`, found acceptable.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The organization or cluster as the change leaves it, or would leave it.
    pub outcome: Outcome,
    /// The organization or cluster as it was before the change, so that an answer can tell what the change did.
    pub before: Outcome,
    /// The revision that now holds. A change without effect, and one that was only judged, leave it as it was.
    pub revision: u64,
    /// The counters of the organization's rules.
    pub(super) counters: Arc<RuleCounters>,
}

/// Why a change was not made.
#[derive(Clone, Debug, Error)]
pub enum ChangeError {
    /// It is not acceptable.
    #[error(transparent)]
    Refused(#[from] PlanError),
    /// Gates refuse it.
    #[error("{}", refusals(.0))]
    Gated(Vec<Refusal>),
    /// It cannot be made durable now and is not in force. A later start finds it only if the process ends before the
    /// journal is writable again.
    #[error("the policy journal cannot be written now, so the change is not in force: {0}; try again")]
    NotWritable(String),
    /// The audit log cannot record it now.
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

/// All refusals, in one line.
fn refusals(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ChangeRequest {
    /// A change without a comment and without conditions.
    pub fn new(target: ChangeTarget) -> Self {
        Self {
            target,
            violations: Vec::new(),
            actor: Arc::default(),
            comment: Arc::default(),
            validate_only: false,
            gates: GateOptions::default(),
            is_gated: true,
            confirm_within: None,
        }
    }
}

impl ChangeTarget {
    /// The organization that it is about; none for the cluster.
    pub fn organization(&self) -> Option<&Id> {
        match self {
            Self::Cluster { .. } => None,
            Self::CreateOrganization { id, .. }
            | Self::DeleteOrganization { id, .. }
            | Self::Organization { id, .. } => Some(id),
        }
    }
}

impl Changed {
    /// The organization with its counters; none where the change is about the cluster, or deleted the organization.
    pub fn view(&self) -> Option<OrganizationView> {
        let organization = Arc::clone(self.outcome.organization()?);
        Some(OrganizationView { organization, counters: Arc::clone(&self.counters) })
    }
}
