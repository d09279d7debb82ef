//! Rules through the API: the standard methods, order, etags, masks and counts.
//!
//! Invariant: a change has exactly the effect that it was asked for, and a revision of its own only where it has one.
//! Not here: malformed requests (`malformed_rules`), pages (`lists_api`), what a decision is (`decisions`).

use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Action, ConnectionType, CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, ListRulesRequest, ListRulesResponse,
    MoveRuleRequest, ReorderRulesRequest, ReplaceRulesRequest, Rule, UpdateRuleRequest,
};
use prost_types::{FieldMask, Timestamp};
use tonic::{Code, Response, Status};

use crate::harness::{Service, assert_error, rule};

const ORGANIZATION: &str = "organizations/default";

/// The name of a rule of the default organization.
pub(crate) fn name(id: &str) -> String {
    format!("{ORGANIZATION}/rules/{id}")
}

/// A request to create a rule at the end.
pub(crate) fn creation(id: &str, rule: Rule) -> CreateRuleRequest {
    let (parent, rule_id) = (ORGANIZATION.to_owned(), id.to_owned());
    CreateRuleRequest { parent, rule: Some(rule), rule_id, ..CreateRuleRequest::default() }
}

/// A request to update the fields that a mask names; no paths, no mask.
pub(crate) fn update(id: &str, rule: Rule, paths: &[&str]) -> UpdateRuleRequest {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    UpdateRuleRequest { rule: Some(Rule { name: name(id), ..rule }), update_mask, options: None }
}

/// The first page of the rules.
pub(crate) async fn list(service: &Service) -> ListRulesResponse {
    let request = ListRulesRequest { parent: ORGANIZATION.to_owned(), ..ListRulesRequest::default() };
    service.firewall().list_rules(request).await.unwrap().into_inner()
}

/// The ids of all rules in order; their positions must be dense.
async fn order(service: &Service) -> Vec<String> {
    let rules = list(service).await.rules;
    let positions: Vec<i32> = rules.iter().map(|rule| rule.position).collect();
    assert_eq!(positions, (1..).take(rules.len()).collect::<Vec<i32>>());
    let id = |rule: &Rule| rule.name.rsplit('/').next().unwrap().to_owned();
    rules.iter().map(id).collect()
}

/// One rule.
pub(crate) async fn get(service: &Service, id: &str) -> Rule {
    service.firewall().get_rule(GetRuleRequest { name: name(id), ..Default::default() }).await.unwrap().into_inner()
}

async fn set(service: &Service, request: UpdateRuleRequest) -> Rule {
    service.firewall().update_rule(request).await.unwrap().into_inner()
}

/// The rule without what merely says when it was read.
fn content(rule: &Rule) -> Rule {
    Rule { revision: 0, ..rule.clone() }
}

/// The revision that the header of an answer names.
pub(crate) fn header<T>(response: &Response<T>) -> i64 {
    response.metadata().get("portcullis-revision").expect("the header").to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_rule_is_created_read_changed_and_deleted_and_every_answer_names_the_revision() {
    let service = Service::start().await;
    let mut firewall = service.firewall();
    let given = Rule {
        name: name("ignored"),
        position: 7,
        etag: "ignored".to_owned(),
        match_count: 7,
        connection_types: vec![ConnectionType::Preview.into()],
        description: "ü".repeat(1_024),
        expire_time: Some(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }),
        disabled: true,
        ..rule(Action::Deny, "2001:DB8:0::/32")
    };
    let created = firewall.create_rule(creation("first", given.clone())).await.unwrap();
    assert_eq!(header(&created), 2);
    let created = created.into_inner();
    let expected = Rule {
        name: name("first"),
        source: Some(Source::Range("2001:db8::/32".to_owned())),
        position: 1,
        etag: created.etag.clone(),
        match_count: 0,
        create_time: created.create_time,
        update_time: created.create_time,
        match_count_start_time: created.match_count_start_time,
        revision: 2,
        ..given
    };
    assert_eq!(created, expected);
    assert!(!created.etag.is_empty() && created.create_time.is_some() && created.match_count_start_time.is_some());
    let read = firewall.get_rule(GetRuleRequest { name: name("first"), ..Default::default() }).await.unwrap();
    assert_eq!((header(&read), read.into_inner()), (2, created.clone()));

    let changed = firewall.update_rule(update("first", rule(Action::Allow, "any"), &["action"])).await.unwrap();
    assert_eq!(header(&changed), 3);
    let changed = changed.into_inner();
    assert_ne!(changed.etag, created.etag);
    assert!(changed.update_time.unwrap().nanos != 0 && changed.create_time == created.create_time);
    let expected = Rule {
        action: Action::Allow.into(),
        etag: changed.etag.clone(),
        update_time: changed.update_time,
        revision: 3,
        ..created
    };
    assert_eq!(changed, expected);

    let listed = firewall.list_rules(ListRulesRequest { parent: ORGANIZATION.to_owned(), ..Default::default() }).await;
    let listed = listed.unwrap();
    assert_eq!((header(&listed), listed.get_ref().revision, listed.get_ref().rules.as_slice()), (3, 3, &[changed][..]));
    let deleted = firewall.delete_rule(DeleteRuleRequest { name: name("first"), ..Default::default() }).await.unwrap();
    assert_eq!(header(&deleted), 4);
    assert_eq!(list(&service).await.revision, 4);
    service.stop().await;
}

#[tokio::test]
async fn the_server_makes_up_ids_that_are_free_and_refuses_taken_ones() {
    let service = Service::start().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let created = service.firewall().create_rule(creation("", rule(Action::Deny, "192.0.2.1"))).await.unwrap();
        let made_up = created.into_inner().name;
        let id = made_up.strip_prefix("organizations/default/rules/").unwrap();
        assert!(!id.is_empty() && id.len() <= 63, "{id}");
        assert!(names.insert(made_up));
    }
    service.add_rule("taken", Action::Deny, "192.0.2.1").await;
    let revision = list(&service).await.revision;
    // The id is judged before the fields, as the existence of what an update names is.
    for given in [rule(Action::Allow, "any"), Rule::default()] {
        let answer = service.firewall().create_rule(creation("taken", given)).await;
        assert_error(answer, Code::AlreadyExists, "ALREADY_EXISTS");
    }
    // Another organization has ids of its own, and a deleted one's is free again.
    service.add_node("", "other", None).await;
    let elsewhere =
        CreateRuleRequest { parent: "organizations/other".to_owned(), ..creation("taken", rule(Action::Deny, "any")) };
    service.firewall().create_rule(elsewhere).await.unwrap();
    assert_eq!(list(&service).await.revision, revision);
    service.firewall().delete_rule(DeleteRuleRequest { name: name("taken"), ..Default::default() }).await.unwrap();
    service.add_rule("taken", Action::Deny, "192.0.2.1").await;
    service.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_whatever_is_asked_of_it() {
    let service = Service::start().await;
    let mut firewall = service.firewall();
    let revision = list(&service).await.revision;
    let found = |answer: Result<Response<Rule>, Status>| assert_error(answer, Code::NotFound, "NOT_FOUND");
    for name in ["organizations/default/rules/no", "organizations/no/rules/no"] {
        let name = name.to_owned();
        found(firewall.get_rule(GetRuleRequest { name: name.clone(), ..Default::default() }).await);
        let request = MoveRuleRequest { name: name.clone(), position: -1, ..Default::default() };
        found(firewall.move_rule(request).await);
        let stale = Rule { name: name.clone(), etag: "x".to_owned(), ..Rule::default() };
        found(firewall.update_rule(UpdateRuleRequest { rule: Some(stale), ..Default::default() }).await);
        let request = DeleteRuleRequest { name, etag: "x".to_owned(), ..Default::default() };
        assert_error(firewall.delete_rule(request).await, Code::NotFound, "NOT_FOUND");
    }
    let parent = || "organizations/no".to_owned();
    found(firewall.create_rule(CreateRuleRequest { parent: parent(), ..Default::default() }).await);
    let request = ReorderRulesRequest { parent: parent(), ..Default::default() };
    assert_error(firewall.reorder_rules(request).await, Code::NotFound, "NOT_FOUND");
    let request = ReplaceRulesRequest { parent: parent(), ..Default::default() };
    assert_error(firewall.replace_rules(request).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(list(&service).await.revision, revision);
    service.stop().await;
}

#[tokio::test]
async fn a_rule_goes_to_the_position_that_was_asked_for_and_the_others_make_room() {
    let service = Service::start().await;
    for (id, position, expected) in [
        ("b", None, "b"),
        ("d", Some(2), "b d"),
        ("a", Some(1), "a b d"),
        ("c", Some(3), "a b c d"),
        ("e", None, "a b c d e"),
    ] {
        let request = CreateRuleRequest { position, ..creation(id, rule(Action::Deny, "any")) };
        service.firewall().create_rule(request).await.unwrap();
        assert_eq!(order(&service).await.join(" "), expected);
    }
    let revision = list(&service).await.revision;
    for (change, (id, position, expected)) in (0..).zip([
        ("a", 3, "b c a d e"),
        ("a", 1, "a b c d e"),
        ("e", 1, "e a b c d"),
        ("e", 5, "a b c d e"),
        ("a", 6, "b c d e a"),
        ("b", 2, "c b d e a"),
    ]) {
        let etag = get(&service, id).await.etag;
        let request = MoveRuleRequest { name: name(id), position, etag: etag.clone(), options: None };
        let moved = service.firewall().move_rule(request).await.unwrap().into_inner();
        assert_eq!(order(&service).await.join(" "), expected);
        assert_eq!((moved.position, moved.etag), (position.min(5), etag), "the position is no settable field");
        assert_eq!(moved.revision, revision + 1 + change);
    }
    // To where it is, and behind the last where it is the last: no effect, no revision.
    let etag = list(&service).await.etag;
    for (id, position) in [("c", 1), ("d", 3), ("a", 5), ("a", 6)] {
        let request = MoveRuleRequest { name: name(id), position, ..Default::default() };
        let moved = service.firewall().move_rule(request).await.unwrap().into_inner();
        assert_eq!((moved.position, moved.revision), (position.min(5), revision + 6));
    }
    assert_eq!((list(&service).await.etag, order(&service).await.join(" ")), (etag, "c b d e a".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn a_mask_reaches_what_it_names_and_a_change_without_effect_has_no_revision() {
    let service = Service::start().await;
    let full = Rule {
        description: "old".to_owned(),
        connection_types: vec![ConnectionType::Shell.into()],
        expire_time: Some(Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        disabled: true,
        ..rule(Action::Deny, "192.0.2.0/24")
    };
    let before = service.firewall().create_rule(creation("r", full)).await.unwrap().into_inner();

    // Without a mask: what is populated. False and empty are not.
    let after = set(&service, update("r", Rule { description: "new".to_owned(), ..Rule::default() }, &[])).await;
    let times =
        |rule: &Rule, from: &Rule| Rule { update_time: from.update_time, etag: from.etag.clone(), ..rule.clone() };
    assert_eq!(content(&after), Rule { description: "new".to_owned(), ..times(&content(&before), &after) });
    // Named and not populated: cleared.
    let empty = Rule { action: Action::Allow.into(), ..Rule::default() };
    let paths = ["description", "expire_time", "connection_types", "disabled"];
    let cleared = set(&service, update("r", empty, &paths)).await;
    assert_eq!((cleared.description.as_str(), cleared.expire_time, cleared.disabled), ("", None, false));
    assert_eq!((cleared.connection_types.len(), cleared.action()), (0, Action::Deny));
    // A full replacement sets everything.
    let whole = Rule { description: "whole".to_owned(), ..rule(Action::Allow, "any") };
    let replaced = set(&service, update("r", whole.clone(), &["*"])).await;
    assert_eq!(
        content(&replaced),
        Rule {
            position: 1,
            name: name("r"),
            ..content(&Rule {
                match_count_start_time: replaced.match_count_start_time,
                create_time: before.create_time,
                ..times(&whole, &replaced)
            })
        }
    );
    // What is as it was already changes nothing: no revision, no etag, no time.
    for request in [
        update("r", whole.clone(), &["*"]),
        update("r", whole.clone(), &[]),
        update("r", whole.clone(), &["range", "action", "description"]),
        update("r", Rule::default(), &[]),
        update("r", Rule { position: 9, match_count: 9, ..Rule::default() }, &[]),
        update("r", rule(Action::Allow, "ANY"), &["range"]),
    ] {
        assert_eq!(set(&service, request).await, replaced);
    }
    // Range and group take each other's place.
    service
        .firewall()
        .create_address_group(portcullis::proto::v1::CreateAddressGroupRequest {
            parent: ORGANIZATION.to_owned(),
            address_group_id: "g".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    let group = Source::AddressGroup("organizations/default/addressGroups/g".to_owned());
    let by_group = Rule { source: Some(group.clone()), ..Rule::default() };
    assert_eq!(set(&service, update("r", by_group.clone(), &["address_group"])).await.source, Some(group.clone()));
    let back = set(&service, update("r", rule(Action::Allow, "192.0.2.9/32"), &["range"])).await;
    assert_eq!(back.source, Some(Source::Range("192.0.2.9".to_owned())));
    assert_eq!(set(&service, update("r", by_group, &["range", "address_group"])).await.source, Some(group));
    service.stop().await;
}

#[tokio::test]
async fn a_stale_etag_is_refused_before_anything_else_and_a_current_one_is_accepted() {
    let service = Service::start().await;
    let mut firewall = service.firewall();
    let old = service.add_rule("r", Action::Deny, "192.0.2.1").await.etag;
    let old_list = list(&service).await.etag;
    let fresh = set(&service, update("r", rule(Action::Allow, "any"), &["action"])).await.etag;
    service.add_rule("s", Action::Deny, "192.0.2.2").await;
    let revision = list(&service).await.revision;
    let stale = || old.clone();

    let bad = Rule { etag: stale(), action: 9, description: "x".repeat(2_000), ..rule(Action::Deny, "x") };
    for paths in [&[][..], &["*"], &["nothing"]] {
        let answer = firewall.update_rule(update("r", bad.clone(), paths)).await;
        assert_error(answer, Code::Aborted, "STALE_ETAG");
    }
    let request = MoveRuleRequest { name: name("r"), position: -1, etag: stale(), options: None };
    assert_error(firewall.move_rule(request).await, Code::Aborted, "STALE_ETAG");
    let request = DeleteRuleRequest { name: name("r"), etag: stale(), options: None };
    assert_error(firewall.delete_rule(request).await, Code::Aborted, "STALE_ETAG");
    let parent = || ORGANIZATION.to_owned();
    for etag in [old_list.clone(), fresh.clone(), "nonsense".to_owned()] {
        let request =
            ReorderRulesRequest { parent: parent(), rules: vec![name("no")], etag: etag.clone(), options: None };
        assert_error(firewall.reorder_rules(request).await, Code::Aborted, "STALE_ETAG");
        let request = ReplaceRulesRequest { parent: parent(), rules: vec![Rule::default()], etag, options: None };
        assert_error(firewall.replace_rules(request).await, Code::Aborted, "STALE_ETAG");
    }
    // Another rule's etag is none of this one's, and the old list's does not move it either.
    for etag in [get(&service, "s").await.etag, old_list] {
        let request = MoveRuleRequest { name: name("r"), position: 2, etag, options: None };
        assert_error(firewall.move_rule(request).await, Code::Aborted, "STALE_ETAG");
    }
    assert_eq!(list(&service).await.revision, revision);

    let moved = MoveRuleRequest { name: name("r"), position: 2, etag: list(&service).await.etag, options: None };
    firewall.move_rule(moved).await.unwrap();
    let request = update("r", Rule { etag: fresh.clone(), ..rule(Action::Deny, "any") }, &["action"]);
    let newest = set(&service, request).await.etag;
    let request = DeleteRuleRequest { name: name("r"), etag: newest.clone(), options: None };
    firewall.delete_rule(request).await.unwrap();
    // The same rule made again is another one.
    let again = service.add_rule("r", Action::Deny, "192.0.2.1").await.etag;
    assert!(![old, fresh, newest].contains(&again));
    service.stop().await;
}

#[tokio::test]
async fn the_lists_etag_changes_with_every_change_of_the_list_and_with_nothing_else() {
    let service = Service::start().await;
    let mut etags = vec![list(&service).await.etag];
    let mut firewall = service.firewall();
    service.add_rule("a", Action::Deny, "192.0.2.1").await;
    etags.push(list(&service).await.etag);
    service.add_rule("b", Action::Deny, "192.0.2.2").await;
    etags.push(list(&service).await.etag);
    set(&service, update("a", rule(Action::Allow, "any"), &["action"])).await;
    etags.push(list(&service).await.etag);
    let request = MoveRuleRequest { name: name("a"), position: 2, ..Default::default() };
    firewall.move_rule(request).await.unwrap();
    etags.push(list(&service).await.etag);
    let single = [get(&service, "a").await.etag, get(&service, "b").await.etag];
    let request = ReorderRulesRequest {
        parent: ORGANIZATION.to_owned(),
        rules: vec![name("a"), name("b")],
        etag: etags.last().unwrap().clone(),
        options: None,
    };
    let reordered = firewall.reorder_rules(request.clone()).await.unwrap().into_inner();
    assert_eq!(reordered.etag, list(&service).await.etag);
    assert_eq!([&reordered.rules[0].etag, &reordered.rules[1].etag], [&single[0], &single[1]]);
    etags.push(reordered.etag.clone());
    // The order that there is already is no change.
    let same = ReorderRulesRequest { etag: reordered.etag.clone(), ..request };
    assert_eq!(firewall.reorder_rules(same).await.unwrap().into_inner(), reordered);
    firewall.delete_rule(DeleteRuleRequest { name: name("a"), ..Default::default() }).await.unwrap();
    etags.push(list(&service).await.etag);
    let distinct: std::collections::BTreeSet<&String> = etags.iter().collect();
    assert_eq!(distinct.len(), etags.len(), "{etags:?}");
    // Decisions and changes elsewhere are none of the list.
    service.check("192.0.2.2", ORGANIZATION).await;
    service.add_node(ORGANIZATION, "project", None).await;
    assert_eq!(list(&service).await.etag, *etags.last().unwrap());
    service.stop().await;
}
