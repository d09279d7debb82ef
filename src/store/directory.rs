//! The data directory: its lock, its format version, and the ballast kept for a full disk.
//!
//! ```text
//! LOCK      locked, like the directory itself, for as long as a process uses it; holds that process's id
//! FORMAT    the version of the layout, in decimal, and a line feed
//! ballast   1 MiB of noise, given up when the disk is full, so that the stores can still be opened, or closed
//! LINEAGE   which history this is: drawn at the first start, renewed by a restore
//! RESTORING empty; exists while a backup is restored into the directory
//! RESTORED  the lineage of the backup, until the first start has put it on the record
//! BEGUN     exists once the first start is over, so that what is missing later is not taken for a new beginning; says
//!           `signed` once the audit log has a checkpoint
//! policy/   journal and snapshots      sled/   the embedded database
//! audit/    the audit log              sessions/   journal and snapshots
//! ```
//!
//! Invariant: nothing below the directory is read or written by a process that does not hold the locks. The lock on the
//! directory stays whatever becomes of the files in it; the one on `LOCK` also keeps out older versions, and works on file
//! systems that lock files only.
//!
//! Not here: what is in the subdirectories.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::DirectoryError;
use super::disk::{self, RealDisk, UNFINISHED_SUFFIX};

/// The version of the layout that this code writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;

/// Twice what sled needs to open.
const BALLAST_BYTES: usize = 1024 * 1024;

/// If less is free at the start, the ballast is released before anything is opened.
const FREE_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// The mark that a restore is under way, or was interrupted.
pub const RESTORING: &str = "RESTORING";

/// A data directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Held for their locks.
    _locks: (Option<File>, File),
}

/// The mark that says that the first start is over.
#[derive(Debug)]
pub struct Begun {
    path: PathBuf,
}

/// What the mark holds once the audit log has a checkpoint.
const SIGNED: &[u8] = b"signed\n";

impl Begun {
    /// Whether the mark exists.
    pub fn is_marked(&self) -> Result<bool, DirectoryError> {
        self.path.try_exists().map_err(|error| io_error("look for", &self.path, error))
    }

    /// Whether it says that the audit log has a checkpoint. Versions that did not write this left it empty.
    pub fn is_signed(&self) -> Result<bool, DirectoryError> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(bytes == SIGNED),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("read", &self.path, error)),
        }
    }

    /// Writes the mark, durably, unless it is there. `signed`: the audit log has a checkpoint on the disk.
    pub fn mark(&self, signed: bool) -> Result<(), DirectoryError> {
        let is_due = if signed { !self.is_signed()? } else { !self.is_marked()? };
        if is_due {
            let text = if signed { SIGNED } else { b"" };
            disk::write_whole(&RealDisk, &self.path, text).map_err(|error| io_error("write", &self.path, error))?;
        }
        Ok(())
    }
}

impl DataDirectory {
    /// Takes the directory `path` for this process, creating it, and those above it, where it does not exist, for this
    /// user alone.
    ///
    /// # Errors
    ///
    /// If another process uses it, it holds something else, or a newer version wrote it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = path.into();
        create(&path)?;
        let locks = lock_both(&path)?;
        if is_restoring(&path)? {
            return Err(DirectoryError::Restoring { path });
        }
        check_format(&path)?;
        let directory = Self::locked(path, locks);
        create(&directory.policy())?;
        create(&directory.audit())?;
        create(&directory.sessions())?;
        directory.make_room()?;
        Ok(directory)
    }

    pub(super) fn locked(path: PathBuf, locks: (Option<File>, File)) -> Self {
        Self { path, _locks: locks }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the lineage of what is stored here, drawn at random where there is none. In a directory that was in
    /// use a new one is safe: what refers to the old one is refused, and nobody goes on in the wrong history.
    pub fn lineage(&self) -> Result<u64, DirectoryError> {
        let path = self.path.join("LINEAGE");
        match fs::read(&path) {
            Ok(bytes) => lineage_of(&bytes).ok_or(DirectoryError::UnreadableLineage { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.begun().is_marked()? {
                    tracing::warn!(
                        path = %path.display(),
                        "the directory has no lineage and is given a new one: etags, page tokens and subscribers' \
                         positions from before are refused"
                    );
                }
                let lineage = getrandom::u64().map_err(|error| io_error("draw", &path, io::Error::other(error)))?;
                let text = format!("{lineage:016x}\n");
                disk::write_whole(&RealDisk, &path, text.as_bytes())
                    .map_err(|error| io_error("write", &path, error))?;
                Ok(lineage)
            }
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Where the journal and the snapshots of policy are. It exists.
    pub fn policy(&self) -> PathBuf {
        self.path.join("policy")
    }

    /// Where the audit log is. It exists.
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// Where the journal and the snapshots of sessions are. It exists.
    pub fn sessions(&self) -> PathBuf {
        self.path.join("sessions")
    }

    /// Where sled is. It makes this directory itself, and one that exists may be moved aside.
    pub fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    /// Whether the journal has ever held something.
    pub fn begun(&self) -> Begun {
        Begun { path: self.path.join("BEGUN") }
    }

    /// The bytes that this user can still write to the directory's file system.
    pub fn free_bytes(&self) -> Result<u64, DirectoryError> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|error| io_error("see what is free in", &self.path, error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Removes the ballast if the disk is full.
    pub fn make_room(&self) -> Result<(), DirectoryError> {
        if self.free_bytes()? < FREE_BYTES_MIN { self.release_ballast() } else { Ok(()) }
    }

    /// Removes the ballast, to make room for a write on a full disk. No effect if there is none.
    pub fn release_ballast(&self) -> Result<(), DirectoryError> {
        let ballast = self.ballast();
        match fs::remove_file(&ballast) {
            Ok(()) => {
                let path = ballast.display();
                tracing::warn!(%path, "the disk is full: the ballast is removed to make room");
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("remove", &ballast, error)),
        }
    }

    /// Writes the ballast (again), once the stores are open. No effect if it exists, or if so little is free that the next
    /// start would have to remove it.
    pub fn restore_ballast(&self) -> Result<(), DirectoryError> {
        let ballast = self.ballast();
        match ballast.metadata() {
            Ok(metadata) if metadata.len() == BALLAST_BYTES as u64 => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("read", &ballast, error));
            }
            _ => {}
        }
        if self.free_bytes()? < FREE_BYTES_MIN + BALLAST_BYTES as u64 {
            tracing::warn!(
                "less than 3 MiB are free on the disk, so no ballast is kept for a full disk: free some and start \
                 again"
            );
            return Ok(());
        }
        // Random bytes, because file systems that compress would store zeros in no space.
        let mut bytes = vec![0; BALLAST_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io_error("find noise for", &ballast, io::Error::other(error)))?;
        disk::write_whole(&RealDisk, &ballast, &bytes).map_err(|error| io_error("write", &ballast, error))?;
        Ok(())
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

/// Whether a restore into the directory is under way or was interrupted.
pub(super) fn is_restoring(path: &Path) -> Result<bool, DirectoryError> {
    let mark = path.join(RESTORING);
    mark.try_exists().map_err(|error| io_error("look for", &mark, error))
}

/// Creates a directory, and those above it, and syncs their names.
pub(super) fn create(path: &Path) -> Result<(), DirectoryError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            warn_if_open_to_others(path, metadata.permissions().mode());
            return Ok(());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("read", path, error));
        }
        _ => {}
    }
    let parent = disk::parent(path);
    if parent != path {
        create_parents(parent)?;
    }
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(|error| io_error("create directory", path, error))
}

fn create_parents(path: &Path) -> Result<(), DirectoryError> {
    if path.is_dir() {
        return Ok(());
    }
    create(path)
}

fn warn_if_open_to_others(path: &Path, mode: u32) {
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            "other users can get into the data directory: `chmod 700` it"
        );
    }
}

/// The number in a LINEAGE file: 16 hexadecimal digits in lower case and a line feed.
fn lineage_of(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = u64::from_str_radix(text.trim_end(), 16).ok()?;
    (text == format!("{number:016x}\n")).then_some(number)
}

/// Locks the directory itself, so that removing `LOCK` lets nobody in. None where the file system cannot: then only the
/// lock on `LOCK` keeps others out, as on NFS, whose locks need a file that is open for writing.
fn lock_directory(directory: &Path) -> Result<Option<File>, DirectoryError> {
    let file = File::open(directory).map_err(|error| io_error("open", directory, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let process = File::open(directory.join("LOCK")).ok().and_then(|mut file| holder(&mut file));
            Err(DirectoryError::InUse { path: directory.to_owned(), process })
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!(
                path = %directory.display(), %error,
                "the data directory itself cannot be locked on this file system, only the file `LOCK` in it: do not \
                 remove that file, and keep the directory on a local disk"
            );
            Ok(None)
        }
    }
}

/// Locks the directory and the file in it.
pub(super) fn lock_both(path: &Path) -> Result<(Option<File>, File), DirectoryError> {
    Ok((lock_directory(path)?, lock(path)?))
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| io_error("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DirectoryError::InUse { path: directory.to_owned(), process: holder(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path, error)),
    }
    // The id only helps people, so a full disk does not stop the start here.
    if let Err(error) = write_holder(&mut file) {
        tracing::warn!(%error, path = %path.display(), "cannot write the process id to the lock file");
    }
    Ok(file)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Reads the format version, or writes it into a directory that is new.
pub(super) fn check_format(directory: &Path) -> Result<(), DirectoryError> {
    let path = directory.join("FORMAT");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return initialize(directory, &path);
        }
        Err(error) => return Err(io_error("read", &path, error)),
    };
    let version = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse::<u32>().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) if version > FORMAT_VERSION => {
            Err(DirectoryError::NewerFormat { path: directory.to_owned(), version, supported: FORMAT_VERSION })
        }
        _ => Err(DirectoryError::UnreadableFormat { path }),
    }
}

fn initialize(directory: &Path, format: &Path) -> Result<(), DirectoryError> {
    let unfinished = format!("FORMAT{UNFINISHED_SUFFIX}");
    let entries = directory.read_dir().map_err(|error| io_error("list", directory, error))?;
    for entry in entries {
        let name = entry.map_err(|error| io_error("list", directory, error))?.file_name();
        // What an interrupted first start leaves, and what a fresh file system has.
        let ours = name == "LOCK" || name == "lost+found" || name == unfinished.as_str();
        if name == "BEGUN" || name == "policy" {
            return Err(DirectoryError::FormatMissing { path: format.to_owned(), version: FORMAT_VERSION });
        }
        if !ours {
            return Err(DirectoryError::Foreign { path: directory.to_owned() });
        }
    }
    disk::write_whole(&RealDisk, format, format!("{FORMAT_VERSION}\n").as_bytes())
        .map_err(|error| io_error("write", format, error))?;
    Ok(())
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io { action, path: path.to_owned(), source }
}
