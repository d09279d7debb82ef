//! The command line over whole policies and revisions: the file that is written and read, what is planned, and the exit
//! status.
//!
//! Invariant: what was exported, applied again, changes nothing.
//! Not here: what the server does with a policy (`policy_api`).

use std::process::Command;

use crate::harness::{Service, command_line as run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const FILE: &str = r#"organization: default
rules:
  - id: office
    action: allow
    group: office
    description: "yes: # everybody"
  - id: guests
    action: deny
    range: 192.0.2.0/24
    types: [preview]
    expires: 2099-01-31T18:00:00Z
  - id: rest
    action: deny
    range: any
groups:
  - id: office
    ranges:
      - 10.0.0.0/8
      - 2001:db8::/48
nodes:
  - node: organization
    display_name: "null"
    gates:
      guard_ips: [10.0.0.1]
  - node: projects/web
    access: allow-list
    entries:
      - range: 10.1.0.0/16
        description: first floor
      - group: office
  - node: projects/web/workspaces/main
tests:
  - id: office
    ip: 10.1.2.3
    type: shell
    endpoint: projects/web
    expect: allow
"#;

#[tokio::test]
async fn a_file_is_planned_applied_exported_and_applied_again_without_effect() {
    let service = Service::start().await;
    let planned = run(&service, &["policy", "plan", "-", "--output", "table"], FILE).await;
    assert_eq!(planned.status.code(), Some(0), "{}", text(&planned.stderr));
    let shown = text(&planned.stdout);
    for expected in [
        "would create organizations/default/rules/office",
        "- would be denied from now on:",
        "organizations/default/projects/- (shell, preview)",
        "most IPv4 addresses",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    let applied = run(&service, &["policy", "apply", "-", "--comment", "first", "--output", "json"], FILE).await;
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
    assert!(text(&applied.stdout).contains("\"revision\": \"2\""), "{}", text(&applied.stdout));

    let exported = run(&service, &["policy", "export"], "").await;
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    let exported = text(&exported.stdout);
    assert!(exported.contains("yes: # everybody") && exported.contains("2001:db8::/48"), "{exported}");
    for again in [exported.as_str(), FILE] {
        let applied = run(&service, &["policy", "apply", "-", "--output", "table"], again).await;
        let shown = text(&applied.stdout);
        assert!(
            shown.starts_with("the policy of organizations/default is that already, revision 2"),
            "{shown}{}",
            text(&applied.stderr)
        );
    }
    // JSON is YAML too.
    let json = text(&run(&service, &["policy", "export", "--output", "json"], "").await.stdout);
    assert!(json.starts_with('{'), "{json}");
    let planned = text(&run(&service, &["policy", "plan", "-", "--output", "table"], &json).await.stdout);
    assert!(planned.starts_with("nothing would change"), "{planned}");
    let without = text(&run(&service, &["policy", "export", "--omit-ranges"], "").await.stdout);
    assert!(without.contains("ranges_omitted: true") && !without.contains("2001:db8::/48"), "{without}");
    let applied = run(&service, &["policy", "apply", "-", "--output", "table"], &without).await;
    assert!(text(&applied.stdout).contains("already, revision 2"), "{}", text(&applied.stderr));
    service.stop().await;
}

#[tokio::test]
async fn a_plan_that_a_gate_would_refuse_says_so_and_exits_with_3_and_so_does_the_change() {
    let service = Service::start().await;
    assert_eq!(run(&service, &["policy", "apply", "-"], FILE).await.status.code(), Some(0));
    let narrowed = FILE.replace("      - 10.0.0.0/8\n", "      - 10.128.0.0/9\n");
    let planned = run(&service, &["policy", "plan", "-", "--output", "table", "--replay", "1h"], &narrowed).await;
    let shown = text(&planned.stdout);
    assert_eq!(planned.status.code(), Some(3), "{shown}{}", text(&planned.stderr));
    assert!(shown.contains("guard-violated") && shown.contains("tests-failed"), "{shown}");
    assert!(shown.contains("10.0.0.0/9"), "{shown}");
    let applied = run(&service, &["policy", "apply", "-"], &narrowed).await;
    assert_eq!(applied.status.code(), Some(3), "{}", text(&applied.stderr));
    let deny = ["rules", "create", "--action", "deny", "--range", "10.0.0.0/16", "--position", "1"];
    assert_eq!(run(&service, &deny, "").await.status.code(), Some(3));
    let listed = run(&service, &["policy", "tests", "list", "--output", "table"], "").await;
    assert_eq!(listed.status.code(), Some(0));
    assert!(text(&listed.stdout).contains("passes"), "{}", text(&listed.stdout));
    service.stop().await;
}

/// What only the server can judge is told as the faults are that the reader finds.
#[tokio::test]
async fn what_a_server_refuses_is_told_with_line_column_and_the_keys_of_the_file() {
    let service = Service::start().await;
    let long = "x".repeat(1_025);
    let file = format!(
        "rules:\n  - action: deny\n    group: nobody\n  - action: deny\n    range: any\n    description: {long}\n\
         nodes:\n  - node: projects/web\n    access: allow-list\n    entries:\n      - range: 192.0.2.1\n      \
         - group: nobody\n  - node: organization\n    display_name: {long}\n"
    );
    for command in [&["policy", "plan", "-"][..], &["policy", "apply", "-"], &["shadow", "set", "-"]] {
        let refused = run(&service, command, &file).await;
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        for place in [
            "-:3:12: rules[0].group: ",
            "-:6:18: rules[1].description: has 1025 characters",
            "-:12:16: nodes[0].entries[1].group: ",
            "-:14:19: nodes[1].display_name: has 1025 characters",
        ] {
            assert!(told.contains(place), "{command:?}: {place} in {told}");
        }
        assert!(!told.contains("address_group"), "{told}");
    }
    let rules = "- action: deny\n  group: nobody\n";
    for preview in [&["--preview"][..], &[]] {
        let refused = run(&service, &[&["rules", "replace", "--file", "-"], preview].concat(), rules).await;
        let told = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && told.contains("-:2:10: rules[0].group: "), "{told}");
    }
    service.stop().await;
}

/// The hazard: list, edit, replace loses what nobody touched, or undoes what somebody else did meanwhile.
#[tokio::test]
async fn rules_are_replaced_by_those_of_a_policy_file_and_by_those_that_were_listed() {
    let service = Service::start().await;
    let replace = ["rules", "replace", "--file", "-"];
    assert_eq!(run(&service, &["policy", "apply", "-"], FILE).await.status.code(), Some(0));
    let list = ["rules", "list", "--output", "json"];
    let listed = text(&run(&service, &list, "").await.stdout);
    assert!(listed.contains("\"addressGroup\": \"organizations/default/addressGroups/office\""), "{listed}");
    // The list, and the rules of the file, are the rules that are there.
    for (same, has_others) in [(listed.as_str(), false), (FILE, true)] {
        let replaced = run(&service, &replace, same).await;
        assert_eq!(replaced.status.code(), Some(0), "{}", text(&replaced.stderr));
        assert_eq!(text(&run(&service, &list, "").await.stdout), listed);
        assert_eq!(text(&replaced.stderr).contains("only the rules of the file"), has_others);
    }
    let rules = "# by hand\n- {id: rest, action: deny, range: 203.0.113.0/24, types: [shell], expires: 2099-01-31T18:00:00Z}\n\
                 - {action: allow, group: office, disabled: true}\n";
    let replaced = run(&service, &replace, rules).await;
    assert_eq!(replaced.status.code(), Some(0), "{}", text(&replaced.stderr));
    let shown = text(&replaced.stdout);
    assert!(shown.contains("2099-01-31T18:00:00Z") && shown.contains("\"disabled\": true"), "{shown}");
    let refused = run(&service, &replace, &listed).await;
    assert!(text(&refused.stderr).contains("etag"), "the list is older: {}", text(&refused.stderr));
    // The same as JSON.
    let json = r#"{"rules": [{"id": "rest", "action": "deny", "range": "203.0.113.0/24"}]}"#;
    assert_eq!(run(&service, &replace, json).await.status.code(), Some(0));
    // What only lists the printed rules is read too, with ids for names.
    let printed = r#"[{"name": "rest", "action": "ACTION_DENY", "range": "203.0.113.0/24", "connectionTypes": []}]"#;
    let replaced = text(&run(&service, &replace, printed).await.stdout);
    assert!(replaced.contains("organizations/default/rules/rest"), "{replaced}");
    // A file without rules is a mistake, an empty list is meant.
    for nothing in ["{}", "groups: []\n", r#"{"revision": "1"}"#] {
        assert_eq!(run(&service, &replace, nothing).await.status.code(), Some(2), "{nothing}");
    }
    assert_eq!(run(&service, &replace, "[]").await.status.code(), Some(0));
    let listed = run(&service, &list, "").await;
    assert!(text(&listed.stdout).starts_with("{\n  \"rules\": [],\n  \"etag\""), "{}", text(&listed.stdout));
    service.stop().await;
}

#[tokio::test]
async fn faults_in_a_file_of_rules_are_told_with_line_and_column() {
    let service = Service::start().await;
    let wrong = [
        ("- {action: deny, range: any, disable: true}\n", 2, "-:1:30: rules[0]: `disable`"),
        ("rules:\n  - range: any\n", 2, "-:2:5: rules[0]: `action` is missing"),
        ("rules:\n", 2, "-:1:1: rules: has no value"),
        ("groups: []\n", 2, "-:1:1: there are no `rules` in it"),
        ("- {action: deny, range: any, types: [telnet]}\n", 2, "-:1:38: rules[0].types[0]"),
        ("- action: deny\n  range: any\n  group: office\n", 2, "-:1:3"),
        (r#"{"rules": [{"action": "ACTION_DENY", "range": "any", "disable": true}], "revision": "1"}"#, 2, "disable"),
        ("- action: deny\n  range: 10.0.0.1/8\n", 2, "-:2:10: rules[0].range"),
    ];
    for (file, status, place) in wrong {
        let replaced = run(&service, &["rules", "replace", "--file", "-"], file).await;
        let told = text(&replaced.stderr);
        assert_eq!(replaced.status.code(), Some(status), "{file}{told}");
        assert!(told.contains(place), "{place} in {told}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_single_change_is_previewed_by_its_own_command_and_not_made() {
    let service = Service::start().await;
    assert_eq!(run(&service, &["policy", "apply", "-"], FILE).await.status.code(), Some(0));
    let show = ["--preview", "--output", "table"];
    let deny = ["rules", "create", "--action", "deny", "--range", "10.2.0.0/16", "--position", "1"];
    let previewed = run(&service, &[&deny[..], &show].concat(), "").await;
    assert_eq!(previewed.status.code(), Some(0), "{}", text(&previewed.stderr));
    assert!(
        text(&previewed.stdout).contains("- would be denied from now on: 10.2.0.0/16"),
        "{}",
        text(&previewed.stdout)
    );
    let close = ["nodes", "update", "projects/web", "--access", "allow-list", "--range", "10.3.0.0/16"];
    let previewed = run(&service, &[&close[..], &show].concat(), "").await;
    assert_eq!(previewed.status.code(), Some(3), "{}", text(&previewed.stdout));
    for change in [
        vec!["rules", "delete", "rest"],
        vec!["rules", "move", "rest", "1"],
        vec!["rules", "update", "rest", "--action", "allow"],
        vec!["nodes", "delete", "projects/web", "--force"],
        vec!["nodes", "create", "projects/ops"],
    ] {
        let previewed = run(&service, &[change.as_slice(), &show].concat(), "").await;
        assert!(matches!(previewed.status.code(), Some(0 | 3)), "{change:?}: {}", text(&previewed.stderr));
        assert!(!previewed.stdout.is_empty(), "{change:?}");
    }
    let planned = run(&service, &["policy", "plan", "-", "--output", "table"], FILE).await;
    assert!(text(&planned.stdout).starts_with("nothing would change"), "{}", text(&planned.stdout));
    service.stop().await;
}

#[tokio::test]
async fn the_gates_of_an_organization_are_set_shown_and_lifted() {
    let service = Service::start().await;
    let set = ["nodes", "update", "default", "--gates-guard-ip", "10.0.0.1", "--gates-max-revocations", "0"];
    assert_eq!(run(&service, &set, "").await.status.code(), Some(0));
    let shown = text(&run(&service, &["nodes", "get", "default", "--output", "table"], "").await.stdout);
    assert!(shown.contains("guards 10.0.0.1, revokes at most 0"), "{shown}");
    let deny = ["rules", "create", "--action", "deny", "--range", "10.0.0.0/8"];
    assert_eq!(run(&service, &deny, "").await.status.code(), Some(3));
    assert_eq!(run(&service, &["nodes", "update", "default", "--no-gates"], "").await.status.code(), Some(0));
    let waiting = [&deny[..], &["--confirm-within", "10m"]].concat();
    assert_eq!(run(&service, &waiting, "").await.status.code(), Some(0));
    let shown = text(&run(&service, &["nodes", "get", "default", "--output", "table"], "").await.stdout);
    assert!(!shown.contains("guards") && shown.contains("revision 4, else undone at"), "{shown}");
    service.stop().await;
}

#[tokio::test]
async fn the_schema_knows_every_key_and_needs_no_server() {
    let printed = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(["policy", "schema"]).output().unwrap();
    assert!(printed.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let service = Service::start().await;
    assert_eq!(run(&service, &["policy", "apply", "-"], FILE).await.status.code(), Some(0));
    let json = run(&service, &["policy", "export", "--output", "json"], "").await;
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    check(&schema, &schema, &document);
    service.stop().await;
}

/// As much of JSON Schema as the published one uses: references, required and known keys, enums.
fn check(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value) {
    if let Some(reference) = schema.get("$ref").and_then(|reference| reference.as_str()) {
        return check(root, root.pointer(reference.trim_start_matches('#')).unwrap(), value);
    }
    if let Some(allowed) = schema.get("enum") {
        assert!(allowed.as_array().unwrap().contains(value), "{value} is none of {allowed}");
    }
    for required in schema.get("required").and_then(|required| required.as_array()).into_iter().flatten() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{required} in {value}");
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let of_key = schema.pointer(&format!("/properties/{key}"));
        check(root, of_key.unwrap_or_else(|| panic!("`{key}` is not in the schema")), value);
    }
    for item in value.as_array().into_iter().flatten() {
        check(root, &schema["items"], item);
    }
}

#[tokio::test]
async fn revisions_are_listed_shown_compared_confirmed_and_gone_back_to() {
    let service = Service::start().await;
    let deny = |id: &'static str, range: &'static str| {
        vec!["rules", "create", "--action", "deny", "--range", range, "--id", id, "--comment", "shut"]
    };
    assert_eq!(run(&service, &deny("one", "192.0.2.0/24"), "").await.status.code(), Some(0));
    let mut waiting = deny("two", "198.51.100.0/24");
    waiting.extend(["--confirm-within", "10m"]);
    assert_eq!(run(&service, &waiting, "").await.status.code(), Some(0));
    let listed = text(&run(&service, &["revisions", "list", "--output", "table"], "").await.stdout);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("shut") && listed.contains("127.0.0.1"), "{listed}");
    let shown = text(&run(&service, &["revisions", "get", "3", "--output", "table"], "").await.stdout);
    assert!(shown.contains("undone unless confirmed by") && shown.contains("created organizations/default/rules/two"));
    let compared = run(&service, &["revisions", "compare", "1", "3", "--output", "table"], "").await;
    let compared = text(&compared.stdout);
    assert!(compared.contains("192.0.2.0/24 198.51.100.0/24"), "{compared}");
    assert_eq!(run(&service, &["revisions", "confirm", "3"], "").await.status.code(), Some(0));
    assert_eq!(run(&service, &["revisions", "confirm", "3"], "").await.status.code(), Some(1));
    assert_eq!(run(&service, &["revisions", "rollback", "2"], "").await.status.code(), Some(0));
    let rules = text(&run(&service, &["rules", "list", "--output", "table"], "").await.stdout);
    assert!(rules.contains("one") && !rules.contains("two"), "{rules}");
    let tested = [
        "policy",
        "tests",
        "create",
        "--id",
        "t",
        "--ip",
        "192.0.2.1",
        "--type",
        "shell",
        "--endpoint",
        "default",
        "--expect",
        "deny",
    ];
    assert_eq!(run(&service, &tested, "").await.status.code(), Some(0));
    // Going back takes the test away with the rule that it is about: that takes saying so.
    assert_eq!(run(&service, &["revisions", "rollback", "1"], "").await.status.code(), Some(3));
    let forced = ["revisions", "rollback", "1", "--override-tests"];
    assert_eq!(run(&service, &forced, "").await.status.code(), Some(0));
    service.stop().await;
}
