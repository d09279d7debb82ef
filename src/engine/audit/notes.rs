//! Reading the file of the checkpoints, and telling who signed them.
//!
//! Invariant: only the last note may be torn, because a crash interrupts one write, and each writes one note. It is cut off,
//! or has zeros. Any other note that a known key names and that this key did not sign is damaged, never passed over.
//! Not here: writing the file (`checkpoints`), and whether what was signed is the log (`recovery`, `verify`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::open_error::AuditOpenError;
use super::signers::{open_by, size_of};
use crate::audit::merkle::TreeHead;
use crate::audit::note::{SignedNote, VerifierKey};
use crate::store::disk::Disk;
use crate::store::folder::Folder;

/// The name of the file.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// What begins a signature's line.
const SIGNATURE: &str = "\u{2014} ";

/// A whole note of the file.
pub(super) struct Note {
    pub(super) text: String,
    /// What was signed, and the number of the key among the known ones; none where none of them signed.
    pub(super) signed: Option<(TreeHead, usize)>,
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

/// Who of the `known` signed the newest checkpoint of the log in `directory`. A last one that a crash tore while it was
/// written says nothing: then the one before it counts.
///
/// # Errors
///
/// Where a checkpoint is damaged.
pub fn newest_signer(
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    known: &[VerifierKey],
) -> Result<NewestSigner, AuditOpenError> {
    let notes = read_signed(&Folder::new(disk, directory), known)?;
    let newest = notes.iter().max_by_key(|note| size_of(&note.text));
    Ok(newest.map_or(NewestSigner::Nobody, |note| match note.signed {
        Some((_, number)) => NewestSigner::Known(number),
        None => NewestSigner::Unknown,
    }))
}

/// The whole notes of the file, in its order; none where there is no file.
///
/// # Errors
///
/// Where one is damaged.
pub(super) fn read_signed(folder: &Folder, known: &[VerifierKey]) -> Result<Vec<Note>, AuditOpenError> {
    let texts = read_notes(folder).map_err(|source| AuditOpenError::Io { action: "read the checkpoints", source })?;
    let (count, mut damaged) = (texts.len(), Vec::new());
    let mut notes = Vec::with_capacity(count);
    for (number, text) in (1..).zip(texts) {
        let signed = open_by(&text, known).map(|(checkpoint, signer)| (checkpoint.head(), signer)).ok();
        if signed.is_none() && !is_foreign(&text, known) {
            damaged.push(number);
        }
        notes.push(Note { text, signed });
    }
    match damaged.split_first() {
        None => Ok(notes),
        Some((number, others)) => {
            Err(AuditOpenError::DamagedCheckpoint { number: *number, count, others: others.len() })
        }
    }
}

/// Whether a note names none of the known keys as the one that signed it.
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
