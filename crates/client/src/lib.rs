//! A typed client of Portcullis.
//!
//! A policy enforcement point asks before it opens a connection, and opens it for one answer only: `DECISION_ALLOW`.
//! **Every error is a denial.** A server that is unreachable, slow or refuses the request has not allowed anything:
//!
//! ```no_run
//! use portcullis_client::{CallError, Client, ServerAddress};
//! use portcullis_client::v1::{CheckRequest, ConnectionType, Decision};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let address: ServerAddress = "http://127.0.0.1:7070".parse()?;
//! let client = Client::connect_lazy(&address);
//!
//! let request = CheckRequest {
//!     ip: "192.0.2.1".to_owned(),
//!     connection_type: ConnectionType::Shell.into(),
//!     endpoint: "organizations/acme/projects/web".to_owned(),
//!     user_email: "ada@example.com".to_owned(),
//!     ..CheckRequest::default()
//! };
//! let allowed = match client.check(request).await {
//!     Ok(response) if response.decision() == Decision::Allow => true,
//!     Ok(response) => {
//!         eprintln!("denied: {}", response.message);
//!         false
//!     }
//!     // A portal could try again after `Unreachable` and `Broken`; until there is an answer, the connection stays shut.
//!     Err(error @ (CallError::Unreachable { .. } | CallError::Broken { .. } | CallError::Refused(_))) => {
//!         eprintln!("denied, for there was no decision: {error}");
//!         false
//!     }
//! };
//! # let _ = allowed;
//! # Ok(())
//! # }
//! ```
//!
//! `Client` has no deadline of its own. Wrap a call into `tokio::time::timeout`, and treat its end as a denial too.
//!
//! Invariant: a call has an answer of the server, or one of the three errors of [`CallError`]; nothing else.
//! Not here: retries and caches of decisions, and the command line, which adds hints for people.

mod address;
mod client;
mod error;

pub use address::{AddressError, DEFAULT_ADDRESS, ServerAddress};
pub use client::{Client, answer};
pub use error::{CallError, Refusal, Violation};
pub use portcullis_proto::v1;
