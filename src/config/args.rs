//! The flags and environment variables of `portcullis serve`.
//!
//! Invariant: every value is optional and still text, so that a wrong one does not hide the next; what it means is
//! decided in one place, with the file.
//! Not here: defaults, which the help texts only repeat (a test compares them), and meaning (`config`).

use std::path::PathBuf;

use clap::Args;

/// What was typed after `portcullis serve`, or stands in the environment. Values are texts until they are resolved, so
/// that a wrong one does not hide the next.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Read settings from this TOML file; flags and environment take precedence over it
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the resolved configuration as TOML and exit: with 0 where it is valid, with 1 where it is not
    #[arg(long)]
    pub check_config: bool,
    /// Serve gRPC here; port 0 picks a free one [default: 127.0.0.1:7070]
    #[arg(long, env = "PORTCULLIS_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Serve gRPC at this Unix socket too, for sidecars on the same machine; who may connect is up to its file mode
    #[arg(long, env = "PORTCULLIS_LISTEN_UNIX", value_name = "PATH")]
    pub listen_unix: Option<PathBuf>,
    /// Allow a `listen` address that other machines reach, though there is neither TLS nor authentication
    #[arg(long, env = "PORTCULLIS_INSECURE", value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub insecure: Option<String>,
    /// Store everything in this directory [default: ./portcullis-data]
    #[arg(long, env = "PORTCULLIS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Write the log as text or as one JSON object a line [default: text]
    #[arg(long, env = "PORTCULLIS_LOG_FORMAT", value_name = "text|json")]
    pub log_format: Option<String>,
    /// Log what this filter lets through, such as `info` or `warn,portcullis=debug` [default: info]
    #[arg(long, env = "PORTCULLIS_LOG_FILTER", value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Give up a request after this long [default: 30s]
    #[arg(long, env = "PORTCULLIS_REQUEST_TIMEOUT", value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// Let requests in flight go on for this long after SIGTERM or SIGINT [default: 10s]
    #[arg(long, env = "PORTCULLIS_DRAIN_TIMEOUT", value_name = "DURATION")]
    pub drain_timeout: Option<String>,
    /// Keep at most this many connections open [default: 10000]
    #[arg(long, env = "PORTCULLIS_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<String>,
    /// Work on at most this many requests at once [default: 4096]
    #[arg(long, env = "PORTCULLIS_REQUESTS_IN_FLIGHT_MAX", value_name = "COUNT")]
    pub requests_in_flight_max: Option<String>,
    /// Refuse request messages larger than this, at most 67108864 [default: 16777216]
    #[arg(long, env = "PORTCULLIS_REQUEST_BYTES_MAX", value_name = "BYTES")]
    pub request_bytes_max: Option<String>,
    /// The audit log and the sessions.
    #[command(flatten)]
    pub record: RecordArgs,
    /// The limits of policies.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// The part of what was typed that is about the audit log and the sessions.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Audit log and sessions")]
pub struct RecordArgs {
    /// Answer a check of a shell once its record is on the disk (sync) or queued (async) [default: sync]
    #[arg(long, env = "PORTCULLIS_AUDIT_SHELL", value_name = "sync|async")]
    pub audit_shell: Option<String>,
    /// Answer a check of a preview once its record is on the disk (sync) or queued (async) [default: async]
    #[arg(long, env = "PORTCULLIS_AUDIT_PREVIEW", value_name = "sync|async")]
    pub audit_preview: Option<String>,
    /// While nothing can be recorded, refuse checks (deny) or decide them unrecorded, counted as a gap (allow) [default: deny]
    #[arg(long, env = "PORTCULLIS_ON_AUDIT_FAILURE", value_name = "deny|allow")]
    pub on_audit_failure: Option<String>,
    /// Give up a check whose record the disk has not taken after this long [default: 2s]
    #[arg(long, env = "PORTCULLIS_AUDIT_DEADLINE", value_name = "DURATION")]
    pub audit_deadline: Option<String>,
    /// Write records for which nobody waits this often [default: 9ms]
    #[arg(long, env = "PORTCULLIS_AUDIT_ASYNC_INTERVAL", value_name = "DURATION")]
    pub audit_async_interval: Option<String>,
    /// Sign the checkpoints of the audit log with the key in this file, which is made where it does not exist
    /// [default: audit.key in the data directory]
    #[arg(long, env = "PORTCULLIS_AUDIT_KEY_FILE", value_name = "FILE")]
    pub audit_key_file: Option<PathBuf>,
    /// Remove records that are older than this, 65,536 at a time [default: never]
    #[arg(long, env = "PORTCULLIS_AUDIT_RETENTION_AGE", value_name = "DURATION")]
    pub audit_retention_age: Option<String>,
    /// Remove the oldest records while the sealed ones take more than this [default: no limit]
    #[arg(long, env = "PORTCULLIS_AUDIT_RETENTION_BYTES", value_name = "BYTES")]
    pub audit_retention_bytes: Option<String>,
    /// End a preview session for which no check has come for this long [default: 30m]
    #[arg(long, env = "PORTCULLIS_SESSION_IDLE", value_name = "DURATION")]
    pub session_idle: Option<String>,
    /// End every session after this long [default: 24h]
    #[arg(long, env = "PORTCULLIS_SESSION_MAX_AGE", value_name = "DURATION")]
    pub session_max_age: Option<String>,
    /// Active sessions of the server [default: 1000000]
    #[arg(long, env = "PORTCULLIS_LIMIT_ACTIVE_SESSIONS", value_name = "COUNT")]
    pub limit_active_sessions: Option<String>,
    /// Subscribers to events at a time [default: 1000]
    #[arg(long, env = "PORTCULLIS_LIMIT_SUBSCRIBERS", value_name = "COUNT")]
    pub limit_subscribers: Option<String>,
}

/// The part of what was typed that is about limits. In the file it is the table `[limits]`, without the `limit_`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Organizations of the server [default: 100000]
    #[arg(long, env = "PORTCULLIS_LIMIT_ORGANIZATIONS", value_name = "COUNT")]
    pub limit_organizations: Option<String>,
    /// Rules of an organization [default: 100000]
    #[arg(long, env = "PORTCULLIS_LIMIT_RULES_PER_ORGANIZATION", value_name = "COUNT")]
    pub limit_rules_per_organization: Option<String>,
    /// Address groups of an organization [default: 10000]
    #[arg(long, env = "PORTCULLIS_LIMIT_GROUPS_PER_ORGANIZATION", value_name = "COUNT")]
    pub limit_groups_per_organization: Option<String>,
    /// Ranges of an address group [default: 1000000]
    #[arg(long, env = "PORTCULLIS_LIMIT_RANGES_PER_GROUP", value_name = "COUNT")]
    pub limit_ranges_per_group: Option<String>,
    /// Ranges of all address groups of an organization [default: 2000000]
    #[arg(long, env = "PORTCULLIS_LIMIT_RANGES_PER_ORGANIZATION", value_name = "COUNT")]
    pub limit_ranges_per_organization: Option<String>,
    /// Nodes below an organization [default: 100000]
    #[arg(long, env = "PORTCULLIS_LIMIT_NODES_PER_ORGANIZATION", value_name = "COUNT")]
    pub limit_nodes_per_organization: Option<String>,
    /// Entries of a node's allowlist [default: 10000]
    #[arg(long, env = "PORTCULLIS_LIMIT_ENTRIES_PER_NODE", value_name = "COUNT")]
    pub limit_entries_per_node: Option<String>,
    /// Policy tests of an organization [default: 1000]
    #[arg(long, env = "PORTCULLIS_LIMIT_TESTS_PER_ORGANIZATION", value_name = "COUNT")]
    pub limit_tests_per_organization: Option<String>,
    /// Characters of a description, a display name or a comment [default: 1024]
    #[arg(long, env = "PORTCULLIS_LIMIT_DESCRIPTION_CHARACTERS", value_name = "COUNT")]
    pub limit_description_characters: Option<String>,
}
