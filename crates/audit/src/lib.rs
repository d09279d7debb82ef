//! The tamper-evident log as arithmetic: what is hashed, how it is proven, how it is signed (design.md §2.8).
//!
//! * [`commitment`]: personal data enters a record as a salted commitment, so that it can be erased without breaking a
//!   proof; and how a record becomes a leaf.
//! * [`merkle`]: the RFC 6962 tree over the leaves, its proofs, and what verifies them.
//! * [`note`], [`checkpoint`]: the tree's size and root as a signed text that others keep (C2SP signed notes).
//! * [`record`], [`session`]: what a record says; [`filter`], [`terms`]: what passes a filter, and how it is found.
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
//! Invariant: pure. Bytes and values in, values out; no file, clock, lock or random number. A verifier written from
//! docs/format.md alone gets the same hashes.
//! Not here: a record's bytes (`store::codec`), where it lies (`store`), who writes it (`engine`).

pub mod checkpoint;
pub mod commitment;
pub mod filter;
pub mod merkle;
pub mod note;
pub mod policy_change;
pub mod record;
pub mod session;
pub mod terms;
