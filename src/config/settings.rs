//! Single settings: taken from where they are given, parsed, and written down as faults where they are wrong.
//!
//! Invariant: a fault never ends the reading; the default stands in, so that every other setting is judged too.
//! Not here: which settings there are (`config`).

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};
use tracing_subscriber::EnvFilter;

use super::{Config, LogFormat};

/// What is longer is hardly meant, and far from overflowing any clock.
const TIMEOUT_CEILING: Duration = Duration::from_hours(24);

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The faults, in the order of the settings; at least one.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which setting, as it is spelled where it was given.
    pub setting: String,
    /// What it was set to. Empty where the setting itself is the fault.
    pub value: String,
    /// What is wrong with it, and what to do.
    pub advice: String,
}

/// The settings of the file that nobody has asked for yet, and the faults so far.
pub(super) struct Settings {
    file: Table,
    faults: Vec<Fault>,
}

impl Settings {
    pub(super) fn read(file: Option<&str>) -> Self {
        match file.unwrap_or_default().parse() {
            Ok(file) => Self { file, faults: Vec::new() },
            Err(error) => {
                let advice = error.to_string().trim_end().to_owned();
                let fault = Fault { setting: "configuration file".to_owned(), value: String::new(), advice };
                Self { file: Table::new(), faults: vec![fault] }
            }
        }
    }

    /// The value of a setting; the default where it is not given, or wrong and written down as a fault.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        given: Option<&str>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let in_file = self.remove(key);
        let (setting, value) = match (given, in_file) {
            (Some(given), _) => (spelled(key), given.to_owned()),
            (None, Some(Value::String(text))) => (in_the_file(key), text),
            (None, Some(other)) => (in_the_file(key), other.to_string()),
            (None, None) => return default,
        };
        parse(&value).unwrap_or_else(|advice| {
            self.faults.push(Fault { setting, value, advice });
            default
        })
    }

    /// As `take`; a path that was typed need not be text.
    pub(super) fn take_path(&mut self, key: &str, given: Option<&Path>, default: PathBuf) -> PathBuf {
        let shown = given.map(Path::to_string_lossy);
        let taken = self.take(key, shown.as_deref(), default, |text| match text {
            "" => Err("is empty: give a directory".to_owned()),
            text => Ok(PathBuf::from(text)),
        });
        given.map_or(taken, Path::to_path_buf)
    }

    fn remove(&mut self, key: &str) -> Option<Value> {
        match key.split_once('.') {
            None => self.file.remove(key),
            Some((table, key)) => self.file.get_mut(table)?.as_table_mut()?.remove(key),
        }
    }

    /// The configuration, unless there was a fault or the file has something left that nobody asked for.
    pub(super) fn finish(mut self, config: Config) -> Result<Config, ConfigErrors> {
        for (key, value) in self.file {
            let unknown = match value {
                Value::Table(inner) if key == "limits" => inner.keys().map(|inner| format!("limits.{inner}")).collect(),
                _ => vec![key],
            };
            self.faults.extend(unknown.into_iter().map(|key| {
                Fault {
                    setting: in_the_file(&key),
                    value: String::new(),
                    advice: "is not a setting: correct or remove it, `portcullis serve --check-config` prints them all"
                        .to_owned(),
                }
            }));
        }
        if self.faults.is_empty() { Ok(config) } else { Err(ConfigErrors { faults: self.faults }) }
    }
}

/// How a setting is spelled as a flag and in the environment.
fn spelled(key: &str) -> String {
    let name = key.replacen("limits.", "limit_", 1);
    format!("`--{}` or `PORTCULLIS_{}`", name.replace('_', "-"), name.to_uppercase())
}

fn in_the_file(key: &str) -> String {
    format!("`{key}` in the configuration file")
}

/// Whether only this machine reaches an address.
pub(super) fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// A path for a Unix socket, which the operating system limits to 107 bytes.
pub(super) fn parse_socket_path(text: &str) -> Result<Option<PathBuf>, String> {
    match text.len() {
        0 => Err("is empty: give a path".to_owned()),
        1..=107 => Ok(Some(PathBuf::from(text))),
        _ => Err("is longer than the 107 bytes that a socket's path may have: choose a shorter one".to_owned()),
    }
}

pub(super) fn parse_listen(text: &str, insecure: bool) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "is not an address with a port: write it as `127.0.0.1:7070` or `[::1]:7070`".to_owned())?;
    if insecure || is_local(address) {
        return Ok(address);
    }
    Err("is reachable from other machines, and without TLS and authentication whoever reaches it can read and change \
         every policy: listen on a loopback address such as `127.0.0.1:7070`, or give `--insecure` if everybody who \
         reaches it may"
        .to_owned())
}

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is neither `true` nor `false`: write one of them".to_owned())
}

pub(super) fn parse_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not a log format: write `text` or `json`".to_owned()),
    }
}

pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("is not a log filter: {error}: write it like `info` or `warn,portcullis=debug`")),
    }
}

pub(super) fn parse_count(text: &str, ceiling: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=ceiling).contains(&count) => Ok(count),
        _ => Err(format!("is not a whole number from 1 to {ceiling}: write one")),
    }
}

/// Parses a positive duration: a whole number and `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(unit_at);
    let milliseconds_per_unit = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let milliseconds = count.parse().ok().zip(milliseconds_per_unit).and_then(|(n, per): (u64, _)| n.checked_mul(per));
    match milliseconds {
        Some(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => {
            Err("is not a positive duration: write a whole number and `ms`, `s`, `m` or `h`, such as `30s`".to_owned())
        }
    }
}

pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        timeout if timeout <= TIMEOUT_CEILING => Ok(timeout),
        _ => Err("is longer than a day, which no request should wait: give at most `24h`".to_owned()),
    }
}

/// A duration as `parse_duration` reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    match duration.as_millis() {
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, advice } = self;
        if value.is_empty() { write!(f, "{setting}: {advice}") } else { write!(f, "{setting}: `{value}` {advice}") }
    }
}
