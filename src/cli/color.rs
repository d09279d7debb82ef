//! Colours on a terminal.
//!
//! Invariant: without colours nothing but the text itself is written; every colour ends where its text ends.
//! Not here: what has which colour.

use std::env;

use clap::ValueEnum;

use super::output::Output;

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

    /// The text in its look.
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
