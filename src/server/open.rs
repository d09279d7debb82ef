//! Opening the data directory: the file and sled adapters behind the engine's ports.
//!
//! Invariant: the lock on the directory is held as long as the engine lives.
//! Not here: what is recovered and how (`engine`).

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::engine::clock::Clock;
use crate::engine::{Engine, Stores};
use crate::policy::limits::Limits;
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{FileJournal, JournalOptions};
use crate::store::snapshots::FileSnapshots;
use crate::store::state::{MemoryState, Reopened, SledState};
use crate::store::{Snapshots, StateStore};

/// Opens the engine on a data directory.
pub(super) fn open(data_dir: &Path, limits: Limits) -> anyhow::Result<Engine> {
    let directory = DataDirectory::open(data_dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let snapshots = FileSnapshots::new(Arc::clone(&disk), directory.policy());
    // An empty journal beside a snapshot begins where the snapshot ends.
    let first_sequence = snapshots.newest_valid()?.map_or(1, |(sequence, _)| sequence + 1);
    let options = JournalOptions { first_sequence, ..JournalOptions::default() };
    let journal = FileJournal::open(disk, directory.policy(), options)?;
    let state = open_state(&directory);
    if let Err(error) = directory.restore_ballast() {
        tracing::warn!(%error, "no room is set aside for a full disk");
    }
    let stores =
        Stores { journal: Box::new(journal), snapshots: Box::new(snapshots), state, keep: Box::new(directory) };
    Engine::open(stores, limits, Clock::system()).context("recovering the policy")
}

/// sled, or, where it cannot be opened at all, memory: what is read from it can always be made again, and a policy that
/// is safe in its journal must be served.
fn open_state(directory: &DataDirectory) -> Arc<dyn StateStore> {
    match SledState::open_or_move_aside(directory.sled()) {
        Ok((state, reopened)) => {
            if let Reopened::MovedAside(path) = reopened {
                let path = path.display();
                tracing::warn!(%path, "the sled database was damaged and is moved aside: it is rebuilt from the journal");
            }
            Arc::new(state)
        }
        Err(error) => {
            tracing::error!(%error, "sled cannot be opened: going on without it; match counts will not be kept");
            Arc::new(MemoryState::new())
        }
    }
}
