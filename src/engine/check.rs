//! A Check: from a parsed question to the recorded outcome.
//!
//! Take room for the record → decide → if allowed: lock the session's shard, decide again, open the session → queue the
//! record. The outcome is an answer that may be sent now, or one that waits for the sync of its record.
//!
//! Invariant: one version of the organization and one of the cluster decide the whole answer. Deciding takes no lock and
//! waits for nothing. No answer is sent before its record is queued, or counted as missing where that is configured. No
//! replaced policy opens a session.
//! Not here: parsing and wording (`api::decision`), waiting for the sync (`outcome`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Engine;
use super::audit::{AuditError, Durability, OnAuditFailure};
use super::outcome::Outcome;
use super::published::{Pinned, Published, PublishedCluster};
use super::question::{Answer, CheckError, Question};
use super::sessions::{AdmissionKey, Admitted, Session};
use crate::audit::record::{Content, DecisionId, DecisionRecord, Entry, Identity, Person};
use crate::audit::rule_text::RuleText;
use crate::audit::session::SessionId;
use crate::policy::decision::{Decision, Level, Reason};
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::policy::snapshot::unknown_organization;
use crate::policy::time::Timestamp;

/// Makes decision ids.
#[derive(Debug)]
pub(super) struct DecisionIds {
    boot: u64,
    next: AtomicU64,
}

impl DecisionIds {
    /// `boot` must be drawn for each start ([`Lineage::boot`](crate::audit::lineage::Lineage::boot)).
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
    /// What that rule is, where it denies.
    rule_text: Option<Arc<RuleText>>,
    level: Option<Level>,
    /// None where the organization does not exist.
    organization: Option<Id>,
    revision: u64,
    cluster_revision: u64,
}

/// Which decisions the counters of the rule and the shadow policy take in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    Always,
    Denials,
}

/// What becomes of the record of one Check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room(Recording);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recording {
    /// The queue has room for it.
    Queued,
    /// The log cannot be written, and the operator lets decisions go without a record.
    Missed,
}

impl Engine {
    /// Decides, records, waits for the sync where the connection type asks for it, and answers.
    pub async fn check(&self, question: &Question<'_>) -> Result<Answer, CheckError> {
        let room = self.room().await?;
        Ok(self.admit(room, question)?.settled().await?.leave())
    }

    /// Room for the record of a Check; none where the queue is full now. It is not reserved: each thread may take the last
    /// room, so the queue may exceed its limit by one record a thread.
    pub fn room_now(&self) -> Option<Result<Room, CheckError>> {
        let queue = self.audit.queue();
        match queue.check_writable() {
            Ok(()) => queue.has_room().then_some(Ok(Room(Recording::Queued))),
            Err(error) => Some(self.room_without_record(error)),
        }
    }

    /// Waits for room for the record of a Check, no longer than the audit deadline.
    pub async fn room(&self) -> Result<Room, CheckError> {
        if let Some(room) = self.room_now() {
            return room;
        }
        match self.audit.queue().room(self.audit.options().deadline).await {
            Ok(()) => Ok(Room(Recording::Queued)),
            Err(error) => self.room_without_record(error),
        }
    }

    /// Refuses, or lets a Check go unrecorded where that is configured.
    fn room_without_record(&self, error: AuditError) -> Result<Room, CheckError> {
        match (self.audit.options().on_failure, error) {
            // The log does not fail then: the service does.
            (OnAuditFailure::Allow, error @ AuditError::Failed(_)) | (OnAuditFailure::Deny, error) => Err(error.into()),
            (OnAuditFailure::Allow, _) => Ok(Room(Recording::Missed)),
        }
    }

    /// Whether answers to such Checks wait until their records are durable.
    pub fn is_sync(&self, connection_type: ConnectionType) -> bool {
        self.audit.options().durability(connection_type) == Durability::Sync
    }

    /// Decides by the current policy, opens the session and queues the record.
    pub fn admit(&self, room: Room, question: &Question<'_>) -> Result<Outcome<&Engine>, CheckError> {
        self.admit_by(room, question, None)
    }

    /// As [`Engine::admit`], by the pinned versions where there are any. Only the current versions open a session.
    pub(super) fn admit_by(
        &self,
        room: Room,
        question: &Question<'_>,
        pinned: Option<&Pinned>,
    ) -> Result<Outcome<&Engine>, CheckError> {
        let now = self.clock.now();
        if room == Room(Recording::Missed) {
            let decided = self.decide(question, now, Counting::Always, None)?;
            self.audit.miss(decided.reason, now);
            return Ok(Outcome::new(self, self.answer(&decided, None), None, None));
        }
        // A Check that is allowed is decided again below, and counted then.
        let decided = self.decide(question, now, Counting::Denials, pinned)?;
        let organization = match (&decided.organization, decided.reason.decision()) {
            (Some(organization), Decision::Allow) => organization.clone(),
            _ => return Ok(self.record(question, now, decided, None)),
        };
        let key = AdmissionKey {
            organization: &organization,
            endpoint: question.target.text,
            connection_type: question.connection_type,
            email: question.user_email,
            address: question.address,
        };
        let ended = |session: &Session| self.record_end(session);
        self.sessions.admit(&key, ended, |admission| {
            // The shard is locked, so the keeper finds this session when it judges a change published after this.
            let moment = self.clock.moment();
            let now = moment.time;
            let current = pinned.filter(|pinned| self.directory.is_current(pinned, question.target.organization));
            let decided = self.decide(question, now, Counting::Always, current)?;
            let session = match decided.reason.decision() {
                Decision::Allow => {
                    let lease = question.session_lease;
                    Some(admission.allow(moment, decided.rule.clone(), decided.revision, lease)?)
                }
                Decision::Deny => None,
            };
            Ok(self.record(question, now, decided, session))
        })
    }

    /// Queues the record of a decision.
    fn record(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        decided: Decided,
        admitted: Option<Admitted>,
    ) -> Outcome<&Engine> {
        let mut answer = self.answer(&decided, admitted.as_ref().map(|admitted| admitted.session));
        let session_opened = admitted.as_ref().is_some_and(|admitted| admitted.opened);
        // The session holds both texts: share them instead of copying.
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
            rule_text: decided.rule_text,
            level: decided.level,
            session: answer.session,
            session_opened,
            revision: decided.revision,
            cluster_revision: decided.cluster_revision,
            request_id: question.request_id.into(),
            lease: question.session_lease,
        };
        let organization = decided.organization;
        let opened = if session_opened { organization.clone().zip(answer.session) } else { None };
        let entry = Entry { time: now, organization, content: Content::Decision(content) };
        let person = Identity::Person(Person { email, address: question.address });
        let sync = self.is_sync(question.connection_type);
        answer.sequence = self.audit.queue().push(entry, Some(person), sync);
        let awaited = sync.then_some(answer.sequence);
        Outcome::new(self, answer, awaited, opened)
    }

    /// The answer of a Check that is not recorded yet.
    fn answer(&self, decided: &Decided, session: Option<SessionId>) -> Answer {
        Answer {
            reason: decided.reason,
            rule: decided.rule.clone(),
            level: decided.level,
            session,
            revision: decided.revision,
            cluster_revision: decided.cluster_revision,
            decision_id: self.decision_ids.next(),
            sequence: 0,
        }
    }

    /// What the policy says, in its current version unless another is pinned.
    fn decide(
        &self,
        question: &Question<'_>,
        now: Timestamp,
        counting: Counting,
        pinned: Option<&Pinned>,
    ) -> Result<Decided, CheckError> {
        if let Some(Pinned { cluster, organization }) = pinned {
            return self.decide_by(question, now, counting, cluster, organization.as_deref());
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
            // The server knows a deleted organization up to its last revision, so it is not behind.
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
            && let Some(position) = verdict.first_match
            && let Some(counter) = published.and_then(|published| published.view.counters.at(position))
        {
            counter.count(now);
        }
        if counts && let Some(shadow) = published.and_then(|published| published.shadow.as_ref()) {
            shadow.evaluate(&cluster.snapshot, question, &verdict, now);
        }
        // It shares the texts of the rule: nothing is copied here, whatever their length.
        let denied_by = verdict.rule.filter(|_| verdict.reason == Reason::DenyRule);
        Ok(Decided {
            reason: verdict.reason,
            rule: verdict.rule.map(|(_, rule)| rule.id.clone()),
            rule_text: denied_by.map(|(_, rule)| Arc::new(RuleText::of(rule))),
            level: verdict.level,
            organization: published.map(|published| published.view.organization.id.clone()),
            revision: published.map_or(0, |published| published.snapshot.revision()),
            cluster_revision: cluster.snapshot.revision(),
        })
    }
}
