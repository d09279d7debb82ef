//! An engine on real files in a directory, without gRPC, for tests of what lies in the files.
//!
//! Invariant: what `check` has answered is queued; after `close` everything is on the disk.
//! Not here: the tests themselves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::checkpoint::Checkpoint;
use portcullis::audit::filter::RecordFilter;
use portcullis::audit::lineage::Lineage;
use portcullis::audit::merkle::TreeHead;
use portcullis::audit::note::SignerKey;
use portcullis::audit::record::{Actor, Content, PolicyChangeRecord, RecordType};
use portcullis::engine::audit::{AuditOptions, AuditStores, Durability, EraseRequest};
use portcullis::engine::change::{ChangeRequest, ChangeTarget, Changed};
use portcullis::engine::clock::Clock;
use portcullis::engine::question::{Answer, CheckError, Question};
use portcullis::engine::{Engine, Options, SessionStores, Stores};
use portcullis::policy::change::Effect;
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::state::PolicyState;
use portcullis::policy::time::Timestamp;
use portcullis::store::backup::DirectoryFiles;
use portcullis::store::codec::audit::{decode_entry, decode_tail};
use portcullis::store::codec::encode_change;
use portcullis::store::disk::{Disk, RealDisk};
use portcullis::store::folder::Folder;
use portcullis::store::journal::{FileJournal, JournalOptions, JournalReader, Stream};
use portcullis::store::sealed::SealedFiles;
use portcullis::store::snapshots::{FileSnapshots, MemorySnapshots};
use portcullis::store::state::MemoryState;
use portcullis::store::{Journal, JournalError, Log, Redaction, StateError, StateStore, StateStores};

use crate::clock::{PATIENCE, until};

pub(crate) const DEFAULT: &str = "organizations/default";

struct Memory;

impl StateStores for Memory {
    fn open(&self) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(MemoryState::new()))
    }
}

/// The key of a log; every seed is another one.
pub(crate) fn key(seed: u8) -> SignerKey {
    SignerKey::new("test.example/audit", &[seed; 32]).unwrap()
}

/// Everything asynchronous, units that are sealed as soon as they have a tile, and maintenance as often as it can.
pub(crate) fn small_units() -> Options {
    let audit = AuditOptions {
        shell: Durability::Async,
        preview: Durability::Async,
        unit_age_max: Duration::ZERO,
        checkpoint_interval: Duration::ZERO,
        retention_interval: Duration::ZERO,
        closing_interval: Duration::from_millis(100),
        ..AuditOptions::default()
    };
    Options { audit, ..Options::default() }
}

/// An engine whose log and sessions are in a data directory on a disk. Its policy is there, too, on the real disk; a
/// directory without a policy gets one that its log can have been written with.
pub(crate) fn open_on(disk: Arc<dyn Disk>, data_dir: &Path, key: SignerKey, options: Options) -> Engine {
    open_with(disk, data_dir, key, options, Clock::system())
}

fn open_with(disk: Arc<dyn Disk>, data_dir: &Path, key: SignerKey, options: Options, clock: Clock) -> Engine {
    let policy = data_dir.join("policy");
    let begun = policy.exists();
    std::fs::create_dir_all(&policy).unwrap();
    let mut journal = FileJournal::open(Arc::new(RealDisk), policy, JournalOptions::default()).unwrap();
    if !begun && let Some((last, time)) = newest_change(data_dir) {
        let first = PolicyState::first_changes(time).unwrap();
        let later = (2..).map(|revision| (revision, time)).take(usize::try_from(last.policy_sequence - 2).unwrap());
        let records =
            first.iter().map(encode_change).chain(later.map(|(revision, time)| without_effect(revision, time)));
        journal.append(&records.collect::<Vec<_>>()).unwrap();
        assert_eq!(journal.next_sequence(), last.policy_sequence + 1);
    }
    open_with_policy(Box::new(journal), disk, data_dir, key, options, clock)
}

/// The newest change of policy that the journal of a log records, and when it was made.
fn newest_change(data_dir: &Path) -> Option<(PolicyChangeRecord, Timestamp)> {
    let disk = Arc::new(RealDisk);
    let journal = JournalReader::open(disk, data_dir.join("audit"), &JournalOptions::audit(1)).unwrap();
    let records = journal.read_from(journal.first_sequence()).unwrap();
    let entries = records.map(|record| decode_entry(&decode_tail(&record.unwrap().1).unwrap().body).unwrap().entry);
    let changes = entries.filter_map(|entry| match entry.content {
        Content::PolicyChanged(change) => Some((change, entry.time)),
        _ => None,
    });
    changes.last()
}

/// A change of the default organization that alters nothing but its revision.
fn without_effect(revision: u64, time: Timestamp) -> Vec<u8> {
    let effect = Effect::Organization { id: Id::parse("default").unwrap(), revision, deltas: Vec::new() };
    let [mut change, _] = PolicyState::first_changes(time).unwrap();
    change.effect = effect;
    encode_change(&change)
}

/// As [`open_on`], with a policy journal.
pub(crate) fn open_with_policy(
    policy: Box<dyn Redaction>,
    disk: Arc<dyn Disk>,
    data_dir: &Path,
    key: SignerKey,
    options: Options,
    clock: Clock,
) -> Engine {
    Engine::open(stores(policy, disk, data_dir, key), options, clock).unwrap()
}

/// The stores of [`open_with_policy`].
pub(crate) fn stores(policy: Box<dyn Redaction>, disk: Arc<dyn Disk>, data_dir: &Path, key: SignerKey) -> Stores {
    let (audit, sessions) = (data_dir.join("audit"), data_dir.join("sessions"));
    let (journal_disk, journal_directory) = (Arc::clone(&disk), audit.clone());
    let journal = move |first_sequence| -> Result<Box<dyn Journal>, JournalError> {
        let options = JournalOptions::audit(first_sequence);
        Ok(Box::new(FileJournal::open(journal_disk, journal_directory, options)?))
    };
    let session_options = JournalOptions { stream: Stream::Sessions, ..JournalOptions::default() };
    let session_journal = FileJournal::open(Arc::clone(&disk), &sessions, session_options).unwrap();
    Stores {
        journal: policy,
        snapshots: Box::new(MemorySnapshots::new()),
        state: Box::new(Memory),
        audit: AuditStores {
            journal: Box::new(journal),
            disk: Arc::clone(&disk),
            directory: audit,
            key,
            make_room: Box::new(|| {}),
        },
        sessions: SessionStores {
            snapshots: Box::new(FileSnapshots::new(disk, &sessions).newest_only()),
            journal: Box::new(session_journal),
        },
        lineage: Lineage::new(1),
        backup: Some(Box::new(DirectoryFiles::open(data_dir).unwrap())),
        keep: Box::new(()),
    }
}

/// The same on real files.
pub(crate) fn open(data_dir: &Path, key: SignerKey, options: Options) -> Engine {
    open_by(data_dir, key, options, Clock::system())
}

/// The same with a clock of the caller's.
pub(crate) fn open_by(data_dir: &Path, key: SignerKey, options: Options, clock: Clock) -> Engine {
    std::fs::create_dir_all(data_dir.join("audit")).unwrap();
    std::fs::create_dir_all(data_dir.join("sessions")).unwrap();
    open_with(Arc::new(RealDisk), data_dir, key, options, clock)
}

/// Asks.
pub(crate) async fn check(
    engine: &Engine,
    email: &str,
    ip: &str,
    connection_type: ConnectionType,
    endpoint: &str,
) -> Result<Answer, CheckError> {
    let question = Question {
        address: ip.parse().unwrap(),
        connection_type,
        target: NodePath::parse(endpoint).unwrap(),
        user_email: email,
        session_lease: None,
        request_id: "",
        min_revision: 0,
        min_cluster_revision: 0,
    };
    engine.check(&question).await
}

/// Adds a rule at the end.
pub(crate) async fn add_rule(engine: &Engine, id: &str, action: Action, range: &str) -> Changed {
    let patch =
        RulePatch { action: Some(action), source: Some(Source::Range(range.parse().unwrap())), ..RulePatch::default() };
    let mutation = Mutation::CreateRule { id: Some(Id::parse(id).unwrap()), position: None, patch };
    change(engine, mutation).await
}

/// Changes the default organization.
pub(crate) async fn change(engine: &Engine, mutation: Mutation) -> Changed {
    let request = ChangeRequest::new(ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation });
    engine.change(request).await.unwrap()
}

/// Adds a rule to the default organization, as `actor`.
pub(crate) async fn add_rule_as(actor: &str, engine: &Engine, id: &str) {
    let source = Some(Source::Range("203.0.113.0/24".parse().unwrap()));
    let patch = RulePatch { action: Some(Action::Deny), source, ..RulePatch::default() };
    let mutation = Mutation::CreateRule { id: Some(Id::parse(id).unwrap()), position: None, patch };
    let target = ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation };
    engine.change(ChangeRequest { actor: actor.into(), ..ChangeRequest::new(target) }).await.unwrap();
}

/// An erasure of a user everywhere.
pub(crate) fn erasure(email: &str, asked_by: &str) -> EraseRequest {
    let asked_by = Actor { name: asked_by.into() };
    EraseRequest { organization: None, email: email.to_owned(), including_actor: false, asked_by }
}

/// The sealed units in a directory.
pub(crate) fn sealed_files(directory: &Path) -> SealedFiles {
    SealedFiles::new(Folder::new(Arc::new(RealDisk), directory))
}

/// Waits until everything that was queued is durable, and returns the sequence of the last record of it.
pub(crate) async fn settle(engine: &Engine) -> u64 {
    let (last, mut newest) = (engine.audit().queue().last_sequence(), engine.audit().newest());
    let durable = async {
        while newest.look() < last {
            newest.changed().await.unwrap();
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, durable).await;
    assert!(in_time.is_ok(), "record {last} is not durable, but {}", newest.look());
    last
}

/// Waits until so many records of a type are durable.
pub(crate) async fn recorded(engine: &Engine, record_type: RecordType, count: u64) {
    let filter = RecordFilter { types: vec![record_type], ..RecordFilter::default() };
    until("records of a type", async || (engine.audit().count(&filter).unwrap() >= count).then_some(())).await;
}

/// How many sealed units a data directory has.
pub(crate) fn sealed_units(data_dir: &Path) -> usize {
    sealed_files(&data_dir.join("audit")).list().unwrap().len()
}

/// Records 600 previews, and as many more as it takes until another unit is sealed: the sealer ends one of 256 records or
/// more with the tile that is begun.
pub(crate) async fn another_unit(engine: &Engine, data_dir: &Path) {
    let before = sealed_units(data_dir);
    let mut records = 0;
    while records < 600 || sealed_units(data_dir) == before {
        assert!(records < 100_000, "no unit is sealed");
        let email = format!("user-{}@example.com", records % 7);
        check(engine, &email, "198.51.100.1", ConnectionType::Preview, DEFAULT).await.unwrap();
        records += 1;
        if records % 64 == 0 {
            settle(engine).await;
        }
    }
}

/// Waits until a checkpoint covers all that was queued, and returns its tree.
pub(crate) async fn signed(engine: &Engine) -> TreeHead {
    let (log, newest) = (engine.audit(), settle(engine).await);
    let key = log.verifier().clone();
    until("a checkpoint of every record", async || {
        let note = log.checkpoint().ok()?;
        let head = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&key), key.name()).unwrap().head();
        (head.size >= newest).then_some(head)
    })
    .await
}
