//! A cache of decoded records: the tiles that were read last. Most subscribers read the same, newest tiles.
//!
//! Invariant: never more than [`DECODED_MAX`] tiles, and nothing of a person who was erased.
//! Not here: reading and decoding (`reader`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::audit::record::Record;
use crate::locks::IgnorePoison;

/// Tiles whose decoded records are kept.
const DECODED_MAX: usize = 32;

/// The decoded records of a tile, from its first on.
pub(super) type DecodedTile = Arc<Mutex<Vec<Arc<Record>>>>;

/// See the module.
#[derive(Default)]
pub(super) struct DecodedTiles {
    tiles: Mutex<VecDeque<(u64, DecodedTile)>>,
}

impl DecodedTiles {
    pub(super) fn get(&self, tile: u64) -> DecodedTile {
        let mut tiles = self.tiles.lock().ignore_poison();
        if let Some((_, decoded)) = tiles.iter().find(|(number, _)| *number == tile) {
            return Arc::clone(decoded);
        }
        if tiles.len() >= DECODED_MAX {
            tiles.pop_front();
        }
        let decoded = DecodedTile::default();
        tiles.push_back((tile, Arc::clone(&decoded)));
        decoded
    }

    /// Empties the cache, because personal data was erased.
    pub(super) fn clear(&self) {
        self.tiles.lock().ignore_poison().clear();
    }
}
