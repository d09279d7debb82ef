//! A Check: from a parsed question to the answer, on the record.
//!
//! Decide → for an allowed one take the session's shard, decide again under it, open the session → queue the record →
//! wait for the disk where the connection type asks for it → answer.
//!
//! Invariant: one version of the organization and one of the cluster decide the whole answer; deciding takes no lock and
//! waits for nothing. No answer leaves without its record being queued, or counted as missing where that is configured;
//! no session is opened by a policy that was replaced before.
//! Not here: parsing and wording (`api::decision`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;

use super::Engine;
use super::audit::{AuditError, Durability, OnAuditFailure};
use super::batch::Pinned;
use super::begun::Begun;
use super::directory::{Published, PublishedCluster};
use super::sessions::{AdmissionKey, Admitted, TooManySessions};
use crate::audit::record::{Content, DecisionId, DecisionRecord, Entry, Identity, Person};
use crate::audit::session::SessionId;
use crate::policy::address::Address;
use crate::policy::decision::{Decision, Level, Reason};
use crate::policy::name::{Id, NodePath};
use crate::policy::rule::ConnectionType;
use crate::policy::snapshot::unknown_organization;
use crate::policy::time::Timestamp;

/// What is asked.
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

/// What is answered.
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
    /// The attempt cannot be recorded.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// It would open one session too many.
    #[error(transparent)]
    TooManySessions(#[from] TooManySessions),
}

/// Makes decision ids.
#[derive(Debug)]
pub(super) struct DecisionIds {
    boot: u64,
    next: AtomicU64,
}

impl DecisionIds {
    /// `boot` must be drawn at random for each start.
    pub(super) fn new(boot: u64) -> Self {
        Self { boot, next: AtomicU64::new(1) }
    }

    fn next(&self) -> DecisionId {
        DecisionId { boot: self.boot, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What one version of the policy says.
struct Decided {
    reason: Reason,
    rule: Option<Id>,
    level: Option<Level>,
    /// None where it does not exist.
    organization: Option<Id>,
    revision: u64,
    cluster_revision: u64,
}

/// Whether the rule that matched is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    Always,
    Denials,
}

/// An answer whose record is queued.
struct Recorded {
    answer: Answer,
    organization: Option<Id>,
    sequence: u64,
    session_opened: bool,
}

impl Engine {
    /// Decides, records and answers.
    pub async fn check(&self, question: &Question<'_>) -> Result<Answer, CheckError> {
        let mut begun = self.begin(question).await?;
        begun.wait().await?;
        Ok(begun.answer())
    }

    /// The same, where nothing has to be waited for; none, and nothing done, where something has to.
    pub fn check_at_once(&self, question: &Question<'_>) -> Option<Result<Answer, CheckError>> {
        if self.is_urgent(question) {
            return None;
        }
        Some(self.try_begin(question, None)?.map(Begun::answer))
    }

    /// Decides and records. What comes back must be asked for the answer.
    pub async fn begin(&self, question: &Question<'_>) -> Result<Begun<&Engine>, CheckError> {
        self.begin_by(question, None).await
    }

    /// The same, where there is room for the record now; none, and nothing done, where there is not.
    pub fn begin_at_once(&self, question: &Question<'_>) -> Option<Result<Begun<&Engine>, CheckError>> {
        self.try_begin(question, None)
    }

    pub(super) async fn begin_by(
        &self,
        question: &Question<'_>,
        pinned: Option<&Pinned>,
    ) -> Result<Begun<&Engine>, CheckError> {
        if let Some(begun) = self.try_begin(question, pinned) {
            return begun;
        }
        match self.audit.queue().room(self.audit.options().deadline).await {
            Ok(()) => self.begin_recorded(question, pinned),
            Err(error) => self.begin_unrecorded(question, error),
        }
    }

    /// None where there is no room for a record now.
    fn try_begin(
        &self,
        question: &Question<'_>,
        pinned: Option<&Pinned>,
    ) -> Option<Result<Begun<&Engine>, CheckError>> {
        let queue = self.audit.queue();
        match queue.check_writable() {
            Ok(()) if queue.has_room() => Some(self.begin_recorded(question, pinned)),
            Ok(()) => None,
            Err(error) => Some(self.begin_unrecorded(question, error)),
        }
    }

    /// Whether the record must be on the disk before the answer leaves.
    fn is_urgent(&self, question: &Question<'_>) -> bool {
        self.audit.options().durability(question.connection_type) == Durability::Sync
    }

    fn begin_recorded(&self, question: &Question<'_>, pinned: Option<&Pinned>) -> Result<Begun<&Engine>, CheckError> {
        let urgent = self.is_urgent(question);
        let recorded = self.check_recorded(question, urgent, pinned)?;
        let Recorded { answer, organization, sequence, session_opened } = recorded;
        let session = organization.zip(answer.session).filter(|_| session_opened);
        Ok(Begun::new(self, answer, urgent.then_some(sequence), session))
    }

    /// Refuses, or decides without a record where that is what the operator wants.
    fn begin_unrecorded(&self, question: &Question<'_>, error: AuditError) -> Result<Begun<&Engine>, CheckError> {
        match self.audit.options().on_failure {
            OnAuditFailure::Deny => Err(error.into()),
            OnAuditFailure::Allow => {
                let answer = self.check_unrecorded(question)?;
                Ok(Begun::new(self, answer, None, None))
            }
        }
    }

    fn check_unrecorded(&self, question: &Question<'_>) -> Result<Answer, CheckError> {
        let now = self.clock.now();
        let decided = self.decide(question, now, Counting::Always, None)?;
        self.audit.queue().miss(now);
        Ok(self.answer(&decided, None))
    }

    fn check_recorded(
        &self,
        question: &Question<'_>,
        urgent: bool,
        pinned: Option<&Pinned>,
    ) -> Result<Recorded, CheckError> {
        let now = self.clock.now();
        // An allowed one is decided, and counted, again below.
        let decided = self.decide(question, now, Counting::Denials, pinned)?;
        let organization = match (&decided.organization, decided.reason.decision()) {
            (Some(organization), Decision::Allow) => organization.clone(),
            _ => return Ok(self.record(question, now, decided, None, urgent)),
        };
        let key = AdmissionKey {
            organization: &organization,
            endpoint: question.target.text,
            connection_type: question.connection_type,
            email: question.user_email,
            address: question.address,
        };
        let ended = |session: &super::sessions::Session| self.record_end(session);
        self.sessions.admit(&key, ended, |admission| {
            // Under the lock of the shard: a change that is published after this finds the session when it looks.
            let now = self.clock.now();
            let current = pinned.filter(|pinned| self.is_current(pinned, question));
            let decided = self.decide(question, now, Counting::Always, current)?;
            let session = match decided.reason.decision() {
                Decision::Allow => {
                    let lease = question.session_lease;
                    Some(admission.allow(now, decided.rule.clone(), decided.revision, lease)?)
                }
                Decision::Deny => None,
            };
            Ok(self.record(question, now, decided, session, urgent))
        })
    }

    fn record(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        decided: Decided,
        admitted: Option<Admitted>,
        urgent: bool,
    ) -> Recorded {
        let answer = self.answer(&decided, admitted.as_ref().map(|admitted| admitted.session));
        let session_opened = admitted.as_ref().is_some_and(|admitted| admitted.opened);
        // A session has both texts already.
        let (email, endpoint) = match admitted {
            Some(Admitted { email, endpoint, .. }) => (email, endpoint),
            None => (question.user_email.into(), question.target.text.into()),
        };
        let content = DecisionRecord {
            id: answer.decision_id,
            reason: decided.reason,
            connection_type: question.connection_type,
            endpoint,
            rule: decided.rule,
            level: decided.level,
            session: answer.session,
            session_opened,
            revision: decided.revision,
            cluster_revision: decided.cluster_revision,
            request_id: question.request_id.into(),
            lease: question.session_lease,
        };
        let organization = decided.organization;
        let entry = Entry { time: now, organization: organization.clone(), content: Content::Decision(content) };
        let person = Identity::Person(Person { email, address: question.address });
        let sequence = self.audit.queue().push(entry, Some(person), urgent);
        Recorded { answer, organization, sequence, session_opened }
    }

    fn answer(&self, decided: &Decided, session: Option<SessionId>) -> Answer {
        Answer {
            reason: decided.reason,
            rule: decided.rule.clone(),
            level: decided.level,
            session,
            revision: decided.revision,
            cluster_revision: decided.cluster_revision,
            decision_id: self.decision_ids.next(),
        }
    }

    /// What the policy says: the current one, unless another is given.
    fn decide(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        counting: Counting,
        pinned: Option<&Pinned>,
    ) -> Result<Decided, CheckError> {
        if let Some(Pinned { cluster, published }) = pinned {
            return self.decide_by(question, now, counting, cluster, published.as_deref());
        }
        let cluster = self.directory.cluster_guard();
        let by = |published: Option<&Published>| self.decide_by(question, now, counting, &cluster, published);
        self.directory.with(question.target.organization, by)
    }

    /// Refuses where a version is older than the caller accepts.
    pub(super) fn check_revisions(
        &self,
        question: &Question<'_>,
        cluster: &PublishedCluster,
        published: Option<&Published>,
    ) -> Result<(), CheckError> {
        let current = cluster.snapshot.revision();
        if current < question.min_cluster_revision {
            let wanted = question.min_cluster_revision;
            return Err(CheckError::ClusterRevisionNotReached { current, wanted });
        }
        let revision = published.map_or(0, |published| published.snapshot.revision());
        let known = match published {
            Some(_) => revision,
            // One that was deleted had that revision: it is not the server that is behind.
            None => self.directory.last_revision_of_deleted(question.target.organization),
        };
        if known < question.min_revision {
            return Err(CheckError::RevisionNotReached {
                organization: question.target.ancestor(0).to_owned(),
                current: revision,
                wanted: question.min_revision,
            });
        }
        Ok(())
    }

    fn decide_by(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        counting: Counting,
        cluster: &PublishedCluster,
        published: Option<&Published>,
    ) -> Result<Decided, CheckError> {
        self.check_revisions(question, cluster, published)?;
        let verdict = match published {
            None => unknown_organization(),
            Some(published) => {
                let (address, connection_type) = (question.address, question.connection_type);
                published.snapshot.decide(&cluster.snapshot, address, connection_type, &question.target, now)
            }
        };
        let counts = counting == Counting::Always || verdict.decision() == Decision::Deny;
        if counts
            && let Some(place) = verdict.first_match
            && let Some(counter) = published.and_then(|published| published.view.counters.at(place))
        {
            counter.count(now);
        }
        if counts && let Some(shadow) = published.and_then(|published| published.shadow.as_ref()) {
            shadow.try_on(&cluster.snapshot, question, &verdict, now);
        }
        Ok(Decided {
            reason: verdict.reason,
            rule: verdict.rule.map(|(_, rule)| rule.id.clone()),
            level: verdict.level,
            organization: published.map(|published| published.view.organization.id.clone()),
            revision: published.map_or(0, |published| published.snapshot.revision()),
            cluster_revision: cluster.snapshot.revision(),
        })
    }
}
