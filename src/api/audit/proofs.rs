//! Proofs, as the API has them.
//!
//! Invariant: a size or sequence that is negative is a fault of its field.
//! Not here: making them (`engine::audit`).

use tonic::{Response, Status};

use super::super::convert::Faults;
use super::super::{Api, to_i64};
use crate::engine::audit::InclusionProof;
use crate::proto::v1;

impl Api {
    pub(super) async fn get_inclusion_proof(
        &self,
        request: v1::GetInclusionProofRequest,
    ) -> Result<Response<v1::InclusionProof>, Status> {
        let v1::GetInclusionProofRequest { sequence, tree_size } = request;
        let mut faults = Faults::default();
        let (sequence, tree_size) = (faults.unsigned("sequence", sequence), faults.unsigned("tree_size", tree_size));
        faults.result(Some(()))?;
        let proof = self.read(move |engine| engine.audit().inclusion_proof(sequence, tree_size)).await?;
        let InclusionProof { leaf, leaf_index, tree_size, hashes, opening } = proof;
        let openings = opening.iter().map(|opening| v1::Opening {
            commitment: opening.commitment().as_bytes().to_vec(),
            salt: opening.salt().as_bytes().to_vec(),
            user_email: opening.email().to_owned(),
            ip: opening.address().map(|address| address.to_string()).unwrap_or_default(),
        });
        Ok(Response::new(v1::InclusionProof {
            leaf,
            leaf_index: to_i64(leaf_index),
            tree_size: to_i64(tree_size),
            hashes: hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
            openings: openings.collect(),
        }))
    }

    pub(super) async fn get_consistency_proof(
        &self,
        request: v1::GetConsistencyProofRequest,
    ) -> Result<Response<v1::ConsistencyProof>, Status> {
        let v1::GetConsistencyProofRequest { first_tree_size, second_tree_size } = request;
        let mut faults = Faults::default();
        let first = faults.unsigned("first_tree_size", first_tree_size);
        let second = faults.unsigned("second_tree_size", second_tree_size);
        faults.result(Some(()))?;
        let hashes = self.read(move |engine| engine.audit().consistency_proof(first, second)).await?;
        Ok(Response::new(v1::ConsistencyProof { hashes: hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect() }))
    }
}
