//! The table of active sessions, alone and against a naive model.
//!
//! Invariant: the model is a list that is searched from end to end; it shares no code with the table.
//! Not here: restarts (`sessions_recovery`), races (`sessions_race`).

use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::record::{Person, Subject};
use portcullis::audit::rule_text::RuleText;
use portcullis::audit::session::{EndReason, Revocation, RevokeReason, SessionEnd, SessionId};
use portcullis::engine::sessions::{
    AdmissionKey, Admitted, JudgedSession, Renewed, Scope, Session, SessionOptions, SessionTable, TooManySessions,
};
use portcullis::policy::address::Address;
use portcullis::policy::decision::Reason;
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType::{self, Preview, Shell};
use portcullis::policy::rule::Source;
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::campaign::rounds;

pub(crate) const ORGANIZATIONS: [&str; 2] = ["acme", "beta"];
pub(crate) const EMAILS: [&str; 3] = ["ann@example.com", "bob@example.com", ""];
/// Below the organization; `web-2` lies between `web` and what is below `web`.
pub(crate) const NODES: [&str; 4] =
    ["projects/web", "projects/web-2", "projects/web/workspaces/main", "projects/web/workspaces/main/endpoints/3000"];

/// One thing done to a table.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Admit {
        user: usize,
        node: usize,
        organization: usize,
        connection_type: ConnectionType,
        lease: Option<u64>,
    },
    End {
        nth: usize,
        reason: EndReason,
    },
    Renew {
        nth: Vec<usize>,
        lease: u64,
    },
    Expire,
    Revoke {
        scope: Scope,
        address: Address,
    },
    Erase {
        organization: Option<usize>,
        user: usize,
    },
    /// So many seconds go by; fewer than none where two threads read the clock in one order and come in the other.
    Pass(i64),
}

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + seconds, 0).unwrap()
}

pub(crate) fn node(organization: usize, node: usize) -> String {
    format!("organizations/{}/{}", ORGANIZATIONS[organization], NODES[node])
}

pub(crate) fn address(user: usize) -> Address {
    Address::V4(u32::try_from(user % 2).unwrap())
}

/// Short lives, so that few steps see many ends.
pub(crate) fn short_lived() -> SessionOptions {
    SessionOptions {
        idle: Duration::from_secs(30),
        max_age: Duration::from_secs(100),
        active_max: 12,
        ..SessionOptions::default()
    }
}

pub(crate) fn revocation(time: Timestamp) -> Revocation {
    let text = RuleText { source: Source::Group(id("bad")), description: "known attackers".into() };
    Revocation {
        time,
        reason: RevokeReason::Denied(Reason::DenyRule),
        rule: Some(id("no")),
        rule_text: Some(Arc::new(text)),
        level: None,
        revision: 9,
    }
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let organization = 0..ORGANIZATIONS.len();
    let connection_type = select(vec![Shell, Preview]);
    let scope = prop_oneof![
        Just(Scope::All),
        organization.clone().prop_map(|at| Scope::Organization(id(ORGANIZATIONS[at]))),
        (organization.clone(), 0..NODES.len())
            .prop_map(|(at, below)| Scope::Subtree(id(ORGANIZATIONS[at]), node(at, below))),
    ];
    prop_oneof![
        8 => (0..EMAILS.len(), 0..NODES.len(), organization.clone(), connection_type, prop::option::of(1..60_u64))
            .prop_map(|(user, node, organization, connection_type, lease)| {
                Step::Admit { user, node, organization, connection_type, lease }
            }),
        2 => (0..12_usize, select(vec![EndReason::Closed, EndReason::Abandoned]))
            .prop_map(|(nth, reason)| Step::End { nth, reason }),
        2 => (prop::collection::vec(0..12_usize, 0..5), 1..60_u64).prop_map(|(nth, lease)| Step::Renew { nth, lease }),
        2 => Just(Step::Expire),
        1 => (scope, (0..2_usize).prop_map(address)).prop_map(|(scope, address)| Step::Revoke { scope, address }),
        1 => (prop::option::of(organization), 0..EMAILS.len())
            .prop_map(|(organization, user)| Step::Erase { organization, user }),
        6 => (-2..25_i64).prop_map(Step::Pass),
    ]
}

pub(crate) fn all(table: &SessionTable) -> Vec<Session> {
    table.list(None, &|_, _| true, None, usize::MAX)
}

pub(crate) fn is_below(endpoint: &str, node: &str) -> bool {
    endpoint == node || endpoint.strip_prefix(node).is_some_and(|rest| rest.starts_with('/'))
}

/// The table as it would be written without a thought for speed.
struct Model {
    options: SessionOptions,
    active: Vec<Session>,
}

impl Model {
    fn end_of(&self, session: &Session) -> (Timestamp, EndReason) {
        let later = |time: Timestamp, duration: Duration| {
            Timestamp::new(time.seconds() + i64::try_from(duration.as_secs()).unwrap(), time.nanos()).unwrap()
        };
        let record = &session.record;
        let mut deadlines = vec![(later(record.start_time, self.options.max_age), 1, EndReason::MaxAge)];
        if record.connection_type == Preview {
            deadlines.push((later(record.last_seen_time, self.options.idle), 0, EndReason::Idle));
        }
        if let Some(time) = record.lease_expire_time {
            deadlines.push((time, 0, EndReason::LeaseExpired));
        }
        let (time, _, reason) = deadlines.into_iter().min_by_key(|(time, order, _)| (*time, *order)).unwrap();
        (time, reason)
    }

    /// Takes out those of `concerned` that are due.
    fn take_due(&mut self, now: Timestamp, concerned: impl Fn(&Session) -> bool) -> Vec<Session> {
        let (mut ended, mut rest) = (Vec::new(), Vec::new());
        for mut session in std::mem::take(&mut self.active) {
            let (time, reason) = self.end_of(&session);
            if concerned(&session) && time <= now {
                session.record.end = Some(SessionEnd { time, reason });
                ended.push(session);
            } else {
                rest.push(session);
            }
        }
        self.active = rest;
        ended
    }

    /// The session that a preview folds into, counted.
    fn fold(&mut self, key: &AdmissionKey<'_>, now: Timestamp) -> (Vec<Session>, Option<SessionId>) {
        let person = Subject::Person(Person { email: key.email.into(), address: key.address });
        let organization = key.organization.clone();
        let endpoint: Arc<str> = key.endpoint.into();
        let folds = move |session: &Session| {
            session.organization == organization
                && session.subject == person
                && session.record.endpoint == endpoint
                && session.record.connection_type == Preview
                && session.record.revocation.is_none()
        };
        let ended = self.take_due(now, &folds);
        let found = self.active.iter_mut().find(|session| folds(session)).map(|session| {
            session.record.last_seen_time = session.record.last_seen_time.max(now);
            session.record.request_count += 1;
            session.record.id
        });
        (ended, found)
    }

    fn revoke(&mut self, scope: &Scope, address: Address, now: Timestamp) -> Vec<Session> {
        let mut revoked = Vec::new();
        for session in &mut self.active {
            let is_in_scope = match scope {
                Scope::All => true,
                Scope::Organization(id) => session.organization == *id,
                Scope::Subtree(id, node) => session.organization == *id && is_below(&session.record.endpoint, node),
            };
            // As the judge below: a session of nobody known is cut.
            let is_denied = match &session.subject {
                Subject::Person(person) => person.address == address,
                Subject::Nobody | Subject::Actor(_) | Subject::Erased => true,
            };
            if is_in_scope && is_denied && session.record.revocation.is_none() {
                session.record.revocation = Some(revocation(now));
                revoked.push(session.clone());
            }
        }
        revoked
    }

    /// Does a step to the model and to the table, and compares what they answer.
    fn step(&mut self, table: &SessionTable, step: &Step, now: Timestamp) {
        let mut ended: Vec<Session> = Vec::new();
        match step {
            Step::Pass(_) => {}
            Step::Admit { user, node: at, organization, connection_type, lease } => {
                let (organization, endpoint) = (id(ORGANIZATIONS[*organization]), node(*organization, *at));
                let (email, lease) = (EMAILS[*user], lease.map(Duration::from_secs));
                let (connection_type, address) = (*connection_type, address(*user));
                let key =
                    AdmissionKey { organization: &organization, endpoint: &endpoint, connection_type, email, address };
                let (expected_ended, folded) =
                    if connection_type == Preview { self.fold(&key, now) } else { (vec![], None) };
                let admitted = table.admit(
                    &key,
                    |session| ended.push(session.clone()),
                    |admission| admission.allow(now, Some(id("yes")), 7, lease),
                );
                assert_eq!(ended, expected_ended);
                match (admitted, folded) {
                    (Ok(Admitted { session, opened: false, .. }), Some(folded)) => assert_eq!(session, folded),
                    (Ok(Admitted { session, opened: true, .. }), None) => {
                        assert!(self.active.len() < self.options.active_max);
                        let opened = table.get(&organization, session).unwrap();
                        assert_eq!((opened.record.start_time, opened.record.request_count), (now, 1));
                        assert_eq!((&*opened.record.endpoint, opened.record.revision), (&*endpoint, 7));
                        let lease = lease.filter(|_| connection_type == Shell);
                        let seconds = lease.map(|lease| now.seconds() + i64::try_from(lease.as_secs()).unwrap());
                        assert_eq!(opened.record.lease_expire_time.map(Timestamp::seconds), seconds);
                        self.active.push(opened);
                    }
                    (Err(TooManySessions { .. }), None) => assert_eq!(self.active.len(), self.options.active_max),
                    other => panic!("unexpected: {other:?}"),
                }
            }
            Step::End { nth, reason } => {
                let Some(target) = self.active.get(*nth).cloned() else { return };
                let mut expected = target.clone();
                let (time, by_itself) = self.end_of(&target);
                let reason = if target.record.revocation.is_some() { EndReason::Revoked } else { *reason };
                let end = if time <= now { (time, by_itself) } else { (now.max(target.record.last_seen_time), reason) };
                expected.record.end = Some(SessionEnd { time: end.0, reason: end.1 });
                self.active.remove(*nth);
                let answer = table.end(target.record.id, &target.organization, now, reason, |s| ended.push(s.clone()));
                assert_eq!((answer, ended), (Some(expected.clone()), vec![expected]));
                assert_eq!(table.end(target.record.id, &target.organization, now, reason, |_| panic!()), None);
            }
            Step::Renew { nth, lease } => {
                let ids: Vec<_> = nth
                    .iter()
                    .filter_map(|nth| self.active.get(*nth))
                    .map(|s| (s.organization.clone(), s.record.id))
                    .collect();
                let due = self.take_due(now, |session| ids.iter().any(|(_, id)| *id == session.record.id));
                let expected: Vec<_> = ids.iter().map(|(_, id)| self.renew(*id, now, *lease)).collect();
                let renewed =
                    table.renew(&ids, Duration::from_secs(*lease), now, |session| ended.push(session.clone()));
                assert_eq!(renewed, expected);
                assert_eq!(by_id(ended), by_id(due));
            }
            Step::Expire => {
                table.expire(now, |session| ended.push(session.clone()));
                assert_eq!(by_id(ended), by_id(self.take_due(now, |_| true)));
            }
            Step::Revoke { scope, address } => {
                let judge = |_| {
                    |session: &JudgedSession<'_>| {
                        let is_denied = session.address.is_none_or(|found| found == *address);
                        is_denied.then(|| revocation(now))
                    }
                };
                table.revoke(scope, || (), judge, |session| ended.push(session.clone()));
                assert_eq!(by_id(ended), by_id(self.revoke(scope, *address, now)));
            }
            Step::Erase { organization, user } => {
                let organization = organization.map(|organization| id(ORGANIZATIONS[organization]));
                let mut count = 0;
                for session in &mut self.active {
                    let is_users = matches!(&session.subject, Subject::Person(p) if &*p.email == EMAILS[*user]);
                    if is_users && organization.as_ref().is_none_or(|id| session.organization == *id) {
                        session.subject = Subject::Erased;
                        count += usize::from(session.record.revocation.is_none());
                    }
                }
                assert_eq!(table.erase(organization.as_ref(), EMAILS[*user], || ()), count);
            }
        }
    }

    fn renew(&mut self, id: SessionId, now: Timestamp, lease: u64) -> Renewed {
        let Some(session) = self.active.iter_mut().find(|session| session.record.id == id) else {
            return Renewed::Lost;
        };
        let record = &mut session.record;
        if record.revocation.is_some() {
            return Renewed::Revoked;
        }
        if record.connection_type == Shell && now >= record.last_seen_time {
            record.last_seen_time = now;
            record.lease_expire_time = Timestamp::new(now.seconds() + i64::try_from(lease).unwrap(), 0);
        }
        Renewed::Renewed
    }

    fn assert_equals(&self, table: &SessionTable) {
        let mut expected = self.active.clone();
        expected.sort_by_key(|session| std::cmp::Reverse((session.record.start_time, session.record.id)));
        assert_eq!(all(table), expected);
        assert_eq!(table.len(), expected.len());
        let count = |organization: Option<&Id>, connection_type| {
            let is_counted = |session: &&Session| {
                organization.is_none_or(|id| session.organization == *id)
                    && session.record.connection_type == connection_type
            };
            expected.iter().filter(is_counted).count() as u64
        };
        for organization in [None, Some(&id("acme")), Some(&id("beta")), Some(&id("nobody"))] {
            assert_eq!(table.counts(organization), (count(organization, Shell), count(organization, Preview)));
        }
        // Pages of three, of one organization, with a filter.
        let acme = id("acme");
        let is_listed = |session: &Session| session.organization == acme && session.record.request_count == 1;
        let (mut pages, mut before) = (Vec::new(), None);
        loop {
            let page = table.list(Some(&acme), &|record, _| record.request_count == 1, before, 3);
            let Some(last) = page.last() else { break };
            before = Some((last.record.start_time, last.record.id));
            pages.extend(page);
        }
        assert_eq!(pages, expected.into_iter().filter(is_listed).collect::<Vec<_>>());
    }
}

fn by_id(mut sessions: Vec<Session>) -> Vec<Session> {
    sessions.sort_by_key(|session| session.record.id);
    sessions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(100, 400)))]

    #[test]
    fn the_table_is_the_naive_list(steps in prop::collection::vec(step(), 1..120)) {
        let table = SessionTable::new(5, &short_lived());
        let mut model = Model { options: short_lived(), active: Vec::new() };
        let mut now = 0;
        for step in &steps {
            if let Step::Pass(seconds) = step {
                now += seconds;
            }
            model.step(&table, step, at(now));
            model.assert_equals(&table);
        }
    }
}

/// A check that is let through, in a table of its own lifetimes.
fn open(table: &SessionTable, connection_type: ConnectionType, now: Timestamp, lease: Option<Duration>) -> Admitted {
    let (organization, endpoint) = (id("acme"), node(0, 0));
    let email = "ann@example.com";
    let address = address(0);
    let key = AdmissionKey { organization: &organization, endpoint: &endpoint, connection_type, email, address };
    table.admit(&key, |_| (), |admission| admission.allow(now, None, 1, lease)).unwrap()
}

#[test]
fn a_session_is_known_to_its_own_organization_only() {
    let table = SessionTable::new(1, &SessionOptions::default());
    let session = open(&table, Shell, at(0), None).session;
    let other = id("beta");
    assert_eq!(table.get(&other, session), None);
    assert_eq!(table.end(session, &other, at(0), EndReason::Closed, |_| panic!()), None);
    let lease = Duration::from_secs(10);
    assert_eq!(
        table.renew(&[(other, session), (id("acme"), session)], lease, at(0), |_| panic!()),
        [Renewed::Lost, Renewed::Renewed]
    );
    assert!(table.get(&id("acme"), session).is_some());
    let unknown = SessionId { boot: 9, ..session };
    assert_eq!(table.get(&id("acme"), unknown), None);
}

#[test]
fn ends_are_dated_by_the_deadline_however_late_anybody_looks() {
    let table = SessionTable::new(1, &SessionOptions::default());
    let mut ends = Vec::new();
    open(&table, Shell, at(0), Some(Duration::from_mins(1)));
    open(&table, Shell, at(0), None);
    open(&table, Preview, at(0), None);
    open(&table, Preview, at(1_000), None);
    table.expire(at(1_000_000), |session| ends.push(session.record.end.unwrap()));
    ends.sort_by_key(|end| end.time);
    let expected = [(60, EndReason::LeaseExpired), (1_000 + 1_800, EndReason::Idle), (86_400, EndReason::MaxAge)];
    assert_eq!(ends, expected.map(|(seconds, reason)| SessionEnd { time: at(seconds), reason }));
}

#[test]
fn a_lease_ends_a_session_when_it_runs_out_however_it_was_renewed() {
    let table = SessionTable::new(1, &SessionOptions::default());
    let session = open(&table, Shell, at(0), Some(Duration::from_mins(1))).session;
    let renew =
        |seconds, now| table.renew(&[(id("acme"), session)], Duration::from_secs(seconds), at(now), |_| panic!());
    renew(60, 50);
    table.expire(at(60), |_| panic!("renewed"));
    table.expire(at(109), |_| panic!("renewed"));
    renew(5, 70);
    table.expire(at(74), |_| panic!("not yet"));
    let mut ended = None;
    table.expire(at(75), |session| ended = session.record.end);
    assert_eq!(ended.map(|end| end.time), Some(at(75)), "a shorter lease is heeded");
    assert!(table.is_empty());
}

#[test]
fn a_lost_race_for_the_clock_takes_nothing_back() {
    let table = SessionTable::new(1, &SessionOptions::default());
    let preview = open(&table, Preview, at(10), None).session;
    assert!(!open(&table, Preview, at(9), None).opened);
    let record = table.get(&id("acme"), preview).unwrap().record;
    assert_eq!((record.last_seen_time, record.request_count), (at(10), 2));
    let ended = table.end(preview, &id("acme"), at(8), EndReason::Closed, |_| ()).unwrap();
    assert_eq!(ended.record.end.unwrap().time, at(10), "not before it was last seen");
}

#[test]
fn moments_are_whole_microseconds_as_the_log_keeps_them() {
    let table = SessionTable::new(1, &SessionOptions::default());
    let now = Timestamp::new(5, 1_999).unwrap();
    let session = open(&table, Shell, now, Some(Duration::from_millis(1))).session;
    let record = table.get(&id("acme"), session).unwrap().record;
    assert_eq!(record.start_time, Timestamp::from_micros(5_000_001));
    assert_eq!(record.lease_expire_time, Some(Timestamp::from_micros(5_001_001)));
}

#[test]
fn a_closure_that_panics_leaves_a_sound_table() {
    let options = SessionOptions { active_max: 2, ..SessionOptions::default() };
    let table = SessionTable::new(1, &options);
    let panics = |act: &mut dyn FnMut()| {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_err());
    };
    open(&table, Shell, at(0), Some(Duration::from_secs(1)));
    open(&table, Shell, at(0), Some(Duration::from_secs(2)));
    panics(&mut || table.revoke(&Scope::All, || (), |_| |_: &JudgedSession<'_>| panic!(), |_| ()));
    panics(&mut || table.expire(at(1), |_| panic!()));
    assert_eq!((table.len(), table.counts(None), all(&table).len()), (1, (1, 0), 1));
    table.expire(at(2), |_| ());
    assert!(table.is_empty());
    open(&table, Shell, at(3), None);
    open(&table, Shell, at(3), None);
}

#[test]
fn what_one_shard_writes_can_be_waited_for_without_a_lock() {
    let table = SessionTable::new(1, &SessionOptions::default());
    for _ in 0..600 {
        open(&table, Shell, at(0), Some(Duration::from_secs(1)));
    }
    // Would wait for ever if the shard were locked.
    let free = || assert_eq!(all(&table).len(), table.len());
    let mut shards = 0;
    table.revoke(
        &Scope::All,
        || {
            free();
            shards += 1;
        },
        |_| |_: &JudgedSession<'_>| None,
        |_| panic!(),
    );
    assert_eq!(shards, portcullis::engine::sessions::SHARDS);
    let mut ended = 0;
    table.expire(at(1), |_| ended += 1);
    assert_eq!(ended, 600, "more than one batch");
}
