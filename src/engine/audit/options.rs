//! How the audit log is kept.
//!
//! Invariant: by default no record of an answered shell Check is lost, no connection is allowed without a record, and
//! nothing is removed.
//! Not here: how the settings are spelled (`config`).

use std::time::Duration;

use crate::audit::note::VerifierKey;
use crate::policy::rule::ConnectionType;

/// When the answer to a Check may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When its record is durable.
    Sync,
    /// When its record is queued. A crash may lose the records of the last few milliseconds: those of
    /// [`AuditOptions::async_interval`] and of one write.
    Async,
}

/// What becomes of a Check while nothing can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAuditFailure {
    /// It is refused: no record, no decision.
    Deny,
    /// It is decided, without a session. How many there were is recorded later, as a gap.
    Allow,
}

impl OnAuditFailure {
    /// What is done meanwhile, for the log.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Deny => "changes and Checks are refused",
            Self::Allow => "changes are refused, and Checks are decided without a record",
        }
    }
}

/// How the audit log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// For shells.
    pub shell: Durability,
    /// For previews.
    pub preview: Durability,
    /// While nothing can be recorded.
    pub on_failure: OnAuditFailure,
    /// How long a Check waits for the sync of its record, and how long a write may take.
    pub deadline: Duration,
    /// How long `async` records are gathered before they are written. By default their flush begins within the 10 ms of
    /// design.md §3.5.
    pub async_interval: Duration,
    /// The most records that may be queued.
    pub queue_records_max: usize,
    /// Records older than this are removed, by whole units, which are small where this or the next is set
    /// (`unit_limits`); none: never.
    pub retention_age: Option<Duration>,
    /// The oldest units are removed while all records together, sealed or not, are larger than this, in bytes; none: no
    /// limit.
    pub retention_bytes: Option<u64>,
    /// Keys that signed before the present one, oldest first.
    pub earlier_keys: Vec<VerifierKey>,
    /// A unit that began longer ago than this is sealed even if it is not full.
    pub unit_age_max: Duration,
    /// How often a checkpoint is signed while there are new records. No setting of the service; tests shorten it.
    pub checkpoint_interval: Duration,
    /// The longest time that a subscriber to events is sent nothing. No setting of the service; tests shorten it.
    pub heartbeat_interval: Duration,
    /// How often it looks for records that retention no longer wants. No setting of the service; tests shorten it.
    pub retention_interval: Duration,
    /// How long writing is tried again while the log closes. No setting of the service; tests shorten it.
    pub closing_interval: Duration,
}

impl AuditOptions {
    /// When the answer to a Check of this type may be sent.
    pub fn durability(&self, connection_type: ConnectionType) -> Durability {
        match connection_type {
            ConnectionType::Shell => self.shell,
            ConnectionType::Preview => self.preview,
        }
    }
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            shell: Durability::Sync,
            preview: Durability::Async,
            on_failure: OnAuditFailure::Deny,
            deadline: Duration::from_secs(2),
            async_interval: Duration::from_millis(9),
            queue_records_max: 65_536,
            retention_age: None,
            retention_bytes: None,
            earlier_keys: Vec::new(),
            unit_age_max: Duration::from_hours(24),
            checkpoint_interval: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(5),
            retention_interval: Duration::from_secs(10),
            closing_interval: Duration::from_secs(3),
        }
    }
}
