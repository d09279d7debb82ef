//! The Merkle tree of RFC 6962 (RFC 9162 §2.1), laid out in tiles of 256 leaves.
//!
//! A record's sequence is its leaf index plus one. A full tile is known by its root; the leaf hashes in it are computed
//! again from the records when a proof wants them.
//!
//! Invariant: a leaf is never mistaken for a node: they are hashed behind different first bytes.
//! Not here: what a leaf's bytes are (`commitment`) and what is signed over a root (`checkpoint`).

mod hash;
mod level;
mod tree;
mod verify;

pub use hash::{Hash, TILE_LEAVES, TreeHead, empty_root, leaf_hash, node_hash, root_of};
pub use tree::{MerkleTree, NoLeaves, ProofError, TileLeaves, TreeError};
pub use verify::{VerifyError, verify_consistency, verify_inclusion};
