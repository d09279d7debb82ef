//! Those who follow the log all the while: one that reads everything, one that is slow, one that comes and goes.
//!
//! Of each record only its head is decoded: what is measured shares its processors with them.
//!
//! Invariant: the one that reads everything sees every sequence once and in order; the others see exactly those of its
//! records that are of their types, which number and sum of the sequences tell.
//! Not here: how the log is verified (`server`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use portcullis::proto::v1::{AuditType, WatchEventsRequest};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::server::connect;

const WATCH: &str = "/portcullis.v1.AuditService/WatchEvents";

/// The kinds of records, by their number in the protocol.
const KINDS: usize = 8;

/// Records of a sealed unit: where units begin, what was seen so far is noted.
const TILE: u64 = 256;

/// How long the slow one reads, and then does not.
const READS_FOR: Duration = Duration::from_secs(4);
const RESTS_FOR: Duration = Duration::from_secs(2);

/// How long the one that comes and goes stays.
const STAYS_FOR: Duration = Duration::from_secs(2);

/// The service says something every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A message of the stream, without what is not looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(message, optional, tag = "1")]
    record: Option<Head>,
    #[prost(int64, tag = "2")]
    through_sequence: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(int64, tag = "1")]
    sequence: i64,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(message, optional, tag = "14")]
    pruned: Option<Pruned>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pruned {
    #[prost(int64, tag = "1")]
    to_sequence: i64,
}

/// Where the service is, and how far there is something to read.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: String,
    /// The service is about to end, so the stream will.
    pub(crate) ending: bool,
    /// The last sequence that counts, once it is known.
    pub(crate) end: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Steady,
    Slow,
    ComesAndGoes,
}

/// What a subscriber has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) through: u64,
    last: u64,
    counts: [u64; KINDS],
    /// Sums of sequences.
    sums: [u128; KINDS],
    /// Decisions up to the end of each unit.
    decisions_by_tile: Vec<u64>,
    /// The last record that retention removed.
    pub(crate) removed: u64,
    pub(crate) streams: u64,
}

impl Seen {
    pub(crate) fn count(&self, kind: AuditType) -> u64 {
        self.counts.get(kind as usize).copied().unwrap()
    }

    /// Number and sum of the sequences of the records of these types; none means all.
    pub(crate) fn of(&self, kinds: &[AuditType]) -> (u64, u128) {
        if kinds.is_empty() {
            return (self.counts.iter().sum(), self.sums.iter().sum());
        }
        let numbers = kinds.iter().map(|kind| *kind as usize);
        numbers
            .fold((0, 0), |(count, sum), at| (count + self.counts.get(at).unwrap(), sum + self.sums.get(at).unwrap()))
    }

    /// Decisions among the records up to the one where a unit ends.
    pub(crate) fn decisions_through(&self, sequence: u64) -> Option<u64> {
        match sequence {
            0 => Some(0),
            _ if !sequence.is_multiple_of(TILE) => None,
            _ => self.decisions_by_tile.get(usize::try_from(sequence / TILE - 1).unwrap()).copied(),
        }
    }

    fn add(&mut self, head: &Head, is_dense: bool) -> Result<(), String> {
        let sequence = u64::try_from(head.sequence).unwrap();
        if sequence <= self.last || is_dense && sequence != self.last + 1 {
            return Err(format!("sequence {sequence} after {}", self.last));
        }
        self.last = sequence;
        let at = usize::try_from(head.kind).unwrap();
        *self.counts.get_mut(at).unwrap() += 1;
        *self.sums.get_mut(at).unwrap() += u128::from(sequence);
        if let Some(pruned) = &head.pruned {
            self.removed = u64::try_from(pruned.to_sequence).unwrap();
        }
        if is_dense && sequence.is_multiple_of(TILE) {
            self.decisions_by_tile.push(self.count(AuditType::Decision));
        }
        Ok(())
    }
}

/// Follows the log until the end that is told, over restarts of the service; tells `progress` how far it is.
pub(crate) async fn follow(
    manner: Manner,
    kinds: Vec<AuditType>,
    mut place: watch::Receiver<Place>,
    progress: Arc<AtomicU64>,
) -> Result<Seen, String> {
    let mut seen = Seen::default();
    loop {
        let at = place.borrow_and_update().clone();
        let ended = read(manner, &kinds, &at, &mut place, &mut seen, &progress).await;
        let is_done = at.end.is_some_and(|end| seen.through >= end);
        match ended {
            _ if is_done => return Ok(seen),
            Err(Broken::Order(fault)) => return Err(fault),
            Ok(()) => {}
            // The service ended; it is looked for again where it is said to be.
            Err(Broken::Stream(status)) if place.borrow().ending || place.borrow().address != at.address => {
                if !matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) {
                    return Err(status.to_string());
                }
                drop(place.wait_for(|place| !place.ending).await);
            }
            Err(Broken::Stream(status)) => return Err(status.to_string()),
        }
    }
}

enum Broken {
    Stream(Status),
    Order(String),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

/// Reads one stream, as long as that kind of subscriber does.
async fn read(
    manner: Manner,
    kinds: &[AuditType],
    at: &Place,
    place: &mut watch::Receiver<Place>,
    seen: &mut Seen,
    progress: &AtomicU64,
) -> Result<(), Broken> {
    let channel = connect(&at.address).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut stream = open(channel, kinds, seen.through).await?;
    seen.streams += 1;
    let mut begun = Instant::now();
    while at.end.is_none_or(|end| seen.through < end) {
        if manner == Manner::ComesAndGoes && begun.elapsed() > STAYS_FOR {
            break;
        }
        let event = tokio::time::timeout(SILENCE_MAX, stream.message()).await;
        let event = event.map_err(|_| Status::deadline_exceeded("nothing came, not even a checkpoint"))?;
        let event = event?.ok_or_else(|| Status::internal("the stream ended as if it were complete"))?;
        let through = u64::try_from(event.through_sequence).unwrap();
        if through < seen.through {
            return Err(Broken::Order(format!("through {through} after {}", seen.through)));
        }
        let counts = at.end.is_none_or(|end| through <= end);
        if let Some(head) = event.record.as_ref().filter(|_| counts) {
            seen.add(head, kinds.is_empty()).map_err(Broken::Order)?;
        }
        seen.through = through;
        progress.store(through, Ordering::Relaxed);
        if manner == Manner::Slow && at.end.is_none() && begun.elapsed() > READS_FOR {
            // Not beyond the end of the service.
            drop(tokio::time::timeout(RESTS_FOR, place.wait_for(|place| place.ending)).await);
            begun = Instant::now();
        }
    }
    Ok(())
}

async fn open(channel: Channel, kinds: &[AuditType], after: u64) -> Result<Streaming<Event>, Status> {
    let types = kinds.iter().map(|kind| *kind as i32).collect();
    let after_sequence = Some(i64::try_from(after).unwrap());
    let request =
        WatchEventsRequest { parent: "cluster".to_owned(), after_sequence, types, ..WatchEventsRequest::default() };
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<WatchEventsRequest, Event>::default();
    let stream = client.server_streaming(Request::new(request), PathAndQuery::from_static(WATCH), codec).await?;
    Ok(stream.into_inner())
}

/// Reads what is kept of the log from `after` to `end`, each sequence once.
pub(crate) async fn read_all(address: &str, after: u64, end: u64) -> Result<Seen, String> {
    let place = Place { address: address.to_owned(), ending: false, end: Some(end) };
    let (_sender, mut receiver) = watch::channel(place.clone());
    let mut seen = Seen { through: after, last: after, ..Seen::default() };
    match read(Manner::Steady, &[], &place, &mut receiver, &mut seen, &AtomicU64::default()).await {
        Ok(()) if seen.last == end => Ok(seen),
        Ok(()) => Err(format!("the log ends at {} and not at {end}", seen.last)),
        Err(Broken::Stream(status)) => Err(status.to_string()),
        Err(Broken::Order(fault)) => Err(fault),
    }
}
