//! A backup that version 1 wrote is restored for ever.
//!
//! Invariant: golden files are added, never altered.
//! Not here: files that are no whole backups (`backup_faults`).

use std::path::{Path, PathBuf};

use portcullis::config::Config;
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::{Action, AuditType, ConnectionType, ListRulesRequest};
use portcullis::server::restore;

use crate::audit_api::check_of;
use crate::audit_engine::key;
use crate::backup::{records, stream};
use crate::harness::Service;

const DEFAULT: &str = "organizations/default";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup-v1/portcullis.backup")
}

fn config(directory: &Path, data_dir: &str) -> Config {
    let key_file = directory.join("audit.key");
    std::fs::write(&key_file, key(1).to_secret_text()).unwrap();
    let mut config = Config::for_data_dir(directory.join(data_dir));
    config.record.audit_key_file = Some(key_file);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_version_1_restores_to_what_was_backed_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "data");
    let mut file = std::fs::File::open(golden()).unwrap();
    let trusted = key(1).verifier().to_string();
    let restored = restore(&mut file, &config.data_dir, Some(&trusted)).unwrap();
    assert_eq!(restored.key, trusted);
    assert_eq!((restored.whole.audit_sequence, restored.whole.policy_sequence), (24, 3));
    let service = Service::with_config(config).await;
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let rules = service.firewall().list_rules(request).await.unwrap().into_inner().rules;
    assert_eq!((rules.len(), rules[0].name.as_str()), (1, "organizations/default/rules/bad"));
    assert_eq!(records(&service, &[AuditType::Decision]).await.len(), 21);
    let record = records(&service, &[AuditType::Restored]).await.remove(0);
    let Some(Content::Restored(restoration)) = record.content else { panic!("{record:?}") };
    assert_eq!(restoration.previous_lineage, restored.whole.lineage.to_string());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the golden backup of the current version; run by hand when the format gets a new one"]
async fn write_the_golden_backup() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::with_config(config(directory.path(), "data")).await;
    service.add_rule("bad", Action::Deny, "203.0.113.0/24").await;
    for number in 0..20 {
        let connection_type = if number % 2 == 0 { ConnectionType::Shell } else { ConnectionType::Preview };
        let request = check_of("ada@example.com", &format!("10.0.0.{number}"), connection_type, DEFAULT);
        service.decisions().check(request).await.unwrap();
    }
    service
        .decisions()
        .check(check_of("eve@example.com", "203.0.113.7", ConnectionType::Shell, DEFAULT))
        .await
        .unwrap();
    std::fs::create_dir_all(golden().parent().unwrap()).unwrap();
    std::fs::write(golden(), stream(&service).await).unwrap();
    service.stop().await;
}
