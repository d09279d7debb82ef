//! Denials by their reasons, told in the log once a minute.
//!
//! They are counted as their records become durable, so a Check does nothing for it, except where it goes unrecorded.
//!
//! Invariant: every denial that is on record, or was decided without a record, is told once, within a minute or at the end.
//! Not here: the form of the line (`tally`).

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::policy::decision::{Decision, Reason};
use crate::tally;

/// The reasons to deny.
const REASONS: [Reason; 5] = [
    Reason::UnknownEndpoint,
    Reason::OutsideCluster,
    Reason::DenyRule,
    Reason::OutsideOrganization,
    Reason::OutsideEndpoint,
];

/// Denials since the last line.
#[derive(Default)]
pub(super) struct Denials([AtomicU64; REASONS.len()]);

/// When they were told last.
pub(super) struct DenialLog {
    since: Instant,
}

impl Denials {
    /// Counts a decision, if it is a denial.
    pub(super) fn note(&self, decided: Reason) {
        if decided.decision() == Decision::Deny
            && let Some(at) = REASONS.iter().position(|reason| *reason == decided)
            && let Some(count) = self.0.get(at)
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl DenialLog {
    pub(super) fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Tells them if a minute is over, or `now`.
    pub(super) fn tell(&mut self, denials: &Denials, now: bool) {
        let period = self.since.elapsed();
        if period < tally::INTERVAL && !now {
            return;
        }
        self.since = Instant::now();
        let counts = REASONS.iter().zip(&denials.0);
        let counts = counts.map(|(reason, count)| (reason.message(), count.swap(0, Ordering::Relaxed)));
        if let Some(line) = tally::line("denied", period, counts) {
            tracing::info!("{line}");
        }
    }
}
