//! What the campaign over faults knows: everything that was acknowledged or shown, and what may or may not have happened.
//!
//! Invariant: it is never stricter than the contract. What was refused for want of a disk may come with a crash; what was
//! refused otherwise may not.
//! Not here: what must follow from it (`faults_invariants`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::record::{Content, DecisionId, Record, Subject};
use portcullis::audit::session::SessionId;
use portcullis::engine::Engine;
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::state::Outcome;

use crate::faults_actions::{Asked, Edit, USERS};
use crate::faults_policy::{access, all_marked, changes_beside, has_expiring, keeps_marks, naive_of, policy_of};
use crate::naive;

pub(crate) const IDLE: Duration = Duration::from_mins(1);
pub(crate) const MAX_AGE: Duration = Duration::from_mins(10);

/// See the module.
#[derive(Clone)]
pub(crate) struct Model {
    /// What is in force.
    pub(crate) policy: naive::Policy,
    /// The last revision of organizations that are deleted.
    pub(crate) deleted: BTreeMap<String, i64>,
    /// Changes that were not acknowledged, and are not known to be gone.
    pub(crate) maybe: Vec<Maybe>,
    /// Every record that was shown, and that retention keeps.
    pub(crate) log: BTreeMap<u64, Arc<Record>>,
    /// Records of which decisions were shown.
    pub(crate) recorded: HashSet<DecisionId>,
    /// Answered decisions whose records were not shown yet, with where the record is to be, and whether the answer waited
    /// for it.
    pub(crate) answered: HashMap<DecisionId, (u64, bool)>,
    /// Decisions that no record will be shown of.
    pub(crate) lost: u64,
    pub(crate) sessions: BTreeMap<SessionId, Known>,
    /// The records of the ends of sessions, and of revocations.
    pub(crate) ended: BTreeMap<SessionId, u64>,
    revoked: BTreeMap<SessionId, u64>,
    /// By how many microseconds decision time is ahead of the true time, from which record on.
    pub(crate) scales: BTreeMap<u64, i64>,
    /// Where the opening of each session is recorded.
    pub(crate) opened: BTreeMap<SessionId, u64>,
    /// How often each user was erased, or may have been.
    generations: [usize; USERS],
    /// Erased emails, with the record that says so.
    pub(crate) erased: BTreeMap<String, Erased>,
    /// Emails whose erasure was not answered as done.
    pub(crate) perhaps_erased: BTreeSet<String>,
    /// The first checkpoint that was shown and the newest.
    pub(crate) notes: Vec<String>,
    /// How many records the newest covers.
    pub(crate) signed: u64,
}

/// A change that may or may not have happened: the policy with it.
#[derive(Clone)]
pub(crate) struct Maybe {
    pub(crate) policy: naive::Policy,
    pub(crate) deleted: BTreeMap<String, i64>,
    /// It may still happen without a crash, for nobody has answered.
    pub(crate) late: bool,
}

/// An erasure that was answered as done.
#[derive(Clone, Copy)]
pub(crate) struct Erased {
    pub(crate) sequence: u64,
    /// Nobody has used the email since.
    pub(crate) unused: bool,
}

/// A session that a PEP knows.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) email: String,
    pub(crate) ip: &'static str,
    pub(crate) endpoint: String,
    pub(crate) connection_type: ConnectionType,
    pub(crate) start: Duration,
    /// When it was last seen, at the earliest and at the latest.
    pub(crate) seen: (Duration, Duration),
    /// When its lease runs out, at the earliest and at the latest.
    pub(crate) lease: Option<(Duration, Duration)>,
    pub(crate) state: State,
    /// Its opening is durable.
    pub(crate) durable: bool,
    /// There was a moment at which it would have been denied.
    pub(crate) may_be_revoked: bool,
}

/// What is certain of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It goes on until it is due, or revoked.
    Active,
    /// It is revoked, and is not renewed.
    Revoked,
    /// It has ended.
    Ended,
    /// Its end was asked for and not acknowledged.
    Ending,
}

impl Known {
    /// When it ends by itself, at the earliest and at the latest.
    pub(crate) fn due(&self) -> (Duration, Duration) {
        let age = self.start + MAX_AGE;
        let (first, last) = match self.connection_type {
            ConnectionType::Shell => self.lease.unwrap_or((age, age)),
            ConnectionType::Preview => (self.seen.0 + IDLE, self.seen.1 + IDLE),
        };
        (first.min(age), last.min(age))
    }

    /// Whether it must be there at a true time.
    pub(crate) fn is_active(&self, now: Duration) -> bool {
        self.state == State::Active && now < self.due().0
    }
}

impl Model {
    /// What an engine begins with.
    pub(crate) fn of(engine: &Engine) -> Self {
        Self {
            policy: policy_of(engine),
            deleted: BTreeMap::new(),
            maybe: Vec::new(),
            log: BTreeMap::new(),
            recorded: HashSet::new(),
            answered: HashMap::new(),
            lost: 0,
            sessions: BTreeMap::new(),
            ended: BTreeMap::new(),
            revoked: BTreeMap::new(),
            scales: BTreeMap::new(),
            opened: BTreeMap::new(),
            generations: [0; USERS],
            erased: BTreeMap::new(),
            perhaps_erased: BTreeSet::new(),
            notes: Vec::new(),
            signed: 0,
        }
    }

    /// The email of a user; another one after each erasure.
    pub(crate) fn email(&self, user: usize) -> String {
        format!("user-{user}-{}@example.com", self.generations[user])
    }

    pub(crate) fn next_email(&mut self, user: usize) {
        self.generations[user] += 1;
    }

    /// What the contract says of a Check.
    pub(crate) fn decide(&self, asked: &Asked, now: Duration) -> naive::Answer {
        self.decide_of(asked.ip, asked.connection_type, &asked.endpoint(), now)
    }

    fn decide_of(&self, ip: &str, connection_type: ConnectionType, endpoint: &str, now: Duration) -> naive::Answer {
        let connection_type = match connection_type {
            ConnectionType::Shell => naive::ConnectionType::Shell,
            ConnectionType::Preview => naive::ConnectionType::Preview,
        };
        let address = naive::parse_address(ip).unwrap();
        naive::decide(&self.policy, address, connection_type, endpoint, i64::try_from(now.as_millis()).unwrap())
    }

    /// Whether the address of a session is denied now.
    pub(crate) fn denies(&self, known: &Known, now: Duration) -> bool {
        !self.decide_of(known.ip, known.connection_type, &known.endpoint, now).allow
    }

    /// Notes which sessions may be revoked at this decision time.
    pub(crate) fn judge(&mut self, now: Duration) {
        let denied: Vec<SessionId> =
            self.sessions.iter().filter(|(_, known)| self.denies(known, now)).map(|(id, _)| *id).collect();
        for id in denied {
            self.sessions.get_mut(&id).unwrap().may_be_revoked = true;
        }
    }

    /// The policy with an outcome in it, which must be what the edit asks for.
    pub(crate) fn with(&self, outcome: &Outcome, edit: &Edit, now: Duration) -> Maybe {
        let (mut policy, mut deleted) = (self.policy.clone(), self.deleted.clone());
        match outcome {
            Outcome::Cluster(cluster) => {
                let access = access(&cluster.node.access);
                policy.cluster_revision += i64::from(access != policy.cluster);
                policy.cluster = access;
            }
            Outcome::Organization(organization) => {
                let id = organization.id.to_string();
                let before = policy.organizations.get(&id);
                let base = before.map_or_else(|| deleted.get(&id).copied().unwrap_or(0), |before| before.revision);
                let mut after = naive_of(organization);
                let revision = std::mem::replace(&mut after.revision, base);
                let next = base + i64::from(before != Some(&after));
                // Rules may have expired just before it, which is a revision of its own.
                assert!(
                    revision == next || (revision == next + 1 && before.is_some_and(has_expiring)),
                    "{revision}, {next}"
                );
                after.revision = revision;
                if let Some(before) = before {
                    let beside = changes_beside(before, &after, edit, now);
                    assert!(beside.is_none(), "{edit:?} changes {beside:?} too:\n{before:#?}\nand then\n{after:#?}");
                }
                deleted.remove(&id);
                policy.organizations.insert(id, after);
            }
            Outcome::Deleted(id, _) => {
                let before = policy.organizations.remove(id.as_str()).expect("only what exists is deleted");
                deleted.insert(id.to_string(), before.revision + 1);
            }
        }
        Maybe { policy, deleted, late: false }
    }

    /// Whether a policy is this one, perhaps with rules marked whose time has passed: one revision for each organization. No
    /// mark goes.
    pub(crate) fn explains(&self, policy: &naive::Policy, found: &naive::Policy, now: Duration) -> bool {
        let same = (&policy.cluster, policy.cluster_revision) == (&found.cluster, found.cluster_revision);
        same && policy.organizations.keys().eq(found.organizations.keys())
            && policy.organizations.iter().zip(found.organizations.values()).all(|((id, of), found)| {
                let expiring = has_expiring(of) || self.policy.organizations.get(id).is_some_and(has_expiring);
                let marked = found.revision - of.revision;
                let is_marked =
                    || expiring && (0..=1).contains(&marked) && all_marked(of, now) == all_marked(found, now);
                of == found || (is_marked() && keeps_marks(of, found, None))
            })
    }

    /// Rules were marked as expired, and nothing else has happened.
    pub(crate) fn expired(&mut self, policy: naive::Policy) {
        self.policy = policy;
        // What was written before it, and failed, is gone for good.
        self.maybe.retain(|maybe| maybe.late);
    }

    /// A change is in force.
    pub(crate) fn adopt(&mut self, change: Maybe, now: Duration) {
        let Maybe { policy, deleted, .. } = change;
        (self.policy, self.deleted) = (policy, deleted);
        self.maybe.clear();
        self.judge(now);
    }

    /// The service has died: what was not durable may be gone.
    pub(crate) fn crashed(&mut self) {
        self.sessions.retain(|_, known| known.durable);
    }

    /// Learns from a record that was not shown before.
    pub(crate) fn learn(&mut self, record: &Arc<Record>) {
        self.log.insert(record.sequence, Arc::clone(record));
        let time = self.true_time(record);
        match &record.entry.content {
            Content::Decision(decision) => {
                assert!(self.recorded.insert(decision.id), "a decision is recorded twice: {record:?}");
                if let Some((sequence, _)) = self.answered.remove(&decision.id) {
                    let is_there = sequence == 0 || sequence == record.sequence;
                    assert!(is_there, "it was answered to be record {sequence}: {record:?}");
                }
                let Some(id) = decision.session else { return };
                if decision.session_opened {
                    assert_eq!(self.opened.insert(id, record.sequence), None, "a session is opened twice: {record:?}");
                }
                if let Some(known) = self.sessions.get_mut(&id) {
                    known.durable = true;
                    known.seen.0 = known.seen.0.max(time);
                }
            }
            Content::SessionEnded(session) => {
                let before = self.ended.insert(session.id, record.sequence);
                self.is_the_only_one(before, record);
                self.note(session.id, State::Ended);
            }
            Content::SessionRevoked(session) => {
                let before = self.revoked.insert(session.id, record.sequence);
                self.is_the_only_one(before, record);
                assert!(!self.ended.contains_key(&session.id), "a session is revoked after its end: {record:?}");
                self.note(session.id, State::Revoked);
            }
            _ => {}
        }
    }

    /// One record of each kind for each session; retention may have removed the first, and a crash the knowledge of it.
    fn is_the_only_one(&self, before: Option<u64>, record: &Record) {
        let is_kept = before.is_some_and(|before| self.log.contains_key(&before));
        assert!(!is_kept, "record {before:?} says the same of that session: {record:?}");
    }

    /// When a record was made, by the true time.
    pub(crate) fn true_time(&self, record: &Record) -> Duration {
        let ahead = self.scales.range(..=record.sequence).next_back().map_or(0, |(_, ahead)| *ahead);
        Duration::from_micros(u64::try_from(record.entry.time.micros() - ahead).unwrap())
    }

    fn note(&mut self, id: SessionId, state: State) {
        if let Some(known) = self.sessions.get_mut(&id)
            && known.state != State::Ended
        {
            known.state = state;
        }
    }

    /// The decisions that GAP records admit to be missing. One without a count admits any number.
    pub(crate) fn admitted_missing(&self) -> u64 {
        let gaps = self.log.values().filter_map(|record| match &record.entry.content {
            Content::Gap(gap) if gap.count == 0 => Some(u64::MAX),
            Content::Gap(gap) => Some(gap.count),
            _ => None,
        });
        gaps.fold(0, u64::saturating_add)
    }
}

/// The email that a record or a session names.
pub(crate) fn email_of(subject: &Subject) -> Option<&str> {
    match subject {
        Subject::Person(person) => Some(&person.email),
        Subject::Nobody | Subject::Actor(_) | Subject::Erased => None,
    }
}
