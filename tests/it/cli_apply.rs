//! Policy files through the command line: what a file leaves alone, what it empties, what is asked and said before and
//! after.
//!
//! The hazard: a file that says less than its author thinks, applied in one command, opens a policy.
//!
//! Invariant: whatever is refused here has changed nothing.
//! Not here: the faults of files (`policy_file_faults`), the same over gRPC (`policy_api`).

use crate::harness::{Service, command_line as run};
use crate::terminal;
use portcullis::proto::v1::{ExportPolicyRequest, ListRulesRequest, Policy, Reason};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must end with this status. Returns its standard output and standard error.
async fn ends_with(service: &Service, status: i32, arguments: &[&str], input: &str) -> (String, String) {
    let output = run(service, arguments, input).await;
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{input}\n{stdout}{stderr}");
    (stdout, stderr)
}

async fn policy(service: &Service) -> Policy {
    let request = ExportPolicyRequest { parent: "organizations/default".to_owned(), omit_ranges: false };
    service.analysis().export_policy(request).await.unwrap().into_inner()
}

/// Denies everybody but the office.
const CLOSED: &str = "\
rules:
  - {id: office, action: allow, group: office}
  - {id: rest, action: deny, range: any}
groups:
  - {id: office, ranges: [203.0.113.0/24]}
nodes:
  - node: organization
    require_projects: true
    gates: {max_revocations: 5}
  - {node: projects/web, access: allow-list, entries: [{group: office}]}
tests:
  - {id: outside, ip: 8.8.8.8, type: shell, endpoint: projects/web, expect: deny}
";

/// The output of a failed command is on its standard error, so the file that it was sent to is empty.
#[tokio::test]
async fn a_file_that_names_no_section_is_refused_and_changes_nothing() {
    let service = Service::start().await;
    ends_with(&service, 0, &["policy", "apply", "-"], CLOSED).await;
    let before = policy(&service).await;
    let empty = ["", "\n", "# rules:\n#   - all gone\n", "{}", "---\n", "~", "organization: default\n"];
    for file in empty {
        for command in [&["policy", "plan", "-"][..], &["policy", "apply", "-"], &["shadow", "set", "-"]] {
            let (_, told) = ends_with(&service, 2, command, file).await;
            assert!(told.contains("empty document: it names none of rules, groups, nodes, tests"), "{file}: {told}");
        }
    }
    for section in ["rules", "groups", "nodes", "tests"] {
        for nothing in ["", " ~", " null"] {
            let (_, told) = ends_with(&service, 2, &["policy", "apply", "-"], &format!("{section}:{nothing}\n")).await;
            assert!(told.contains(&format!("-:1:1: {section}: has no value")), "{told}");
            assert!(told.contains(&format!("`{section}: []`")) && told.contains("leave the line out"), "{told}");
        }
    }
    assert_eq!(policy(&service).await, before);
    assert_ne!(service.check("8.8.8.8", "organizations/default").await.reason(), Reason::DefaultAllow);
    service.stop().await;
}

#[tokio::test]
async fn a_section_that_a_file_does_not_name_stays_and_one_that_is_empty_is_emptied() {
    let service = Service::start().await;
    ends_with(&service, 0, &["policy", "apply", "-"], CLOSED).await;
    let before = policy(&service).await;
    let only_rules = "rules:\n  - {id: rest, action: deny, range: any}\n";
    let (_, told) = ends_with(&service, 0, &["policy", "apply", "-"], only_rules).await;
    assert!(told.contains("note: deleted organizations/default/rules/office"), "{told}");
    let after = policy(&service).await;
    assert_eq!(after.rules.len(), 1);
    assert_eq!((&after.policy_tests, after.address_groups.len()), (&before.policy_tests, 1));
    assert_eq!(after.nodes.len(), 2);
    assert!(after.nodes[0].require_projects() && after.nodes[0].change_gates.is_some(), "{:?}", after.nodes[0]);
    // Only where the file says so.
    let lifted = "nodes:\n  - {node: organization, require_projects: false}\n  - {node: projects/web, access: allow-list, \
                  entries: [{group: office}]}\n";
    ends_with(&service, 0, &["policy", "apply", "-"], lifted).await;
    let after = policy(&service).await;
    assert!(!after.nodes[0].require_projects());
    assert!(after.nodes[0].change_gates.is_some(), "a setting that the file does not name stays");
    let (_, told) = ends_with(&service, 0, &["policy", "apply", "-", "--override-tests"], "tests: []\n").await;
    assert!(told.contains("note: deleted organizations/default/policyTests/outside"), "{told}");
    assert_eq!(policy(&service).await.policy_tests, []);
    let (_, told) = ends_with(&service, 1, &["policy", "apply", "-"], "nodes: []\n").await;
    assert!(told.contains("`--force`") && told.contains("projects/web"), "{told}");
    let (_, told) = ends_with(&service, 0, &["policy", "apply", "-", "--force"], "nodes: []\n").await;
    assert!(told.contains("note: deleted organizations/default/projects/web"), "{told}");
    service.stop().await;
}

#[tokio::test]
async fn what_was_exported_and_the_example_change_nothing_when_they_are_applied_again() {
    let service = Service::start().await;
    let example = include_str!("../../examples/policy.yaml");
    for file in [CLOSED, example] {
        ends_with(&service, 0, &["policy", "apply", "-", "--override-tests", "--force"], file).await;
        let before = policy(&service).await;
        let exported = ends_with(&service, 0, &["policy", "export"], "").await.0;
        let omitted = ends_with(&service, 0, &["policy", "export", "--omit-ranges"], "").await.0;
        for again in [file, file, &exported, &exported, &omitted] {
            let (said, _) = ends_with(&service, 0, &["policy", "apply", "-", "--output", "table"], again).await;
            assert!(said.starts_with("the policy of organizations/default is that already"), "{said}");
            ends_with(&service, 0, &["policy", "plan", "-", "--exit-code"], again).await;
        }
        assert_eq!(policy(&service).await, before, "no revision, no new etag");
    }
    // An export names all sections, so that it restores an organization that has nothing.
    let empty = ends_with(&service, 0, &["policy", "export", "--organization", "default"], "").await.0;
    assert!(["rules:", "groups:", "nodes:", "tests:"].iter().all(|key| empty.contains(key)), "{empty}");
    ends_with(&service, 0, &["nodes", "create", "organizations/new"], "").await;
    let exported = ends_with(&service, 0, &["policy", "export", "--organization", "new"], "").await.0;
    assert!(["rules: []", "groups: []", "tests: []"].iter().all(|key| exported.contains(key)), "{exported}");
    service.stop().await;
}

/// The hazard: a renamed block list comes out empty, and its deny rule blocks nobody.
#[tokio::test]
async fn a_group_that_is_renamed_in_a_file_without_ranges_is_refused() {
    let service = Service::start().await;
    let blocked = "rules:\n  - {id: blocked, action: deny, group: blocked}\ngroups:\n  - {id: blocked, ranges: \
                   [198.51.100.0/24]}\n";
    ends_with(&service, 0, &["policy", "apply", "-"], blocked).await;
    let exported = ends_with(&service, 0, &["policy", "export", "--omit-ranges"], "").await.0;
    let renamed = exported.replace("blocked", "bad-guys");
    let before = policy(&service).await;
    for command in ["plan", "apply"] {
        let (_, told) = ends_with(&service, 1, &["policy", command, "-"], &renamed).await;
        assert!(told.contains("groups[0].id: ") && told.contains("-:"), "{told}");
    }
    assert_eq!(policy(&service).await, before);
    service.stop().await;
}

#[tokio::test]
async fn a_plan_tells_by_its_status_whether_anything_would_change() {
    let service = Service::start().await;
    ends_with(&service, 4, &["policy", "plan", "-", "--exit-code"], CLOSED).await;
    ends_with(&service, 0, &["policy", "plan", "-"], CLOSED).await;
    ends_with(&service, 0, &["policy", "apply", "-"], CLOSED).await;
    ends_with(&service, 0, &["policy", "plan", "-", "--exit-code"], CLOSED).await;
    let opened = CLOSED
        .replace("action: deny", "action: allow")
        .replace("entries: [{group: office}]", "entries: [{range: any}]");
    ends_with(&service, 3, &["policy", "plan", "-", "--exit-code"], &opened).await;
    ends_with(&service, 3, &["policy", "plan", "-"], &opened).await;
    service.stop().await;
}

/// The hazard: at a terminal, a mistyped file is applied before anybody has seen what it does.
#[tokio::test]
async fn at_a_terminal_apply_shows_the_plan_and_changes_nothing_without_a_yes() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, CLOSED).unwrap();
    let path = path.to_str().unwrap();
    let apply = ["policy", "apply", path];
    let nothing = async || {};
    for no in ["n\n", "\n", "yess\n", "\u{4}"] {
        let ended = terminal::run(&service, &apply, "Apply? [y/N]", no, nothing).await;
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), ""), "{}", ended.shown);
        assert!(ended.shown.contains("would create organizations/default/rules/rest"), "{}", ended.shown);
        assert!(
            ended.shown.contains("- would be denied") && ended.shown.contains("nothing was applied"),
            "{}",
            ended.shown
        );
    }
    assert_eq!(policy(&service).await.revision, 1);
    let ended = terminal::run(&service, &apply, "Apply? [y/N]", "y\n", nothing).await;
    assert_eq!(ended.status, Some(0), "{}", ended.shown);
    assert_eq!(policy(&service).await.revision, 2);
    // Nothing to change, nothing to ask.
    let ended = terminal::run(&service, &apply, "Apply? [y/N]", "n\n", nothing).await;
    assert_eq!(ended.status, Some(0), "{}", ended.shown);
    assert!(!ended.shown.contains("Apply?"), "{}", ended.shown);
    // For scripts that have a terminal.
    std::fs::write(path, CLOSED.replace("203.0.113.0/24", "203.0.113.0/25")).unwrap();
    let ended = terminal::run(&service, &["policy", "apply", path, "--yes"], "Apply? [y/N]", "n\n", nothing).await;
    assert!(ended.status == Some(0) && !ended.shown.contains("Apply?"), "{}", ended.shown);
    assert_eq!(policy(&service).await.revision, 3);
    service.stop().await;
}

#[tokio::test]
async fn what_was_shown_is_what_is_applied_or_nothing_is() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, CLOSED).unwrap();
    let meanwhile = async || {
        service.add_rule("late", portcullis::proto::v1::Action::Deny, "192.0.2.0/24").await;
    };
    let apply = ["policy", "apply", path.to_str().unwrap()];
    let ended = terminal::run(&service, &apply, "Apply? [y/N]", "y\n", meanwhile).await;
    assert_eq!(ended.status, Some(1), "{}", ended.shown);
    assert!(ended.shown.contains("changed after the plan was shown, and nothing was applied"), "{}", ended.shown);
    let request = ListRulesRequest { parent: "organizations/default".to_owned(), ..Default::default() };
    let rules = service.firewall().list_rules(request).await.unwrap().into_inner().rules;
    assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["organizations/default/rules/late"]);
    service.stop().await;
}

#[tokio::test]
async fn a_rollback_and_a_promotion_say_what_they_deleted_tests_included() {
    let service = Service::start().await;
    ends_with(&service, 0, &["policy", "apply", "-"], CLOSED).await;
    let back = ["revisions", "rollback", "1", "--override-tests"];
    let (_, told) = ends_with(&service, 1, &back, "").await;
    assert!(told.contains("`--force`"), "{told}");
    let back = [&back[..], &["--force"]].concat();
    let (_, told) = ends_with(&service, 0, &[&back[..], &["--validate-only"]].concat(), "").await;
    assert!(told.contains("note: would delete organizations/default/policyTests/outside"), "{told}");
    let (_, told) = ends_with(&service, 0, &back, "").await;
    for name in ["rules/rest", "addressGroups/office", "projects/web", "policyTests/outside"] {
        assert!(told.contains(&format!("note: deleted organizations/default/{name}")), "{name} in {told}");
    }
    ends_with(&service, 0, &["revisions", "rollback", "2"], "").await;
    ends_with(&service, 0, &["shadow", "set", "-"], "rules: []\n").await;
    let promote = ["shadow", "promote", "--override-tests", "--output", "table"];
    let (said, _) = ends_with(&service, 0, &promote, "").await;
    assert!(said.contains("deleted organizations/default/rules/rest"), "{said}");
    service.stop().await;
}

#[tokio::test]
async fn a_test_has_an_end_in_a_file_and_on_the_command_line() {
    let service = Service::start().await;
    let file = "tests:\n  - {id: t, ip: 192.0.2.1, type: shell, endpoint: organization, expect: allow, until: \
                2099-01-31T18:00:00Z}\n";
    ends_with(&service, 0, &["policy", "apply", "-"], file).await;
    assert_eq!(policy(&service).await.policy_tests[0].end_time.unwrap().seconds, 4_073_565_600);
    let exported = ends_with(&service, 0, &["policy", "export"], "").await.0;
    assert!(exported.contains("until: ") && exported.contains("2099-01-31T18:00:00Z"), "{exported}");
    let create = ["policy", "tests", "create", "--ip", "192.0.2.2", "--type", "shell", "--endpoint"];
    let rest = ["organizations/default", "--expect", "allow", "--until", "2098-01-31T18:00:00Z", "--output", "table"];
    let (said, _) = ends_with(&service, 0, &[&create[..], &rest].concat(), "").await;
    assert!(said.contains("2098-01-31T18:00:00Z"), "{said}");
    // One that will fail is listed with the moment.
    let rules = "rules:\n  - {action: allow, range: 192.0.2.1, expires: 2090-01-31T18:00:00Z}\n  - {action: deny, range: \
                 192.0.2.1}\n";
    let (_, told) = ends_with(&service, 3, &["policy", "apply", "-"], rules).await;
    assert!(told.contains("2090-01-31T18:00:00Z") && told.contains("`--override-tests`"), "{told}");
    ends_with(&service, 0, &["policy", "apply", "-", "--override-tests"], rules).await;
    let (listed, _) = ends_with(&service, 0, &["policy", "tests", "list", "--output", "table"], "").await;
    assert!(listed.contains("passes, will fail at 2090-01-31T18:00:00Z"), "{listed}");
    service.stop().await;
}

/// The hazard: a file that takes all memory, or an error that takes all lines of a terminal.
#[tokio::test]
async fn a_file_of_many_faults_shows_the_first_hundred_and_the_true_count() {
    let service = Service::start().await;
    let faults = 334_373;
    let mut file = "groups:\n  - id: office\n    ranges:\n".to_owned();
    for _ in 0..faults {
        file += "      - 10.0.0.1/8\n";
    }
    let (_, told) = ends_with(&service, 2, &["policy", "plan", "-"], &file).await;
    assert!(told.starts_with("error: standard input has 334373 faults\n  -:4:9: groups[0].ranges[0]: "), "{told}");
    assert!(told.ends_with("\n  and 334273 more\n"), "{told}");
    assert_eq!(told.lines().count(), 102);
    // Neither do many values, nested lists or references that grow.
    let deep = format!("rules: {}{}", "[".repeat(500_000), "]".repeat(500_000));
    let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        text + &format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)
    });
    let wide = format!("groups:\n  - {{id: a, ranges: [{}]}}\n", "1,".repeat(4_100_000));
    for (file, says) in [(deep, "nested deeper"), (bomb, "refers to an anchor"), (wide, "more than 4000000 values")] {
        let (_, told) = ends_with(&service, 2, &["policy", "plan", "-"], &file).await;
        assert!(told.contains(says) && told.len() < 40_000, "{says} in {}", told.lines().take(3).collect::<String>());
    }
    service.stop().await;
}

/// The hazard: a rule whose time has passed is accepted, and its author takes it for one that is in force.
#[tokio::test]
async fn a_rule_that_has_expired_already_is_named_when_it_is_applied() {
    let service = Service::start().await;
    let file = "rules:\n  - {id: old, action: deny, range: 192.0.2.0/24, expires: 2020-01-01T00:00:00Z}\n";
    for command in [&["policy", "plan", "-"][..], &["policy", "apply", "-"]] {
        let output = run(&service, command, file).await;
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(told.contains("rules/old") && told.contains("has expired and matches nothing"), "{command:?}: {told}");
    }
    let create = ["rules", "create", "--id", "older", "--action", "deny", "--range", "198.51.100.0/24"];
    let command = [&create[..], &["--expire-time", "2020-01-01T00:00:00Z"]].concat();
    let (_, told) = ends_with(&service, 0, &command, "").await;
    assert!(told.contains("rules/older") && told.contains("has expired and matches nothing"), "{told}");
    service.stop().await;
}

/// An export from before there were gates has `gates: {}`, which lifts them.
#[tokio::test]
async fn gates_that_a_file_a_rollback_or_a_promotion_lifts_are_told_on_standard_error() {
    let service = Service::start().await;
    let (stale, _) = ends_with(&service, 0, &["policy", "export"], "").await;
    assert!(stale.contains("gates: {}"), "{stale}");
    let gate = ["nodes", "update", "default", "--gates-refuse-open-to-internet", "--gates-guard-ip", "203.0.113.9"];
    ends_with(&service, 0, &gate, "").await;
    let lifted = "note: the gates of organizations/default are now: none";
    let (_, told) = ends_with(&service, 0, &["policy", "apply", "-"], &stale).await;
    assert!(told.contains(lifted), "{told}");
    let (_, told) = ends_with(&service, 0, &["policy", "apply", "-"], &stale).await;
    assert!(!told.contains("the gates"), "nothing was altered: {told}");
    ends_with(&service, 0, &gate, "").await;
    let (_, told) = ends_with(&service, 0, &["policy", "plan", "-"], &stale).await;
    assert!(told.contains("note: the gates of organizations/default would be: none"), "{told}");
    let (_, told) = ends_with(&service, 0, &["revisions", "rollback", "1", "--force"], "").await;
    assert!(told.contains(lifted), "{told}");
    service.stop().await;
}
