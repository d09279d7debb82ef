//! A running service for tests: the real server in this process, on a free port, with a data directory of its own.
//!
//! Invariant: `start` returns when the service says SERVING; `stop` returns when it has ended in the regular way.
//! Not here: services as processes of their own (`process`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use portcullis::config::Config;
use portcullis::engine::clock::Clock;
use portcullis::proto::v1::analysis_service_client::AnalysisServiceClient;
use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::hierarchy_service_client::HierarchyServiceClient;
use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Access, AccessEntry, AccessMode, Action, CheckRequest, CheckResponse, ConnectionType, CreateNodeRequest,
    CreateRuleRequest, Node, Rule, UpdateNodeRequest, access_entry,
};
use portcullis::store::disk::{Disk, RealDisk};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::clock::Hand;

/// A running service.
pub(crate) struct Service {
    pub(crate) channel: Channel,
    address: std::net::SocketAddr,
    data_dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// A service with a fresh data directory.
    pub(crate) async fn start() -> Self {
        Self::start_by(Clock::system()).await
    }

    /// A service with a given configuration; its port is free whatever the configuration says.
    pub(crate) async fn with_config(config: Config) -> Self {
        Self::with_clock(config, Clock::system()).await
    }

    /// A service with a fresh data directory and a clock that the test moves.
    pub(crate) async fn start_at(hand: &Hand) -> Self {
        Self::start_by(hand.clock()).await
    }

    async fn start_by(clock: Clock) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_data_dir(temporary.path().join("data"));
        Self { _temporary: Some(temporary), ..Self::with_clock(config, clock).await }
    }

    /// A service with a given configuration and a given clock.
    pub(crate) async fn with_clock(config: Config, clock: Clock) -> Self {
        Self::with_disk(config, clock, Arc::new(RealDisk)).await
    }

    /// The same on a given disk.
    pub(crate) async fn with_disk(config: Config, clock: Clock, disk: Arc<dyn Disk>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let data_dir = config.data_dir.clone();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(portcullis::server::run_on(config, listener, stopped, clock, disk));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let service = Self { channel, address, data_dir, _temporary: None, stop, task };
        service.wait_until_serving().await;
        service
    }

    async fn wait_until_serving(&self) {
        let mut health = HealthClient::new(self.channel.clone());
        for _ in 0..1_000 {
            let answer = health.check(HealthCheckRequest { service: String::new() }).await;
            if answer.is_ok_and(|answer| answer.into_inner().status == 1) {
                return;
            }
            assert!(!self.task.is_finished(), "the service ended instead of serving");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the service does not serve");
    }

    /// Ends the service in the regular way.
    pub(crate) async fn stop(self) {
        self.end().await.unwrap();
    }

    /// Tells the service to end, and returns how it did.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }

    /// Waits until it has ended by itself. What it says of that.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        // Without the sender it would be told to stop.
        let _stop = self.stop;
        self.task.await.unwrap()
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn decisions(&self) -> DecisionServiceClient<Channel> {
        DecisionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn analysis(&self) -> AnalysisServiceClient<Channel> {
        AnalysisServiceClient::new(self.channel.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    pub(crate) fn firewall(&self) -> FirewallServiceClient<Channel> {
        FirewallServiceClient::new(self.channel.clone())
    }

    pub(crate) fn hierarchy(&self) -> HierarchyServiceClient<Channel> {
        HierarchyServiceClient::new(self.channel.clone())
    }

    /// Asks whether `ip` may open a terminal at `endpoint`.
    pub(crate) async fn check(&self, ip: &str, endpoint: &str) -> CheckResponse {
        let request = CheckRequest {
            ip: ip.to_owned(),
            connection_type: ConnectionType::Shell.into(),
            endpoint: endpoint.to_owned(),
            ..CheckRequest::default()
        };
        self.decisions().check(request).await.unwrap().into_inner()
    }

    /// Adds a rule at the end of the default organization's firewall.
    pub(crate) async fn add_rule(&self, id: &str, action: Action, range: &str) -> Rule {
        let request = CreateRuleRequest {
            parent: "organizations/default".to_owned(),
            rule: Some(rule(action, range)),
            rule_id: id.to_owned(),
            ..CreateRuleRequest::default()
        };
        self.firewall().create_rule(request).await.unwrap().into_inner()
    }

    /// Creates a node.
    pub(crate) async fn add_node(&self, parent: &str, id: &str, access: Option<Access>) -> Node {
        let request = CreateNodeRequest {
            parent: parent.to_owned(),
            node_id: id.to_owned(),
            node: Some(Node { access, ..Node::default() }),
            ..CreateNodeRequest::default()
        };
        self.hierarchy().create_node(request).await.unwrap().into_inner()
    }

    /// Sets a node's access.
    pub(crate) async fn set_access(&self, name: &str, access: Access) -> Node {
        let node = Node { name: name.to_owned(), access: Some(access), ..Node::default() };
        let request = UpdateNodeRequest { node: Some(node), ..UpdateNodeRequest::default() };
        self.hierarchy().update_node(request).await.unwrap().into_inner()
    }
}

/// A rule for all connection types.
pub(crate) fn rule(action: Action, range: &str) -> Rule {
    Rule { action: action.into(), source: Some(Source::Range(range.to_owned())), ..Rule::default() }
}

/// An allowlist of ranges.
pub(crate) fn allow_list(ranges: &[&str]) -> Access {
    let entry = |range: &&str| AccessEntry {
        source: Some(access_entry::Source::Range((*range).to_owned())),
        description: String::new(),
    };
    Access { mode: AccessMode::AllowList.into(), entries: ranges.iter().map(entry).collect() }
}

/// An access without entries.
pub(crate) fn access(mode: AccessMode) -> Access {
    Access { mode: mode.into(), entries: Vec::new() }
}

/// The reason in an error's `ErrorInfo`, whose domain must be ours.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "portcullis");
    info.reason
}

/// The field paths of an error's violations.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Asserts code and reason of an error.
pub(crate) fn assert_error<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, expected: &str) -> Status {
    let status = result.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{status:?}");
    status
}

/// Runs the program against a service, with a text on its standard input.
pub(crate) async fn command_line(service: &Service, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).args(["--server", &service.address().to_string()]);
    let input = input.to_owned();
    let run = move || {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        // A command that refuses its arguments does not read.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}
