//! What the record costs: appending against sled, bytes on the disk, finding the last denials of a rule, Checks beside
//! recording, and revocation.
//!
//! Run with `cargo bench --bench audit`; `-- append`, `size`, `find`, `checks` or `revoke` runs one part. The part `find`
//! makes a log of 10,000,000 records (about 450 MB) in the temporary directory and removes it afterwards.
//!
//! Invariant: what is compared is equally durable when its time is taken, and the rounds are taken in turns.
//! Not here: the way over gRPC.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench that goes wrong ends, takes times, and reports to its terminal"
)]

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, DecisionId, DecisionRecord, Entry, Identity, Person, RecordType};
use portcullis::audit::rule_text::RuleText;
use portcullis::audit::session::SessionId;
use portcullis::config::{Config, Durability};
use portcullis::engine::Engine;
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::engine::question::Question;
use portcullis::policy::address::Address;
use portcullis::policy::decision::{Decision, Reason};
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use portcullis::store::codec::audit::encode_entry;

/// Records that wait for the disk at most, as the service is configured.
const WAITING_MAX: u64 = 65_536;

/// Records of a sealed unit.
const UNIT: u64 = 65_536;
const USERS: u64 = 3_000;
const ENDPOINTS: u64 = 500;

/// A generator that gives the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, small ones more often: few users and endpoints make most of the traffic.
    fn skewed(&mut self, end: u64) -> u64 {
        (self.next() % end) * (self.next() % end) / end
    }
}

/// Portal-like traffic: a few thousand users, most from one address, some from two; repeated endpoints; one in ten is
/// denied, a few by a rule of their own.
struct Traffic {
    random: Random,
    endpoints: Vec<String>,
    users: Vec<String>,
}

struct Request<'a> {
    email: &'a str,
    address: Address,
    connection_type: ConnectionType,
    endpoint: &'a str,
}

impl Traffic {
    fn new() -> Self {
        let endpoint = |number: u64| {
            let (project, workspace) = (number % 20, number / 20);
            format!("organizations/default/projects/team-{project}/workspaces/ws-{workspace}/endpoints/main")
        };
        let user = |number: u64| format!("firstname.lastname-{number}@example.com");
        Self {
            random: Random(0x9E37_79B9_7F4A_7C15),
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
            users: (0..USERS).map(user).collect(),
        }
    }

    fn next(&mut self) -> Request<'_> {
        let user = self.random.skewed(USERS);
        let kind = self.random.next();
        let network: u32 = match kind % 10_000 {
            0 => 0xC612_0000,
            1..=999 => 0xCB00_0000,
            _ => 0x0A00_0000,
        };
        let second_address = u32::from((kind >> 20).trailing_zeros() >= 4) << 14;
        let host = network + second_address + u32::try_from(user).unwrap();
        let endpoint = (user * 7 + self.random.skewed(8)) % ENDPOINTS;
        Request {
            email: &self.users[usize::try_from(user).unwrap()],
            address: Address::V4(host),
            connection_type: if (kind >> 32).trailing_zeros() >= 2 {
                ConnectionType::Shell
            } else {
                ConnectionType::Preview
            },
            endpoint: &self.endpoints[usize::try_from(endpoint).unwrap()],
        }
    }
}

fn config(data_dir: &Path, durability: Durability) -> Config {
    let mut config = Config::for_data_dir(data_dir);
    config.record.audit_shell = durability;
    config.record.audit_preview = durability;
    // Every shell stays open otherwise; ten million of them are no portal.
    config.record.active_sessions_max = 100_000_000;
    config.record.session_max_age = Duration::from_secs(2);
    config.record.session_idle = Duration::from_secs(2);
    config
}

async fn add_rule(engine: &Engine, id: &str, range: &str) {
    let patch = RulePatch {
        action: Some(Action::Deny),
        source: Some(Source::Range(range.parse().unwrap())),
        ..RulePatch::default()
    };
    let mutation = Mutation::CreateRule { id: Id::parse(id).unwrap(), position: None, patch };
    let request = ChangeRequest::new(ChangeTarget::Organization { id: Id::parse("default").unwrap(), mutation });
    engine.change(request).await.unwrap();
}

async fn open(data_dir: &Path, durability: Durability) -> Engine {
    let engine = portcullis::server::open(&config(data_dir, durability)).unwrap();
    add_rule(&engine, "rare", "198.18.0.0/16").await;
    add_rule(&engine, "blocked", "203.0.0.0/16").await;
    engine
}

async fn check(engine: &Engine, request: &Request<'_>) {
    let question = Question {
        address: request.address,
        connection_type: request.connection_type,
        target: NodePath::parse(request.endpoint).unwrap(),
        user_email: request.email,
        session_lease: None,
        request_id: "",
        min_revision: 0,
        min_cluster_revision: 0,
    };
    engine.check(&question).await.unwrap();
}

async fn durable(engine: &Engine, sequence: u64) {
    let mut newest = engine.audit().newest();
    while newest.look() < sequence {
        newest.changed().await.unwrap();
    }
}

/// Records until the log has so many.
async fn fill(engine: &Engine, traffic: &mut Traffic, records: u64) {
    while engine.audit().newest_sequence() < records {
        for _ in 0..256 {
            check(engine, &traffic.next()).await;
        }
    }
}

fn bytes_below(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_below(&path) } else { path.metadata().unwrap().len() }).sum()
}

/// Waits until everything that is full is sealed.
async fn sealed(data_dir: &Path, units: u64) {
    let audit = data_dir.join("audit");
    loop {
        let count = std::fs::read_dir(&audit)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".seg"));
        if count.count() as u64 >= units {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Appends with one key per record to sled, synced on the disk after every `batch` records. A record is encoded as ours
/// is, with the email and the address in it.
fn sled_rate(records: u64, batch: u64) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let db = sled::Config::new().path(directory.path()).flush_every_ms(Some(500)).open().unwrap();
    let file = std::fs::File::open(directory.path().join("db")).unwrap();
    let mut entries = (1..).zip(entries(&mut Traffic::new(), records));
    let begun = Instant::now();
    for (sequence, (entry, person)) in entries.by_ref() {
        let mut record = encode_entry(sequence, sequence, None, &entry);
        if let Some(Identity::Person(Person { email, address })) = person {
            record.extend_from_slice(email.as_bytes());
            if let Address::V4(word) = address {
                record.extend_from_slice(&word.to_be_bytes());
            }
        }
        db.insert(sequence.to_be_bytes(), record).unwrap();
        if sequence % batch == 0 {
            db.flush().unwrap();
            rustix::fs::fdatasync(file.as_fd()).unwrap();
        }
    }
    records as f64 / begun.elapsed().as_secs_f64()
}

/// Records of decisions, made before the time is taken.
fn entries(traffic: &mut Traffic, count: u64) -> Vec<(Entry, Option<Identity>)> {
    let organization = Id::parse("default").unwrap();
    let blocked = Arc::new(RuleText {
        source: Source::Range("203.0.113.0/24".parse().unwrap()),
        description: "known attackers".into(),
    });
    let now = Timestamp::from_micros(1_700_000_000_000_000);
    let entry = |number: u64| {
        let denied = number.is_multiple_of(10);
        let Request { email, address, connection_type, endpoint } = traffic.next();
        let decision = DecisionRecord {
            id: DecisionId { boot: 0x1234_5678_9ABC_DEF0, number },
            reason: if denied { Reason::DenyRule } else { Reason::DefaultAllow },
            connection_type,
            endpoint: endpoint.into(),
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
        let time = Timestamp::from_micros(now.micros() + i64::try_from(number * 7).unwrap());
        let entry = Entry { time, organization: Some(organization.clone()), content: Content::Decision(decision) };
        (entry, Some(Identity::Person(Person { email: email.into(), address })))
    };
    (1..=count).map(entry).collect()
}

/// Appends records to the log and waits until all are durable: leaf, index and sealing included.
async fn our_rate(records: u64) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Async).await;
    let mut entries = (1..).zip(entries(&mut Traffic::new(), records));
    let audit = engine.audit();
    let first = audit.newest_sequence();
    let begun = Instant::now();
    for (number, (entry, person)) in entries.by_ref() {
        let sequence = audit.queue().push(entry, person, false);
        if number % 4_096 == 0 {
            // No more wait than Checks could make wait.
            durable(&engine, sequence.saturating_sub(WAITING_MAX)).await;
        }
    }
    durable(&engine, first + records).await;
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    engine.close();
    rate
}

/// The same through whole Checks, which decide and open sessions.
async fn our_check_rate(records: u64) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Async).await;
    let mut traffic = Traffic::new();
    let first = engine.audit().newest_sequence();
    let begun = Instant::now();
    for _ in 0..records {
        check(&engine, &traffic.next()).await;
    }
    durable(&engine, first + records).await;
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    engine.close();
    rate
}

async fn append() {
    const RECORDS: u64 = 1_000_000;
    println!("append, {RECORDS} records, durable; ours hashes, indexes and seals as well");
    for round in 1..=5 {
        let (small, large) = (sled_rate(RECORDS, 256), sled_rate(RECORDS, 4_096));
        let (ours, checks) = (our_rate(RECORDS).await, our_check_rate(RECORDS).await);
        println!(
            "  round {round}: ours {ours:>8.0}/s, with deciding {checks:>7.0}/s   sled, a key a record, sync per 256 \
             {small:>7.0}/s, per 4096 {large:>7.0}/s   ratio {:.1}, to the second {:.1} (goal >= 5)",
            ours / small,
            ours / large
        );
    }
}

async fn size() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Async).await;
    let records = 16 * UNIT;
    let mut traffic = Traffic::new();
    fill(&engine, &mut traffic, records + 1).await;
    sealed(directory.path(), 16).await;
    engine.close();
    let total = engine.audit().newest_sequence();
    let per_record = |bytes: u64, of: u64| bytes as f64 / of as f64;
    let of_suffix = |suffix: &str| -> u64 {
        let entries = std::fs::read_dir(directory.path().join("audit")).unwrap().map(|entry| entry.unwrap());
        let entries = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
        entries.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    let (units, openings, tail) = (of_suffix(".seg"), of_suffix(".pii"), of_suffix(".wal"));
    let everything = bytes_below(directory.path());
    let sealed_only = everything - tail;
    println!(
        "size, {records} sealed records of {USERS} users and {ENDPOINTS} endpoints: {:.1} bytes a record (goal <= 48): \
         {:.1} records and index, {:.1} openings, {:.1} everything else under the data directory; the {} records that \
         are not sealed yet take {:.0} bytes each",
        per_record(sealed_only, records),
        per_record(units, records),
        per_record(openings, records),
        per_record(sealed_only - units - openings, records),
        total - records,
        per_record(tail, total - records),
    );
}

async fn find(records: u64) {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), Durability::Async).await;
    let mut traffic = Traffic::new();
    let begun = Instant::now();
    fill(&engine, &mut traffic, records).await;
    sealed(directory.path(), records / UNIT).await;
    println!(
        "find: {records} records written and sealed in {:.0} s, {:.1} bytes each",
        begun.elapsed().as_secs_f64(),
        bytes_below(directory.path()) as f64 / records as f64
    );
    let organization = Id::parse("default").unwrap();
    let rule = |id: &str| RecordFilter {
        organization: Some(organization.clone()),
        types: vec![RecordType::Decision],
        decision: Some(Decision::Deny),
        rule: Some((organization.clone(), Id::parse(id).unwrap())),
        ..RecordFilter::default()
    };
    let of_user = RecordFilter {
        organization: Some(organization.clone()),
        email: Some(traffic.users[2_990].clone()),
        ..RecordFilter::default()
    };
    for (name, filter) in [
        ("the last 50 denials of a rule that denies 1 in 10,000", rule("rare")),
        ("the last 50 denials of a rule that denies 1 in 10", rule("blocked")),
        ("denials of a rule that there is not", rule("none")),
        ("the last 50 records of a rare user", of_user),
    ] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..21 {
            let begun = Instant::now();
            found = engine.audit().list(&filter, None, 50).unwrap().records.len();
            times.push(begun.elapsed());
        }
        let first = times[0];
        times.sort_unstable();
        println!(
            "  {name}: {found} found, first {first:.2?}, median {:.2?} (goal for the first line < 10 ms)",
            times[10]
        );
    }
    engine.close();
    drop(engine);
    let begun = Instant::now();
    let engine = portcullis::server::open(&config(directory.path(), Durability::Async)).unwrap();
    println!("  a start on that log: {:.0?}", begun.elapsed());
    engine.close();
}

/// Checks a second with so many in flight, in process.
async fn check_rate(engine: &Arc<Engine>, in_flight: usize, time: Duration) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks = (0..in_flight).map(|task| {
        let (engine, count) = (Arc::clone(engine), Arc::clone(&count));
        tokio::spawn(async move {
            let mut traffic = Traffic::new();
            traffic.random.0 += task as u64;
            while begun.elapsed() < time {
                for _ in 0..16 {
                    check(&engine, &traffic.next()).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

async fn checks() {
    println!("checks in process, two threads, audit off = deciding alone as `Explain` and tests do, in turns:");
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let asynchronous = Arc::new(open(directories[0].path(), Durability::Async).await);
    let synchronous = Arc::new(open(directories[1].path(), Durability::Sync).await);
    for in_flight in [1, 64, 256] {
        let time = Duration::from_secs(2);
        let off = decide_rate(&asynchronous, in_flight, time).await;
        let without_waiting = check_rate(&asynchronous, in_flight, time).await;
        let waiting = check_rate(&synchronous, in_flight, time).await;
        println!(
            "  {in_flight:>3} in flight: off {off:>9.0}/s   async {without_waiting:>9.0}/s ({:.2} of off)   sync \
             {waiting:>9.0}/s ({:.2} of async)",
            without_waiting / off,
            waiting / without_waiting
        );
    }
    asynchronous.close();
    synchronous.close();
}

/// Decisions a second without a record.
async fn decide_rate(engine: &Arc<Engine>, in_flight: usize, time: Duration) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks = (0..in_flight).map(|task| {
        let (engine, count) = (Arc::clone(engine), Arc::clone(&count));
        tokio::spawn(async move {
            let mut traffic = Traffic::new();
            traffic.random.0 += task as u64;
            while begun.elapsed() < time {
                for _ in 0..16 {
                    let request = traffic.next();
                    let published = engine.directory().organization("default").unwrap();
                    let cluster = engine.directory().cluster();
                    let target = NodePath::parse(request.endpoint).unwrap();
                    let now = engine.clock().now();
                    let (address, connection_type) = (request.address, request.connection_type);
                    let snapshot = &published.snapshot;
                    let verdict = snapshot.decide(&cluster.snapshot, address, connection_type, &target, now);
                    std::hint::black_box(verdict.decision());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// One new deny rule revokes 1,000 of 100,000 open sessions.
async fn revoke() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), Durability::Async);
    config.record.session_max_age = Duration::from_hours(1);
    let engine = portcullis::server::open(&config).unwrap();
    let (mut shells, mut kept) = (0, 0);
    while shells < 100_000_u32 {
        let inside = shells.is_multiple_of(100);
        kept += u32::from(!inside);
        let address = Address::V4(if inside { 0xC633_0000 + shells / 100 } else { 0x0A00_0000 + shells });
        let endpoint = format!("organizations/default/projects/team-{}", shells % 40);
        let email = format!("user-{}@example.com", shells % 3_000);
        let connection_type = ConnectionType::Shell;
        check(&engine, &Request { email: &email, address, connection_type, endpoint: &endpoint }).await;
        shells += 1;
    }
    durable(&engine, u64::from(shells)).await;
    let filter = RecordFilter { types: vec![RecordType::SessionRevoked], ..RecordFilter::default() };
    let before = engine.audit().newest_sequence();
    add_rule(&engine, "new", "198.51.0.0/16").await;
    let acknowledged = Instant::now();
    // The change itself, and 1,000 revocations.
    durable(&engine, before + 1_001).await;
    let taken = acknowledged.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let revoked = engine.audit().count(&filter).unwrap();
    println!(
        "revoke: {shells} open sessions, {kept} not concerned; {revoked} revoked, the last event durable {taken:.1?} \
         after the acknowledgement (goal < 100 ms)"
    );
    engine.close();
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if wants("append") {
            append().await;
        }
        if wants("size") {
            size().await;
        }
        if wants("checks") {
            checks().await;
        }
        if wants("revoke") {
            revoke().await;
        }
        if wants("find") {
            find(10_000_000).await;
        }
    });
}
