//! Opening the data directory: the file and sled adapters behind the engine's ports.
//!
//! Invariant: the lock on the directory is held as long as the engine lives.
//! Not here: what is recovered and how (`engine`).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::audit_key;
use crate::audit::lineage::Lineage;
use crate::audit::note::SignerKey;
use crate::config::{Config, Durability, OnAuditFailure, RecordConfig};
use crate::engine::audit::{self, AuditOptions, AuditStores};
use crate::engine::clock::{Clock, Kept};
use crate::engine::sessions::SessionOptions;
use crate::engine::{Engine, Options, SessionStores, Stores};
use crate::store::clock_file::ClockFile;
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{FileJournal, JournalOptions, Stream};
use crate::store::snapshots::FileSnapshots;
use crate::store::state::{Reopened, SledState};
use crate::store::{Journal, Log, StateError, StateStore, StateStores};

/// Opens the engine on the configured data directory: the service without its network edge.
pub fn open(config: &Config) -> anyhow::Result<Engine> {
    open_at(config, Clock::system())
}

/// The same with another clock than the operating system's.
pub(super) fn open_at(config: &Config, clock: Clock) -> anyhow::Result<Engine> {
    open_with(config, &(Arc::new(RealDisk) as Arc<dyn Disk>), clock)
}

/// Opens the engine with the files of the data directory on the given disk.
pub fn open_on(config: &Config, disk: &Arc<dyn Disk>) -> anyhow::Result<Engine> {
    open_with(config, disk, Clock::system())
}

fn open_with(config: &Config, disk: &Arc<dyn Disk>, clock: Clock) -> anyhow::Result<Engine> {
    let directory = Arc::new(DataDirectory::open(&config.data_dir)?);
    let snapshots = FileSnapshots::new(Arc::clone(disk), directory.policy());
    let journal = FileJournal::open(Arc::clone(disk), directory.policy(), JournalOptions::default())?;
    let begun = directory.begun();
    if begun.is_marked()? && journal.next_sequence() == 1 {
        bail!(
            "the policy journal in `{}` is missing, though the directory was in use: restore its files from a backup, \
             or choose an empty directory to begin with no policy, which allows everything",
            directory.policy().display()
        );
    }
    let state = Box::new(Sled { path: directory.sled() });
    let key = audit_key::load(directory.path(), config.record.audit_key_file.as_deref())?;
    let session_options = sessions(&config.record, &key);
    let stores = Stores {
        journal: Box::new(journal),
        snapshots: Box::new(snapshots),
        state,
        audit: open_audit(disk, &directory, key),
        sessions: open_sessions(disk, &directory)?,
        lineage: Lineage::new(directory.lineage()?),
        keep: Box::new(Arc::clone(&directory)),
    };
    let options = Options {
        limits: config.limits,
        audit: audit_options(&config.record),
        sessions: session_options,
        nat64_prefixes: config.nat64_prefixes.as_slice().to_vec(),
    };
    let file = ClockFile::new(directory.path());
    let clock = clock.kept(Kept { last: file.read(), write: Box::new(move |text| file.write(text)) });
    let engine = Engine::open(stores, options, clock).context("recovering what is stored")?;
    begun.mark()?;
    // Last: on a full disk, opening needs the room that the ballast gave up.
    if let Err(error) = directory.restore_ballast() {
        tracing::warn!(%error, "cannot write the ballast: a later start on a full disk may fail");
    }
    Ok(engine)
}

fn open_audit(disk: &Arc<dyn Disk>, directory: &DataDirectory, key: SignerKey) -> AuditStores {
    let (journal_disk, path) = (Arc::clone(disk), directory.audit());
    let journal = move |first_sequence| -> Result<Box<dyn Journal>, crate::store::JournalError> {
        let options = JournalOptions::audit(first_sequence);
        Ok(Box::new(FileJournal::open(journal_disk, path, options)?))
    };
    AuditStores { journal: Box::new(journal), disk: Arc::clone(disk), directory: directory.audit(), key }
}

fn open_sessions(disk: &Arc<dyn Disk>, directory: &DataDirectory) -> anyhow::Result<SessionStores> {
    let options = JournalOptions { stream: Stream::Sessions, ..JournalOptions::default() };
    let journal = FileJournal::open(Arc::clone(disk), directory.sessions(), options)?;
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
