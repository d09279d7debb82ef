//! The audit writer: one thread that takes records from the queue and has them written.
//!
//! take what waits → sequences, openings, bytes, leaf hashes → one write and one sync → visible.
//!
//! Invariant: records become durable in the order of their sequences. An order is carried out once the records before it
//! are durable. The first record of an erasure parts the log: openings that records before it refer to are erased, and no
//! later record refers to one of them.
//! Not here: making frames (`encoder`), writing them (`pipeline`, `committer`), sealing and other slow work
//! (`maintenance`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::encoder::{Encoder, FRAME_RECORDS_MAX};
use super::orders::{EraseOrder, ErasurePlace, Order, RedactOrder};
use super::pipeline::{GivenUp, Pipeline};
use super::queue::{Batch, Queued};
use super::shared::Shared;
use super::tail::SlotKey;
use crate::audit::record::{Content, Entry, Identity};
use crate::engine::clock::Clock;
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
    pub(super) fn run(&mut self) {
        let gather = self.shared.options.async_interval;
        loop {
            let Batch { mut records, orders, closed } = self.shared.queue.take(gather, FRAME_RECORDS_MAX);
            let is_last = closed && records.is_empty() && orders.is_empty();
            if self.work(&mut records, orders).is_err() {
                tracing::error!(
                    count = self.shared.queue.waiting(),
                    "the audit log cannot be written: the queued records are lost"
                );
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

    /// Writes records, and carries out orders once those before them are durable.
    fn work(&mut self, records: &mut Vec<Queued>, orders: Vec<Order>) -> Result<(), GivenUp> {
        let mut later = Vec::new();
        for order in orders {
            let (order, sequence) = match order {
                Order::Erase(order) => match order.place {
                    ErasurePlace::Queued(sequence) => (order, sequence),
                    ErasurePlace::Durable(_) => {
                        later.push(Order::Erase(order));
                        continue;
                    }
                },
                other => {
                    later.push(other);
                    continue;
                }
            };
            // The record to be filled in is among these, under that sequence.
            let before = usize::try_from(sequence - self.encoder.sequence).unwrap_or(usize::MAX);
            let mut rest = records.split_off(before.min(records.len()));
            self.write_all(records)?;
            self.pipeline.settle()?;
            self.fill_in(order, rest.first_mut());
            *records = rest;
        }
        self.write_all(records)?;
        self.execute_all(later)
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
                Order::Erase(order) => self.pipeline.committer().complete_erasure(order),
                Order::Redact(RedactOrder { part, holders, reply }) => {
                    drop(reply.send(self.pipeline.committer().redact(part, &holders)));
                    self.shared.inbox.wake();
                }
            }
        }
        Ok(())
    }

    /// Gives the record of an erasure its content: all records before it are durable. Neither it nor later ones refer to
    /// the erased openings.
    fn fill_in(&mut self, order: EraseOrder, queued: Option<&mut Queued>) {
        let request = &order.request;
        self.encoder.forget(|(organization, identity): &SlotKey| {
            let scope = organization.as_ref().map_or("", Id::as_str);
            request.concerns(scope, identity.name(), matches!(identity, Identity::Actor(_)))
        });
        if let Some(queued) = queued {
            queued.entry.content = self.pipeline.committer().begin_erasure(order);
        }
    }
}

impl Drop for AuditWriter {
    /// Also after a panic: without a writer nothing can be recorded, and no order is carried out.
    fn drop(&mut self) {
        self.shared.queue.end();
        self.shared.set_failed(true);
        self.pipeline.end();
        self.shared.written.store(true, Ordering::Release);
        self.shared.inbox.wake();
    }
}
