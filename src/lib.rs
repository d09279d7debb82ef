//! Portcullis decides whether a connection to a terminal or a preview may be made: the service as modules, for its own
//! binary, tests and benches. Who may name whom, which `tests/tidy.rs` holds:
//!
//! ```text
//! main → cli → server → { api, store adapters, telemetry }
//! api → engine → store (traits, codec), policy        policy → nothing of ours
//! ```
//!
//! What follows is the README.
#![doc = include_str!("../README.md")]

pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod engine;
pub mod policy;
pub mod proto;
pub mod server;
pub mod store;
pub mod telemetry;
