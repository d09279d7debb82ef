//! Verifying the audit log of a data directory that no server uses, such as a copy.
//!
//! Invariant: nothing in the directory is changed, not even a lock is taken.
//! Not here: what is verified (`engine::audit`).

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::audit_key;
use crate::audit::note::VerifierKey;
use crate::engine::audit::{LogFiles, Progress, Verification, verify_files};
use crate::store::disk::{Disk, RealDisk};
use crate::store::journal::{JournalOptions, JournalReader};

/// The directory of the log in a data directory.
const AUDIT: &str = "audit";

/// Verifies the audit log in `data_dir`. `key` is the text of the key that verifies; without it the one that lies in the
/// directory is used, which only helps where nobody could change that. `note` is an older checkpoint that was kept
/// elsewhere.
pub fn verify_audit(
    data_dir: &Path,
    key: Option<&str>,
    note: Option<&str>,
    progress: Progress<'_>,
) -> anyhow::Result<Verification> {
    let verifier: VerifierKey = match key {
        Some(key) => key.trim().parse().map_err(|error| anyhow!("`{key}` is no key of an audit log: {error}"))?,
        None => audit_key::read_public(data_dir).context("give the log's key with `--public-key`")?,
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
    Ok(verify_files(LogFiles { disk, directory, verifier, tail }, note, progress)?)
}
