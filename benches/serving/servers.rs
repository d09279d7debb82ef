//! The servers, each a process of its own.
//!
//! Invariant: a server ends when it is dropped.
//! Not here: who asks them (`tonic_client`, `h2load`).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis::proto::v1;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::portal::nth_check;

/// Says that a process is to be the server that does nothing.
const NOTHING: &str = "PORTCULLIS_BENCH_NOTHING";

/// Names the binary of another version of Portcullis.
const OTHER: &str = "PORTCULLIS_BENCH_OTHER";

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A tonic server that does nothing.
    Nothing,
    /// Portcullis that cannot record anything and was told to decide nevertheless.
    Unrecorded,
    /// Portcullis with every record queued.
    Async,
    /// The same at its Unix socket.
    Socket,
    /// Portcullis with every record on the disk before its answer.
    Sync,
}

impl Role {
    pub(crate) const ALL: [Self; 5] = [Self::Nothing, Self::Unrecorded, Self::Async, Self::Socket, Self::Sync];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Unrecorded => "unrecorded",
            Self::Async => "async",
            Self::Socket => "async, Unix socket",
            Self::Sync => "sync",
        }
    }
}

/// Is the server that does nothing, where this process is to be that; tells its address on the standard output.
pub(crate) fn serve_nothing() -> bool {
    if std::env::var_os(NOTHING).is_none() {
        return false;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        super::nothing::serve(listener).await;
    });
    true
}

/// Which version of Portcullis a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    This,
    Other,
}

impl Version {
    fn binary(self) -> PathBuf {
        match self {
            Self::This => env!("CARGO_BIN_EXE_portcullis").into(),
            Self::Other => std::env::var_os(OTHER).unwrap().into(),
        }
    }
}

/// A server as a process, killed when it is dropped.
pub(crate) struct Server {
    pub(crate) role: Role,
    pub(crate) version: Version,
    pub(crate) address: String,
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    /// All that are measured. With another version to compare with, these are `async` and `sync` of both.
    pub(crate) fn start_all() -> Vec<Self> {
        use Version::{Other, This};
        if std::env::var_os(OTHER).is_none() {
            return Role::ALL.map(|role| Self::start(role, This)).into();
        }
        let (nothing, compared) = ((Role::Nothing, This), [Role::Async, Role::Sync]);
        let compared = compared.into_iter().flat_map(|role| [(role, This), (role, Other)]);
        std::iter::once(nothing).chain(compared).map(|(role, version)| Self::start(role, version)).collect()
    }

    fn start(role: Role, version: Version) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        Self::start_with(role, version, directory, &data, &[])
    }

    pub(crate) fn name(&self) -> String {
        match self.version {
            Version::This => self.role.name().to_owned(),
            Version::Other => format!("{}, other version", self.role.name()),
        }
    }

    /// One that waits for the disk that its data are on, for so long.
    pub(crate) fn start_at(data: &Path, audit_deadline: Duration) -> Self {
        let deadline = format!("{}ms", audit_deadline.as_millis());
        let directory = tempfile::tempdir().unwrap();
        Self::start_with(Role::Sync, Version::This, directory, data, &["--audit-deadline", &deadline])
    }

    fn start_with(role: Role, version: Version, directory: tempfile::TempDir, data: &Path, options: &[&str]) -> Self {
        let mut command = Command::new("sh");
        // A write beyond the limit on files is to fail, not to kill.
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
        if role == Role::Nothing {
            let mut child =
                command.arg(std::env::current_exe().unwrap()).env(NOTHING, "").stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            return Self { role, version, address: line.trim().to_owned(), child, directory };
        }
        let durability = if role == Role::Sync { "sync" } else { "async" };
        let on_failure = if role == Role::Unrecorded { "allow" } else { "deny" };
        command
            .arg(version.binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--audit-shell", durability, "--audit-preview", durability, "--on-audit-failure", on_failure])
            // Every shell stays open otherwise, and so many of them are no portal.
            .args(["--session-max-age", "2s", "--session-idle", "2s", "--limit-active-sessions", "100000000"])
            .arg("--data-dir")
            .arg(data)
            .args(options)
            .arg("--listen-unix")
            .arg(directory.path().join("socket"));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.by_ref().find_map(|line| address_in(&line.unwrap())).unwrap();
        // Whoever logs must not find the pipe full.
        std::thread::spawn(move || lines.count());
        Self { role, version, address, child, directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Processor time so far.
    pub(crate) fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).unwrap().parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Where it is asked.
    fn uri(&self) -> String {
        match self.role {
            Role::Socket => format!("unix:{}", self.socket().display()),
            _ => format!("http://{}", self.address),
        }
    }

    pub(crate) async fn connect(&self, connections: usize) -> Vec<Channel> {
        let endpoint = Endpoint::from_shared(self.uri()).unwrap().tcp_nodelay(true);
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(endpoint.connect().await.unwrap());
        }
        channels
    }

    /// Waits until it answers, and gives Portcullis something to decide.
    pub(crate) async fn prepare(&self) {
        let channel = self.connect(1).await.remove(0);
        let mut client = DecisionServiceClient::new(channel.clone());
        while client.check(nth_check(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if self.role == Role::Nothing {
            return;
        }
        let rule = v1::Rule {
            action: v1::Action::Deny.into(),
            source: Some(v1::rule::Source::Range("10.0.0.0/12".to_owned())),
            ..v1::Rule::default()
        };
        let parent = "organizations/default".to_owned();
        let create = v1::CreateRuleRequest { parent, rule: Some(rule), ..v1::CreateRuleRequest::default() };
        FirewallServiceClient::new(channel).create_rule(create).await.unwrap();
        if self.role == Role::Unrecorded {
            self.keep_from_recording();
            // A session means that it was still recorded.
            while !client.check(nth_check(1)).await.unwrap().into_inner().session.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Lets no file of the process grow.
    fn keep_from_recording(&self) {
        let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::prlimit(Some(process), rustix::process::Resource::Fsize, limit).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address in the line of the log that tells it.
fn address_in(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == "serving gRPC").then(|| line["address"].as_str().unwrap().to_owned())
}
