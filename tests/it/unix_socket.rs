//! The Unix socket for sidecars.
//!
//! Invariant: what is served over TCP is served there too.
//! Not here: what is decided (`decisions`).

use std::path::Path;
use std::process::{Command, Stdio};

use portcullis::config::Config;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{Action, CheckRequest, ConnectionType, CreateRuleRequest, Decision, ListRevisionsRequest};
use tonic::transport::{Channel, Endpoint};

use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";

fn config(directory: &Path, socket: &Path) -> Config {
    Config { listen_unix: Some(socket.to_owned()), ..Config::for_data_dir(directory.join("data")) }
}

async fn connect(socket: &Path) -> Channel {
    Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn the_socket_serves_what_tcp_does_and_its_file_goes_with_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("portcullis.sock");
    let service = Service::with_config(config(directory.path(), &socket)).await;
    let channel = connect(&socket).await;
    let create = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Deny, "192.0.2.0/24")),
        ..CreateRuleRequest::default()
    };
    FirewallServiceClient::new(channel.clone()).create_rule(create).await.unwrap();
    let check = CheckRequest {
        ip: "192.0.2.1".to_owned(),
        connection_type: ConnectionType::Shell.into(),
        endpoint: DEFAULT.to_owned(),
        ..CheckRequest::default()
    };
    let answer = DecisionServiceClient::new(channel).check(check).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Deny);
    assert_eq!(service.check("192.0.2.1", DEFAULT).await.decision(), Decision::Deny);
    // Who came that way is told apart from the service itself.
    let request = ListRevisionsRequest { parent: DEFAULT.to_owned(), page_size: 1, ..Default::default() };
    let newest = service.analysis().list_revisions(request).await.unwrap().into_inner().revisions.remove(0);
    assert_eq!(newest.policy_change.unwrap().actor, "unix socket");

    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["check", "--ip", "192.0.2.1", "--type", "shell", "--endpoint", DEFAULT, "--server"]);
    command.arg(format!("unix:{}", socket.display())).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    service.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_taken_and_anything_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("portcullis.sock");
    // As a killed process leaves it.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let service = Service::with_config(config(directory.path(), &socket)).await;
    connect(&socket).await;
    let try_run = async |socket: &Path| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = tempfile::tempdir().unwrap();
        portcullis::server::run(config(other.path(), socket), listener, std::future::pending()).await.unwrap_err()
    };
    let error = format!("{:#}", try_run(&socket).await);
    assert!(error.contains("--listen-unix"), "{error}");
    connect(&socket).await;
    let file = directory.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    try_run(&file).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    service.stop().await;
}
