//! An hour of a portal's load: does it stay as it was in the first minutes?
//!
//! `cargo bench --bench soak -- hour` runs an hour, `-- 300` so many seconds; a plain `cargo bench` runs 20 seconds. With
//! `rate=6000` behind it so many Checks are offered each second, for a machine that does other work meanwhile. The
//! service is the built `portcullis` with its defaults, shells recorded before their answer, previews soon after; only
//! sessions end after seconds, for this load opens thousands of them each second. First as many Checks as can be answered
//! are measured, then half of that rate is offered, whatever the answers take. Meanwhile the policy changes every second,
//! three subscribers follow the log, and lists are asked for. At the end the service is told to end, its log is verified,
//! and it is started again.
//!
//! The log is kept by size (`--audit-retention-bytes`): an hour of it would take some gigabytes, and removing belongs to
//! what is soaked. What was removed the subscriber that reads everything has seen.
//!
//! Invariant: any error of any call, any warning of the service, a record that is seen twice or never, a decision that
//! the clients counted and the log did not, and memory or a log of the service beyond its bound fail it.
//! Not here: how fast it can be (`serving`).
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench that goes wrong ends, takes times, and reports to its terminal"
)]

mod changes;
mod load;
mod memory;
#[path = "../portal/mod.rs"]
mod portal;
mod server;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::proto::v1::AuditType;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use tokio::task::JoinHandle;

use changes::Administration;
use load::Counts;
use memory::Sample;
use server::Server;
use watch::{Manner, Place, Seen};

const SHORT: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_hours(1);
const PEAK: Duration = Duration::from_secs(4);
const CONNECTIONS: usize = 8;

/// Bytes of sealed records that are kept: for each second so many, that also a short run comes to remove some.
const KEPT_A_SECOND: u64 = 512 << 10;
const KEPT_MIN: u64 = 8 << 20;
const KEPT_MAX: u64 = 256 << 20;

/// Memory is looked at so often, and told of so many times.
const SAMPLES: u32 = 200;
const LINES_EVERY: usize = 20;

/// The log may grow by so many bytes a second, whatever the rate of Checks: one line for each change, and few besides.
const LOGGED_A_SECOND_MAX: u64 = 4 << 10;

/// What of the offered rate has to be answered.
const ANSWERED_PERCENT: u64 = 98;

/// How long subscribers may take to come to the end.
const CATCH_UP: Duration = Duration::from_mins(5);

/// How long to run, and Checks a second where they are not measured; none where another bench was meant.
fn asked() -> Option<(Duration, Option<u64>)> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut arguments = arguments.iter().map(String::as_str);
    let time = match arguments.next() {
        None => SHORT,
        Some("hour") => HOUR,
        Some(seconds) => seconds.parse().ok().filter(|seconds| *seconds >= 10).map(Duration::from_secs)?,
    };
    match arguments.next() {
        None => Some((time, None)),
        Some(rate) => Some((time, Some(rate.strip_prefix("rate=")?.parse().ok()?))),
    }
}

/// Those who follow the log, by name, with what they want.
struct Subscriber {
    name: &'static str,
    kinds: Vec<AuditType>,
    task: JoinHandle<Result<Seen, String>>,
}

fn subscribe(place: &tokio::sync::watch::Receiver<Place>, progress: &Arc<AtomicU64>) -> Vec<Subscriber> {
    let kinds = [
        ("all", Manner::Steady, vec![]),
        ("slow", Manner::Slow, vec![AuditType::SessionEnded]),
        (
            "reconnecting",
            Manner::ComesAndGoes,
            vec![AuditType::PolicyChanged, AuditType::SessionRevoked, AuditType::Pruned],
        ),
    ];
    let subscribers = kinds.into_iter().map(|(name, manner, kinds)| {
        let progress = if manner == Manner::Steady { Arc::clone(progress) } else { Arc::default() };
        let task = tokio::spawn(watch::follow(manner, kinds.clone(), place.clone(), progress));
        Subscriber { name, kinds, task }
    });
    subscribers.collect()
}

/// Looks at memory until it is dropped.
async fn sample(server: &Server, counts: &Counts, records: &AtomicU64, samples: &mut Vec<Sample>, time: Duration) {
    let channel = server.connect().await;
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(time / SAMPLES);
    loop {
        ticks.tick().await;
        let sessions = changes::active_sessions(&channel, counts).await;
        let resident = server.memory().resident;
        let sample = Sample { at: begun.elapsed(), resident, sessions, records: records.load(Ordering::Relaxed) };
        samples.push(sample);
        if samples.len().is_multiple_of(LINES_EVERY) {
            println!(
                "{:>5} s: {:>6.1} MiB resident, {:>6} sessions, {:>10} records, {} errors",
                sample.at.as_secs(),
                resident as f64 / memory::MIB,
                sessions,
                sample.records,
                counts.faults.count()
            );
        }
    }
}

/// What was done in how long.
struct Offered {
    rate: u64,
    samples: Vec<Sample>,
    done: Arc<Administration>,
}

/// The soak itself: what is offered, and all that goes on meanwhile.
async fn offer(
    server: &Server,
    counts: &Arc<Counts>,
    records: &AtomicU64,
    time: Duration,
    rate: Option<u64>,
) -> Offered {
    let requests = load::requests();
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(server.connect().await);
    }
    let peak = load::peak(&channels, &requests, counts, PEAK).await;
    let rate = rate.unwrap_or(peak / 2);
    println!("peak {peak} Checks/s; offered {rate}/s for {} s", time.as_secs());
    let done: Arc<Administration> = Arc::default();
    let channel = server.connect().await;
    let changing = tokio::spawn(changes::change(channel.clone(), Arc::clone(counts), Arc::clone(&done)));
    let listing = tokio::spawn(changes::list(channel, Arc::clone(counts), Arc::clone(&done)));
    let (begun, before) = (Instant::now(), counts.decisions());
    let (processor, own) = (server.processor(), server::processor("self"));
    let mut samples = Vec::new();
    tokio::select! {
        () = load::steady(channels, requests, Arc::clone(counts), rate, time) => {}
        () = sample(server, counts, records, &mut samples, time) => {}
    }
    let (elapsed, answered) = (begun.elapsed().as_secs_f64(), counts.decisions() - before);
    let (processor, own) =
        (server.processor().saturating_sub(processor), server::processor("self").saturating_sub(own));
    done.stop.store(true, Ordering::Relaxed);
    changing.await.unwrap();
    listing.await.unwrap();
    let [p50, p99, p999, most] = counts.latency();
    println!(
        "answered {:.0}/s; p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs, at most {} ms; service {:.1} µs of processor a \
         Check with all that goes on, {:.2} cores; clients {:.2} cores",
        answered as f64 / elapsed,
        most / 1_000,
        processor.as_secs_f64() * 1e6 / answered as f64,
        processor.as_secs_f64() / elapsed,
        own.as_secs_f64() / elapsed,
    );
    if answered * 100 < rate * time.as_secs() * ANSWERED_PERCENT {
        counts.faults.add("load", format_args!("only {answered} Checks were answered"));
    }
    Offered { rate, samples, done }
}

/// Ends the service, verifies its log and starts it again; the size of the log.
fn restart(server: &mut Server, directory: &Path, counts: &Counts) -> Option<u64> {
    let begun = Instant::now();
    counts.faults.check("end", server.terminate());
    let ended = begun.elapsed();
    let size = counts.faults.check("audit verify", server::verify(directory));
    let verified = begun.elapsed();
    counts.faults.all("the service's log", server.complaints());
    // What is kept now is counted before more is removed.
    *server = Server::start(directory, &[]);
    println!(
        "ended in {:.1} s; log verified in {:.1} s; serves again after {:.1} s",
        ended.as_secs_f64(),
        verified.saturating_sub(ended).as_secs_f64(),
        begun.elapsed().saturating_sub(verified).as_secs_f64()
    );
    size
}

/// The revisions of the organization and of the cluster, as a Check tells them.
async fn revisions(server: &Server, counts: &Counts) -> (u64, u64) {
    let answer = DecisionServiceClient::new(server.connect().await).check(portal::nth_check(1)).await;
    let answer = answer.map(tonic::Response::into_inner);
    let revisions = answer.as_ref().map_or((0, 0), |answer| (answer.revision, answer.cluster_revision));
    drop(counts.answered(answer));
    (u64::try_from(revisions.0).unwrap(), u64::try_from(revisions.1).unwrap())
}

/// Holds what subscribers saw, what the clients counted and what the log keeps against each other.
async fn compare(all: &Seen, address: &str, counts: &Counts, size: u64) {
    let faults = &counts.faults;
    let decisions = all.count(AuditType::Decision);
    counts.equal("decisions", decisions, counts.decisions());
    counts.equal("gaps", all.count(AuditType::Gap), 0);
    counts.equal("records", all.through, size);
    let removed = all.decisions_through(all.removed);
    let kept = faults.check("reading the log", watch::read_all(address, all.removed, size).await);
    if let (Some(removed), Some(kept)) = (removed, kept) {
        counts.equal("decisions kept", removed + kept.count(AuditType::Decision), counts.decisions());
    } else {
        faults.add("retention", format_args!("removed up to {}, where no unit ends", all.removed));
    }
    println!(
        "log: {size} records, all seen: {decisions} decisions, {} sessions ended, {} revoked, {} policy changes; {} \
         removed by {} removals",
        all.count(AuditType::SessionEnded),
        all.count(AuditType::SessionRevoked),
        all.count(AuditType::PolicyChanged),
        all.removed,
        all.count(AuditType::Pruned)
    );
}

/// Waits for the subscribers to come to the end; what the one saw that reads everything.
async fn gather(subscribers: Vec<Subscriber>, counts: &Counts) -> Option<Seen> {
    let mut all: Option<Seen> = None;
    for Subscriber { name, kinds, task } in subscribers {
        let ended = tokio::time::timeout(CATCH_UP, task).await;
        let seen = ended.map_err(|_| "does not come to the end".to_owned()).and_then(Result::unwrap);
        let seen = counts.faults.check(&format!("subscriber `{name}`"), seen)?;
        println!("subscriber `{name}`: {} records in {} streams", seen.of(&kinds).0, seen.streams);
        match &all {
            None => all = Some(seen),
            Some(all) if seen.of(&kinds) == all.of(&kinds) => {}
            Some(all) => counts.faults.add(name, format_args!("{:?} and not {:?}", seen.of(&kinds), all.of(&kinds))),
        }
    }
    all
}

async fn soak(time: Duration, rate: Option<u64>) -> ExitCode {
    let directory = tempfile::tempdir().unwrap();
    let kept = (time.as_secs() * KEPT_A_SECOND).clamp(KEPT_MIN, KEPT_MAX);
    let mut server = Server::start(directory.path(), &["--audit-retention-bytes", &kept.to_string()]);
    let (counts, records) = (Arc::<Counts>::default(), Arc::<AtomicU64>::default());
    let channel = server.connect().await;
    changes::prepare(&channel).await.unwrap();
    let (revision, _) = revisions(&server, &counts).await;
    let place = Place { address: server.address.clone(), ending: false, end: None };
    let (tell, place) = tokio::sync::watch::channel(place);
    let subscribers = subscribe(&place, &records);

    let Offered { rate, samples, done } = offer(&server, &counts, &records, time, rate).await;

    tell.send_modify(|place| place.ending = true);
    let (peak, logged) = (server.memory().peak, server.logged());
    let size = tokio::task::block_in_place(|| restart(&mut server, directory.path(), &counts));
    let address = server.address.clone();
    tell.send_replace(Place { address: address.clone(), ending: false, end: size });
    if let (Some(size), Some(all)) = (size, gather(subscribers, &counts).await) {
        compare(&all, &address, &counts, size).await;
        let (newest, of_cluster) = revisions(&server, &counts).await;
        counts.equal("revisions", newest - revision, done.changes.load(Ordering::Relaxed));
        // Each revision is a change, the first one included.
        counts.equal("policy changes", all.count(AuditType::PolicyChanged), newest + of_cluster);
    }
    counts.faults.check("end", server.terminate());
    counts.faults.all("the service's log", server.complaints());

    let verdict = memory::judge(&samples);
    println!("memory: {}; at its highest {:.1} MiB", verdict.text, peak as f64 / memory::MIB);
    println!(
        "{done}; {} sessions closed; {:.0} MiB on the disk, retention at {:.0} MiB",
        counts.closed.load(Ordering::Relaxed),
        server::bytes(&server::data_dir(directory.path())) as f64 / memory::MIB,
        kept as f64 / memory::MIB,
    );
    if !verdict.is_flat {
        counts.faults.add("memory", "is not flat");
    }
    println!("the service's log: {} KiB, {} bytes a second", logged >> 10, logged / time.as_secs());
    if logged / time.as_secs() > LOGGED_A_SECOND_MAX {
        counts.faults.add("the service's log", format_args!("is more than {LOGGED_A_SECOND_MAX} bytes a second"));
    }
    let (errors, checks) = (counts.faults.count(), counts.decisions());
    for (fault, times) in counts.faults.told() {
        println!("  {times} × {fault}");
    }
    let ended = if errors == 0 { "passed" } else { "FAILED" };
    println!("soak {ended}: {} s at {rate} Checks/s, {checks} Checks in all, {errors} errors", time.as_secs());
    if errors == 0 {
        return ExitCode::SUCCESS;
    }
    println!("the data directory is kept: {}", directory.keep().display());
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    let Some((time, rate)) = asked() else {
        println!(
            "soak: say `hour` or a number of seconds, 10 at least, then `rate=` and Checks a second; nothing is done"
        );
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(soak(time, rate))
}
