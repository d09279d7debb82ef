//! Verifies that a record is in an audit log, with this crate alone.
//!
//! A verifier has three things: the log's verifier key, which it got once from somebody it trusts; a signed checkpoint, from
//! `GetCheckpoint` or from wherever checkpoints are kept; and an inclusion proof, from `GetInclusionProof`. `verify` below
//! is all that it does with them. The rest of this file plays the log, so that there is something to verify:
//!
//! ```text
//! cargo run -p portcullis-audit --example verify
//! ```
//!
//! Invariant: what is verified is trusted for the key alone.
//! Not here: fetching checkpoints and proofs, which is up to a gRPC client.
#![expect(clippy::print_stdout, reason = "an example shows what it comes to")]

use std::error::Error;

use portcullis_audit::checkpoint::Checkpoint;
use portcullis_audit::commitment::{Opening, Salt, leaf, record_hash, split_leaf};
use portcullis_audit::merkle::{Hash, MerkleTree, NoLeaves, leaf_hash, verify_inclusion};
use portcullis_audit::note::{SignerKey, VerifierKey};

/// A proof, as the API gives it.
struct Proof {
    leaf: Vec<u8>,
    leaf_index: u64,
    hashes: Vec<Hash>,
    openings: Vec<Opening>,
}

/// Verifies that a record is in the log of a checkpoint, and that the openings are of the personal data in it. Returns the
/// record's bytes: an `AuditEntry` of `portcullis.storage.v1`.
fn verify<'a>(key: &str, note: &str, proof: &'a Proof) -> Result<&'a [u8], Box<dyn Error>> {
    let key: VerifierKey = key.parse()?;
    let checkpoint = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&key), key.name())?;
    verify_inclusion(leaf_hash(&[&proof.leaf]), proof.leaf_index, checkpoint.head(), &proof.hashes)?;
    let (body, commitments) = split_leaf(&proof.leaf).ok_or("the leaf is no record with its commitments")?;
    for opening in &proof.openings {
        let commitment = opening.commitment();
        if !commitments.contains(&commitment) {
            return Err("an opening is of no commitment in the record: the personal data was changed".into());
        }
    }
    Ok(body)
}

fn main() -> Result<(), Box<dyn Error>> {
    // The log: three records, of which the second names a user.
    let signer = SignerKey::new("log.example/audit", &[7; 32])?;
    let opening = Opening::new(Salt::new([9; 16]), "ada@example.com", "203.0.113.7".parse().ok())?;
    let bodies: [&[u8]; 3] = [b"\x08\x01", b"\x08\x02", b"\x08\x03"];
    let commitments = [vec![], vec![opening.commitment()], vec![]];
    let mut tree = MerkleTree::new();
    for (body, commitments) in bodies.iter().zip(&commitments) {
        tree.append(record_hash(body, commitments));
    }
    let note = Checkpoint::new("log.example/audit", tree.head())?.sign(&signer)?.to_string();
    let [_, body, _] = bodies;
    let [_, committed, _] = &commitments;
    let proof = Proof {
        leaf: leaf(body, committed),
        leaf_index: 1,
        hashes: tree.inclusion_proof(1, 3, &NoLeaves)?,
        openings: vec![opening],
    };
    let key = signer.verifier().to_string();

    println!("{note}");
    println!("record {:?} is in the log: {}", verify(&key, &note, &proof)?, verify(&key, &note, &proof).is_ok());
    let changed = Proof { leaf: leaf(b"\x08\x04", committed), ..proof };
    match verify(&key, &note, &changed) {
        Ok(_) => Err("a changed record was verified".into()),
        Err(error) => {
            println!("changed, it is not: {error}");
            Ok(())
        }
    }
}
