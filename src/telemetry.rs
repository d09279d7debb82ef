//! Logs: one line per event, as text or JSON, on standard error.
//!
//! Invariant: no address and no email of a user is ever logged. Who logs neither waits for the reader of the log nor fails
//! because of it: what the reader does not take is dropped and counted.
//! Not here: what is worth a line; each module decides that for itself.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{LogConfig, LogFormat};
use crate::locks::IgnorePoison;

/// How much waits for the reader of the log. The pipe behind it holds some more.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// How long the end of the process waits for the reader of the log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before writing again to a standard error that was set to refuse instead of waiting.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How often, and at which interval, a thread that panics tries to log. It may hold the lock itself.
const PANIC_ATTEMPTS: u32 = 100;
const PANIC_PAUSE: Duration = Duration::from_millis(1);

/// The log of the process. What is written to it is a line of its own in the log. Dropping it waits, for a bounded time,
/// until the last lines are written.
pub struct Logs {
    queue: Arc<LogQueue>,
}

/// The lines that wait for the thread that writes them.
#[derive(Default)]
struct LogQueue {
    waiting: Mutex<Waiting>,
    /// There is something to write or to tell.
    arrived: Condvar,
    /// The thread has nothing left to do.
    idle: Condvar,
    /// Lines of threads that panicked while they held the lock.
    unheard: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    /// The length of all of them.
    bytes: usize,
    /// Lines for which there was no room.
    dropped: u64,
    /// The thread works on something that is no longer in `lines`.
    busy: bool,
}

/// What the thread does next.
enum Work {
    Write(Box<[u8]>),
    TellDropped(u64),
}

/// Starts logging for the process, panics included.
///
/// # Errors
///
/// Where the operating system gives no thread or no file descriptor for it.
pub fn init(config: &LogConfig) -> io::Result<Logs> {
    let queue = Arc::new(LogQueue::default());
    // Not through the standard library's handle: a write that waits would hold its lock.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let is_colored = is_colored(stderr.is_terminal());
    let lines = Arc::clone(&queue);
    thread::Builder::new().name("log-writer".to_owned()).spawn(move || lines.keep_writing(stderr))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(config.filter.as_str())))
        .with_writer(Arc::clone(&queue))
        // It would say them on standard error, and panic where that is closed.
        .log_internal_errors(false);
    let result = match config.format {
        LogFormat::Text => builder.with_ansi(is_colored).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging was started before");
    }
    // The hook of the standard library waits for the reader of standard error.
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logs { queue })
}

impl Write for Logs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let waiting = self.queue.waiting();
        drop(self.queue.idle.wait_timeout_while(waiting, FLUSH_TIMEOUT, |waiting| waiting.is_busy()));
    }
}

/// For `tracing-subscriber`, which writes each event at once.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogQueue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().ignore_poison()
    }

    /// For a thread that panics, maybe while it holds the lock: none where the lock does not become free soon.
    fn waiting_for_a_while(&self) -> Option<MutexGuard<'_, Waiting>> {
        for _ in 0..PANIC_ATTEMPTS {
            match self.waiting.try_lock() {
                Ok(waiting) => return Some(waiting),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(PANIC_PAUSE),
            }
        }
        None
    }

    /// Takes a line, or counts it as dropped where there is no room. After that, lines are dropped until half of the room
    /// is free again, so that what is missing is told once and in its place.
    fn push(&self, line: &[u8]) {
        let locked = if thread::panicking() { self.waiting_for_a_while() } else { Some(self.waiting()) };
        let Some(mut waiting) = locked else {
            self.unheard.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if waiting.dropped > 0 || waiting.bytes + line.len() > QUEUE_BYTES_MAX {
            waiting.dropped += 1;
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.into());
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for something to do.
    fn next(&self) -> Work {
        let mut waiting = self.waiting();
        waiting.busy = false;
        loop {
            waiting.dropped += self.unheard.swap(0, Ordering::Relaxed);
            if waiting.dropped > 0 && waiting.bytes <= QUEUE_BYTES_MAX / 2 {
                waiting.busy = true;
                return Work::TellDropped(std::mem::take(&mut waiting.dropped));
            }
            if let Some(line) = waiting.lines.pop_front() {
                waiting.busy = true;
                waiting.bytes -= line.len();
                return Work::Write(line);
            }
            self.idle.notify_all();
            waiting = self.arrived.wait(waiting).ignore_poison();
        }
    }

    /// Writes lines for as long as the process lives. A panic loses a line: neither the log nor the service ends by it.
    fn keep_writing(&self, mut file: impl Write) {
        while catch_unwind(AssertUnwindSafe(|| self.write_to(&mut file))).is_err() {
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Writes lines. One that cannot be written is lost; the next one is tried all the
    /// same, as a terminal, a named pipe or a full disk may come back.
    fn write_to(&self, file: &mut impl Write) {
        let mut lost = 0;
        loop {
            match self.next() {
                Work::TellDropped(count) => tell_dropped(count),
                Work::Write(line) if write_line(file, &line).is_err() => lost += 1,
                Work::Write(_) if lost > 0 => tell_dropped(std::mem::take(&mut lost)),
                Work::Write(_) => {}
            }
        }
    }
}

impl Waiting {
    fn is_busy(&self) -> bool {
        self.busy || !self.lines.is_empty() || self.dropped > 0
    }
}

/// This goes through the queue, as every other event, which gives it the format of the others.
fn tell_dropped(lines: u64) {
    tracing::warn!(lines, "lines of this log were dropped: nobody read it");
}

fn write_line(file: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match file.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let location = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        thread = thread.name().unwrap_or("without a name"),
        location,
        panic = panic.payload_as_str().unwrap_or("without a message"),
        backtrace,
        "a thread panicked"
    );
}

/// The filter for the subscriber: a level without a target is for Portcullis only where it is below `info`. Libraries would
/// log every frame of every connection there; who wants that names them.
fn directives(filter: &str) -> String {
    let (mut general, mut others) = (Vec::new(), Vec::new());
    for directive in filter.split(',') {
        match directive.trim().parse::<LevelFilter>() {
            Ok(level) if level > LevelFilter::INFO => general.push(format!("info,portcullis={level}")),
            _ => others.push(directive),
        }
    }
    // Of two directives for one target the later one holds.
    general.extend(others.into_iter().map(str::to_owned));
    // No filter hides a panic, or that lines were dropped.
    general.push("portcullis::telemetry=warn".to_owned());
    general.join(",")
}

/// As in the command line: on a terminal, unless `NO_COLOR` is set or the terminal is dumb.
fn is_colored(is_terminal: bool) -> bool {
    let said_no = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    is_terminal && !said_no && !dumb
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Panics at its first line.
    struct Fragile {
        panics: bool,
        written: Sender<Vec<u8>>,
    }

    impl Write for Fragile {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            assert!(!std::mem::take(&mut self.panics), "as in a test");
            self.written.send(line.to_owned()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_of_the_thread_that_writes_does_not_end_the_log() {
        let queue = Arc::new(LogQueue::default());
        let (written, lines) = channel();
        let writing = Arc::clone(&queue);
        thread::spawn(move || writing.keep_writing(Fragile { panics: true, written }));
        queue.push(b"lost");
        queue.push(b"written");
        assert_eq!(lines.recv().unwrap(), b"written");
    }

    #[test]
    fn a_panic_of_a_thread_that_holds_the_log_is_dropped_and_counted() {
        /// Logs while its thread panics, as the hook does.
        struct Logging<'a>(&'a LogQueue);

        impl Drop for Logging<'_> {
            fn drop(&mut self) {
                self.0.push(b"lost");
            }
        }

        let queue = Arc::new(LogQueue::default());
        let (tell, told) = channel();
        let held = Arc::clone(&queue);
        thread::spawn(move || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _waiting = held.waiting();
                let _logging = Logging(&held);
                panic!("as in a test");
            }));
            tell.send(panicked.is_err()).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_secs(30)).expect("it waits for itself"));
        queue.push(b"written");
        assert!(matches!(queue.next(), Work::TellDropped(1)));
        assert!(matches!(queue.next(), Work::Write(line) if *line == *b"written"));
    }

    #[test]
    fn a_level_below_info_is_for_portcullis_only() {
        for (filter, expected) in [
            ("info", "info"),
            ("warn,portcullis=debug", "warn,portcullis=debug"),
            ("debug", "info,portcullis=debug"),
            ("portcullis::engine=warn, TRACE", "info,portcullis=trace,portcullis::engine=warn"),
            ("debug,h2=debug", "info,portcullis=debug,h2=debug"),
            ("off", "off"),
        ] {
            assert_eq!(directives(filter), format!("{expected},portcullis::telemetry=warn"), "{filter}");
        }
    }
}
