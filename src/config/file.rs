//! The configuration file: which values it gives to which keys, and on which lines.
//!
//! Invariant: nothing in a file is ignored; what is no setting is a fault.
//! Not here: reading the file from the disk (`cli::serve`), and what a value means (`setting`).

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::setting::flat;
use super::table::Setting;
use super::{Fault, Given, settings};

/// How alike a name must be to be what was meant, from 0 to 1.
const LIKENESS_MIN: f64 = 0.8;

/// The values that a file gives, by their keys. Those of tables that settings belong to are keyed `table.name`.
pub(super) fn read(text: &str) -> Result<BTreeMap<String, Given>, Fault> {
    let file = DeTable::parse(text).map_err(|error| Fault {
        setting: "configuration file".to_owned(),
        value: String::new(),
        advice: error.to_string().trim_end().to_owned(),
    })?;
    let mut given = BTreeMap::new();
    for (key, value) in file.get_ref() {
        let name = key.get_ref();
        match value.get_ref() {
            DeValue::Table(table) if is_table(name) => given.extend(table.iter().map(|(inner, value)| {
                let key = format!("{name}.{}", inner.get_ref());
                entry(text, key, inner.span().start, value)
            })),
            _ => given.extend([entry(text, name.to_string(), key.span().start, value)]),
        }
    }
    Ok(given)
}

/// What is wrong with a key that is no setting, and what was probably meant.
pub(super) fn unknown(key: &str) -> String {
    if is_table(key) {
        return format!("is a table: write its settings below a line `[{key}]`");
    }
    let likeness = |setting: &Setting| strsim::jaro_winkler(&flat(key), &setting.flat_name());
    let nearest = settings().map(|setting| (likeness(setting), setting)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest.filter(|(likeness, _)| *likeness >= LIKENESS_MIN) {
        Some((_, meant)) => format!("is not a setting: correct it, perhaps to `{}`, or remove it", meant.key()),
        None => "is not a setting: correct or remove it, `portcullis serve --check-config` prints them all".to_owned(),
    }
}

fn is_table(key: &str) -> bool {
    !key.is_empty() && settings().any(|setting| setting.table == key)
}

/// A key and its value as a flag would give it; as it is written in the file where no flag could.
fn entry(text: &str, key: String, at: usize, value: &Spanned<DeValue<'_>>) -> (String, Given) {
    let written = match value.get_ref() {
        DeValue::String(string) => string.to_string(),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => integer.to_string(),
        },
        _ => text.get(value.span()).unwrap_or_default().to_owned(),
    };
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let setting = format!("`{key}` on line {line} of the configuration file");
    let is_scalar = matches!(value.get_ref(), DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_));
    (key, Given { setting, value: written.into(), is_scalar })
}
