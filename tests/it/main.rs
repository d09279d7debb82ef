//! The integration tests: behaviour through the public surface.
//!
//! - `naive`: the semantics as a slow, obvious evaluator; `strategies`: random policies and what to ask them
//! - `decisions`: the compiled policy against the naive evaluator
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets the unexpected must fail, and helpers are outside of #[test] functions"
)]

mod decisions;
mod naive;
mod strategies;
