//! Hashes of leaves, nodes and trees, as RFC 6962 §2.1 defines them.
//!
//! Invariant: a leaf is never mistaken for a node: they are hashed behind different first bytes.
//! Not here: a tree that grows (`tree`), and proofs (`tree`, `verify`).

use std::fmt;

use sha2::{Digest, Sha256};

/// Leaves of a full tile. The width of C2SP tiles, so that segments line up with them.
pub const TILE_LEAVES: usize = 256;

/// The first byte of what is hashed to a leaf.
const LEAF_PREFIX: u8 = 0x00;

/// The first byte of what is hashed to a node.
const NODE_PREFIX: u8 = 0x01;

/// A SHA-256 hash: of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; Hash::BYTES]);

/// A tree as others know it: how many leaves, and the root over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Number of leaves.
    pub size: u64,
    /// Root over the first `size` leaves.
    pub root: Hash,
}

impl Hash {
    /// Length of a hash.
    pub const BYTES: usize = 32;

    /// A hash that was computed before.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl From<Hash> for [u8; Hash::BYTES] {
    fn from(hash: Hash) -> Self {
        hash.0
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The root of a tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// The hash of a leaf that consists of `parts` one after the other: SHA-256(0x00 ‖ parts).
pub fn leaf_hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new_with_prefix([LEAF_PREFIX]);
    for part in parts {
        hasher.update(part);
    }
    Hash(hasher.finalize().into())
}

/// The hash of a node over its two children: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: Hash, right: Hash) -> Hash {
    Hash(Sha256::new_with_prefix([NODE_PREFIX]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root over `leaves`.
///
/// Level by level; one that is left over moves up unpaired. That is the tree of RFC 6962: all but the last subtree of
/// a level are full.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        let (pairs, odd) = level.as_chunks::<2>();
        level = pairs.iter().map(|&[left, right]| node_hash(left, right)).chain(odd.iter().copied()).collect();
    }
    level.first().copied().unwrap_or_else(empty_root)
}
