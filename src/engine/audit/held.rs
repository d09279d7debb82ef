//! Where the openings of an erasure are held: in sealed units and in records of the journal.
//!
//! Invariant: an opening is looked for in one unit at a time, so that other maintenance can come in between.
//! Not here: the steps of an erasure (`eraser`), the tail (`committer`).

use std::collections::HashSet;

use super::error::AuditError;
use super::openings;
use super::orders::EraseRequest;
use super::shared::Shared;
use super::units::UnitInfo;
use crate::audit::commitment::Commitment;
use crate::audit::record::ErasedUnit;
use crate::audit::terms::slot_term;
use crate::policy::name::Id;
use crate::store::sealed::{IndexSet, StoredOpening};

/// The openings of a sealed unit that an erasure concerns; with `before`, those that a record before it refers to.
pub(super) fn openings_of(
    shared: &Shared,
    request: &EraseRequest,
    unit: &UnitInfo,
    before: Option<u64>,
) -> Result<Vec<u32>, AuditError> {
    let first_sequence = unit.first_sequence;
    if before.is_some_and(|before| before <= first_sequence) {
        return Ok(Vec::new());
    }
    let scope = request.organization.as_ref().map(Id::as_str);
    let openings = shared.units.openings(first_sequence)?;
    let mut slots = Vec::new();
    for slot in openings.slots_of_email(scope, &request.email).map_err(AuditError::not_readable)? {
        let opening = openings.get(slot).map_err(AuditError::not_readable)?;
        let Some(StoredOpening::Present { email, address, scope, .. }) = opening else { continue };
        if !request.concerns(&scope, &email, address.is_empty()) {
            continue;
        }
        if let Some(before) = before.filter(|before| *before < unit.next_sequence()) {
            let mut records = IndexSet::default();
            let open = shared.units.open(first_sequence)?;
            open.postings(&slot_term(slot), &mut records).map_err(AuditError::not_readable)?;
            if records.iter().next().is_some_and(|index| first_sequence + u64::from(index) >= before) {
                continue;
            }
        }
        slots.push(slot);
    }
    Ok(slots)
}

/// The records of the tail that hold openings in the journal: the first to refer to each.
pub(super) fn holders_of(shared: &Shared, listed: &[ErasedUnit]) -> HashSet<u64> {
    let units = shared.tail.units();
    let mut holders = HashSet::new();
    for ErasedUnit { first_sequence, slots } in listed {
        if let Some(unit) = units.iter().find(|unit| unit.first_sequence == *first_sequence) {
            let content = unit.read();
            let first = |slot: &u32| content.index.first_of_slot(*slot);
            holders.extend(slots.iter().filter_map(first).map(|index| first_sequence + u64::from(index)));
        }
    }
    holders
}

/// Erases openings in a sealed unit. Those that are erased already stay so.
pub(super) fn erase_sealed(shared: &Shared, first_sequence: u64, slots: &[u32]) -> Result<(), AuditError> {
    let units = &shared.units;
    let stored = units.openings(first_sequence)?;
    let mut erased: Vec<(u32, [u8; Commitment::BYTES])> = Vec::new();
    for slot in slots {
        let opening = stored.get(*slot).map_err(AuditError::not_readable)?;
        if let Some(present @ StoredOpening::Present { .. }) = opening {
            erased.push((*slot, *openings::to_tail(present).commitment.as_bytes()));
        }
    }
    if erased.is_empty() {
        return Ok(());
    }
    units.files.erase_openings(first_sequence, &erased).map_err(AuditError::not_writable)?;
    units.forget_openings(first_sequence);
    let bytes = units.files.bytes(first_sequence).map_err(AuditError::not_readable)?;
    units.set_bytes(first_sequence, bytes);
    Ok(())
}
