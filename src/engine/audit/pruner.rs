//! Retention: removing the oldest units.
//!
//! On the record first: a PRUNED record with the root over what goes, durable and signed; then what later proofs need of
//! it (tile roots, counts) in files of its own; then the units' files.
//!
//! Invariant: nothing goes that is not on the record, nothing younger than the longest session, and every proof among
//! what is kept stays possible.
//! Not here: when to look (`sealer`).

use super::sealer::{Sealer, micros};
use super::units::UnitInfo;
use super::{AuditError, Shared};
use crate::audit::merkle::{Hash, TILE_LEAVES, Tree};
use crate::audit::record::{Content, Entry, PrunedRecord};
use crate::store::codec::audit::{Base, UnitSummary, decode_base, decode_unit_summary, encode_base};
use crate::store::disk::{Disk, read_whole, write_whole};
use crate::store::sealed;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The file that says what is removed.
pub(super) const BASE: &str = "base";

/// What the files with the tile roots of removed units begin with; the number of their first tile follows.
const TREE_PREFIX: &str = "tree-";

const CRC_BYTES: usize = 4;

impl Sealer {
    /// Removes what retention no longer wants.
    pub(super) fn prune_if_due(&mut self) {
        let due = self.due();
        let Some(last) = due.last() else { return };
        let to_sequence = last.next_sequence() - 1;
        if let Err(error) = self.prune(to_sequence) {
            tracing::warn!(%error, to_sequence, "old records are not removed and stay for now");
        }
    }

    /// The units that are to go, oldest first.
    fn due(&self) -> Vec<UnitInfo> {
        let options = &self.shared.options;
        let now = self.clock.now().micros();
        let units = self.shared.units.list();
        let mut bytes: u64 = units.iter().map(|unit| unit.bytes).sum();
        // A session that is active may have been opened that long ago.
        let needed = now - micros(self.sessions.max_age());
        let mut due = Vec::new();
        for unit in units {
            let too_old = options.retention_age.is_some_and(|age| unit.max_time < now - micros(age));
            let too_much = options.retention_bytes.is_some_and(|bytes_max| bytes > bytes_max);
            if !(too_old || too_much) || unit.max_time >= needed {
                break;
            }
            bytes -= unit.bytes;
            due.push(unit);
        }
        due
    }

    fn prune(&mut self, to_sequence: u64) -> Result<(), AuditError> {
        let shared = &self.shared;
        let tree = shared.tree().clone();
        let root = tree.root_at(to_sequence, &**shared).map_err(|error| AuditError::NotReadable(error.to_string()))?;
        let content = Content::Pruned(PrunedRecord { to_sequence, root });
        let entry = Entry { time: self.clock.now(), organization: None, content };
        let sequence = shared.queue.push(entry, None, true);
        let mut newest = shared.newest.subscribe();
        while *newest.borrow_and_update() < sequence {
            shared.queue.check_writable()?;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.sign();
        let _layout = shared.layout();
        write_removed(shared, &tree, to_sequence).map_err(|error| AuditError::NotWritable(error.to_string()))?;
        tracing::info!(to_sequence, "old records of the audit log are removed");
        remove_units(shared, to_sequence)
    }
}

/// Writes down what is needed of the units up to a record once they are gone.
fn write_removed(shared: &Shared, tree: &Tree, to_sequence: u64) -> io::Result<()> {
    let (disk, directory) = (&*shared.units.disk, shared.units.directory());
    let before = read_base(disk, directory)?.unwrap_or_default();
    let first_tile = usize::try_from(before.to_sequence).unwrap_or(usize::MAX) / TILE_LEAVES;
    let end_tile = usize::try_from(to_sequence).unwrap_or(usize::MAX) / TILE_LEAVES;
    let mut roots = Vec::new();
    for root in (first_tile..end_tile).filter_map(|tile| tree.tile_root(tile)) {
        roots.extend_from_slice(root.as_bytes());
    }
    let crc = crc32c::crc32c(&roots);
    roots.extend_from_slice(&crc.to_le_bytes());
    write_whole(disk, &directory.join(format!("{TREE_PREFIX}{first_tile:020}")), &roots)?;
    let mut organizations: BTreeMap<_, _> = before.summary.organizations.into_iter().collect();
    let mut policy_sequence = before.summary.policy_sequence;
    for unit in shared.units.list().iter().filter(|unit| unit.next_sequence() <= to_sequence + 1) {
        let sealed = shared.units.open(unit.first_sequence).map_err(io::Error::other)?;
        let attachment = sealed.attachment().map_err(io::Error::other)?;
        let summary = decode_unit_summary(&attachment).map_err(io::Error::other)?;
        organizations.extend(summary.organizations);
        policy_sequence = policy_sequence.max(summary.policy_sequence);
    }
    let summary = UnitSummary { organizations: organizations.into_iter().collect(), policy_sequence };
    let mut bytes = encode_base(&Base { to_sequence, summary });
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    write_whole(disk, &directory.join(BASE), &bytes).map(drop)
}

fn remove_units(shared: &Shared, to_sequence: u64) -> Result<(), AuditError> {
    let gone: Vec<UnitInfo> =
        shared.units.list().into_iter().filter(|unit| unit.next_sequence() <= to_sequence + 1).collect();
    shared.units.forget_before(to_sequence + 1);
    for unit in gone {
        sealed::remove_unit(&*shared.units.disk, shared.units.directory(), unit.first_sequence)
            .map_err(|error| AuditError::NotWritable(error.to_string()))?;
    }
    Ok(())
}

/// What the file says of removed units; none where nothing was ever removed.
pub(super) fn read_base(disk: &dyn Disk, directory: &Path) -> io::Result<Option<Base>> {
    match read_checked(disk, &directory.join(BASE)) {
        Ok(bytes) => decode_base(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tile roots of the removed units up to a record.
pub(super) fn read_removed_roots(disk: &dyn Disk, directory: &Path, to_sequence: u64) -> io::Result<Vec<Hash>> {
    let mut names: Vec<String> =
        disk.list(directory)?.into_iter().filter(|name| name.starts_with(TREE_PREFIX) && !name.contains('.')).collect();
    names.sort_unstable();
    let tiles = usize::try_from(to_sequence).unwrap_or(usize::MAX) / TILE_LEAVES;
    let mut roots = Vec::new();
    for name in names {
        let first = name.strip_prefix(TREE_PREFIX).and_then(|digits| digits.parse::<usize>().ok());
        // One that goes further was written before the base, which then was not: it is written again.
        if first != Some(roots.len()) || roots.len() >= tiles {
            continue;
        }
        let bytes = read_checked(disk, &directory.join(&name))?;
        roots.extend(bytes.as_chunks::<{ Hash::BYTES }>().0.iter().map(|bytes| Hash::new(*bytes)));
    }
    if roots.len() < tiles {
        return Err(io::Error::other(format!("the roots of tiles {} to {tiles} are missing", roots.len())));
    }
    roots.truncate(tiles);
    Ok(roots)
}

/// A file without the checksum at its end, which has to fit.
fn read_checked(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = read_whole(disk, path)?;
    let damaged = || io::Error::other(format!("`{}` is damaged: restore it from a backup", path.display()));
    let length = bytes.len().checked_sub(CRC_BYTES).ok_or_else(damaged)?;
    let crc = bytes.split_off(length);
    if crc == crc32c::crc32c(&bytes).to_le_bytes() { Ok(bytes) } else { Err(damaged()) }
}
