//! The signed checkpoints that are kept with the log: the file `checkpoints` holds signed notes, separated by empty
//! lines.
//!
//! Invariant: a checkpoint covers durable records only, and is shown only once it is in the file: no power cut takes back
//! what was shown. Readers never wait for the disk. Sizes never fall, except for checkpoints of the ends of units.
//! Not here: when one is made (`maintenance`, `sealer`); whether they fit the log (`recovery`, `verify`).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::open_error::AuditOpenError;
use super::signers::{open_by, size_of};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::merkle::TreeHead;
use crate::audit::note::{SignedNote, SignerKey, VerifierKey};
use crate::locks::IgnorePoison;
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
    /// The file being appended to and its length; none where it has to be rewritten.
    open: Option<(Box<dyn DiskFile>, u64)>,
    recent: VecDeque<String>,
    /// Those of the ends of units.
    ends: BTreeMap<u64, String>,
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
        let newest = newest.map(|(head, note)| (head, note.into()));
        let shown = Mutex::new(Shown { newest, signer: newest_signer });
        Ok(Self { key, file: Mutex::new(CheckpointFile { folder, open: None, recent, ends }), shown })
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
        if let Some((file, length)) = self.open.take_if(|(_, length)| *length < FILE_BYTES_MAX) {
            let bytes = format!("\n{note}");
            file.write_at(bytes.as_bytes(), length)?;
            file.sync()?;
            self.open = Some((file, length + bytes.len() as u64));
            return Ok(());
        }
        let mut notes: Vec<&str> = self.ends.values().map(String::as_str).collect();
        notes.extend(self.recent.iter().map(String::as_str));
        let text = notes.join("\n");
        self.open = None;
        self.open = Some((self.folder.write(CHECKPOINTS, text.as_bytes())?, text.len() as u64));
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

/// The notes in a file, in its order, signed by any key; none where there is no file. A last note is left out that a power
/// cut has truncated, or that has zeros where a sector did not reach the disk.
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
    notes.extend(Some(note).filter(|note| signed && !note.contains('\0')));
    Ok(notes)
}
