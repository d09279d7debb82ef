//! The service as a process of its own: the built `portcullis`, on loopback, with a data directory of its own.
//!
//! Invariant: a process that is dropped is killed. Every line it logged is kept, so that a warning is not missed.
//! Not here: what it is asked (`load`, `changes`, `watch`).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How long it may take to serve.
const PATIENCE: Duration = Duration::from_mins(5);

/// Sessions end after this long, previews when nothing came for as long: a portal has far fewer connections a second,
/// and would have as many open as this load has.
const SESSION_AGE: &str = "5s";

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    log: Arc<Log>,
}

/// What it has logged so far.
#[derive(Default)]
struct Log {
    bytes: AtomicU64,
    /// Warnings and errors.
    complaints: Mutex<Vec<String>>,
}

/// What a process takes of memory, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Server {
    /// Starts `portcullis serve`, with defaults but for the ages of sessions, the place of the key and what `more` says.
    pub(crate) fn start(directory: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--session-idle", SESSION_AGE, "--session-max-age", SESSION_AGE])
            .args(more)
            .arg("--data-dir")
            .arg(data_dir(directory))
            .arg("--audit-key-file")
            .arg(directory.join("audit.key"))
            .env_remove("PORTCULLIS_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (serving, log) = follow_log(&mut child);
        // Killed where it does not serve.
        let mut server = Self { child, address: String::new(), log };
        server.address = serving.recv_timeout(PATIENCE).unwrap();
        server
    }

    pub(crate) async fn connect(&self) -> Channel {
        connect(&self.address).await.unwrap()
    }

    /// Warnings and errors that it logged so far.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.log.complaints.lock().unwrap().clone()
    }

    /// Bytes that it logged so far.
    pub(crate) fn logged(&self) -> u64 {
        self.log.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
        };
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// Processor time so far.
    pub(crate) fn processor(&self) -> Duration {
        processor(&self.child.id().to_string())
    }

    /// Ends it as an operator does; says how it ended where that is not in order.
    pub(crate) fn terminate(&mut self) -> Result<(), String> {
        let told = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let status = self.child.wait().unwrap();
        if status.success() { Ok(()) } else { Err(format!("the service ended with {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true).connect().await
}

/// Processor time of a process so far: a number, or `self`.
pub(crate) fn processor(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// The service makes it by itself, for itself alone.
pub(crate) fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Verifies the log while nobody uses it; the number of its records, removed ones included.
pub(crate) fn verify(directory: &Path) -> Result<u64, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["audit", "verify", "--output", "json", "--data-dir"])
        .arg(data_dir(directory))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| said.clone())?;
    // A 64-bit number is a text in the protocol's JSON.
    let size = result.get("treeSize").and_then(|size| size.as_str()?.parse().ok());
    match size {
        Some(size) if output.status.success() => Ok(size),
        _ => Err(said),
    }
}

/// Bytes of everything below a directory.
pub(crate) fn bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes(&path) } else { path.metadata().unwrap().len() }).sum()
}

/// Reads the log on a thread, so that the process never waits for a reader: where it serves, and what it complains of.
fn follow_log(child: &mut Child) -> (Receiver<String>, Arc<Log>) {
    let (sender, serving) = channel();
    let log = Arc::<Log>::default();
    let kept = Arc::clone(&log);
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            kept.bytes.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let text = |key: &str| read.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
            if text("message") == "serving gRPC" {
                drop(sender.send(text("address").to_owned()));
            }
            if text("level") != "INFO" {
                kept.complaints.lock().unwrap().push(line);
            }
        }
    });
    (serving, log)
}
