//! An audit log and sessions that version 1 wrote are read and verified for ever.
//!
//! Invariant: golden files are added, never altered.
//! Not here: damaged files (`audit_tamper`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::merkle::{Hash, TreeHead};
use portcullis::audit::record::{
    Actor, ClockChangeCause, ClockChangedRecord, Content, Entry, Record, RecordType, Subject,
};
use portcullis::audit::rule_text::RuleText;
use portcullis::engine::sessions::Scope;
use portcullis::engine::{Engine, Options};
use portcullis::policy::decision::{Decision, Reason};
use portcullis::policy::name::Id;
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use portcullis::server::verify_audit;
use portcullis::store::codec::audit::{
    ErasureMark, SessionSnapshot, ShardSessions, UnfinishedErasure, decode_entry, decode_erasure_mark,
    decode_session_snapshot, encode_entry, encode_erasure_mark, encode_session_snapshot,
};

use crate::audit_engine::{
    DEFAULT, add_rule, change, check, erasure, key, open, recorded, sealed_units, settle, signed, small_units,
};
use crate::clock::until;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What was open when a golden log was written has long reached any usual age.
fn ageless() -> Options {
    let mut options = small_units();
    options.sessions.max_age = Duration::from_hours(24 * 36_500);
    options.sessions.idle = Duration::from_hours(24 * 36_500);
    options
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

#[test]
fn marks_of_erasures_read_as_what_was_written() {
    let read = |name: &str| std::fs::read(golden("erasing-v1").join(name)).unwrap();
    let erasure = |organization: Option<&str>, name: &str, asked_by: &str, including_actor, after_sequence| {
        let organization = organization.map(|id| Id::parse(id).unwrap());
        let asked_by = Actor { name: asked_by.into() };
        let (name, recorded) = (name.to_owned(), None);
        UnfinishedErasure { organization, name, including_actor, asked_by, after_sequence, recorded }
    };
    let written = [
        erasure(Some("acme"), "ada@example.com", "admin@example.com", false, 7),
        erasure(None, "root@example.com", "root@example.com", true, 1 << 40),
    ];
    assert_eq!(encode_erasure_mark(&written), read("erasures"));
    let written_before_the_record_was_noted = written.clone();
    assert_eq!(decode_erasure_mark(&read("erasures")).unwrap(), ErasureMark::Erasures(written.into()));
    // How far it came is not known, so it is carried out again.
    let again = erasure(Some("acme"), "ada@example.com", "admin@example.com", true, u64::MAX);
    let of_actor = decode_erasure_mark(&read("actor-of-earlier-build")).unwrap();
    assert_eq!(of_actor, ErasureMark::Erasures(vec![again]));
    assert_eq!(decode_erasure_mark(&read("user-of-earlier-build")).unwrap(), ErasureMark::Recorded);
    let [first, second] = written_before_the_record_was_noted;
    let recorded = [UnfinishedErasure { recorded: Some(9), ..first }, second];
    assert_eq!(encode_erasure_mark(&recorded), read("recorded"));
    assert_eq!(decode_erasure_mark(&read("recorded")).unwrap(), ErasureMark::Erasures(recorded.into()));
}

#[test]
fn records_about_the_clock_read_as_what_was_written() {
    let at = Timestamp::from_micros;
    for (name, sequence, cause, from, to) in [
        ("start", 300, ClockChangeCause::Start, 1_800_000_000_000_000, 1_831_536_000_000_000),
        ("correction", 301, ClockChangeCause::Correction, 1_831_536_060_000_000, 1_800_000_060_000_000),
        ("confirmation", 7, ClockChangeCause::Confirmation, 1_800_000_000_000_000, 1_800_000_090_000_001),
    ] {
        let content = Content::ClockChanged(ClockChangedRecord { from_time: at(from), to_time: at(to), cause });
        let entry = Entry { time: at(to), organization: None, content };
        let stored = std::fs::read(golden("audit-v1-clock").join(name)).unwrap();
        assert_eq!(decode_entry(&stored).unwrap().entry, entry, "{name}");
        assert_eq!(encode_entry(sequence, 0, None, &entry), stored, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_sessions_of_version_1_read_as_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    copy(&golden("audit-v1"), directory.path());
    let verifier = key(1).verifier().to_string();
    let outcome = verify_audit(directory.path(), Some(&verifier), None, &mut |_, _| true).unwrap();
    assert_eq!(outcome.faults, []);
    let engine = open(directory.path(), key(1), ageless());
    let log = engine.audit();
    let of_type = |record_type| {
        let filter = RecordFilter { types: vec![record_type], ..RecordFilter::default() };
        log.list(&filter, None, 1_000).unwrap().records
    };
    let decisions = of_type(RecordType::Decision);
    assert_eq!(decisions.len(), 903);
    let erased = decisions.iter().filter(|record| record.subject == Subject::Erased).count();
    assert_eq!(erased, 90);
    let Content::Decision(newest) = &decisions[0].entry.content else { panic!() };
    assert_eq!((newest.connection_type, &*newest.endpoint), (ConnectionType::Shell, DEFAULT));
    let Subject::Person(person) = &decisions[0].subject else { panic!() };
    assert_eq!((&*person.email, person.address), ("kept@example.com", "2001:db8::7".parse().unwrap()));
    let denied = decisions.iter().find_map(|record| match &record.entry.content {
        Content::Decision(decision) if decision.reason == Reason::DenyRule => Some(decision.clone()),
        _ => None,
    });
    let denied = denied.unwrap();
    assert_eq!((denied.rule.unwrap().as_str(), denied.rule_text), ("bad", None), "this version did not keep it");
    let Content::SessionRevoked(revoked) = &of_type(RecordType::SessionRevoked)[0].entry.content else { panic!() };
    assert_eq!(revoked.revocation.as_ref().unwrap().rule_text, None);
    for (record_type, count) in [(RecordType::SessionRevoked, 1), (RecordType::Erased, 1), (RecordType::Gap, 0)] {
        assert_eq!(of_type(record_type).len(), count, "{record_type:?}");
    }
    let who = of_type(RecordType::Erased)[0].subject.clone();
    assert_eq!(who, Subject::Actor(Actor { name: "somebody".into() }), "an opening without an address is an actor's");
    let filter = RecordFilter { email: Some("user-3@example.com".to_owned()), ..RecordFilter::default() };
    assert_eq!(log.count(&filter).unwrap(), 90);
    assert_eq!(engine.sessions().len(), 12, "ten previews, one of nobody, and two shells, one of them revoked");
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the golden files of the current version; run by hand when the format gets a new one"]
async fn write_the_golden_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    for number in 0..900 {
        let email = format!("user-{}@example.com", number % 10);
        check(&engine, &email, "192.0.2.1", ConnectionType::Preview, DEFAULT).await.unwrap();
        if number == 500 {
            // So that a unit ends with its second tile and is sealed.
            signed(&engine).await;
        }
    }
    let sealed = async || (sealed_units(directory.path()) > 0).then_some(());
    until("a sealed unit", sealed).await;
    check(&engine, "revoked@example.com", "203.0.113.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    add_rule(&engine, "bad", Action::Deny, "203.0.113.0/24").await;
    check(&engine, "revoked@example.com", "203.0.113.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    settle(&engine).await;
    engine.erase_user(erasure("user-5@example.com", "somebody")).await.unwrap();
    check(&engine, "kept@example.com", "2001:db8::7", ConnectionType::Shell, DEFAULT).await.unwrap();
    signed(&engine).await;
    engine.close();
    for part in ["audit", "sessions"] {
        copy(&directory.path().join(part), &golden("audit-v1").join(part));
    }
}

/// A rule with a description, by a range or by a group.
async fn deny(engine: &Engine, id: &str, source: Source, description: &str) {
    let patch = RulePatch {
        action: Some(Action::Deny),
        source: Some(source),
        description: Some(description.into()),
        ..RulePatch::default()
    };
    change(engine, Mutation::CreateRule { id: Id::parse(id).ok(), position: None, patch }).await;
}

fn texts() -> [RuleText; 3] {
    let text = |source, description: &str| RuleText { source, description: description.into() };
    [
        text(Source::Range("203.0.113.0/24".parse().unwrap()), "known attackers"),
        text(Source::Range("2001:db8::/32".parse().unwrap()), ""),
        text(Source::Group(Id::parse("listed").unwrap()), "the list: Düsseldorf"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_sessions_with_texts_of_rules_read_as_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    copy(&golden("audit-v1-rule-texts"), directory.path());
    let verifier = key(1).verifier().to_string();
    let outcome = verify_audit(directory.path(), Some(&verifier), None, &mut |_, _| true).unwrap();
    assert_eq!(outcome.faults, []);
    let engine = open(directory.path(), key(1), ageless());
    let filter = RecordFilter { decision: Some(Decision::Deny), ..RecordFilter::default() };
    let denials = engine.audit().list(&filter, None, 1_000).unwrap().records;
    let text = |record: &Record| match &record.entry.content {
        Content::Decision(decision) => decision.rule_text.as_deref().cloned(),
        _ => None,
    };
    assert_eq!(denials.iter().rev().map(text).collect::<Vec<_>>(), texts().map(Some));
    let (_, active) = engine.sessions().find(&Scope::All, |_| true, 10);
    assert_eq!(active.len(), 1, "one is not revoked");
    let revoked = engine.sessions().list(None, &|record, _| record.revocation.is_some(), None, 10);
    let revoked: Vec<_> = revoked.into_iter().map(|session| session.record.revocation.unwrap().rule_text).collect();
    assert_eq!(revoked.len(), 2);
    assert!(revoked.iter().all(|text| text.as_deref() == Some(&texts()[0])), "{revoked:?}");
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the golden files of the current version; run by hand when the format gets a new one"]
async fn write_the_golden_audit_log_with_texts_of_rules() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    for ip in ["203.0.113.1", "203.0.113.2", "192.0.2.1"] {
        check(&engine, "revoked@example.com", ip, ConnectionType::Shell, DEFAULT).await.unwrap();
    }
    let id = Id::parse("listed").unwrap();
    let ranges = ["198.51.100.0/24".parse().unwrap()].into_iter().collect();
    change(&engine, Mutation::CreateGroup { id: Some(id), description: "".into(), ranges }).await;
    for (id, RuleText { source, description }) in ["bad", "plain", "by-group"].into_iter().zip(texts()) {
        deny(&engine, id, source, &description).await;
    }
    for ip in ["203.0.113.9", "2001:db8::9", "198.51.100.9"] {
        check(&engine, "denied@example.com", ip, ConnectionType::Shell, DEFAULT).await.unwrap();
    }
    recorded(&engine, RecordType::SessionRevoked, 2).await;
    signed(&engine).await;
    engine.close();
    for part in ["audit", "sessions"] {
        copy(&directory.path().join(part), &golden("audit-v1-rule-texts").join(part));
    }
}

/// What sessions were saved beside is read for ever, too.
#[test]
fn the_sessions_of_version_1_with_the_head_that_was_signed_read_as_what_was_written() {
    let saved = std::fs::read(golden("sessions-v1-signed.bin")).unwrap();
    let snapshot = decode_session_snapshot(&saved).unwrap();
    assert_eq!(snapshot, signed_sessions());
    assert_eq!(encode_session_snapshot(&snapshot), saved);
}

fn signed_sessions() -> SessionSnapshot {
    let shard = |shard| ShardSessions { shard, sequence: 41, sessions: Vec::new() };
    SessionSnapshot { shards: vec![shard(0), shard(63)], signed: Some(TreeHead { size: 42, root: Hash::new([7; 32]) }) }
}

#[test]
#[ignore = "writes the golden file of the current version; run by hand when the format gets a new one"]
fn write_the_golden_sessions_with_a_signed_head() {
    std::fs::write(golden("sessions-v1-signed.bin"), encode_session_snapshot(&signed_sessions())).unwrap();
}
