//! Malformed requests about rules: every field of every call, wrong in every way that somebody has thought of.
//!
//! Invariant: a malformed request names all its faults with their paths at once and changes nothing.
//! Not here: address groups (`malformed_groups`), nodes (`malformed_hierarchy`), the transport (`malformed_transport`).

use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Action, ChangeOptions, CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, ListRulesRequest, MoveRuleRequest,
    ReorderRulesRequest, ReplaceRulesRequest, Rule, UpdateRuleRequest,
};
use prost_types::{Duration, FieldMask, Timestamp};
use tonic::{Code, Response, Status};

use crate::harness::rule;
use crate::malformed_check::NO_ADDRESSES;
use crate::refusals::{FOREIGN, GROUP, ORGANIZATION, OTHER, RULE, SECOND, Table};

/// Ranges that are refused, and what the error must say.
pub(crate) const NO_RANGES: &[(&str, &str, &str)] = &[
    ("empty range", "", "empty"),
    ("host bits", "10.0.0.5/8", "`10.0.0.0/8` for the whole range or `10.0.0.5`"),
    ("IPv6 host bits", "2001:db8::1/32", "`2001:db8::/32` for the whole range or `2001:db8::1`"),
    ("mapped host bits", "::ffff:10.0.0.5/104", "`10.0.0.0/8` for the whole range or `10.0.0.5`"),
    ("short mapped", "::ffff:0:0/95", "/96"),
    ("short mapped with host bits", "::ffff:10.0.0.5/8", "/96"),
    ("prefix too long", "10.0.0.0/33", "0 to 32"),
    ("IPv6 prefix too long", "2001:db8::/129", "0 to 128"),
    ("prefix with a leading zero", "10.0.0.0/08", "prefix length"),
    ("prefix with a sign", "10.0.0.0/+8", "prefix length"),
    ("negative prefix", "10.0.0.0/-1", "prefix length"),
    ("no prefix", "10.0.0.0/", "prefix length"),
    ("two prefixes", "10.0.0.0/8/8", "prefix length"),
    ("a mask", "10.0.0.0/255.0.0.0", "prefix length"),
    ("no address", "/8", ""),
    ("a space before the prefix", "10.0.0.0 /8", "spaces"),
    ("a span", "10.0.0.0-10.0.0.9", ""),
    ("any with a prefix", "any/0", ""),
    ("any with a space", "any ", ""),
    ("a wildcard", "*", ""),
    ("a short network", "10/8", ""),
];

fn by_group(name: &str) -> Rule {
    Rule { source: Some(Source::AddressGroup(name.to_owned())), ..rule(Action::Deny, "any") }
}

fn good() -> Rule {
    rule(Action::Deny, "192.0.2.0/24")
}

fn creation(rule: Rule) -> CreateRuleRequest {
    CreateRuleRequest { parent: ORGANIZATION.to_owned(), rule: Some(rule), ..CreateRuleRequest::default() }
}

fn update(rule: Rule, paths: &[&str]) -> UpdateRuleRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let rule = Rule { name: if rule.name.is_empty() { RULE.to_owned() } else { rule.name }, ..rule };
    UpdateRuleRequest { rule: Some(rule), update_mask: Some(FieldMask { paths }), options: None }
}

async fn create(t: &Table, rule: Rule) -> Result<Response<Rule>, Status> {
    t.firewall().create_rule(creation(rule)).await
}

#[tokio::test]
async fn no_malformed_range_enters_a_rule_and_the_error_says_what_to_write() {
    let mut t = Table::start().await;
    for (case, range, words) in NO_RANGES {
        let answer = create(&t, rule(Action::Deny, range)).await;
        let message = answer.as_ref().map_or_else(|status| status.message().to_owned(), |_| String::new());
        assert!(message.contains(words), "{case}: `{words}` in {message}");
        t.invalid(case, answer, &["rule.range"]).await;
    }
    for (case, range) in NO_ADDRESSES {
        t.invalid(case, create(&t, rule(Action::Deny, range)).await, &["rule.range"]).await;
    }
    t.finish(40).await;
}

#[tokio::test]
async fn no_malformed_field_enters_a_rule_and_all_of_them_are_named_at_once() {
    let mut t = Table::start().await;
    for action in [0, 3, -1] {
        t.invalid("action", create(&t, Rule { action, ..good() }).await, &["rule.action"]).await;
    }
    t.invalid("no source", create(&t, Rule { source: None, ..good() }).await, &["rule.range"]).await;
    let overlong = format!("{GROUP}{}", "x".repeat(64));
    let groups =
        ["", "office", "missing", FOREIGN, RULE, ORGANIZATION, "organizations/default/addressGroups/", &overlong];
    for group in groups.into_iter().chain(["organizations/default/addressGroups/missing"]) {
        t.invalid(group, create(&t, by_group(group)).await, &["rule.address_group"]).await;
    }
    for (types, path) in [
        (vec![0], "rule.connection_types[0]"),
        (vec![1, 3], "rule.connection_types[1]"),
        (vec![2, 1, -7], "rule.connection_types[2]"),
    ] {
        t.invalid("connection types", create(&t, Rule { connection_types: types, ..good() }).await, &[path]).await;
    }
    let description = "ü".repeat(1_025);
    let answer = create(&t, Rule { description, ..good() }).await;
    t.invalid("1,025 characters", answer, &["rule.description"]).await;
    for (seconds, nanos) in [(-62_135_596_801, 0), (253_402_300_800, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)] {
        let expire_time = Some(Timestamp { seconds, nanos });
        let answer = create(&t, Rule { expire_time, ..good() }).await;
        t.invalid("time out of range", answer, &["rule.expire_time"]).await;
    }
    for position in [0, -1, 4, i32::MIN, i32::MAX] {
        let answer = t.firewall().create_rule(CreateRuleRequest { position: Some(position), ..creation(good()) }).await;
        t.invalid("position of n+2 or below 1", answer, &["position"]).await;
    }
    for id in ["Office", "-office", "office-", "of fice", "of/fice", "büro", &"x".repeat(64)] {
        let answer = t.firewall().create_rule(CreateRuleRequest { rule_id: id.to_owned(), ..creation(good()) }).await;
        t.invalid(id, answer, &["rule_id"]).await;
    }
    let answer = t.firewall().create_rule(CreateRuleRequest { rule: None, ..creation(good()) }).await;
    t.invalid("no rule", answer, &["rule.action", "rule.range"]).await;
    let worst = Rule {
        action: 0,
        source: None,
        connection_types: vec![1, 0, 9],
        description: "x".repeat(1_025),
        expire_time: Some(Timestamp { seconds: i64::MAX, nanos: 0 }),
        ..Rule::default()
    };
    let in_rule = [
        "rule.action",
        "rule.range",
        "rule.connection_types[1]",
        "rule.connection_types[2]",
        "rule.description",
        "rule.expire_time",
    ];
    let comment = "x".repeat(1_025);
    let request = CreateRuleRequest {
        position: Some(9),
        options: Some(ChangeOptions { comment: comment.clone(), ..ChangeOptions::default() }),
        ..creation(worst.clone())
    };
    let answer = t.firewall().create_rule(request.clone()).await;
    t.invalid("all but the names", answer, &[&in_rule[..], &["position", "options.comment"]].concat()).await;
    // What can be judged is judged although the rule cannot be named.
    let request = CreateRuleRequest { rule_id: "No".to_owned(), position: Some(0), ..request };
    let answer = t.firewall().create_rule(request.clone()).await;
    let paths = [&in_rule[..], &["position", "options.comment", "rule_id"]].concat();
    t.invalid("all but the parent", answer, &paths).await;
    let answer = t.firewall().create_rule(CreateRuleRequest { parent: "default".to_owned(), ..request }).await;
    t.invalid("everything", answer, &[&paths[..], &["parent"]].concat()).await;
    t.finish(35).await;
}

#[tokio::test]
async fn no_malformed_name_of_an_organization_or_rule_is_looked_up() {
    let mut t = Table::start().await;
    for parent in ["", "default", "cluster", "organizations/", "organizations/Default", "organizations/default/", RULE]
    {
        let parent = parent.to_owned();
        let answer = t.firewall().create_rule(CreateRuleRequest { parent: parent.clone(), ..creation(good()) }).await;
        t.invalid(&parent, answer, &["parent"]).await;
        let request = ListRulesRequest { parent: parent.clone(), ..ListRulesRequest::default() };
        t.invalid(&parent, t.firewall().list_rules(request).await, &["parent"]).await;
        let request = ReorderRulesRequest { parent: parent.clone(), ..ReorderRulesRequest::default() };
        t.invalid(&parent, t.firewall().reorder_rules(request).await, &["parent"]).await;
        let request = ReplaceRulesRequest { parent, ..ReplaceRulesRequest::default() };
        t.invalid("replace", t.firewall().replace_rules(request).await, &["parent"]).await;
    }
    let long = format!("organizations/default/rules/{}", "x".repeat(64));
    for name in ["", "first", ORGANIZATION, GROUP, "organizations/default/rules/", "organizations/default/rules/First"]
        .into_iter()
        .chain(["organizations/default/rules/first/", "organizations/default/projects/p/rules/first", &long])
    {
        let name = name.to_owned();
        t.invalid(
            &name,
            t.firewall().get_rule(GetRuleRequest { name: name.clone(), ..Default::default() }).await,
            &["name"],
        )
        .await;
        let request = DeleteRuleRequest { name: name.clone(), ..DeleteRuleRequest::default() };
        t.invalid(&name, t.firewall().delete_rule(request).await, &["name"]).await;
        let request = MoveRuleRequest { name: name.clone(), position: 1, ..MoveRuleRequest::default() };
        t.invalid(&name, t.firewall().move_rule(request).await, &["name"]).await;
        let request = UpdateRuleRequest { rule: Some(Rule { name, ..good() }), ..UpdateRuleRequest::default() };
        t.invalid("update", t.firewall().update_rule(request).await, &["rule.name"]).await;
    }
    let request = MoveRuleRequest { name: "first".to_owned(), ..MoveRuleRequest::default() };
    t.invalid("name and position", t.firewall().move_rule(request).await, &["name", "position"]).await;
    for position in [0, -1, 4] {
        let request = MoveRuleRequest { name: RULE.to_owned(), position, ..MoveRuleRequest::default() };
        t.invalid("position", t.firewall().move_rule(request).await, &["position"]).await;
    }
    t.finish(60).await;
}

#[tokio::test]
async fn no_mask_reaches_what_an_update_cannot_set() {
    let mut t = Table::start().await;
    for path in ["position", "create_time", "update_time", "match_count", "last_match_time", "revision"]
        .into_iter()
        .chain(["name", "source", "Action", "expire_time.seconds", "", " ", "rule.action", "nothing"])
    {
        t.invalid(path, t.firewall().update_rule(update(good(), &[path])).await, &["update_mask"]).await;
    }
    let answer = t.firewall().update_rule(update(good(), &["*", "action"])).await;
    t.invalid("star and another", answer, &["update_mask"]).await;
    // What a mask names must be there.
    let answer = t.firewall().update_rule(update(Rule::default(), &["action"])).await;
    t.invalid("action named, not given", answer, &["rule.action"]).await;
    let answer = t.firewall().update_rule(update(Rule::default(), &["*"])).await;
    t.invalid("full replacement by nothing", answer, &["rule.action", "rule.range"]).await;
    for (mask, given) in [("range", Rule::default()), ("range", by_group(GROUP))] {
        let answer = t.firewall().update_rule(update(given, &[mask])).await;
        t.invalid("range named, not given", answer, &["rule.range"]).await;
    }
    for given in [Rule::default(), good()] {
        let answer = t.firewall().update_rule(update(given, &["address_group"])).await;
        t.invalid("group named, not given", answer, &["rule.address_group"]).await;
    }
    let answer = t.firewall().update_rule(update(by_group(FOREIGN), &["address_group", "position"])).await;
    t.invalid("mask and field", answer, &["update_mask", "rule.address_group"]).await;
    let bad = Rule { action: 7, description: "x".repeat(1_025), ..rule(Action::Deny, "10.0.0.1/8") };
    let paths = ["rule.action", "rule.description", "rule.range"];
    let request = UpdateRuleRequest { update_mask: None, ..update(bad.clone(), &[]) };
    t.invalid("populated fields", t.firewall().update_rule(request).await, &paths).await;
    // What a mask does not name is not read.
    let answer = t.firewall().update_rule(update(bad, &["disabled", "action"])).await;
    t.invalid("named fields only", answer, &["rule.action"]).await;
    t.finish(20).await;
}

#[tokio::test]
async fn lists_of_rules_are_refused_with_the_index_of_what_is_wrong() {
    let mut t = Table::start().await;
    let missing = "organizations/default/rules/missing";
    let foreign = "organizations/other/rules/first";
    for (case, order, paths) in [
        ("none", vec![], vec!["rules"]),
        ("missing", vec![RULE], vec!["rules"]),
        ("doubled", vec![RULE, SECOND, RULE], vec!["rules[2]"]),
        ("doubled and missing", vec![RULE, RULE], vec!["rules", "rules[1]"]),
        ("unknown", vec![SECOND, missing, RULE], vec!["rules[1]"]),
        ("foreign", vec![SECOND, RULE, foreign], vec!["rules[2]"]),
        ("malformed", vec!["first", SECOND, RULE], vec!["rules[0]"]),
        ("malformed before unknown", vec!["first", SECOND, RULE, missing], vec!["rules[0]", "rules[3]"]),
        ("malformed before doubled", vec!["", SECOND, RULE, "x", RULE], vec!["rules[0]", "rules[3]", "rules[4]"]),
    ] {
        let rules = order.into_iter().map(str::to_owned).collect();
        let request = ReorderRulesRequest { parent: ORGANIZATION.to_owned(), rules, ..Default::default() };
        t.invalid(case, t.firewall().reorder_rules(request).await, &paths).await;
    }
    let named = |name: &str| Rule { name: name.to_owned(), ..good() };
    let bad = || rule(Action::Deny, "10.0.0.1/8");
    for (case, rules, paths) in [
        ("range", vec![good(), bad()], vec!["rules[1].range"]),
        ("nothing", vec![Rule::default()], vec!["rules[0].action", "rules[0].range"]),
        ("name of another organization", vec![named(foreign)], vec!["rules[0].name"]),
        ("doubled name", vec![named(RULE), good(), named(RULE)], vec!["rules[2].name"]),
        (
            "missing group",
            vec![good(), by_group("organizations/default/addressGroups/no")],
            vec!["rules[1].address_group"],
        ),
        (
            "malformed before doubled",
            vec![named("x"), named(RULE), named(RULE)],
            vec!["rules[0].name", "rules[2].name"],
        ),
        (
            "malformed before missing group",
            vec![named("x"), by_group("organizations/default/addressGroups/no")],
            vec!["rules[0].name", "rules[1].address_group"],
        ),
        (
            "malformed before missing group, in one list",
            vec![bad(), by_group("organizations/default/addressGroups/no"), by_group(FOREIGN)],
            vec!["rules[0].range", "rules[1].address_group", "rules[2].address_group"],
        ),
    ] {
        let request = ReplaceRulesRequest { parent: ORGANIZATION.to_owned(), rules, ..Default::default() };
        t.invalid(case, t.firewall().replace_rules(request).await, &paths).await;
    }
    t.finish(17).await;
}

#[tokio::test]
async fn pages_of_rules_are_refused_with_all_that_is_wrong() {
    let mut t = Table::start().await;
    let list = |parent: &str, page_size, page_token: &str| ListRulesRequest {
        parent: parent.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let token = t.firewall().list_rules(list(ORGANIZATION, 1, "")).await.unwrap().into_inner().next_page_token;
    let flipped = token.chars().rev().collect::<String>();
    t.invalid("negative size", t.firewall().list_rules(list(ORGANIZATION, -1, "")).await, &["page_size"]).await;
    t.invalid("least size", t.firewall().list_rules(list(ORGANIZATION, i32::MIN, &token)).await, &["page_size"]).await;
    for token in ["x", ".", "..", "0", "00000000.rules-1.1", &flipped, &format!("{token}0"), &format!(" {token}")] {
        t.invalid(token, t.firewall().list_rules(list(ORGANIZATION, 1, token)).await, &["page_token"]).await;
    }
    let answer = t.firewall().list_rules(list(OTHER, 1, &token)).await;
    t.invalid("token of another organization", answer, &["page_token"]).await;
    let answer = t.firewall().list_rules(list(ORGANIZATION, -1, "x")).await;
    t.invalid("size and token", answer, &["page_size", "page_token"]).await;
    let answer = t.firewall().list_rules(list("x", -1, "")).await;
    t.invalid("parent and size", answer, &["parent", "page_size"]).await;
    let answer = t.firewall().list_rules(list("organizations/missing", 1, "")).await;
    t.refused("missing", answer, Code::NotFound, "NOT_FOUND", &[]).await;
    t.finish(14).await;
}

#[tokio::test]
async fn malformed_options_refuse_the_change() {
    let mut t = Table::start().await;
    let within = |seconds, nanos| ChangeOptions {
        confirm_within: Some(Duration { seconds, nanos }),
        validate_only: true,
        ..Default::default()
    };
    let guard = |ip: &str| ChangeOptions { guard_ips: vec![ip.to_owned()], ..Default::default() };
    let many = ChangeOptions { guard_ips: vec!["203.0.113.7".to_owned(); 101], ..Default::default() };
    for (case, given, field) in [
        ("no address", guard("x"), "options.guard_ips[0]"),
        ("a range", guard("10.0.0.0/8"), "options.guard_ips[0]"),
        ("many addresses", many, "options.guard_ips"),
        ("negative", ChangeOptions { max_revocations: Some(-1), ..Default::default() }, "options.max_revocations"),
        ("no time", within(0, 0), "options.confirm_within"),
        ("too short", within(0, 999_999_999), "options.confirm_within"),
        ("too long", within(7 * 24 * 3_600, 1), "options.confirm_within"),
        ("backwards", within(-60, 0), "options.confirm_within"),
    ] {
        let request = CreateRuleRequest { options: Some(given.clone()), ..creation(good()) };
        t.invalid(case, t.firewall().create_rule(request).await, &[field]).await;
        let request = DeleteRuleRequest { name: RULE.to_owned(), options: Some(given), ..Default::default() };
        t.invalid(case, t.firewall().delete_rule(request).await, &[field]).await;
    }
    let comment = Some(ChangeOptions { comment: "x".repeat(1_025), ..Default::default() });
    let request = DeleteRuleRequest { name: RULE.to_owned(), options: comment, ..Default::default() };
    t.invalid("comment", t.firewall().delete_rule(request).await, &["options.comment"]).await;
    t.finish(17).await;
}
