//! A change that ends the waiting of another one and waits itself, over real gRPC.
//!
//! Invariant: what nobody confirmed never stays, and is gone at the first deadline.
//! Not here: a single change that waits (`revisions_api`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::{
    Action, ChangeOptions, ConfirmRevisionRequest, CreateRuleRequest, DeleteRuleRequest, GetNodeRequest,
    ListRulesRequest, PendingRevision, Revision, RollbackRevisionRequest,
};
use tonic::Code;

use crate::clock::{Hand, until};
use crate::harness::{Service, assert_error, rule};

const DEFAULT: &str = "organizations/default";

fn waiting(within: u64) -> ChangeOptions {
    let confirm_within = Some(Duration::from_secs(within).try_into().unwrap());
    ChangeOptions { confirm_within, ..ChangeOptions::default() }
}

fn name(revision: i64) -> String {
    format!("{DEFAULT}/revisions/{revision}")
}

/// Adds a rule that waits for its confirmation; answers with the revision.
async fn add_waiting(service: &Service, id: &str, within: u64) -> i64 {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(rule(Action::Deny, "any")),
        rule_id: id.to_owned(),
        options: Some(waiting(within)),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap().into_inner().revision
}

async fn rollback(service: &Service, revision: i64, options: impl Into<Option<ChangeOptions>>) -> Revision {
    let options = options.into();
    let request = RollbackRevisionRequest { name: name(revision), options, ..RollbackRevisionRequest::default() };
    service.analysis().rollback_revision(request).await.unwrap().into_inner()
}

async fn rules(service: &Service) -> Vec<String> {
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..ListRulesRequest::default() };
    let rules = service.firewall().list_rules(request).await.unwrap().into_inner().rules;
    rules.into_iter().map(|rule| rule.name.rsplit('/').next().unwrap().to_owned()).collect()
}

async fn pending(service: &Service) -> Option<PendingRevision> {
    let request = GetNodeRequest { name: DEFAULT.to_owned() };
    service.hierarchy().get_node(request).await.unwrap().into_inner().pending_revision
}

/// Waits until nothing waits for its confirmation any longer.
async fn settled(service: &Service) {
    until("the change is undone", async || pending(service).await.is_none().then_some(())).await;
}

fn millis(time: prost_types::Timestamp) -> i64 {
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}

fn now(hand: &Hand) -> i64 {
    i64::try_from(hand.now().as_millis()).unwrap()
}

/// How long the change that waits may still be confirmed.
async fn left(service: &Service, hand: &Hand) -> i64 {
    millis(pending(service).await.unwrap().revert_time.unwrap()) - now(hand)
}

#[tokio::test]
async fn the_undo_of_a_rollback_brings_back_nothing_that_nobody_confirmed() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    service.add_rule("kept", Action::Allow, "10.0.0.0/8").await;
    let waits = add_waiting(&service, "lock", 4).await;
    assert_eq!(rules(&service).await, ["kept", "lock"]);
    let back = rollback(&service, waits - 1, waiting(1)).await;
    assert_eq!((rules(&service).await, left(&service, &hand).await), (vec!["kept".to_owned()], 1_000));

    hand.advance(Duration::from_secs(1));
    settled(&service).await;
    assert_eq!(rules(&service).await, ["kept"], "revision {waits} waited, too");
    hand.advance(Duration::from_secs(10));
    assert_eq!(rules(&service).await, ["kept"]);
    for gone in [waits, back.revision] {
        let confirm = ConfirmRevisionRequest { name: name(gone), options: None };
        let answer = service.analysis().confirm_revision(confirm).await;
        assert_error(answer, Code::FailedPrecondition, "NOTHING_TO_CONFIRM");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_rollback_to_another_revision_is_undone_to_the_last_one_that_did_not_wait() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    service.add_rule("first", Action::Allow, "10.0.0.0/8").await;
    let kept = service.add_rule("second", Action::Allow, "192.0.2.0/24").await;
    add_waiting(&service, "lock", 60).await;
    rollback(&service, kept.revision - 1, waiting(30)).await;
    assert_eq!(rules(&service).await, ["first"]);
    // A chain: each ends the waiting of the one before it.
    rollback(&service, 1, waiting(20)).await;
    assert_eq!(rules(&service).await, Vec::<String>::new());
    hand.advance(Duration::from_secs(20));
    settled(&service).await;
    assert_eq!(rules(&service).await, ["first", "second"]);
    service.stop().await;
}

#[tokio::test]
async fn a_rollback_to_what_waits_lengthens_no_deadline() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let waits = add_waiting(&service, "lock", 4).await;
    hand.advance(Duration::from_secs(1));
    // To the very revision that waits.
    let same = rollback(&service, waits, waiting(600)).await;
    assert_eq!((rules(&service).await, left(&service, &hand).await), (vec!["lock".to_owned()], 3_000));
    assert_eq!(millis(same.policy_change.unwrap().revert_time.unwrap()) - now(&hand), 3_000, "the answer says so");
    // Away from it and to it again.
    rollback(&service, waits - 1, waiting(600)).await;
    rollback(&service, waits, waiting(600)).await;
    assert_eq!((rules(&service).await, left(&service, &hand).await), (vec!["lock".to_owned()], 3_000));
    hand.advance(Duration::from_secs(3));
    settled(&service).await;
    assert_eq!(rules(&service).await, Vec::<String>::new());
    service.stop().await;
}

#[tokio::test]
async fn a_rollback_that_is_confirmed_or_need_not_be_stays() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let waits = add_waiting(&service, "lock", 4).await;
    rollback(&service, waits - 1, waiting(4)).await;
    let again = rollback(&service, waits, waiting(4)).await;
    let confirm = ConfirmRevisionRequest { name: name(again.revision), options: None };
    service.analysis().confirm_revision(confirm).await.unwrap();
    assert_eq!(pending(&service).await, None);
    hand.advance(Duration::from_secs(10));
    assert_eq!(rules(&service).await, ["lock"], "it was confirmed");

    let name = format!("{DEFAULT}/rules/lock");
    let delete = DeleteRuleRequest { name, options: Some(waiting(4)), ..DeleteRuleRequest::default() };
    service.firewall().delete_rule(delete).await.unwrap();
    rollback(&service, again.revision, None).await;
    assert_eq!((rules(&service).await, pending(&service).await), (vec!["lock".to_owned()], None));
    hand.advance(Duration::from_secs(10));
    assert_eq!(rules(&service).await, ["lock"]);
    service.stop().await;
}

#[tokio::test]
async fn a_rollback_that_waits_is_undone_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::for_data_dir(directory.path().join("data"));
    let hand = Hand::new();
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    service.add_rule("kept", Action::Allow, "10.0.0.0/8").await;
    let waits = add_waiting(&service, "lock", 4).await;
    rollback(&service, waits - 1, waiting(2)).await;
    service.stop().await;

    // It still waits, and what it restores was stored.
    let service = Service::with_clock(config.clone(), hand.clock()).await;
    assert_eq!(left(&service, &hand).await, 2_000);
    service.stop().await;
    hand.advance(Duration::from_secs(2));
    let service = Service::with_clock(config, hand.clock()).await;
    assert_eq!((rules(&service).await, pending(&service).await), (vec!["kept".to_owned()], None));
    service.stop().await;
}
