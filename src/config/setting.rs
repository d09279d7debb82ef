//! What one setting is, and what its values are: how a value is read, bounded, shown and described.
//!
//! Invariant: flag, environment variable and file pass the same text through the same `read`, so that they accept the
//! same values.
//! Not here: which settings there are (`table`), and where their values come from (`args`, `file`).

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::problems::{Nat64Prefix, Nat64PrefixError};
use crate::policy::time::parse_duration;
use tracing_subscriber::EnvFilter;

/// Each prefix is one more look at every rule. No network has as many translators.
const NAT64_PREFIXES_MAX: usize = 16;

/// One row of a table of settings, which together make a configuration `C`.
#[derive(Debug)]
pub struct Setting<C> {
    /// The table of the configuration file that it belongs to; empty for the top level.
    pub table: &'static str,
    /// Its name in that table.
    pub name: &'static str,
    /// What it does, as the help and the reference say it.
    pub help: &'static str,
    /// The heading that it stands under in the help and in the reference.
    pub heading: &'static str,
    /// What stands for a value in the usage: `COUNT`, `sync|async`.
    pub value_name: &'static str,
    /// What applies when it is not set, for a setting without a default value.
    pub unset: &'static str,
    /// The largest value: a count, milliseconds of a duration or bytes of a path; `u64::MAX` where there is no bound.
    pub max: u64,
    pub(super) about: fn(u64) -> String,
    pub(super) set: fn(&mut C, &OsStr) -> Result<(), String>,
    pub(super) show: fn(&C) -> Option<toml::Value>,
}

impl<C: Default> Setting<C> {
    /// The key in the configuration file: `name`, or `table.name`.
    pub fn key(&self) -> String {
        if self.table.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.table, self.name) }
    }

    /// The key as one name without a table. Flag and variable are built from it.
    pub fn flat_name(&self) -> String {
        flat(&self.key())
    }

    /// The flag of `portcullis serve`.
    pub fn flag(&self) -> String {
        format!("--{}", self.flat_name().replace('_', "-"))
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("PORTCULLIS_{}", self.flat_name().to_uppercase())
    }

    /// Which values it takes.
    pub fn values(&self) -> String {
        (self.about)(self.max)
    }

    /// The default as it is written, where there is one.
    pub fn default_value(&self) -> Option<String> {
        (self.show)(&C::default()).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    pub(super) fn is_switch(&self) -> bool {
        self.value_name == bool::NAME
    }
}

/// A key of the file as one name without a table: `limits.subscribers` becomes `limit_subscribers`.
pub(super) fn flat(key: &str) -> String {
    key.replacen("limits.", "limit_", 1).replace('.', "_")
}

/// A type that settings have.
pub(super) trait Value: Sized {
    /// What stands for a value in the usage, unless a row says otherwise.
    const NAME: &str;

    /// What the values are, as the reference tells it.
    fn about(max: u64) -> String;

    /// The value that a text means, or what is wrong with the text and what to write.
    fn read(given: &OsStr, max: u64) -> Result<Self, String>;

    /// The value as `read` takes it; none where there is none.
    fn show(&self) -> Option<toml::Value>;
}

/// A filter of log lines, in the syntax of tracing's `EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The default: events of the level `info` and above.
    pub(super) fn info() -> Self {
        Self("info".to_owned())
    }

    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Prefixes of translators, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat64Prefixes(Vec<Nat64Prefix>);

impl Nat64Prefixes {
    /// The prefixes.
    pub fn as_slice(&self) -> &[Nat64Prefix] {
        &self.0
    }
}

impl<T: Value> Value for Option<T> {
    const NAME: &str = T::NAME;

    fn about(max: u64) -> String {
        T::about(max)
    }

    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        T::read(given, max).map(Some)
    }

    fn show(&self) -> Option<toml::Value> {
        self.as_ref().and_then(T::show)
    }
}

impl Value for SocketAddr {
    const NAME: &str = "ADDRESS:PORT";

    fn about(_: u64) -> String {
        "an address with a port, such as `127.0.0.1:7070` or `[::1]:7070`".to_owned()
    }

    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        text(given)?.parse().map_err(|_| format!("is not {}", Self::about(max)))
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.to_string().into())
    }
}

impl Value for PathBuf {
    const NAME: &str = "FILE";

    fn about(max: u64) -> String {
        if max == u64::MAX { "a path".to_owned() } else { format!("a path of at most {max} bytes") }
    }

    /// A path need not be UTF-8.
    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        match given.len() as u64 {
            0 => Err("is empty: give a path".to_owned()),
            bytes if bytes > max => Err(format!("is too long: give {}", Self::about(max))),
            _ => Ok(Self::from(given)),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.to_string_lossy().into_owned().into())
    }
}

impl Value for bool {
    const NAME: &str = "true|false";

    fn about(_: u64) -> String {
        "`true` or `false`".to_owned()
    }

    fn read(given: &OsStr, _: u64) -> Result<Self, String> {
        text(given)?.parse().map_err(|_| "is neither `true` nor `false`: write one of them".to_owned())
    }

    fn show(&self) -> Option<toml::Value> {
        Some((*self).into())
    }
}

impl Value for LogFilter {
    const NAME: &str = "FILTER";

    fn about(_: u64) -> String {
        "a log filter, such as `info` or `warn,portcullis=debug`".to_owned()
    }

    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        let text = text(given)?;
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("is not {}: {error}", Self::about(max))),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(self.0.as_str().into())
    }
}

impl Value for Nat64Prefixes {
    const NAME: &str = "PREFIX,…";

    fn about(_: u64) -> String {
        format!(
            "up to {NAT64_PREFIXES_MAX} IPv6 prefixes of RFC 6052 in one text, separated by commas, such as \
             `64:ff9b:1::/96,2001:db8:64::/96`"
        )
    }

    fn read(given: &OsStr, _: u64) -> Result<Self, String> {
        let text = text(given)?.trim();
        let (mut prefixes, mut faults) = (Vec::new(), Vec::new());
        for prefix in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            match prefix.parse() {
                Ok(prefix) => prefixes.push(prefix),
                Err(_) if prefix.is_empty() => faults.push("a comma has no prefix beside it".to_owned()),
                Err(error) => faults.push(Nat64PrefixError::to_string(&error)),
            }
        }
        if !faults.is_empty() {
            return Err(format!("has wrong prefixes: {}", faults.join("; ")));
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        match prefixes.len() {
            0..=NAT64_PREFIXES_MAX => Ok(Self(prefixes)),
            count => Err(format!("has {count} prefixes: give at most {NAT64_PREFIXES_MAX}")),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        let prefixes: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        (!prefixes.is_empty()).then(|| prefixes.join(",").into())
    }
}

impl Value for u64 {
    const NAME: &str = "COUNT";

    fn about(max: u64) -> String {
        format!("a whole number from 1 to {max}")
    }

    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        match text(given)?.parse() {
            Ok(count) if (1..=max).contains(&count) => Ok(count),
            _ => Err(format!("is not {}: write one", Self::about(max))),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(i64::try_from(*self).unwrap_or(i64::MAX).into())
    }
}

impl Value for usize {
    const NAME: &str = u64::NAME;

    fn about(max: u64) -> String {
        u64::about(max)
    }

    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        u64::read(given, max.min(usize::MAX as u64)).map(|count| Self::try_from(count).unwrap_or(Self::MAX))
    }

    fn show(&self) -> Option<toml::Value> {
        (*self as u64).show()
    }
}

impl Value for Duration {
    const NAME: &str = "DURATION";

    fn about(max: u64) -> String {
        let bound = if max == u64::MAX { String::new() } else { format!(" of at most {}", show_milliseconds(max)) };
        format!("a duration{bound}: a whole number and `ms`, `s`, `m` or `h`")
    }

    fn read(given: &OsStr, max: u64) -> Result<Self, String> {
        match parse_duration(text(given)?)? {
            duration if duration > Self::from_millis(max) => {
                Err(format!("is too long: give at most `{}`", show_milliseconds(max)))
            }
            duration => Ok(duration),
        }
    }

    fn show(&self) -> Option<toml::Value> {
        Some(show_milliseconds(u64::try_from(self.as_millis()).unwrap_or(u64::MAX)).into())
    }
}

/// A duration as `parse_duration` reads it, in the largest unit that divides it.
fn show_milliseconds(milliseconds: u64) -> String {
    match milliseconds {
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

pub(super) fn text(given: &OsStr) -> Result<&str, String> {
    given.to_str().ok_or_else(|| "is not UTF-8: write it as text".to_owned())
}
