//! A campaign over what lies outside the engine: the built service, whose log nobody reads any more or whose reader is gone,
//! whose disk is full, which is killed or told to end, and is put back from a backup, in any order and under load.
//!
//! `PORTCULLIS_CAMPAIGN=long` has many lives instead of few. A failure tells the seed; `PORTCULLIS_CAMPAIGN_SEED` set to it
//! has the same done again.
//!
//! Invariant: everything acknowledged is there after each end; the service ends within its bound; health tells the truth.
//! Not here: what fails inside the service (`faults_engine`), and each of these faults by itself (`logs`, `audit_disk`).

use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{ConnectionType, GetCheckpointRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::audit_api::check_of;
use crate::audit_load;
use crate::audit_watch::signed_size;
use crate::backup::{offline, path, printed, restore};
use crate::campaign::{first_seed, rounds, seed};
use crate::faults_place::Place;
use crate::load;

/// Random lives of the service in the short form and in the long one, after those that reach everything once.
const LIVES: (usize, usize) = (1, 150);

/// How long a call may take on a disk that has room, whatever becomes of the log.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the service may take to end once it is told to.
const END: Duration = Duration::from_secs(20);

/// How long it may take to serve, and to recover.
const PATIENCE: Duration = Duration::from_mins(1);

/// What happens in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Nothing, for so many milliseconds.
    Load(u64),
    /// Nobody reads the log any more.
    StallLog,
    /// The reader of the log is gone.
    CloseLog,
    /// Somebody else takes all room on the disk, and gives it back later.
    FillDisk,
    /// A backup is taken under load. After the end of this life it is restored elsewhere, and what came after it is lost.
    Backup,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Terminate,
    /// While the disk is full.
    KillFull,
    TerminateFull,
}

/// What happens, and how it ends.
#[derive(Clone, Debug)]
struct Life {
    events: Vec<Event>,
    end: End,
}

fn life() -> impl Strategy<Value = Life> {
    let event = prop_oneof![
        2 => (5..150_u64).prop_map(Event::Load),
        2 => Just(Event::StallLog),
        2 => Just(Event::CloseLog),
        1 => Just(Event::FillDisk),
        1 => Just(Event::Backup),
    ];
    let end = select(vec![End::Kill, End::Kill, End::Terminate, End::KillFull, End::TerminateFull]);
    (vec(event, 0..4), end).prop_map(|(events, end)| Life { events, end })
}

/// Every event and every end, and the pairs of which one may hide the other.
fn first_lives() -> [Life; 5] {
    use Event::{Backup, CloseLog, FillDisk, Load, StallLog};
    [
        Life { events: vec![Load(50), Backup, Load(20)], end: End::Kill },
        Life { events: vec![StallLog, FillDisk], end: End::Terminate },
        Life { events: vec![CloseLog, Load(50)], end: End::KillFull },
        Life { events: vec![FillDisk, Backup, StallLog], end: End::TerminateFull },
        Life { events: vec![StallLog, CloseLog, FillDisk], end: End::Kill },
    ]
}

/// The service; killed when dropped.
struct Served {
    child: Child,
    address: String,
    channel: Channel,
    /// None once it is given up.
    log: Option<BufReader<PipeReader>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    async fn start(data_dir: &Path) -> Self {
        let (reader, writer) = pipe().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--log-filter", "debug", "--data-dir"])
            .arg(data_dir)
            .env_remove("PORTCULLIS_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn()
            .unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let (mut reader, mut said) = (BufReader::new(reader), String::new());
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 {
                    return Err(said);
                }
                said.push_str(&line);
                let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"] == "serving gRPC" {
                    return Ok((reader, line["address"].as_str().unwrap().to_owned()));
                }
            }
        });
        let served = timeout(PATIENCE, reading).await.expect("it does not serve").unwrap();
        let (log, address) = match served {
            Ok(served) => served,
            Err(said) => panic!("it ended with {} instead of serving:\n{said}", child.wait().unwrap()),
        };
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { child, address, channel, log: Some(log) }
    }

    async fn is_serving(&self) -> bool {
        let mut health = HealthClient::new(self.channel.clone());
        let answer = timeout(ANSWER, health.check(HealthCheckRequest { service: String::new() })).await;
        answer.expect("health is not told").is_ok_and(|answer| answer.into_inner().status == 1)
    }

    async fn lineage(&self) -> String {
        let mut audit = AuditServiceClient::new(self.channel.clone());
        audit.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().lineage
    }

    /// Whether a shell is let through; an error that is not for want of the disk fails.
    async fn lets_through(&self) -> bool {
        let request = check_of("", "10.9.9.9", ConnectionType::Shell, "organizations/default");
        let mut decisions = DecisionServiceClient::new(self.channel.clone());
        match timeout(ANSWER, decisions.check(request)).await.expect("a check is not answered") {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                false
            }
        }
    }

    /// Waits until it lets through, or no longer does, and health says so.
    async fn until_lets_through(&self, wanted: bool) {
        let begun = Instant::now();
        while self.lets_through().await != wanted || self.is_serving().await != wanted {
            assert!(begun.elapsed() < PATIENCE, "a check and health do not come to say {wanted}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(mut self, with: &str) {
        let told = Command::new("kill").args(["-s", with, &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(begun.elapsed() < END, "it does not end within {END:?} after {with}"),
            }
            sleep(Duration::from_millis(5)).await;
        };
        assert!(with == "KILL" || status.code().is_some(), "{with}: {status}");
    }
}

/// Clients of both kinds, with what they were answered.
#[derive(Default)]
struct Clients {
    changes: Arc<Mutex<load::Acknowledged>>,
    checks: Arc<Mutex<audit_load::Model>>,
    running: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(&mut self, channel: &Channel) {
        self.running.extend(load::start(channel, &self.changes));
        self.running.extend(audit_load::start(channel, &self.checks));
    }

    /// Starts anew where all have had an error; the others go on.
    fn go_on(&mut self, channel: &Channel) {
        if self.running.iter().all(JoinHandle::is_finished) {
            self.start(channel);
        }
    }

    /// Waits until all have had an error.
    async fn gone(&mut self) {
        for client in self.running.drain(..) {
            timeout(PATIENCE, client).await.expect("a client never hears of the end").unwrap();
        }
    }
}

/// A backup, and what was acknowledged by then.
struct Copy {
    file: PathBuf,
    lineage: String,
    changes: load::Acknowledged,
    checks: audit_load::Model,
}

impl Copy {
    /// While the clients go on: what was acknowledged before it began is in it, what was acknowledged meanwhile may be.
    async fn take(served: &Served, file: PathBuf, clients: &Clients) -> Self {
        let before = (clients.changes.lock().unwrap().clone(), clients.checks.lock().unwrap().clone());
        let taken = offline(&["backup", path(&file), "--server", &served.address]).await;
        assert!(taken.status.success(), "{}", printed(&taken));
        let changes = before.0.perhaps_with(&clients.changes.lock().unwrap());
        let checks = before.1.perhaps_with(&clients.checks.lock().unwrap());
        Self { file, lineage: served.lineage().await, changes, checks }
    }

    /// Puts it in the place of the data directory.
    async fn put_back(self, data_dir: &Path, clients: &Clients) {
        let key = std::fs::read(data_dir.join("audit.key")).unwrap();
        std::fs::remove_dir_all(data_dir).unwrap();
        let restored = restore(&self.file, data_dir).await;
        assert!(restored.status.success(), "{}", printed(&restored));
        std::fs::write(data_dir.join("audit.key"), key).unwrap();
        std::fs::remove_file(&self.file).unwrap();
        *clients.changes.lock().unwrap() = self.changes;
        *clients.checks.lock().unwrap() = self.checks;
    }
}

/// Returns the backup that was taken, if any.
async fn live(place: &Place, served: Served, clients: &mut Clients, life: &Life, backup: &Path) -> Option<Copy> {
    let Life { events, end } = life;
    let mut served = served;
    clients.start(&served.channel);
    let (mut stalled, mut copy) = (None, None);
    for event in events {
        match event {
            Event::Load(millis) => sleep(Duration::from_millis(*millis)).await,
            Event::StallLog => stalled = served.log.take().or(stalled),
            Event::CloseLog => drop(served.log.take().or_else(|| stalled.take())),
            Event::FillDisk if place.fill() => {
                served.until_lets_through(false).await;
                place.free();
                served.until_lets_through(true).await;
                clients.go_on(&served.channel);
            }
            Event::Backup if copy.is_none() => copy = Some(Copy::take(&served, backup.to_owned(), clients).await),
            Event::FillDisk | Event::Backup => {}
        }
        // Nobody who reads the log decides whether connections are let through.
        assert!(served.lets_through().await && served.is_serving().await, "after {event:?}");
    }
    if matches!(end, End::KillFull | End::TerminateFull) && place.fill() {
        served.until_lets_through(false).await;
    }
    served.end(if matches!(end, End::Kill | End::KillFull) { "KILL" } else { "TERM" }).await;
    clients.gone().await;
    place.free();
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_surrounds_the_process_what_it_acknowledged_is_there() {
    let first = seed().unwrap_or_else(first_seed);
    let config = ProptestConfig { rng_seed: RngSeed::Fixed(first), ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let random = vec(life(), rounds(LIVES.0, LIVES.1)).new_tree(&mut runner).unwrap().current();
    let lives: Vec<Life> = first_lives().into_iter().chain(random).collect();
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(directory.path());
    let (mut clients, mut lost) = (Clients::default(), None);
    for (number, life) in lives.iter().enumerate() {
        let whole = async {
            let served = Served::start(&place.data_dir).await;
            if number == 0 {
                load::prepare(served.channel.clone()).await;
                audit_load::prepare(&served.channel).await;
                load::note_other(&clients.changes);
                // So that there is something for a verifier to go by from the first life on.
                signed_size(&served.channel, 1).await;
            } else {
                load::verify(served.channel.clone(), &clients.changes).await;
                audit_load::verify(served.channel.clone(), &clients.checks, Instant::now()).await;
            }
            if let Some(lost) = lost.take() {
                assert_ne!(served.lineage().await, lost, "a restored directory goes on in the lineage of the lost one");
            }
            let copy = live(&place, served, &mut clients, life, &directory.path().join("backup")).await;
            let faults = audit_load::verify_offline(&place.data_dir).faults;
            assert!(faults.is_empty(), "{faults:?}");
            if let Some(copy) = copy {
                lost = Some(copy.lineage.clone());
                copy.put_back(&place.data_dir, &clients).await;
            }
        };
        let told = Told { seed: first, number, life };
        whole.await;
        std::mem::forget(told);
    }
}

/// Tells of a life that fails.
struct Told<'a> {
    seed: u64,
    number: usize,
    life: &'a Life,
}

impl Drop for Told<'_> {
    #[expect(clippy::print_stdout, reason = "what a failure needs to be done again")]
    fn drop(&mut self) {
        let Self { seed, number, life } = self;
        println!("PORTCULLIS_CAMPAIGN_SEED={seed}: life {number}: {life:?}");
    }
}
