//! Where commands write: results to standard output, notes to standard error.
//!
//! Invariant: a reader that closes the pipe (`portcullis rules list | head`) is not a failure; other write errors are.
//! Not here: what is written: tables are made by each command, JSON by `portcullis-proto`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use prost::{Message, Name};
use serde::Serialize;

use super::pages::Page;
use portcullis_proto::{Json, to_json};

/// How results are printed: aligned columns, or the canonical JSON of the messages.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    // No doc comments: clap would show them below every `--help`.
    Table,
    Json,
}

/// Whether the pipe that results go to is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
}

/// A list whose items are always present. The canonical JSON leaves out an empty list.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    empty: BTreeMap<&'static str, Vec<Json>>,
    #[serde(flatten)]
    rest: Json,
}

/// The standard streams, and the format that was asked for.
pub struct Output {
    asked: Option<Format>,
    results_terminal: bool,
    results: Box<dyn Write>,
    notes: Box<dyn Write>,
    /// Whether a person reads the notes and can answer.
    has_person: bool,
}

impl Output {
    /// The streams of the process. Without a format: tables for a terminal, otherwise JSON.
    pub(super) fn standard(format: Option<Format>) -> Self {
        let stdout = io::stdout();
        let results_terminal = stdout.is_terminal();
        let stderr = io::stderr();
        let has_person = io::stdin().is_terminal() && stderr.is_terminal();
        Self { asked: format, results_terminal, results: Box::new(stdout), notes: Box::new(stderr), has_person }
    }

    /// The format that was typed, if one was.
    pub(super) fn asked(&self) -> Option<Format> {
        self.asked
    }

    /// The format that results are printed in.
    pub(super) fn format(&self) -> Format {
        self.asked.unwrap_or(if self.is_terminal() { Format::Table } else { Format::Json })
    }

    /// Whether results go to a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.results_terminal
    }

    /// Prints an answer in the format that was asked for.
    pub(super) fn show<M: Message + Name>(&mut self, message: &M, table: impl FnOnce(&M) -> String) -> io::Result<()> {
        match self.format() {
            Format::Table => self.text(&table(message)),
            Format::Json => self.json(&to_json(message)),
        }
    }

    /// Prints a list in the format that was asked for. In JSON the list is present even when it is empty.
    pub(super) fn list<P: Page>(&mut self, page: &P, table: impl FnOnce(&P) -> String) -> io::Result<()> {
        match self.format() {
            Format::Table => self.text(&table(page)),
            Format::Json => {
                let empty = page.items().is_empty().then(|| (P::ITEMS, Vec::new()));
                self.json(&Listed { empty: empty.into_iter().collect(), rest: to_json(page) })
            }
        }
    }

    /// Prints JSON, indented.
    pub(super) fn json(&mut self, json: &impl Serialize) -> io::Result<()> {
        self.text(&(serde_json::to_string_pretty(json)? + "\n"))
    }

    /// Prints a text as it is.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.part(text).map(|_| ())
    }

    /// Prints a part of a long result, and tells whether the pipe is still open for the next part.
    pub(super) fn part(&mut self, text: &str) -> io::Result<Reader> {
        match self.results.write_all(text.as_bytes()).and_then(|()| self.results.flush()) {
            Ok(()) => Ok(Reader::There),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(error),
        }
    }

    /// Writes a part of a result that is no text.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.results.write_all(bytes)
    }

    /// Whether a person can be asked: standard input and standard error are terminals.
    pub(super) fn has_person(&self) -> bool {
        self.has_person
    }

    /// Asks the person at the terminal. Everything but a clear yes is a no.
    pub(super) fn ask(&mut self, question: &str) -> io::Result<bool> {
        write!(self.notes, "{question} [y/N] ")?;
        self.notes.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Sends the notes elsewhere than to standard error itself; each in one write.
    pub fn redirect_notes(&mut self, notes: impl Write + 'static) {
        self.notes = Box::new(notes);
    }

    /// Writes a line for people to standard error. A failure is ignored: there is no other place to report it.
    pub fn note(&mut self, line: &str) {
        let _ = self.notes.write_all(format!("{line}\n").as_bytes());
    }
}
