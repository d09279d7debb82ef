//! Following the log: every record once, in order, from any sequence on.
//!
//! The log only wakes subscribers; each reads the log for itself. So a slow one is fed from the disk and costs no memory.
//!
//! Invariant: `through_sequence` never falls, and every record up to it that passes the filters has been sent. A
//! subscriber that reads gets a message every few seconds, whatever others do. The stream always ends with an
//! error, because it is never complete.
//! Not here: reading the log (`engine::audit`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tonic::{Response, Status};

use super::super::convert::Faults;
use super::super::convert::audit::to_record;
use super::super::subscribers::Endless;
use super::super::{Api, status, to_i64};
use super::filters::{self, Parent};
use crate::audit::filter::RecordFilter;
use crate::audit::lineage::Lineage;
use crate::audit::record::Record;
use crate::engine::audit::{AuditError, AuditLog, Newest};
use crate::policy::plan::Etags;
use crate::policy::rule::ConnectionType;
use crate::proto::v1::{self, WatchEventsResponse};

/// The most events buffered for the subscriber.
const EVENTS_MAX: usize = 64;

/// Records that are read at a time.
const RECORDS_MAX: usize = 256;

/// Filtered-out records after which a checkpoint is sent.
const SKIPPED_MAX: u64 = 10_000;

/// How long new records gather, so that a hundred subscribers are not woken for each.
const GATHER: Duration = Duration::from_millis(2);

pub(super) type Events = Endless<WatchEventsResponse>;

/// What a subscriber wants to see.
struct Subscription {
    filter: RecordFilter,
    connection_types: Vec<ConnectionType>,
}

/// The state of a subscriber.
struct Feed {
    audit: Arc<AuditLog>,
    subscription: Subscription,
    lineage: Lineage,
    etags: Etags,
    sender: mpsc::Sender<Result<WatchEventsResponse, Status>>,
    /// Every record up to it was sent or filtered out.
    through: u64,
    /// The last sequence that the subscriber was told.
    told: u64,
    /// The longest time without a message.
    interval: Duration,
    /// When it gets a checkpoint, unless it gets another message before.
    due: Instant,
    /// Released when the stream ends.
    _permit: OwnedSemaphorePermit,
}

impl Api {
    pub(super) fn watch_events(&self, request: v1::WatchEventsRequest) -> Result<Response<Events>, Status> {
        let v1::WatchEventsRequest { parent, after_sequence, types, connection_types, lineage } = request;
        let mut faults = Faults::default();
        let given = (!lineage.is_empty()).then(|| faults.parse("lineage", &lineage)).flatten();
        let lineage = self.engine()?.lineage();
        if let Some(given) = given.filter(|given| *given != lineage) {
            return Err(status::sequence_of_other_lineage(given, lineage));
        }
        let parent = filters::parent(&mut faults, &parent);
        let types = filters::read_types(&mut faults, &types);
        let connection_types = connection_types.iter().enumerate().filter_map(|(index, connection_type)| {
            faults.connection_type(&format!("connection_types[{index}]"), *connection_type)
        });
        let connection_types = connection_types.collect();
        let after = after_sequence.map(|after| faults.unsigned("after_sequence", after));
        let parent = faults.result(parent)?;
        self.check_parent(&parent)?;
        let permit = self.shared.subscribers.subscribe()?;
        let (audit, etags) = (self.engine()?.audit(), self.etags()?);
        let newest = audit.newest();
        let durable = audit.newest_sequence();
        let through = after.unwrap_or(durable);
        check_start(&audit, through, durable)?;
        let filter = RecordFilter { organization: organization_of(parent), types, ..RecordFilter::default() };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let subscription = Subscription { filter, connection_types };
        // `u64::MAX` stands for none, so that even an idle stream first says where it begins.
        let interval = audit.options().heartbeat_interval;
        let (told, due) = (u64::MAX, Instant::now() + interval);
        let feed = Feed { audit, subscription, lineage, etags, sender, through, told, interval, due, _permit: permit };
        tokio::spawn(feed.run(newest, self.shared.subscribers.draining()));
        Ok(Response::new(Endless::new(events)))
    }
}

fn organization_of(parent: Parent) -> Option<crate::policy::name::Id> {
    match parent {
        Parent::Cluster => None,
        Parent::Organization(id) => Some(id),
    }
}

/// Checks that the records after a sequence are kept.
fn check_start(audit: &AuditLog, through: u64, newest: u64) -> Result<(), Status> {
    let first = audit.first_sequence();
    if through > newest {
        return Err(status::audit(AuditError::NotReached { wanted: through, newest }));
    }
    if through + 1 < first {
        return Err(status::audit(AuditError::Removed { first }));
    }
    Ok(())
}

impl Subscription {
    fn passes(&self, record: &Record) -> bool {
        let types = &self.connection_types;
        let of_type = |connection_type: &ConnectionType| {
            let filter = RecordFilter { connection_type: Some(*connection_type), ..RecordFilter::default() };
            filter.matches(record)
        };
        self.filter.matches(record) && (types.is_empty() || types.iter().any(of_type))
    }
}

impl Feed {
    /// Feeds the subscriber until it goes away, or the service ends.
    async fn run(mut self, mut newest: Newest, mut draining: watch::Receiver<bool>) {
        let sender = self.sender.clone();
        let ended = async { drop(draining.wait_for(|draining| *draining).await) };
        let end = tokio::select! {
            end = self.feed(&mut newest) => end,
            () = ended => Some(status::audit(AuditError::ShuttingDown)),
            () = sender.closed() => None,
        };
        if let Some(status) = end {
            // Waits for a slow subscriber, too, which must not take the end for a pause. Draining bounds the wait.
            drop(sender.send(Err(status)).await);
        }
    }

    /// Sends the records there are, then new ones. Returns why it cannot go on.
    async fn feed(&mut self, newest: &mut Newest) -> Option<Status> {
        loop {
            // Marked as seen before reading, so that records that come in between wake it again.
            let durable = newest.look();
            while self.through < durable {
                if let Err(end) = self.send_some().await {
                    return end;
                }
            }
            if self.told == u64::MAX {
                self.checkpoint().await.ok()?;
            }
            self.checkpoint_if_due().await.ok()?;
            match tokio::time::timeout_at(self.due, newest.changed()).await {
                Err(_) => {}
                Ok(Ok(())) => tokio::time::sleep(GATHER).await,
                Ok(Err(_)) => return Some(status::audit(AuditError::ShuttingDown)),
            }
        }
    }

    /// Reads some records and sends those that pass.
    async fn send_some(&mut self) -> Result<(), Option<Status>> {
        let (audit, from) = (Arc::clone(&self.audit), self.through + 1);
        let mut reading = tokio::task::spawn_blocking(move || audit.read(from, RECORDS_MAX));
        let read = loop {
            match tokio::time::timeout_at(self.due, &mut reading).await {
                Ok(read) => break read,
                // A slow disk is no reason to be silent.
                Err(_) => self.checkpoint().await.map_err(|()| None)?,
            }
        };
        let records = match read {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => return Err(Some(status::audit(error))),
            Err(error) => return Err(Some(status::internal(&error))),
        };
        for record in &records {
            self.through = record.sequence;
            if self.subscription.passes(record) {
                let through_sequence = to_i64(self.through);
                let event = WatchEventsResponse {
                    record: Some(to_record(self.etags, record)),
                    through_sequence,
                    lineage: self.lineage.to_string(),
                };
                self.send(event).await.map_err(|()| None)?;
            }
        }
        self.checkpoint_if_due().await.map_err(|()| None)?;
        if self.told != u64::MAX && self.through - self.told >= SKIPPED_MAX {
            self.checkpoint().await.map_err(|()| None)?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<(), ()> {
        let event = WatchEventsResponse {
            record: None,
            through_sequence: to_i64(self.through),
            lineage: self.lineage.to_string(),
        };
        self.send(event).await
    }

    /// Also while other records come, none of which is for this subscriber.
    async fn checkpoint_if_due(&mut self) -> Result<(), ()> {
        if Instant::now() >= self.due { self.checkpoint().await } else { Ok(()) }
    }

    async fn send(&mut self, event: WatchEventsResponse) -> Result<(), ()> {
        self.sender.send(Ok(event)).await.map_err(drop)?;
        self.told = self.through;
        self.due = Instant::now() + self.interval;
        Ok(())
    }
}
