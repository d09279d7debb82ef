//! The audit writer: one thread that takes records from the queue and has them written.
//!
//! take what waits → sequences, openings, bytes, leaf hashes → one write and one sync → visible.
//!
//! Invariant: records become durable in the order of their sequences. An order is carried out once the records before it
//! are durable.
//! Not here: making frames (`encoder`), writing them (`pipeline`, `committer`), sealing and other slow work
//! (`maintenance`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::encoder::{Encoder, FRAME_RECORDS_MAX};
use super::orders::{EraseOrder, Order};
use super::pipeline::{GivenUp, Pipeline};
use super::queue::{Batch, Queued};
use super::shared::Shared;
use super::tail::SlotKey;
use crate::audit::record::{Content, Entry, Identity};
use crate::engine::clock::Clock;
use crate::lifeline::note_end;
use crate::policy::name::Id;

/// What the writer thread owns.
pub(super) struct AuditWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) encoder: Encoder,
    pub(super) pipeline: Pipeline,
}

impl AuditWriter {
    /// Writes until the queue is closed and empty. An order may queue a record, so the last batch has neither.
    pub(super) fn run(mut self) {
        let gather = self.shared.options.async_interval;
        loop {
            let Batch { mut records, orders, closed } = self.shared.queue.take(gather, FRAME_RECORDS_MAX);
            let is_last = closed && records.is_empty() && orders.is_empty();
            if self.write_all(&mut records).and_then(|()| self.execute_all(orders)).is_err() {
                tracing::error!("the audit log cannot be written: the queued records are lost");
                return;
            }
            self.shared.queue.take_back(records);
            if let Some(gap) = self.shared.queue.take_gap() {
                let time = self.clock.now();
                tracing::warn!(count = gap.count, "decisions were made without a record");
                self.shared.queue.push(Entry { time, organization: None, content: Content::Gap(gap) }, None, false);
            } else if is_last {
                if self.pipeline.settle().is_err() {
                    tracing::error!("the audit log cannot be written: the last records are lost");
                }
                return;
            }
        }
    }

    fn write_all(&mut self, records: &mut Vec<Queued>) -> Result<(), GivenUp> {
        let Self { encoder, pipeline, shared, .. } = self;
        encoder.limits = shared.unit_limits();
        let mut records = records.drain(..);
        while let Some(frame) = encoder.frame(&mut records) {
            pipeline.commit(frame, records.as_slice().is_empty(), |written| encoder.take_back(written))?;
        }
        Ok(())
    }

    fn execute_all(&mut self, orders: Vec<Order>) -> Result<(), GivenUp> {
        if !orders.is_empty() {
            self.pipeline.settle()?;
        }
        for order in orders {
            match order {
                Order::EndUnit => {
                    if self.encoder.end_unit() {
                        self.pipeline.committer().end_unit();
                    }
                }
                Order::Truncate(sequence) => self.pipeline.committer().truncate_before(sequence),
                Order::Erase(order) => self.erase(order),
                Order::Redact { units, reply } => drop(reply.send(self.pipeline.committer().redact(&units))),
            }
        }
        Ok(())
    }

    /// Records an erasure. Later records no longer refer to the erased openings.
    fn erase(&mut self, order: EraseOrder) {
        let request = &order.request;
        self.encoder.forget(|(organization, identity): &SlotKey| {
            let scope = organization.as_ref().map_or("", Id::as_str);
            request.concerns(scope, identity.name(), matches!(identity, Identity::Actor(_)))
        });
        self.pipeline.committer().erase(order);
    }
}

impl Drop for AuditWriter {
    /// Also after a panic: without a writer nothing can be recorded, and no order is carried out.
    fn drop(&mut self) {
        // At once: below this waits for the pipeline.
        note_end("the thread `audit-writer`", &*self.shared.condition);
        self.shared.queue.end();
        self.shared.set_failed(true);
        self.pipeline.end();
        self.shared.written.store(true, Ordering::Release);
        self.shared.inbox.wake();
    }
}
