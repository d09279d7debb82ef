//! The keys that signed a log, and whether each was entitled to.
//!
//! A trusted key vouches for the whole log that it signed, so also for a record that says which key signed before. It
//! cannot vouch for a key that signed later: anybody with the disk could have written that record. So trust goes from a key
//! to the ones before it, never to the ones after it.
//!
//! Invariant: every checkpoint is by a trusted key, or one that a trusted key vouches for, or it is a fault.
//! Not here: the roots that were signed (`walk`).

use std::collections::{BTreeMap, BTreeSet};

use super::super::signers::{open_by, size_of};
use crate::audit::merkle::TreeHead;
use crate::audit::note::VerifierKey;
use crate::audit::record::KeyChangedRecord;

/// See the module.
pub(super) struct Keys {
    /// Those that are trusted, then those that only lie beside the log.
    candidates: Vec<VerifierKey>,
    trusted: usize,
    /// The smallest and the largest size that each candidate signed.
    signed: BTreeMap<usize, (u64, u64)>,
    /// Notes that none of the candidates signed: size, note, error.
    unknown: Vec<(u64, String, String)>,
    changes: Vec<(u64, KeyChangedRecord)>,
}

/// What the keys say, once all records are read.
#[derive(Default)]
pub(super) struct Judged {
    /// How many records trusted keys vouch for at most.
    pub(super) vouched_size: u64,
    /// What else was signed by keys that turned out to be entitled.
    pub(super) heads: Vec<TreeHead>,
    pub(super) faults: Vec<(u64, String)>,
}

impl Keys {
    pub(super) fn new(trusted: &[VerifierKey], beside: &[VerifierKey]) -> Self {
        let mut candidates = trusted.to_vec();
        candidates.extend(beside.iter().filter(|key| !trusted.contains(key)).cloned());
        let trusted = trusted.len();
        Self { candidates, trusted, signed: BTreeMap::new(), unknown: Vec::new(), changes: Vec::new() }
    }

    /// The keys that are trusted.
    pub(super) fn trusted(&self) -> &[VerifierKey] {
        self.candidates.get(..self.trusted).unwrap_or_default()
    }

    /// Takes a checkpoint from beside the log. None where no candidate signed it.
    pub(super) fn open(&mut self, note: String) -> Option<TreeHead> {
        match open_by(&note, &self.candidates) {
            Ok((checkpoint, number)) => {
                let head = checkpoint.head();
                let (least, most) = self.signed.entry(number).or_insert((head.size, head.size));
                (*least, *most) = ((*least).min(head.size), (*most).max(head.size));
                Some(head)
            }
            Err(error) => {
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                self.unknown.push((size_of(&note).unwrap_or(1), note, error));
                None
            }
        }
    }

    /// Notes a record of a change of the key.
    pub(super) fn changed(&mut self, sequence: u64, change: &KeyChangedRecord) {
        self.changes.push((sequence, change.clone()));
    }

    /// Judges the checkpoints by the records. `is_whole`: no records were removed.
    pub(super) fn judge(&self, is_whole: bool) -> Judged {
        let mut entitled: BTreeSet<String> = self.trusted().iter().map(ToString::to_string).collect();
        for (_, change) in self.changes.iter().rev() {
            if entitled.contains(&*change.key) {
                entitled.insert(change.previous_key.to_string());
            }
        }
        let mut judged = Judged::default();
        let first = self.signed.values().map(|(least, _)| *least).min();
        for (number, (least, most)) in &self.signed {
            let Some(key) = self.candidates.get(*number).map(ToString::to_string) else { continue };
            if !entitled.contains(&key) {
                judged.faults.push(self.untrusted(&key, *least, &entitled));
                continue;
            }
            judged.vouched_size = judged.vouched_size.max(*most);
            let begins = self.changes.iter().any(|(sequence, change)| *change.key == *key && sequence <= least);
            if is_whole && first < Some(*least) && !begins {
                let message =
                    format!("from {least} records on `{key}` signs, and no record says that the key was changed");
                judged.faults.push((*least, message));
            }
            let ended = self.changes.iter().rfind(|(_, change)| *change.previous_key == *key || *change.key == *key);
            if let Some((sequence, change)) = ended
                && *change.previous_key == *key
                && most >= sequence
            {
                let message =
                    format!("`{key}` signed {most} records, though record {sequence} says that another key signs");
                judged.faults.push((*sequence, message));
            }
        }
        self.judge_unknown(&entitled, &mut judged);
        judged
    }

    /// The fault of a key that nobody vouches for.
    fn untrusted(&self, key: &str, least: u64, entitled: &BTreeSet<String>) -> (u64, String) {
        let change =
            self.changes.iter().find(|(_, change)| *change.key == *key && entitled.contains(&*change.previous_key));
        match change {
            Some((sequence, KeyChangedRecord { signed_size, .. })) => (
                *sequence,
                format!(
                    "from record {sequence} on another key signs: `{key}`; the key that was given vouches for {signed_size} \
                     records; if you know of the change of keys, give the new key"
                ),
            ),
            None => (least, format!("a checkpoint of {least} records is not this log's: it is signed by `{key}`")),
        }
    }

    /// Judges the notes of keys that were not known before the records were read.
    fn judge_unknown(&self, entitled: &BTreeSet<String>, judged: &mut Judged) {
        let keys: Vec<VerifierKey> = entitled.iter().filter_map(|key| key.parse().ok()).collect();
        for (size, note, error) in &self.unknown {
            if let Ok((checkpoint, _)) = open_by(note, &keys) {
                judged.heads.push(checkpoint.head());
            } else {
                let message = format!("a checkpoint of {size} records is not this log's: {error}");
                judged.faults.push((*size, message));
            }
        }
    }
}
