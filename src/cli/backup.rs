//! What `portcullis backup` does to verify what it receives.
//!
//! Invariant: it is what a restore of the file does.
//! Not here: the format (`store::backup`), receiving (`portcullis-cli`).

use std::fs::File;
use std::path::Path;

use portcullis_cli::{BackupCheck, BackupFormat, BackupSummary};

use crate::server::{self, ReceivedBackup, WholeBackup};

/// Backups as this program writes and restores them.
pub(super) struct Format;

impl BackupFormat for Format {
    fn check(&self) -> Box<dyn BackupCheck> {
        Box::new(Received(ReceivedBackup::default()))
    }

    fn rehearse(&self, file: &Path, scratch: &Path) -> anyhow::Result<BackupSummary> {
        server::rehearse(&mut File::open(file)?, scratch).map(summary)
    }
}

struct Received(ReceivedBackup);

impl BackupCheck for Received {
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.push(bytes)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<BackupSummary> {
        self.0.finish().map(summary)
    }
}

fn summary(whole: WholeBackup) -> BackupSummary {
    let WholeBackup { bytes, lineage, audit_sequence, policy_sequence } = whole;
    BackupSummary { bytes, lineage: lineage.to_string(), audit_sequence, policy_sequence }
}
