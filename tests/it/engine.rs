//! The engine over ports that tests control: a clock that is set back, a disk that fails.
//!
//! Invariant: what these tests show holds for every adapter, for the engine knows only ports.
//! Not here: the same through gRPC and real files (`restart`, `crash_kill`).

use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::lineage::Lineage;
use portcullis::audit::note::SignerKey;
use portcullis::engine::audit::AuditStores;
use portcullis::engine::change::{ChangeError, ChangeRequest, ChangeTarget, Changed};
use portcullis::engine::question::{CheckError, Question};
use portcullis::engine::{Engine, Options, SessionStores, Stores};
use portcullis::policy::decision::Reason;
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::node::NodePatch;
use portcullis::policy::plan::{Mutation, PlanError};
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source as RuleSource};
use portcullis::policy::time::Timestamp;
use portcullis::store::codec::{decode_change, decode_snapshot};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions, MemoryJournal, Stream};
use portcullis::store::snapshots::{FileSnapshots, MemorySnapshots};
use portcullis::store::state::MemoryState;
use portcullis::store::{Journal, JournalError, Log, Snapshots, StateError, StateStore, StateStores};

use crate::clock::Hand;
use crate::store_disk::{Fault, SimulatedDisk};

struct Memory;

impl StateStores for Memory {
    fn open(&self) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(MemoryState::new()))
    }
}

pub(crate) fn open(journal: impl Journal + 'static, hand: &Hand) -> Engine {
    open_with(journal, MemorySnapshots::new(), hand)
}

fn open_with(journal: impl Journal + 'static, snapshots: impl Snapshots + 'static, hand: &Hand) -> Engine {
    let disk = SimulatedDisk::default();
    let stores = Stores {
        journal: Box::new(journal),
        snapshots: Box::new(snapshots),
        state: Box::new(Memory),
        audit: audit_stores(&disk),
        sessions: session_stores(&disk),
        lineage: Lineage::new(1),
        backup: None,
        keep: Box::new(()),
    };
    Engine::open(stores, Options::default(), hand.clock()).unwrap()
}

/// An audit log on a disk.
pub(crate) fn audit_stores(disk: &SimulatedDisk) -> AuditStores {
    disk.allow_room();
    let journal_disk = disk.clone();
    let journal = move |first_sequence| -> Result<Box<dyn Journal>, JournalError> {
        let options = JournalOptions::audit(first_sequence);
        Ok(Box::new(FileJournal::open(Arc::new(journal_disk), "/audit", options)?))
    };
    let key = SignerKey::new("test.example/audit", &[7; 32]).unwrap();
    let (disk, make_room) = (Arc::new(disk.clone()), Box::new(|| {}));
    AuditStores { journal: Box::new(journal), disk, directory: "/audit".into(), key, make_room }
}

/// Sessions on a disk.
pub(crate) fn session_stores(disk: &SimulatedDisk) -> SessionStores {
    let options = JournalOptions { stream: Stream::Sessions, ..JournalOptions::default() };
    let journal = FileJournal::open(Arc::new(disk.clone()), "/sessions", options).unwrap();
    let snapshots = FileSnapshots::new(Arc::new(disk.clone()), "/sessions").newest_only();
    SessionStores { snapshots: Box::new(snapshots), journal: Box::new(journal) }
}

fn create(id: &str, range: &str, expire_time: Option<Timestamp>) -> ChangeRequest {
    request(deny(id, range, expire_time))
}

fn deny(id: &str, range: &str, expire_time: Option<Timestamp>) -> Mutation {
    let patch = RulePatch {
        action: Some(Action::Deny),
        source: Some(RuleSource::Range(range.parse().unwrap())),
        expire_time: Some(expire_time),
        ..RulePatch::default()
    };
    Mutation::CreateRule { id: Some(Id::parse(id).unwrap()), position: None, patch }
}

fn request(mutation: Mutation) -> ChangeRequest {
    ChangeRequest::new(ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation })
}

async fn reason(engine: &Engine, ip: &str) -> Reason {
    ask(engine, ip, 0).await.unwrap().0
}

async fn ask(engine: &Engine, ip: &str, min_revision: u64) -> Result<(Reason, u64), CheckError> {
    let question = Question {
        address: ip.parse().unwrap(),
        connection_type: ConnectionType::Shell,
        target: NodePath::parse("organizations/default").unwrap(),
        user_email: "",
        session_lease: None,
        request_id: "",
        min_revision,
        min_cluster_revision: 0,
    };
    engine.check(&question).await.map(|answer| (answer.reason, answer.revision))
}

fn hand(seconds: u64) -> Hand {
    Hand::at(Duration::from_secs(seconds))
}

#[tokio::test]
async fn a_rule_that_expired_a_millisecond_ago_does_not_match() {
    let hand = hand(1_000);
    let engine = open(MemoryJournal::new(), &hand);
    engine.change(create("soon", "any", Timestamp::new(1_001, 0))).await.unwrap();
    hand.set(Duration::from_millis(1_000_999));
    assert_eq!(reason(&engine, "192.0.2.1").await, Reason::DenyRule);
    hand.set(Duration::from_secs(1_001));
    assert_eq!(reason(&engine, "192.0.2.1").await, Reason::DefaultAllow);
}

#[tokio::test]
async fn a_clock_that_is_set_back_revives_no_expired_rule() {
    let hand = hand(1_000);
    let engine = open(MemoryJournal::new(), &hand);
    engine.change(create("soon", "192.0.2.0/24", Timestamp::new(1_001, 0))).await.unwrap();
    hand.set(Duration::from_secs(1_002));
    assert_eq!(reason(&engine, "192.0.2.1").await, Reason::DefaultAllow);
    hand.jump(-500);
    assert_eq!(reason(&engine, "192.0.2.1").await, Reason::DefaultAllow);
}

#[tokio::test]
async fn a_failing_disk_refuses_changes_and_keeps_deciding_until_it_heals() {
    let disk = SimulatedDisk::default();
    let options = JournalOptions::default();
    let journal = FileJournal::open(Arc::new(disk.clone()), "/policy", options.clone()).unwrap();
    let engine = open(journal, &hand(1_000));
    engine.change(create("before", "192.0.2.0/24", None)).await.unwrap();
    let mut writable = engine.writable();
    assert!(*writable.borrow_and_update());

    // The write fails, and so does every attempt to recover for a while.
    let now = disk.operations();
    for operation in now..now + 8 {
        disk.fail_at(operation, Fault::HalfWritten);
    }
    let refused = engine.change(create("lost", "198.51.100.0/24", None)).await;
    assert!(matches!(refused, Err(ChangeError::NotWritable(_))), "{refused:?}");
    assert!(!*writable.borrow_and_update(), "health has to know");
    assert_eq!(reason(&engine, "192.0.2.1").await, Reason::DenyRule);
    assert_eq!(ask(&engine, "198.51.100.1", 0).await.unwrap(), (Reason::DefaultAllow, 2));

    // Changes that keep coming do not keep it from healing.
    let mut healed = None;
    for _ in 0..50 {
        match engine.change(create("after", "203.0.113.0/24", None)).await {
            Ok(Changed { revision, .. }) => {
                healed = Some(revision);
                break;
            }
            Err(ChangeError::NotWritable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(healed, Some(3), "the refused change used no revision");
    assert!(*writable.borrow_and_update());
    engine.close();

    // What was refused is not there after a restart either.
    drop(engine);
    let journal = FileJournal::open(Arc::new(disk), "/policy", options).unwrap();
    let engine = open(journal, &hand(2_000));
    assert_eq!(ask(&engine, "203.0.113.1", 3).await.unwrap(), (Reason::DenyRule, 3));
    assert_eq!(reason(&engine, "198.51.100.1").await, Reason::DefaultAllow);
}

#[tokio::test]
async fn changes_that_share_a_sync_are_judged_on_top_of_each_other() {
    let engine = Arc::new(open(MemoryJournal::new(), &hand(1_000)));
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let engine = Arc::clone(&engine);
        tasks.push(tokio::spawn(async move { engine.change(create("same", "192.0.2.0/24", None)).await }));
    }
    let (mut created, mut taken) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(changed) => {
                created += 1;
                assert_eq!(changed.revision, 2);
            }
            Err(ChangeError::Refused(PlanError::AlreadyExists(_))) => taken += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((created, taken), (1, 63));
}

#[tokio::test]
async fn a_check_that_begins_after_the_acknowledgement_sees_the_change() {
    let engine = open(MemoryJournal::new(), &hand(1_000));
    for number in 0..200_u32 {
        let ip = format!("10.0.{}.{}", number / 256, number % 256);
        let Changed { revision, .. } = engine.change(create(&format!("r{number}"), &ip, None)).await.unwrap();
        assert_eq!(ask(&engine, &ip, revision).await.unwrap(), (Reason::DenyRule, revision));
        let ahead = ask(&engine, &ip, revision + 1).await;
        assert!(matches!(ahead, Err(CheckError::RevisionNotReached { .. })), "{ahead:?}");
    }
}

#[tokio::test]
async fn a_closed_engine_refuses_changes_and_decides_nothing_that_it_could_not_record() {
    let engine = open(MemoryJournal::new(), &hand(1_000));
    engine.change(create("one", "192.0.2.0/24", None)).await.unwrap();
    engine.close();
    let refused = engine.change(create("two", "any", None)).await;
    assert!(matches!(refused, Err(ChangeError::ShuttingDown)), "{refused:?}");
    let refused = ask(&engine, "192.0.2.1", 0).await;
    assert!(matches!(refused, Err(CheckError::Audit(_))), "{refused:?}");
}

#[tokio::test]
async fn an_organization_that_was_deleted_is_unknown_rather_than_behind() {
    let engine = open(MemoryJournal::new(), &hand(1_000));
    let target = ChangeTarget::DeleteOrganization { id: Id::parse("default").unwrap(), etag: None, force: false };
    let request = ChangeRequest { target, ..create("unused", "any", None) };
    assert_eq!(engine.change(request).await.unwrap().revision, 2);
    for min_revision in 0..=2 {
        assert_eq!(ask(&engine, "192.0.2.1", min_revision).await.unwrap(), (Reason::UnknownEndpoint, 0));
    }
    assert!(matches!(ask(&engine, "192.0.2.1", 3).await, Err(CheckError::RevisionNotReached { .. })));
}

#[tokio::test]
async fn after_ten_thousand_changes_there_is_a_snapshot_and_a_start_from_it_knows_everything() {
    let directory = tempfile::tempdir().unwrap();
    let journal = || FileJournal::open(Arc::new(RealDisk), directory.path(), JournalOptions::default()).unwrap();
    let snapshots = || FileSnapshots::new(Arc::new(RealDisk), directory.path());
    let engine = Arc::new(open_with(journal(), snapshots(), &hand(1_000)));
    engine.change(create("bad", "192.0.2.0/24", None)).await.unwrap();
    for round in 0..101 {
        let changes: Vec<_> = (0..100)
            .map(|number| {
                let display_name = Some(format!("{round}-{number}").into());
                let patch = NodePatch { display_name, ..NodePatch::default() };
                let engine = Arc::clone(&engine);
                let change = request(Mutation::UpdateNode { key: None, etag: None, patch });
                tokio::spawn(async move { engine.change(change).await })
            })
            .collect();
        for change in changes {
            change.await.unwrap().unwrap();
        }
    }
    engine.close();
    drop(engine);
    let (sequence, bytes) = snapshots().newest_valid().unwrap().expect("a snapshot");
    assert!(sequence >= 10_000, "{sequence}");
    let (_, change) = journal().read_from(sequence).unwrap().next().unwrap().unwrap();
    let last = decode_change(&change).unwrap().identity();
    assert_eq!(decode_snapshot(&bytes).unwrap().last, Some(last), "it says which change it is after");

    // Set back behind the newest record, which the snapshot may be the last to hold.
    let engine = open_with(journal(), snapshots(), &hand(1));
    assert_eq!(ask(&engine, "192.0.2.1", 0).await.unwrap(), (Reason::DenyRule, 10_102));
    assert!(engine.clock().now() >= Timestamp::new(1_000, 0).unwrap());
}

fn numbered(number: u8) -> Id {
    Id::parse(&format!("organization-{number}")).unwrap()
}

/// Organizations that each deny a network of their own.
async fn create_organizations(engine: &Engine, count: u8) {
    for number in 0..count {
        let target = ChangeTarget::CreateOrganization { id: numbered(number), patch: NodePatch::default() };
        engine.change(ChangeRequest::new(target)).await.unwrap();
        let mutation = deny("own", &format!("10.0.{number}.0/24"), None);
        let target = ChangeTarget::Organization { id: numbered(number), mutation };
        engine.change(ChangeRequest::new(target)).await.unwrap();
    }
}

#[tokio::test]
async fn a_change_in_one_organization_leaves_every_other_as_it_was() {
    let engine = open(MemoryJournal::new(), &hand(1_000));
    create_organizations(&engine, 100).await;
    let versions = || engine.directory().organizations_after(None, usize::MAX);
    let (before, cluster) = (versions(), engine.directory().cluster());
    engine.change(create("one", "192.0.2.0/24", None)).await.unwrap();
    let after = versions();
    assert_eq!((before.len(), after.len()), (101, 101));
    for (before, after) in before.iter().zip(&after) {
        let is_changed = after.view.organization.id.as_str() == "default";
        assert_ne!(Arc::ptr_eq(before, after), is_changed, "{}", after.view.organization.id);
    }
    assert!(Arc::ptr_eq(&cluster, &engine.directory().cluster()));
}

#[tokio::test]
async fn a_start_with_many_organizations_gives_each_its_own_policy() {
    let directory = tempfile::tempdir().unwrap();
    let journal = || FileJournal::open(Arc::new(RealDisk), directory.path(), JournalOptions::default()).unwrap();
    let engine = open(journal(), &hand(1_000));
    create_organizations(&engine, 100).await;
    engine.close();
    drop(engine);

    let engine = open(journal(), &hand(2_000));
    for number in 0..100_u8 {
        for network in [number, number + 1] {
            let target = format!("organizations/{}", numbered(number));
            let question = Question {
                address: format!("10.0.{network}.7").parse().unwrap(),
                connection_type: ConnectionType::Shell,
                target: NodePath::parse(&target).unwrap(),
                user_email: "",
                session_lease: None,
                request_id: "",
                min_revision: 2,
                min_cluster_revision: 0,
            };
            let expected = if network == number { Reason::DenyRule } else { Reason::DefaultAllow };
            assert_eq!(engine.check(&question).await.unwrap().reason, expected, "{target}, network {network}");
        }
    }
}
