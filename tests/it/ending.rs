//! The end of the process when its surroundings fail: a data directory that is gone, a thread that hangs.
//!
//! Invariant: a signal ends the process within `drain_timeout` and ten seconds, with status 0 only if all went well.
//! Not here: threads that panic (`threads`), readers of the log (`logs`), disks that fail (`audit_disk`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::clock::Clock;
use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{Action, CheckResponse, ConnectionType, CreateRuleRequest, Decision, EraseUserRequest};
use portcullis::server;
use portcullis::store::disk::{Disk, RealDisk};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::audit_api::check_of;
use crate::audit_disk::Switches;
use crate::harness::{assert_error, rule};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";

/// What the process may take after `drain_timeout`.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// How soon health must follow the data directory. The service looks twice a second.
const SOON: Duration = Duration::from_secs(5);

pub(crate) async fn check(channel: &Channel) -> Result<CheckResponse, Status> {
    let request = check_of("ada@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT);
    DecisionServiceClient::new(channel.clone()).check(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn create_rule(channel: &Channel) -> Result<(), Status> {
    let rule = Some(rule(Action::Deny, "198.51.100.0/24"));
    let request = CreateRuleRequest { parent: DEFAULT.to_owned(), rule, ..CreateRuleRequest::default() };
    FirewallServiceClient::new(channel.clone()).create_rule(request).await.map(drop)
}

/// Waits until health says so (1: `SERVING`, 2: `NOT_SERVING`).
pub(crate) async fn until_health(channel: &Channel, status: i32) {
    let mut health = HealthClient::new(channel.clone());
    let look = async {
        while health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status != status {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, look).await.unwrap_or_else(|_| panic!("health does not become {status}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_removed_turns_health_and_does_not_hold_up_the_end() {
    let temporary = tempfile::tempdir().unwrap();
    for (on_failure, removed) in [("deny", "."), ("deny", "audit"), ("allow", ".")] {
        let data_dir = temporary.path().join(format!("{on_failure}{removed}"));
        let service = Process::start_with(&data_dir, &["--on-audit-failure", on_failure, "--drain-timeout", "1s"]);
        let channel = service.connect().await;
        create_rule(&channel).await.unwrap();
        assert_eq!(check(&channel).await.unwrap().decision(), Decision::Allow);

        let path = fs::canonicalize(data_dir.join(removed)).unwrap();
        // It may write a file in between.
        while fs::remove_dir_all(&path).is_err() && path.exists() {}
        until_health(&channel, 2).await;
        let refusal = assert_error(create_rule(&channel).await, Code::Unavailable, "AUDIT_NOT_WRITABLE");
        assert!(
            refusal.message().contains("the data directory or a file in it was removed or replaced"),
            "{refusal:?}"
        );
        match on_failure {
            "allow" => assert_eq!(check(&channel).await.unwrap().decision(), Decision::Allow),
            _ => drop(assert_error(check(&channel).await, Code::Unavailable, "AUDIT_NOT_WRITABLE")),
        }
        let (status, log) = service.terminate_within(BOUND + Duration::from_secs(1)).await;
        assert_eq!(status.code(), Some(1), "what was recorded may be lost:\n{log}");
        let path = path.to_str().unwrap();
        let consequence =
            if on_failure == "allow" { "Checks are decided without a record" } else { "Checks are refused" };
        let told = log.lines().filter(|line| line.contains("removed or replaced while in use: changes"));
        let told = told.filter(|line| line.contains(consequence));
        assert_eq!(told.filter(|line| line.contains(path)).count(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_back_serves_again() {
    let temporary = tempfile::tempdir().unwrap();
    let (data_dir, aside) = (temporary.path().join("data"), temporary.path().join("aside"));
    let service = Process::start(&data_dir);
    let channel = service.connect().await;
    fs::rename(&data_dir, &aside).unwrap();
    until_health(&channel, 2).await;
    fs::create_dir(&data_dir).unwrap();
    sleep(Duration::from_secs(1)).await;
    until_health(&channel, 2).await;
    fs::remove_dir(&data_dir).unwrap();
    fs::rename(&aside, &data_dir).unwrap();
    until_health(&channel, 1).await;
    assert_eq!(check(&channel).await.unwrap().decision(), Decision::Allow);
    let (status, log) = service.terminate_within(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(0), "{log}");
    let told = log.lines().filter(|line| line.contains("removed or replaced while in use"));
    let another = told.filter(|line| line.contains("another one is there now, and a copy is not the same"));
    assert_eq!(another.count(), 1, "{log}");
}

/// Whoever opens it waits for ever.
fn replace_by_fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn policy_journal(data_dir: &Path) -> PathBuf {
    let entries = fs::read_dir(data_dir.join("policy")).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "wal")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_hang_do_not_hold_up_the_end() {
    let temporary = tempfile::tempdir().unwrap();
    let data_dir = temporary.path().join("data");
    let service = Process::start_with(&data_dir, &["--drain-timeout", "1s"]);
    let channel = service.connect().await;
    create_rule(&channel).await.unwrap();
    replace_by_fifo(&policy_journal(&data_dir));
    // It erases the actor from the policy journal: the policy writer opens that. Nobody else waits for it.
    let (parent, user_email, including_actor) = (DEFAULT.to_owned(), "127.0.0.1".to_owned(), true);
    let request = EraseUserRequest { parent, user_email, including_actor };
    let mut audit = AuditServiceClient::new(channel.clone());
    let erasing = tokio::spawn(async move { audit.erase_user(request).await });
    let hung = async { while timeout(Duration::from_secs(1), create_rule(&channel)).await.is_ok() {} };
    timeout(Duration::from_secs(30), hung).await.expect("the policy writer does not hang");

    let (status, log) = service.terminate_within(Duration::from_secs(1) + BOUND).await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("because the thread `policy-writer` does not end"), "{log}");
    assert!(erasing.await.unwrap().is_err());
}

/// Tells a service to stop while it starts; how it ends.
async fn stopped_while_it_starts(data_dir: &Path, disk: Arc<dyn Disk>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let told = sleep(Duration::from_millis(1));
    let ended = server::run_on(Config::for_data_dir(data_dir), listener, told, Clock::system(), disk);
    timeout(BOUND, ended).await.expect("it does not end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_hangs_or_fails_while_it_is_told_to_stop_is_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    switches.hangs.store(true, Ordering::SeqCst);
    let ended = stopped_while_it_starts(&temporary.path().join("data"), Arc::new(switches.clone())).await;
    switches.hangs.store(false, Ordering::SeqCst);
    let error = format!("{:#}", ended.expect_err("it ended as if all went well"));
    assert!(error.contains("because the data directory is still being opened"), "{error}");

    // Slow enough that it fails after the service was told.
    let data_dir = temporary.path().join("damaged");
    let switches = Switches::default();
    switches.slow.store(50, Ordering::SeqCst);
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("something"), "else").unwrap();
    let ended = stopped_while_it_starts(&data_dir, Arc::new(switches)).await;
    let error = format!("{:#}", ended.expect_err("it ended as if all went well"));
    assert!(error.contains("no FORMAT file"), "{error}");

    // One that succeeds leaves nothing behind.
    let data_dir = temporary.path().join("good");
    stopped_while_it_starts(&data_dir, Arc::new(RealDisk)).await.unwrap();
}
