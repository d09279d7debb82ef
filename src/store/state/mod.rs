//! The adapters of the [`StateStore`](super::StateStore) port: sled, and memory for tests.
//!
//! Invariant: both order keys by their bytes and refuse the same keys and values.
//!
//! Not here: what is in the store, and whether it is up to date with the journal (`engine::mirror`).

mod memory;
mod sled;

pub use memory::MemoryState;
pub use sled::{Reopened, SledState};
