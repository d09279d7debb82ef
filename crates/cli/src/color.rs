//! Colours on a terminal.
//!
//! Invariant: without colours only the text itself is written; every colour ends with its text.
//! Not here: which text has which colour.

use std::env;

use clap::{Args, ValueEnum};

use super::output::Output;

/// The flag of commands whose text has colours.
#[derive(Args, Debug)]
pub(super) struct ColorArgs {
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = None)]
    pub(super) color: ColorWhen,
}

/// When to use colours.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    Always,
    Never,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Green,
    Red,
    Yellow,
    Magenta,
    Cyan,
    Faint,
}

/// Whether texts are coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colors(bool);

impl Colors {
    pub(super) fn of(when: ColorWhen, output: &Output) -> Self {
        let said_no = || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = || env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self(match when {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => output.is_terminal() && !said_no() && !dumb(),
        })
    }

    /// The text with the escape codes of its look.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        let Self(colored) = self;
        if !colored || text.is_empty() {
            return text.to_owned();
        }
        let code = match look {
            Look::Green => "1;32",
            Look::Red => "1;31",
            Look::Yellow => "1;33",
            Look::Magenta => "1;35",
            Look::Cyan => "36",
            Look::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
