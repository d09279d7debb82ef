//! What is kept of the clock across restarts on one boot of the machine.
//!
//! Invariant: its loss is harmless. A text tells which record about the clock was the last, so that one of before a
//! correction is not taken for a later one.
//! Not here: the file (`store::clock_file`), when it is written (`timekeeping`).

use std::fmt;
use std::io;

use super::pace::{Line, usable};

/// Keeps a text instead of the last one.
pub type KeepText = dyn Fn(&str) -> io::Result<()> + Send;

/// Where the clock is kept across restarts. Its loss is harmless.
pub struct Kept {
    /// What was kept last; none where nothing was.
    pub last: Option<String>,
    /// Keeps a text instead of the last one.
    pub write: Box<KeepText>,
    /// Removes the text, where there is one. Needs no room on a disk.
    pub forget: Box<dyn Fn() -> io::Result<()> + Send>,
}

/// What `Clock::keep` wrote.
pub(super) struct KeptLine {
    /// Names the boot of the machine.
    pub(super) boot: String,
    /// At that moment.
    pub(super) line: Line,
    /// The last record about the clock that it knew.
    pub(super) sequence: u64,
}

impl fmt::Display for KeptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, line: Line { steady, time, .. }, sequence } = self;
        writeln!(f, "{boot} {steady} {time} {sequence}")
    }
}

impl KeptLine {
    /// Reads a text; none where it is none of these.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (boot, steady, time) = (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (line, sequence) = (Line { steady, time: usable(time)?, slew: 0 }, words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { boot, line, sequence })
    }
}
