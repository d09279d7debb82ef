//! Portcullis decides whether a connection to a terminal or a preview may be made: the service as modules, for its own
//! binary, tests and benches. Who may name whom, which `tests/structure` holds:
//!
//! ```text
//! main → cli → server → { api, store adapters }
//! api → engine → store (traits, codec), audit, policy
//! ```
//!
//! The pure parts are crates of their own, so that the compiler holds these walls: `portcullis-policy` depends on nothing
//! of ours, `portcullis-audit` on the policy, and `portcullis-proto` has the generated types.
//!
//! What follows is the README.
#![doc = include_str!("../README.md")]

pub mod api;
pub mod cli;
pub mod config;
pub mod engine;
mod lifeline;
mod locks;
pub mod server;
pub mod store;
mod tally;
pub mod telemetry;

pub use portcullis_audit as audit;
pub use portcullis_policy as policy;
pub use portcullis_proto as proto;
