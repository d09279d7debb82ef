//! The tree as the log keeps it: roots of full tiles, nodes above them, leaf hashes of the tile that is being filled.
//!
//! 64 bytes a tile, a quarter of a byte a record: all of it stays in memory and outlives the records it was made from.
//! Appending costs two hashes a record on average, a root at most 255 and one a level, a proof those of two tiles.
//!
//! Invariant: level 0 holds the root of every full tile, level *n* + 1 a node for every pair of level *n*. Leaf hashes
//! from elsewhere enter a proof only after they were found to make the tile root that is kept.
//! Not here: where tile roots are stored and how leaf hashes are read again ([`TileLeaves`] is given).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::error::Error as StdError;

use thiserror::Error;

use super::hash::{Hash, TILE_LEAVES, TreeHead, empty_root, node_hash, root_of};
use super::level::Level;

/// Leaves of a full tile, as a tree size.
const TILE: u64 = TILE_LEAVES as u64;

/// An RFC 6962 tree that grows by leaf hashes. Copies are cheap: they share what does not change any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MerkleTree {
    /// Level *n*: the roots of all full subtrees of 256 · 2ⁿ leaves, from the left.
    levels: Vec<Level>,
    /// Leaf hashes behind the last full tile: fewer than [`TILE_LEAVES`].
    partial: Vec<Hash>,
}

/// Where the leaf hashes of full tiles come from: computed again from the records.
pub trait TileLeaves {
    /// Why they could not be read.
    type Error: StdError + 'static;

    /// The 256 leaf hashes of the full tile number `tile`, that is of the sequences `256 · tile + 1` to
    /// `256 · tile + 256`; none when those records are no longer kept.
    fn leaves(&self, tile: u64) -> Result<Option<Vec<Hash>>, Self::Error>;
}

/// A source without records: what can be proven from tile roots and the last tile alone.
#[derive(Clone, Copy, Debug)]
pub struct NoLeaves;

/// Why a tree cannot be made from what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TreeError {
    /// The leaf hashes fill a tile.
    #[error("{0} leaf hashes do not fit behind full tiles: give at most 255, and the root of every full tile")]
    PartialTooLong(usize),
}

/// Why a proof cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofError<E> {
    /// The tree was never that large.
    #[error("tree size {size} is beyond the log: ask for at most {available}")]
    SizeBeyondLog {
        /// What was asked for.
        size: u64,
        /// Leaves of the tree.
        available: u64,
    },
    /// The leaf is not in the tree of that size.
    #[error("leaf index {index} is not below tree size {size}: ask for a larger tree size")]
    IndexBeyondTree {
        /// Index of the leaf, from 0.
        index: u64,
        /// The tree size asked for.
        size: u64,
    },
    /// The older tree is the larger one.
    #[error("first tree size {first} is larger than second tree size {second}: swap them")]
    SizesSwapped {
        /// The first size asked for.
        first: u64,
        /// The second size asked for.
        second: u64,
    },
    /// The proof needs leaf hashes of records that retention has removed.
    #[error(
        "records {first_sequence} to {last_sequence} are no longer kept: ask about records that are, and for tree \
         sizes among them or that are multiples of 256"
    )]
    Pruned {
        /// Sequence of the tile's first record.
        first_sequence: u64,
        /// Sequence of the tile's last record.
        last_sequence: u64,
    },
    /// The records read now are not those that the tree was made of.
    #[error(
        "records {first_sequence} to {last_sequence} do not make the tile root that was kept: they were changed after \
         they were written, run `audit verify`"
    )]
    Mismatch {
        /// Sequence of the tile's first record.
        first_sequence: u64,
        /// Sequence of the tile's last record.
        last_sequence: u64,
    },
    /// The records could not be read.
    #[error("cannot read records {first_sequence} to {last_sequence}")]
    Source {
        /// Sequence of the tile's first record.
        first_sequence: u64,
        /// Sequence of the tile's last record.
        last_sequence: u64,
        /// Why.
        source: E,
    },
}

impl TileLeaves for NoLeaves {
    type Error = Infallible;

    fn leaves(&self, _tile: u64) -> Result<Option<Vec<Hash>>, Infallible> {
        Ok(None)
    }
}

impl MerkleTree {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree as it was: the roots of all full tiles from the first record on, those of pruned records included, and
    /// the leaf hashes behind them.
    pub fn from_tile_roots(roots: impl IntoIterator<Item = Hash>, partial: Vec<Hash>) -> Result<Self, TreeError> {
        if partial.len() >= TILE_LEAVES {
            return Err(TreeError::PartialTooLong(partial.len()));
        }
        let mut tree = Self::new();
        for root in roots {
            tree.push_tile(root);
        }
        tree.partial = partial;
        Ok(tree)
    }

    /// Adds a leaf; the root of the tile where this leaf has filled one.
    pub fn append(&mut self, leaf: Hash) -> Option<Hash> {
        self.partial.push(leaf);
        (self.partial.len() == TILE_LEAVES).then(|| {
            let root = root_of(&self.partial);
            self.partial.clear();
            self.push_tile(root);
            root
        })
    }

    /// Number of leaves: the sequence of the last record.
    pub fn size(&self) -> u64 {
        self.tile_count() * TILE + self.partial.len() as u64
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let last = (!self.partial.is_empty()).then(|| root_of(&self.partial));
        // A level of odd length ends in a subtree that is no part of a larger full one: a peak.
        let peaks = self.levels.iter().filter(|level| level.len() % 2 == 1).filter_map(Level::last);
        peaks
            .fold(last, |right, peak| Some(right.map_or(peak, |right| node_hash(peak, right))))
            .unwrap_or_else(empty_root)
    }

    /// Size and root.
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size(), root: self.root() }
    }

    /// The root of a full tile, counted from 0 for the first 256 records; none where the tile is not full.
    pub fn tile_root(&self, tile: usize) -> Option<Hash> {
        self.levels.first()?.get(tile)
    }

    /// The leaf hashes behind the last full tile.
    pub fn partial_leaves(&self) -> &[Hash] {
        &self.partial
    }

    /// The root over the first `size` leaves.
    ///
    /// Reads the tile that `size` cuts, unless it is a multiple of 256 or in the last, partial tile.
    pub fn root_at<S: TileLeaves>(&self, size: u64, source: &S) -> Result<Hash, ProofError<S::Error>> {
        self.check_size(size)?;
        if size == 0 {
            return Ok(empty_root());
        }
        Reader::new(self, source).subtree(0, size)
    }

    /// The path from the leaf at `index` to the root over the first `tree_size` leaves (RFC 9162 §2.1.3.1).
    ///
    /// Reads the tile of the leaf and the tile that `tree_size` cuts, if any. So every record that is kept can be
    /// proven in every tree that holds it, and none that is pruned, except where the leaf is alone in its tile
    /// (`tree_size` is `index + 1` and one more than a multiple of 256).
    pub fn inclusion_proof<S: TileLeaves>(
        &self,
        index: u64,
        tree_size: u64,
        source: &S,
    ) -> Result<Vec<Hash>, ProofError<S::Error>> {
        self.check_size(tree_size)?;
        if index >= tree_size {
            return Err(ProofError::IndexBeyondTree { index, size: tree_size });
        }
        let mut reader = Reader::new(self, source);
        let mut path = Vec::new();
        let (mut begin, mut end) = (0, tree_size);
        while end - begin > 1 {
            let middle = begin + left_size(end - begin);
            if index < middle {
                path.push(reader.subtree(middle, end)?);
                end = middle;
            } else {
                path.push(reader.subtree(begin, middle)?);
                begin = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// The proof that the tree of `second` leaves is the tree of `first` leaves with others appended (RFC 9162
    /// §2.1.4.1). Empty for equal sizes and for `first` = 0.
    ///
    /// Reads the tile that `first` cuts and the tile that `second` cuts. A size cuts no tile when it is a multiple of
    /// 256; the last, partial tile is never read. So there is a proof between any two sizes each of which is a multiple
    /// of 256 or lies among the records that are kept, whatever was pruned; and there is none, from anybody, where a
    /// size cuts a pruned tile.
    pub fn consistency_proof<S: TileLeaves>(
        &self,
        first: u64,
        second: u64,
        source: &S,
    ) -> Result<Vec<Hash>, ProofError<S::Error>> {
        self.check_size(second)?;
        if first > second {
            return Err(ProofError::SizesSwapped { first, second });
        }
        let mut path = Vec::new();
        if first == 0 || first == second {
            return Ok(path);
        }
        let mut reader = Reader::new(self, source);
        let (mut begin, mut end) = (0, second);
        while first < end {
            let middle = begin + left_size(end - begin);
            if first <= middle {
                path.push(reader.subtree(middle, end)?);
                end = middle;
            } else {
                path.push(reader.subtree(begin, middle)?);
                begin = middle;
            }
        }
        // A first tree that is one full subtree is known to the verifier.
        if begin > 0 {
            path.push(reader.subtree(begin, end)?);
        }
        path.reverse();
        Ok(path)
    }

    fn tile_count(&self) -> u64 {
        self.levels.first().map_or(0, Level::len) as u64
    }

    fn push_tile(&mut self, root: Hash) {
        let mut node = root;
        for level in &mut self.levels {
            level.push(node);
            match level.last_pair() {
                Some((left, right)) if level.len().is_multiple_of(2) => node = node_hash(left, right),
                _ => return,
            }
        }
        self.levels.push(Level::of(node));
    }

    fn check_size<E>(&self, size: u64) -> Result<(), ProofError<E>> {
        let available = self.size();
        if size > available { Err(ProofError::SizeBeyondLog { size, available }) } else { Ok(()) }
    }

    /// The node over exactly these leaves, where it is kept.
    fn kept_node(&self, begin: u64, end: u64) -> Option<Hash> {
        let size = end - begin;
        if size < TILE || !size.is_power_of_two() || !begin.is_multiple_of(size) {
            return None;
        }
        let level = self.levels.get((size / TILE).trailing_zeros() as usize)?;
        level.get(usize::try_from(begin / size).ok()?)
    }
}

/// The tree while it makes one proof, with the tiles that were read for it: two at most.
struct Reader<'a, S> {
    tree: &'a MerkleTree,
    source: &'a S,
    tiles: BTreeMap<u64, Vec<Hash>>,
}

impl<'a, S: TileLeaves> Reader<'a, S> {
    fn new(tree: &'a MerkleTree, source: &'a S) -> Self {
        Self { tree, source, tiles: BTreeMap::new() }
    }

    /// The root over the leaves from `begin` to before `end`, which are a subtree of some tree size.
    fn subtree(&mut self, begin: u64, end: u64) -> Result<Hash, ProofError<S::Error>> {
        if let Some(node) = self.tree.kept_node(begin, end) {
            return Ok(node);
        }
        if begin / TILE == (end - 1) / TILE {
            return self.within_tile(begin, end);
        }
        let middle = begin + left_size(end - begin);
        Ok(node_hash(self.subtree(begin, middle)?, self.subtree(middle, end)?))
    }

    /// The root over leaves of one tile.
    fn within_tile(&mut self, begin: u64, end: u64) -> Result<Hash, ProofError<S::Error>> {
        let tile = begin / TILE;
        let leaves = if tile == self.tree.tile_count() {
            &self.tree.partial
        } else {
            match self.tiles.entry(tile) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(read_tile(self.tree, self.source, tile)?),
            }
        };
        let skipped = usize::try_from(begin % TILE).unwrap_or(TILE_LEAVES);
        let count = usize::try_from(end - begin).unwrap_or(TILE_LEAVES);
        match leaves.get(skipped..skipped + count) {
            Some(leaves) => Ok(root_of(leaves)),
            None => Err(mismatch(tile)),
        }
    }
}

/// The leaf hashes of a full tile, found to be those that its root was made of.
fn read_tile<S: TileLeaves>(tree: &MerkleTree, source: &S, tile: u64) -> Result<Vec<Hash>, ProofError<S::Error>> {
    let (first_sequence, last_sequence) = sequences(tile);
    let leaves = source
        .leaves(tile)
        .map_err(|source| ProofError::Source { first_sequence, last_sequence, source })?
        .ok_or(ProofError::Pruned { first_sequence, last_sequence })?;
    let kept = tree.kept_node(tile * TILE, (tile + 1) * TILE);
    if leaves.len() == TILE_LEAVES && kept == Some(root_of(&leaves)) { Ok(leaves) } else { Err(mismatch(tile)) }
}

fn mismatch<E>(tile: u64) -> ProofError<E> {
    let (first_sequence, last_sequence) = sequences(tile);
    ProofError::Mismatch { first_sequence, last_sequence }
}

/// The sequences of a tile's first and last record.
fn sequences(tile: u64) -> (u64, u64) {
    (tile * TILE + 1, (tile + 1) * TILE)
}

/// The largest power of two below `size`, which is at least 2: leaves of the left child.
fn left_size(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}
