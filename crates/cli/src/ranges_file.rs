//! Ranges from arguments and from a file of one range a line.
//!
//! Invariant: every range remembers where it came from, so that a refused one is named by its line.
//! Not here: the syntax of a range, which the server checks.

use std::fs;
use std::io::{self, Read};
use std::string::FromUtf8Error;

use anyhow::Context;
use clap::Args;

use super::error::UsageError;
use super::table::clean;

/// How the paths of lists that carry ranges end, in requests.
const LISTS: [&str; 5] = ["ranges[", "entries[", "add[", "remove[", "sources["];

/// Where the ranges of a command come from.
#[derive(Args, Debug)]
pub(super) struct RangesArgs {
    /// A range: an address, CIDR notation or `any`; may be given several times
    #[arg(long = "range", value_name = "RANGE")]
    ranges: Vec<String>,
    /// Read ranges from this file, one a line, `-` for standard input; a `#` starts a comment
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
}

/// Ranges, and where each of them came from.
#[derive(Debug)]
pub(super) struct Ranges {
    /// The ranges, those of the arguments first.
    pub(super) ranges: Vec<String>,
    origins: Origins,
}

/// Where ranges came from.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    from_arguments: usize,
    file: String,
    line_numbers: Vec<usize>,
}

impl RangesArgs {
    /// An error if neither a range nor a file was given.
    pub(super) fn require(&self, what: &str) -> Result<(), UsageError> {
        if self.ranges.is_empty() && self.file.is_none() {
            return Err(UsageError(format!("{what}: give `--range` or `--file`")));
        }
        Ok(())
    }

    /// Reads the ranges of both.
    pub(super) fn read(&self) -> anyhow::Result<Ranges> {
        Ranges::read(&self.ranges, self.file.as_deref())
    }
}

impl Ranges {
    /// The ranges of the arguments, then those of the file. `-` is standard input.
    pub(super) fn read(arguments: &[String], file: Option<&str>) -> anyhow::Result<Self> {
        let mut ranges = arguments.to_vec();
        let mut origins = Origins { from_arguments: ranges.len(), ..Origins::default() };
        if let Some(file) = file {
            let text = read_text(file)?;
            file.clone_into(&mut origins.file);
            for (index, line) in text.lines().enumerate() {
                let content = line.split('#').next().unwrap_or_default().trim();
                if !content.is_empty() {
                    ranges.push(content.to_owned());
                    origins.line_numbers.push(index + 1);
                }
            }
        }
        Ok(Self { ranges, origins })
    }

    /// The ranges, and separately where they came from.
    pub(super) fn split(self) -> (Vec<String>, Origins) {
        (self.ranges, self.origins)
    }
}

impl Origins {
    /// The origin of a field such as `ranges[i]` or `entries[i].range` of a request, for messages. None for any other
    /// field.
    pub(super) fn name(&self, field: &str) -> Option<String> {
        let (_, index) = LISTS.iter().find_map(|list| field.rsplit_once(list))?;
        let (index, _) = index.split_once(']')?;
        let index: usize = index.parse().ok()?;
        let Some(in_file) = index.checked_sub(self.from_arguments) else {
            return Some("--range".to_owned());
        };
        let line_number = self.line_numbers.get(in_file)?;
        let file = if self.file == "-" { "standard input" } else { &self.file };
        Some(format!("{file}, line {line_number}"))
    }
}

/// The text of a file. `-` is standard input.
pub(super) fn read_text(file: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if file == "-" {
        io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        bytes = fs::read(file).with_context(|| format!("cannot read `{file}`"))?;
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(file, &error).into())
}

/// Where a file stops being text.
fn not_utf8(file: &str, error: &FromUtf8Error) -> UsageError {
    let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
    let line = before.split(|byte| *byte == b'\n').count();
    let in_line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(in_line).chars().count() + 1;
    UsageError(format!(
        "{}:{line}:{column}: the file is not a text in UTF-8 from here on: save it as UTF-8",
        clean(file)
    ))
}
