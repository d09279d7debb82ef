//! The structure of the sources, read from their syntax: who may name whom, which files import each other in a circle,
//! how files begin and how long they are.
//!
//! Invariant: what a file names is resolved as the compiler resolves it, through groups, renames, `super` and re-exports.
//! Not here: what the compiler, clippy or a crate's manifest check.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets the unexpected must fail, and helpers are outside of #[test] functions"
)]

/// The checker itself, over small sources with faults in them.
mod checker;
/// Circles of imports.
mod circles;
/// How files begin, and how long they are.
mod files;
/// What the crates' manifests let each crate depend on.
mod manifests;
/// The paths that a file names.
mod references;
/// From a path to the file that defines what it names.
mod resolve;
/// Who may name whom.
mod rules;
/// The modules of a crate, and the names in each.
mod sources;
