//! A walk over the whole log, and what it has found.
//!
//! Invariant: each signed root is compared with the tree of exactly the records that it covers. After a fault that breaks
//! the tree, no more roots are compared.
//! Not here: the records of a unit (`unit`).

use std::collections::{BTreeMap, BTreeSet};

use super::super::error::AuditError;
use super::super::notes::read_notes;
use super::super::removed::{read_base, read_removed_roots};
use super::keys::{Judged, Keys};
use crate::audit::merkle::{Hash, MerkleTree, NoLeaves, TreeHead};
use crate::policy::change::ChangeIdentity;
use crate::store::codec::audit::Base;
use crate::store::folder::Folder;

/// The most faults that are listed.
const FAULTS_MAX: usize = 100;

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// How many records there are, those included that retention removed.
    pub tree_size: u64,
    /// The root over them, computed from the records.
    pub root: Hash,
    /// How many of them the newest good checkpoint covers.
    pub signed_size: u64,
    /// The newest record of the policy journal that it has a record of; 0 where there is none.
    pub policy_sequence: u64,
    /// The changes of the policy that it has records of, by their sequence in the policy journal. Empty for a log in use.
    pub policy_changes: BTreeMap<u64, ChangeIdentity>,
    /// The faults, by rising sequence: the first sequence affected and a description.
    pub faults: Vec<(u64, String)>,
}

/// Called with how many records were read, and of how many. False stops the verification.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// A verification under way.
pub(super) struct Walk<'a> {
    pub(super) tree: MerkleTree,
    /// The sequence that comes next.
    pub(super) expected: u64,
    /// Last sequences of the organizations.
    pub(super) organizations: BTreeMap<String, u64>,
    /// Openings that records name as erased: unit and slot.
    pub(super) named: BTreeSet<(u64, u32)>,
    /// Openings that are erased, with the first record that refers to them.
    pub(super) erased: BTreeMap<(u64, u32), u64>,
    pub(super) keys: Keys,
    /// The newest record of the policy journal that has a record.
    pub(super) policy_sequence: u64,
    /// Whether the changes of the policy are noted, which takes memory.
    pub(super) notes_changes: bool,
    pub(super) policy_changes: BTreeMap<u64, ChangeIdentity>,
    /// Removals on record.
    pub(super) removals: Vec<(u64, Hash)>,
    pub(super) faults: Vec<(u64, String)>,
    /// A fault that is listed already makes the tree differ from what was signed from here on.
    pub(super) broken: bool,
    /// Roots that were signed and are still to be compared.
    signed: BTreeMap<u64, Hash>,
    /// The roots at the sizes of notes by keys that only the records may tell; none where it is not known, or not yet.
    unjudged: BTreeMap<u64, Option<Hash>>,
    /// The newest checkpoint that fits.
    signed_size: u64,
    pub(super) total: u64,
    progress: Progress<'a>,
    pub(super) stopped: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn begin(
        folder: &Folder,
        keys: Keys,
        note: Option<&str>,
        progress: Progress<'a>,
    ) -> Result<Self, AuditError> {
        let mut faults = Vec::new();
        let base = read_base(folder).unwrap_or_else(|error| {
            faults.push((1, error.to_string()));
            None
        });
        let Base { to_sequence, summary } = base.unwrap_or_default();
        let roots = read_removed_roots(folder, to_sequence).unwrap_or_else(|error| {
            faults.push((1, error.to_string()));
            Vec::new()
        });
        let broken = !faults.is_empty();
        let mut walk = Self {
            tree: MerkleTree::from_tile_roots(roots, Vec::new()).unwrap_or_default(),
            expected: to_sequence + 1,
            organizations: summary.organizations.into_iter().map(|(id, count)| (id.to_string(), count)).collect(),
            named: BTreeSet::new(),
            erased: BTreeMap::new(),
            keys,
            policy_sequence: summary.policy_sequence,
            notes_changes: false,
            policy_changes: BTreeMap::new(),
            removals: Vec::new(),
            faults,
            broken,
            signed: BTreeMap::new(),
            unjudged: BTreeMap::new(),
            signed_size: 0,
            total: 0,
            progress,
            stopped: false,
        };
        for note in read_notes(folder).map_err(AuditError::not_readable)? {
            if let Some(head) = walk.keys.open_beside(note) {
                walk.expect_root(head);
            }
        }
        if let Some(note) = note {
            let opened = walk.keys.open_given(note);
            if let Some(head) = opened.map_err(|description| AuditError::Invalid { field: "note", description })? {
                walk.expect_root(head);
            }
        }
        let removed = |size| walk.tree.root_at(size, &NoLeaves).ok().filter(|_| size <= to_sequence);
        walk.unjudged = walk.keys.unknown_sizes().map(|size| (size, removed(size))).collect();
        walk.compare_removed();
        Ok(walk)
    }

    fn expect_root(&mut self, TreeHead { size, root }: TreeHead) {
        if let Some(other) = self.signed.insert(size, root)
            && other != root
        {
            self.fault(size, format!("two checkpoints of {size} records differ: the log was split"));
        }
    }

    /// Compares signed roots of removed records, as far as their tile roots allow it. What cannot be compared counts as not
    /// signed.
    fn compare_removed(&mut self) {
        let size = self.tree.size();
        let covered: Vec<(u64, Hash)> = self.signed.range(..=size).map(|(size, root)| (*size, *root)).collect();
        for (signed, root) in covered {
            self.signed.remove(&signed);
            match self.tree.root_at(signed, &NoLeaves) {
                Ok(computed) if computed == root => self.signed_size = self.signed_size.max(signed),
                Ok(_) => {
                    let message = format!("the roots of removed records are not those that were signed at {signed}");
                    self.fault(signed, message);
                }
                Err(_) => {}
            }
        }
    }

    pub(super) fn fault(&mut self, sequence: u64, message: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push((sequence, message));
        }
    }

    /// Notes a fault after which the tree can no longer be compared.
    pub(super) fn break_at(&mut self, sequence: u64, message: String) {
        self.fault(sequence, message);
        self.broken = true;
    }

    /// Takes a leaf and compares the root that was signed at this size.
    pub(super) fn leaf(&mut self, leaf: Hash) -> Option<Hash> {
        let tile = self.tree.append(leaf);
        let size = self.tree.size();
        if let Some(root) = self.unjudged.get_mut(&size).filter(|_| !self.broken) {
            *root = Some(self.tree.root());
        }
        if let Some(root) = self.signed.remove(&size)
            && !self.broken
        {
            if self.tree.root() == root {
                self.signed_size = size;
            } else {
                let first = self.signed_size + 1;
                self.break_at(first, format!("records {first} to {size} are not those that were signed at {size}"));
            }
        }
        tile
    }

    /// Reports progress; false if the verification is to stop.
    pub(super) fn goes_on(&mut self) -> bool {
        let done = self.expected - 1;
        if !self.stopped && !(self.progress)(done, self.total.max(done)) {
            self.stopped = true;
        }
        !self.stopped
    }

    pub(super) fn begin_unit(&mut self, first: u64) {
        if first != self.expected {
            let (from, to) = (self.expected, first.saturating_sub(1));
            self.break_at(from, format!("records {from} to {to} are missing"));
            self.expected = first;
        }
    }

    /// Judges who signed. What only a key signed that nobody vouches for does not count as signed. `base` records were
    /// removed.
    fn judge_keys(&mut self, keys: Keys, base: u64) -> Result<(), AuditError> {
        let Judged { vouched_size, heads, faults, unknown_given } = keys.judge(base);
        for TreeHead { size, root } in &heads {
            let computed = self.unjudged.get(size).copied().flatten();
            if *size > self.tree.size() {
                self.note_end(*size);
            } else if computed.is_some_and(|computed| computed != *root) {
                self.fault(*size, format!("records 1 to {size} are not those that were signed at {size}"));
            }
        }
        self.signed_size = self.signed_size.min(vouched_size);
        for (sequence, message) in faults {
            self.fault(sequence, message);
        }
        match unknown_given {
            Some(description) if self.faults.is_empty() => Err(AuditError::Invalid { field: "note", description }),
            Some(error) => {
                self.fault(self.tree.size(), format!("the checkpoint that was given cannot be compared: {error}"));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Tells where the log ends before what was signed. Records that cannot be read are not in the tree, and not cut off
    /// either.
    fn note_end(&mut self, signed: u64) {
        let last = self.expected - 1;
        if signed > last {
            let message = format!("the log ends at record {last}, but {signed} records were signed: it was cut off");
            self.fault(last + 1, message);
        }
    }

    pub(super) fn finish(mut self, folder: &Folder) -> Result<Verification, AuditError> {
        if self.stopped {
            return Err(AuditError::ShuttingDown);
        }
        let size = self.tree.size();
        if let Some(signed) = self.signed.last_key_value().map(|(signed, _)| *signed) {
            self.note_end(signed);
        }
        let base = read_base(folder).ok().flatten().map_or(0, |base| base.to_sequence);
        let keys = std::mem::replace(&mut self.keys, Keys::new(&[], &[]));
        self.judge_keys(keys, base)?;
        if size > 0 && self.signed_size == 0 && self.faults.is_empty() {
            self.fault(1, "no checkpoint is signed by the key of this log: nothing vouches for it".to_owned());
        }
        let unnamed: Vec<u64> =
            self.erased.iter().filter(|(opening, _)| !self.named.contains(opening)).map(|(_, at)| *at).collect();
        for sequence in unnamed {
            let message =
                format!("the personal data of record {sequence} is missing, and no record says it was erased");
            self.fault(sequence, message);
        }
        if base > 0 && !self.removals.iter().any(|(to, _)| *to == base) {
            self.fault(1, format!("records 1 to {base} are missing, and no record says they were removed"));
        }
        for (to, root) in std::mem::take(&mut self.removals) {
            if !self.broken && self.tree.root_at(to, &NoLeaves).is_ok_and(|computed| computed != root) {
                self.fault(to, format!("what was removed up to record {to} is not what the record of it says"));
            }
        }
        self.faults.sort();
        let Self { tree, signed_size, policy_sequence, policy_changes, faults, .. } = self;
        Ok(Verification { tree_size: size, root: tree.root(), signed_size, policy_sequence, policy_changes, faults })
    }
}
