//! The active sessions after a restart: snapshots and the log since make what was there.
//!
//! Invariant: the log here is what a caller of the table would write from its closures, and nothing else.
//! Not here: files.

use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::record::{Content, DecisionId, DecisionRecord, Entry, Person, Record, Subject};
use portcullis::audit::session::{SessionId, SessionRecord};
use portcullis::engine::sessions::{
    AdmissionKey, Admitted, JudgedSession, Renewed, SHARDS, Session, SessionTable, ShardState,
};
use portcullis::policy::decision::Reason;
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::time::Timestamp;
use proptest::prelude::*;

use crate::campaign::rounds;
use crate::sessions_table::{
    EMAILS, NODES, ORGANIZATIONS, Step, address, all, at, id, node, revocation, short_lived, step,
};

/// What happened, in its order.
enum Logged {
    Record(Box<Record>),
    Renewal { ids: Vec<SessionId>, time: Timestamp, lease_expire: Timestamp },
}

#[derive(Default)]
struct Log {
    entries: Vec<Logged>,
    sequence: u64,
}

impl Log {
    fn push(&mut self, time: Timestamp, organization: &Id, subject: &Subject, content: Content) {
        self.sequence += 1;
        let entry = Entry { time, organization: Some(organization.clone()), content };
        let (sequence, subject) = (self.sequence, subject.clone());
        self.entries.push(Logged::Record(Box::new(Record { sequence, organization_sequence: 1, subject, entry })));
    }

    fn push_session(&mut self, time: Timestamp, session: &Session, content: fn(SessionRecord) -> Content) {
        self.push(time, &session.organization, &session.subject, content(session.record.clone()));
    }

    /// As an erasure does: whom the records and snapshots were about is not known any more.
    fn erase(&mut self, snapshots: &mut [ShardState], organization: Option<&Id>, email: &str) {
        let erase = |of: Option<&Id>, subject: &mut Subject| {
            let is_users = matches!(&*subject, Subject::Person(person) if *person.email == *email);
            if is_users && organization.is_none_or(|organization| of == Some(organization)) {
                *subject = Subject::Erased;
            }
        };
        for logged in &mut self.entries {
            if let Logged::Record(record) = logged {
                erase(record.entry.organization.as_ref(), &mut record.subject);
            }
        }
        for session in snapshots.iter_mut().flat_map(|state| &mut state.sessions) {
            erase(Some(&session.organization), &mut session.subject);
        }
    }
}

fn decision(key: &AdmissionKey<'_>, admitted: &Admitted, lease: Option<Duration>) -> Content {
    Content::Decision(DecisionRecord {
        id: DecisionId { boot: 1, number: 1 },
        reason: Reason::AllowRule,
        connection_type: key.connection_type,
        endpoint: key.endpoint.into(),
        rule: Some(id("yes")),
        rule_text: None,
        level: None,
        session: Some(admitted.session),
        session_opened: admitted.opened,
        revision: 7,
        cluster_revision: 1,
        request_id: "".into(),
        lease,
    })
}

fn admit(
    table: &SessionTable,
    log: &mut Log,
    (user, node_at, organization): (usize, usize, usize),
    connection_type: ConnectionType,
    lease: Option<Duration>,
    now: Timestamp,
) -> Option<Admitted> {
    let endpoint = node(organization, node_at);
    let (organization, email): (Id, Arc<str>) = (id(ORGANIZATIONS[organization]), EMAILS[user].into());
    let key = AdmissionKey {
        organization: &organization,
        endpoint: &endpoint,
        connection_type,
        email: &email,
        address: address(user),
    };
    let log = std::cell::RefCell::new(log);
    let ended = |session: &Session| log.borrow_mut().push_session(now, session, Content::SessionEnded);
    table.admit(&key, ended, |admission| {
        let admitted = admission.allow(now, Some(id("yes")), 7, lease).ok()?;
        let subject = Subject::Person(Person { email: Arc::clone(&email), address: key.address });
        log.borrow_mut().push(now, &organization, &subject, decision(&key, &admitted, lease));
        Some(admitted)
    })
}

fn perform(table: &SessionTable, log: &mut Log, snapshots: &mut [ShardState], step: &Step, now: Timestamp) {
    // Newest first; any order will do.
    let active = all(table);
    let log_end = |log: &mut Log, session: &Session| log.push_session(now, session, Content::SessionEnded);
    match step {
        Step::Pass(_) => {}
        Step::Admit { user, node, organization, connection_type, lease } => {
            let lease = lease.map(Duration::from_secs).filter(|_| *connection_type == ConnectionType::Shell);
            admit(table, log, (*user, *node, *organization), *connection_type, lease, now);
        }
        Step::End { nth, reason } => {
            if let Some(session) = active.get(*nth) {
                table.end(session.record.id, &session.organization, now, *reason, |session| log_end(log, session));
            }
        }
        Step::Renew { nth, lease } => {
            let named = nth.iter().filter_map(|nth| active.get(*nth));
            let ids: Vec<_> = named.map(|session| (session.organization.clone(), session.record.id)).collect();
            let renewed = table.renew(&ids, Duration::from_secs(*lease), now, |session| log_end(log, session));
            let renewed = ids.iter().zip(renewed).filter(|(_, renewed)| *renewed == Renewed::Renewed);
            let lease_expire = Timestamp::from_millis(now.millis() + i64::try_from(*lease * 1_000).unwrap());
            let ids = renewed.map(|((_, id), _)| *id).collect();
            log.entries.push(Logged::Renewal { ids, time: now, lease_expire });
        }
        Step::Expire => table.expire(now, |session| log_end(log, session)),
        Step::Revoke { scope, address } => table.revoke(
            scope,
            || (),
            |_| |session: &JudgedSession<'_>| (session.address == Some(*address)).then(|| revocation(now)),
            |session| log.push_session(now, session, Content::SessionRevoked),
        ),
        Step::Erase { organization, user } => {
            let organization = organization.map(|organization| id(ORGANIZATIONS[organization]));
            table.erase(organization.as_ref(), EMAILS[*user], || ());
            log.erase(snapshots, organization.as_ref(), EMAILS[*user]);
        }
    }
}

fn recovered(snapshots: Vec<ShardState>, log: &Log) -> SessionTable {
    let table = SessionTable::new(2, &short_lived());
    table.restore(snapshots);
    for logged in &log.entries {
        match logged {
            Logged::Record(record) => table.replay(record),
            Logged::Renewal { ids, time, lease_expire } => table.replay_renewal(ids, *time, *lease_expire),
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(100, 400)))]

    /// The shards are snapshotted at different moments, in the midst of what happens, as a running service does; the
    /// whole log is replayed, also what the snapshots hold.
    #[test]
    fn a_snapshot_and_the_log_make_the_sessions_that_were_active(
        steps in prop::collection::vec(step(), 1..120),
        moments in prop::collection::vec(0..120_usize, SHARDS),
        has_snapshot in any::<bool>(),
    ) {
        let (live, mut log, mut snapshots) = (SessionTable::new(1, &short_lived()), Log::default(), Vec::new());
        let (mut now, mut latest) = (0, 0);
        for (count, step) in steps.iter().enumerate() {
            for shard in (0..SHARDS).filter(|shard| has_snapshot && moments[*shard] == count) {
                snapshots.push(live.snapshot_shard(shard, at(now), || log.sequence));
            }
            if let Step::Pass(seconds) = step {
                now += seconds;
                latest = latest.max(now);
            }
            perform(&live, &mut log, &mut snapshots, step, at(now));
        }
        let restarted = recovered(snapshots, &log);
        prop_assert_eq!(all(&restarted), all(&live));
        prop_assert_eq!(restarted.counts(None), live.counts(None));

        // They also go on alike: the same checks belong to the same sessions, and the same sessions end.
        // The clock may have been set back: the last of them ends by what it showed at the latest.
        now = latest + 5;
        for organization in 0..ORGANIZATIONS.len() {
            for (user, node) in (0..EMAILS.len()).flat_map(|user| (0..NODES.len()).map(move |node| (user, node))) {
                let preview = |table: &SessionTable| {
                    let connection = (user, node, organization);
                    admit(table, &mut Log::default(), connection, ConnectionType::Preview, None, at(now))
                };
                let (there, here) = (preview(&restarted), preview(&live));
                let opened = |admitted: &Option<Admitted>| admitted.as_ref().map(|admitted| admitted.opened);
                prop_assert_eq!(opened(&there), opened(&here));
                if let (Some(Admitted { session: there, opened: false, .. }), Some(here)) = (there, here) {
                    prop_assert_eq!(there, here.session);
                }
            }
        }
        let left = |table: &SessionTable, seconds| {
            table.expire(at(now + seconds), |_| ());
            all(table).into_iter().filter(|session| session.record.start_time < at(now)).collect::<Vec<_>>()
        };
        for seconds in [0, 10, 29, 30, 60, 99, 100] {
            prop_assert_eq!(left(&restarted, seconds), left(&live, seconds));
        }
        prop_assert!(restarted.is_empty() && live.is_empty());
    }
}

#[test]
fn ids_after_a_restart_are_new_ones_even_under_the_same_boot() {
    let options = short_lived();
    let open = |table: &SessionTable| {
        admit(table, &mut Log::default(), (0, 0, 0), ConnectionType::Shell, None, at(0)).unwrap().session
    };
    let before = SessionTable::new(1, &options);
    let first = open(&before);
    assert!(first.number >= 1);
    let states: Vec<_> = (0..SHARDS).map(|shard| before.snapshot_shard(shard, at(0), || 1)).collect();
    for boot in [1, 2] {
        let after = SessionTable::new(boot, &options);
        after.restore(states.clone());
        let second = open(&after);
        assert_ne!(second, first);
        assert_eq!(second.number % SHARDS as u64, first.number % SHARDS as u64, "the same connection, the same shard");
    }
}

#[test]
fn a_revocation_in_the_log_restores_a_session_whose_opening_is_missing() {
    let (live, mut log) = (SessionTable::new(1, &short_lived()), Log::default());
    admit(&live, &mut log, (0, 0, 0), ConnectionType::Shell, None, at(0)).unwrap();
    perform(
        &live,
        &mut log,
        &mut [],
        &Step::Revoke { scope: portcullis::engine::sessions::Scope::All, address: address(0) },
        at(1),
    );
    log.entries.remove(0);
    assert_eq!(all(&recovered(Vec::new(), &log)), all(&live));
}
