//! The integration tests: behaviour through the public surface, one module a subject or hazard.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets the unexpected must fail, and helpers are outside of #[test] functions"
)]

/// What `serve` takes, and what of it wins.
mod cli_config;
/// The command line as it is typed.
mod cli_parse;
/// `kill -9`, and a sled directory that is lost or damaged.
mod crash_kill;
/// Power cuts.
mod crash_power;
/// The compiled policy against the naive evaluator.
mod decisions;
/// The engine over a clock and a disk that tests control.
mod engine;
/// A running service.
mod harness;
/// A load of changes whose acknowledgements are remembered.
mod load;
/// The semantics as a slow, obvious evaluator.
mod naive;
/// The portal's own examples, through real gRPC.
mod portal_examples;
/// The service as a process of its own.
mod process;
/// The announced Internet in a deny rule.
mod real_ranges;
/// The data directory: one owner, one format, room for bad times.
mod store_directory;
/// Disks that fail and lose power, for the tests of what is stored.
mod store_disk;
/// The journal: the same suite over all adapters.
mod store_journal;
/// The journal when the disk fails, the process dies or the power goes, at every operation.
mod store_journal_crash;
/// The journal's files: torn, damaged, missing, foreign.
mod store_journal_files;
/// Snapshots: written whole, damaged ones passed over.
mod store_snapshots;
/// State stores: the same suite over all adapters, and what sled finds after a crash.
mod store_state;
/// What was ever stored is read for ever.
mod stored_format;
/// Random policies and what to ask them.
mod strategies;
