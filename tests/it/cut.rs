//! Changes that are too large for an answer, a record or a text: what matters is there, and what is left out is counted.
//!
//! The hazard: a change opens a family or takes a test away, and the one line that says so is the one that is cut.
//!
//! Invariant: the numbers that are asserted are those of the files, not those of the answers.
//! Not here: what a change opens and alters exactly (`impact`, `preview_api`).

use std::fmt::Write as _;
use std::process::Output;

use crate::harness::{Service, command_line};
use portcullis::proto::v1::mutation::Request;
use portcullis::proto::v1::policy_object::Object;
use portcullis::proto::v1::{
    AccessDifference, CompareRevisionsRequest, GetRevisionRequest, ListAuditRecordsRequest, Mutation, ObjectChange,
    PreviewChangeRequest, PreviewChangeResponse, RangeCount, RollbackRevisionRequest, audit_record,
};

const DEFAULT: &str = "organizations/default";

async fn run(service: &Service, arguments: &[&str], input: &str) -> Output {
    command_line(service, &[arguments, &["--output", "table"]].concat(), input).await
}

/// Runs a command that must succeed. Returns its standard output and standard error.
async fn told(service: &Service, arguments: &[&str], input: &str) -> (String, String) {
    let output = run(service, arguments, input).await;
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{stdout}{stderr}");
    (stdout, stderr)
}

/// What going back to a revision would do.
async fn preview_of_going_back(service: &Service, revision: i64) -> PreviewChangeResponse {
    let name = format!("{DEFAULT}/revisions/{revision}");
    let back = RollbackRevisionRequest { name, force: true, ..RollbackRevisionRequest::default() };
    let mutations = vec![Mutation { request: Some(Request::RollbackRevision(back)) }];
    let request = PreviewChangeRequest { parent: DEFAULT.to_owned(), mutations, ..PreviewChangeRequest::default() };
    service.analysis().preview_change(request).await.unwrap().into_inner()
}

/// So many addresses of IPv4, no two of which make a range.
fn scattered(count: usize) -> String {
    let address = |index: usize| format!("10.{}.{}.{}", index / 32_768, index / 128 % 256, index % 128 * 2);
    (0..count).map(address).collect::<Vec<_>>().join(", ")
}

fn of<'a>(differences: &'a [AccessDifference], node: &str) -> &'a AccessDifference {
    differences.iter().find(|difference| difference.node == node).unwrap()
}

#[tokio::test]
async fn whole_family_stands_before_20_000_addresses() {
    let service = Service::start().await;
    let file = format!(
        "rules: [{{id: many, action: deny, group: many}}, {{id: six, action: deny, range: '::/0'}}]\n\
         groups: [{{id: many, ranges: [{}]}}]\n",
        scattered(20_000)
    );
    told(&service, &["policy", "apply", "-"], &file).await;
    let counts = Some(RangeCount { ipv4_count: 20_000, ipv6_count: 1 });
    let previewed = preview_of_going_back(&service, 1).await;
    let (name, base) = (format!("{DEFAULT}/revisions/1"), format!("{DEFAULT}/revisions/2"));
    let compare = CompareRevisionsRequest { base, name };
    let compared = service.analysis().compare_revisions(compare).await.unwrap().into_inner();
    for (differences, truncated) in
        [(&previewed.differences, previewed.truncated), (&compared.differences, compared.truncated)]
    {
        let own = of(differences, DEFAULT);
        assert_eq!(own.newly_permitted.first().unwrap(), "::/0");
        assert_eq!((own.newly_permitted.len(), &own.newly_permitted_count), (10_000, &counts));
        assert_eq!((own.newly_denied.len(), &own.newly_denied_count), (0, &None));
        assert!(own.truncated && truncated);
    }
    let shown = "every IPv6 address (::/0); 10.0.0.0 10.0.0.2 10.0.0.4 10.0.0.6 10.0.0.8 10.0.0.10 10.0.0.12 10.0.0.14 \
                 and 19,992 more IPv4 ranges\n";
    let (plan, notes) = told(&service, &["policy", "plan", "-"], "{rules: [], groups: []}").await;
    assert!(plan.contains(shown), "{plan}");
    assert!(notes.contains("note: no rule of organizations/default would deny anything"), "{notes}");
    assert!(plan.contains("would delete organizations/default/rules/six: deny ::/0\n"), "{plan}");
    let (compared, _) = told(&service, &["revisions", "compare", "2", "1"], "").await;
    assert!(compared.contains(shown), "{compared}");
    service.stop().await;
}

#[tokio::test]
async fn node_that_opens_to_everybody_stands_before_nodes_with_long_lists() {
    let service = Service::start().await;
    let (mut before, mut after) = (String::from("nodes:\n"), String::from("nodes:\n"));
    for number in 0..16 {
        writeln!(before, "- {{node: projects/a{number:02}, access: allow-list, entries: [{{group: many}}]}}").unwrap();
        writeln!(after, "- {{node: projects/a{number:02}, access: allow-list, entries: []}}").unwrap();
    }
    before.push_str("- {node: projects/z, access: allow-list, entries: []}\n");
    after.push_str("- {node: projects/z, access: allow-all}\n");
    let group = format!("groups: [{{id: many, ranges: [{}]}}]\n", scattered(20_000));
    // Revision 2 is what the change would lead to.
    told(&service, &["policy", "apply", "-"], &format!("{after}{group}")).await;
    told(&service, &["policy", "apply", "-"], &before).await;
    let previewed = preview_of_going_back(&service, 2).await;
    let z = format!("{DEFAULT}/projects/z");
    for opened in previewed.differences.iter().take(2) {
        assert_eq!((&opened.node, opened.newly_permitted.join(" ")), (&z, "0.0.0.0/0 ::/0".to_owned()));
    }
    for number in 0..16 {
        let closed = of(&previewed.differences, &format!("{DEFAULT}/projects/a{number:02}"));
        assert_eq!(closed.newly_denied_count, Some(RangeCount { ipv4_count: 20_000, ipv6_count: 0 }));
        assert!(closed.truncated && closed.newly_denied.len() >= 8);
    }
    assert_eq!(previewed.differences.len(), 2 * 17);
    assert!(previewed.truncated);
    let (plan, _) = told(&service, &["policy", "plan", "-"], &after).await;
    let opened = plan.find("every IPv4 address (0.0.0.0/0); every IPv6 address (::/0)").unwrap();
    assert!(opened < plan.find("and 19,992 more IPv4 ranges").unwrap(), "{plan}");
    service.stop().await;
}

/// A test, a node, a group and 8,000 rules.
fn large() -> String {
    let mut file = String::from("rules:\n");
    for number in 0..8_000 {
        let (high, low) = (number / 256, number % 256);
        let description = "a description of some length that a person has written down";
        writeln!(file, "- {{id: r{number:04}, action: deny, range: 10.{high}.{low}.1, description: {description}}}")
            .unwrap();
    }
    file.push_str(
        "groups: [{id: office, ranges: [203.0.113.0/24]}]\nnodes: [{node: projects/web, access: allow-all}]\n\
         tests: [{id: outside, ip: 8.8.8.8, type: shell, endpoint: projects/web, expect: allow}]\n",
    );
    file
}

/// Asserts that the deletion of [`large`] is told, and returns how many rules are only counted.
fn assert_deletes_all(changes: &[ObjectChange], truncated: bool, case: &str) -> i64 {
    let mut names = Vec::new();
    let mut counted = 0;
    for ObjectChange { before, after } in changes {
        assert!(after.is_none(), "{case}: nothing is created");
        match before.clone().unwrap().object.unwrap() {
            Object::PolicyTest(test) => names.push(test.name),
            Object::Node(node) => names.push(node.name),
            Object::AddressGroup(group) => names.push(group.name),
            Object::Rule(rule) => names.push(rule.name),
            Object::Digest(digest) if digest.object_count > 1 => {
                assert_eq!(digest.name, format!("{DEFAULT}/others/rules"), "{case}");
                assert_eq!((digest.item_count, digest.sha256.len()), (digest.object_count, 32), "{case}");
                counted += digest.object_count;
            }
            // The last that there is room for.
            Object::Digest(digest) => names.push(digest.name),
            other @ Object::RuleOrder(_) => panic!("{case}: {other:?}"),
        }
    }
    let first = ["policyTests/outside", "projects/web", "addressGroups/office", "rules/r0000"];
    assert_eq!(names.get(..4).unwrap(), first.map(|name| format!("{DEFAULT}/{name}")), "{case}");
    assert_eq!((i64::try_from(names.len()).unwrap() + counted, truncated), (8_003, true), "{case}");
    assert!(counted > 1_000, "{case}");
    counted
}

#[tokio::test]
async fn large_deletion_names_what_matters_and_counts_the_rest() {
    let service = Service::start().await;
    told(&service, &["policy", "apply", "-"], &large()).await;
    let previewed = preview_of_going_back(&service, 1).await;
    // The organization would no longer require projects.
    let deletions =
        |changes: &[ObjectChange]| changes.iter().filter(|of| of.after.is_none()).cloned().collect::<Vec<_>>();
    assert_deletes_all(&deletions(&previewed.changes), previewed.truncated, "preview");

    let empty = "{rules: [], groups: [], nodes: [], tests: []}";
    let (plan, _) = told(&service, &["policy", "plan", "-", "--force", "--override-tests"], empty).await;
    for line in [
        "would delete organizations/default/policyTests/outside\n",
        "would delete organizations/default/projects/web\n",
    ] {
        assert!(plan.contains(line), "{line}");
    }
    assert!(!plan.contains("others") && !plan.contains("would create"));
    let apply = ["policy", "apply", "-", "--force", "--override-tests"];
    let (judged, notes) = told(&service, &[&apply[..], &["--validate-only"]].concat(), empty).await;
    assert!(judged.starts_with("8,003 objects would be altered, after revision 2\n"), "{judged:.200}");
    assert!(judged.contains(" more rules\n") && !judged.contains("\ndeleted"), "{judged:.200}");
    assert!(notes.contains("note: would delete organizations/default/policyTests/outside\n"), "{notes}");
    assert!(notes.contains("note: would delete 7,903 more rules\n"), "{notes}");
    assert!(notes.contains("would have no project left and still require projects"), "{notes}");
    let (done, notes) = told(&service, &apply, empty).await;
    assert!(done.starts_with("8,003 objects are altered, revision 3\n"), "{done:.200}");
    assert!(
        notes.contains("note: deleted organizations/default/rules/r0000: deny 10.0.0.1 \"a description"),
        "{notes}"
    );
    assert!(notes.contains("note: deleted 7,903 more rules\n"), "{notes}");
    assert!(notes.contains("note: no rule of organizations/default denies anything now"), "{notes}");
    assert!(notes.contains("has no project left and still requires projects"), "{notes}");

    let name = format!("{DEFAULT}/revisions/3");
    let revision = service.analysis().get_revision(GetRevisionRequest { name }).await.unwrap().into_inner();
    let change = revision.policy_change.unwrap();
    assert_deletes_all(&change.changes, change.truncated, "revision");
    let request = ListAuditRecordsRequest { parent: DEFAULT.to_owned(), ..ListAuditRecordsRequest::default() };
    let records = service.audit().list_audit_records(request).await.unwrap().into_inner().audit_records;
    let mut recorded = records.into_iter().filter_map(|record| match record.content {
        Some(audit_record::Content::PolicyChange(change)) if change.revision == 3 => Some(change),
        _ => None,
    });
    let recorded = recorded.next_back().unwrap();
    assert!(assert_deletes_all(&recorded.changes, recorded.truncated, "record") > 7_000);
    service.stop().await;
}

#[tokio::test]
async fn large_group_shows_how_many_ranges_it_had_and_has() {
    let service = Service::start().await;
    let group = |count| format!("groups: [{{id: block, ranges: [{}]}}]\n", scattered(count));
    told(&service, &["policy", "apply", "-"], &group(100_000)).await;
    let (plan, _) = told(&service, &["policy", "plan", "-"], &group(5_001)).await;
    let altered = "organizations/default/addressGroups/block: ranges 100000 -> 5001\n";
    assert!(plan.contains(&format!("would update {altered}")), "{plan}");
    let (done, _) = told(&service, &["policy", "apply", "-"], &group(5_001)).await;
    assert!(done.contains(&format!("updated {altered}")), "{done}");
    for command in [&["revisions", "get", "3"][..], &["revisions", "compare", "2", "3"]] {
        let (shown, _) = told(&service, command, "").await;
        assert!(shown.contains(&format!("updated {altered}")), "{shown}");
    }
    service.stop().await;
}

#[tokio::test]
async fn change_that_is_only_validated_is_told_in_the_conditional() {
    let service = Service::start().await;
    let file = "rules: [{id: rest, action: deny, range: any, description: everybody}]\n";
    told(&service, &["policy", "apply", "-"], file).await;
    told(&service, &["shadow", "set", "-"], "rules: []\n").await;
    let judged = [
        (&["policy", "apply", "-"][..], "rules: []", "1 object would be altered, after revision "),
        (&["revisions", "rollback", "1"], "", "would go back to organizations/default/revisions/1\n"),
        (&["shadow", "promote"], "", "would be promoted, after revision "),
        (&["rules", "replace", "--file", "-"], "[]", "these would be the rules of organizations/default"),
    ];
    for (command, input, begin) in judged {
        let (shown, notes) = told(&service, &[command, &["--validate-only"]].concat(), input).await;
        assert!(shown.starts_with(begin), "{command:?}: {shown}");
        let both = format!("{shown}{notes}");
        assert!(both.contains("would delete organizations/default/rules/rest: deny any \"everybody\"\n"), "{both}");
        assert!(!both.contains("deleted") && !both.contains("is altered"), "{both}");
        let denies_nothing = ["no rule of organizations/default would deny anything", "default would have no rules"];
        assert!(denies_nothing.iter().any(|told| notes.contains(told)), "{command:?}: {notes}");
    }
    service.stop().await;
}

#[tokio::test]
async fn first_and_last_project_are_told_with_what_they_deny() {
    let service = Service::start().await;
    let one = "nodes: [{node: projects/a, access: allow-all}]";
    let (_, notes) = told(&service, &["policy", "apply", "-"], one).await;
    assert!(
        notes.contains("organizations/default requires projects from now on")
            && notes.contains(": checks of projects that do"),
        "{notes}"
    );
    let last = "organizations/default would have no project left and still require projects";
    let (_, notes) = told(&service, &["nodes", "delete", "projects/a", "--preview"], "").await;
    assert!(notes.contains(last), "{notes}");
    let (_, notes) = told(&service, &["policy", "plan", "-"], "nodes: []").await;
    assert!(notes.contains(last), "{notes}");
    let two = "nodes: [{node: projects/a, access: allow-all}, {node: projects/b, access: allow-all}]";
    told(&service, &["policy", "apply", "-"], two).await;
    let (_, notes) = told(&service, &["nodes", "delete", "projects/a", "--preview"], "").await;
    assert!(!notes.contains(last), "{notes}");
    service.stop().await;
}

#[tokio::test]
async fn revision_that_waits_is_marked_until_it_is_confirmed() {
    let service = Service::start().await;
    let create = ["rules", "create", "--action", "deny", "--range", "192.0.2.1"];
    told(&service, &[&create[..], &["--confirm-within", "10m"]].concat(), "").await;
    let waits = async || {
        let (listed, _) = told(&service, &["revisions", "list"], "").await;
        let (shown, _) = told(&service, &["revisions", "get", "2"], "").await;
        (listed.contains("UNDONE UNLESS CONFIRMED BY"), shown.contains("undone unless confirmed by"), shown)
    };
    assert!(matches!(waits().await, (true, true, _)));
    told(&service, &["revisions", "confirm", "2"], "").await;
    let (listed, shown, text) = waits().await;
    assert!(!listed && !shown && text.contains("was to be confirmed by"), "{text}");
    service.stop().await;
}
