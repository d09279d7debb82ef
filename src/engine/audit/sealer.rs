//! The sealer writes ended units of the tail to sealed files.
//!
//! Invariant: a unit leaves the tail and the journal only once its files are durable and were opened again.
//! Not here: what is in the files (`store::sealed`), and when it works (`maintenance`).

use std::sync::Arc;

use super::error::AuditError;
use super::openings;
use super::orders::Order;
use super::shared::Shared;
use super::tail::TailUnit;
use super::units::{UnitInfo, micros};
use crate::audit::merkle::TILE_LEAVES;
use crate::engine::clock::Clock;
use crate::store::codec::audit::encode_unit_summary;
use crate::store::sealed::Unit;

/// See the module.
pub(super) struct Sealer {
    shared: Arc<Shared>,
    clock: Clock,
}

impl Sealer {
    pub(super) fn new(shared: Arc<Shared>, clock: Clock) -> Self {
        Self { shared, clock }
    }

    /// Seals the oldest unit that has ended; tells whether there was one. Ends one that has been open for too long, or is to
    /// be removed.
    pub(super) fn seal_ended(&self) -> Result<bool, AuditError> {
        let ended = self.shared.tail.units().into_iter().find(|unit| unit.read().ended);
        if let Some(unit) = &ended {
            self.seal(unit)?;
        }
        let options = &self.shared.options;
        let age_max = options.retention_age.map_or(options.unit_age_max, |age| age.min(options.unit_age_max));
        if let Some(unit) = self.shared.tail.oldest() {
            let (corrections, now) = self.shared.corrections.by(&self.clock);
            let too_old = now.micros() - micros(age_max) - corrections.since(unit.first_sequence);
            let content = unit.read();
            if content.tiles.first().is_some_and(|tile| tile.min_time < too_old) && content.len() >= TILE_LEAVES {
                self.shared.queue.order(Order::EndUnit);
            }
        }
        Ok(ended.is_some())
    }

    fn seal(&self, unit: &Arc<TailUnit>) -> Result<(), AuditError> {
        let layout = self.shared.layout.hold();
        let units = &self.shared.units;
        let first_sequence = unit.first_sequence;
        {
            let content = unit.read();
            let bodies = content.bodies();
            let openings: Vec<_> = content.openings.iter().map(openings::to_stored).collect();
            let attachment = encode_unit_summary(&content.summary());
            let sealed = Unit {
                first_sequence,
                bodies: &bodies,
                tiles: &content.tiles,
                postings: &content.index.sorted(),
                openings: &openings,
                attachment: &attachment,
            };
            units.files.write(&sealed).map_err(AuditError::not_writable)?;
        }
        let sealed = units.files.open(first_sequence).map_err(AuditError::not_readable)?;
        let bytes = units.files.bytes(first_sequence).map_err(AuditError::not_readable)?;
        let info = UnitInfo::of(&sealed, bytes);
        units.push_open(sealed, info);
        self.shared.tail.remove(first_sequence);
        self.shared.queue.order(Order::Truncate(info.next_sequence()));
        let signed = self.shared.sign_end(info.next_sequence() - 1);
        // Nothing is logged under a lock.
        drop(layout);
        if let Err(error) = signed {
            tracing::warn!(%error, "cannot write the checkpoint of a sealed unit: it is written with the next one");
        }
        tracing::debug!(first_sequence, records = info.count, bytes = info.bytes, "a unit of the audit log is sealed");
        Ok(())
    }
}
