//! Proofs that a record is in the log, and that the log has only grown (RFC 6962).
//!
//! Invariant: a proof is for a size that a signed checkpoint covers.
//! Not here: the arithmetic (`audit::merkle`).

use super::error::AuditError;
use super::log::AuditLog;
use super::shared::Shared;
use super::view::UnitView;
use crate::audit::commitment::{Opening, leaf, record_hash};
use crate::audit::merkle::{Hash, ProofError, TILE_LEAVES, TileLeaves, TreeHead};
use crate::store::codec::audit::{Secret, peek};

/// The proof that a record is in the log.
#[derive(Clone, Debug)]
pub struct InclusionProof {
    /// The bytes that are hashed, behind a zero byte.
    pub leaf: Vec<u8>,
    /// The sequence less 1.
    pub leaf_index: u64,
    /// The size of the tree that the proof is for.
    pub tree_size: u64,
    /// From the leaf to the root.
    pub hashes: Vec<Hash>,
    /// The opening of the leaf's commitment; none where it has no commitment or was erased.
    pub opening: Option<Opening>,
}

impl TileLeaves for Shared {
    type Error = AuditError;

    fn leaves(&self, tile: u64) -> Result<Option<Vec<Hash>>, AuditError> {
        let first = tile * TILE_LEAVES as u64 + 1;
        let Some(view) = self.views().into_iter().rev().find(|view| view.first_sequence() <= first) else {
            return Ok(None);
        };
        let mut leaves = Vec::with_capacity(TILE_LEAVES);
        for sequence in first..first + TILE_LEAVES as u64 {
            let Some((body, opening)) = self.with_opening(&view, sequence)? else { break };
            leaves.push(record_hash(
                &body,
                opening.as_ref().map(|(commitment, _)| std::slice::from_ref(commitment)).unwrap_or_default(),
            ));
        }
        Ok((!leaves.is_empty()).then_some(leaves))
    }
}

type WithOpening = (std::sync::Arc<[u8]>, Option<(crate::audit::commitment::Commitment, Option<Opening>)>);

impl Shared {
    /// A record's bytes, its commitment and its opening.
    pub(super) fn with_opening(&self, view: &UnitView, sequence: u64) -> Result<Option<WithOpening>, AuditError> {
        let Some(body) = self.body(view, sequence)? else { return Ok(None) };
        let slot = peek(&body).map_err(AuditError::not_readable)?.slot;
        let opening = match slot {
            None => None,
            Some(slot) => self.opening(view, slot)?,
        };
        let opening = opening.map(|opening| (opening.commitment, opening.secret.map(|Secret { opening, .. }| opening)));
        Ok(Some((body, opening)))
    }
}

impl AuditLog {
    /// The newest signed note. Never waits for the disk.
    pub fn checkpoint(&self) -> Result<String, AuditError> {
        let newest = self.shared.checkpoints.newest();
        newest
            .map(|(_, note)| note.to_string())
            .ok_or_else(|| AuditError::not_readable("nothing is signed yet: try again in a second"))
    }

    /// The head of the newest checkpoint that is on the disk.
    pub(crate) fn signed(&self) -> Option<TreeHead> {
        self.shared.checkpoints.newest().map(|(head, _)| head)
    }

    /// Signs the first checkpoint of the log, or of a new key. From then on a log without checkpoints has lost them, and the
    /// new key is the one that signs.
    pub(crate) fn sign_first(&self) {
        if self.signed().is_none() || self.key_change().is_some() {
            self.shared.sign();
        }
    }

    /// Whether this was the log's head when it had that many records. True of sizes that retention has removed.
    pub(crate) fn had(&self, head: TreeHead) -> bool {
        if head.size < self.first_sequence() {
            return true;
        }
        let tree = self.shared.tree().clone();
        tree.root_at(head.size, &*self.shared).is_ok_and(|root| root == head.root)
    }

    fn checkpoint_size(&self) -> u64 {
        self.shared.checkpoints.size()
    }

    /// Proves that a record is in the log of a size; 0 means that of the newest checkpoint.
    pub fn inclusion_proof(&self, sequence: u64, tree_size: u64) -> Result<InclusionProof, AuditError> {
        let newest = self.checkpoint_size();
        let tree_size = if tree_size == 0 { newest } else { tree_size };
        if tree_size > newest {
            return Err(too_large("tree_size", tree_size, newest));
        }
        if sequence == 0 || sequence > tree_size {
            let description = format!("is `{sequence}`: give a sequence from 1 to the tree size, {tree_size}");
            return Err(AuditError::Invalid { field: "sequence", description });
        }
        self.unless_overtaken(sequence, || self.prove_inclusion(sequence, tree_size))
    }

    /// What a proof comes to. Where the files of its record are removed meanwhile, that is what it says.
    fn unless_overtaken<T>(
        &self,
        sequence: u64,
        prove: impl FnOnce() -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        prove().map_err(|error| {
            let removed = self.shared.was_removed(sequence, &error);
            if removed { AuditError::Removed { first: self.first_sequence() } } else { error }
        })
    }

    fn prove_inclusion(&self, sequence: u64, tree_size: u64) -> Result<InclusionProof, AuditError> {
        let first = self.first_sequence();
        if sequence < first {
            return Err(AuditError::Removed { first });
        }
        let shared = &*self.shared;
        let found = shared.views().into_iter().rev().find(|view| view.first_sequence() <= sequence);
        let found = found.map(|view| shared.with_opening(&view, sequence)).transpose()?.flatten();
        let Some((body, opening)) = found else { return Err(AuditError::Removed { first: self.first_sequence() }) };
        let hashes = shared.tree().clone().inclusion_proof(sequence - 1, tree_size, shared).map_err(proof_error)?;
        let (commitment, opening) = opening.unzip();
        Ok(InclusionProof {
            leaf: leaf(&body, commitment.as_slice()),
            leaf_index: sequence - 1,
            tree_size,
            hashes,
            opening: opening.flatten(),
        })
    }

    /// Proves that the log of one size is the beginning of the log of another.
    pub fn consistency_proof(&self, first: u64, second: u64) -> Result<Vec<Hash>, AuditError> {
        let newest = self.checkpoint_size();
        if first == 0 || first > second {
            let description = format!("is `{first}`: give a size from 1 to the second size, {second}");
            return Err(AuditError::Invalid { field: "first_tree_size", description });
        }
        if second > newest {
            return Err(too_large("second_tree_size", second, newest));
        }
        let shared = &*self.shared;
        let prove = || shared.tree().clone().consistency_proof(first, second, shared).map_err(proof_error);
        // It reads the records around the end of either size.
        self.unless_overtaken(first, prove)
    }
}

fn too_large(field: &'static str, size: u64, newest: u64) -> AuditError {
    let description = format!("is `{size}`, and the newest checkpoint covers {newest} records: give at most that");
    AuditError::Invalid { field, description }
}

fn proof_error(error: ProofError<AuditError>) -> AuditError {
    match error {
        ProofError::Source { source, .. } => source,
        ProofError::Pruned { last_sequence, .. } => AuditError::Removed { first: last_sequence + 1 },
        other => AuditError::not_readable(other),
    }
}
