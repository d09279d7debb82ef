//! The check of a log's files for `portcullis audit verify --data-dir`.
//!
//! Invariant: it tells what a server would tell of the same log.
//! Not here: the check itself (`server`), and how its result is shown (`portcullis-cli`).

use std::path::Path;

use crate::proto::v1;
use crate::server::verify_audit;

/// Verifies the audit log in a data directory.
pub(super) fn files(
    data_dir: &Path,
    key: Option<&str>,
    note: Option<&str>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> anyhow::Result<v1::VerifyAuditResult> {
    let verified = verify_audit(data_dir, key, note, progress)?;
    let to_i64 = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let fault = |(sequence, message)| v1::AuditFault { sequence: to_i64(sequence), message };
    Ok(v1::VerifyAuditResult {
        intact: verified.faults.is_empty(),
        tree_size: to_i64(verified.tree_size),
        root_hash: verified.root.as_bytes().to_vec(),
        faults: verified.faults.into_iter().map(fault).collect(),
    })
}
