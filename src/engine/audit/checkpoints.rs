//! The signed checkpoints that are kept with the log: the file `checkpoints` holds signed notes, separated by empty
//! lines.
//!
//! Invariant: a checkpoint covers durable records only. Sizes never fall, except for checkpoints of the ends of units.
//! Not here: when one is made (`maintenance`, `sealer`); whether they fit the log (`recovery`, `verify`).

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::open_error::AuditOpenError;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::merkle::TreeHead;
use crate::audit::note::{SignedNote, SignerKey, VerifierKey};
use crate::store::disk::DiskFile;
use crate::store::folder::Folder;

/// The name of the file.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The newest checkpoints, all of which are kept: those of an hour.
const RECENT_MAX: usize = 3_600;

/// A file of this size is rewritten with only the checkpoints that must be kept.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What begins a signature's line.
const SIGNATURE: &str = "\u{2014} ";

/// See the module.
pub(super) struct Checkpoints {
    folder: Folder,
    key: SignerKey,
    /// The file being appended to and its length; none where it has to be rewritten.
    file: Option<(Box<dyn DiskFile>, u64)>,
    recent: VecDeque<String>,
    /// Those of the ends of units.
    ends: BTreeMap<u64, String>,
    newest: Option<(TreeHead, String)>,
    /// The largest head that is on the disk.
    written: Option<TreeHead>,
}

impl Checkpoints {
    /// Reads the file. `is_end` tells the sizes at which units end.
    ///
    /// # Errors
    ///
    /// Where there is a file without a checkpoint of this key: every write leaves one.
    pub(super) fn open(folder: Folder, key: SignerKey, is_end: impl Fn(u64) -> bool) -> Result<Self, AuditOpenError> {
        let known = [key.verifier().clone()];
        let origin = key.verifier().name().to_owned();
        let (mut recent, mut ends, mut newest) = (VecDeque::new(), BTreeMap::new(), None);
        let io = |source| AuditOpenError::Io { action: "read the checkpoints", source };
        let notes = read_notes(&folder).map_err(io)?;
        let is_foreign = notes.iter().any(|note| SignedNote::parse(note.as_bytes()).is_ok());
        for note in notes {
            // Signed by another key, or truncated: not usable here. Verifying reads the file itself and reports it.
            let Ok(checkpoint) = Checkpoint::open(note.as_bytes(), &known, &origin) else { continue };
            let head = checkpoint.head();
            if is_end(head.size) {
                ends.insert(head.size, note.clone());
            }
            if newest.as_ref().is_none_or(|(before, _): &(TreeHead, String)| before.size <= head.size) {
                newest = Some((head, note.clone()));
            }
            recent.push_back(note);
        }
        if newest.is_none() && folder.read(CHECKPOINTS).map_err(io)?.is_some() {
            let key = key.verifier().to_string();
            return Err(if is_foreign { AuditOpenError::OtherKey { key } } else { AuditOpenError::NoCheckpoint });
        }
        let surplus = recent.len().saturating_sub(RECENT_MAX);
        recent.drain(..surplus);
        let written = newest.as_ref().map(|(head, _)| *head);
        Ok(Self { folder, key, file: None, recent, ends, newest, written })
    }

    /// The largest head whose checkpoint is on the disk.
    pub(super) fn written(&self) -> Option<TreeHead> {
        self.written
    }

    /// The newest checkpoint with its note.
    pub(super) fn newest(&self) -> Option<&(TreeHead, String)> {
        self.newest.as_ref()
    }

    pub(super) fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// Signs a head and keeps it, even where writing it fails: the next call writes both.
    pub(super) fn add(&mut self, head: TreeHead, is_end: bool) -> io::Result<()> {
        let note = Checkpoint::new(self.key.verifier().name(), head)
            .map_err(io::Error::other)?
            .sign(&self.key)
            .map_err(io::Error::other)?
            .to_string();
        if is_end {
            self.ends.insert(head.size, note.clone());
        }
        if self.newest.as_ref().is_none_or(|(before, _)| before.size <= head.size) {
            self.newest = Some((head, note.clone()));
            self.recent.push_back(note.clone());
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
        self.write(&note)?;
        // A file that was written anew has the newest note, too.
        self.written = self.newest.as_ref().map(|(head, _)| *head);
        Ok(())
    }

    fn write(&mut self, note: &str) -> io::Result<()> {
        if let Some((file, length)) = self.file.take_if(|(_, length)| *length < FILE_BYTES_MAX) {
            let bytes = format!("\n{note}");
            file.write_at(bytes.as_bytes(), length)?;
            file.sync()?;
            self.file = Some((file, length + bytes.len() as u64));
            return Ok(());
        }
        let mut notes: Vec<&str> = self.ends.values().map(String::as_str).collect();
        notes.extend(self.recent.iter().map(String::as_str));
        let text = notes.join("\n");
        self.file = None;
        self.file = Some((self.folder.write(CHECKPOINTS, text.as_bytes())?, text.len() as u64));
        Ok(())
    }
}

/// The notes in a file, in its order, signed by any key; none where there is no file. A truncated last note is left out.
pub(super) fn read_notes(folder: &Folder) -> io::Result<Vec<String>> {
    let Some(bytes) = folder.read(CHECKPOINTS)? else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&bytes);
    let (mut notes, mut note, mut signed) = (Vec::new(), String::new(), false);
    for line in text.split_inclusive('\n') {
        let is_signature = line.starts_with(SIGNATURE) && line.ends_with('\n');
        if signed && !is_signature {
            notes.push(std::mem::take(&mut note));
            signed = false;
            if line == "\n" {
                continue;
            }
        }
        signed |= is_signature;
        note.push_str(line);
    }
    notes.extend(signed.then_some(note));
    Ok(notes)
}
