//! What `portcullis serve` is told: flags, environment and file as typed, and the configuration as meant.
//!
//! Invariant: a `Config` is valid as a whole. Resolving is pure and reports every fault at once; a flag beats the
//! environment, which beats the file, which beats the default.
//! Not here: reading the file (`cli::serve`); flags and environment are read by clap.

mod args;
mod record;
mod settings;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use crate::policy::limits::Limits;

pub use args::{LimitArgs, RecordArgs, ServeArgs};
pub use record::{Durability, OnAuditFailure, RecordConfig};
pub use settings::{ConfigErrors, Fault, parse_duration};
use settings::{
    Settings, is_local, parse_bool, parse_count, parse_filter, parse_format, parse_listen, parse_socket_path,
    parse_timeout, show_duration,
};

/// What requests may be made as large as, so that one of them cannot take the memory of all others.
const REQUEST_BYTES_CEILING: usize = 64 << 20;

/// More connections or requests than a process has file descriptors or memory for.
const CONCURRENCY_CEILING: usize = 1_000_000;

/// Positions of rules are `int32`; other counts need no more.
const LIMIT_CEILING: usize = 1_000_000_000;

/// The configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where gRPC is served. Port 0 picks a free port.
    pub listen: SocketAddr,
    /// At which Unix socket gRPC is served too.
    pub listen_unix: Option<PathBuf>,
    /// Where everything is stored.
    pub data_dir: PathBuf,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long requests in flight may go on after the server was told to stop.
    pub drain_timeout: Duration,
    /// How many connections are open at once.
    pub connections_max: usize,
    /// How many requests are worked on at once.
    pub requests_in_flight_max: usize,
    /// How large a request message may be.
    pub request_bytes_max: usize,
    /// How large a policy may become.
    pub limits: Limits,
    /// How the audit log and the sessions are kept.
    pub record: RecordConfig,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How log lines look.
    pub format: LogFormat,
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The default configuration on another directory and on a free port, as tests want it.
    pub fn for_data_dir(data_dir: impl Into<PathBuf>) -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), data_dir: data_dir.into(), ..Self::default() }
    }

    /// What `args` and the text of the configuration file mean together.
    pub fn resolve(args: &ServeArgs, file: Option<&str>) -> Result<Self, ConfigErrors> {
        let mut settings = Settings::read(file);
        let default = Self::default();
        let insecure = settings.take("insecure", args.insecure.as_deref(), false, parse_bool);
        let listen =
            settings.take("listen", args.listen.as_deref(), default.listen, |text| parse_listen(text, insecure));
        let listen_unix = args.listen_unix.as_deref().map(std::path::Path::to_string_lossy);
        let listen_unix = settings.take("listen_unix", listen_unix.as_deref(), None, parse_socket_path);
        let data_dir = settings.take_path("data_dir", args.data_dir.as_deref(), default.data_dir);
        let format = settings.take("log_format", args.log_format.as_deref(), default.log.format, parse_format);
        let filter = settings.take("log_filter", args.log_filter.as_deref(), default.log.filter, parse_filter);
        let mut duration =
            |key, given: &Option<String>, default| settings.take(key, given.as_deref(), default, parse_timeout);
        let request_timeout = duration("request_timeout", &args.request_timeout, default.request_timeout);
        let drain_timeout = duration("drain_timeout", &args.drain_timeout, default.drain_timeout);
        let mut count = |key, given: &Option<String>, default, ceiling| {
            settings.take(key, given.as_deref(), default, |text| parse_count(text, ceiling))
        };
        let connections_max =
            count("connections_max", &args.connections_max, default.connections_max, CONCURRENCY_CEILING);
        let requests_in_flight_max = count(
            "requests_in_flight_max",
            &args.requests_in_flight_max,
            default.requests_in_flight_max,
            CONCURRENCY_CEILING,
        );
        let request_bytes_max =
            count("request_bytes_max", &args.request_bytes_max, default.request_bytes_max, REQUEST_BYTES_CEILING);
        let limits = resolve_limits(&mut settings, &args.limits);
        let record = RecordConfig::resolve(&mut settings, &args.record);
        settings.finish(Self {
            listen,
            listen_unix,
            data_dir,
            log: LogConfig { format, filter },
            request_timeout,
            drain_timeout,
            connections_max,
            requests_in_flight_max,
            request_bytes_max,
            limits,
            record,
        })
    }

    /// The configuration as a file that resolves to it.
    pub fn to_toml(&self) -> String {
        let limits = &self.limits;
        let lines = [
            ("listen", text(self.listen.to_string())),
            ("insecure", Value::Boolean(!is_local(self.listen))),
            ("data_dir", text(self.data_dir.to_string_lossy())),
            ("log_format", text(self.log.format.to_string())),
            ("log_filter", text(self.log.filter.as_str())),
            ("request_timeout", text(show_duration(self.request_timeout))),
            ("drain_timeout", text(show_duration(self.drain_timeout))),
            ("connections_max", number(self.connections_max)),
            ("requests_in_flight_max", number(self.requests_in_flight_max)),
            ("request_bytes_max", number(self.request_bytes_max)),
        ];
        let limits = [
            ("organizations", number(limits.organizations_max)),
            ("rules_per_organization", number(limits.rules_per_organization_max)),
            ("groups_per_organization", number(limits.groups_per_organization_max)),
            ("ranges_per_group", number(limits.ranges_per_group_max)),
            ("ranges_per_organization", number(limits.ranges_per_organization_max)),
            ("nodes_per_organization", number(limits.nodes_per_organization_max)),
            ("entries_per_node", number(limits.entries_per_node_max)),
            ("tests_per_organization", number(limits.tests_per_organization_max)),
            ("description_characters", number(limits.description_characters_max)),
            ("active_sessions", number(self.record.active_sessions_max)),
            ("subscribers", number(self.record.subscribers_max)),
        ];
        let show = |(key, value): &(&str, Value)| format!("{key} = {value}\n");
        let record = self.record.to_settings();
        let listen_unix = self.listen_unix.as_ref().map(|path| ("listen_unix", text(path.to_string_lossy())));
        let lines = lines.iter().chain(&listen_unix).map(show).chain(record.iter().map(show));
        lines.chain(["\n[limits]\n".to_owned()]).chain(limits.iter().map(show)).collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            listen_unix: None,
            data_dir: PathBuf::from("./portcullis-data"),
            log: LogConfig { format: LogFormat::Text, filter: "info".to_owned() },
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            connections_max: 10_000,
            requests_in_flight_max: 4_096,
            request_bytes_max: 16 << 20,
            limits: Limits::default(),
            record: RecordConfig::default(),
        }
    }
}

fn resolve_limits(settings: &mut Settings, args: &LimitArgs) -> Limits {
    let default = Limits::default();
    let mut limit = |key, given: &Option<String>, default| {
        settings.take(key, given.as_deref(), default, |text| parse_count(text, LIMIT_CEILING))
    };
    Limits {
        organizations_max: limit("limits.organizations", &args.limit_organizations, default.organizations_max),
        rules_per_organization_max: limit(
            "limits.rules_per_organization",
            &args.limit_rules_per_organization,
            default.rules_per_organization_max,
        ),
        groups_per_organization_max: limit(
            "limits.groups_per_organization",
            &args.limit_groups_per_organization,
            default.groups_per_organization_max,
        ),
        ranges_per_group_max: limit(
            "limits.ranges_per_group",
            &args.limit_ranges_per_group,
            default.ranges_per_group_max,
        ),
        ranges_per_organization_max: limit(
            "limits.ranges_per_organization",
            &args.limit_ranges_per_organization,
            default.ranges_per_organization_max,
        ),
        nodes_per_organization_max: limit(
            "limits.nodes_per_organization",
            &args.limit_nodes_per_organization,
            default.nodes_per_organization_max,
        ),
        entries_per_node_max: limit(
            "limits.entries_per_node",
            &args.limit_entries_per_node,
            default.entries_per_node_max,
        ),
        tests_per_organization_max: limit(
            "limits.tests_per_organization",
            &args.limit_tests_per_organization,
            default.tests_per_organization_max,
        ),
        description_characters_max: limit(
            "limits.description_characters",
            &args.limit_description_characters,
            default.description_characters_max,
        ),
    }
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn number(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}
