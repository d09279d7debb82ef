//! Files that are no whole backups, directories that are not empty, and clients that stall or vanish.
//!
//! Invariant: what is refused leaves nothing that a server would start with; what a client does stops only its own backup.
//! Not here: what a whole backup restores to (`backup`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portcullis::proto::v1::maintenance_service_client::MaintenanceServiceClient;
use portcullis::proto::v1::{Action, BackupRequest, BackupResponse, ConnectionType, EraseUserRequest};
use portcullis::store::backup::{BackupError, Members, Unpacker};
use tonic::Code;

use crate::audit_api::check_of;
use crate::backup::{offline, path, printed, put_key_back, restore, stream, take};
use crate::clock::until;
use crate::harness::{Service, assert_error, command_line};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";

/// More than all buffers between server and client hold.
const LARGE_BYTES: usize = 48 << 20;

fn refused(bytes: &[u8]) -> Option<BackupError> {
    let mut unpacker = Unpacker::new(());
    bytes.chunks(1_000).find_map(|piece| unpacker.push(piece).err()).or_else(|| unpacker.finish().err())
}

/// A service with a rule and some records.
async fn filled() -> Service {
    let service = Service::start().await;
    service.add_rule("bad", Action::Deny, "203.0.113.0/24").await;
    for number in 0..20 {
        let request = check_of("ada@example.com", &format!("10.0.0.{number}"), ConnectionType::Shell, DEFAULT);
        service.decisions().check(request).await.unwrap();
    }
    service
}

/// Writes a file that a backup takes along, so that it is large.
fn make_large(data_dir: &Path) {
    std::fs::write(data_dir.join("policy/large"), vec![7; LARGE_BYTES]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_was_altered_anywhere_is_refused() {
    let service = filled().await;
    let bytes = stream(&service).await;
    service.stop().await;
    assert!(refused(&bytes).is_none());
    for offset in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[offset] ^= 1;
        assert!(refused(&altered).is_some(), "byte {offset} of {} may be anything", bytes.len());
    }
    for length in 0..bytes.len() {
        let error = refused(&bytes[..length]);
        assert!(matches!(error, Some(BackupError::CutOff { .. })), "{length} bytes: {error:?}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(refused(&longer), Some(BackupError::Damaged { .. })));
}

/// Blocks of a file, as the format has them.
fn block(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut block = vec![kind, 0, 0, 0];
    block.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&block), payload);
    block.extend(crc.to_le_bytes());
    block.extend(payload);
    block
}

/// The hazard: a made-up backup that writes outside of the directory.
#[test]
fn a_member_never_leaves_the_data_directory() {
    struct Names;
    impl Members for Names {
        fn begin(&mut self, name: &str) -> Result<(), BackupError> {
            panic!("`{name}` is let through")
        }
        fn bytes(&mut self, _: &[u8]) -> Result<(), BackupError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), BackupError> {
            Ok(())
        }
    }
    for name in ["../x", "/etc/passwd", "policy/../../x", "audit/a/b", "audit/", "audit.key", "sled/db", "audit/.x", ""]
    {
        let mut unpacker = Unpacker::new(Names);
        unpacker.push(b"PCBACKU\xa7\x01\0\0\0\0\0\0\0").unwrap();
        unpacker.push(&block(1, &[0; 32])).unwrap();
        assert!(matches!(unpacker.push(&block(2, name.as_bytes())), Err(BackupError::Damaged { .. })), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_backup_is_refused_by_name_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let service = filled().await;
    let whole = directory.path().join("whole");
    take(&service, &whole).await;
    service.stop().await;
    let bytes = std::fs::read(&whole).unwrap();
    let altered = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    let middle = bytes.len() / 2;
    let cases = [
        ("truncated", bytes[..middle].to_vec(), "cut off"),
        ("altered", altered(middle, !bytes[middle]), "damaged at byte"),
        ("foreign", b"-- PostgreSQL database dump".to_vec(), "no backup of portcullis"),
        ("empty", Vec::new(), "cut off"),
        ("newer", altered(8, 9), "format version 9"),
    ];
    for (name, bytes, expected) in cases {
        let (file, data_dir) = (directory.path().join(name), directory.path().join(format!("{name}-data")));
        std::fs::write(&file, bytes).unwrap();
        let output = restore(&file, &data_dir).await;
        assert_eq!(output.status.code(), Some(1), "{name}: {}", printed(&output));
        assert!(printed(&output).contains(expected), "{name}: {}", printed(&output));
        let left: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "LOCK"), "{name}: {left:?}");
        // So the same command works with another file.
        let output = restore(&whole, &data_dir).await;
        assert!(output.status.success(), "{name}: {}", printed(&output));
    }
    // A log that another key signed than the one that is trusted.
    let data_dir = directory.path().join("forged");
    let stranger = crate::audit_engine::key(9).verifier().to_string();
    let args = ["restore", path(&whole), "--data-dir", path(&data_dir), "--public-key", &stranger];
    let output = offline(&args).await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("not this log's"), "{}", printed(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_changes_nothing_that_exists() {
    let directory = tempfile::tempdir().unwrap();
    let service = filled().await;
    let file = directory.path().join("backup");
    take(&service, &file).await;
    let in_use = restore(&file, service.data_dir()).await;
    assert_eq!(in_use.status.code(), Some(1), "{}", printed(&in_use));
    service.stop().await;
    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("note"), "mine").unwrap();
    let output = restore(&file, &other).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("is not empty"), "{}", printed(&output));
    assert_eq!(std::fs::read_to_string(other.join("note")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
}

/// The hazard: a half directory that looks like a whole one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_killed_leaves_a_directory_that_no_server_starts_with() {
    let directory = tempfile::tempdir().unwrap();
    let service = filled().await;
    let file = directory.path().join("backup");
    take(&service, &file).await;
    let original = directory.path().join("key");
    std::fs::create_dir(&original).unwrap();
    put_key_back(service.data_dir(), &original);
    service.stop().await;
    let bytes = std::fs::read(&file).unwrap();
    for part in [0, 1, 2, 3] {
        let data_dir: PathBuf = directory.path().join(format!("data-{part}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["restore", "-", "--data-dir", path(&data_dir)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&bytes[..bytes.len() * part / 4]).unwrap();
        input.flush().unwrap();
        until("the restore has begun", async || data_dir.join("RESTORING").exists().then_some(())).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let Err((status, log)) = Process::try_start(&data_dir) else { panic!("it serves a half restore") };
        assert!(!status.success() && log.contains("restore the backup again"), "{log}");
        let again = restore(&file, &data_dir).await;
        assert_eq!(again.status.code(), Some(1));
        assert!(printed(&again).contains("remove the directory"), "{}", printed(&again));
        std::fs::remove_dir_all(&data_dir).unwrap();
        let again = restore(&file, &data_dir).await;
        assert!(again.status.success(), "{}", printed(&again));
        put_key_back(&original, &data_dir);
        drop(Process::start(&data_dir));
    }
}

/// The hazard: whoever takes a backup slowly holds up the service, or another backup for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_or_goes_away_stops_only_its_own_backup() {
    let directory = tempfile::tempdir().unwrap();
    let service = filled().await;
    make_large(service.data_dir());
    let mut client = MaintenanceServiceClient::new(service.channel.clone());
    let mut parts = client.backup(BackupRequest {}).await.unwrap().into_inner();
    let mut bytes = parts.message().await.unwrap().unwrap().data;
    // Nothing is read for now. Checks, changes and checkpoints go on.
    for number in 0..50 {
        service.check(&format!("192.0.2.{number}"), DEFAULT).await;
    }
    service.add_rule("later", Action::Deny, "198.51.100.0/24").await;
    crate::audit_watch::signed_size(&service.channel, 70).await;
    let other = MaintenanceServiceClient::new(service.channel.clone()).backup(BackupRequest {}).await;
    assert_error(other, Code::Unavailable, "OVERLOADED");
    // It is whole and shows the moment at which it began.
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.data);
    }
    assert!(bytes.len() > LARGE_BYTES && refused(&bytes).is_none());
    let (file, restored) = (directory.path().join("slow"), directory.path().join("restored"));
    std::fs::write(&file, &bytes).unwrap();
    let output = restore(&file, &restored).await;
    assert!(output.status.success() && printed(&output).contains(", 3 changes"), "{}", printed(&output));

    // One that goes away: what was held for it is released, and the next backup is taken.
    let held = service.data_dir().join("backup");
    until("the first is released", async || (!held.exists()).then_some(())).await;
    let mut parts = client.backup(BackupRequest {}).await.unwrap().into_inner();
    parts.message().await.unwrap().unwrap();
    assert!(held.exists());
    drop(parts);
    until("the second is released", async || (!held.exists()).then_some(())).await;
    assert!(refused(&stream(&service).await).is_none());
    service.stop().await;
}

/// The hazard: erased data stays in what a crash left of a backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_removes_what_a_killed_service_held_for_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    make_large(directory.path());
    let mut client = MaintenanceServiceClient::new(process.connect().await);
    let mut parts = client.backup(BackupRequest {}).await.unwrap().into_inner();
    parts.message().await.unwrap().unwrap();
    process.kill();
    let held = directory.path().join("backup");
    assert!(held.exists());
    let process = Process::start(directory.path());
    assert!(!held.exists());
    let (status, log) = process.terminate();
    assert!(status.success(), "{log}");
}

/// The hazard: erased data stays on the disk, and in the copy, for as long as somebody holds a backup open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_ends_the_backup_that_may_hold_what_was_erased() {
    let service = filled().await;
    make_large(service.data_dir());
    let mut client = MaintenanceServiceClient::new(service.channel.clone());
    let mut parts = client.backup(BackupRequest {}).await.unwrap().into_inner();
    parts.message().await.unwrap().unwrap();
    let request = EraseUserRequest {
        parent: "cluster".to_owned(),
        user_email: "ada@example.com".to_owned(),
        including_actor: true,
    };
    service.audit().erase_user(request).await.unwrap();
    let held = service.data_dir().join("backup");
    until("what was held is released", async || (!held.exists()).then_some(())).await;
    let status = ended(&mut parts).await;
    assert_error::<()>(Err(status), Code::Aborted, "BACKUP_OVERTAKEN");
    // The next one is whole, and without the person.
    let bytes = stream(&service).await;
    assert!(refused(&bytes).is_none());
    assert!(!bytes.windows(15).any(|window| window == b"ada@example.com"));
    service.stop().await;
}

/// How a stream ends.
async fn ended(parts: &mut tonic::Streaming<BackupResponse>) -> tonic::Status {
    loop {
        match parts.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ends as if it were whole"),
            Err(status) => return status,
        }
    }
}

/// The hazard: a service that is told to end waits for whoever takes a backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_service_ends_a_backup() {
    let service = filled().await;
    make_large(service.data_dir());
    let held = service.data_dir().join("backup");
    let mut client = MaintenanceServiceClient::new(service.channel.clone());
    let mut parts = client.backup(BackupRequest {}).await.unwrap().into_inner();
    parts.message().await.unwrap().unwrap();
    let stopping = tokio::spawn(service.stop());
    until("what was held is released", async || (!held.exists()).then_some(())).await;
    let status = ended(&mut parts).await;
    assert_error::<()>(Err(status), Code::Unavailable, "SHUTTING_DOWN");
    drop((parts, client));
    stopping.await.unwrap();
}

/// The hazard: what could not be removed once is in the way of every later backup; a stray file becomes part of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strays_are_neither_in_the_way_nor_in_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let service = filled().await;
    std::fs::create_dir(service.data_dir().join("backup")).unwrap();
    std::fs::write(service.data_dir().join("backup/left"), "behind").unwrap();
    for stray in ["notes.txt", "checkpoints.old", "00000000000000000001.seg.bak", "tree-1"] {
        std::fs::write(service.data_dir().join("audit").join(stray), "stray").unwrap();
    }
    let file = directory.path().join("backup");
    take(&service, &file).await;
    take(&service, &directory.path().join("again")).await;
    service.stop().await;
    let restored = directory.path().join("restored");
    let output = restore(&file, &restored).await;
    assert!(output.status.success(), "{}", printed(&output));
    let names = std::fs::read_dir(restored.join("audit")).unwrap().map(|entry| entry.unwrap().file_name());
    for name in names {
        let name = name.into_string().unwrap();
        assert!(name == "checkpoints" || name.strip_suffix(".wal").is_some(), "{name}");
    }
}

/// The hazard: a second backup to the same name empties the file of the first one, which then reports success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_to_one_name_do_not_write_into_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let service = filled().await;
    let (file, unfinished) = (directory.path().join("name"), directory.path().join("name.unfinished"));
    std::fs::write(&unfinished, "of another backup").unwrap();
    // While another process writes it, and while the server refuses.
    let other = std::fs::File::open(&unfinished).unwrap();
    other.lock().unwrap();
    let output = command_line(&service, &["backup", path(&file)], "").await;
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("another backup is writing"), "{}", printed(&output));
    drop(other);
    make_large(service.data_dir());
    let mut client = MaintenanceServiceClient::new(service.channel.clone());
    let mut parts = client.backup(BackupRequest {}).await.unwrap().into_inner();
    parts.message().await.unwrap().unwrap();
    let output = command_line(&service, &["backup", path(&file)], "").await;
    assert!(!output.status.success(), "{}", printed(&output));
    assert_eq!(std::fs::read_to_string(&unfinished).unwrap(), "of another backup");
    assert!(!file.exists());
    // What was left of one that was killed is replaced.
    drop(parts);
    let held = service.data_dir().join("backup");
    until("the backup is released", async || (!held.exists()).then_some(())).await;
    std::fs::remove_file(service.data_dir().join("policy/large")).unwrap();
    let output = command_line(&service, &["backup", path(&file)], "").await;
    assert!(output.status.success(), "{}", printed(&output));
    assert!(!unfinished.exists() && refused(&std::fs::read(&file).unwrap()).is_none());
    service.stop().await;
}
