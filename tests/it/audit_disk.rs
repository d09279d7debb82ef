//! Disks that are full, fail, or do not answer, under the audit log.
//!
//! Invariant: nothing is let through unrecorded in silence; no acknowledged record is lost; all heals without a restart.
//! Not here: crashes (`audit_crash`), and erasures that meet such a disk or a shutdown (`audit_erase`).

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, RecordType};
use portcullis::audit::session::EndReason;
use portcullis::engine::audit::{AuditError, AuditOptions, Durability, OnAuditFailure};
use portcullis::engine::question::CheckError;
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::store::disk::{Disk, DiskFile, RealDisk};
use tokio::time::Instant;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::audit_api::check_of;
use crate::audit_engine::{DEFAULT, check, key, open_on, recorded, settle};
use crate::audit_load::{self, Model};
use crate::harness::assert_error;
use crate::process::{Process, skipped};

/// A disk whose switches make syncs and writes fail, or wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    pub(crate) fails: Arc<AtomicBool>,
    pub(crate) hangs: Arc<AtomicBool>,
    /// The thread of this name panics.
    pub(crate) panics: Arc<Mutex<Option<&'static str>>>,
    /// How many milliseconds each takes in addition.
    pub(crate) slow: Arc<AtomicU64>,
    /// Only writing and syncing files of this extension fails or waits.
    pub(crate) extension: Option<&'static str>,
}

#[derive(Debug)]
struct SwitchedFile {
    file: Box<dyn DiskFile>,
    switches: Switches,
}

impl Switches {
    fn pass(&self) -> io::Result<()> {
        let panics = *self.panics.lock().unwrap();
        assert!(panics.is_none() || std::thread::current().name() != panics, "as in a test");
        while self.hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(self.slow.load(Ordering::SeqCst)));
        if self.fails.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// As [`Self::pass`], for what changes names in a directory.
    fn pass_name(&self) -> io::Result<()> {
        if self.extension.is_some() { Ok(()) } else { self.pass() }
    }

    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        if self.extension.is_some_and(|only| path.extension().is_none_or(|extension| extension != only)) {
            return file;
        }
        Box::new(SwitchedFile { file, switches: self.clone() })
    }
}

impl Disk for Switches {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path).map(|file| self.wrap(path, file))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.pass_name()?;
        RealDisk.create(path).map(|file| self.wrap(path, file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass_name()?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.pass_name()?;
        RealDisk.sync_directory(directory)
    }
}

impl DiskFile for SwitchedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.switches.pass()?;
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.switches.pass()?;
        self.file.sync()
    }
    fn settle(&self) -> io::Result<()> {
        self.file.settle()
    }
}

fn options(on_failure: OnAuditFailure) -> Options {
    let audit = AuditOptions {
        shell: Durability::Sync,
        preview: Durability::Async,
        deadline: Duration::from_millis(300),
        on_failure,
        ..AuditOptions::default()
    };
    Options { audit, ..Options::default() }
}

pub(crate) fn open(data_dir: &Path, switches: &Switches, on_failure: OnAuditFailure) -> Engine {
    std::fs::create_dir_all(data_dir.join("audit")).unwrap();
    std::fs::create_dir_all(data_dir.join("sessions")).unwrap();
    open_on(Arc::new(switches.clone()), data_dir, key(1), options(on_failure))
}

pub(crate) async fn ask(engine: &Engine, connection_type: ConnectionType) -> Result<(), CheckError> {
    check(engine, "ada@example.com", "192.0.2.1", connection_type, DEFAULT).await.map(drop)
}

fn is_not_writable(result: &Result<(), CheckError>) -> bool {
    matches!(result, Err(CheckError::Audit(AuditError::NotWritable(_))))
}

/// Waits until the engine says that it is (not) writable.
async fn until_writable(engine: &Engine, writable: bool) {
    let mut state = engine.writable();
    tokio::time::timeout(Duration::from_secs(20), state.wait_for(|now| *now == writable)).await.unwrap().unwrap();
}

fn count(engine: &Engine, record_type: RecordType) -> u64 {
    engine.audit().count(&RecordFilter { types: vec![record_type], ..RecordFilter::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_refuses_every_check_until_it_heals_and_loses_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    let engine = open(directory.path(), &switches, OnAuditFailure::Deny);
    ask(&engine, ConnectionType::Shell).await.unwrap();
    switches.fails.store(true, Ordering::SeqCst);
    // Queued before anybody knows; then nothing more is let through, whatever its durability.
    ask(&engine, ConnectionType::Preview).await.unwrap();
    until_writable(&engine, false).await;
    for connection_type in [ConnectionType::Preview, ConnectionType::Shell] {
        let refused = ask(&engine, connection_type).await;
        assert!(is_not_writable(&refused), "{refused:?}");
    }
    let before = count(&engine, RecordType::Decision);
    assert_eq!(before, 1, "what is shown is durable");
    switches.fails.store(false, Ordering::SeqCst);
    until_writable(&engine, true).await;
    ask(&engine, ConnectionType::Shell).await.unwrap();
    assert_eq!(count(&engine, RecordType::Decision), 3, "the record that waited is there");
    assert_eq!(count(&engine, RecordType::Gap), 0);
    engine.close();
    let verification = audit_load_verify(directory.path());
    assert!(verification.is_empty(), "{verification:?}");
}

fn audit_load_verify(data_dir: &Path) -> Vec<(u64, String)> {
    let verifier = key(1).verifier().to_string();
    portcullis::server::verify_audit(data_dir, Some(&verifier), None, &mut |_, _| true).unwrap().faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_configured_checks_go_on_unrecorded_and_the_gap_is_on_record() {
    let directory = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    let engine = open(directory.path(), &switches, OnAuditFailure::Allow);
    switches.fails.store(true, Ordering::SeqCst);
    ask(&engine, ConnectionType::Preview).await.unwrap();
    until_writable(&engine, false).await;
    for _ in 0..7 {
        let answer = check(&engine, "", "192.0.2.1", ConnectionType::Shell, DEFAULT).await.unwrap();
        assert_eq!(answer.session, None, "nobody would know of it after a crash");
        assert_eq!(answer.sequence, 0, "there is no record to name");
    }
    switches.fails.store(false, Ordering::SeqCst);
    until_writable(&engine, true).await;
    // The writer tells of the gap after it has said that it is writable.
    recorded(&engine, RecordType::Gap, 1).await;
    let filter = RecordFilter { types: vec![RecordType::Gap], ..RecordFilter::default() };
    let gaps = engine.audit().list(&filter, None, 10).unwrap().records;
    let Content::Gap(gap) = &gaps[0].entry.content else { panic!() };
    assert_eq!((gaps.len(), gap.count), (1, 7));
    assert!(gap.from_time <= gap.to_time);
    engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_is_given_up_on_in_time_and_the_session_is_abandoned() {
    let directory = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    let engine = open(directory.path(), &switches, OnAuditFailure::Deny);
    ask(&engine, ConnectionType::Shell).await.unwrap();
    switches.hangs.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let refused = ask(&engine, ConnectionType::Shell).await;
    assert!(is_not_writable(&refused), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until_writable(&engine, false).await;
    let refused = ask(&engine, ConnectionType::Preview).await;
    assert!(is_not_writable(&refused), "at once: {refused:?}");
    switches.hangs.store(false, Ordering::SeqCst);
    until_writable(&engine, true).await;
    settle(&engine).await;
    // The refused check is on the record, and so is the end of the session whose answer never left.
    assert_eq!(count(&engine, RecordType::Decision), 2);
    let filter = RecordFilter { types: vec![RecordType::SessionEnded], ..RecordFilter::default() };
    let ended = engine.audit().list(&filter, None, 10).unwrap().records;
    let Content::SessionEnded(session) = &ended[0].entry.content else { panic!() };
    assert_eq!((ended.len(), session.end.unwrap().reason), (1, EndReason::Abandoned));
    assert_eq!(engine.sessions().len(), 1);
    engine.close();
}

/// A small file system of the test's own.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path, bytes: usize) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() { Ok(Self(at)) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

async fn serving(process: &Process) -> bool {
    let mut health = HealthClient::new(process.connect().await);
    let answer = health.check(HealthCheckRequest { service: String::new() }).await;
    answer.is_ok_and(|answer| answer.into_inner().status == 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_says_so_and_recovers_when_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("disk");
    let _tmpfs = match Tmpfs::mount(&at, 24 << 20) {
        Ok(tmpfs) => tmpfs,
        Err(why) => return skipped("a full disk", &format!("needs root and tmpfs: {why}")),
    };
    let data_dir = at.join("data");
    let model = Arc::new(Mutex::new(Model::default()));
    let process = Process::start(&data_dir);
    let channel = process.connect().await;
    audit_load::prepare(&channel).await;
    // All of the room but a little is taken by somebody else.
    let filler = at.join("filler");
    let mut size = 24 << 20;
    while size > 0 && std::fs::write(&filler, vec![1; size]).is_err() {
        size -= 1 << 20;
    }
    let clients = audit_load::start(&channel, &model);
    // Clients end with the first error that they get.
    for client in clients {
        tokio::time::timeout(Duration::from_mins(2), client).await.expect("the disk is never full").unwrap();
    }
    let died = Instant::now();
    let request = check_of("", "10.0.0.1", ConnectionType::Shell.into_api(), DEFAULT);
    let refused = DecisionServiceClient::new(channel.clone()).check(request).await;
    assert_error(refused, Code::Unavailable, "AUDIT_NOT_WRITABLE");
    assert!(!serving(&process).await, "health says so");
    std::fs::remove_file(&filler).unwrap();
    let healed = async {
        while !serving(&process).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healed).await.expect("it heals without a restart");
    let clients = audit_load::start(&channel, &model);
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.kill();
    for client in clients {
        client.await.unwrap();
    }
    let process = Process::start(&data_dir);
    audit_load::verify(process.connect().await, &model, died).await;
    assert!(model.lock().unwrap().sync_checks > 100);
    process.kill();
}

/// Between the two ways in which a connection type is written.
trait IntoApi {
    fn into_api(self) -> portcullis::proto::v1::ConnectionType;
}

impl IntoApi for ConnectionType {
    fn into_api(self) -> portcullis::proto::v1::ConnectionType {
        match self {
            Self::Shell => portcullis::proto::v1::ConnectionType::Shell,
            Self::Preview => portcullis::proto::v1::ConnectionType::Preview,
        }
    }
}
