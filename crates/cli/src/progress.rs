//! Progress bars.
//!
//! Invariant: a bar appears only on a terminal, on the standard error, and only when something takes long.
//! Not here: the work whose progress is shown.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long an operation may take before its bar appears.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// A progress bar that appears when something takes long.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar with a template of `indicatif` and a length; 0 while that is unknown.
    pub(super) fn new(template: &str, length: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(template);
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())) }
    }

    /// Adds `count` to what is done.
    pub(super) fn advance(&self, count: usize) {
        self.show_if_late();
        self.bar.inc(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Sets what is done, and the total.
    pub(super) fn set(&self, done: i64, of: i64) {
        self.show_if_late();
        self.bar.set_length(u64::try_from(of).unwrap_or(0));
        self.bar.set_position(u64::try_from(done).unwrap_or(0));
    }

    /// Removes the bar from the terminal.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show_if_late(&self) {
        if self.bar.elapsed() > SILENCE_MAX && self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}
