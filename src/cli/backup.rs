//! The check of a backup that `portcullis backup` receives.
//!
//! Invariant: it is the check that a restore makes of the file.
//! Not here: the format (`store::backup`), receiving (`portcullis-cli`).

use portcullis_cli::{BackupCheck, BackupSummary};

use crate::server::ReceivedBackup;

/// A check of a backup from its first byte on.
pub(super) fn check() -> Box<dyn BackupCheck> {
    Box::new(Received(ReceivedBackup::default()))
}

struct Received(ReceivedBackup);

impl BackupCheck for Received {
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.push(bytes)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<BackupSummary> {
        let whole = self.0.finish()?;
        Ok(BackupSummary {
            bytes: whole.bytes,
            lineage: whole.lineage.to_string(),
            audit_sequence: whole.audit_sequence,
            policy_sequence: whole.policy_sequence,
        })
    }
}
