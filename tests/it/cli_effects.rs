//! Every change through the command line says what it causes besides what was typed.
//!
//! Invariant: what is said of a change that was only validated is said with "would", and nothing is said where nothing is
//! caused.
//! Not here: single edits (`cli_edit`), previews (`cli_preview`).

use std::time::Duration;

use crate::cli_edit::run;
use crate::clock::Hand;
use crate::harness::Service;

/// 2026-12-24T17:00:00Z, an hour before the rules of these tests expire.
const BEFORE: Duration = Duration::from_hours(499_481);

/// Commands that lead to a policy, one that changes it, and what that must say and must not say.
struct Case {
    before: &'static [&'static str],
    command: &'static str,
    says: &'static [&'static str],
    not: &'static [&'static str],
}

const fn case(before: &'static [&'static str], command: &'static str, says: &'static [&'static str]) -> Case {
    Case { before, command, says, not: &["nothing changed", "is not told"] }
}

const ALLOW: &str = "rules create --id office --action allow --range 203.0.113.0/24";
const REST: &str = "rules create --id rest --action deny --range any";
const SESSION: &str = "check --ip 203.0.113.7 --type shell --endpoint default";
const SECOND: &str = "check --ip 203.0.113.8 --type shell --endpoint default";
const EMPTY: &str = "groups create empty";
const HOUSE: &str = "groups create house --range 203.0.113.0/24";
const HOUSE_RULE: &str = "rules create --id office --action allow --group house";
const WEB: &str = "nodes create projects/web --access allow-list --range 203.0.113.0/24";

const OPENED: &str = "note: permitted from now on: most IPv4 addresses and every IPv6 address, at organizations/default \
                      (shell, preview)";
const LOCKED_OUT: &str = "error: organizations/default: nobody can connect";

fn rules() -> Vec<Case> {
    vec![
        case(
            &[ALLOW, REST],
            "rules update rest --expire-time 2026-12-24T18:00:00Z",
            &["note: permitted from 2026-12-24T18:00:00Z on: most IPv4 addresses and every IPv6 address, at \
               organizations/default (shell, preview)"],
        ),
        case(
            &[ALLOW, REST],
            "rules update office --expire-time 2026-12-24T18:00:00Z",
            &["error: organizations/default: from 2026-12-24T18:00:00Z on, nobody can connect"],
        ),
        case(
            &[SESSION, SECOND],
            REST,
            &["note: 2 active sessions were revoked", "note: denied from now on: every IPv4", LOCKED_OUT],
        ),
        case(
            &[ALLOW, "rules create --id lab --action deny --range 192.0.2.0/24", REST],
            "rules delete rest",
            &[OPENED],
        ),
        case(
            &[ALLOW, EMPTY, "rules create --id none --action deny --group empty", REST],
            "rules delete rest",
            &[OPENED],
        ),
        case(&[ALLOW, REST], "rules update rest --disabled", &[OPENED]),
        case(&[ALLOW, REST], "rules update rest --range 192.0.2.0/24", &[OPENED]),
        case(
            &[ALLOW, REST],
            "rules update rest --type shell",
            &["most IPv4 addresses and every IPv6 address, at organizations/default (preview)"],
        ),
        case(&[ALLOW, REST], "rules move rest 1", &["rules/office: the rule never wins", LOCKED_OUT]),
        case(
            &[],
            "rules create --id rest --action deny --range any --type shell",
            &["error: organizations/default: nobody can connect for shell connections, because"],
        ),
        case(
            &[ALLOW, REST],
            "rules update rest --disabled --validate-only",
            &["note: would be permitted from now on: most IPv4 addresses"],
        ),
        case(
            &[ALLOW, REST],
            "rules move rest 1 --validate-only",
            &["note: problems that would come:\nerror: organizations/default: nobody can connect"],
        ),
    ]
}

fn groups() -> Vec<Case> {
    vec![
        case(
            &[
                "groups create block --range 192.0.2.1",
                "rules create --id block --action deny --group block",
                SESSION,
                SECOND,
            ],
            "groups add block --range 203.0.113.0/24",
            &["note: 2 active sessions were revoked"],
        ),
        case(
            &["groups create block --range 192.0.2.1", "rules create --id block --action deny --group block"],
            "groups remove block --range 192.0.2.1",
            &["addressGroups/block has no ranges", "warning: organizations/default/rules/block: the address group"],
        ),
        case(
            &[HOUSE, HOUSE_RULE, REST],
            "groups remove house --range 203.0.113.0/24",
            &["addressGroups/house has no ranges", LOCKED_OUT],
        ),
        case(
            &[HOUSE, HOUSE_RULE, REST],
            "groups replace house --allow-empty",
            &["note: 0 ranges added, 1 range dropped", "addressGroups/house has no ranges", LOCKED_OUT],
        ),
        case(
            &[HOUSE, HOUSE_RULE],
            "groups replace house --range 203.0.113.0/25 --range 192.0.2.1 --validate-only",
            &["note: 2 ranges would be added, 1 range would be dropped"],
        ),
        case(&[], "groups create none --file /dev/null", &["addressGroups/none has no ranges, and stands for nobody"]),
    ]
}

fn nodes() -> Vec<Case> {
    vec![
        case(
            &[WEB, EMPTY],
            "nodes update projects/web --access allow-list --group empty",
            &["warning: organizations/default/projects/web: the access permits nobody", "the address group"],
        ),
        case(&[ALLOW, REST], "nodes update default --access allow-list --range 192.0.2.0/24", &[LOCKED_OUT]),
        case(
            &[SESSION, SECOND, "nodes update default --gates-max-revocations 0"],
            "nodes update cluster --access allow-list",
            &[
                "note: 2 active sessions were revoked",
                LOCKED_OUT,
                "note: this is a change of the cluster, for which its own gates hold, and none of the gates of organizations",
            ],
        ),
        case(
            &[WEB],
            "nodes entries remove projects/web 203.0.113.0/24",
            &["1 entry removed", "warning: organizations/default/projects/web: the access permits nobody"],
        ),
        case(
            &[ALLOW, REST, WEB],
            "nodes entries add projects/web 192.0.2.7",
            &["warning: organizations/default/projects/web: the entry `192.0.2.7` lets nobody in"],
        ),
        case(
            &[],
            "nodes update default --require-projects=true",
            &["organizations/default requires projects from now on: checks of projects that do not exist"],
        ),
        case(
            &[WEB],
            "nodes update default --require-projects=false",
            &["organizations/default no longer requires projects: checks of projects that do not exist"],
        ),
        case(
            &[WEB],
            "nodes delete projects/web --preview",
            &["note: organizations/default would have no project left and still require projects"],
        ),
        case(
            &[ALLOW, REST, "nodes update default --gates-guard-ip 203.0.113.7"],
            "nodes update default --gates-guard-ip 192.0.2.7",
            &[
                "note: 203.0.113.7 is no longer guarded",
                "note: the gate guards nothing for 192.0.2.7, which is denied everywhere in organizations/default",
            ],
        ),
        case(
            &[],
            "nodes create organizations/other --access allow-list",
            &["organizations/other: the access permits nobody"],
        ),
    ]
}

fn others() -> Vec<Case> {
    vec![case(
        &[],
        "policy tests create --id t --ip 192.0.2.1 --type shell --endpoint projects/none --expect allow",
        &[
            "name      organizations/default/policyTests/t\n",
            "note: organizations/default/projects/none does not exist: the test asserts what a check of an unknown node",
        ],
    )]
}

async fn assert_says(case: &Case) {
    let hand = Hand::at(BEFORE);
    let service = Service::start_at(&hand).await;
    for line in case.before {
        run(&service, line).await.done();
    }
    let (shown, notes) = run(&service, case.command).await.done();
    let text = format!("{shown}{notes}");
    for part in case.says {
        assert!(text.contains(part), "{}: `{part}` is missing in:\n{text}", case.command);
    }
    for part in case.not {
        assert!(!text.contains(part), "{}: `{part}` is in:\n{text}", case.command);
    }
    service.stop().await;
}

async fn assert_all(cases: Vec<Case>) {
    for case in &cases {
        assert_says(case).await;
    }
}

#[tokio::test]
async fn a_change_of_rules_says_who_gets_in_who_is_kept_out_and_whose_sessions_end() {
    assert_all(rules()).await;
}

#[tokio::test]
async fn a_change_of_a_group_says_what_it_does_to_the_rules_that_name_it() {
    assert_all(groups()).await;
}

#[tokio::test]
async fn a_change_of_a_node_says_that_nobody_is_left_what_is_required_and_what_guards_nothing() {
    assert_all(nodes()).await;
}

#[tokio::test]
async fn a_test_of_a_node_that_does_not_exist_says_so_and_answers_with_its_full_name() {
    assert_all(others()).await;
}

#[tokio::test]
async fn rules_that_are_replaced_by_none_are_said_one_by_one() {
    let service = Service::start().await;
    run(&service, ALLOW).await.done();
    run(&service, REST).await.done();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, "rules: []\n").unwrap();
    let replace = format!("rules replace --file {}", file.display());
    for (command, says) in [
        (
            format!("{replace} --validate-only"),
            [
                "note: would delete organizations/default/rules/rest: deny any",
                "note: the list is empty: organizations/default would have no rules",
                "note: would be permitted from now on: most IPv4",
            ],
        ),
        (
            replace.clone(),
            [
                "note: deleted organizations/default/rules/rest: deny any",
                "note: the list is empty: organizations/default has no rules, and the firewall allows every address",
                OPENED,
            ],
        ),
    ] {
        let (_, notes) = run(&service, &command).await.done();
        for part in says {
            assert!(notes.contains(part), "{command}: `{part}` is missing in:\n{notes}");
        }
    }
    service.stop().await;
}

/// The hazard: notes that come with every change are read with none.
#[tokio::test]
async fn a_change_that_causes_nothing_is_silent_and_one_without_effect_says_so() {
    let service = Service::start().await;
    for silent in [
        ALLOW,
        "rules create --id lab --action deny --range 192.0.2.7",
        "rules update lab --description lab",
        HOUSE,
        "groups update house --description house",
        "groups add house --range 192.0.2.1",
        "nodes create projects/web --access allow-list --range 203.0.113.0/24 --validate-only",
        "nodes update default --display-name Default",
    ] {
        let (_, notes) = run(&service, silent).await.done();
        let notes = notes.lines().filter(|line| !line.contains("validated only") && !line.contains("require projects"));
        assert_eq!(notes.collect::<Vec<_>>(), Vec::<&str>::new(), "{silent}");
    }
    run(&service, WEB).await.done();
    for same in [
        "rules update lab --description lab",
        "rules move lab 2",
        "rules reorder office lab",
        "groups add house --range 192.0.2.1",
        "groups update house --description house",
        "nodes entries add projects/web 203.0.113.0/24",
        "nodes update projects/web --access allow-list --range 203.0.113.0/24",
    ] {
        let (_, notes) = run(&service, same).await.done();
        assert_eq!(notes, "note: nothing changed: what was given is so already\n", "{same}");
        let (_, notes) = run(&service, &format!("{same} --validate-only")).await.done();
        assert!(notes.contains("note: nothing would change"), "{same}: {notes}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_typed_twice_counts_once_and_an_empty_file_is_named() {
    let service = Service::start().await;
    run(&service, WEB).await.done();
    let twice = "nodes entries add projects/web 192.0.2.7 192.0.2.7/32 203.0.113.0/24";
    let (shown, _) = run(&service, twice).await.done();
    assert!(shown.contains("\n1 entry added, 1 was there already\n"), "{shown}");
    run(&service, HOUSE).await.done();
    for (command, says) in [
        ("nodes entries add projects/web --file /dev/null", "the file has no ranges and no groups"),
        ("groups add house --file /dev/null", "the file has no ranges"),
    ] {
        let ran = run(&service, command).await;
        assert!(ran.status == 2 && ran.notes.contains(says), "{command}: {ran:?}");
    }
    service.stop().await;
}

/// The hazard: the same mistake has another name where it is only previewed.
#[tokio::test]
async fn a_preview_names_a_fault_as_the_change_does() {
    let service = Service::start().await;
    run(&service, ALLOW).await.done();
    for command in [
        "rules create --action allow --range 203.0.113.1/24",
        "rules move office 99",
        "nodes update default --access allow-list --range 203.0.113.1/24",
        "nodes update default --display-name x --guard-ip nonsense",
        "groups create a --range nonsense",
    ] {
        let (made, previewed) = (run(&service, command).await, run(&service, &format!("{command} --preview")).await);
        assert_ne!(made.status, 0, "{made:?}");
        assert_eq!(made.notes, previewed.notes, "{command}");
        assert!(!made.notes.contains("mutations["), "{made:?}");
    }
    let moved = run(&service, "rules move office 99").await;
    assert!(moved.notes.contains("`99` is not a position: give one from 1 to 1\n"), "{moved:?}");
    service.stop().await;
}

/// The hazard: the largest change is the one that says the least.
#[tokio::test]
async fn what_is_too_large_to_be_foreseen_is_compared_afterwards() {
    let service = Service::start().await;
    run(&service, "groups create block").await.done();
    run(&service, "rules create --id block --action deny --group block").await.done();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ranges");
    let range = |number: u32| format!("2001:db8:0:1:2:3:{:x}:{:x}", number >> 16, number & 0xffff);
    let many = (0..180_000).map(range).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, format!("0.0.0.0/1\n128.0.0.0/1\n{many}")).unwrap();
    let add = format!("groups add block --file {}", file.display());
    let (_, notes) = run(&service, &format!("{add} --validate-only")).await.done();
    assert!(notes.contains("what it causes besides is not told, because the change has more than 3 MiB"), "{notes}");
    let (_, notes) = run(&service, &add).await.done();
    let family = "note: denied from now on: every IPv4 address, at organizations/default (shell, preview)\n";
    assert!(notes.contains(family) && notes.contains("problems it brought is not told"), "{notes}");
    let (_, notes) = run(&service, &add).await.done();
    assert_eq!(notes, "note: nothing changed: what was given is so already\n");
    service.stop().await;
}

#[tokio::test]
async fn what_replaces_a_policy_says_whose_sessions_end_as_single_changes_do() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().unwrap());
    let closed = folder.path().join("closed.yaml");
    std::fs::write(&closed, "rules: [{id: rest, action: deny, range: any}]\n").unwrap();
    let closed = closed.to_str().unwrap();
    let revoked = "note: 1 active session was revoked";
    run(&service, SESSION).await.done();
    for (line, says) in [
        (&*format!("policy apply {closed} --validate-only"), "note: 1 active session would be revoked"),
        (&format!("policy apply {closed}"), revoked),
        ("revisions rollback 1", "note: permitted from now on: every IPv4"),
        (SESSION, ""),
        ("revisions rollback 2", revoked),
        ("revisions rollback 1", "note: permitted from now on: every IPv4"),
        (&format!("shadow set {closed}"), ""),
        (SESSION, ""),
        ("shadow promote", revoked),
    ] {
        let (_, notes) = run(&service, line).await.done();
        assert!(notes.contains(says), "{line}: {notes}");
    }
    service.stop().await;
}
