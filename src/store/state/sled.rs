//! The state store in sled 0.34, which is not trusted.
//!
//! Measurements of sled decide everything here. Its `flush` is no fsync, so ours adds one on a handle of our own. It may
//! panic on files that a power cut left, so every call is inside `catch_unwind`. After a panic, or an error that reports
//! damage, the store refuses all further calls. A panic can also end the process or hang it, so a marker file exists
//! beside the directory while sled opens and after any such failure. If the next start finds the marker, it moves the
//! directory aside unopened. All keyspaces share one of sled's and differ by a first byte, because only within one are
//! batches atomic without transactions.
//!
//! Unwinding is asserted to be safe because nothing is used after it. The handle is dropped on a thread of its own,
//! because dropping a broken one may never end.
//!
//! Invariant: everything but match counts can be rebuilt, so a damaged directory is moved aside, never repaired.
//!
//! Not here: iterators that outlive a call, transactions, flushing off the caller's thread: sled 0.34 deadlocks with
//! them. Writes come from one thread.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::super::{Batch, Keyspace, Page, StateError, StateStore, disk};

/// Small: what is read often is in memory anyway. With large values sled exceeds it.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// sled frees space only in the thread that this starts.
const FLUSH_INTERVAL_MS: u64 = 500;

/// A handle that was just dropped keeps its lock for moments.
const OPEN_ATTEMPTS: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// A state store in one directory.
#[derive(Debug)]
pub struct SledState {
    path: PathBuf,
    /// None only while dropping.
    db: Option<sled::Db>,
    /// Our own handle to sled's data file, to sync it.
    data: File,
    damaged: AtomicBool,
}

/// What was there when a store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reopened {
    /// Nothing: the store is empty.
    Fresh,
    /// A store that opens. Whether it is up to date only its contents tell; sled has come back empty before.
    Existing,
    /// One that does not; it is now in this directory, and the store is empty.
    MovedAside(PathBuf),
}

impl SledState {
    /// Opens the store in the directory `path`, or creates it.
    ///
    /// # Errors
    ///
    /// [`StateError::Damaged`] where it does not open: [`SledState::open_or_move_aside`] deals with that.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Reopened), StateError> {
        let path = path.into();
        let marker = marker(&path);
        if marker.exists() {
            let detail = "sled did not come back from opening or using it the last time";
            return Err(damaged(&path, detail));
        }
        fs::write(&marker, "").map_err(|source| io_error("mark", &marker, source))?;
        let opened = open_database(&path);
        if !matches!(opened, Err(StateError::Damaged { .. })) {
            fs::remove_file(&marker).map_err(|source| io_error("unmark", &marker, source))?;
        }
        let db = opened?;
        let reopened = if db.was_recovered() { Reopened::Existing } else { Reopened::Fresh };
        let data = open_data_file(&path).map_err(|source| io_error("open", &path, source))?;
        let store = Self { path, db: Some(db), data, damaged: AtomicBool::new(false) };
        Ok((store, reopened))
    }

    /// As [`SledState::open`], but a damaged store is renamed to `<path>-damaged-<n>`, with a warning, and an empty one
    /// opened. Only the newest of those renamed is kept.
    pub fn open_or_move_aside(path: impl Into<PathBuf>) -> Result<(Self, Reopened), StateError> {
        let path = path.into();
        let error = match Self::open(&path) {
            Err(error @ StateError::Damaged { .. }) => error,
            result => return result,
        };
        let aside = move_aside(&path).map_err(|source| io_error("move aside", &path, source))?;
        tracing::warn!(%error, aside = %aside.display(), "the state store is rebuilt from the journal");
        let (store, _) = Self::open(path)?;
        Ok((store, Reopened::MovedAside(aside)))
    }

    /// Calls sled. A panic or an error that reports damage marks the store as failed.
    fn with<T>(&self, action: &'static str, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StateError> {
        let db = match &self.db {
            Some(db) if !self.damaged.load(Ordering::Acquire) => db,
            _ => return Err(damaged(&self.path, "an earlier call failed")),
        };
        let error = match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => sled_error(action, &self.path, error),
            Err(payload) => damaged(&self.path, &panic_text(&*payload)),
        };
        if matches!(error, StateError::Damaged { .. }) {
            self.damaged.store(true, Ordering::Release);
            let marker = marker(&self.path);
            if let Err(error) = fs::write(&marker, "") {
                tracing::warn!(%error, path = %marker.display(), "cannot mark the state store as damaged");
            }
            tracing::error!(%error, action, "the state store is damaged");
        }
        Err(error)
    }
}

impl Drop for SledState {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let release = move || {
            if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
                tracing::warn!("sled panicked while it was closed");
            }
        };
        if self.damaged.load(Ordering::Acquire) {
            drop(thread::Builder::new().spawn(release));
        } else {
            release();
        }
    }
}

impl StateStore for SledState {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let key = stored_key(keyspace, key);
        self.with("read", |db| Ok(db.get(&key)?.map(|value| value.to_vec())))
    }

    fn apply(&self, batch: &Batch) -> Result<(), StateError> {
        batch.check()?;
        let mut stored = sled::Batch::default();
        for change in batch.changes() {
            let key = stored_key(change.keyspace, &change.key);
            match &change.value {
                Some(value) => stored.insert(key, value.as_slice()),
                None => stored.remove(key),
            }
        }
        self.with("write", |db| db.apply_batch(stored))
    }

    fn scan(&self, keyspace: Keyspace, from: &[u8], entries_max: usize) -> Result<Page, StateError> {
        let start = stored_key(keyspace, from);
        let end = vec![keyspace_byte(keyspace) + 1];
        self.with("read", |db| {
            let entries = db.range(start..end).map(|entry| {
                let (key, value) = entry?;
                Ok((key.iter().copied().skip(1).collect(), value.to_vec()))
            });
            Page::fill(entries, entries_max)
        })
    }

    fn flush(&self) -> Result<(), StateError> {
        self.with("flush", |db| db.flush())?;
        self.data.sync_data().map_err(|source| io_error("sync", &self.path, source))
    }
}

/// Where a keyspace's keys are. Stored, so never reused for another.
fn keyspace_byte(keyspace: Keyspace) -> u8 {
    match keyspace {
        Keyspace::Policy => 1,
        Keyspace::Counters => 2,
        Keyspace::Meta => 3,
    }
}

fn stored_key(keyspace: Keyspace, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(keyspace_byte(keyspace));
    stored.extend_from_slice(key);
    stored
}

fn open_database(path: &Path) -> Result<sled::Db, StateError> {
    let config = sled::Config::new()
        .path(path)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_INTERVAL_MS));
    let mut attempts = 0;
    loop {
        attempts += 1;
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(sled::Error::Io(error))) if is_locked(&error) => {
                if attempts >= OPEN_ATTEMPTS {
                    let path = path.to_owned();
                    return Err(StateError::InUse { path });
                }
                thread::sleep(OPEN_PAUSE);
            }
            Ok(Err(error)) => return Err(opening_error(path, error)),
            Err(payload) => return Err(damaged(path, &panic_text(&*payload))),
        }
    }
}

/// Opens sled's data file and brings what sled does not sync, its other files and their names, to the disk.
fn open_data_file(path: &Path) -> io::Result<File> {
    let data = File::open(path.join("db"))?;
    data.sync_all()?;
    File::open(path.join("conf"))?.sync_all()?;
    File::open(path)?.sync_all()?;
    File::open(disk::parent(path))?.sync_all()?;
    Ok(data)
}

/// Renames the store, and its marker away, and removes those renamed earlier.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let parent = disk::parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}-damaged-");
    let mut earlier = Vec::new();
    for entry in parent.read_dir()? {
        let name = entry?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(|number| number.parse::<u64>().ok());
        earlier.extend(number);
    }
    let number = earlier.iter().max().map_or(1, |last| last + 1);
    let aside = parent.join(format!("{prefix}{number}"));
    match fs::rename(path, &aside) {
        Ok(()) => {}
        // Only the marker was left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::open(parent)?.sync_all()?;
    match fs::remove_file(marker(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for number in earlier {
        let old = parent.join(format!("{prefix}{number}"));
        if let Err(error) = remove(&old) {
            tracing::warn!(%error, path = %old.display(), "cannot remove an old damaged state store");
        }
    }
    Ok(aside)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// The marker file beside the directory, which exists while sled's files are not to be trusted.
fn marker(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-suspect");
    PathBuf::from(name)
}

/// sled has no kind of error for this.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

/// What an error while opening means: damage, unless a new directory would not help.
fn opening_error(path: &Path, error: sled::Error) -> StateError {
    match error {
        sled::Error::Io(source) if is_surroundings(&source) => io_error("open", path, source),
        error => damaged(path, &error.to_string()),
    }
}

fn is_surroundings(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let too_many_files =
        [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    too_many_files
        || matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::OutOfMemory
        )
}

/// What an error while using it means: what the operating system refuses may pass, anything else is damage.
fn sled_error(action: &'static str, path: &Path, error: sled::Error) -> StateError {
    match error {
        sled::Error::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => io_error(action, path, source),
        error => damaged(path, &error.to_string()),
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    format!("sled panicked: {text}")
}

fn damaged(path: &Path, detail: &str) -> StateError {
    StateError::Damaged { path: path.to_owned(), detail: detail.to_owned() }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: path.to_owned(), source }
}
