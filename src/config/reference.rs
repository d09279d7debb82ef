//! The reference of all settings, which is `docs/configuration.md`.
//!
//! Invariant: everything that it says of a single setting comes from the table.
//! Not here: writing the file; a test compares it.

use super::table::Setting;
use super::{Config, settings};

const HEAD: &str = "\
<!-- Generated from the table of settings, src/config/table.rs. Change it there. -->

# Configuration

Every setting of `portcullis serve` is a flag, an environment variable and a key of a TOML file. A flag beats the
environment, the environment beats the file, and the file beats the default. `--config FILE` or `PORTCULLIS_CONFIG` names
the file; without it none is read. The file is read once, at the start.

`portcullis serve --check-config` prints the configuration that would apply, as a file, and exits with 0. A configuration
with faults is refused: every fault is reported at once, with the flag, the variable, or the key and its line, and the
exit status is 1. A key that is no setting is a fault.

A duration is a whole number and a unit: `ms`, `s`, `m` or `h`, such as `1500ms` or `30m`. Sizes are in bytes. A dot in a
key names a table of the file: `limits.organizations` is `organizations` below `[limits]`.
";

/// The reference of all settings, in Markdown.
pub fn reference() -> String {
    let mut heading = "";
    let headed = |setting: &Setting| match setting.heading {
        same if same == heading => entry(setting),
        new => {
            heading = new;
            format!("\n## {new}\n{}", entry(setting))
        }
    };
    let entries: String = settings().map(headed).collect();
    let defaults = Config::default().to_toml();
    format!("{HEAD}{entries}\n## The defaults as a file\n\n```toml\n{defaults}```\n")
}

fn entry(setting: &Setting) -> String {
    let Setting { help, value_name, unset, .. } = setting;
    let (key, flag, variable, values) = (setting.key(), setting.flag(), setting.variable(), setting.values());
    let flag = if setting.is_switch() { flag } else { format!("{flag} {value_name}") };
    let default = setting.default_value().map_or_else(|| (*unset).to_owned(), |value| format!("`{value}`"));
    format!(
        "\n### `{key}`\n\n{help}.\n\n* Flag `{flag}`, variable `{variable}`\n* Value: {values}\n* Default: {default}\n"
    )
}
