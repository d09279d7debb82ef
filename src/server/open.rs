//! Opening the data directory: the file and sled adapters behind the engine's ports.
//!
//! Invariant: the lock on the directory is held as long as the engine lives.
//! Not here: what is recovered and how (`engine`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::engine::clock::Clock;
use crate::engine::{Engine, Stores};
use crate::policy::limits::Limits;
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{FileJournal, JournalOptions};
use crate::store::snapshots::FileSnapshots;
use crate::store::state::{Reopened, SledState};
use crate::store::{Journal, StateError, StateStore, StateStores};

/// Opens the engine on a data directory.
pub(super) fn open(data_dir: &Path, limits: Limits) -> anyhow::Result<Engine> {
    let directory = DataDirectory::open(data_dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let snapshots = FileSnapshots::new(Arc::clone(&disk), directory.policy());
    let journal = FileJournal::open(disk, directory.policy(), JournalOptions::default())?;
    let begun = directory.begun();
    if begun.is_marked()? && journal.next_sequence() == 1 {
        bail!(
            "the policy journal in `{}` is missing, though the directory was in use: restore its files from a backup, \
             or choose an empty directory to begin with no policy, which allows everything",
            directory.policy().display()
        );
    }
    let state = Box::new(Sled { path: directory.sled() });
    if let Err(error) = directory.restore_ballast() {
        tracing::warn!(%error, "no room is set aside for a full disk");
    }
    let stores =
        Stores { journal: Box::new(journal), snapshots: Box::new(snapshots), state, keep: Box::new(directory) };
    let engine = Engine::open(stores, limits, Clock::system()).context("recovering the policy")?;
    begun.mark()?;
    Ok(engine)
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
