//! The table of all settings: one row each, from which flag, variable, key, default, bound, help and reference follow.
//!
//! A row is `FIELD: TYPE = DEFAULT`, and where it differs from what the type says: `as "KEY"`, the name of a value in the
//! usage, `max BOUND`, `unset "MEANING"`. Its comment is its help.
//!
//! Invariant: the default listens on loopback only, loses no answered check of a shell, lets nothing through unrecorded
//! and removes nothing.
//! Not here: how a value is read (`setting`), and what the settings do (`server`, `engine`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::macros::{choices, given_or, limit, row, settings, without_max};
use super::setting::{self, LogFilter, Nat64Prefixes, Value, text};
use crate::policy::limits::Limits;

/// A longer timeout is surely a mistake. This one is far from overflowing a clock. In milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1_000;

/// A crash may lose the asynchronous records of this time. In milliseconds.
const SECOND: u64 = 1_000;

/// A request must not take the memory of all others.
const REQUEST_BYTES: u64 = 64 << 20;

/// More connections or requests than a process has file descriptors or memory for.
const CONCURRENCY: u64 = 1_000_000;

/// More sessions or subscribers than there is memory for.
const SESSIONS: u64 = 100_000_000;

/// Positions of rules are `int32`; other counts need no more.
const POLICY: u64 = 1_000_000_000;

/// The largest integer of TOML.
const INTEGER: u64 = i64::MAX as u64;

/// Linux permits so many bytes in the path of a Unix socket (`sun_path`).
const SOCKET_PATH: u64 = 107;

/// A row of the table.
pub type Setting = setting::Setting<Config>;

/// All settings, in the order of the help and of the reference.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    [SERVER, LOG, RECORD, LIMITS].into_iter().flatten()
}

settings! {
    /// The configuration of a server.
    Config at [], SERVER under "Server" {
        /// Serve gRPC here; port 0 picks a free one
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7070));
        /// Serve gRPC at this Unix socket too, for sidecars on the same machine; who may connect is up to its file mode
        /// and directory
        listen_unix: Option<PathBuf> = None, "PATH", max SOCKET_PATH;
        /// Allow a `listen` address that other machines reach, though there is neither TLS nor authentication
        insecure: bool = false;
        /// Store everything in this directory, which one process uses at a time
        data_dir: PathBuf = PathBuf::from("./portcullis-data"), "DIR";
        /// Give up a request after this long; a client's own deadline can only shorten it
        request_timeout: Duration = Duration::from_secs(30), max DAY;
        /// Let requests in flight go on for this long after SIGTERM or SIGINT
        drain_timeout: Duration = Duration::from_secs(10), max DAY;
        /// Keep at most this many connections open; further ones wait
        connections_max: usize = 10_000, max CONCURRENCY;
        /// Work on at most this many requests at once and refuse more: checks and administration count apart, the latter
        /// up to 256
        requests_in_flight_max: usize = 4_096, max CONCURRENCY;
        /// Refuse request messages larger than this
        request_bytes_max: usize = 16 << 20, "BYTES", max REQUEST_BYTES;
        /// Report deny rules for IPv4 that let in the same addresses behind these translators, beside `64:ff9b::/96`
        nat64_prefixes: Nat64Prefixes = Nat64Prefixes::default(), unset "none but `64:ff9b::/96`";
    }
    beside {
        /// What is logged, and how.
        log: LogConfig = LogConfig::default();
        /// How large a policy may become.
        limits: Limits = Limits::default();
        /// How the audit log and the sessions are kept.
        record: RecordConfig = RecordConfig::default();
    }
}

settings! {
    /// What is logged, and how.
    LogConfig at [log], LOG under "Log" {
        /// Write the log to standard error as text or as one JSON object a line
        format: LogFormat = LogFormat::Text, as "log_format";
        /// Log what this filter lets through, such as `info` or `warn,portcullis=debug`; `debug` and `trace` alone leave
        /// other crates at `info`
        filter: LogFilter = LogFilter::info(), as "log_filter";
    }
}

settings! {
    /// How the audit log and the sessions are kept.
    RecordConfig at [record], RECORD under "Audit log and sessions" {
        /// Answer a check of a shell once its record is on the disk (sync) or queued (async)
        audit_shell: Durability = Durability::Sync;
        /// Answer a check of a preview once its record is on the disk (sync) or queued (async)
        audit_preview: Durability = Durability::Async;
        /// While nothing can be recorded, refuse checks (deny) or decide them unrecorded, counted as a gap (allow)
        on_audit_failure: OnAuditFailure = OnAuditFailure::Deny;
        /// Give up a check whose record the disk has not taken after this long; while a single write takes longer, nothing
        /// can be recorded
        audit_deadline: Duration = Duration::from_secs(2), max DAY;
        /// Write records for which nobody waits this often
        audit_async_interval: Duration = Duration::from_millis(9), max SECOND;
        /// Sign the checkpoints of the audit log with the key in this file, which is made where it does not exist
        audit_key_file: Option<PathBuf> = None, unset "audit.key in the data directory";
        /// Remove records that are older than this, on the record; what is younger than the longest session stays, and up to
        /// 256 of the oldest records or 1/256 of all, and the newest up to 255
        audit_retention_age: Option<Duration> = None, unset "never";
        /// Remove the oldest records while all take more than this, on the record; what is younger than the longest session
        /// stays, and up to 256 of the oldest records or 1/256 of all, and the newest up to 255
        audit_retention_bytes: Option<u64> = None, "BYTES", max INTEGER, unset "no limit";
        /// End a preview session for which no check has come for this long
        session_idle: Duration = Duration::from_mins(30), max DAY;
        /// End every session after this long
        session_max_age: Duration = Duration::from_hours(24), max DAY;
    }
    beside {
        /// How many sessions may be active.
        active_sessions_max: usize = 1_000_000;
        /// How many may follow events.
        subscribers_max: usize = 1_000;
        /// Another key may sign the audit log from this start on. A flag alone sets it: it is meant for one start.
        audit_key_new: bool = false;
    }
}

const LIMITS: &[Setting] = &[
    limit!([limits] organizations_max, max POLICY, "Organizations of the server"),
    limit!([limits] rules_per_organization_max, max POLICY, "Rules of an organization"),
    limit!([limits] groups_per_organization_max, max POLICY, "Address groups of an organization"),
    limit!([limits] ranges_per_group_max, max POLICY, "Ranges of an address group"),
    limit!([limits] ranges_per_organization_max, max POLICY, "Ranges of all address groups of an organization"),
    limit!([limits] nodes_per_organization_max, max POLICY, "Projects, workspaces and endpoints of an organization"),
    limit!([limits] entries_per_node_max, max POLICY, "Entries of a node's allowlist"),
    limit!([limits] tests_per_organization_max, max POLICY, "Policy tests of an organization"),
    limit!([limits] description_characters_max, max POLICY, "Characters of a description, display name or comment"),
    limit!([record] active_sessions_max, max SESSIONS, "Active sessions of the server"),
    limit!([record] subscribers_max, max SESSIONS, "Subscribers to events at a time"),
];

choices! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json"
    }
}

choices! {
    /// When the answer to a check may leave.
    Durability {
        /// When its record is on the disk.
        Sync = "sync",
        /// When its record is queued.
        Async = "async"
    }
}

choices! {
    /// What becomes of a check while nothing can be recorded.
    OnAuditFailure {
        /// It is refused.
        Deny = "deny",
        /// It is decided unrecorded, and counted.
        Allow = "allow"
    }
}
