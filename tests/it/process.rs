//! The service as a process of its own, for tests that kill it.
//!
//! Invariant: `start` returns when the process says SERVING; a process that is dropped is killed.
//! Not here: the service inside the test's process (`harness`).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::transport::Channel;

/// How long a process may take to serve or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `portcullis serve`.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts the service on a data directory and a free port.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::started(Self::try_start_with(data_dir, arguments, &[]))
    }

    /// The same with more variables in its environment.
    pub(crate) fn start_in(data_dir: &Path, environment: &[(&str, &str)]) -> Self {
        Self::started(Self::try_start_with(data_dir, &[], environment))
    }

    fn started(result: Result<Self, (ExitStatus, String)>) -> Self {
        match result {
            Ok(process) => process,
            Err((status, log)) => panic!("the service ended with {status} instead of serving:\n{log}"),
        }
    }

    /// The same; how it ended and what it said, where it does not serve.
    pub(crate) fn try_start(data_dir: &Path) -> Result<Self, (ExitStatus, String)> {
        Self::try_start_with(data_dir, &[], &[])
    }

    fn try_start_with(
        data_dir: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, (ExitStatus, String)> {
        let mut child = Command::new("sh")
            // A write beyond the limit of `limit_files` is then an error, and not the end.
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_portcullis")])
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .env_remove("PORTCULLIS_CONFIG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = follow_log(&mut child);
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if let Some(address) = address_in(&line) {
                return Ok(Self { child, address, log });
            }
        }
        let _ = child.kill();
        let status = child.wait().unwrap();
        let log = log.lock().unwrap().clone();
        Err((status, log))
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Has every further write to a file fail.
    pub(crate) fn limit_files(&self) {
        let limited = Command::new("prlimit").args(["--fsize=1", "--pid", &self.child.id().to_string()]).status();
        assert!(limited.unwrap().success());
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in the regular way.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        (status, self.log())
    }
}

impl Process {
    /// Ends it in the regular way; fails where that takes longer than `bound`. How it ended, and all that it said.
    pub(crate) async fn terminate_within(mut self, bound: Duration) -> (ExitStatus, String) {
        self.signal("TERM");
        let ended = tokio::time::timeout(bound, async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let status = ended.await.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log()));
        // Nobody writes to the log any more once its reader holds the only reference.
        while Arc::strong_count(&self.log) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (status, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log on a thread, so that the process never waits for a reader.
fn follow_log(child: &mut Child) -> (Receiver<String>, Arc<Mutex<String>>) {
    let (sender, lines) = channel();
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
            drop(kept);
            let _ = sender.send(line);
        }
    });
    (lines, log)
}

/// The address in the log line that says the service serves.
fn address_in(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == "serving gRPC").then(|| line["address"].as_str().unwrap().to_owned())
}

/// Says on the terminal, past the test runner's capture, that a test was skipped and why.
pub(crate) fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
