//! The keeper of the sessions: one thread that revokes sessions which the policy would now deny, and ends those that are
//! due.
//!
//! Invariant: every session that an older policy opened is judged by the newer one (design.md §2.7). A change is
//! published before the keeper hears of it, and a Check that opens a session decides under the lock of its shard. So the
//! session is either there when the keeper judges the shard, or the newer policy has decided it.
//! Not here: the table (`sessions`), what is recorded (`audit`).

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::audit::{AuditLog, DiskWatch};
use super::clock::Clock;
use super::deadlines::Deadlines;
use super::directory::Directory;
use super::sessions::{JudgedSession, Scope, Session, SessionTable};
use crate::audit::record::{Content, Entry, Identity, Subject};
use crate::audit::rule_text::RuleText;
use crate::audit::session::{Revocation, RevokeReason};
use crate::locks::IgnorePoison;
use crate::policy::decision::{Decision, Reason};
use crate::policy::name::{Id, NodePath};
use crate::policy::snapshot::unknown_organization;
use crate::policy::time::Timestamp;

/// How often sessions that are due are ended, and the free space of the disk is checked.
const TICK: Duration = DiskWatch::INTERVAL;

/// Added to the wait for an expiry, so that it has passed when the thread wakes: no spinning.
const PAUSE: Duration = Duration::from_millis(1);

/// How the keeper is told of changes.
#[derive(Default)]
pub(super) struct KeeperInbox {
    changed: Mutex<(Vec<Scope>, bool)>,
    wake: Condvar,
}

impl KeeperInbox {
    /// A change of this scope is published.
    pub(super) fn changed(&self, scope: Scope) {
        self.changed.lock().ignore_poison().0.push(scope);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.changed.lock().ignore_poison().1 = true;
        self.wake.notify_one();
    }

    fn wait(&self, timeout: Duration) -> (Vec<Scope>, bool) {
        let changed = self.changed.lock().ignore_poison();
        let idle = |(scopes, stop): &mut (Vec<Scope>, bool)| scopes.is_empty() && !*stop;
        let waited = self.wake.wait_timeout_while(changed, timeout, idle);
        let mut changed = waited.ignore_poison().0;
        (std::mem::take(&mut changed.0), changed.1)
    }
}

/// What the thread owns.
pub(super) struct Keeper {
    pub(super) inbox: Arc<KeeperInbox>,
    pub(super) directory: Arc<Directory>,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) audit: Arc<AuditLog>,
    pub(super) clock: Clock,
}

impl Keeper {
    pub(super) fn run(&self) {
        // When the next rule of each organization expires.
        let mut expiries = Deadlines::default();
        let mut watch = DiskWatch::new();
        let mut is_settled = self.clock.is_settled();
        // What changed before this start may not have been judged.
        let mut pending = vec![Scope::All];
        self.follow_all(&mut expiries);
        // Until then no expiry is looked at: judging for the last ones took that long.
        let mut rested = Instant::now();
        loop {
            let rest = rested.saturating_duration_since(Instant::now());
            let next = expiries.next_in(self.clock.now()).map(|next| (next + PAUSE).max(rest));
            let (changed, stop) = self.inbox.wait(next.map_or(TICK, |next| next.min(TICK)));
            self.audit.watch_disk(&mut watch);
            for scope in changed {
                self.follow(&scope, &mut expiries);
                pending.push(scope);
            }
            if !std::mem::replace(&mut is_settled, self.clock.is_settled()) && is_settled {
                // What seemed to have expired has.
                pending.push(Scope::All);
            }
            let moment = self.clock.moment();
            let now = moment.time;
            let begun = Instant::now();
            let due = if begun >= rested { expiries.due(now) } else { Vec::new() };
            let some_expired = !due.is_empty();
            for id in due {
                expiries.set(&id, self.next_expiry(&id, now));
                pending.push(Scope::Organization(id));
            }
            if self.audit.queue().is_writable() {
                self.revoke(std::mem::take(&mut pending), &mut watch);
                if some_expired {
                    rested = Instant::now() + begun.elapsed();
                }
                self.sessions.expire(moment, |session: &Session| self.audit.record_end(session, self.clock.now()));
            }
            if stop {
                return;
            }
        }
    }

    fn follow_all(&self, expiries: &mut Deadlines) {
        let now = self.clock.now();
        for published in self.directory.organizations_after(None, usize::MAX) {
            let id = &published.view.organization.id;
            expiries.set(id, self.next_expiry(id, now));
        }
    }

    fn follow(&self, scope: &Scope, expiries: &mut Deadlines) {
        if let Scope::Organization(id) = scope {
            expiries.set(id, self.next_expiry(id, self.clock.now()));
        }
    }

    /// When the next rule of an organization expires.
    fn next_expiry(&self, id: &Id, now: Timestamp) -> Option<Timestamp> {
        let published = self.directory.organization(id.as_str())?;
        let rules = published.view.organization.rules.iter();
        rules.filter(|rule| !rule.disabled).filter_map(|rule| rule.expire_time).filter(|time| *time > now).min()
    }

    /// Judges the sessions that changes can affect.
    fn revoke(&self, mut scopes: Vec<Scope>, watch: &mut DiskWatch) {
        scopes.dedup();
        if scopes.contains(&Scope::All) {
            scopes = vec![Scope::All];
        }
        for scope in scopes {
            let room = || {
                while !self.audit.queue().has_room() && self.audit.queue().is_writable() {
                    // Nobody else notices here that the disk hangs, and then there would never be room.
                    self.audit.watch_disk(watch);
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let judge = |_shard: usize| {
                // Asked first: a correction may come between.
                let is_settled = self.clock.is_settled();
                let (now, passed) = (self.clock.now(), self.clock.surely_passed());
                move |session: &JudgedSession<'_>| {
                    let revocation = judge(&self.directory, session, now)?;
                    // What only a clock shows that has not settled ends nothing.
                    let is_sure = is_settled || judge(&self.directory, session, passed).is_some();
                    is_sure.then_some(revocation)
                }
            };
            let mut told = Told::default();
            self.sessions.revoke(&scope, room, judge, |session: &Session| {
                told.note(session);
                self.audit.record_revocation(session);
            });
            told.tell(&scope);
        }
    }
}

/// How many sessions were revoked, for the log.
#[derive(Default)]
struct Told {
    sessions: u64,
    /// Those of them whose user was erased.
    erased: u64,
}

impl Told {
    fn note(&mut self, session: &Session) {
        self.sessions += 1;
        let reason = session.record.revocation.as_ref().map(|revocation| revocation.reason);
        self.erased += u64::from(reason == Some(RevokeReason::AddressErased));
    }

    fn tell(&self, scope: &Scope) {
        let Self { sessions, erased } = *self;
        let organization = match scope {
            Scope::All => None,
            Scope::Organization(id) | Scope::Subtree(id, _) => Some(id.as_str()),
        };
        let erased = (erased > 0).then_some(erased);
        if sessions > 0 {
            tracing::info!(organization, sessions, erased, "sessions are revoked");
        }
    }
}

impl AuditLog {
    /// Records `now` that a session has ended. When it ended the session tells, which may be long ago: an old record would
    /// make those before it seem old to retention.
    pub(super) fn record_end(&self, session: &Session, now: Timestamp) {
        self.record_session(session, now, Content::SessionEnded);
    }

    fn record_revocation(&self, session: &Session) {
        if let Some(revocation) = &session.record.revocation {
            self.record_session(session, revocation.time, Content::SessionRevoked);
        }
    }

    fn record_session(
        &self,
        session: &Session,
        time: Timestamp,
        content: fn(crate::audit::session::SessionRecord) -> Content,
    ) {
        let person = match &session.subject {
            Subject::Person(person) => Some(Identity::Person(person.clone())),
            Subject::Nobody | Subject::Actor(_) | Subject::Erased => None,
        };
        let organization = Some(session.organization.clone());
        let entry = Entry { time, organization, content: content(session.record.clone()) };
        self.queue().push(entry, person, true);
    }
}

/// What the current policy says of an active session; none where it would still be allowed.
fn judge(directory: &Directory, session: &JudgedSession<'_>, now: Timestamp) -> Option<Revocation> {
    let target = NodePath::parse(session.endpoint).ok()?;
    let cluster = directory.cluster_guard();
    directory.with(target.organization, |published| {
        let revision = published.map_or(0, |published| published.snapshot.revision());
        let verdict = match (published, session.address) {
            (Some(published), Some(address)) => {
                let snapshot = &published.snapshot;
                snapshot.decide(&cluster.snapshot, address, session.connection_type, &target, now)
            }
            (None, _) => unknown_organization(),
            (Some(_), None) => {
                let reason = RevokeReason::AddressErased;
                return Some(Revocation { time: now, reason, rule: None, rule_text: None, level: None, revision });
            }
        };
        (verdict.decision() == Decision::Deny).then(|| Revocation {
            time: now,
            reason: RevokeReason::Denied(verdict.reason),
            rule: verdict.rule.map(|(_, rule)| rule.id.clone()),
            rule_text: verdict.rule.map(|(_, rule)| Arc::new(RuleText::of(rule))),
            level: verdict.level,
            revision: if verdict.reason == Reason::OutsideCluster { cluster.snapshot.revision() } else { revision },
        })
    })
}
