//! A fast scan of the decisions in the log that are about certain addresses.
//!
//! Invariant: each durable decision that passes the filter and is about one of the addresses is reported once. Erased
//! ones are about no address.
//! Not here: what is done with them (`engine::replay`).

use std::time::Duration;

use super::error::AuditError;
use super::log::AuditLog;
use super::openings;
use super::shared::Shared;
use super::view::{Search, UnitView};
use crate::audit::filter::RecordFilter;
use crate::audit::merkle::TILE_LEAVES;
use crate::audit::record::Content;
use crate::audit::terms::{TermQuery, slot_term};
use crate::policy::address::Address;
use crate::policy::ranges::RangeSet;
use crate::policy::rule::ConnectionType;
use crate::store::codec::audit::{Secret, decode_entry};

/// A recorded decision: the fields that are needed to decide it again.
pub(in crate::engine) struct RecordedDecision<'a> {
    pub(in crate::engine) email: &'a str,
    pub(in crate::engine) address: Address,
    pub(in crate::engine) connection_type: ConnectionType,
    pub(in crate::engine) endpoint: &'a str,
}

impl AuditLog {
    /// Reports the decisions that a filter's organization, types and times select and that are about one of the addresses,
    /// newest unit first. Ends after `time_max`; true if it read all, and retention removed none of them
    /// meanwhile.
    pub(in crate::engine) fn for_each_decision(
        &self,
        filter: &RecordFilter,
        addresses: &RangeSet,
        time_max: Duration,
        tell: &mut dyn FnMut(&RecordedDecision<'_>),
    ) -> Result<bool, AuditError> {
        let shared = &self.shared;
        let (first, started) = (shared.first_sequence(), tokio::time::Instant::now());
        for view in shared.views().into_iter().rev() {
            if started.elapsed() > time_max {
                return Ok(false);
            }
            let openings = shared.openings_among(&view, addresses)?;
            if openings.iter().all(Option::is_none) {
                continue;
            }
            let slots = (0..).zip(&openings).filter(|(_, opening)| opening.is_some());
            let query = TermQuery::AnyOf(slots.map(|(slot, _)| slot_term(slot)).collect());
            // If all openings match, the index cannot narrow the search.
            let all = openings.iter().all(Option::is_some);
            let queries = if all { &[][..] } else { std::slice::from_ref(&query) };
            let Some(found) = shared.candidates(&view, filter, queries, Search::Exact)? else { continue };
            let indexes: Vec<u32> = found.iter().map(u32::from).collect();
            for of_tile in indexes.chunk_by(|one, other| tile_of(*one) == tile_of(*other)) {
                if started.elapsed() > time_max {
                    return Ok(false);
                }
                let read = shared.for_each_body(&view, of_tile, &mut |body| {
                    let entry = decode_entry(body).map_err(AuditError::not_readable)?;
                    let opening = entry.slot.and_then(|slot| openings.get(slot as usize)).and_then(Option::as_ref);
                    let (Some((email, address)), Content::Decision(decision)) = (opening, &entry.entry.content) else {
                        return Ok(());
                    };
                    if filter.start_time.is_none_or(|start| entry.entry.time >= start) {
                        let connection_type = decision.connection_type;
                        let endpoint = &decision.endpoint;
                        tell(&RecordedDecision { email, address: *address, connection_type, endpoint });
                    }
                    Ok(())
                });
                if shared.unless_removed(view.first_sequence(), read.map(Some))?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(shared.check_kept(first, filter.start_time).is_ok())
    }
}

fn tile_of(index: u32) -> usize {
    index as usize / TILE_LEAVES
}

impl Shared {
    /// For each opening of a unit the email and the address, if that is one of the addresses.
    fn openings_among(
        &self,
        view: &UnitView,
        addresses: &RangeSet,
    ) -> Result<Vec<Option<(String, Address)>>, AuditError> {
        let among = |email: &str, address: Option<Address>| {
            address.filter(|address| addresses.contains(*address)).map(|address| (email.to_owned(), address))
        };
        let of_secret = |secret: Option<&Secret>| {
            secret.and_then(|Secret { opening, .. }| among(opening.email(), opening.address()))
        };
        match view {
            UnitView::Tail(unit) => {
                Ok(unit.read().openings.iter().map(|opening| of_secret(opening.secret.as_ref())).collect())
            }
            UnitView::Sealed(info) => {
                let Some(stored) =
                    self.unless_removed(info.first_sequence, self.units.openings(info.first_sequence).map(Some))?
                else {
                    return Ok(Vec::new());
                };
                let count = u32::try_from(stored.len()).unwrap_or(u32::MAX);
                (0..count)
                    .map(|slot| {
                        let opening = stored.get(slot).map_err(AuditError::not_readable)?;
                        let opening = opening.map(openings::to_tail);
                        Ok(opening.and_then(|opening| of_secret(opening.secret.as_ref())))
                    })
                    .collect()
            }
        }
    }

    /// The bodies of records of one tile of a unit.
    fn for_each_body(
        &self,
        view: &UnitView,
        indexes: &[u32],
        tell: &mut dyn FnMut(&[u8]) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        match view {
            UnitView::Tail(unit) => {
                // Copied, so that nobody who writes waits until all of them are judged.
                let content = unit.read();
                let bodies = indexes.iter().filter_map(|index| content.body(*index as usize));
                let bodies: Vec<Vec<u8>> = bodies.map(<[u8]>::to_vec).collect();
                drop(content);
                bodies.iter().try_for_each(|body| tell(body))
            }
            UnitView::Sealed(info) => {
                let unit = self.units.open(info.first_sequence)?;
                let Some(number) = indexes.first().map(|index| tile_of(*index)) else { return Ok(()) };
                let tile = unit.tile(number).map_err(AuditError::not_readable)?;
                let bodies = indexes.iter().filter_map(|index| tile.body(*index as usize % TILE_LEAVES));
                bodies.into_iter().try_for_each(tell)
            }
        }
    }
}
