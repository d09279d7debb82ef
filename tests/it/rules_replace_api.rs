//! Rules through the API, all of a list at a time and without effect: replacing, and validating only.
//!
//! Invariant: a rule that is kept keeps what it has; what is only validated leaves no trace, not even an etag.
//! Not here: single rules and their order (`rules_api`).

use portcullis::proto::v1::{
    Action, ChangeOptions, CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, MoveRuleRequest, Reason,
    ReorderRulesRequest, ReplaceRulesRequest, ReplaceRulesResponse, Rule, UpdateRuleRequest,
};
use tonic::Code;

use crate::harness::{Service, assert_error, rule};
use crate::rules_api::{creation, get, header, list, name, update};

const ORGANIZATION: &str = "organizations/default";

async fn replace(service: &Service, rules: Vec<Rule>, validate_only: bool) -> ReplaceRulesResponse {
    let options = Some(ChangeOptions { validate_only, comment: "weekly".to_owned(), ..ChangeOptions::default() });
    let request = ReplaceRulesRequest { parent: ORGANIZATION.to_owned(), rules, etag: String::new(), options };
    service.firewall().replace_rules(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn replacing_rules_keeps_what_rules_of_the_same_name_have_seen() {
    let service = Service::start().await;
    service.add_rule("kept", Action::Deny, "192.0.2.0/24").await;
    service.add_rule("changed", Action::Deny, "198.51.100.0/24").await;
    service.add_rule("gone", Action::Deny, "203.0.113.0/24").await;
    for ip in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1"] {
        service.check(ip, ORGANIZATION).await;
    }
    let before = list(&service).await;
    let (kept, changed) = (get(&service, "kept").await, get(&service, "changed").await);
    assert_eq!((kept.match_count, changed.match_count), (2, 1));
    let rules = vec![
        rule(Action::Allow, "192.0.2.9"),
        Rule { description: "new".to_owned(), ..changed.clone() },
        Rule { etag: "of no matter".to_owned(), ..kept.clone() },
        Rule { name: name("fresh"), ..rule(Action::Deny, "2001:db8::1") },
    ];
    let answer = replace(&service, rules, false).await;
    let now = list(&service).await;
    assert_eq!((&answer.rules, &answer.etag, answer.revision), (&now.rules, &now.etag, before.revision + 1));
    let [made_up, changed_now, kept_now, fresh] = &now.rules[..] else { panic!("{now:?}") };
    let expected = Rule { position: 3, revision: now.revision, ..kept };
    assert_eq!(*kept_now, expected, "a rule that stays as it is keeps all it has");
    assert_eq!((changed_now.match_count, changed_now.create_time), (1, changed.create_time));
    assert!(changed_now.etag != changed.etag && changed_now.description == "new");
    assert_eq!((made_up.match_count, fresh.match_count, fresh.name.clone()), (0, 0, name("fresh")));
    assert_error(
        service.firewall().get_rule(GetRuleRequest { name: name("gone"), ..Default::default() }).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    // The same list again is no change, another order is one.
    assert_eq!(replace(&service, now.rules.clone(), false).await.revision, now.revision);
    let turned = replace(&service, now.rules.iter().rev().cloned().collect(), false).await;
    assert_eq!((turned.revision, &turned.rules[3].etag), (now.revision + 1, &now.rules[0].etag));
    assert_eq!(replace(&service, Vec::new(), false).await.rules, []);
    assert_eq!(service.check("192.0.2.1", ORGANIZATION).await.reason(), Reason::DefaultAllow);
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_is_only_validated_changes_nothing_and_gives_no_etag() {
    let service = Service::start().await;
    let mut firewall = service.firewall();
    service.add_rule("a", Action::Deny, "192.0.2.1").await;
    service.add_rule("b", Action::Deny, "192.0.2.2").await;
    let before = list(&service).await;
    let options = Some(ChangeOptions { validate_only: true, ..ChangeOptions::default() });
    let judged = |rule: Rule| assert_eq!((rule.etag.as_str(), rule.revision), ("", before.revision), "{rule:?}");

    let request = CreateRuleRequest { options: options.clone(), ..creation("c", rule(Action::Allow, "any")) };
    let created = firewall.create_rule(request).await.unwrap();
    assert_eq!(header(&created), before.revision);
    assert_eq!((created.get_ref().name.clone(), created.get_ref().position), (name("c"), 3));
    judged(created.into_inner());
    let request = UpdateRuleRequest { options: options.clone(), ..update("a", rule(Action::Allow, "any"), &[]) };
    let updated = firewall.update_rule(request).await.unwrap().into_inner();
    assert_eq!(updated.action(), Action::Allow);
    judged(updated);
    let request = MoveRuleRequest { name: name("a"), position: 2, options: options.clone(), ..Default::default() };
    let moved = firewall.move_rule(request).await.unwrap().into_inner();
    assert_eq!(moved.position, 2);
    judged(moved);
    let request = DeleteRuleRequest { name: name("a"), options: options.clone(), ..Default::default() };
    firewall.delete_rule(request).await.unwrap();
    let rules = vec![name("b"), name("a")];
    let request = ReorderRulesRequest { parent: ORGANIZATION.to_owned(), rules, options, ..Default::default() };
    let reordered = firewall.reorder_rules(request).await.unwrap().into_inner();
    assert_eq!((reordered.etag.as_str(), reordered.revision), ("", before.revision));
    let replaced = replace(&service, vec![rule(Action::Allow, "any")], true).await;
    assert_eq!((replaced.etag.as_str(), replaced.revision), ("", before.revision));
    reordered.rules.into_iter().chain(replaced.rules).for_each(judged);
    assert_eq!(list(&service).await, before);
    // What would be refused is refused.
    let request = CreateRuleRequest {
        options: Some(ChangeOptions { validate_only: true, ..Default::default() }),
        ..creation("a", rule(Action::Allow, "any"))
    };
    assert_error(firewall.create_rule(request).await, Code::AlreadyExists, "ALREADY_EXISTS");
    service.stop().await;
}
