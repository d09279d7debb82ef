//! Verifying the audit log of a data directory that no server uses, such as a copy.
//!
//! Invariant: nothing in the directory is changed, not even a lock is taken.
//! Not here: what is verified (`engine::audit`).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use super::audit_key;
use crate::audit::note::VerifierKey;
use crate::engine::audit::{LogFiles, Progress, Verification, verify_files};
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{JournalOptions, JournalReader};

/// The directory of the log in a data directory.
const AUDIT: &str = "audit";

/// Verifies the audit log in `data_dir`. `key` is the text of the keys that verify, separated by white space; without it
/// those that lie in the directory are used, which only helps where nobody could change them. Of a log whose key was changed,
/// the newest key suffices. `note` is an older checkpoint that was kept
/// elsewhere.
pub fn verify_audit(
    data_dir: &Path,
    key: Option<&str>,
    note: Option<&str>,
    progress: Progress<'_>,
) -> anyhow::Result<Verification> {
    let beside = audit_key::read_public(data_dir);
    let (trusted, beside) = match key {
        Some(text) => {
            let keys: Result<Vec<VerifierKey>, _> = text.split_whitespace().map(str::parse).collect();
            let keys = keys.map_err(|error| anyhow!("`{text}` is no key of an audit log: {error}"))?;
            if keys.is_empty() {
                bail!("the key of the audit log is empty: give the content of a trusted copy of `audit.pub`");
            }
            (keys, beside.unwrap_or_default())
        }
        None => (beside.context("give the log's key with `--public-key`")?, Vec::new()),
    };
    let directory = data_dir.join(AUDIT);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (tail_disk, tail_directory) = (Arc::clone(&disk), directory.clone());
    let tail = Box::new(move |first_sequence: u64| {
        let options = JournalOptions::audit(first_sequence);
        let (reader, fault) = match JournalReader::open_damaged(tail_disk, tail_directory, &options) {
            Ok(opened) => opened,
            Err(error) => return vec![Err(error)],
        };
        let from = first_sequence.clamp(reader.first_sequence(), reader.next_sequence());
        let mut records = match reader.read_from(from) {
            Ok(records) => records.collect(),
            Err(error) => vec![Err(error)],
        };
        records.extend(fault.map(Err));
        records
    });
    Ok(verify_files(LogFiles { disk, directory, trusted, beside, tail }, note, progress)?)
}
