//! Who changed the policy: kept when a user of the same name is erased, gone when that is asked for too (design.md §2.8).
//!
//! Invariant: the audit log and the policy journal name an actor both, or neither; the log verifies in either case.
//! Not here: erasing users (`audit_api`, `audit_tamper`).

use std::path::Path;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Actor, RecordType, Subject};
use portcullis::config::Config;
use portcullis::policy::change::{Change, Effect};
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType as RuleConnectionType;
use portcullis::policy::time::Timestamp;
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::{
    Action, AuditType, ConnectionType, CreateNodeRequest, EraseUserRequest, EraseUserResponse, ListAuditRecordsRequest,
    ListRevisionsRequest, VerifyAuditRequest, verify_audit_response,
};
use portcullis::store::codec::audit::{UnfinishedErasure, encode_erasure_mark};
use portcullis::store::codec::{decode_change, encode_change, erase_actor};

use crate::audit_api::{check_of, files_with};
use crate::audit_engine::{self, DEFAULT, add_rule_as, another_unit, key, open, settle, small_units};
use crate::audit_tamper::assert_nowhere;
use crate::audit_watch::signed_size;
use crate::clock::until;
use crate::harness::Service;

/// Who a test is to the service, and the email of a user as well.
const NAME: &str = "127.0.0.1";

/// The actors that the audit log shows, newest first: of changes, then of erasures.
async fn logged_actors(service: &Service) -> (Vec<String>, Vec<String>) {
    let types = vec![AuditType::PolicyChanged.into(), AuditType::Erased.into()];
    let request = ListAuditRecordsRequest { parent: DEFAULT.to_owned(), types, ..Default::default() };
    let records = service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records;
    let (mut changes, mut erasures) = (Vec::new(), Vec::new());
    for record in records {
        match record.content.unwrap() {
            Content::PolicyChange(change) => changes.push(change.actor),
            Content::Erased(erasure) => erasures.push(erasure.actor),
            other => panic!("{other:?}"),
        }
    }
    (changes, erasures)
}

/// The actors that the revisions show, newest first.
async fn revised_by(service: &Service) -> Vec<String> {
    let request = ListRevisionsRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let revisions = service.analysis().list_revisions(request).await.unwrap().into_inner().revisions;
    revisions.into_iter().map(|revision| revision.policy_change.unwrap().actor).collect()
}

async fn user_emails(service: &Service) -> Vec<String> {
    let types = vec![AuditType::Decision.into()];
    let request = ListAuditRecordsRequest { parent: DEFAULT.to_owned(), types, ..Default::default() };
    let records = service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records;
    let email = |content| match content {
        Some(Content::Decision(decision)) => decision.user_email,
        other => panic!("{other:?}"),
    };
    records.into_iter().map(|record| email(record.content)).collect()
}

async fn erase(service: &Service, parent: &str, including_actor: bool) -> EraseUserResponse {
    let request = EraseUserRequest { parent: parent.to_owned(), user_email: NAME.to_owned(), including_actor };
    service.audit().erase_user(request).await.unwrap().into_inner()
}

async fn assert_intact(service: &Service) {
    signed_size(&service.channel, 1).await;
    let mut steps = service.audit().verify_audit(VerifyAuditRequest::default()).await.unwrap().into_inner();
    while let Some(step) = steps.message().await.unwrap() {
        if let Some(verify_audit_response::Step::Result(result)) = step.step {
            assert!(result.intact, "{:?}", result.faults);
            return;
        }
    }
    panic!("the verification ended without a result");
}

/// The files below a data directory that hold the name, those that are compressed included.
fn files_with_name(data_dir: &Path) -> Vec<String> {
    let mut found = files_with(data_dir, NAME.as_bytes());
    for part in ["policy", "sessions"] {
        for entry in std::fs::read_dir(data_dir.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "zst") {
                let bytes = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
                if bytes.windows(NAME.len()).any(|window| window == NAME.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

fn config(directory: &Path) -> Config {
    Config::for_data_dir(directory.join("data"))
}

/// A service with two changes of its default organization, and a user who is called like who made them.
async fn used(directory: &Path) -> Service {
    let service = Service::with_config(config(directory)).await;
    service.add_rule("one", Action::Deny, "203.0.113.0/24").await;
    service.add_rule("two", Action::Deny, "198.51.100.0/24").await;
    let check = check_of(NAME, "192.0.2.1", ConnectionType::Shell, DEFAULT);
    service.decisions().check(check).await.unwrap();
    service
}

#[tokio::test]
async fn erasing_a_user_leaves_what_they_did_as_administrator() {
    let directory = tempfile::tempdir().unwrap();
    let service = used(directory.path()).await;
    let before = (logged_actors(&service).await.0, revised_by(&service).await);
    assert_eq!(before.0[..2], [NAME, NAME]);
    assert_eq!(before.1[..2], [NAME, NAME]);
    assert_eq!(erase(&service, DEFAULT, false).await.opening_count, Some(1), "the user with an address, not the actor");
    assert_eq!(user_emails(&service).await, [""]);
    assert_eq!((logged_actors(&service).await.0, revised_by(&service).await), before);
    assert_eq!(logged_actors(&service).await.1, [NAME], "who asked is on the record");
    assert_intact(&service).await;
    service.stop().await;

    let service = Service::with_config(config(directory.path())).await;
    assert_eq!((logged_actors(&service).await.0, revised_by(&service).await), before);
    service.stop().await;
}

async fn assert_named_nowhere(service: &Service, revisions: usize, erasures: usize) {
    let nobody = |count: usize| vec![String::new(); count];
    assert_eq!(revised_by(service).await, nobody(revisions));
    assert_eq!(logged_actors(service).await, (nobody(revisions), nobody(erasures)), "of itself nobody is named");
    assert_intact(service).await;
    assert_eq!(files_with_name(service.data_dir()), Vec::<String>::new());
}

#[tokio::test]
async fn an_actor_who_is_erased_too_is_nowhere_and_the_log_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let service = used(directory.path()).await;
    erase(&service, DEFAULT, false).await;
    let revisions = revised_by(&service).await.len();
    assert_eq!(erase(&service, DEFAULT, true).await.opening_count, Some(1), "the actor in the organization");
    assert_named_nowhere(&service, revisions, 2).await;
    service.stop().await;

    let service = Service::with_config(config(directory.path())).await;
    assert_named_nowhere(&service, revisions, 2).await;
    service.add_rule("three", Action::Deny, "203.0.113.7").await;
    assert_eq!(revised_by(&service).await[..2], [NAME, ""], "what is done afterwards is named again");
    service.stop().await;
}

#[tokio::test]
async fn an_actor_is_erased_where_it_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let service = used(directory.path()).await;
    let create = CreateNodeRequest { node_id: "other".to_owned(), ..Default::default() };
    service.hierarchy().create_node(create).await.unwrap();
    let made_by = async |parent: &str| {
        let request = ListRevisionsRequest { parent: parent.to_owned(), ..Default::default() };
        let revisions = service.analysis().list_revisions(request).await.unwrap().into_inner().revisions;
        revisions[0].policy_change.clone().unwrap().actor
    };
    erase(&service, DEFAULT, true).await;
    assert_eq!((&*made_by(DEFAULT).await, &*made_by("organizations/other").await), ("", NAME));
    erase(&service, "cluster", true).await;
    assert_eq!(made_by("organizations/other").await, "");
    assert_eq!(files_with_name(service.data_dir()), Vec::<String>::new());
    service.stop().await;
}

#[tokio::test]
async fn an_erasure_of_an_actor_that_a_crash_cut_off_is_finished_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let service = used(directory.path()).await;
    let revisions = revised_by(&service).await.len();
    let mark = service.data_dir().join("audit/erasing");
    service.stop().await;
    let asked_by = Actor { name: NAME.into() };
    let erasure = UnfinishedErasure {
        organization: None,
        name: NAME.to_owned(),
        including_actor: true,
        asked_by,
        after_sequence: u64::MAX,
        recorded: None,
    };
    std::fs::write(&mark, encode_erasure_mark([&erasure])).unwrap();

    let service = Service::with_config(config(directory.path())).await;
    until("the erasure is finished", async || (!mark.exists()).then_some(())).await;
    // Its record belongs to no organization.
    assert_named_nowhere(&service, revisions, 0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_is_erased_from_sealed_units_and_from_the_tail() {
    const ADMIN: &str = "admin@example.com";
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    add_rule_as(ADMIN, &engine, "one").await;
    for number in 0..700 {
        let email = if number % 2 == 0 { ADMIN } else { "other@example.com" };
        audit_engine::check(&engine, email, "192.0.2.1", RuleConnectionType::Preview, DEFAULT).await.unwrap();
        if number == 300 {
            settle(&engine).await;
        }
    }
    // The first unit ends with the tile that is begun when it is found old enough.
    another_unit(&engine, directory.path()).await;
    add_rule_as(ADMIN, &engine, "two").await;
    settle(&engine).await;
    let actors = || {
        let filter = RecordFilter { types: vec![RecordType::PolicyChanged], ..RecordFilter::default() };
        let records = engine.audit().list(&filter, None, 2).unwrap().records;
        records.into_iter().map(|record| record.subject).collect::<Vec<_>>()
    };
    let admin = || Subject::Actor(Actor { name: ADMIN.into() });
    engine.erase_user(audit_engine::erasure(ADMIN, "somebody")).await.unwrap();
    assert_eq!(actors(), [admin(), admin()]);
    let request =
        portcullis::engine::audit::EraseRequest { including_actor: true, ..audit_engine::erasure(ADMIN, "somebody") };
    let portcullis::engine::audit::Erased { openings: count, sequence, .. } = engine.erase_user(request).await.unwrap();
    assert_eq!(count, 2, "one opening in the sealed unit, one in the tail");
    assert_eq!(actors(), [Subject::Erased, Subject::Erased]);
    let revisions = engine.revisions(&Id::parse("default").unwrap(), None, 10).await.unwrap();
    assert!(revisions.iter().all(|revision| revision.actor.is_empty()));
    let record = engine.audit().read(sequence, 1).unwrap().remove(0);
    assert_eq!(record.subject, Subject::Actor(Actor { name: "somebody".into() }));
    assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, []);
    engine.close();
    assert_nowhere(directory.path(), ADMIN);
}

#[test]
fn an_actor_is_erased_in_place_from_its_own_changes_only() {
    let id = |text: &str| Id::parse(text).unwrap();
    let effect = Effect::DeleteOrganization { id: id("shop"), revision: 7 };
    let change = Change { actor: NAME.into(), comment: NAME.into(), ..Change::new(Timestamp::from_micros(1), effect) };
    let whole = encode_change(&change);
    for (organization, name) in [(None, "127.0.0"), (None, ""), (Some(id("other")), NAME)] {
        let mut bytes = whole.clone();
        assert!(!erase_actor(&mut bytes, organization.as_ref(), name).unwrap());
        assert_eq!(bytes, whole);
    }
    for organization in [None, Some(id("shop"))] {
        let mut bytes = whole.clone();
        assert!(erase_actor(&mut bytes, organization.as_ref(), NAME).unwrap());
        assert!(
            !erase_actor(&mut bytes, organization.as_ref(), NAME).unwrap(),
            "a second time there is nothing to erase"
        );
        assert_eq!(bytes.len(), whole.len());
        assert_eq!(decode_change(&bytes).unwrap(), Change { actor: "".into(), ..change.clone() });
    }
}

#[test]
fn an_actor_of_a_change_that_cannot_be_decoded_is_not_passed_over_in_silence() {
    // Without an effect nobody knows whose change it is.
    let stored = portcullis::proto::storage::PolicyChange { actor: NAME.to_owned(), ..Default::default() };
    let mut bytes = prost::Message::encode_to_vec(&stored);
    let whole = bytes.clone();
    let organization = Id::parse("shop").unwrap();
    assert!(erase_actor(&mut bytes, Some(&organization), NAME).is_err());
    assert_eq!(bytes, whole);
    assert!(!erase_actor(&mut bytes, Some(&organization), "somebody").unwrap(), "others are not concerned");
}
