//! The files that hold a journal's records, as they are told to whoever watches that they stay.
//!
//! A file that is open can be written after it is removed. What it holds is lost then, and nothing reports it.
//!
//! Invariant: a file is forgotten before the journal itself removes or replaces it, and noted after it has its name. So a
//! file that is still noted after it was found missing was not removed by the journal.
//! Not here: how often it is looked, and what follows (`server::presence`).

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::super::disk::{DiskFile, Identity};
use crate::locks::IgnorePoison;

/// See the module.
#[derive(Debug, Default)]
pub struct SegmentFiles {
    files: Mutex<Vec<(PathBuf, Identity)>>,
}

impl SegmentFiles {
    /// Notes a file, where the disk tells it from others.
    pub(super) fn note(&self, path: &Path, file: &dyn DiskFile) {
        if let Some(identity) = file.identity() {
            self.files.lock().ignore_poison().push((path.to_owned(), identity));
        }
    }

    /// Forgets the file of this name.
    pub(super) fn forget(&self, path: &Path) {
        self.files.lock().ignore_poison().retain(|(noted, _)| noted != path);
    }

    /// The first file that is no longer where the journal has it; `identity` tells what a path leads to.
    pub(in crate::store) fn missing(&self, identity: impl Fn(&Path) -> Option<Identity>) -> Option<PathBuf> {
        // No lock is held while the disk is asked.
        let files = self.files.lock().ignore_poison().clone();
        files.into_iter().find(|file| identity(&file.0) != Some(file.1) && self.has(file)).map(|(path, _)| path)
    }

    fn has(&self, file: &(PathBuf, Identity)) -> bool {
        self.files.lock().ignore_poison().contains(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct File(Identity);

    impl DiskFile for File {
        fn size(&self) -> std::io::Result<u64> {
            Ok(0)
        }

        fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> std::io::Result<()> {
            Ok(())
        }

        fn settle(&self) -> std::io::Result<()> {
            Ok(())
        }

        fn identity(&self) -> Option<Identity> {
            Some(self.0)
        }
    }

    #[test]
    fn a_file_that_the_journal_replaces_during_the_look_is_not_missing() {
        let files = SegmentFiles::default();
        let path = Path::new("journal");
        files.note(path, &File((1, 1)));
        assert_eq!(files.missing(|_| Some((1, 1))), None);
        assert_eq!(files.missing(|_| Some((1, 2))).as_deref(), Some(path), "another file");
        assert_eq!(files.missing(|_| None).as_deref(), Some(path), "no file");
        let replaced = files.missing(|path| {
            files.forget(path);
            Some((1, 2))
        });
        assert_eq!(replaced, None, "it has no name to be looked for yet");
        files.note(path, &File((1, 2)));
        let replaced = files.missing(|path| {
            files.forget(path);
            files.note(path, &File((1, 3)));
            Some((1, 3))
        });
        assert_eq!(replaced, None);
    }
}
