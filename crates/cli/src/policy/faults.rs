//! The faults of a file, with their places.
//!
//! Invariant: all faults are counted; the first of the file are kept, however many there are.
//! Not here: finding them (`yaml`, `walk`, `across`).

use std::collections::BTreeSet;

use super::yaml::Position;
use crate::error::UsageError;
use crate::table::clean;

/// The most faults that are shown.
const SHOWN_MAX: usize = 100;

/// The most characters of a value that a message shows.
const CHARACTERS_MAX: usize = 80;

/// The faults of a file.
#[derive(Default)]
pub(super) struct Faults {
    count: usize,
    first: BTreeSet<Fault>,
    /// The places of what could not be read.
    unreadable: BTreeSet<Position>,
}

/// Ordered by place.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    at: Position,
    path: String,
    message: String,
}

impl Faults {
    /// Notes a fault of the value with this path; the path of what concerns the file itself is empty. Of what could not be
    /// read, nothing else is told.
    pub(super) fn add(&mut self, at: Position, path: &str, message: impl Into<String>) {
        if self.unreadable.contains(&at) {
            return;
        }
        self.count += 1;
        if self.first.len() >= SHOWN_MAX && self.first.last().is_some_and(|last| last.at <= at) {
            return;
        }
        self.first.insert(Fault { at, path: path.to_owned(), message: message.into() });
        if self.first.len() > SHOWN_MAX {
            self.first.pop_last();
        }
    }

    /// Notes that the file cannot be read at a place.
    pub(super) fn add_unreadable(&mut self, at: Position, message: impl Into<String>) {
        self.add(at, "", message);
        self.mute(at);
    }

    /// Nothing is told of what stands at a place.
    pub(super) fn mute(&mut self, at: Position) {
        self.unreadable.insert(at);
    }

    /// All of them as an error; none if there are none.
    pub(super) fn into_result(self, file: &str) -> Result<(), UsageError> {
        let mut lines: Vec<String> = self.first.iter().map(|fault| line(file, fault)).collect();
        if self.count > lines.len() {
            lines.push(format!("and {} more", self.count - lines.len()));
        }
        match lines.as_slice() {
            [] => Ok(()),
            [only] => Err(UsageError(only.clone())),
            _ => {
                Err(UsageError(format!("{} has {} faults\n  {}", clean(of_file(file)), self.count, lines.join("\n  "))))
            }
        }
    }
}

fn line(file: &str, Fault { at, path, message }: &Fault) -> String {
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    clean(&format!("{}{path}{message}", place(file, *at)))
}

/// What a message calls a file.
pub(super) fn of_file(file: &str) -> &str {
    if file == "-" { "standard input" } else { file }
}

/// A place in a file, as the beginning of a line.
pub(super) fn place(file: &str, Position { line, column }: Position) -> String {
    format!("{file}:{line}:{column}: ")
}

/// A value as a message shows it: not longer than a line.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}
