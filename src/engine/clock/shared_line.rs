//! The line of the decision time, as many threads read it.
//!
//! Invariant: a reader sees a whole line, and takes no lock.
//! Not here: which line it is (`clock`, `pace`).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use super::pace::Line;
use super::source::Source;

/// The line in force. Readers take no lock; there is one writer at a time.
pub(super) struct SharedLine {
    /// Odd while the line is changed.
    version: AtomicU64,
    steady: AtomicI64,
    time: AtomicI64,
    slew: AtomicI64,
}

impl SharedLine {
    pub(super) fn new(line: Line) -> Self {
        let Line { steady, time, slew } = line;
        let version = AtomicU64::new(0);
        Self { version, steady: AtomicI64::new(steady), time: AtomicI64::new(time), slew: AtomicI64::new(slew) }
    }

    /// The line, and the steady clock while it was in force: a later line begins later.
    pub(super) fn read(&self, source: &dyn Source) -> (Line, i64) {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let line = Line {
                steady: self.steady.load(Ordering::Relaxed),
                time: self.time.load(Ordering::Relaxed),
                slew: self.slew.load(Ordering::Relaxed),
            };
            let steady = source.steady();
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return (line, steady);
            }
            // The line is changed a few times a day, within a microsecond.
            std::thread::yield_now();
        }
    }

    /// Replaces the line by the one that `next` makes of it and of the steady clock. The caller holds the lock of
    /// `Pacing`.
    pub(super) fn change(&self, source: &dyn Source, next: impl FnOnce(Line, i64) -> Line) {
        let (line, _) = self.read(source);
        self.version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let Line { steady, time, slew } = next(line, source.steady());
        self.steady.store(steady, Ordering::Relaxed);
        self.time.store(time, Ordering::Relaxed);
        self.slew.store(slew, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }
}
