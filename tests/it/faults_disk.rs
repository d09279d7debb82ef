//! What an engine stands on in the campaign over faults: a disk in memory whose directories fail, fill up or do not answer,
//! each by itself, and a mirror that fails.
//!
//! Invariant: after a crash nothing of the old process reaches what the next one stands on.
//! Not here: what a power cut leaves of a file (`store_disk`), and what is done with all this (`faults_engine`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::audit::lineage::Lineage;
use portcullis::audit::note::SignerKey;
use portcullis::engine::audit::{AuditError, AuditStores, LogFiles, Verification, verify_files};
use portcullis::engine::{SessionStores, Stores};
use portcullis::store::disk::{Disk, DiskFile};
use portcullis::store::journal::{FileJournal, JournalOptions, JournalReader, Stream};
use portcullis::store::snapshots::FileSnapshots;
use portcullis::store::state::MemoryState;
use portcullis::store::{Batch, Journal, JournalError, Keyspace, Page, StateError, StateStore, StateStores};

use crate::store_disk::{Fault, SimulatedDisk, Survival, Trouble};

/// What can fail by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Store {
    Policy,
    Audit,
    Sessions,
    Mirror,
}

impl Store {
    pub(crate) const ALL: [Self; 4] = [Self::Policy, Self::Audit, Self::Sessions, Self::Mirror];
    const ON_DISK: [Self; 3] = [Self::Policy, Self::Audit, Self::Sessions];

    fn directory(self) -> &'static Path {
        Path::new(match self {
            Self::Policy => "/policy",
            Self::Audit => "/audit",
            Self::Sessions => "/sessions",
            Self::Mirror => "/sled",
        })
    }
}

/// See the module.
pub(crate) struct Surroundings {
    disk: SimulatedDisk,
    stalls: Stalls,
    mirror: Mirror,
    troubled: Vec<Store>,
    /// A number for each copy that was put back.
    lineage: u64,
}

/// Which directories do not answer.
#[derive(Clone, Debug, Default)]
struct Stalls(Arc<[AtomicBool; 3]>);

impl Stalls {
    fn pass(&self, path: &Path) {
        let stalled = Store::ON_DISK.iter().zip(&*self.0).find(|(store, _)| path.starts_with(store.directory()));
        while stalled.is_some_and(|(_, stalled)| stalled.load(Ordering::SeqCst)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        let disk = SimulatedDisk::default();
        disk.allow_room();
        Self { disk, stalls: Stalls::default(), mirror: Mirror::default(), troubled: Vec::new(), lineage: 1 }
    }
}

impl Surroundings {
    /// The same once more, without a mirror, while no process uses it.
    pub(crate) fn copy(&self) -> Self {
        Self { disk: self.disk.copy(), lineage: self.lineage, ..Self::default() }
    }

    /// This goes, and an earlier copy takes its place in a new lineage, as a restore does it.
    pub(crate) fn put_back(&mut self, copy: Self) {
        self.crash(None, false);
        *self = Self { lineage: self.lineage + 1, ..copy };
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(Stallable { disk: self.disk.clone(), stalls: self.stalls.clone() })
    }

    /// The stores of an engine.
    pub(crate) fn stores(&self) -> Result<Stores, JournalError> {
        let disk = self.disk();
        let policy = FileJournal::open(Arc::clone(&disk), Store::Policy.directory(), JournalOptions::default())?;
        let session_options = JournalOptions { stream: Stream::Sessions, ..JournalOptions::default() };
        let sessions = FileJournal::open(Arc::clone(&disk), Store::Sessions.directory(), session_options)?;
        let session_snapshots = FileSnapshots::new(Arc::clone(&disk), Store::Sessions.directory()).newest_only();
        let audit_disk = Arc::clone(&disk);
        let audit = move |first_sequence| -> Result<Box<dyn Journal>, JournalError> {
            let options = JournalOptions::audit(first_sequence);
            Ok(Box::new(FileJournal::open(audit_disk, Store::Audit.directory(), options)?))
        };
        Ok(Stores {
            journal: Box::new(policy),
            snapshots: Box::new(FileSnapshots::new(Arc::clone(&disk), Store::Policy.directory())),
            state: Box::new(self.mirror.clone()),
            audit: AuditStores {
                journal: Box::new(audit),
                disk,
                directory: directory(Store::Audit),
                key: key(),
                make_room: Box::new(|| {}),
            },
            sessions: SessionStores { snapshots: Box::new(session_snapshots), journal: Box::new(sessions) },
            lineage: Lineage::new(self.lineage),
            backup: None,
            keep: Box::new(()),
        })
    }

    /// Verifies the audit log with nothing but its files.
    pub(crate) fn verify(&self, note: Option<&str>) -> Result<Verification, AuditError> {
        let (disk, audit) = (self.disk(), directory(Store::Audit));
        let (tail_disk, tail_directory) = (Arc::clone(&disk), audit.clone());
        let tail = Box::new(move |first_sequence: u64| {
            let options = JournalOptions::audit(first_sequence);
            let (reader, fault) = match JournalReader::open_damaged(tail_disk, tail_directory, &options) {
                Ok(opened) => opened,
                Err(error) => return vec![Err(error)],
            };
            let from = first_sequence.clamp(reader.first_sequence(), reader.next_sequence());
            reader.read_from(from).unwrap().chain(fault.map(Err)).collect()
        });
        let trusted = vec![key().verifier().clone()];
        verify_files(LogFiles { disk, directory: audit, trusted, beside: Vec::new(), tail }, note, &mut |_, _| true)
    }

    /// Something goes wrong with a store from now on.
    pub(crate) fn trouble(&mut self, store: Store, trouble: Trouble) {
        self.troubled.push(store);
        match store {
            Store::Mirror => self.mirror.fails.store(true, Ordering::SeqCst),
            _ => self.disk.trouble(store.directory(), Some(trouble)),
        }
    }

    /// A store does not answer from now on.
    pub(crate) fn stall(&mut self, store: Store) {
        self.troubled.push(store);
        match self.stalls.0.get(store as usize) {
            Some(stalled) => stalled.store(true, Ordering::SeqCst),
            None => self.mirror.fails.store(true, Ordering::SeqCst),
        }
    }

    /// Every store answers again, perhaps with an error.
    pub(crate) fn answer(&self) {
        self.stalls.0.iter().for_each(|stalled| stalled.store(false, Ordering::SeqCst));
    }

    /// Everything works again. True if something had not.
    pub(crate) fn heal(&mut self) -> bool {
        self.answer();
        self.mirror.fails.store(false, Ordering::SeqCst);
        for store in Store::ON_DISK {
            self.disk.trouble(store.directory(), None);
        }
        !std::mem::take(&mut self.troubled).is_empty()
    }

    pub(crate) fn is_troubled(&self) -> bool {
        !self.troubled.is_empty()
    }

    /// The machine goes off at the so many-th operation from now on.
    pub(crate) fn cut_after(&self, operations: usize) {
        self.disk.fail_at(self.disk.operations() + operations, Fault::PowerCut);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    /// Whether a file holds these bytes as they are.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        self.disk.holds(bytes)
    }

    /// What is there after the process has died and, with a survival, the power has gone. A mirror that is `lost` is
    /// empty.
    pub(crate) fn crash(&mut self, survival: Option<Survival>, lost: bool) {
        let disk = self.disk.crash(survival);
        self.heal();
        self.mirror.dead.store(true, Ordering::SeqCst);
        let state = if lost { Arc::default() } else { Arc::clone(&self.mirror.state) };
        let mirror = Mirror { state, ..Mirror::default() };
        *self = Self { disk, stalls: Stalls::default(), mirror, troubled: Vec::new(), lineage: self.lineage };
    }
}

fn directory(store: Store) -> PathBuf {
    store.directory().to_owned()
}

/// The key of the log.
pub(crate) fn key() -> SignerKey {
    SignerKey::new("test.example/audit", &[7; 32]).unwrap()
}

/// A disk that may not answer.
#[derive(Debug)]
struct Stallable {
    disk: SimulatedDisk,
    stalls: Stalls,
}

#[derive(Debug)]
struct StallableFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    stalls: Stalls,
}

impl Stallable {
    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(StallableFile { file, path: path.to_owned(), stalls: self.stalls.clone() })
    }
}

impl Disk for Stallable {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.wrap(path, file))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.stalls.pass(path);
        self.disk.create(path).map(|file| self.wrap(path, file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.stalls.pass(to);
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.stalls.pass(path);
        self.disk.remove(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.stalls.pass(directory);
        self.disk.sync_directory(directory)
    }
}

impl DiskFile for StallableFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.stalls.pass(&self.path);
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.stalls.pass(&self.path);
        self.file.sync()
    }
    fn settle(&self) -> io::Result<()> {
        self.stalls.pass(&self.path);
        self.file.settle()
    }
}

/// A mirror that outlasts the process and fails on demand.
#[derive(Clone, Default)]
struct Mirror {
    state: Arc<MemoryState>,
    fails: Arc<AtomicBool>,
    /// Its process has died.
    dead: Arc<AtomicBool>,
}

impl Mirror {
    fn pass(&self) -> Result<(), StateError> {
        let broken = [&self.fails, &self.dead].into_iter().any(|flag| flag.load(Ordering::SeqCst));
        let (path, detail) = (directory(Store::Mirror), "injected".to_owned());
        if broken { Err(StateError::Damaged { path, detail }) } else { Ok(()) }
    }
}

impl StateStores for Mirror {
    fn open(&self) -> Result<Box<dyn StateStore>, StateError> {
        self.pass().map(|()| Box::new(self.clone()) as Box<dyn StateStore>)
    }
}

impl StateStore for Mirror {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.pass().and_then(|()| self.state.get(keyspace, key))
    }
    fn apply(&self, batch: &Batch) -> Result<(), StateError> {
        self.pass().and_then(|()| self.state.apply(batch))
    }
    fn scan(&self, keyspace: Keyspace, from: &[u8], entries_max: usize) -> Result<Page, StateError> {
        self.pass().and_then(|()| self.state.scan(keyspace, from, entries_max))
    }
    fn flush(&self) -> Result<(), StateError> {
        self.pass().and_then(|()| self.state.flush())
    }
}
