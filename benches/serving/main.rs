//! What a Check costs over the wire, beside a tonic server that does nothing.
//!
//! `cargo bench --bench serving` starts five servers, each a process of its own on loopback: one that answers the same
//! messages with a constant, on tonic's and tokio's defaults, and Portcullis in four ways (`servers::Role`). The same
//! clients drive them by turns, several rounds, so that what the machine does meanwhile falls on all alike. Arguments
//! choose: `h2load`, `tonic`, `streams`, `slow-disk` the parts, `8x32` the connections and calls in flight on each,
//! `processes=1` how many h2load run side by side, `one-user` that these send the Check of one user at one address,
//! `rounds=20` how many rounds there are.
//!
//! `PORTCULLIS_BENCH_OTHER=/path/to/portcullis` compares with the binary of another version: `async` and `sync` of both are
//! measured by turns, and ratios of this version to the other are printed below each table.
//!
//! Invariant: ratios are of one run; their spread over the rounds is printed beside them, and so is what misses its goal
//! (design.md §6).
//! Not here: deciding in process (`decide`), the record in process (`audit`).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench that goes wrong ends, takes times, and reports to its terminal"
)]

mod h2load;
mod nothing;
#[path = "../portal/mod.rs"]
mod portal;
mod report;
mod servers;
mod slow_disk;
mod tonic_client;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portal::nth_check;
use report::{Goal, Round, ratio, value_of};
use servers::{Role, Server, Version};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

/// Connections, calls in flight on each, and how many calls `h2load` makes in a round.
const LOADS: [(usize, usize, usize); 6] =
    [(1, 1, 8_000), (1, 32, 60_000), (8, 1, 40_000), (8, 32, 120_000), (64, 1, 60_000), (64, 32, 120_000)];

/// Checks on one stream in a round, and of one batch.
const STREAMED: usize = 300_000;
const BATCH: usize = 1_000;

/// Syncs that are timed.
const SYNCS: usize = 300;

/// What the arguments choose; everything where they choose nothing.
struct Chosen(Vec<String>);

impl Chosen {
    fn part(&self, part: &str) -> bool {
        let parts = ["h2load", "tonic", "streams", "slow-disk"];
        !self.0.iter().any(|word| parts.contains(&word.as_str())) || self.0.iter().any(|word| word == part)
    }

    fn load(&self, connections: usize, in_flight: usize) -> bool {
        let is_load = |word: &&String| word.starts_with(|first: char| first.is_ascii_digit());
        self.0.iter().filter(is_load).count() == 0
            || self.0.iter().any(|word| *word == format!("{connections}x{in_flight}"))
    }

    fn number(&self, name: &str) -> Option<usize> {
        let value = self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.parse().unwrap())
    }

    fn h2load(&self) -> h2load::Load {
        let default = h2load::Load::default();
        let processes = self.number("processes").unwrap_or(default.processes);
        h2load::Load { processes, one_user: self.0.iter().any(|word| word == "one-user") }
    }

    fn rounds(&self) -> usize {
        self.number("rounds").unwrap_or(ROUNDS)
    }
}

/// The goals for throughput, processor time, p50 and p99.
fn goals(role: Role, client: &str, load: (usize, usize)) -> [Goal; 4] {
    let none = Goal::None;
    match (role, client, load) {
        (Role::Async, "h2load", (8, 32)) => [Goal::AtLeast(1.5), Goal::AtMost(0.6), none, none],
        (Role::Async, "h2load", (1, 1)) => [none, none, Goal::AtMost(1.0), Goal::AtMost(1.2)],
        (Role::Sync, "h2load", (64, 1)) => [Goal::AtLeast(0.8), none, none, none],
        (Role::Sync, "h2load", (8, 32)) => [Goal::AtLeast(1.0), none, none, none],
        _ => [none; 4],
    }
}

/// What each server did in the rounds.
type Measured<'a> = Vec<(&'a Server, Vec<Round>)>;

fn print_load(client: &str, load: (usize, usize), measured: &Measured<'_>) {
    let Some((_, nothing)) = measured.first() else { return };
    let (throughput, processor) = (|round: &Round| round.throughput, |round: &Round| round.processor);
    let p = |at: usize| move |round: &Round| round.latency[at];
    for (server, rounds) in measured {
        let [of_throughput, of_processor, of_p50, of_p99] = goals(server.role, client, load);
        println!(
            "| {client} {} × {} | {} | {:.0} | {:.0}, {:.0}, {:.0}, {:.0} | {:.1} | {} | {} | {}; {} |",
            load.0,
            load.1,
            server.name(),
            value_of(rounds, throughput),
            value_of(rounds, p(0)),
            value_of(rounds, p(1)),
            value_of(rounds, p(2)),
            value_of(rounds, p(3)),
            value_of(rounds, processor),
            ratio(rounds, nothing, throughput, of_throughput),
            ratio(rounds, nothing, processor, of_processor),
            ratio(rounds, nothing, p(0), of_p50),
            ratio(rounds, nothing, p(2), of_p99),
        );
    }
    for (server, other) in measured.iter().filter(|(server, _)| server.version == Version::Other) {
        let this = measured.iter().find(|(of, _)| of.role == server.role && of.version == Version::This);
        let Some((_, this)) = this else { continue };
        let ratio = |value: &dyn Fn(&Round) -> f64| ratio(this, other, value, Goal::None);
        println!(
            "| {client} {} × {} | {}, this ÷ other version | | | | {} | {} | {}; {} |",
            load.0,
            load.1,
            server.role.name(),
            ratio(&throughput),
            ratio(&processor),
            ratio(&p(0)),
            ratio(&p(2)),
        );
    }
}

/// What a sync of the disk takes where the servers keep their records.
fn print_sync() {
    let mut file = tempfile::tempfile().unwrap();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[7; 4_096]).unwrap();
        let begun = Instant::now();
        file.sync_data().unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("a sync of 4 KiB takes {:?} (p50), {:?} (p99)", times[SYNCS / 2], times[SYNCS * 99 / 100]);
}

async fn measure_calls(servers: &[Server], chosen: &Chosen) {
    println!(
        "| client | server | Checks/s | p50, p90, p99, p99.9 µs | CPU µs | throughput ÷ nothing | CPU ÷ nothing | p50; p99 ÷ nothing |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let bodies = h2load::Bodies::write(chosen.h2load());
    for (connections, in_flight, requests) in LOADS {
        if !chosen.load(connections, in_flight) {
            continue;
        }
        let load = (connections, in_flight);
        if chosen.part("h2load") && h2load::is_there() {
            let mut measured: Measured<'_> = servers.iter().map(|server| (server, Vec::new())).collect();
            for turn in 0..chosen.rounds() {
                for (server, rounds) in &mut measured {
                    rounds.push(h2load::round(server, &bodies, load, requests, turn));
                }
            }
            print_load("h2load", load, &measured);
        }
        if chosen.part("tonic") {
            let mut measured: Measured<'_> = servers.iter().map(|server| (server, Vec::new())).collect();
            let mut channels = Vec::new();
            for server in servers {
                channels.push(server.connect(connections).await);
            }
            for _ in 0..chosen.rounds() {
                for (channels, (server, rounds)) in channels.iter().zip(&mut measured) {
                    rounds.push(tonic_client::round(server, channels, in_flight, ROUND).await);
                }
            }
            print_load("tonic", load, &measured);
        }
    }
}

/// One stream beside the echo of the same messages, and batches beside single Checks of our own.
async fn measure_streams(servers: &[Server], rounds: usize) {
    let requests: Arc<[_]> = (0..u32::try_from(BATCH).unwrap()).map(nth_check).collect();
    let [nothing, unary] = [Role::Nothing, Role::Async].map(|role| servers.iter().find(|of| of.role == role).unwrap());
    let (throughput, processor) = (|round: &Round| round.throughput, |round: &Round| round.processor);
    let nothings = nothing.connect(1).await.remove(0);
    let channels = unary.connect(8).await;
    let [mut echoed, mut streamed, mut batched, mut single] = [const { Vec::<Round>::new() }; 4];
    for _ in 0..rounds {
        echoed.push(tonic_client::stream(nothing, &nothings, &requests, STREAMED).await);
        streamed.push(tonic_client::stream(unary, &channels[0], &requests, STREAMED).await);
        batched.push(tonic_client::batches(unary, &channels[0], &requests, ROUND).await);
        single.push(tonic_client::round(unary, &channels, 32, ROUND).await);
    }
    println!("| Checks | per second | CPU µs | ratio |\n|---|---|---|---|");
    for (what, rounds, judged) in [
        ("an echo on one tonic stream", &echoed, "1".to_owned()),
        ("`StreamCheck`, one stream", &streamed, ratio(&streamed, &echoed, throughput, Goal::AtLeast(0.35))),
        ("`Check`, 8 × 32", &single, "1".to_owned()),
        ("`BatchCheck` of 1,000", &batched, ratio(&batched, &single, throughput, Goal::AtLeast(4.0))),
    ] {
        println!("| {what} | {:.0} | {:.1} | {judged} |", value_of(rounds, throughput), value_of(rounds, processor));
    }
}

async fn measure(chosen: &Chosen) {
    let servers = Server::start_all();
    for server in &servers {
        server.prepare().await;
    }
    println!("client and servers share {} cores", std::thread::available_parallelism().unwrap());
    if !h2load::is_there() {
        println!("skipped: h2load is not installed (Debian: nghttp2-client)");
    }
    print_sync();
    if chosen.part("h2load") || chosen.part("tonic") {
        measure_calls(&servers, chosen).await;
    }
    if chosen.part("streams") {
        measure_streams(&servers, chosen.rounds()).await;
    }
    drop(servers);
    if chosen.part("slow-disk") {
        slow_disk::measure().await;
    }
}

fn main() {
    if servers::serve_nothing() {
        return;
    }
    let chosen = Chosen(std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&chosen));
}
