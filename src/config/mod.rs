//! The configuration of `portcullis serve`: a table of settings, and what flags, environment and file make of it.
//!
//! Invariant: a `Config` that was resolved is valid as a whole. Resolving is pure and reports every fault at once; a
//! flag beats the environment, which beats the file, which beats the default.
//! Not here: reading the file (`cli::serve`), and what the settings do (`server`, `engine`).

mod args;
mod file;
mod macros;
mod reference;
mod setting;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use args::{ServeArgs, SettingArgs};
pub use reference::reference;
pub use setting::{LogFilter, Nat64Prefixes};
pub use table::{Config, Durability, LogConfig, LogFormat, OnAuditFailure, RecordConfig, Setting, settings};

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The faults: in the order of the settings, then keys of the file that are no settings. At least one.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which setting, as it is spelled where it was given: a flag, a variable, or a key with its line.
    pub setting: String,
    /// What it was set to. Empty where the setting itself is the fault.
    pub value: String,
    /// What is wrong with it, and what to do.
    pub advice: String,
}

/// A value as it was given, and how the setting is spelled there.
#[derive(Clone, Debug)]
struct Given {
    setting: String,
    value: OsString,
    /// False for what no flag could give: in a file, an array, a table, a fraction or a date.
    is_scalar: bool,
}

impl Config {
    /// The default configuration on another directory and on a free port, as tests want it.
    pub fn for_data_dir(data_dir: impl Into<PathBuf>) -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), data_dir: data_dir.into(), ..Self::default() }
    }

    /// What `args` and the text of the configuration file mean together.
    pub fn resolve(args: &ServeArgs, file: Option<&str>) -> Result<Self, ConfigErrors> {
        let mut faults = Vec::new();
        let mut given = file::read(file.unwrap_or_default()).unwrap_or_else(|fault| {
            faults.push(fault);
            BTreeMap::new()
        });
        given.extend(args.settings.0.clone());
        let mut config = Self::default();
        config.record.audit_key_new = args.audit_key_new;
        for setting in settings() {
            let Some(given) = given.get(&setting.key()) else { continue };
            let set =
                if given.is_scalar { (setting.set)(&mut config, &given.value) } else { Err(NO_SCALAR.to_owned()) };
            faults.extend(set.err().map(|advice| given.fault(advice)));
        }
        if let Some(given) = given.get("listen")
            && !config.insecure
            && !config.listen.ip().to_canonical().is_loopback()
        {
            faults.push(given.fault(REACHABLE.to_owned()));
        }
        let known: BTreeSet<_> = settings().map(Setting::key).collect();
        for (key, Given { setting, .. }) in given.into_iter().filter(|(key, _)| !known.contains(key)) {
            faults.push(Fault { setting, value: String::new(), advice: file::unknown(&key) });
        }
        if faults.is_empty() { Ok(config) } else { Err(ConfigErrors { faults }) }
    }

    /// What is valid and has not the effect that it seems to have.
    pub fn warnings(&self) -> Vec<String> {
        let RecordConfig { audit_retention_age, session_max_age, .. } = &self.record;
        let short = audit_retention_age.filter(|age| age < session_max_age);
        let warning = short.map(|age| {
            format!(
                "`audit_retention_age` is {age:?} and `session_max_age` {session_max_age:?}: no record is removed that is \
                 younger than the longest session, so shorten `session_max_age` too, or expect records to stay that long"
            )
        });
        warning.into_iter().collect()
    }

    /// The configuration as a file that resolves to it.
    pub fn to_toml(&self) -> String {
        let mut tables: BTreeMap<&str, String> = BTreeMap::new();
        for setting in settings() {
            if let Some(value) = (setting.show)(self) {
                let line = [setting.name, " = ", &value.to_string(), "\n"];
                tables.entry(setting.table).or_default().extend(line);
            }
        }
        let headed = |(table, lines): (&str, String)| match table {
            "" => lines,
            table => format!("\n[{table}]\n{lines}"),
        };
        tables.into_iter().map(headed).collect()
    }
}

const NO_SCALAR: &str = "is not one value: write a text in quotes, a whole number, `true` or `false`";

const REACHABLE: &str = "is reachable from other machines, and without TLS and authentication everybody who reaches it can \
                         read and change every policy: listen on a loopback address such as `127.0.0.1:7070`, or give \
                         `--insecure` if everybody who reaches it may";

impl Given {
    fn fault(&self, advice: String) -> Fault {
        Fault { setting: self.setting.clone(), value: self.value.to_string_lossy().into_owned(), advice }
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
