//! One level of the tree: its nodes from the left, in pieces.
//!
//! Invariant: a piece that is full never changes, so copies of a level share it: copying a tree takes no more memory and
//! hardly more time however long the log is, and appending moves none of what is there.
//! Not here: what the nodes are made of (`tree`).

use std::sync::Arc;

use super::hash::Hash;

/// Nodes in a piece.
const PIECE: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// Each in an allocation of exactly its size, which one with the count beside it would exceed.
    full: Vec<Arc<Vec<Hash>>>,
    /// Behind them, fewer than a piece.
    rest: Vec<Hash>,
}

impl Level {
    /// A level of one node.
    pub(super) fn of(node: Hash) -> Self {
        Self { full: Vec::new(), rest: vec![node] }
    }

    pub(super) fn push(&mut self, node: Hash) {
        self.rest.push(node);
        if self.rest.len() == PIECE {
            self.full.push(Arc::new(std::mem::take(&mut self.rest)));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.full.len() * PIECE + self.rest.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Hash> {
        match self.full.get(index / PIECE) {
            Some(piece) => piece.get(index % PIECE).copied(),
            None => self.rest.get(index.checked_sub(self.full.len() * PIECE)?).copied(),
        }
    }

    pub(super) fn last(&self) -> Option<Hash> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The two last nodes.
    pub(super) fn last_pair(&self) -> Option<(Hash, Hash)> {
        Some((self.get(self.len().checked_sub(2)?)?, self.last()?))
    }
}
