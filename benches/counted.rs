//! How many instructions it takes to decide, to answer a Check within the service, and to encode a record.
//!
//! `.ci/counts` runs each piece under callgrind, with some iterations and with twice as many, and holds the difference
//! against `benches/counts.txt`; `.ci/counts --update` writes that file. `counted --list` names the pieces with their
//! iterations, `counted PIECE ITERATIONS` runs one. Instructions do not depend on what else the machine does, so a few
//! percent more are seen at once; they say little about time, for which the other benches are.
//!
//! A Check that waits for the disk is counted on its own thread: from the request to the moment at which it waits, and
//! from the moment at which it is woken to the last frame of its answer. The disk is held back in between, so that every
//! Check of a round waits.
//!
//! Invariant: only what [`measured`] calls on its own thread is counted; everything it needs is made before. Inputs are
//! the same in every run.
//! Not here: times (`decide`, `audit`, `serving`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that goes wrong ends, and reports to its terminal"
)]

#[expect(dead_code, reason = "the other benches need more of it")]
mod data;
mod held;
mod levels;
#[expect(dead_code, reason = "the other benches need more of it")]
mod portal;

use std::future::Future;
use std::hint::black_box;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use portcullis::api::Api;
use portcullis::api::admission::Admission;
use portcullis::api::caller::{Caller, Connection};
use portcullis::api::direct::{AnswerBody, DirectCheck, Progress};
use portcullis::audit::record::{Content, DecisionId, DecisionRecord, Entry};
use portcullis::audit::rule_text::RuleText;
use portcullis::audit::session::SessionId;
use portcullis::config::{Config, Durability};
use portcullis::engine::Engine;
use portcullis::policy::address::{Address, Block};
use portcullis::policy::decision::Reason;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::rule::{Action, ConnectionType, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use portcullis::proto::v1;
use portcullis::proto::v1::firewall_service_server::FirewallService;
use portcullis::store::codec::audit::append_entry;
use portcullis::store::disk::Disk;
use prost::Message;
use prost::bytes::Bytes;

use data::{Family, Random};
use held::HeldDisk;
use levels::{ENDPOINT, TARGET, open_cluster};

/// Something that is counted: its name, how often it is done at the least, and what makes it ready for so many times.
type Piece = (&'static str, usize, fn(usize) -> Work);

/// How something is done; the number says which time it is.
enum Work {
    Once(Box<dyn FnMut(usize)>),
    Waits(Box<Waits>),
}

/// Iterations are a multiple of the inputs, so that twice as many do twice the same.
const PIECES: &[Piece] = &[
    ("decide/ten-rules/ipv4", 16_384, |_| ten_rules()),
    ("decide/100k-ranges/ipv4", 16_384, |_| listed::<u32>(Address::V4)),
    ("decide/100k-ranges/ipv6", 16_384, |_| listed::<u128>(Address::V6)),
    ("decide/all-levels/ipv4", 16_384, |_| all_levels()),
    ("check/preview-goes-on", 4_096, |times| checks(times, v1::ConnectionType::Preview, 64, true)),
    ("check/preview-denied", 4_096, |times| checks(times, v1::ConnectionType::Preview, 0, false)),
    ("check/shell-opens", 4_096, |times| checks(times, v1::ConnectionType::Shell, 64, false)),
    ("check/shell-sync", 4_096, |times| waits(times, v1::ConnectionType::Shell, 64, false)),
    ("check/preview-sync", 4_096, |times| waits(times, v1::ConnectionType::Preview, 64, true)),
    ("encode/record", 8_192, encode),
];

/// Addresses that are decided on, one after the other.
const ADDRESSES: usize = 8_192;

/// Callgrind counts while this function runs, on the thread that runs it.
#[inline(never)]
fn measured(once: &mut dyn FnMut(usize), times: Range<usize>) {
    for time in times {
        once(black_box(time));
    }
}

impl Work {
    fn run(self, times: usize) {
        match self {
            Self::Once(mut once) => measured(&mut *once, 0..times),
            Self::Waits(mut waits) => {
                let runtime = waits.runtime.handle().clone();
                let _timers = runtime.enter();
                for first in (0..times).step_by(ROUND) {
                    let round = first..first + ROUND;
                    waits.hold();
                    measured(&mut |time| waits.ask(time), round.clone());
                    waits.let_go();
                    measured(&mut |time| waits.take_answer(time), round);
                }
            }
        }
    }
}

/// Half inside the blocks, half anywhere.
fn addresses<W: Family>(blocks: &[Block<W>], address: fn(W) -> Address) -> Vec<Address> {
    let mut random = Random::seeded();
    let mut one = |at: usize| {
        let block = blocks[random.below(blocks.len())];
        address(if at.is_multiple_of(2) { block.last() } else { W::from_bits(random.wide_bits()) })
    };
    (0..ADDRESSES).map(&mut one).collect()
}

fn decide(organization: &Organization, cluster: &Cluster, target: &'static str, addresses: Vec<Address>) -> Work {
    let snapshot = Snapshot::compile(organization, &mut MembersCache::default());
    let (cluster, now) = (ClusterSnapshot::compile(cluster), Timestamp::from_millis(1_000));
    let target = NodePath::parse(target).unwrap();
    Work::Once(Box::new(move |time| {
        let address = addresses[time % ADDRESSES];
        black_box(snapshot.decide(&cluster, address, ConnectionType::Shell, &target, now));
    }))
}

fn ten_rules() -> Work {
    let blocks = data::ranges::<u32>(u32::ANNOUNCED, 10);
    let mut organization = data::organization();
    data::set_rules(&mut organization, data::rule_per_range(&blocks));
    decide(&organization, &open_cluster(), TARGET, addresses(&blocks, Address::V4))
}

/// One rule that denies a large group.
fn listed<W: Family>(address: fn(W) -> Address) -> Work {
    let blocks = data::ranges::<W>(W::ANNOUNCED, 100_000);
    let mut organization = data::organization();
    data::add_group(&mut organization, "listed", blocks.iter().map(|block| W::range(*block)));
    data::set_rules(&mut organization, [(Action::Deny, Source::Group(data::id("listed")))]);
    decide(&organization, &open_cluster(), TARGET, addresses(&blocks, address))
}

/// Large lists at every level.
fn all_levels() -> Work {
    let blocks = data::ranges::<u32>(u32::ANNOUNCED, 100_000);
    let (cluster, organization) = levels::all_levels(&blocks);
    decide(&organization, &cluster, ENDPOINT, addresses(&blocks, Address::V4))
}

/// A Check as it comes from its connection.
type Call = Request<Full<Bytes>>;

/// Users that ask.
const USERS: usize = 1_024;

/// The service without the network, over an engine in a directory of its own.
struct Service {
    /// As the calls of a connection share it.
    direct: Arc<DirectCheck>,
    engine: Arc<Engine>,
    _directory: tempfile::TempDir,
}

impl Service {
    fn new(durability: Durability, disk: HeldDisk) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::for_data_dir(directory.path());
        (config.record.audit_shell, config.record.audit_preview) = (durability, durability);
        // The writer of the log leaves the queue alone meanwhile: when it came would change who makes room.
        config.record.audit_async_interval = Duration::from_mins(10);
        // Under callgrind the disk may seem not to answer.
        config.record.audit_deadline = Duration::from_mins(10);
        let (_, draining) = tokio::sync::watch::channel(false);
        let api = Api::new(config.limits, config.record.subscribers_max, draining);
        let engine = Arc::new(portcullis::server::open_on(&config, &disk).unwrap());
        api.start(Arc::clone(&engine));
        let rule = v1::Rule {
            action: v1::Action::Deny.into(),
            source: Some(v1::rule::Source::Range("10.0.0.0/12".to_owned())),
            ..v1::Rule::default()
        };
        let parent = TARGET.to_owned();
        let create = v1::CreateRuleRequest { parent, rule: Some(rule), ..v1::CreateRuleRequest::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut request = tonic::Request::new(create);
        Caller::connected(Connection::Unix).attach(request.extensions_mut());
        runtime.block_on(FirewallService::create_rule(&api, request)).unwrap();
        let admission = Admission::new(config.requests_in_flight_max, Duration::from_mins(10));
        let direct = Arc::new(DirectCheck::new(api, admission, config.request_bytes_max));
        Self { direct, engine, _directory: directory }
    }

    /// Answers a Check that waits for nothing.
    fn check(&self, call: Call) {
        assert!(DirectCheck::takes(&call));
        let Progress::Answered(answer) = self.direct.begin(call) else { panic!("a Check waits for something") };
        give(answer);
    }

    /// Begins a Check that waits for the disk.
    fn begin(&self, call: Call) -> Waiting {
        assert!(DirectCheck::takes(&call));
        let Progress::Waiting(check) = self.direct.begin(call) else { panic!("a Check waits for nothing") };
        let direct = Arc::clone(&self.direct);
        Box::pin(async move { direct.answer_durable(check).await })
    }
}

/// Gives an answer away piece by piece.
fn give(answer: Response<AnswerBody>) {
    let (head, mut body) = answer.into_parts();
    black_box(head);
    let mut context = Context::from_waker(Waker::noop());
    let mut frames = 0;
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
        drop(black_box(frame.unwrap()));
        frames += 1;
    }
    assert_eq!(frames, 2, "a message and trailers");
}

/// A user's Check in a network.
fn call(time: usize, network: u32, connection_type: v1::ConnectionType) -> Call {
    let user = u32::try_from(time % USERS).unwrap();
    let message = portal::check_of(user, network, connection_type).encode_to_vec();
    let body = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
    Request::post("http://127.0.0.1/portcullis.v1.DecisionService/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.into()))
        .unwrap()
}

/// Checks by a thousand users in a network. `again` says that all have come before.
fn checks(times: usize, connection_type: v1::ConnectionType, network: u32, again: bool) -> Work {
    let service = Service::new(Durability::Async, HeldDisk::default());
    for user in 0..if again { USERS } else { 0 } {
        service.check(call(user, network, connection_type));
    }
    let mut calls: Vec<_> = (0..times).map(|time| Some(call(time, network, connection_type))).collect();
    Work::Once(Box::new(move |time| service.check(calls[time].take().unwrap())))
}

/// Checks that wait at a time: two connections with as many in flight as the serving bench has on each.
const ROUND: usize = 64;

/// A Check that waits.
type Waiting = Pin<Box<dyn Future<Output = Response<AnswerBody>>>>;

/// Checks that wait for the disk, in rounds.
struct Waits {
    service: Service,
    disk: HeldDisk,
    runtime: tokio::runtime::Runtime,
    calls: Vec<Option<Call>>,
    waiting: Vec<Option<Waiting>>,
    /// The last record of the round.
    last_sequence: u64,
    waker: Waker,
}

/// Counts how often it is woken, as a task would be.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Waits {
    /// Holds the writer with a record that nobody waits for any more, so that it takes those of the round together.
    fn hold(&mut self) {
        self.disk.hold();
        self.last_sequence = self.service.engine.audit().newest_sequence() + 1 + ROUND as u64;
        let mut denied = self.service.begin(call(0, 0, v1::ConnectionType::Preview));
        assert!(denied.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending());
        self.disk.wait_reached();
    }

    /// Asks until it waits.
    fn ask(&mut self, time: usize) {
        let mut waiting = self.service.begin(self.calls[time].take().unwrap());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending());
        self.waiting[time % ROUND] = Some(waiting);
    }

    /// Lets the disk have the records, and waits until all are durable and the first call of the round is woken.
    fn let_go(&mut self) {
        self.disk.let_go();
        while self.service.engine.audit().newest_sequence() < self.last_sequence {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5));
    }

    fn take_answer(&mut self, time: usize) {
        let mut waiting = self.waiting[time % ROUND].take().unwrap();
        match waiting.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(answer) => give(answer),
            Poll::Pending => panic!("a record is durable, and its Check waits"),
        }
    }
}

/// Checks that wait for the disk. `again` says that all users have come before.
fn waits(times: usize, connection_type: v1::ConnectionType, network: u32, again: bool) -> Work {
    let disk = HeldDisk::default();
    let service = Service::new(Durability::Sync, disk.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for user in 0..if again { USERS } else { 0 } {
        give(runtime.block_on(service.begin(call(user, network, connection_type))));
    }
    let calls = (0..times).map(|time| Some(call(time, network, connection_type))).collect();
    let waiting = (0..ROUND).map(|_| None).collect();
    let waker = Waker::from(Arc::<Woken>::default());
    Work::Waits(Box::new(Waits { service, disk, runtime, calls, waiting, last_sequence: 0, waker }))
}

/// Records of decisions, one in ten a denial.
fn encode(times: usize) -> Work {
    let blocked = Arc::new(RuleText {
        source: Source::Range("203.0.113.0/24".parse().unwrap()),
        description: "known attackers".into(),
    });
    let entry = |time: usize| {
        let (number, denied) = (time as u64, time.is_multiple_of(10));
        let decision = DecisionRecord {
            id: DecisionId { boot: 0x1234_5678_9ABC_DEF0, number },
            reason: if denied { Reason::DenyRule } else { Reason::DefaultAllow },
            connection_type: if time.is_multiple_of(4) { ConnectionType::Shell } else { ConnectionType::Preview },
            endpoint: ENDPOINT.into(),
            rule: denied.then(|| Id::parse("blocked").unwrap()),
            rule_text: denied.then(|| Arc::clone(&blocked)),
            level: None,
            session: (!denied).then_some(SessionId { boot: 0x1234_5678_9ABC_DEF0, number: number * 64 + 7 }),
            session_opened: true,
            revision: 3,
            cluster_revision: 1,
            request_id: "".into(),
            lease: None,
        };
        let time = Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(number * 7).unwrap());
        Entry { time, organization: Some(data::id("default")), content: Content::Decision(decision) }
    };
    let entries: Vec<Entry> = (0..times).map(entry).collect();
    let mut out = Vec::with_capacity(1_024);
    Work::Once(Box::new(move |time| {
        out.clear();
        let sequence = 1_000_000 + time as u64;
        append_entry(&mut out, sequence, sequence, Some(7), &entries[time]);
        black_box(&out);
    }))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["--list"] => PIECES.iter().for_each(|(name, times, _)| println!("{name} {times}")),
        [name, times] => {
            let (_, _, prepare) = PIECES.iter().find(|(piece, ..)| *piece == name).unwrap();
            let times = times.parse().unwrap();
            prepare(times).run(times);
        }
        _ => println!("counted: run by `.ci/counts`, under callgrind"),
    }
}
