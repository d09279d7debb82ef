//! The gRPC edge: the only code that receives and returns generated types.
//!
//! Every service parses a request into policy terms, noting all faults, calls the engine, and converts the answer.
//! Conversions are in `convert`, errors in `status`.
//!
//! Invariant: every error has a code, a `google.rpc.ErrorInfo` and, where fields are at fault, their paths
//! (design.md §3.7). No answer exceeds [`ANSWER_BYTES_MAX`].
//! Not here: what a decision is (`policy`) and who listens where (`server`).

pub mod admission;
mod analysis;
mod audit;
mod batch;
pub mod caller;
mod convert;
mod decision;
mod differences;
pub mod direct;
mod entries;
mod firewall;
mod groups;
mod heavy_work;
mod hierarchy;
mod lineage;
mod maintenance;
pub mod methods;
mod mutation;
mod node_scope;
mod paging;
mod patch_ranges;
mod permitted;
mod policy;
mod policy_tests;
mod preview;
mod problem_changes;
mod problem_words;
mod problems;
mod refusals;
mod revisions;
mod rules;
mod serve;
mod sessions;
mod shadow;
mod status;
pub mod streams;
mod subscribers;
pub mod transport;

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tonic::{Response, Status};

use crate::engine::Engine;
use crate::policy::limits::Limits;
use crate::policy::problems::Problem;
use crate::policy::ranges::RangeSet;

use audit::AuditReads;
use heavy_work::{HeavyWork, Recent};
use maintenance::Backups;
pub use refusals::Refusals;
use subscribers::Subscribers;

/// The most bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of an answer that pages leave for fields other than the items.
const ANSWER_BYTES_RESERVED: usize = 64 * 1024;

/// The header that names the organization's revision an answer was given at.
pub const REVISION_HEADER: &str = "portcullis-revision";

/// What the services share. Until the policy is recovered there is no engine, and calls fail with `STARTING`.
#[derive(Clone)]
pub struct Api {
    engine: Arc<OnceLock<Arc<Engine>>>,
    limits: Limits,
    shared: Arc<Shared>,
    refusals: Arc<Refusals>,
}

/// What the calls of administration share.
struct Shared {
    heavy: HeavyWork,
    /// Lists of permitted ranges, kept for their next pages: computing one can take longer than sending a page.
    permitted: Recent<RangeSet>,
    list_work: HeavyWork,
    /// Problems that lists of rules and groups show, by organization and revision.
    list_problems: Recent<Vec<Problem>>,
    subscribers: Subscribers,
    audit_reads: AuditReads,
    backups: Backups,
}

impl Api {
    /// Services whose engine is set later. Streams end when `draining` says so.
    pub fn new(limits: Limits, subscribers_max: usize, draining: watch::Receiver<bool>) -> Self {
        let shared = Shared {
            heavy: HeavyWork::default(),
            permitted: Recent::default(),
            list_work: HeavyWork::default(),
            list_problems: Recent::default(),
            subscribers: Subscribers::new(subscribers_max, draining),
            audit_reads: AuditReads::default(),
            backups: Backups::default(),
        };
        Self { engine: Arc::default(), limits, shared: Arc::new(shared), refusals: Arc::default() }
    }

    /// The services' engine: from now on they serve.
    pub fn start(&self, engine: Arc<Engine>) {
        if self.engine.set(engine).is_err() {
            tracing::error!("the services were started twice: the first engine stays");
        }
    }

    /// The calls that were refused.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    fn engine(&self) -> Result<&Arc<Engine>, Status> {
        self.engine.get().ok_or_else(status::starting)
    }
}

/// The answer with the header that names the revision.
fn at_revision<T>(message: T, revision: u64) -> Response<T> {
    let mut response = Response::new(message);
    response.metadata_mut().insert(REVISION_HEADER, revision.into());
    response
}

/// Revisions and counts as the API has them. They stay far below 2⁶³.
fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Numbers of items as the API has them.
fn count_to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
