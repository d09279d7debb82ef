//! Backups of a running service, and what is there after they are restored.
//!
//! Invariant: what was acknowledged before a backup began is there after its restore, under a new lineage, and verifies.
//! Not here: files that are no whole backups, and clients that stall or vanish (`backup_faults`).

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::maintenance_service_client::MaintenanceServiceClient;
use portcullis::proto::v1::{
    Action, AuditRecord, AuditType, BackupRequest, BatchCheckRequest, ConnectionType, EraseUserRequest,
    GetCheckpointRequest, ListAuditRecordsRequest, ListRulesRequest, ListSessionsRequest, SessionState,
};
use portcullis::server::verify_audit;
use tokio::task::JoinHandle;

use crate::audit_api::check_of;
use crate::clock::until;
use crate::harness::{Service, command_line, rule};

const DEFAULT: &str = "organizations/default";

/// Runs the program without a server.
pub(crate) async fn offline(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).env_remove("PORTCULLIS_CONFIG").stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a command printed, both ways.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The path as an argument.
pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Takes a backup by the command line.
pub(crate) async fn take(service: &Service, file: &Path) {
    let output = command_line(service, &["backup", path(file)], "").await;
    assert!(output.status.success(), "{}", printed(&output));
}

/// The bytes of a backup, as the API streams them.
pub(crate) async fn stream(service: &Service) -> Vec<u8> {
    let mut parts =
        MaintenanceServiceClient::new(service.channel.clone()).backup(BackupRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.data);
    }
    bytes
}

/// Restores by the command line.
pub(crate) async fn restore(file: &Path, data_dir: &Path) -> Output {
    offline(&["restore", path(file), "--data-dir", path(data_dir)]).await
}

/// Puts the key back that an operator keeps apart.
pub(crate) fn put_key_back(from: &Path, to: &Path) {
    std::fs::copy(from.join("audit.key"), to.join("audit.key")).unwrap();
}

async fn lineage(service: &Service) -> String {
    service.audit().get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().lineage
}

async fn rules(service: &Service) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRulesRequest { parent: DEFAULT.to_owned(), page_size: 1_000, page_token };
        let page = service.firewall().list_rules(request).await.unwrap().into_inner();
        names.extend(page.rules.into_iter().map(|rule| rule.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

/// All records of some types.
pub(crate) async fn records(service: &Service, types: &[AuditType]) -> Vec<AuditRecord> {
    let (mut records, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAuditRecordsRequest {
            parent: "cluster".to_owned(),
            types: types.iter().map(|record_type| i32::from(*record_type)).collect(),
            page_size: 1_000,
            page_token,
            ..ListAuditRecordsRequest::default()
        };
        let page = service.audit().list_audit_records(request).await.unwrap().into_inner();
        records.extend(page.audit_records);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return records;
        }
    }
}

async fn active(service: &Service) -> BTreeSet<String> {
    let (mut names, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = ListSessionsRequest {
            parent: DEFAULT.to_owned(),
            state: SessionState::Active.into(),
            page_size: 1_000,
            page_token,
            ..ListSessionsRequest::default()
        };
        let page = service.audit().list_sessions(request).await.unwrap().into_inner();
        names.extend(page.sessions.into_iter().map(|session| session.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

/// What a service has answered.
#[derive(Clone, Default)]
struct Acknowledged {
    rules: Vec<String>,
    decisions: BTreeSet<String>,
    sessions: BTreeSet<String>,
}

/// Checks of both kinds and changes, until the service is gone.
fn load(service: &Service) -> (Arc<Mutex<Acknowledged>>, Vec<JoinHandle<()>>) {
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let mut tasks = Vec::new();
    for (client, connection_type) in [(0, ConnectionType::Shell), (1, ConnectionType::Preview)] {
        let (mut decisions, acknowledged) = (service.decisions(), Arc::clone(&acknowledged));
        tasks.push(tokio::spawn(async move {
            for number in 0.. {
                let email = format!("user-{}@example.com", number % 50);
                let ip = format!("10.{client}.{}.{}", number / 250 % 250, number % 250);
                let Ok(answer) = decisions.check(check_of(&email, &ip, connection_type, DEFAULT)).await else { return };
                let answer = answer.into_inner();
                let mut acknowledged = acknowledged.lock().unwrap();
                acknowledged.decisions.insert(answer.decision_id);
                acknowledged.sessions.insert(answer.session);
            }
        }));
    }
    let (mut firewall, changes) = (service.firewall(), Arc::clone(&acknowledged));
    tasks.push(tokio::spawn(async move {
        for number in 0.. {
            let request = portcullis::proto::v1::CreateRuleRequest {
                parent: DEFAULT.to_owned(),
                rule: Some(rule(Action::Deny, &format!("192.0.2.{}/32", number % 250))),
                rule_id: format!("r{number}"),
                ..Default::default()
            };
            let Ok(answer) = firewall.create_rule(request).await else { return };
            changes.lock().unwrap().rules.push(answer.into_inner().name);
        }
    }));
    (acknowledged, tasks)
}

/// The hazard: a copy whose parts are of different moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_has_everything_that_was_acknowledged_before_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    let service = Service::with_config(Config::for_data_dir(&original)).await;
    let (acknowledged, tasks) = load(&service);
    let enough = |rules, checks| {
        let acknowledged = acknowledged.lock().unwrap();
        (acknowledged.rules.len() >= rules && acknowledged.decisions.len() >= checks).then_some(())
    };
    let mut taken = Vec::new();
    for number in 1..=3 {
        until("some load", async || enough(number * 20, number * 300)).await;
        let before = acknowledged.lock().unwrap().clone();
        let file = directory.path().join(format!("{number}.backup"));
        take(&service, &file).await;
        taken.push((before, file));
    }
    let previous = lineage(&service).await;
    let public = std::fs::read_to_string(original.join("audit.pub")).unwrap();
    service.stop().await;
    for task in tasks {
        task.await.unwrap();
    }

    let mut lineages = BTreeSet::from([previous.clone()]);
    for (number, (before, file)) in taken.into_iter().enumerate() {
        let data_dir = directory.path().join(format!("restored-{number}"));
        let output = restore(&file, &data_dir).await;
        assert!(output.status.success(), "{}", printed(&output));
        let verified = verify_audit(&data_dir, Some(&public), None, &mut |_, _| true).unwrap();
        assert_eq!(verified.faults, []);
        assert!(!data_dir.join("audit.key").exists(), "the key is in the backup");
        put_key_back(&original, &data_dir);
        let service = Service::with_config(Config::for_data_dir(&data_dir)).await;
        assert!(lineages.insert(lineage(&service).await), "a lineage was used twice");
        let restored = records(&service, &[AuditType::Restored]).await;
        let Some(Content::Restored(restoration)) = &restored[0].content else { panic!("{restored:?}") };
        assert_eq!((restored.len(), &restoration.previous_lineage), (1, &previous));
        assert_eq!(restoration.lineage, lineage(&service).await);
        // Before it come only records of changes that were made while the files were noted.
        let after = records(&service, &[]).await;
        let between = after.iter().filter(|record| {
            record.sequence > i64::try_from(verified.tree_size).unwrap() && record.sequence < restored[0].sequence
        });
        let between: Vec<i32> = between.map(|record| record.r#type).collect();
        assert!(between.iter().all(|record_type| *record_type == i32::from(AuditType::PolicyChanged)), "{between:?}");

        let found = rules(&service).await;
        assert_eq!(&found[..before.rules.len()], &before.rules[..], "acknowledged rules are missing");
        let decisions = records(&service, &[AuditType::Decision]).await.into_iter().filter_map(|record| {
            let Some(Content::Decision(decision)) = record.content else { return None };
            Some(decision.decision_id)
        });
        let missing = &before.decisions - &decisions.collect();
        // A preview that goes on is no new record each time.
        assert!(missing.is_empty(), "{} decisions are missing", missing.len());
        let missing = &before.sessions - &active(&service).await;
        assert!(missing.is_empty(), "{} sessions are missing", missing.len());
        // Every change has its record, and exactly one.
        let changes = records(&service, &[AuditType::PolicyChanged]).await;
        assert_eq!(changes.len(), found.len() + 2, "the cluster, the organization and its rules");
        let output = command_line(&service, &["audit", "verify"], "").await;
        assert!(output.status.success(), "{}", printed(&output));
        service.stop().await;

        // A second start records nothing again, and counts go on from the restore.
        let service = Service::with_config(Config::for_data_dir(&data_dir)).await;
        assert_eq!(records(&service, &[AuditType::Restored]).await.len(), 1);
        service.stop().await;
    }
}

/// The hazard: a backup that brings an erased person back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_does_not_hold_who_was_erased_before_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start().await;
    for number in 0..300 {
        let email = if number % 3 == 0 { "erased@example.com" } else { "kept@example.com" };
        let request = check_of(email, &format!("10.0.0.{}", number % 250), ConnectionType::Shell, DEFAULT);
        service.decisions().check(request).await.unwrap();
    }
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains(&stream(&service).await, "erased@example.com"), "or nothing is shown below");
    let request = EraseUserRequest {
        parent: "cluster".to_owned(),
        user_email: "erased@example.com".to_owned(),
        including_actor: false,
    };
    service.audit().erase_user(request).await.unwrap();
    let file = directory.path().join("backup");
    take(&service, &file).await;
    let bytes = std::fs::read(&file).unwrap();
    assert!(!contains(&bytes, "erased@example.com") && contains(&bytes, "kept@example.com"));
    let restored = directory.path().join("restored");
    let output = restore(&file, &restored).await;
    assert!(output.status.success(), "{}", printed(&output));
    put_key_back(service.data_dir(), &restored);
    service.stop().await;
    let service = Service::with_config(Config::for_data_dir(&restored)).await;
    let request = ListSessionsRequest {
        parent: DEFAULT.to_owned(),
        user_email: "erased@example.com".to_owned(),
        ..ListSessionsRequest::default()
    };
    assert_eq!(service.audit().list_sessions(request).await.unwrap().into_inner().sessions, []);
    service.stop().await;
}

/// The drill of `docs/operate.md`, command by command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_restore_drill_of_the_operators_manual_works() {
    let directory = tempfile::tempdir().unwrap();
    let (key, file) = (directory.path().join("audit.key"), directory.path().join("portcullis.backup"));
    let config = |data_dir: &str| {
        let mut config = Config::for_data_dir(directory.path().join(data_dir));
        config.record.audit_key_file = Some(key.clone());
        config
    };
    let service = Service::with_config(config("data")).await;
    service.add_rule("office", Action::Allow, "198.51.100.0/24").await;
    let output = command_line(&service, &["backup", path(&file)], "").await;
    let shown = printed(&output);
    assert!(output.status.success() && shown.contains("audit records") && shown.contains("policy changes"), "{shown}");
    // A backup is not overwritten by mistake, and never half.
    let again = command_line(&service, &["backup", path(&file)], "").await;
    assert_eq!(again.status.code(), Some(1), "{}", printed(&again));
    assert!(printed(&again).contains("--force"), "{}", printed(&again));
    let forced = command_line(&service, &["backup", path(&file), "--force"], "").await;
    assert!(forced.status.success(), "{}", printed(&forced));
    let piped = command_line(&service, &["backup", "-"], "").await;
    assert!(
        piped.status.success() && piped.stdout.starts_with(b"PCBACKU"),
        "{}",
        String::from_utf8_lossy(&piped.stderr)
    );
    let unfinished = PathBuf::from(format!("{}.unfinished", file.display()));
    assert!(!unfinished.exists());
    service.stop().await;

    let drill = directory.path().join("drill");
    let output = restore(&file, &drill).await;
    assert!(output.status.success(), "{}", printed(&output));
    assert!(printed(&output).contains("put that key back"), "{}", printed(&output));
    let verify = offline(&["audit", "verify", "--data-dir", path(&drill)]).await;
    assert!(verify.status.success(), "{}", printed(&verify));
    let service = Service::with_config(config("drill")).await;
    assert_eq!(rules(&service).await, ["organizations/default/rules/office"]);
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let counted = service.firewall().list_rules(request).await.unwrap().into_inner().rules.remove(0);
    assert!(counted.match_count_start_time.is_some() && counted.match_count == 0);
    tokio::time::timeout(Duration::from_secs(30), service.stop()).await.unwrap();
}

/// The hazard: the last good backup makes room for one that nothing can be restored from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_damaged_log_never_gets_its_name() {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(data.path().join("data"));
    config.record.audit_retention_bytes = Some(1 << 20);
    let service = Service::with_config(config).await;
    let preview = check_of("ada@example.com", "10.0.0.1", ConnectionType::Preview, DEFAULT);
    service.decisions().batch_check(BatchCheckRequest { requests: vec![preview; 600] }).await.unwrap();
    let audit = service.data_dir().join("audit");
    let sealed = async || {
        let names = std::fs::read_dir(&audit).unwrap().map(|entry| entry.unwrap().path());
        names.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "seg"))
    };
    let unit = until("a unit is sealed", sealed).await;
    let middle = std::fs::metadata(&unit).unwrap().len() / 2;
    std::fs::OpenOptions::new().write(true).open(&unit).unwrap().write_all_at(b"damaged", middle).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis.backup");
    // What an interrupted verification left is no obstacle.
    let scratch = directory.path().join("portcullis.backup.verifying");
    std::fs::create_dir(&scratch).unwrap();
    std::fs::write(scratch.join("RESTORING"), "").unwrap();
    let output = command_line(&service, &["backup", path(&file)], "").await;
    let shown = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("cannot be restored into") && !shown.contains("--checksums-only"), "{shown}");
    assert!(!file.exists() && !scratch.join("audit").exists());
    // Checksums show that it is what the server sent, and no more.
    let output = command_line(&service, &["backup", path(&file), "--checksums-only"], "").await;
    assert!(output.status.success() && file.exists(), "{}", printed(&output));
    service.stop().await;
}
