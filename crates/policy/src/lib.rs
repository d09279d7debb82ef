//! The policy core: what a policy is, how it changes and what it decides. It is pure: it does no input or output, reads
//! no clock, takes no lock, awaits and logs nothing. Time is a value that its callers give.
//!
//! # The meaning of a decision
//!
//! The steps of a decision are taken in this order, and the first that refuses gives the reason (design.md §2.4):
//!
//! | step | refuses when | reason |
//! |---|---|---|
//! | target | the organization is unknown; or it requires projects and the project named is unknown | `UnknownEndpoint` |
//! | cluster access | the cluster does not permit the address | `OutsideCluster` |
//! | firewall | the first matching rule denies | `DenyRule` |
//! | organization access | the organization does not permit the address | `OutsideOrganization` |
//! | effective access | the nearest of endpoint, workspace, project that does not inherit does not permit it | `OutsideEndpoint` |
//! | otherwise | a rule matched: `AllowRule`; none did: `DefaultAllow` | |
//!
//! # How it is built
//!
//! A policy is a function from address to verdict, kept as sorted disjoint intervals (`intervals`). `organization` is
//! the form that is edited, `plan` turns what somebody asks for into a `change`, `snapshot` is the compiled form that
//! decides, out of `firewall` and `members`, which are lookups in a `table`.
//!
//! # Deciding without a server
//!
//! Build the policy, compile it, ask it. A compiled policy can be shared between threads. `examples/decide.rs` has more:
//! a rule, an allowlist, and planning, which says what is wrong with a change.
//!
//! ```
//! use portcullis_policy::decision::Reason;
//! use portcullis_policy::members::MembersCache;
//! use portcullis_policy::name::{Id, NodePath};
//! use portcullis_policy::node::{Access, Node};
//! use portcullis_policy::organization::{Cluster, Organization};
//! use portcullis_policy::rule::ConnectionType;
//! use portcullis_policy::snapshot::{ClusterSnapshot, Snapshot};
//! use portcullis_policy::time::Timestamp;
//!
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let nobody = Node::new(Access::nobody(), now, 1);
//! let organization = Organization::new(Id::parse("acme")?, 1, nobody);
//!
//! let cluster = ClusterSnapshot::compile(&Cluster::new(now));
//! let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
//! let target = NodePath::parse("organizations/acme")?;
//! let verdict = snapshot.decide(&cluster, "192.0.2.1".parse()?, ConnectionType::Shell, &target, now);
//! assert_eq!(verdict.reason, Reason::OutsideOrganization);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it cannot name
//!
//! Its manifest has `ipnet` and an error derive, so this compiles:
//!
//! ```
//! use ipnet::IpNet;
//! use thiserror::Error;
//! ```
//!
//! and nothing that waits, serves, stores or records does:
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
//! use portcullis_audit::record::Entry;
//! ```
//!
//! ```compile_fail
//! use portcullis_proto::v1::Rule;
//! ```
//!
//! ```compile_fail
//! use portcullis::engine::Engine;
//! ```
//!
//! Invariant: nothing here depends on anything but the standard library, `ipnet` and an error derive: the crate's manifest
//! has nothing else.
//! Not here: where policies are kept and which one is current, which is up to the service.

pub mod address;
pub mod breakage;
pub mod broken_test;
pub mod change;
mod classes;
mod covered;
pub mod cow_map;
pub mod decision;
pub mod document;
pub mod explain;
pub mod firewall;
pub mod forecast;
pub mod gates;
pub mod group;
pub mod impact;
mod interned;
pub mod intervals;
pub mod judging;
pub mod limits;
pub mod members;
pub mod name;
pub mod node;
mod node_index;
pub mod organization;
mod overlay;
pub mod plan;
pub mod policy_test;
pub mod problems;
pub mod ranges;
pub mod rule;
mod rule_sets;
pub mod snapshot;
pub mod state;
pub mod table;
pub mod time;
pub mod timed_set;
pub mod timeline;
pub mod version;
pub mod word;
