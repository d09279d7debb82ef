//! Opening the data directory: the file and sled adapters behind the engine's ports.
//!
//! Invariant: the lock on the directory is held as long as the engine lives.
//! Not here: what is recovered and how (`engine`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::audit_key::{self, Keys};
use super::restore;
use crate::audit::lineage::Lineage;
use crate::audit::note::SignerKey;
use crate::config::{Config, Durability, OnAuditFailure, RecordConfig};
use crate::engine::audit::{self, AuditOptions, AuditStores, CHECKPOINTS};
use crate::engine::clock::{Clock, Kept};
use crate::engine::sessions::SessionOptions;
use crate::engine::{Engine, Options, SessionStores, Stores};
use crate::store::advice::{FROM_COPY, OR_ACCEPT};
use crate::store::backup::DirectoryFiles;
use crate::store::clock_file::ClockFile;
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{FileJournal, JournalOptions, SegmentFiles, Stream};
use crate::store::presence::Presence;
use crate::store::restoring::{self, RESTORED};
use crate::store::snapshots::FileSnapshots;
use crate::store::state::{Reopened, SledState};
use crate::store::{Journal, StateError, StateStore, StateStores};

/// Opens the engine on the configured data directory: the service without its network edge.
pub fn open(config: &Config) -> anyhow::Result<Engine> {
    open_on(config, &real_disk())
}

/// Opens the engine with the files of the data directory on the given disk.
pub fn open_on(config: &Config, disk: &Arc<dyn Disk>) -> anyhow::Result<Engine> {
    open_with(config, disk, Clock::system()).map(|(engine, _)| engine)
}

/// The operating system's files.
pub(super) fn real_disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// The same with another clock than the operating system's; tells also where the directory is.
pub(super) fn open_with(config: &Config, disk: &Arc<dyn Disk>, clock: Clock) -> anyhow::Result<(Engine, Presence)> {
    let was_used = config.data_dir.join("FORMAT").exists();
    let directory = Arc::new(DataDirectory::open(&config.data_dir)?);
    let snapshots = FileSnapshots::new(Arc::clone(disk), directory.policy());
    let begun = directory.begun();
    let restored = restore::restored_from(directory.path())?;
    let mut presence = Presence::of(&directory)?;
    let remains = Remains::of(&directory, was_used)?;
    let mut faults: Vec<anyhow::Error> = missing(&directory)?.into_iter().map(anyhow::Error::msg).collect();
    let mut keep = |error: anyhow::Error| faults.push(error);
    let journal = FileJournal::open(Arc::clone(disk), directory.policy(), JournalOptions::default())
        .and_then(|journal| journal.watched_by(presence.of_journal()));
    let journal = journal.map_err(anyhow::Error::new).map_err(&mut keep);
    let RecordConfig { audit_key_file, audit_key_new, .. } = &config.record;
    let keys = audit_key::load(disk, &directory, audit_key_file.as_deref(), *audit_key_new).map_err(&mut keep);
    let session_files = open_sessions(disk, &directory, presence.of_journal()).map_err(&mut keep);
    let (Ok(journal), Ok(keys), Ok(session_files), true) = (journal, keys, session_files, faults.is_empty()) else {
        return Err(all(&faults));
    };
    let state = Box::new(Sled { path: directory.sled() });
    let Keys { signer: key, earlier, mut unwritten } = keys;
    let kept_key = key.clone();
    let session_options = sessions(&config.record, &key);
    let stores = Stores {
        journal: Box::new(journal),
        snapshots: Box::new(snapshots),
        state,
        audit: open_audit(disk, &directory, key, presence.of_journal()),
        sessions: session_files,
        lineage: Lineage::new(directory.lineage()?),
        backup: Some(Box::new(DirectoryFiles::open(directory.path())?)),
        keep: Box::new(Arc::clone(&directory)),
    };
    let options = Options {
        limits: config.limits,
        audit: AuditOptions { earlier_keys: earlier, ..audit_options(&config.record) },
        sessions: session_options,
        nat64_prefixes: config.nat64_prefixes.as_slice().to_vec(),
        restored: restored.is_some(),
    };
    let file = ClockFile::new(directory.path());
    let (last, forgotten) = (file.read(), file.clone());
    let (write, forget) = (Box::new(move |text: &str| file.write(text)), Box::new(move || forgotten.forget()));
    let clock = clock.kept(Kept { last, write, forget });
    let engine = Engine::open_and(stores, options, clock, || unwritten.write_key(&kept_key));
    let engine = engine.context("recovering what is stored")?;
    unwritten.write_public(disk, &directory, &engine.audit())?;
    if let Some(previous) = restored {
        record_restore(&engine, previous, &directory)?;
    }
    begun.mark(engine.audit().signed().is_some())?;
    remains.tell(&directory);
    // Last: on a full disk, opening needs the room that the ballast gave up.
    if let Err(error) = directory.restore_ballast() {
        tracing::warn!(%error, "cannot write the ballast: a later start on a full disk may fail");
    }
    Ok((engine, presence))
}

/// Puts a restore on the record, once.
fn record_restore(engine: &Engine, previous: Lineage, directory: &DataDirectory) -> anyhow::Result<()> {
    engine.record_restored(previous).context("recording the restore")?;
    restoring::remove(directory.path(), RESTORED)?;
    tracing::warn!(%previous, lineage = %engine.lineage(), "this is restored from a backup: what came after it is lost");
    Ok(())
}

/// What a directory that was in use must have, and has not. After the first start there are changes in the policy journal,
/// records of them in the audit log, and checkpoints over these.
fn missing(directory: &DataDirectory) -> anyhow::Result<Vec<String>> {
    let begun = directory.begun();
    let mut faults = Vec::new();
    if !begun.is_marked()? {
        return Ok(faults);
    }
    let (policy, audit) = (directory.policy(), directory.audit());
    if !holds_any(&policy, &[".wal"])? {
        faults.push(format!(
            "the policy journal in `{}` is missing, though the directory was in use, and without a policy everybody is \
             allowed: restore it {FROM_COPY}",
            policy.display()
        ));
    }
    if !holds_any(&audit, &[".wal", ".seg"])? {
        faults.push(format!(
            "the audit log in `{}` is missing, though the directory was in use: restore it {FROM_COPY}{OR_ACCEPT}",
            audit.display()
        ));
    } else if begun.is_signed()? && !audit.join(CHECKPOINTS).try_exists()? {
        faults.push(format!(
            "the checkpoints of the audit log, `{}`, are missing, so nothing shows whether the log is whole: restore them {FROM_COPY}{OR_ACCEPT}",
            audit.join(CHECKPOINTS).display()
        ));
    }
    Ok(faults)
}

/// What a directory held before a start made it whole.
struct Remains {
    was_used: bool,
    has_policy: bool,
    is_begun: bool,
}

impl Remains {
    fn of(directory: &DataDirectory, was_used: bool) -> anyhow::Result<Self> {
        let has_policy = holds_any(&directory.policy(), &[".wal"])?;
        Ok(Self { was_used, has_policy, is_begun: directory.begun().is_marked()? })
    }

    /// Tells what the start made anew that a directory in use has.
    fn tell(&self, directory: &DataDirectory) {
        let Self { was_used, has_policy, is_begun } = *self;
        let path = directory.path().display();
        if was_used && !has_policy {
            tracing::warn!(
                %path,
                "the directory was in use and has no policy any more: the service begins with one that allows everybody; \
                 import a policy before portals ask"
            );
        } else if has_policy && !is_begun {
            tracing::warn!(%path, "the file `BEGUN` was missing and is made again");
        }
    }
}

fn holds_any(directory: &Path, suffixes: &[&str]) -> std::io::Result<bool> {
    for entry in directory.read_dir()? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One error of all.
fn all(faults: &[anyhow::Error]) -> anyhow::Error {
    if let [only] = faults {
        return anyhow!("{only:#}");
    }
    let numbered = (1..).zip(faults).map(|(number, fault)| format!("({number}) {fault:#}"));
    anyhow!("{}", numbered.collect::<Vec<_>>().join("; "))
}

fn open_audit(
    disk: &Arc<dyn Disk>,
    directory: &Arc<DataDirectory>,
    key: SignerKey,
    files: Arc<SegmentFiles>,
) -> AuditStores {
    let (journal_disk, path) = (Arc::clone(disk), directory.audit());
    let journal = move |first_sequence| -> Result<Box<dyn Journal>, crate::store::JournalError> {
        let options = JournalOptions::audit(first_sequence);
        Ok(Box::new(FileJournal::open(journal_disk, path, options)?.watched_by(files)?))
    };
    let room = Arc::clone(directory);
    let make_room = move || {
        if let Err(error) = room.make_room() {
            tracing::warn!(%error, "cannot remove the ballast to make room for the last records");
        }
    };
    let (disk, directory, make_room) = (Arc::clone(disk), directory.audit(), Box::new(make_room));
    AuditStores { journal: Box::new(journal), disk, directory, key, make_room }
}

fn open_sessions(
    disk: &Arc<dyn Disk>,
    directory: &DataDirectory,
    files: Arc<SegmentFiles>,
) -> anyhow::Result<SessionStores> {
    let options = JournalOptions { stream: Stream::Sessions, ..JournalOptions::default() };
    let journal = FileJournal::open(Arc::clone(disk), directory.sessions(), options)?.watched_by(files)?;
    let snapshots = FileSnapshots::new(Arc::clone(disk), directory.sessions()).newest_only();
    Ok(SessionStores { snapshots: Box::new(snapshots), journal: Box::new(journal) })
}

fn audit_options(config: &RecordConfig) -> AuditOptions {
    let durability = |durability| match durability {
        Durability::Sync => audit::Durability::Sync,
        Durability::Async => audit::Durability::Async,
    };
    AuditOptions {
        shell: durability(config.audit_shell),
        preview: durability(config.audit_preview),
        on_failure: match config.on_audit_failure {
            OnAuditFailure::Deny => audit::OnAuditFailure::Deny,
            OnAuditFailure::Allow => audit::OnAuditFailure::Allow,
        },
        deadline: config.audit_deadline,
        async_interval: config.audit_async_interval,
        retention_age: config.audit_retention_age,
        retention_bytes: config.audit_retention_bytes,
        ..AuditOptions::default()
    }
}

fn sessions(config: &RecordConfig, key: &SignerKey) -> SessionOptions {
    let [first, second] = audit_key::derived(key);
    SessionOptions {
        key: [first, second],
        idle: config.session_idle,
        max_age: config.session_max_age,
        active_max: config.active_sessions_max,
    }
}

/// The embedded database in the data directory.
struct Sled {
    path: PathBuf,
}

impl StateStores for Sled {
    fn open(&self) -> Result<Box<dyn StateStore>, StateError> {
        let (store, reopened) = SledState::open_or_move_aside(&self.path)?;
        if let Reopened::MovedAside(path) = reopened {
            let path = path.display();
            tracing::warn!(%path, "the sled database was damaged and is moved aside: it is rebuilt from the journal");
        }
        Ok(Box::new(store))
    }
}
