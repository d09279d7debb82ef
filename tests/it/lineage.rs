//! Two directories with a history in common: what was given out in the one that is lost means nothing in the other.
//!
//! Each test puts a copy of a stopped directory aside, goes on, and "restores" the copy under another lineage. Then it makes
//! other changes, so that revisions and sequences are given out a second time: without lineages, what is of the lost
//! history would fit.
//!
//! Invariant: whatever is refused changes nothing.
//! Not here: each RPC (`lineage_table`), and restoring for real.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::{
    Action, ApplyPolicyRequest, DeleteRuleRequest, EndSessionRequest, ExportPolicyRequest, GetCheckpointRequest,
    ListAuditRecordsRequest, ListRulesRequest, ListRulesResponse, MoveRuleRequest, Policy, RenewSessionsRequest,
    ReplaceRulesRequest, Rule, UpdateRuleRequest, WatchEventsRequest, WatchEventsResponse,
};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::audit_tamper::copy;
use crate::audit_watch::signed_size;
use crate::clock::until;
use crate::harness::{Service, assert_error, fields};

pub(crate) const DEFAULT: &str = "organizations/default";

/// The lineage that a directory is given by [`renew`].
const RENEWED: &str = "fedcba9876543210";

/// Gives a stopped directory another lineage, as a restore does.
pub(crate) fn renew(data_dir: &Path) {
    let old = std::fs::read_to_string(data_dir.join("LINEAGE")).unwrap();
    assert!(old.trim_end().len() == 16 && !old.starts_with("fedc"), "{old}");
    std::fs::write(data_dir.join("LINEAGE"), format!("{RENEWED}\n")).unwrap();
}

/// A data directory that goes on, and a copy of what it was.
struct Parted {
    temporary: tempfile::TempDir,
}

impl Parted {
    /// Begins with a service that has one rule, and copies its directory.
    async fn begin() -> Self {
        let parted = Self { temporary: tempfile::tempdir().unwrap() };
        let service = parted.lost().await;
        service.add_rule("kept", Action::Deny, "192.0.2.1").await;
        service.check("198.51.100.1", DEFAULT).await;
        service.stop().await;
        copy(&parted.path("lost"), &parted.path("restored"));
        renew(&parted.path("restored"));
        parted
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.temporary.path().join(name)
    }

    /// The service that goes on.
    async fn lost(&self) -> Service {
        Service::with_config(Config::for_data_dir(self.path("lost"))).await
    }

    /// The service on the restored copy.
    async fn restored(&self) -> Service {
        Service::with_config(Config::for_data_dir(self.path("restored"))).await
    }
}

async fn rules(service: &Service) -> ListRulesResponse {
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), page_size: 1, ..ListRulesRequest::default() };
    service.firewall().list_rules(request).await.unwrap().into_inner()
}

async fn policy(service: &Service) -> Policy {
    let request = ExportPolicyRequest { parent: DEFAULT.to_owned(), ..ExportPolicyRequest::default() };
    service.analysis().export_policy(request).await.unwrap().into_inner()
}

/// Two changes, by which two histories come to the same revisions with other contents.
async fn change(service: &Service, description: &str) -> Rule {
    let name = format!("{DEFAULT}/rules/kept");
    let rule = Rule { name, description: description.to_owned(), ..Rule::default() };
    let request = UpdateRuleRequest { rule: Some(rule), ..UpdateRuleRequest::default() };
    let changed = service.firewall().update_rule(request).await.unwrap().into_inner();
    service.add_rule("second", Action::Deny, "203.0.113.1").await;
    changed
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>) {
    assert_error(result, Code::Aborted, "LINEAGE_CHANGED");
}

/// The hazard: an etag of the lost history guards nothing, for the restored one has given its revision out again.
#[tokio::test]
async fn etags_and_page_tokens_of_the_lost_history_are_refused_and_change_nothing() {
    let parted = Parted::begin().await;
    let service = parted.lost().await;
    let rule = change(&service, "of the lost history").await;
    let (list, whole) = (rules(&service).await, policy(&service).await);
    service.stop().await;

    let service = parted.restored().await;
    let other = change(&service, "of the restored history").await;
    let before = policy(&service).await;
    let kind_and_revision = |etag: &str| etag.rsplit_once('-').unwrap().0.to_owned();
    for (lost, present) in [(&rule.etag, &other.etag), (&list.etag, &rules(&service).await.etag)] {
        assert_eq!(kind_and_revision(lost), kind_and_revision(present), "only the lineage tells them apart");
    }
    assert_eq!(kind_and_revision(&whole.etag), kind_and_revision(&before.etag));

    let mut firewall = service.firewall();
    let stale = Rule { description: "lost".to_owned(), ..rule.clone() };
    let update = UpdateRuleRequest { rule: Some(stale), ..UpdateRuleRequest::default() };
    refused(firewall.update_rule(update).await);
    // It does not matter whether the object is still there.
    for name in [rule.name.clone(), format!("{DEFAULT}/rules/gone")] {
        refused(firewall.delete_rule(DeleteRuleRequest { name, etag: rule.etag.clone(), options: None }).await);
    }
    for etag in [&rule.etag, &list.etag] {
        let request = MoveRuleRequest { name: rule.name.clone(), position: 2, etag: etag.clone(), options: None };
        refused(firewall.move_rule(request).await);
    }
    let replace = ReplaceRulesRequest { parent: DEFAULT.to_owned(), etag: list.etag.clone(), ..Default::default() };
    refused(firewall.replace_rules(replace).await);
    let page = ListRulesRequest { parent: DEFAULT.to_owned(), page_size: 1, page_token: list.next_page_token.clone() };
    refused(firewall.list_rules(page).await);
    let apply = ApplyPolicyRequest { parent: DEFAULT.to_owned(), policy: Some(whole.clone()), ..Default::default() };
    let guarded = ApplyPolicyRequest { etag: whole.etag.clone(), ..apply.clone() };
    refused(service.analysis().apply_policy(guarded).await);
    assert_eq!(policy(&service).await, before, "nothing is changed");
    // An export of the lost history can be applied, like any file: its own etags guard nothing.
    service.analysis().apply_policy(apply).await.unwrap();
    assert_eq!(policy(&service).await.rules[0].description, "of the lost history");
    service.stop().await;
}

async fn follow(service: &Service, after_sequence: Option<i64>, lineage: &str) -> Result<WatchEventsResponse, Status> {
    let lineage = lineage.to_owned();
    let request = WatchEventsRequest { parent: "cluster".to_owned(), after_sequence, lineage, ..Default::default() };
    let mut events = service.audit().watch_events(request).await?.into_inner();
    Ok(events.message().await?.unwrap())
}

/// The hazard: a subscriber goes on in the middle of another history, and never hears what its sequences stand for there.
#[tokio::test]
async fn a_subscriber_of_the_lost_history_is_refused_instead_of_being_continued() {
    let parted = Parted::begin().await;
    let service = parted.lost().await;
    change(&service, "of the lost history").await;
    let size = i64::try_from(signed_size(&service.channel, 5).await).unwrap();
    // An event and a checkpoint of the stream, and the checkpoint of the log.
    let (event, idle) =
        (follow(&service, Some(size - 1), "").await.unwrap(), follow(&service, None, "").await.unwrap());
    let lineage = service.audit().get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().lineage;
    assert!(event.record.is_some() && idle.record.is_none() && lineage.len() == 16);
    assert_eq!((&event.lineage, &idle.lineage), (&lineage, &lineage));
    assert_eq!(follow(&service, Some(size - 1), &lineage).await.unwrap(), event, "goes on where it is the same");
    service.stop().await;

    let service = parted.restored().await;
    change(&service, "of the restored history").await;
    signed_size(&service.channel, u64::try_from(size).unwrap()).await;
    for after in [None, Some(0), Some(size - 1), Some(1_000_000)] {
        let status = assert_error(follow(&service, after, &lineage).await, Code::OutOfRange, "LINEAGE_CHANGED");
        assert_eq!(status.get_details_error_info().unwrap().metadata["lineage"], RENEWED);
    }
    // Who does not say a lineage is not asked for one. From then on it is told.
    assert_eq!(follow(&service, Some(size - 1), "").await.unwrap().lineage, RENEWED);
    assert_eq!(follow(&service, None, RENEWED).await.unwrap().lineage, RENEWED);
    assert_eq!(service.audit().get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().lineage, RENEWED);
    for malformed in ["0", "FEDCBA9876543210", "fedcba987654321g", " fedcba9876543210"] {
        let refused = follow(&service, Some(0), malformed).await;
        assert_eq!(fields(&assert_error(refused, Code::InvalidArgument, "INVALID_FIELD")), ["lineage"], "{malformed}");
    }
    service.stop().await;
}

/// The decision ids of all recorded Checks, in order.
async fn decision_ids(service: &Service) -> Vec<String> {
    use portcullis::proto::v1::audit_record::Content;
    let request = ListAuditRecordsRequest { parent: "cluster".to_owned(), ..Default::default() };
    let records = service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records;
    let id = |record: &portcullis::proto::v1::AuditRecord| match &record.content {
        Some(Content::Decision(decision)) => Some(decision.decision_id.clone()),
        _ => None,
    };
    records.iter().rev().filter_map(id).collect()
}

#[tokio::test]
async fn ids_begin_as_their_lineage_does_and_those_of_the_backup_stay_what_they_were() {
    let parted = Parted::begin().await;
    let service = parted.lost().await;
    let lineage = service.audit().get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().lineage;
    let kept = decision_ids(&service).await;
    let lost = service.check("198.51.100.2", DEFAULT).await;
    let session = lost.session.rsplit('/').next().unwrap();
    for id in [kept[0].as_str(), &lost.decision_id, session] {
        assert_eq!(id.get(..4), lineage.get(..4), "{id}");
    }
    service.stop().await;

    let service = parted.restored().await;
    assert_eq!(decision_ids(&service).await, kept, "recorded before the backup");
    let present = service.check("198.51.100.2", DEFAULT).await;
    let new_session = present.session.rsplit('/').next().unwrap();
    for id in [&present.decision_id, new_session] {
        assert!(id.starts_with("fedc"), "{id}");
    }
    // A session of the lost history is known to nobody: its PEP cuts the connection.
    let request = EndSessionRequest { name: lost.session.clone() };
    assert_error(service.decisions().end_session(request).await, Code::NotFound, "NOT_FOUND");
    let names = vec![lost.session.clone()];
    let session_lease = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let renewed = service.decisions().renew_sessions(RenewSessionsRequest { names, session_lease }).await;
    assert_eq!(renewed.unwrap().into_inner().lost, [lost.session]);
    service.stop().await;
}

/// Forwards connections to the address that is set at the moment, so that a service can be replaced.
async fn forward(to: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let target = *to.lock().unwrap();
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(target).await {
                    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                }
            });
        }
    });
    address
}

/// A command that is killed with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn events(server: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["events", "--follow"]).args(arguments).args(["--server", &server.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_by_the_command_line_ends_where_the_lineage_changed() {
    let parted = Parted::begin().await;
    let service = parted.lost().await;
    let (list, target) = (service.audit(), Arc::new(Mutex::new(service.address())));
    let server = forward(Arc::clone(&target)).await;
    let lineage = list.clone().get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().lineage;
    let mut child = Running(events(server, &["--after-sequence", "0"]).spawn().unwrap());
    let mut printed = std::io::BufReader::new(child.0.stdout.take().unwrap());
    let first = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut printed, &mut line).unwrap();
        // The rest is read too, so that nothing waits for room in the pipe.
        std::thread::spawn(move || std::io::copy(&mut printed, &mut std::io::sink()));
        line
    });
    assert!(first.await.unwrap().contains("sequence"));
    let restored = parted.restored().await;
    *target.lock().unwrap() = restored.address();
    service.stop().await;

    let status = until("the end of the command", async || child.0.try_wait().unwrap()).await;
    let said = std::io::read_to_string(child.0.stderr.take().unwrap()).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("restored from a backup") && said.contains(&lineage), "{said}");
    assert!(said.contains("was printed"), "says how far it came: {said}");

    let run = async |arguments: &[&str]| {
        let mut command = events(server, arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let ended = run(&["--after-sequence", "1", "--lineage", &lineage]).await;
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && said.contains("restored from a backup"), "{said}");
    for malformed in [&["--after-sequence", "1", "--lineage", "x"][..], &["--lineage", RENEWED]] {
        assert_eq!(run(malformed).await.status.code(), Some(2), "{malformed:?}");
    }
    tokio::time::timeout(Duration::from_mins(1), restored.stop()).await.unwrap();
}
