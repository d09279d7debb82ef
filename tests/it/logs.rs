//! The log and its reader: one that goes away, one that stops reading, and a terminal without colours.
//!
//! Invariant: whatever becomes of the reader, the service answers, and a signal ends it with status 0 within a bound.
//! Not here: what is logged.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{ConnectionType, Decision, EraseUserRequest, GetCheckpointRequest};
use rustix::fs::{OFlags, fcntl_setfl};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use crate::audit_api::check_of;
use crate::terminal;

const DEFAULT: &str = "organizations/default";

/// How long a call, and the end of the process, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every frame of every connection: some 30 lines for each Check.
const EVERYTHING: &str = "trace,h2=trace,hyper=trace";

/// More than the queue of the log holds at [`EVERYTHING`].
const CHECKS: usize = 1_000;

/// A running `portcullis serve` whose log is read by the test.
struct Logged(Child);

impl Logged {
    fn spawn(data_dir: &Path, stderr: impl Into<Stdio>, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .env_remove("PORTCULLIS_CONFIG")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Starts it with a pipe, and reads that until the service serves.
    async fn serving(data_dir: &Path, filter: &str) -> (Self, BufReader<PipeReader>, PipeWriter, Channel) {
        let (reader, writer) = pipe().unwrap();
        let arguments = ["--log-format", "json", "--log-filter", filter];
        let service = Self::spawn(data_dir, writer.try_clone().unwrap(), &arguments, &[]);
        let mut reader = BufReader::new(reader);
        let line = line_with(&mut reader, "serving gRPC");
        let channel = Channel::from_shared(format!("http://{}", line["address"].as_str().unwrap())).unwrap();
        (service, reader, writer, channel.connect().await.unwrap())
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, async {
            loop {
                match self.0.try_wait().unwrap() {
                    Some(status) => return status,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
        .expect("the process did not end")
    }

    /// Ends it as a supervisor does.
    async fn terminate(&mut self) {
        self.signal("TERM");
        assert_eq!(self.ended().await.code(), Some(0));
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads lines of JSON until one has a text.
fn line_with(reader: &mut impl BufRead, text: &str) -> serde_json::Value {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the log ended without `{text}`");
    }
    serde_json::from_str(&line).unwrap()
}

/// Writes to a pipe until nothing more fits, and leaves it as it was: who writes waits.
fn fill(writer: &mut PipeWriter) {
    fcntl_setfl(&*writer, OFlags::NONBLOCK).unwrap();
    while writer.write(b"\n").map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock)).is_ok() {}
    fcntl_setfl(&*writer, OFlags::empty()).unwrap();
}

async fn check(channel: &Channel, email: &str) {
    let request = check_of(email, "192.0.2.1", ConnectionType::Shell, DEFAULT);
    let answer = timeout(PATIENCE, DecisionServiceClient::new(channel.clone()).check(request)).await;
    assert_eq!(answer.expect("no answer to `Check`").unwrap().into_inner().decision(), Decision::Allow);
}

/// Decides, signs and erases; each thread of the engine has something to do and to log.
async fn answers(channel: &Channel) {
    let mut audit = AuditServiceClient::new(channel.clone());
    for email in ["bob@example.com", "eve@example.com"] {
        check(channel, email).await;
        // The checkpoint that covers it has been logged once this returns.
        let checkpoint = || async {
            let mut audit = AuditServiceClient::new(channel.clone());
            let answer = timeout(PATIENCE, audit.get_checkpoint(GetCheckpointRequest {})).await;
            answer.expect("no answer to `GetCheckpoint`").ok().map(|answer| answer.into_inner().note)
        };
        let before = checkpoint().await;
        check(channel, email).await;
        timeout(PATIENCE, async {
            while checkpoint().await == before {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("no further checkpoint");
        let request =
            EraseUserRequest { parent: DEFAULT.to_owned(), user_email: email.to_owned(), ..Default::default() };
        let erased = timeout(PATIENCE, audit.erase_user(request)).await.expect("no answer to `EraseUser`");
        assert_eq!(erased.unwrap().into_inner().opening_count, Some(1));
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_hurts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut service, reader, writer, channel) = Logged::serving(&directory.path().join("data"), EVERYTHING).await;
    drop((reader, writer));
    answers(&channel).await;
    service.terminate().await;
}

#[tokio::test]
async fn what_nobody_reads_is_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut service, mut reader, mut writer, channel) =
        Logged::serving(&directory.path().join("data"), EVERYTHING).await;
    fill(&mut writer);
    for _ in 0..CHECKS {
        check(&channel, "ada@example.com").await;
    }
    answers(&channel).await;
    // The process alone holds the other end, so that reading ends with it.
    drop(writer);
    let reading = std::thread::spawn(move || {
        let dropped = line_with(&mut reader, "lines of this log were dropped");
        let mut rest = String::new();
        (dropped, reader.read_to_string(&mut rest).map(|_| rest).unwrap())
    });
    // Whoever reads again is told, also where nothing else is logged from then on.
    check(&channel, "ada@example.com").await;
    service.terminate().await;
    let (dropped, rest) = reading.join().unwrap();
    assert_eq!(dropped["level"], "WARN");
    assert!(dropped["lines"].as_u64().unwrap() > 0, "{dropped}");
    assert_eq!(rest.matches("lines of this log were dropped").count(), 0, "told once");
    assert!(rest.contains(r#""message":"stopped""#), "the last lines are written: {rest}");
}

#[tokio::test]
async fn a_reader_that_never_reads_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let (mut service, reader, mut writer, channel) = Logged::serving(&data_dir, EVERYTHING).await;
    fill(&mut writer);
    answers(&channel).await;

    // Nor that of a service that cannot start: the directory is in use.
    let (second_reader, mut second_writer) = pipe().unwrap();
    fill(&mut second_writer);
    let mut second = Logged::spawn(&data_dir, second_writer, &[], &[]);
    assert_eq!(second.ended().await.code(), Some(1));
    let mut said = String::new();
    BufReader::new(second_reader).read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), "", "nobody read it");

    service.terminate().await;
    drop(reader);
}

#[tokio::test]
async fn an_error_of_the_start_is_written_before_the_process_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    File::create(&file).unwrap();
    let (mut reader, writer) = pipe().unwrap();
    let mut service = Logged::spawn(&file, writer, &[], &[]);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(service.ended().await.code(), Some(1));
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert!(errors[0].contains(file.to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn the_start_says_what_is_enforced_and_checkpoints_are_for_debug() {
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, socket) = (directory.path().join("data"), directory.path().join("socket"));
    let socket = socket.to_str().unwrap();
    for (filter, has_checkpoints) in [("info", false), ("debug", true)] {
        let (reader, writer) = pipe().unwrap();
        let arguments =
            ["--log-format", "json", "--log-filter", filter, "--listen-unix", socket, "--audit-preview", "sync"];
        let mut service = Logged::spawn(&data_dir, writer, &arguments, &[]);
        let mut reader = BufReader::new(reader);
        let line = line_with(&mut reader, "serving gRPC");
        for (field, expected) in [
            ("unix_socket", socket),
            ("data_dir", data_dir.to_str().unwrap()),
            ("audit_shell", "sync"),
            ("audit_preview", "sync"),
            ("on_audit_failure", "deny"),
        ] {
            assert_eq!(line[field], expected, "{line}");
        }
        assert!(line["version"].as_str().unwrap().starts_with(env!("CARGO_PKG_VERSION")), "{line}");
        let channel = Channel::from_shared(format!("http://{}", line["address"].as_str().unwrap())).unwrap();
        answers(&channel.connect().await.unwrap()).await;
        service.terminate().await;
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest.contains("audit checkpoint"), has_checkpoints, "{rest}");
        let of_others = rest.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let of_others = of_others.filter(|line| !line["target"].as_str().unwrap().starts_with("portcullis"));
        assert_eq!(of_others.count(), 0, "{rest}");
    }
}

#[tokio::test]
async fn colours_are_for_terminals_that_want_them() {
    let directory = tempfile::tempdir().unwrap();
    for (name, environment, expected) in [
        ("plain", [].as_slice(), true),
        ("empty", &[("NO_COLOR", "")], true),
        ("no-color", &[("NO_COLOR", "1")], false),
        ("dumb", &[("TERM", "dumb")], false),
    ] {
        let (mut controller, terminal) = terminal::open();
        let mut service = Logged::spawn(&directory.path().join(name), terminal, &[], environment);
        let shown = terminal::read_until(&mut controller, "serving gRPC");
        assert!(shown.contains("serving gRPC"), "{name}: {shown}");
        assert_eq!(shown.contains('\u{1b}'), expected, "{name}: {shown:?}");
        service.terminate().await;
    }
}
