//! The few operations on files that the store needs, as a port. Tests put a disk behind it that fails, or loses power,
//! after any operation.
//!
//! Invariant: a file is written from front to back by the process that created it, over nothing but the zeros that it
//! wrote ahead, and never opened again for writing.
//!
//! Not here: what is in the files; the lock (`directory`) and sled, which has its own idea of files.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The suffix of a file's name until the file is whole.
pub const UNFINISHED_SUFFIX: &str = ".new";

/// What tells a file or directory from all others that exist: device and inode.
pub type Identity = (u64, u64);

/// The operations on names.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The names directly in `directory`, in no order. Names that are not UTF-8 are left out: none of ours.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Creates an empty file. Where the name is taken, that file loses it and is not touched otherwise.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames the file `from` to `to`, atomically. A file that had that name loses it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in `directory` are durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The operations on an open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// The file's size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads into `buffer` from byte `offset` on and returns how many bytes there were; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at byte `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when everything written is durable (fdatasync). After an error it is unknown what is, and another call does
    /// not tell: the kernel may drop what it could not write.
    fn sync(&self) -> io::Result<()>;

    /// Syncs what is still in memory, then drops the page cache, so that reads return what is on the disk. For files that
    /// another process wrote, whose last sync may have failed.
    fn settle(&self) -> io::Result<()>;

    /// Which file it is, whatever its name; none where the disk cannot tell.
    fn identity(&self) -> Option<Identity> {
        None
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in directory.read_dir()? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn settle(&self) -> io::Result<()> {
        self.0.sync_all()?;
        // Only advice: file systems without a page cache refuse it, and need not follow it.
        if let Err(error) = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed) {
            tracing::debug!(%error, "the page cache was not dropped");
        }
        Ok(())
    }

    fn identity(&self) -> Option<Identity> {
        self.0.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }
}

/// The bytes of a file.
pub fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
    if read_exact_at(&*file, &mut bytes, 0)? { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes `bytes` to a new file, which gets the name `path` once it is whole and durable, and returns it for further
/// writes. The name is durable as well when this returns.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let unfinished = unfinished(path);
    let result = write_and_name(disk, &unfinished, path, bytes);
    if result.is_err() {
        // Frees its space, the lack of which may be what failed. A file that does not exist is no error here.
        drop(disk.remove(&unfinished));
    }
    result
}

fn write_and_name(disk: &dyn Disk, unfinished: &Path, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(unfinished)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(unfinished, path)?;
    disk.sync_directory(parent(path))?;
    Ok(file)
}

/// Fills `buffer`, or returns `false` where the file ends before.
pub(super) fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buffer.is_empty() {
        let count = file.read_at(buffer, offset)?;
        if count == 0 {
            return Ok(false);
        }
        buffer = buffer.get_mut(count..).unwrap_or_default();
        offset += count as u64;
    }
    Ok(true)
}

/// The directory that `path` is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The name that a file has until it is whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED_SUFFIX);
    PathBuf::from(name)
}
