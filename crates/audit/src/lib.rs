//! The tamper-evident log of Portcullis as arithmetic: what is hashed, how it is proven, how it is signed. It is all that
//! somebody needs who wants to verify such a log without trusting the program that wrote it.
//!
//! # What a log is
//!
//! A log is a sequence of records, numbered from 1. Each is a protocol buffer message (`AuditEntry` in
//! `proto/portcullis/storage/v1/audit.proto`) without personal data: for whom it names it has a salted [`commitment`], so
//! that the data can be erased and the record stay. A record with its commitment is a *leaf*; over all leaves stands the
//! [`merkle`] tree of RFC 6962. Its size and root are a [`checkpoint`], the text of a signed [`note`] (C2SP
//! `tlog-checkpoint` and `signed-note`, Ed25519), which is kept elsewhere.
//!
//! # What a verifier does
//!
//! * *Is this record in the log?* [`merkle::verify_inclusion`], with a proof from `GetInclusionProof`.
//! * *Is this the log that was signed then, and more?* [`merkle::verify_consistency`], with a proof from
//!   `GetConsistencyProof`.
//! * *Is this personal data what the record was about?* [`commitment::split_leaf`] and [`commitment::Commitment::verify`].
//! * *Is every record of these files what was signed?* Append each record's [`commitment::record_hash`] to a
//!   [`merkle::MerkleTree`], and compare the roots.
//!
//! ```
//! use portcullis_audit::checkpoint::Checkpoint;
//! use portcullis_audit::commitment::{leaf, record_hash};
//! use portcullis_audit::merkle::{MerkleTree, NoLeaves, leaf_hash, verify_inclusion};
//! use portcullis_audit::note::{SignerKey, VerifierKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The log, which has the secret key, hands out a checkpoint and a proof of its first record.
//! let signer = SignerKey::new("log.example/audit", &[7; 32])?;
//! let mut tree = MerkleTree::new();
//! tree.append(record_hash(b"\x08\x01", &[]));
//! tree.append(record_hash(b"\x08\x02", &[]));
//! let note = Checkpoint::new("log.example/audit", tree.head())?.sign(&signer)?.to_string();
//! let (leaf, path) = (leaf(b"\x08\x01", &[]), tree.inclusion_proof(0, 2, &NoLeaves)?);
//!
//! // The verifier has the text of the verifier key.
//! let key: VerifierKey = signer.verifier().to_string().parse()?;
//! let checkpoint = Checkpoint::open(note.as_bytes(), &[key], "log.example/audit")?;
//! verify_inclusion(leaf_hash(&[&leaf]), 0, checkpoint.head(), &path)?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/verify.rs` does that with personal data, and with a record that was changed.
//!
//! # What else is here
//!
//! [`record`] and [`session`] say what a record holds, [`policy_change`] what a change of policy alters; [`filter`] and
//! [`terms`] say which records pass a filter, and how they are found. Addresses, ids and times are those of [`policy`].
//!
//! # What it cannot name
//!
//! It knows what a policy is, and how to hash and sign, so this compiles:
//!
//! ```
//! use ed25519_dalek::VerifyingKey;
//! use portcullis_audit::record::Entry;
//! use portcullis_policy::rule::Rule;
//! use sha2::Sha256;
//! ```
//!
//! and nothing that waits, serves or stores does:
//!
//! ```compile_fail
//! use tokio::net::TcpListener;
//! ```
//!
//! ```compile_fail
//! use tonic::Status;
//! ```
//!
//! ```compile_fail
//! use sled::Db;
//! ```
//!
//! ```compile_fail
//! use portcullis_proto::v1::AuditRecord;
//! ```
//!
//! ```compile_fail
//! use portcullis::store::Journal;
//! ```
//!
//! Invariant: pure. Bytes and values in, values out; no file, clock, lock or random number.
//! Not here: a record's bytes, where it lies and who writes it, which are up to the service.

pub mod checkpoint;
pub mod commitment;
pub mod filter;
pub mod lineage;
mod log_record;
pub mod merkle;
pub mod note;
pub mod policy_change;
pub mod record;
pub mod rule_text;
pub mod session;
pub mod terms;

pub use portcullis_policy as policy;
