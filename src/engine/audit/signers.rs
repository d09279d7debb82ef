//! Which of several keys signed a checkpoint, for a log whose key was changed.
//!
//! Invariant: a note counts only as the work of a key that is known, under that key's own name.
//! Not here: which keys are known (`server`), and whether what they signed is the log (`recovery`, `verify`).

use crate::audit::checkpoint::{Checkpoint, OpenError};
use crate::audit::note::VerifierKey;

/// The checkpoint, and the number of the key that signed it. The error is that of the last key.
pub(super) fn open_by(note: &str, known: &[VerifierKey]) -> Result<(Checkpoint, usize), Option<OpenError>> {
    let mut refused = None;
    for (number, key) in known.iter().enumerate() {
        match Checkpoint::open(note.as_bytes(), std::slice::from_ref(key), key.name()) {
            Ok(checkpoint) => return Ok((checkpoint, number)),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused)
}

/// The second line of a note is its size, even if the signature is wrong.
pub(super) fn size_of(note: &str) -> Option<u64> {
    note.lines().nth(1).and_then(|line| line.parse().ok())
}
