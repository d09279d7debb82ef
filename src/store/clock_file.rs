//! The file that keeps the clock across restarts on one boot of the machine.
//!
//! Invariant: it is replaced whole, so a reader finds an old or a new text. It is not synced: what is in it means nothing
//! after the machine has stopped, and its loss is harmless.
//! Not here: what the text means (`engine::clock`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::UNFINISHED_SUFFIX;

/// The file's name.
const NAME: &str = "clock";

/// The longest text that is read.
const BYTES_MAX: u64 = 256;

/// See the module.
#[derive(Debug, Clone)]
pub struct ClockFile {
    path: PathBuf,
}

impl ClockFile {
    /// The file in a data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(NAME) }
    }

    /// The text that was written last; none where there is no such file or it cannot be read.
    pub fn read(&self) -> Option<String> {
        let is_text = |file: &fs::Metadata| file.is_file() && file.len() <= BYTES_MAX;
        fs::metadata(&self.path).ok().filter(is_text)?;
        fs::read_to_string(&self.path).ok()
    }

    /// Replaces the text.
    ///
    /// # Errors
    ///
    /// The file cannot be written. The old text stays.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let unfinished = self.path.with_extension(UNFINISHED_SUFFIX.trim_start_matches('.'));
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, &self.path)
    }

    /// Removes the text, where there is one.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
