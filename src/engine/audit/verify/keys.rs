//! The keys that signed a log, and whether each was entitled to.
//!
//! Whoever can write the files can write a record of a change of the key, so the record alone says nothing. It counts only
//! if the key that it names as the new one is entitled itself and signed a checkpoint that covers the record. Then the key
//! before is entitled to what it signed before the record, and to nothing after it. So trust goes from the keys that are
//! trusted back to the ones before them, never forwards.
//!
//! Invariant: every checkpoint is by a trusted key, or by one that was entitled at its size, or it is a fault.
//! Not here: the roots that were signed (`walk`).

use std::collections::{BTreeMap, BTreeSet};

use super::super::signers::{open_by, size_of};
use crate::audit::checkpoint::OpenError;
use crate::audit::merkle::TreeHead;
use crate::audit::note::{NoteVerifyError, VerifierKey};
use crate::audit::record::KeyChangedRecord;

/// See the module.
pub(super) struct Keys {
    /// Those that are trusted, then those that only lie beside the log.
    candidates: Vec<VerifierKey>,
    trusted: usize,
    /// The sizes that each key signed, by the text of the key.
    signed: BTreeMap<String, BTreeSet<u64>>,
    /// Notes that none of the candidates signed.
    unknown: Vec<Unknown>,
    changes: Vec<(u64, KeyChangedRecord)>,
}

/// A note that nobody known signed.
struct Unknown {
    /// From whoever asks for the verification, not from beside the log.
    is_given: bool,
    size: Option<u64>,
    note: String,
    error: String,
}

/// What the keys say, once all records are read.
#[derive(Default)]
pub(super) struct Judged {
    /// How many records trusted keys vouch for at most.
    pub(super) vouched_size: u64,
    /// What else was signed by keys that turned out to be entitled.
    pub(super) heads: Vec<TreeHead>,
    pub(super) faults: Vec<(u64, String)>,
    /// Why the checkpoint that was given is nobody's who is known; none where it is somebody's, or there is none.
    pub(super) unknown_given: Option<String>,
}

/// The largest size that each entitled key may have signed.
type Bounds = BTreeMap<String, u64>;

impl Keys {
    pub(super) fn new(trusted: &[VerifierKey], beside: &[VerifierKey]) -> Self {
        let mut candidates = trusted.to_vec();
        candidates.extend(beside.iter().filter(|key| !trusted.contains(key)).cloned());
        let trusted = trusted.len();
        Self { candidates, trusted, signed: BTreeMap::new(), unknown: Vec::new(), changes: Vec::new() }
    }

    /// The sizes of the notes that nobody known signed.
    pub(super) fn unknown_sizes(&self) -> impl Iterator<Item = u64> {
        self.unknown.iter().filter_map(|unknown| unknown.size)
    }

    /// The keys that are trusted.
    fn trusted(&self) -> &[VerifierKey] {
        self.candidates.get(..self.trusted).unwrap_or_default()
    }

    /// Takes the checkpoint that was given. It may be by a key that only the records tell.
    ///
    /// # Errors
    ///
    /// It is no checkpoint, or a key that is known did not sign it.
    pub(super) fn open_given(&mut self, note: &str) -> Result<Option<TreeHead>, String> {
        match open_by(note, &self.candidates) {
            Err(None | Some(OpenError::Verify(NoteVerifyError::NoKnownSignature(_)))) if size_of(note).is_some() => {}
            Err(error) => return Err(error.map(|error| error.to_string()).unwrap_or_default()),
            Ok(_) => {}
        }
        Ok(self.open(note.to_owned(), true))
    }

    /// Takes a checkpoint from beside the log.
    pub(super) fn open_beside(&mut self, note: String) -> Option<TreeHead> {
        self.open(note, false)
    }

    /// None where no candidate signed it.
    fn open(&mut self, note: String, is_given: bool) -> Option<TreeHead> {
        match open_by(&note, &self.candidates) {
            Ok((checkpoint, number)) => {
                let head = checkpoint.head();
                let key = self.candidates.get(number).map(ToString::to_string).unwrap_or_default();
                self.signed.entry(key).or_default().insert(head.size);
                Some(head)
            }
            Err(error) => {
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                self.unknown.push(Unknown { is_given, size: size_of(&note), note, error });
                None
            }
        }
    }

    /// Notes a record of a change of the key.
    pub(super) fn changed(&mut self, sequence: u64, change: &KeyChangedRecord) {
        self.changes.push((sequence, change.clone()));
    }

    /// Judges the checkpoints by the records. What was signed up to `base` is not judged: the records that say who was to
    /// sign then were removed.
    pub(super) fn judge(mut self, base: u64) -> Judged {
        let mut judged = Judged::default();
        let bounds = self.entitle(&mut judged.heads);
        let first = self.signed.values().filter_map(BTreeSet::first).min().copied();
        for (key, sizes) in &self.signed {
            let (bound, least) = (bounds.get(key).copied(), sizes.first().copied());
            if let Some(size) = sizes.range(bound.unwrap_or(0).max(base).saturating_add(1)..).next() {
                judged.faults.push(self.untrusted(key, *size, &bounds));
            }
            let entitled_to = bound.and_then(|bound| sizes.range(..=bound).next_back().copied());
            let Some(most) = entitled_to else { continue };
            judged.vouched_size = judged.vouched_size.max(most);
            let begins = self.changes.iter().any(|(sequence, change)| *change.key == **key && *sequence <= most);
            if base == 0 && first < least && !begins {
                let least = least.unwrap_or_default();
                let message =
                    format!("from {least} records on `{key}` signs, and no record says that the key was changed");
                judged.faults.push((least, message));
            }
            judged.faults.extend(self.signed_on(key, most));
        }
        for Unknown { is_given, size, error, .. } in &self.unknown {
            if *is_given {
                judged.unknown_given = Some(error.clone());
                continue;
            }
            // One whose size cannot be read counts as one of the present.
            if size.is_none_or(|size| size > base) {
                let size = size.unwrap_or(1);
                judged.faults.push((size, format!("a checkpoint of {size} records is not this log's: {error}")));
            }
        }
        judged
    }

    /// Which keys are entitled, and up to which size. The heads of notes that their keys turn out to have signed are added.
    fn entitle(&mut self, heads: &mut Vec<TreeHead>) -> Bounds {
        let mut bounds: Bounds = self.trusted().iter().map(|key| (key.to_string(), u64::MAX)).collect();
        // A key is entitled to less than the record that entitles it, so only older records can depend on it.
        self.changes.sort_by_key(|(sequence, _)| *sequence);
        for number in (0..self.changes.len()).rev() {
            let Some((sequence, KeyChangedRecord { previous_key, key, .. })) = self.changes.get(number) else {
                continue;
            };
            let (sequence, previous) = (*sequence, previous_key.to_string());
            let covers = |bound: &u64| {
                let sizes = self.signed.get(&**key);
                *bound >= sequence && sizes.is_some_and(|sizes| sizes.range(sequence..=*bound).next().is_some())
            };
            if bounds.get(&**key).is_some_and(covers) {
                let bound = bounds.entry(previous.clone()).or_default();
                *bound = (*bound).max(sequence.saturating_sub(1));
                self.open_unknown(&previous, heads);
            }
        }
        bounds
    }

    /// Takes the notes that a key signed which was not known before the records were read.
    fn open_unknown(&mut self, key: &str, heads: &mut Vec<TreeHead>) {
        let Ok(verifier) = key.parse::<VerifierKey>() else { return };
        let verifier = [verifier];
        let signed = &mut self.signed;
        self.unknown.retain(|unknown| {
            let Ok((checkpoint, _)) = open_by(&unknown.note, &verifier) else { return true };
            heads.push(checkpoint.head());
            signed.entry(key.to_owned()).or_default().insert(checkpoint.head().size);
            false
        });
    }

    /// The fault of a key that signed `size` records, to which it was not entitled.
    fn untrusted(&self, key: &str, size: u64, bounds: &Bounds) -> (u64, String) {
        let bound = bounds.get(key).copied().unwrap_or(0);
        let known = |change: &KeyChangedRecord| *change.key == *key && bounds.contains_key(&*change.previous_key);
        let change = self.changes.iter().find(|(sequence, change)| known(change) && *sequence > bound);
        match change {
            Some((sequence, KeyChangedRecord { signed_size, .. })) => (
                *sequence,
                format!(
                    "from record {sequence} on another key signs: `{key}`; the key that was given vouches for {signed_size} \
                     records; if you know of the change of keys, give the new key"
                ),
            ),
            None if bound > 0 => {
                let next = bound + 1;
                let message =
                    format!("`{key}` signed {size} records, though record {next} says that another key signs");
                (next, message)
            }
            None => (size, format!("a checkpoint of {size} records is not this log's: it is signed by `{key}`")),
        }
    }

    /// The fault of a key that signed on after another one had taken over.
    fn signed_on(&self, key: &str, most: u64) -> Option<(u64, String)> {
        let mut of_key =
            self.changes.iter().rev().filter(|(_, change)| *change.previous_key == *key || *change.key == *key);
        let (sequence, change) = of_key.next()?;
        // Where a crash came before the other one's first checkpoint, it has not taken over.
        let took_over = self.signed.get(&*change.key).is_some_and(|sizes| sizes.range(*sequence..).next().is_some());
        (*change.previous_key == *key && most >= *sequence && took_over).then(|| {
            let message =
                format!("`{key}` signed {most} records, though record {sequence} says that another key signs");
            (*sequence, message)
        })
    }
}
