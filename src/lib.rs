//! x

pub mod api;
pub mod cli;
pub mod config;
pub mod engine;
pub mod policy;
pub mod proto;
pub mod server;
pub mod store;
pub mod telemetry;
