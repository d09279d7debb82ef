//! What is kept of removed units. The file `base` says up to which record they went, and how many records each
//! organization had. Files `tree-…` hold the roots of their tiles. Each file ends with its CRC-32C.
//!
//! Invariant: with these files every kept record can still be proven.
//! Not here: which units go, and when (`pruner`).

use std::collections::BTreeMap;
use std::io;

use super::units::Units;
use crate::audit::merkle::{Hash, MerkleTree, TILE_LEAVES};
use crate::policy::change::ChangeIdentity;
use crate::store::advice::FROM_COPY;
use crate::store::codec::audit::{Base, UnitSummary, decode_base, decode_unit_summary, encode_base};
use crate::store::folder::Folder;

/// The file that says what is removed.
const BASE: &str = "base";

/// The prefix of the files with the tile roots of removed units; the number of their first tile follows.
const TREE_PREFIX: &str = "tree-";

const CRC_BYTES: usize = 4;

/// Writes what must be kept of the units up to a record, before they are removed.
pub(super) fn write_removed(folder: &Folder, units: &Units, tree: &MerkleTree, to_sequence: u64) -> io::Result<()> {
    let before = read_base(folder)?.unwrap_or_default();
    let first_tile = usize::try_from(before.to_sequence).unwrap_or(usize::MAX) / TILE_LEAVES;
    let end_tile = usize::try_from(to_sequence).unwrap_or(usize::MAX) / TILE_LEAVES;
    let mut roots = Vec::new();
    for root in (first_tile..end_tile).filter_map(|tile| tree.tile_root(tile)) {
        roots.extend_from_slice(root.as_bytes());
    }
    write_checked(folder, &format!("{TREE_PREFIX}{first_tile:020}"), roots)?;
    let UnitSummary { organizations, mut policy_sequence, mut policy_change } = before.summary;
    let mut organizations: BTreeMap<_, _> = organizations.into_iter().collect();
    for unit in units.list().iter().filter(|unit| unit.next_sequence() <= to_sequence + 1) {
        let sealed = units.open(unit.first_sequence).map_err(io::Error::other)?;
        let attachment = sealed.attachment().map_err(io::Error::other)?;
        let summary = decode_unit_summary(&attachment).map_err(io::Error::other)?;
        organizations.extend(summary.organizations);
        if summary.policy_sequence > policy_sequence {
            (policy_sequence, policy_change) = (summary.policy_sequence, summary.policy_change);
        }
    }
    let summary = UnitSummary { organizations: organizations.into_iter().collect(), policy_sequence, policy_change };
    write_checked(folder, BASE, encode_base(&Base { to_sequence, summary }))
}

/// The newest change of the policy that a removed record was of, with its sequence in the policy journal.
pub(super) fn removed_change(folder: &Folder) -> io::Result<Option<(u64, ChangeIdentity)>> {
    let summary = read_base(folder)?.unwrap_or_default().summary;
    Ok(summary.policy_change.map(|change| (summary.policy_sequence, change)))
}

/// The content of the file `base`; none where nothing was ever removed.
pub(super) fn read_base(folder: &Folder) -> io::Result<Option<Base>> {
    read_checked(folder, BASE)?.map(|bytes| decode_base(&bytes).map_err(io::Error::other)).transpose()
}

/// The tile roots of the removed units up to a record.
pub(super) fn read_removed_roots(folder: &Folder, to_sequence: u64) -> io::Result<Vec<Hash>> {
    let cannot_list =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot list `{}`: {error}", folder.path().display()));
    let names = folder.list().map_err(cannot_list)?.into_iter();
    let mut names: Vec<String> = names.filter(|name| name.starts_with(TREE_PREFIX) && !name.contains('.')).collect();
    names.sort_unstable();
    let tiles = usize::try_from(to_sequence).unwrap_or(usize::MAX) / TILE_LEAVES;
    let mut roots = Vec::new();
    for name in names {
        let first = name.strip_prefix(TREE_PREFIX).and_then(|digits| digits.parse::<usize>().ok());
        // A file that goes further was written before a crash kept `base` from being written. It is written again.
        if first != Some(roots.len()) || roots.len() >= tiles {
            continue;
        }
        let bytes = read_checked(folder, &name)?.unwrap_or_default();
        roots.extend(bytes.as_chunks::<{ Hash::BYTES }>().0.iter().map(|bytes| Hash::new(*bytes)));
    }
    if roots.len() < tiles {
        return Err(io::Error::other(format!("the roots of tiles {} to {tiles} are missing", roots.len())));
    }
    roots.truncate(tiles);
    Ok(roots)
}

fn write_checked(folder: &Folder, name: &str, mut bytes: Vec<u8>) -> io::Result<()> {
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    folder.write(name, &bytes).map(drop)
}

/// A file without the checksum at its end, which has to match; none where there is no such file.
fn read_checked(folder: &Folder, name: &str) -> io::Result<Option<Vec<u8>>> {
    let cannot_read = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot read `{}`: {error}", folder.file(name).display()))
    };
    let Some(mut bytes) = folder.read(name).map_err(cannot_read)? else { return Ok(None) };
    let damaged = || io::Error::other(format!("`{}` is damaged: restore it {FROM_COPY}", folder.file(name).display()));
    let length = bytes.len().checked_sub(CRC_BYTES).ok_or_else(damaged)?;
    let crc = bytes.split_off(length);
    if crc == crc32c::crc32c(&bytes).to_le_bytes() { Ok(Some(bytes)) } else { Err(damaged()) }
}
