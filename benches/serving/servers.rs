//! The servers, each a process of its own.
//!
//! Invariant: a server ends when it is dropped.
//! Not here: who asks them (`tonic_client`, `h2load`).

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis::config::{Config, Durability, OnAuditFailure};
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{self, CheckRequest};
use tonic::transport::{Channel, Endpoint};

/// Says which server a process is to be.
const ROLE: &str = "PORTCULLIS_BENCH_ROLE";

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

/// The server that this process is to be, if any.
pub(crate) fn role() -> Option<Role> {
    let name = std::env::var(ROLE).ok()?;
    Role::ALL.into_iter().find(|role| role.name() == name)
}

/// Is a server until killed; tells its address and its Unix socket on the standard output.
pub(crate) fn serve(role: Role) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        println!("{} {}", listener.local_addr().unwrap(), socket.display());
        if role == Role::Nothing {
            return super::nothing::serve(listener).await;
        }
        let mut config = Config::for_data_dir(directory.path().join("data"));
        config.listen_unix = Some(socket);
        let durability = if role == Role::Sync { Durability::Sync } else { Durability::Async };
        (config.record.audit_shell, config.record.audit_preview) = (durability, durability);
        if role == Role::Unrecorded {
            config.record.on_audit_failure = OnAuditFailure::Allow;
        }
        // Every shell stays open otherwise, and so many of them are no portal.
        config.record.session_max_age = Duration::from_secs(2);
        config.record.session_idle = Duration::from_secs(2);
        config.record.active_sessions_max = 100_000_000;
        portcullis::server::run(config, listener, std::future::pending()).await.unwrap();
    });
}

/// A server as a process, killed when it is dropped.
pub(crate) struct Server {
    pub(crate) role: Role,
    pub(crate) address: String,
    pub(crate) socket: PathBuf,
    child: Child,
}

impl Server {
    pub(crate) fn start(role: Role) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("sh");
        // A write beyond the limit on files is to fail, not to kill.
        command.args(["-c", "trap '' XFSZ; exec \"$0\""]).arg(program).process_group(0);
        let mut child = command.env(ROLE, role.name()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, socket) = line.trim().split_once(' ').unwrap();
        Self { role, address: address.to_owned(), socket: socket.into(), child }
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
            Role::Socket => format!("unix:{}", self.socket.display()),
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
        while client.check(request(1)).await.is_err() {
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
            while !client.check(request(1)).await.unwrap().into_inner().session.is_empty() {
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

/// Portal-like: users at their addresses, previews three times as often as shells, one in sixteen denied.
pub(crate) fn request(number: u32) -> CheckRequest {
    let user = number.wrapping_mul(2_654_435_761) % 4_000;
    let is_shell = (number / 16).is_multiple_of(4);
    let connection_type = if is_shell { v1::ConnectionType::Shell } else { v1::ConnectionType::Preview };
    CheckRequest {
        ip: format!("10.{}.{}.{}", (number % 16) * 16, user / 250, 1 + user % 250),
        connection_type: connection_type.into(),
        endpoint: format!(
            "organizations/default/projects/team-{}/workspaces/ws-{}/endpoints/main",
            user % 20,
            user % 25
        ),
        user_email: format!("firstname.lastname-{user}@example.com"),
        ..CheckRequest::default()
    }
}
