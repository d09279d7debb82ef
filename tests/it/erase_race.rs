//! Erasures beside Checks: the ERASED record parts the log.
//!
//! The hazard: a Check that is recorded while somebody is being erased keeps the person in a record, a session or a
//! snapshot, or joins a session of the erased person.
//!
//! Invariant: what is recorded before the ERASED record names the person nowhere; what comes after does, and belongs to
//! sessions that were opened after.
//! Not here: crashes (`erase_crash`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::audit::record::{Content, Record, Subject};
use portcullis::audit::session::{EndReason, SessionId};
use portcullis::engine::Engine;
use portcullis::engine::sessions::{AdmissionKey, Session, SessionOptions, SessionTable};
use portcullis::policy::address::Address;
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType;

use crate::audit_engine::{DEFAULT, check, erasure, key, open, settle, small_units};
use crate::campaign::rounds;
use crate::sessions_table::{all, at, id, node};

const PERSON: &str = "ada@example.com";
const OTHER: &str = "bob@example.com";

fn is_person(subject: &Subject) -> bool {
    matches!(subject, Subject::Person(person) if &*person.email == PERSON)
}

/// Checks and ends sessions until it is told to stop; returns how many checks were the other user's.
async fn load(engine: Arc<Engine>, stop: Arc<AtomicBool>, seed: usize) -> usize {
    let organization = Id::parse("default").unwrap();
    let (mut open, mut others, mut number) = (Vec::new(), 0, seed);
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let email = if number.is_multiple_of(3) { OTHER } else { PERSON };
        others += usize::from(email == OTHER);
        let connection_type = if number.is_multiple_of(2) { ConnectionType::Shell } else { ConnectionType::Preview };
        let ip = format!("192.0.2.{}", number % 7);
        let answer = check(&engine, email, &ip, connection_type, DEFAULT).await.unwrap();
        open.extend(answer.session);
        if number.is_multiple_of(4) && open.len() > 8 {
            engine.end_session(&organization, open.remove(number % 8)).await.unwrap();
        }
    }
    others
}

fn session_of(record: &Record) -> Option<SessionId> {
    match &record.entry.content {
        Content::Decision(decision) => decision.session,
        Content::SessionEnded(session) | Content::SessionRevoked(session) => Some(session.id),
        _ => None,
    }
}

/// Asserts that the log and the sessions are parted at `first`; returns how many records are the other user's.
fn assert_parted(engine: &Engine, first: u64, case: &str) -> usize {
    let (mut next, mut opened, mut others) = (1, HashMap::new(), 0);
    loop {
        let records = engine.audit().read(next, usize::MAX).unwrap();
        let Some(last) = records.last() else { break };
        next = last.sequence + 1;
        for record in &records {
            let sequence = record.sequence;
            let session = session_of(record);
            if let Content::Decision(decision) = &record.entry.content {
                if decision.session_opened {
                    opened.insert(session.unwrap(), sequence);
                }
                others += usize::from(matches!(&record.subject, Subject::Person(person) if &*person.email == OTHER));
                // Every check names somebody.
                assert!(record.subject != Subject::Erased || sequence < first, "{case}: record {sequence} has no user");
            }
            if is_person(&record.subject) {
                assert!(sequence > first, "{case}: record {sequence} before {first} names the person");
                let opened = session.and_then(|session| opened.get(&session).copied());
                assert!(
                    opened.is_none_or(|opened| opened > first),
                    "{case}: record {sequence} joins an erased session"
                );
            }
        }
    }
    for Session { subject, record, .. } in engine.sessions().list(None, &|_, _| true, None, usize::MAX) {
        let opened = opened[&record.id];
        match &subject {
            Subject::Erased => assert!(opened < first, "{case}: {opened} is a new person's session"),
            _ if is_person(&subject) => assert!(opened > first, "{case}: session {opened} has the person"),
            _ => {}
        }
    }
    others
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_person_who_is_erased_during_checks_is_erased_before_the_record_and_new_after_it() {
    for round in 0..rounds(4, 60) {
        let case = format!("round {round}");
        let directory = tempfile::tempdir().unwrap();
        let engine = Arc::new(open(directory.path(), key(1), small_units()));
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> =
            (0..6).map(|client| tokio::spawn(load(Arc::clone(&engine), Arc::clone(&stop), client * 1_000))).collect();
        tokio::time::sleep(Duration::from_millis(60 + round * 37 % 150)).await;
        let portcullis::engine::audit::Erased { openings: count, sequence: first, .. } =
            engine.erase_user(erasure(PERSON, "somebody")).await.unwrap();
        assert!(count > 0, "{case}");
        tokio::time::sleep(Duration::from_millis(40)).await;
        stop.store(true, Ordering::SeqCst);
        let mut others = 0;
        for client in clients {
            others += client.await.unwrap();
        }
        settle(&engine).await;
        assert_eq!(assert_parted(&engine, first, &case), others, "{case}: another user lost a record");
        engine.close();
        drop(engine);
        let engine = open(directory.path(), key(1), small_units());
        assert_eq!(assert_parted(&engine, first, &format!("{case}, after a restart")), others);
        assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, []);
        engine.close();
    }
}

/// What a log of the table would hold, in its order.
#[derive(Clone, Debug, PartialEq)]
enum Logged {
    Opened(SessionId, bool),
    Joined(SessionId),
    Ended(SessionId, bool),
    Erased,
}

#[test]
fn the_table_erases_exactly_the_sessions_that_were_opened_before_the_record() {
    for round in 0..rounds(20, 400) {
        let table = SessionTable::new(1, &SessionOptions::default());
        let log: Mutex<Vec<Logged>> = Mutex::default();
        let push = |logged| log.lock().unwrap().push(logged);
        let work = |worker: u32| {
            for number in 0..400_u32 {
                let (organization, endpoint) = (id("acme"), node(0, 0));
                let email = if number % 3 == 0 { OTHER } else { PERSON };
                let connection_type = if number % 2 == 0 { ConnectionType::Preview } else { ConnectionType::Shell };
                let address = Address::V4((number * 31 + worker) % 50);
                let key =
                    AdmissionKey { organization: &organization, endpoint: &endpoint, connection_type, email, address };
                let mut opened = None;
                table.admit(
                    &key,
                    |_| (),
                    |admission| {
                        let admitted = admission.allow(at(0), None, 1, None).unwrap();
                        let (session, is_person) = (admitted.session, email == PERSON);
                        push(if admitted.opened {
                            Logged::Opened(session, is_person)
                        } else {
                            Logged::Joined(session)
                        });
                        opened = Some(session);
                    },
                );
                if number % 5 == 0 {
                    let ended = |session: &Session| push(Logged::Ended(session.record.id, is_person(&session.subject)));
                    table.end(opened.unwrap(), &organization, at(0), EndReason::Closed, ended);
                }
            }
        };
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || work(worker));
            }
            std::thread::sleep(Duration::from_micros(200 + round * 97 % 1_500));
            table.erase(None, PERSON, || push(Logged::Erased));
        });
        let log = log.into_inner().unwrap();
        let parted = log.iter().position(|logged| *logged == Logged::Erased).unwrap();
        let before: HashMap<SessionId, bool> = log[..parted]
            .iter()
            .filter_map(|logged| match logged {
                Logged::Opened(session, is_person) => Some((*session, *is_person)),
                _ => None,
            })
            .collect();
        for logged in &log[parted..] {
            match logged {
                Logged::Ended(session, true) => assert!(!before.contains_key(session), "its end names the person"),
                Logged::Joined(session) => {
                    assert!(!before.get(session).copied().unwrap_or(false), "a check joins an erased session");
                }
                _ => {}
            }
        }
        for Session { subject, record, .. } in all(&table) {
            let is_erased = before.get(&record.id).copied().unwrap_or(false);
            assert_eq!(subject == Subject::Erased, is_erased);
        }
    }
}
