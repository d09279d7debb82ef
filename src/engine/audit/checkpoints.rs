//! The signed checkpoints that are kept with the log: the file `checkpoints` holds signed notes, separated by empty
//! lines.
//!
//! Invariant: a checkpoint covers durable records only. Sizes never fall, except for checkpoints of the ends of units.
//! Not here: when one is made (`maintenance`, `sealer`); whether they fit the log (`recovery`, `verify`).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::open_error::AuditOpenError;
use super::signers::{open_by, size_of};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::merkle::TreeHead;
use crate::audit::note::{SignedNote, SignerKey, VerifierKey};
use crate::store::disk::{Disk, DiskFile};
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
    /// Another key that signed the newest one.
    newest_signer: Option<VerifierKey>,
}

impl Checkpoints {
    /// Reads the file. `earlier` keys signed before this one; `is_end` tells the sizes at which units end.
    ///
    /// # Errors
    ///
    /// Where there is a file without a checkpoint of these keys: every write leaves one.
    pub(super) fn open(
        folder: Folder,
        key: SignerKey,
        earlier: &[VerifierKey],
        is_end: impl Fn(u64) -> bool,
    ) -> Result<Self, AuditOpenError> {
        let known = [std::slice::from_ref(key.verifier()), earlier].concat();
        let (mut recent, mut ends, mut newest) = (VecDeque::new(), BTreeMap::new(), None);
        let mut newest_signer = None;
        let io = |source| AuditOpenError::Io { action: "read the checkpoints", source };
        let notes = read_notes(&folder).map_err(io)?;
        let is_foreign = notes.iter().any(|note| SignedNote::parse(note.as_bytes()).is_ok());
        for note in notes {
            // Signed by another key, or truncated: not usable here. Verifying reads the file itself and reports it.
            let Ok((checkpoint, signer)) = open_by(&note, &known) else { continue };
            let head = checkpoint.head();
            if is_end(head.size) {
                ends.insert(head.size, note.clone());
            }
            if newest.as_ref().is_none_or(|(before, _): &(TreeHead, String)| before.size <= head.size) {
                newest = Some((head, note.clone()));
                newest_signer = known.get(signer).filter(|signer| *signer != key.verifier()).cloned();
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
        Ok(Self { folder, key, file: None, recent, ends, newest, written, newest_signer })
    }

    /// The largest head whose checkpoint is on the disk.
    pub(super) fn written(&self) -> Option<TreeHead> {
        self.written
    }

    /// The newest checkpoint with its note.
    pub(super) fn newest(&self) -> Option<&(TreeHead, String)> {
        self.newest.as_ref()
    }

    /// Another key that signed the newest one, and how many records that covers.
    pub(super) fn other_signer(&self) -> Option<(&VerifierKey, u64)> {
        self.newest_signer.as_ref().zip(self.newest.as_ref().map(|(head, _)| head.size))
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
            self.newest_signer = None;
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

/// Who signed the newest checkpoint that lies beside a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewestSigner {
    /// There are no checkpoints.
    Nobody,
    /// One of the known keys: its number among them.
    Known(usize),
    /// None of them.
    Unknown,
}

/// Who of the `known` signed the newest checkpoint of the log in `directory`. One that was damaged, as by a crash while it
/// was written, says nothing: then the one before it counts.
pub fn newest_signer(disk: Arc<dyn Disk>, directory: PathBuf, known: &[VerifierKey]) -> io::Result<NewestSigner> {
    let mut notes = read_notes(&Folder::new(disk, directory))?;
    notes.sort_by_key(|note| size_of(note));
    let mut signers = notes.iter().rev().filter_map(|note| match open_by(note, known) {
        Ok((_, number)) => Some(NewestSigner::Known(number)),
        Err(_) => is_foreign(note, known).then_some(NewestSigner::Unknown),
    });
    Ok(signers.next().unwrap_or(NewestSigner::Nobody))
}

/// Whether a note is whole, and names none of the known keys as the one that signed it.
fn is_foreign(note: &str, known: &[VerifierKey]) -> bool {
    let is_known = |name: &str, id| known.iter().any(|key| key.name() == name && key.id() == id);
    size_of(note).is_some()
        && SignedNote::parse(note.as_bytes())
            .is_ok_and(|note| !note.signatures().iter().any(|signature| is_known(signature.name(), signature.id())))
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
