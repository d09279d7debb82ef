//! ListProblems through gRPC and the command line: the portal's examples, words, scope and pages.
//!
//! Invariant: every expectation here is a sentence of the product.
//! Not here: that problems are exact (`problems`).

use std::process::{Command, Stdio};

use portcullis::proto::v1::analysis_service_client::AnalysisServiceClient;
use portcullis::proto::v1::{
    AccessMode, Action, CreateAddressGroupRequest, DeleteRuleRequest, ListAddressGroupsRequest, ListProblemsRequest,
    ListRulesRequest, Problem, ProblemCode, ReorderRulesRequest, Severity,
};
use tonic::Code;

use crate::harness::{Service, access, allow_list, assert_error};

const DEFAULT: &str = "organizations/default";

async fn problems(service: &Service, parent: &str) -> Vec<Problem> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListProblemsRequest { parent: parent.to_owned(), page_size: 2, page_token };
        let page =
            AnalysisServiceClient::new(service.channel.clone()).list_problems(request).await.unwrap().into_inner();
        found.extend(page.problems);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

fn codes(problems: &[Problem]) -> Vec<(ProblemCode, &str)> {
    problems.iter().map(|problem| (problem.code(), problem.resource.as_str())).collect()
}

#[tokio::test]
async fn a_rule_that_never_wins_names_what_covers_it_until_it_is_moved() {
    let service = Service::start().await;
    assert_eq!(problems(&service, DEFAULT).await, []);
    service.add_rule("offices", Action::Allow, "10.0.0.0/8").await;
    service.add_rule("lab", Action::Deny, "10.0.5.0/24").await;
    service.add_rule("rest", Action::Deny, "0.0.0.0/0").await;
    let [offices, lab, rest] = ["offices", "lab", "rest"].map(|id| format!("{DEFAULT}/rules/{id}"));

    let found = problems(&service, DEFAULT).await;
    let shadowed = found.iter().find(|problem| problem.code() == ProblemCode::ShadowedRule).unwrap();
    assert_eq!((&shadowed.resource, &shadowed.related), (&lab, &vec![offices.clone()]));
    assert_eq!(shadowed.severity(), Severity::Warning);
    assert!(shadowed.message.contains(&offices), "{}", shadowed.message);
    let catch_all = found.iter().find(|problem| problem.code() == ProblemCode::Ipv4OnlyCatchAll).unwrap();
    assert_eq!((&catch_all.resource, &catch_all.ranges), (&rest, &vec!["::/0".to_owned()]));

    let order = vec![lab.clone(), offices.clone(), rest.clone()];
    let request = ReorderRulesRequest { parent: DEFAULT.to_owned(), rules: order, ..Default::default() };
    service.firewall().reorder_rules(request).await.unwrap();
    let found = problems(&service, DEFAULT).await;
    assert!(!found.iter().any(|problem| problem.code() == ProblemCode::ShadowedRule), "{found:?}");
    assert!(found.iter().any(|problem| problem.code() == ProblemCode::Ipv4OnlyCatchAll), "{found:?}");
}

#[tokio::test]
async fn the_warnings_of_the_hierarchy_are_given_where_they_are_due_and_nowhere_else() {
    let service = Service::start().await;
    service.set_access(DEFAULT, allow_list(&["198.51.100.0/24", "203.0.113.0/24"])).await;
    service.add_node(DEFAULT, "new", None).await;
    service.add_node(DEFAULT, "inside", Some(allow_list(&["203.0.113.0/25"]))).await;
    service.add_node(DEFAULT, "across", Some(allow_list(&["203.0.113.0/24", "192.0.2.0/24"]))).await;
    service.add_node(DEFAULT, "all", Some(access(AccessMode::AllowAll))).await;
    service.add_node(DEFAULT, "family", Some(allow_list(&["0.0.0.0/0"]))).await;
    let [new, inside, across, all, family] =
        ["new", "inside", "across", "all", "family"].map(|id| format!("{DEFAULT}/projects/{id}"));
    service.add_node(&new, "main", None).await;

    let found = problems(&service, DEFAULT).await;
    let expected = [
        (ProblemCode::NoAddresses, new.as_str()),
        (ProblemCode::ExceedsOrganization, across.as_str()),
        (ProblemCode::AllowsAll, all.as_str()),
        (ProblemCode::AllowsAll, family.as_str()),
    ];
    assert_eq!(codes(&found), expected, "clipped by the organization, none of them is open to everybody");
    assert_eq!(found[1].ranges, ["192.0.2.0/24"]);

    // Before a deployment the portal asks about one node: what it inherits is its own then.
    let main = format!("{new}/workspaces/main");
    assert_eq!(codes(&problems(&service, &main).await), [(ProblemCode::NoAddresses, main.as_str())]);
    let unregistered = format!("{all}/workspaces/main/endpoints/shell");
    assert_eq!(codes(&problems(&service, &unregistered).await), [(ProblemCode::AllowsAll, unregistered.as_str())]);
    assert_eq!(problems(&service, &inside).await, []);

    // Without the organization's list the same project is open to everybody.
    service.set_access(DEFAULT, access(AccessMode::AllowAll)).await;
    let expected = [(ProblemCode::OpenToInternet, all.as_str()), (ProblemCode::AllowsAll, all.as_str())];
    assert_eq!(codes(&problems(&service, &all).await), expected);
    assert_eq!(problems(&service, &across).await, []);
    assert_eq!(problems(&service, "cluster").await, []);
}

#[tokio::test]
async fn lists_show_the_problems_of_what_is_on_their_page_and_no_others() {
    let service = Service::start().await;
    service.add_rule("offices", Action::Allow, "10.0.0.0/8").await;
    service.add_rule("lab", Action::Deny, "10.0.5.0/24").await;
    service.add_rule("rest", Action::Deny, "0.0.0.0/0").await;
    for id in ["a", "b", "c"] {
        let request = CreateAddressGroupRequest {
            parent: DEFAULT.to_owned(),
            address_group_id: id.to_owned(),
            ..Default::default()
        };
        service.firewall().create_address_group(request).await.unwrap();
    }
    let every = problems(&service, DEFAULT).await;
    let of = |names: &[String]| -> Vec<Problem> {
        every.iter().filter(|problem| names.contains(&problem.resource)).cloned().collect()
    };
    let has = |code: ProblemCode, shown: &[Problem]| shown.iter().any(|problem| problem.code() == code);
    assert!(has(ProblemCode::ShadowedRule, &every) && has(ProblemCode::UnusedGroup, &every), "{every:?}");
    for page_size in 1..=4 {
        let mut page_token = String::new();
        loop {
            let request = ListRulesRequest { parent: DEFAULT.to_owned(), page_size, page_token };
            let page = service.firewall().list_rules(request).await.unwrap().into_inner();
            let names: Vec<String> = page.rules.into_iter().map(|rule| rule.name).collect();
            assert_eq!(page.problems, of(&names), "{names:?}");
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        loop {
            let request = ListAddressGroupsRequest { parent: DEFAULT.to_owned(), page_size, page_token };
            let page = service.firewall().list_address_groups(request).await.unwrap().into_inner();
            let names: Vec<String> = page.address_groups.into_iter().map(|group| group.name).collect();
            assert_eq!(page.problems, of(&names), "{names:?}");
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    }
    // The problems are those of the version that is listed.
    let name = format!("{DEFAULT}/rules/offices");
    service.firewall().delete_rule(DeleteRuleRequest { name, ..Default::default() }).await.unwrap();
    let request = ListRulesRequest { parent: DEFAULT.to_owned(), ..Default::default() };
    let page = service.firewall().list_rules(request).await.unwrap().into_inner();
    assert!(!has(ProblemCode::ShadowedRule, &page.problems), "{:?}", page.problems);
    assert!(has(ProblemCode::Ipv4OnlyCatchAll, &page.problems), "{:?}", page.problems);
}

#[tokio::test]
async fn a_parent_that_is_malformed_or_unknown_is_refused() {
    let service = Service::start().await;
    let mut analysis = AnalysisServiceClient::new(service.channel.clone());
    let mut ask = async |parent: &str, page_size, page_token: &str| {
        let request = ListProblemsRequest { parent: parent.to_owned(), page_size, page_token: page_token.to_owned() };
        analysis.list_problems(request).await
    };
    let status = assert_error(ask("projects/web", -1, "x").await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(crate::harness::fields(&status), ["parent", "page_size", "page_token"]);
    assert_error(ask("organizations/unknown", 0, "").await, Code::NotFound, "NOT_FOUND");
    service.add_rule("one", Action::Deny, "10.0.0.0/8").await;
    service.add_rule("two", Action::Deny, "10.0.0.0/9").await;
    service.add_rule("three", Action::Deny, "10.0.0.0/10").await;
    let token = ask(DEFAULT, 1, "").await.unwrap().into_inner().next_page_token;
    service.add_rule("four", Action::Deny, "10.0.0.0/11").await;
    assert_error(ask(DEFAULT, 1, &token).await, Code::Aborted, "LIST_CHANGED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_traces_and_problems_to_people_and_to_programs() {
    let service = Service::start().await;
    service.add_rule("offices", Action::Allow, "10.0.0.0/8").await;
    service.add_rule("lab", Action::Deny, "10.0.5.0/24").await;
    let server = service.address().to_string();
    let run = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(args).env_clear().env("PORTCULLIS_SERVER", &server).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let question = ["--ip", "10.0.5.15", "--type", "shell", "--endpoint", DEFAULT];
    let tree = run(&[&["explain", "--output", "table"][..], &question].concat()).await;
    assert!(tree.starts_with("allow: allow-rule, organizations/default/rules/offices\n"), "{tree}");
    assert!(tree.contains("├─ 1. allow 10.0.0.0/8 (offices): matched\n"), "{tree}");
    assert!(tree.contains("└─ 2. deny 10.0.5.0/24 (lab): not reached\n"), "{tree}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&[&["explain", "--output", "json"][..], &question].concat()).await).unwrap();
    assert_eq!(json["steps"][2]["rules"][1]["outcome"], "RULE_OUTCOME_NOT_REACHED");

    let lines = run(&["problems", "--output", "table"]).await;
    assert!(lines.starts_with("warning shadowed-rule organizations/default/rules/lab\n"), "{lines}");
    let json: serde_json::Value = serde_json::from_str(&run(&["problems", "--output", "json"]).await).unwrap();
    assert_eq!(json["problems"][0]["code"], "PROBLEM_CODE_SHADOWED_RULE");
}
