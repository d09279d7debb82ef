//! The flags and environment variables of `portcullis serve`, built from the table of settings.
//!
//! Invariant: every value is still the text that was given, so that a wrong one does not hide the next.
//! Not here: what a value means (`setting`); the configuration file (`file`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::table::Setting;
use super::{Given, settings};

/// What follows `portcullis serve`, or stands in the environment.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Read settings from this TOML file; flags and environment take precedence over it
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the resolved configuration as TOML and exit: with 0 where it is valid, with 1 where it is not
    #[arg(long)]
    pub check_config: bool,
    /// Go on with another key for the audit log at this start, because the one that signed it is lost: the one in
    /// `--audit-key-file`, or a new one where there is none; the change is put on the record
    #[arg(long)]
    pub audit_key_new: bool,
    /// The settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// The settings that flags and environment give, by their keys.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs(pub(super) BTreeMap<String, Given>);

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        command.args(settings().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = settings().filter_map(|setting| {
            let name = setting.flat_name();
            let value = matches.get_one::<OsString>(&name)?.clone();
            let from_environment = matches.value_source(&name) == Some(ValueSource::EnvVariable);
            let source = if from_environment { setting.variable() } else { setting.flag() };
            Some((setting.key(), Given { setting: format!("`{source}`"), value, is_scalar: true }))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let default = setting.default_value().unwrap_or_else(|| setting.unset.to_owned());
    let argument = Arg::new(setting.flat_name())
        .long(setting.flat_name().replace('_', "-"))
        .env(setting.variable())
        .help(format!("{} [default: {default}]", setting.help))
        .help_heading(setting.heading)
        .value_name(setting.value_name)
        .value_parser(value_parser!(OsString));
    if setting.is_switch() {
        argument.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        argument
    }
}
