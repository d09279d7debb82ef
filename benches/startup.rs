//! What a start costs, in time and memory, and whether many organizations make a change in one of them dearer.
//!
//! Run with `PORTCULLIS_TEST_DATA=… cargo bench --bench startup`. Two data directories are made: 10,000 organizations of
//! 10 rules and 2 projects each, and one organization with a group of 1,000,000 ranges in a deny rule. Each is opened by a
//! process of its own, again and again, on one core (`taskset`) and on all by turns; it says how long it took until a
//! Check was answered, and what is resident then.
//!
//! Invariant: what is started is what a server starts, from real files; ratios are of times taken by turns in one run.
//! Not here: listening (`serving`), what compiling one large policy costs (`compile`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench that goes wrong ends, and reports to its terminal"
)]

#[expect(dead_code, reason = "only some of what the benches share is needed")]
mod data;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::lineage::Lineage;
use portcullis::audit::note::SignerKey;
use portcullis::config::Config;
use portcullis::engine::audit::AuditStores;
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::engine::clock::Clock;
use portcullis::engine::question::Question;
use portcullis::engine::{Engine, Options, SessionStores, Stores, parallel};
use portcullis::policy::document::Document;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node, NodePatch};
use portcullis::policy::organization::Organization;
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType, RulePatch, Source};
use portcullis::policy::snapshot::Snapshot;
use portcullis::policy::time::Timestamp;
use portcullis::store::directory::DataDirectory;
use portcullis::store::disk::{Disk, RealDisk};
use portcullis::store::journal::{FileJournal, JournalOptions, MemoryJournal, Stream};
use portcullis::store::snapshots::{FileSnapshots, MemorySnapshots};
use portcullis::store::state::MemoryState;
use portcullis::store::{Journal, JournalError, StateError, StateStore, StateStores};
use tokio::task::JoinSet;

use data::Family;

/// Names the data directory that a process is to open.
const DIRECTORY: &str = "PORTCULLIS_BENCH_DIRECTORY";

const ORGANIZATIONS: usize = 10_000;
const RULES: usize = 10;
const RANGES: usize = 1_000_000;
const ROUNDS: usize = 7;
/// Copies of everything compiled that are kept to see what they take.
const COPIES: usize = 8;
/// Changes that wait at the same time while a directory is made; they share syncs.
const IN_FLIGHT: usize = 256;

/// The policies: real ranges, allowed and denied by turns; a project with a list and one without.
fn organizations(count: usize) -> Vec<Organization> {
    let blocks = data::ranges::<u32>(u32::ANNOUNCED, count * RULES);
    let wide = data::ranges::<u128>(u128::ANNOUNCED, count);
    let policies = blocks.chunks(RULES).zip(&wide).enumerate();
    policies
        .map(|(number, (blocks, wide))| {
            let name = format!("organization-{number}");
            let node = |access| Arc::new(Node::new(access, Timestamp::default(), 1));
            let mut organization =
                Organization::new(data::id(&name), 1, Node::new(Access::AllowAll, Timestamp::default(), 1));
            let sources = blocks[1..].iter().map(|block| u32::range(*block)).chain([u128::range(*wide)]);
            let actions = [Action::Deny, Action::Allow].into_iter().cycle();
            data::set_rules(&mut organization, actions.zip(sources.map(Source::Range)));
            let entry = AccessEntry { source: Source::Range(u32::range(blocks[0])), description: "".into() };
            for (project, access) in [("shop", Access::AllowList([entry].into())), ("blog", Access::AllowAll)] {
                let key =
                    NodePath::parse(&format!("organizations/{name}/projects/{project}")).map(|path| NodeKey::of(&path));
                organization.nodes.insert(key.unwrap().unwrap(), node(access));
            }
            organization
        })
        .collect()
}

fn replace_policy(organization: &Organization) -> ChangeRequest {
    let mutation = Mutation::ReplacePolicy {
        document: Box::new(Document::of(organization)),
        etag: None,
        goes_back: false,
        force: true,
    };
    ChangeRequest::new(ChangeTarget::Organization { id: organization.id.clone(), mutation })
}

async fn fill(engine: &Arc<Engine>, organizations: Vec<Organization>) {
    let mut tasks = JoinSet::new();
    for organization in organizations {
        let engine = Arc::clone(engine);
        tasks.spawn(async move {
            let create = ChangeTarget::CreateOrganization { id: organization.id.clone(), patch: NodePatch::default() };
            engine.change(ChangeRequest::new(create)).await.unwrap();
            engine.change(replace_policy(&organization)).await.unwrap();
        });
        if tasks.len() >= IN_FLIGHT {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

/// What a process says about its start.
#[derive(Clone, Copy)]
struct Started {
    millis: f64,
    resident_mib: f64,
    highest_mib: f64,
}

/// Opens the directory, answers a Check, reports, and ends in order.
async fn start(directory: &str) {
    let config = Config::for_data_dir(directory);
    let mut opened = None;
    let time = data::time(|| opened = Some(portcullis::server::open(&config).unwrap()));
    let engine = opened.unwrap();
    let (mut answered, question) = (None, question("organizations/default"));
    let more = {
        let begun = tokio::time::Instant::now();
        answered.replace(engine.check(&question).await.unwrap());
        begun.elapsed()
    };
    black_box(answered);
    println!("{} {} {}", (time + more).as_secs_f64() * 1e3, status_mib("VmRSS:"), status_mib("VmHWM:"));
    engine.close();
}

fn question(target: &'static str) -> Question<'static> {
    Question {
        address: "192.0.2.1".parse().unwrap(),
        connection_type: ConnectionType::Shell,
        target: NodePath::parse(target).unwrap(),
        user_email: "",
        session_lease: None,
        request_id: "",
        min_revision: 0,
        min_cluster_revision: 0,
    }
}

fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// One start in a process of its own.
fn started(directory: &Path, one_core: bool) -> Started {
    let executable = std::env::current_exe().unwrap();
    let mut command = if one_core {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0"]).arg(executable);
        command
    } else {
        Command::new(executable)
    };
    let output = command.env(DIRECTORY, directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let values: Vec<f64> = text.split_whitespace().map(|value| value.parse().unwrap()).collect();
    let [millis, resident_mib, highest_mib] = values[..] else {
        panic!("a start failed: {}", String::from_utf8_lossy(&output.stderr))
    };
    Started { millis, resident_mib, highest_mib }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report_starts(what: &str, directory: &Path) {
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(started(directory, true));
        all.push(started(directory, false));
    }
    let cores = std::thread::available_parallelism().unwrap();
    let millis = |starts: &[Started]| median(starts.iter().map(|start| start.millis));
    println!(
        "start with {what}: {:.0} ms on {cores} cores, {:.0} ms on one (×{:.2}); resident {:.1} MiB, {:.1} MiB at its highest",
        millis(&all),
        millis(&one),
        millis(&one) / millis(&all),
        median(all.iter().map(|start| start.resident_mib)),
        median(all.iter().map(|start| start.highest_mib)),
    );
}

fn compile(organizations: &[Organization], threads: usize) -> Vec<(Snapshot, MembersCache)> {
    parallel::map(organizations, threads, |organization| {
        let mut cache = MembersCache::default();
        (Snapshot::compile(organization, &mut cache), cache)
    })
}

/// Compiling all organizations as a start does, on one thread and on one for each core; and the memory of what comes out.
fn report_compiling(organizations: &[Organization]) {
    let threads = parallel::threads();
    let run = |threads| {
        let mut compiled = Vec::new();
        let time = data::time(|| compiled = compile(organizations, threads));
        drop(black_box(compiled));
        time
    };
    let times = data::side_by_side(15, &mut [&mut || run(1), &mut || run(threads)]);
    // The first copies fill what the process has and does not use; the others have to be asked for.
    let mut copies: Vec<_> = (0..2).map(|_| compile(organizations, 1)).collect();
    let before = status_mib("VmRSS:");
    copies.extend((0..COPIES).map(|_| compile(organizations, 1)));
    let each = (status_mib("VmRSS:") - before) / COPIES as f64;
    drop(black_box(copies));
    println!(
        "compiling {} organizations of {RULES} rules and 2 projects: {:.1} ms on one thread, {:.1} ms on {threads} \
         (×{:.2}); what is compiled takes {each:.1} MiB",
        organizations.len(),
        times[0] / 1e6,
        times[1] / 1e6,
        times[0] / times[1]
    );
}

/// An engine whose policy is kept in memory, so that a change waits for no disk.
fn without_disk(directory: &Path) -> Engine {
    struct Memory;
    impl StateStores for Memory {
        fn open(&self) -> Result<Box<dyn StateStore>, StateError> {
            Ok(Box::new(MemoryState::new()))
        }
    }
    let data = DataDirectory::open(directory).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (audit_disk, audit) = (Arc::clone(&disk), data.audit());
    let journal = move |first_sequence| -> Result<Box<dyn Journal>, JournalError> {
        let options = JournalOptions::audit(first_sequence);
        Ok(Box::new(FileJournal::open(audit_disk, audit, options)?))
    };
    let key = SignerKey::new("bench.example/audit", &[7; 32]).unwrap();
    let options = JournalOptions { stream: Stream::Sessions, ..JournalOptions::default() };
    let sessions = FileJournal::open(Arc::clone(&disk), data.sessions(), options).unwrap();
    let stores = Stores {
        journal: Box::new(MemoryJournal::new()),
        snapshots: Box::new(MemorySnapshots::new()),
        state: Box::new(Memory),
        audit: AuditStores {
            journal: Box::new(journal),
            disk: Arc::clone(&disk),
            directory: data.audit(),
            key,
            make_room: Box::new(|| {}),
        },
        sessions: SessionStores {
            snapshots: Box::new(FileSnapshots::new(disk, data.sessions()).newest_only()),
            journal: Box::new(sessions),
        },
        lineage: Lineage::new(1),
        backup: None,
        keep: Box::new(data),
    };
    Engine::open(stores, Options::default(), Clock::system()).unwrap()
}

/// Turns a rule of one organization over, until it is visible.
fn change(runtime: &tokio::runtime::Runtime, engine: &Engine, turn: &mut usize) -> Duration {
    *turn += 1;
    let action = if turn.is_multiple_of(2) { Action::Deny } else { Action::Allow };
    let patch = RulePatch { action: Some(action), ..RulePatch::default() };
    let mutation = Mutation::UpdateRule { id: data::id("rule-3"), etag: None, patch };
    let target = ChangeTarget::Organization { id: data::id("organization-7"), mutation };
    let request = ChangeRequest::new(target);
    data::time(|| drop(runtime.block_on(engine.change(request)).unwrap()))
}

/// A change in one organization among few, and among many.
fn report_changes(runtime: &tokio::runtime::Runtime) {
    let counts = [10, ORGANIZATIONS];
    let directories = counts.map(|_| tempfile::tempdir().unwrap());
    let engines = directories.each_ref().map(|directory| Arc::new(without_disk(directory.path())));
    for (engine, count) in engines.iter().zip(counts) {
        runtime.block_on(fill(engine, organizations(count)));
    }
    let (mut first, mut second) = (0, 0);
    let [few, many] = &engines;
    let mut few = || change(runtime, few, &mut first);
    let mut many = || change(runtime, many, &mut second);
    data::side_by_side(1_000, &mut [&mut few, &mut many]);
    let times = data::side_by_side(10_000, &mut [&mut few, &mut many]);
    println!(
        "a rule changed in one of {ORGANIZATIONS} organizations: {:.1} µs, in one of 10: {:.1} µs (×{:.2}), without disk",
        times[1] / 1e3,
        times[0] / 1e3,
        times[1] / times[0]
    );
}

/// Makes a data directory by way of the engine.
fn made(runtime: &tokio::runtime::Runtime, organizations: Vec<Organization>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let engine = Arc::new(portcullis::server::open(&Config::for_data_dir(directory.path())).unwrap());
    runtime.block_on(fill(&engine, organizations));
    engine.close();
    directory
}

fn with_a_large_group() -> Organization {
    let mut organization = Organization { id: Id::parse("large").unwrap(), ..data::organization() };
    let ranges = data::ranges::<u32>(u32::ANNOUNCED, RANGES);
    data::add_group(&mut organization, "listed", ranges.into_iter().map(u32::range));
    data::set_rules(&mut organization, [(Action::Deny, Source::Group(data::id("listed")))]);
    organization
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return runtime.block_on(start(directory.to_str().unwrap()));
    }
    data::print_origin();
    if !data::is_measuring() {
        return;
    }
    report_compiling(&organizations(ORGANIZATIONS));
    let empty = made(&runtime, Vec::new());
    report_starts("the first organization alone", empty.path());
    let many = made(&runtime, organizations(ORGANIZATIONS));
    report_starts(&format!("{ORGANIZATIONS} organizations of {RULES} rules and 2 projects"), many.path());
    let large = made(&runtime, vec![with_a_large_group()]);
    report_starts(&format!("a group of {RANGES} ranges in a deny rule"), large.path());
    report_changes(&runtime);
}
