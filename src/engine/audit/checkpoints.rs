//! The signed checkpoints that are kept with the log: the file `checkpoints` holds signed notes, separated by empty
//! lines.
//!
//! Invariant: a checkpoint covers durable records only, and is shown only once it is in the file: no power cut takes back
//! what was shown. What somebody does to the file meanwhile is undone by the next call of one who signs. Readers never wait
//! for the disk. Sizes never fall, except for checkpoints of the ends of units.
//! Not here: when one is made (`maintenance`, `sealer`); how the file is read (`notes`); whether they fit the log
//! (`recovery`, `verify`).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::notes::{CHECKPOINTS, Note, read_signed};
use super::open_error::AuditOpenError;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::merkle::TreeHead;
use crate::audit::note::{SignerKey, VerifierKey};
use crate::locks::IgnorePoison;
use crate::store::disk::{DiskFile, Identity};
use crate::store::folder::Folder;

/// The newest checkpoints, all of which are kept: those of an hour.
const RECENT_MAX: usize = 3_600;

/// No file that is smaller is rewritten, unless somebody did something to it.
const REWRITE_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// See the module.
pub(super) struct Checkpoints {
    key: SignerKey,
    /// Held while the disk takes a checkpoint, by those who sign.
    file: Mutex<CheckpointFile>,
    /// Held for a moment.
    shown: Mutex<Shown>,
}

/// The newest checkpoint that is in the file.
#[derive(Default)]
struct Shown {
    newest: Option<(TreeHead, Arc<str>)>,
    /// Another key that signed it.
    signer: Option<VerifierKey>,
}

/// The file, and what it has to hold.
pub(super) struct CheckpointFile {
    folder: Folder,
    /// Which directory it is in, so that another one at the same path is not written to.
    directory: Option<Identity>,
    /// The file that was read or written; none where it has to be rewritten.
    open: Option<OpenFile>,
    /// Signed by keys that are not known: by earlier ones, where the list of keys was lost.
    foreign: Vec<String>,
    recent: VecDeque<String>,
    /// Those of the ends of units.
    ends: BTreeMap<u64, String>,
}

struct OpenFile {
    file: Box<dyn DiskFile>,
    length: u64,
    /// It is rewritten once it is as long as this, with only the checkpoints that must be kept.
    length_max: u64,
}

impl Checkpoints {
    /// Reads the file. `earlier` keys signed before this one; `is_end` tells the sizes at which units end.
    ///
    /// # Errors
    ///
    /// Where one is damaged, and where there is a file without a checkpoint of these keys: every write leaves one.
    pub(super) fn open(
        folder: Folder,
        key: SignerKey,
        earlier: &[VerifierKey],
        is_end: impl Fn(u64) -> bool,
    ) -> Result<Self, AuditOpenError> {
        let known = [std::slice::from_ref(key.verifier()), earlier].concat();
        let (mut recent, mut ends, mut foreign) = (VecDeque::new(), BTreeMap::new(), Vec::new());
        let (mut newest, mut newest_signer) = (None, None);
        for Note { text, signed } in read_signed(&folder, &known)? {
            let Some((head, signer)) = signed else {
                foreign.push(text);
                continue;
            };
            if is_end(head.size) {
                ends.insert(head.size, text.clone());
            }
            if newest.as_ref().is_none_or(|(before, _): &(TreeHead, String)| before.size <= head.size) {
                newest = Some((head, text.clone()));
                newest_signer = known.get(signer).filter(|signer| *signer != key.verifier()).cloned();
            }
            recent.push_back(text);
        }
        let io = |source| AuditOpenError::Io { action: "read the checkpoints", source };
        if newest.is_none() && folder.read(CHECKPOINTS).map_err(io)?.is_some() {
            let key = key.verifier().to_string();
            return Err(if foreign.is_empty() {
                AuditOpenError::NoCheckpoint
            } else {
                AuditOpenError::OtherKey { key }
            });
        }
        let surplus = recent.len().saturating_sub(RECENT_MAX);
        recent.drain(..surplus);
        let newest = newest.map(|(head, note)| (head, note.into()));
        let shown = Mutex::new(Shown { newest, signer: newest_signer });
        let file = CheckpointFile::read(folder, foreign, recent, ends).map_err(io)?;
        Ok(Self { key, file: Mutex::new(file), shown })
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().ignore_poison()
    }

    /// The newest checkpoint with its note.
    pub(super) fn newest(&self) -> Option<(TreeHead, Arc<str>)> {
        self.shown().newest.clone()
    }

    /// How many records the newest checkpoint covers.
    pub(super) fn size(&self) -> u64 {
        self.shown().newest.as_ref().map_or(0, |(head, _)| head.size)
    }

    /// Another key that signed the newest one, and how many records that covers.
    pub(super) fn other_signer(&self) -> Option<(VerifierKey, u64)> {
        let shown = self.shown();
        shown.signer.clone().zip(shown.newest.as_ref().map(|(head, _)| head.size))
    }

    pub(super) fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// The file, for one who signs. Waits while another does.
    pub(super) fn file(&self) -> MutexGuard<'_, CheckpointFile> {
        self.file.lock().ignore_poison()
    }

    /// Signs a head, writes it, and then shows it. One that cannot be written is kept: the next call writes both.
    pub(super) fn add(&self, file: &mut CheckpointFile, head: TreeHead, is_end: bool) -> io::Result<()> {
        let note = Checkpoint::new(self.key.verifier().name(), head)
            .map_err(io::Error::other)?
            .sign(&self.key)
            .map_err(io::Error::other)?
            .to_string();
        let is_newest = self.size() <= head.size;
        file.add(head.size, &note, is_newest, is_end)?;
        if is_newest {
            *self.shown() = Shown { newest: Some((head, note.into())), signer: None };
        }
        Ok(())
    }
}

impl CheckpointFile {
    /// A file with these notes, to which nothing was written yet.
    fn read(
        folder: Folder,
        foreign: Vec<String>,
        recent: VecDeque<String>,
        ends: BTreeMap<u64, String>,
    ) -> io::Result<Self> {
        let open = match folder.open(CHECKPOINTS)? {
            // The last note may be torn, so nothing is appended to it.
            Some(file) => Some(OpenFile { length: file.size()?, file, length_max: 0 }),
            None => None,
        };
        Ok(Self { directory: folder.identity(), folder, open, foreign, recent, ends })
    }

    fn add(&mut self, size: u64, note: &str, is_newest: bool, is_end: bool) -> io::Result<()> {
        if is_end {
            self.ends.insert(size, note.to_owned());
        }
        // It is there already where it could not be written before.
        if is_newest && self.recent.back().is_none_or(|last| last != note) {
            self.recent.push_back(note.to_owned());
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
        self.write(note)
    }

    fn write(&mut self, note: &str) -> io::Result<()> {
        let Some(mut open) = self.open.take_if(|open| open.length < open.length_max) else { return self.rewrite() };
        let bytes = format!("\n{note}");
        open.file.write_at(bytes.as_bytes(), open.length)?;
        open.file.sync()?;
        open.length += bytes.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// Writes the file again where somebody removed it, replaced it or changed its length, which it tells; also where the
    /// last write failed.
    pub(super) fn restore(&mut self) -> io::Result<bool> {
        if self.recent.is_empty() || self.folder.identity() != self.directory {
            return Ok(false);
        }
        let is_lost = self.open.as_ref().is_some_and(|open| self.is_lost(open));
        if is_lost || self.open.is_none() {
            self.rewrite()?;
        }
        Ok(is_lost)
    }

    fn is_lost(&self, open: &OpenFile) -> bool {
        match self.folder.open(CHECKPOINTS) {
            Ok(Some(found)) => {
                found.identity() != open.file.identity() || found.size().is_ok_and(|length| length != open.length)
            }
            Ok(None) => true,
            // Nothing is known of it. Whoever reads it is told.
            Err(_) => false,
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        // What is at the path now may be a copy, of which these checkpoints say what it does not hold.
        if self.folder.identity() != self.directory {
            return Err(io::Error::other("another directory is in its place"));
        }
        let notes = self.foreign.iter().chain(self.ends.values()).chain(&self.recent);
        let notes: Vec<&str> = notes.map(String::as_str).collect();
        let text = notes.join("\n");
        self.open = None;
        let (file, length) = (self.folder.write(CHECKPOINTS, text.as_bytes())?, text.len() as u64);
        let length_max = REWRITE_BYTES_MIN.max(length.saturating_mul(2));
        self.open = Some(OpenFile { file, length, length_max });
        Ok(())
    }
}
