//! Checks as a portal makes them: as many as can be answered, then at a rate of their own whatever the answers take.
//!
//! Invariant: every Check that was answered is counted, and every error. In the open loop a Check's time begins when it
//! was due, so that a service that stalls is not spared the requests that would have come meanwhile.
//! Not here: changes of the policy (`changes`), followers of the log (`watch`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{self, CheckRequest};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::transport::Channel;

use crate::portal::nth_check;

const IN_FLIGHT: usize = 32;

/// Checks that are under way at most: below what the service takes at a time, so that a stall is measured and not
/// refused.
const OUTSTANDING_MAX: usize = 2_000;

/// How often Checks that are due are sent.
const TICK: Duration = Duration::from_millis(2);

/// One in so many shells is closed by the portal, after this long; the others run into the maximum age.
const CLOSED: u64 = 4;
const OPEN_FOR: Duration = Duration::from_secs(1);

/// Times in buckets of a sixteenth of their power of two, in microseconds.
const BUCKETS: usize = 16 * 32;

/// Kinds of errors that are told; all are counted.
const TOLD_MAX: usize = 20;

/// What went wrong, from wherever.
#[derive(Default)]
pub(crate) struct Faults {
    count: AtomicU64,
    told: Mutex<BTreeMap<String, u64>>,
}

impl Faults {
    pub(crate) fn add(&self, what: &str, fault: impl std::fmt::Display) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let (mut told, fault) = (self.told.lock().unwrap(), format!("{what}: {fault}"));
        if told.len() < TOLD_MAX || told.contains_key(&fault) {
            *told.entry(fault).or_default() += 1;
        }
    }

    /// What there is, where nothing went wrong.
    pub(crate) fn check<T>(&self, what: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|fault| self.add(what, fault)).ok()
    }

    pub(crate) fn all(&self, what: &str, faults: Vec<String>) {
        for fault in faults {
            self.add(what, fault);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Faults, each with how often there was such a one.
    pub(crate) fn told(&self) -> BTreeMap<String, u64> {
        self.told.lock().unwrap().clone()
    }
}

/// What the clients counted.
pub(crate) struct Counts {
    pub(crate) faults: Faults,
    pub(crate) allowed: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) closed: AtomicU64,
    times: Vec<AtomicU64>,
    slowest: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        let times = (0..BUCKETS).map(|_| AtomicU64::default()).collect();
        let (allowed, denied, closed, slowest) = Default::default();
        Self { faults: Faults::default(), allowed, denied, closed, times, slowest }
    }
}

impl Counts {
    /// Checks that were answered.
    pub(crate) fn decisions(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed) + self.denied.load(Ordering::Relaxed)
    }

    pub(crate) fn equal(&self, what: &str, logged: u64, counted: u64) {
        if logged != counted {
            self.faults.add(what, format_args!("{logged} by the service, {counted} by the clients"));
        }
    }

    /// Counts an answer; the session that it opened.
    pub(crate) fn answered(&self, answer: Result<v1::CheckResponse, Status>) -> Option<String> {
        match answer {
            Ok(answer) if answer.decision == v1::Decision::Allow as i32 && !answer.session.is_empty() => {
                self.allowed.fetch_add(1, Ordering::Relaxed);
                Some(answer.session)
            }
            Ok(answer) if answer.decision == v1::Decision::Deny as i32 && answer.session.is_empty() => {
                self.denied.fetch_add(1, Ordering::Relaxed);
                None
            }
            Ok(answer) => {
                self.faults.add("Check", format_args!("an answer that makes no sense: {answer:?}"));
                None
            }
            Err(status) => {
                self.faults.add("Check", status);
                None
            }
        }
    }

    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(16);
        let power = micros.ilog2();
        let bucket = (power as usize - 4) * 16 + usize::try_from((micros >> (power - 4)) & 15).unwrap();
        self.times.get(bucket.min(BUCKETS - 1)).unwrap().fetch_add(1, Ordering::Relaxed);
        self.slowest.fetch_max(micros, Ordering::Relaxed);
    }

    /// Microseconds at p50, p99 and p99.9, rounded down to their bucket, and at most.
    pub(crate) fn latency(&self) -> [u64; 4] {
        let counts: Vec<u64> = self.times.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let at = |per_mille: u64| {
            let mut left = total * per_mille / 1_000;
            let bucket = counts.iter().position(|count| {
                let found = left < *count;
                left = left.saturating_sub(*count);
                found
            });
            let bucket = bucket.unwrap_or_default() as u64;
            (16 + bucket % 16) << (bucket / 16)
        };
        [at(500), at(990), at(999), self.slowest.load(Ordering::Relaxed)]
    }
}

/// The Checks that are asked, again and again.
pub(crate) fn requests() -> Arc<Vec<CheckRequest>> {
    Arc::new((0..65_536).map(nth_check).collect())
}

fn nth(requests: &[CheckRequest], number: u64) -> CheckRequest {
    requests.get(usize::try_from(number).unwrap() % requests.len()).unwrap().clone()
}

/// Checks a second when every connection always has as many in flight.
pub(crate) async fn peak(
    channels: &[Channel],
    requests: &Arc<Vec<CheckRequest>>,
    counts: &Arc<Counts>,
    time: Duration,
) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let (begun, before) = (Instant::now(), counts.decisions());
    let workers = channels.iter().flat_map(|channel| (0..IN_FLIGHT).map(move |_| channel)).zip(0_u64..);
    let workers = workers.map(|(channel, worker)| {
        let (mut client, stop) = (DecisionServiceClient::new(channel.clone()), Arc::clone(&stop));
        let (requests, counts) = (Arc::clone(requests), Arc::clone(counts));
        tokio::spawn(async move {
            let mut number = worker * 7_919;
            while !stop.load(Ordering::Relaxed) {
                let answer = client.check(nth(&requests, number)).await;
                drop(counts.answered(answer.map(tonic::Response::into_inner)));
                number += 1;
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let elapsed = begun.elapsed();
    let answered = counts.decisions() - before;
    for worker in workers {
        worker.await.unwrap();
    }
    answered * 1_000 / u64::try_from(elapsed.as_millis()).unwrap()
}

/// Sends `rate` Checks a second for `time`, and waits for their answers.
pub(crate) async fn steady(
    channels: Vec<Channel>,
    requests: Arc<Vec<CheckRequest>>,
    counts: Arc<Counts>,
    rate: u64,
    time: Duration,
) {
    let clients: Vec<_> = channels.into_iter().map(DecisionServiceClient::new).collect();
    let sessions: Arc<Mutex<VecDeque<(Instant, String)>>> = Arc::default();
    let outstanding = Arc::new(Semaphore::new(OUTSTANDING_MAX));
    let (begun, mut sent) = (Instant::now(), 0_u64);
    let mut ticks = tokio::time::interval(TICK);
    while begun.elapsed() < time {
        ticks.tick().await;
        let due = begun.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        while u128::from(sent) < due {
            let permit = Arc::clone(&outstanding).acquire_owned().await.unwrap();
            let request = nth(&requests, sent);
            let is_shell = request.connection_type == v1::ConnectionType::Shell as i32;
            let is_closed = is_shell && (sent / 4).is_multiple_of(CLOSED);
            let mut client = clients.get(usize::try_from(sent).unwrap() % clients.len()).unwrap().clone();
            let due = begun + Duration::from_micros(sent * 1_000_000 / rate);
            let (counts, sessions) = (Arc::clone(&counts), Arc::clone(&sessions));
            tokio::spawn(async move {
                let answer = client.check(request).await;
                counts.took(due.elapsed());
                let session = counts.answered(answer.map(tonic::Response::into_inner));
                if let Some(session) = session.filter(|_| is_closed) {
                    sessions.lock().unwrap().push_back((Instant::now() + OPEN_FOR, session));
                }
                drop(permit);
            });
            sent += 1;
        }
        close_sessions(&sessions, clients.first().unwrap(), &counts, &outstanding).await;
    }
    // All answers are there when all places are free again.
    drop(outstanding.acquire_many(u32::try_from(OUTSTANDING_MAX).unwrap()).await);
}

/// Ends the sessions whose time has come.
async fn close_sessions(
    sessions: &Mutex<VecDeque<(Instant, String)>>,
    client: &DecisionServiceClient<Channel>,
    counts: &Arc<Counts>,
    outstanding: &Arc<Semaphore>,
) {
    let due = || sessions.lock().unwrap().pop_front_if(|(due, _)| *due <= Instant::now());
    while let Some((_, name)) = due() {
        let permit = Arc::clone(outstanding).acquire_owned().await.unwrap();
        let (mut client, counts) = (client.clone(), Arc::clone(counts));
        tokio::spawn(async move {
            match client.end_session(v1::EndSessionRequest { name }).await {
                Ok(_) => drop(counts.closed.fetch_add(1, Ordering::Relaxed)),
                Err(status) => counts.faults.add("EndSession", status),
            }
            drop(permit);
        });
    }
}
