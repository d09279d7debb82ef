//! Where commands write: results to the standard output, notes and progress to the standard error.
//!
//! Invariant: a reader that went away (`portcullis rules list | head`) is no failure; every other error of writing is.
//! Not here: what is written (`table`, `json`).

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

use super::json::Json;

/// How results are printed: aligned columns, or JSON as the protocol buffers mapping has it.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    // No doc comments: clap would show them below every `--help`.
    Table,
    Json,
}

/// The standard streams, and the format that was asked for.
pub(super) struct Output {
    format: Format,
    results: Box<dyn Write>,
    notes: Box<dyn Write>,
}

impl Output {
    /// The streams of the process. Without a format: tables for a terminal, JSON for anything else.
    pub(super) fn standard(format: Option<Format>) -> Self {
        let stdout = io::stdout();
        let default = if stdout.is_terminal() { Format::Table } else { Format::Json };
        Self { format: format.unwrap_or(default), results: Box::new(stdout), notes: Box::new(io::stderr()) }
    }

    /// Prints a result in the format that was asked for.
    pub(super) fn show(&mut self, json: impl FnOnce() -> Json, table: impl FnOnce() -> String) -> io::Result<()> {
        let text = match self.format {
            Format::Table => table(),
            Format::Json => serde_json::to_string_pretty(&json())? + "\n",
        };
        self.text(&text)
    }

    /// Prints a text as it is.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        let written = self.results.write_all(text.as_bytes()).and_then(|()| self.results.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Writes a line for people to the standard error. Where nobody can read it there is nobody left to tell.
    pub(super) fn note(&mut self, line: &str) {
        let _ = writeln!(self.notes, "{line}");
    }
}
