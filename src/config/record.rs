//! How the audit log and the sessions are kept.
//!
//! Invariant: the default loses no answered check of a shell, lets nothing through unrecorded and removes nothing.
//! Not here: what the settings do (`engine`).

use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::args::RecordArgs;
use super::settings::{Settings, parse_count, parse_duration, parse_timeout, show_duration};

/// More sessions or subscribers than there is memory for.
const COUNT_CEILING: usize = 100_000_000;

/// Longer than anything that is waited for or gathered.
const INTERVAL_CEILING: Duration = Duration::from_secs(1);

/// When the answer to a check may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When its record is on the disk.
    Sync,
    /// When its record is queued.
    Async,
}

/// What becomes of a check while nothing can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAuditFailure {
    /// It is refused.
    Deny,
    /// It is decided unrecorded, and counted.
    Allow,
}

/// How the audit log and the sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// When the answer to a check of a shell may leave.
    pub audit_shell: Durability,
    /// When the answer to a check of a preview may leave.
    pub audit_preview: Durability,
    /// While nothing can be recorded.
    pub on_audit_failure: OnAuditFailure,
    /// How long a check waits for the disk.
    pub audit_deadline: Duration,
    /// How long records for which nobody waits are gathered.
    pub audit_async_interval: Duration,
    /// Where the key is that signs checkpoints; none: in the data directory.
    pub audit_key_file: Option<PathBuf>,
    /// Records older than this are removed; none: never.
    pub audit_retention_age: Option<Duration>,
    /// The oldest records are removed while all sealed ones take more bytes; none: no limit.
    pub audit_retention_bytes: Option<u64>,
    /// A preview session ends when no check came for this long.
    pub session_idle: Duration,
    /// Every session ends after this long.
    pub session_max_age: Duration,
    /// How many sessions may be active.
    pub active_sessions_max: usize,
    /// How many may follow events.
    pub subscribers_max: usize,
}

impl RecordConfig {
    pub(super) fn resolve(settings: &mut Settings, args: &RecordArgs) -> Self {
        let default = Self::default();
        let mut durability =
            |key, given: &Option<String>, default| settings.take(key, given.as_deref(), default, parse_durability);
        let audit_shell = durability("audit_shell", &args.audit_shell, default.audit_shell);
        let audit_preview = durability("audit_preview", &args.audit_preview, default.audit_preview);
        let on_audit_failure = settings.take(
            "on_audit_failure",
            args.on_audit_failure.as_deref(),
            default.on_audit_failure,
            parse_on_failure,
        );
        let mut timeout =
            |key, given: &Option<String>, default| settings.take(key, given.as_deref(), default, parse_timeout);
        let audit_deadline = timeout("audit_deadline", &args.audit_deadline, default.audit_deadline);
        let session_idle = timeout("session_idle", &args.session_idle, default.session_idle);
        let session_max_age = timeout("session_max_age", &args.session_max_age, default.session_max_age);
        let audit_async_interval = settings.take(
            "audit_async_interval",
            args.audit_async_interval.as_deref(),
            default.audit_async_interval,
            parse_interval,
        );
        let audit_key_file = match settings.take_path("audit_key_file", args.audit_key_file.as_deref(), PathBuf::new())
        {
            path if path.as_os_str().is_empty() => None,
            path => Some(path),
        };
        let age = |text: &str| parse_duration(text).map(Some);
        let audit_retention_age = settings.take("audit_retention_age", args.audit_retention_age.as_deref(), None, age);
        let bytes = |text: &str| parse_count(text, usize::MAX).map(|count| Some(count as u64));
        let audit_retention_bytes =
            settings.take("audit_retention_bytes", args.audit_retention_bytes.as_deref(), None, bytes);
        let mut count = |key, given: &Option<String>, default| {
            settings.take(key, given.as_deref(), default, |text| parse_count(text, COUNT_CEILING))
        };
        let active_sessions_max =
            count("limits.active_sessions", &args.limit_active_sessions, default.active_sessions_max);
        let subscribers_max = count("limits.subscribers", &args.limit_subscribers, default.subscribers_max);
        Self {
            audit_shell,
            audit_preview,
            on_audit_failure,
            audit_deadline,
            audit_async_interval,
            audit_key_file,
            audit_retention_age,
            audit_retention_bytes,
            session_idle,
            session_max_age,
            active_sessions_max,
            subscribers_max,
        }
    }

    /// The settings that resolve to it, but for the limits, which have a table of their own.
    pub(super) fn to_settings(&self) -> Vec<(&'static str, Value)> {
        let text = |value: &str| Value::String(value.to_owned());
        let duration = |value| Value::String(show_duration(value));
        let durability = |value| match value {
            Durability::Sync => text("sync"),
            Durability::Async => text("async"),
        };
        let on_failure = match self.on_audit_failure {
            OnAuditFailure::Deny => text("deny"),
            OnAuditFailure::Allow => text("allow"),
        };
        let mut settings = vec![
            ("audit_shell", durability(self.audit_shell)),
            ("audit_preview", durability(self.audit_preview)),
            ("on_audit_failure", on_failure),
            ("audit_deadline", duration(self.audit_deadline)),
            ("audit_async_interval", duration(self.audit_async_interval)),
            ("session_idle", duration(self.session_idle)),
            ("session_max_age", duration(self.session_max_age)),
        ];
        settings.extend(self.audit_key_file.iter().map(|path| ("audit_key_file", text(&path.to_string_lossy()))));
        settings.extend(self.audit_retention_age.map(|age| ("audit_retention_age", duration(age))));
        let bytes = self.audit_retention_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        settings.extend(bytes.map(|bytes| ("audit_retention_bytes", Value::Integer(bytes))));
        settings
    }
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            audit_shell: Durability::Sync,
            audit_preview: Durability::Async,
            on_audit_failure: OnAuditFailure::Deny,
            audit_deadline: Duration::from_secs(2),
            audit_async_interval: Duration::from_millis(9),
            audit_key_file: None,
            audit_retention_age: None,
            audit_retention_bytes: None,
            session_idle: Duration::from_mins(30),
            session_max_age: Duration::from_hours(24),
            active_sessions_max: 1_000_000,
            subscribers_max: 1_000,
        }
    }
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "async" => Ok(Durability::Async),
        _ => Err("is no way to record: write `sync` or `async`".to_owned()),
    }
}

fn parse_on_failure(text: &str) -> Result<OnAuditFailure, String> {
    match text {
        "deny" => Ok(OnAuditFailure::Deny),
        "allow" => Ok(OnAuditFailure::Allow),
        _ => Err("is not what checks can come to: write `deny` or `allow`".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        interval if interval <= INTERVAL_CEILING => Ok(interval),
        _ => Err("is longer than a second, which is more than a crash may take: give at most `1s`".to_owned()),
    }
}
