//! Everyday edits through the command line: what they cause besides is said, and nothing else happens.
//!
//! Invariant: a note goes to the standard error, so that the JSON of a command stays what it is.
//! Not here: previews (`cli_preview`), policy files (`cli_policy`), a whole session (`cli_session`).

use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis::proto::v1::{Action, ConfirmRevisionRequest, UpdateRuleRequest};
use tonic::Code;

use crate::clock::Hand;
use crate::harness::{Service, assert_error, rule};

/// 2026-12-24T18:00:00Z.
const CHRISTMAS_EVE: Duration = Duration::from_hours(499_482);

/// What a command printed, and its exit status.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) shown: String,
    pub(crate) notes: String,
}

impl Ran {
    /// What it printed, where it ended well.
    pub(crate) fn done(self) -> (String, String) {
        assert_eq!(self.status, 0, "{self:?}");
        (self.shown, self.notes)
    }

    /// What it said, where it was wrong usage.
    fn refused(self) -> String {
        assert_eq!((self.status, self.shown.as_str()), (2, ""), "{self:?}");
        self.notes
    }
}

/// Runs a command line with its words separated by spaces. The times that it shows are in Berlin.
pub(crate) async fn run(service: &Service, line: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(line.split_whitespace()).args(["--output", "table"]);
    command.env("PORTCULLIS_SERVER", service.address().to_string()).env("TZ", "Europe/Berlin").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), shown: text(output.stdout), notes: text(output.stderr) }
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

#[tokio::test]
async fn the_first_project_says_that_projects_are_required_and_the_last_one_that_they_still_are() {
    let service = Service::start().await;
    let lift = "portcullis nodes update organizations/default --require-projects=false";
    let (preview, _) = run(&service, "nodes create projects/web --preview").await.done();
    has(&preview, &["would create organizations/default/projects/web", "organizations/default would require projects"]);
    let (_, notes) = run(&service, "nodes create projects/web --validate-only").await.done();
    has(&notes, &["organizations/default would require projects from now on", "nothing was changed"]);
    let (shown, notes) = run(&service, "nodes create projects/web").await.done();
    has(&shown, &["organizations/default/projects/web"]);
    has(&notes, &["requires projects from now on", "projects that do not exist, and of everything below them", lift]);
    has(&notes, &["organizations/default/projects/web: the access permits nobody"]);
    assert!(!notes.contains("denied from now on"), "{notes}");
    let (_, notes) = run(&service, "nodes create projects/ops --access allow-all").await.done();
    has(&notes, &["note: permitted from now on: every IPv4 address and every IPv6 address, at organizations/default/"]);
    let (_, notes) = run(&service, "nodes delete projects/ops").await.done();
    assert_eq!(notes, "");
    let (shown, notes) = run(&service, "nodes delete projects/web").await.done();
    assert_eq!(shown, "deleted organizations/default/projects/web\n");
    has(&notes, &["has no project left and still requires projects", "every check of a project", lift]);
    let unknown = run(&service, "check --ip 192.0.2.1 --type shell --endpoint projects/web").await;
    has(&unknown.shown, &["unknown-endpoint"]);
    // The command that the note names does lift it.
    run(&service, lift.trim_start_matches("portcullis ")).await.done();
    run(&service, "check --ip 192.0.2.1 --type shell --endpoint projects/web").await.done();
    service.stop().await;
}

/// The hazard: the id of a project makes an organization, or deletes one.
#[tokio::test]
async fn an_id_that_can_be_a_project_or_an_organization_is_refused_with_both_spellings() {
    let service = Service::start().await;
    for command in [
        "nodes create web",
        "nodes get web",
        "nodes update web --access allow-all",
        "nodes delete web --force",
        "nodes effective web",
        "nodes permitted web --type shell",
        "nodes list web",
        "problems web",
        "check --ip 192.0.2.1 --type shell --endpoint web",
        "explain --ip 192.0.2.1 --type shell --endpoint web",
        "audit list --endpoint web",
        "sessions list --endpoint web",
        "policy tests create --ip 192.0.2.1 --type shell --endpoint web --expect allow",
    ] {
        has(&run(&service, command).await.refused(), &["`projects/web`", "`organizations/web`"]);
    }
    let (listed, _) = run(&service, "nodes list").await.done();
    assert!(!listed.contains("web"), "{listed}");
    // The organization that the command works in is not in doubt, and both spellings are taken.
    has(&run(&service, "nodes get default").await.done().0, &["organizations/default"]);
    has(&run(&service, "nodes create organizations/web").await.done().0, &["organizations/web"]);
    has(
        &run(&service, "nodes create projects/web --organization web").await.done().0,
        &["organizations/web/projects/web"],
    );
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_waits_says_how_and_until_when_to_confirm_it_for_every_command() {
    let hand = Hand::at(CHRISTMAS_EVE);
    let service = Service::start_at(&hand).await;
    run(&service, "groups create office --range 10.0.0.0/8").await.done();
    let mut revision = 2;
    for command in [
        "rules create --id office --action allow --range 192.0.2.0/24",
        "rules create --id rest --action deny --range any",
        "rules update office --description office",
        "rules move rest 1",
        "rules reorder office rest",
        "nodes create projects/web",
        "nodes update projects/web --access allow-all",
        "nodes delete projects/web",
        "groups update office --description offices",
        "groups add office --range 192.0.2.0/24",
        "policy tests create --id t --ip 192.0.2.1 --type shell --endpoint default --expect allow",
        "policy tests delete t",
        "rules delete rest",
        "revisions rollback 1",
    ] {
        let (_, notes) = run(&service, &format!("{command} --confirm-within 10m")).await.done();
        revision += 1;
        let name = format!("organizations/default/revisions/{revision}");
        has(&notes, &["2026-12-24 19:10:00 local time (2026-12-24T18:10:00Z)", &format!("revisions confirm {name}\n")]);
        run(&service, &format!("revisions confirm {name}")).await.done();
        revision += 1;
    }
    // What altered nothing waits for nothing.
    let same = "nodes update default --require-projects=true --confirm-within 10m";
    let (_, notes) = run(&service, same).await.done();
    has(&notes, &["revisions confirm"]);
    run(&service, "revisions confirm 31").await.done();
    let (_, notes) = run(&service, same).await.done();
    has(&notes, &["nothing waits for a confirmation"]);
    service.stop().await;
}

#[tokio::test]
async fn a_confirmation_tells_a_revision_that_does_not_exist_from_one_that_does_not_wait() {
    let service = Service::start().await;
    let confirm = async |revision: &str| {
        let name = format!("organizations/default/revisions/{revision}");
        service.analysis().confirm_revision(ConfirmRevisionRequest { name, options: None }).await
    };
    let missing = assert_error(confirm("99").await, Code::NotFound, "NOT_FOUND");
    has(missing.message(), &["`organizations/default/revisions/99` does not exist"]);
    assert_error(confirm("1").await, Code::FailedPrecondition, "NOTHING_TO_CONFIRM");
    let ran = run(&service, "revisions confirm 99").await;
    assert_eq!(ran.status, 1, "{ran:?}");
    has(&ran.notes, &["does not exist"]);
    let ran = run(&service, "revisions confirm 1").await;
    has(&ran.notes, &["does not wait for a confirmation"]);
    service.stop().await;
}

#[tokio::test]
async fn a_rule_that_never_wins_says_so_and_by_which_rule_after_every_change() {
    let service = Service::start().await;
    run(&service, "rules create --id office --action allow --range 10.0.0.0/8").await.done();
    let never = ["rules/lab: the rule never wins", "`organizations/default/rules/office` covers all of it"];
    let (_, notes) = run(&service, "rules create --id lab --action deny --range 10.0.5.0/24").await.done();
    has(&notes, &never);
    let (_, notes) = run(&service, "rules move lab 1").await.done();
    assert!(!notes.contains("never wins"), "{notes}");
    let (shown, notes) = run(&service, "rules move lab 3").await.done();
    has(&notes, &never);
    has(&shown, &["organizations/default/rules/lab", "position       2"]);
    let (_, notes) = run(&service, "rules reorder lab office").await.done();
    assert!(!notes.contains("never wins"), "{notes}");
    let (shown, notes) = run(&service, "rules reorder office lab").await.done();
    has(&shown, &["these are the rules of organizations/default, revision 7"]);
    has(&notes, &never);
    // One that wins only in part, and one that covers those after it.
    let (_, notes) = run(&service, "rules update lab --range 10.0.0.0/7").await.done();
    has(&notes, &["rules before this one always decide for `10.0.0.0/8`"]);
    let (_, notes) = run(&service, "rules create --id all --action deny --range any --position 1").await.done();
    has(
        &notes,
        &["rules/office: the rule never wins", "rules/lab: the rule never wins", "`organizations/default/rules/all`"],
    );
    has(&run(&service, "rules get office").await.done().0, &["never wins"]);
    service.stop().await;
}

#[tokio::test]
async fn an_expired_rule_is_shown_as_expired_and_a_disabled_one_as_disabled() {
    let hand = Hand::at(CHRISTMAS_EVE);
    let service = Service::start_at(&hand).await;
    run(&service, "rules create --id guest --action allow --range 192.0.2.1 --expire-time 2026-12-24T18:00:03Z")
        .await
        .done();
    run(&service, "rules create --id off --action allow --range 192.0.2.2 --disabled").await.done();
    let (listed, _) = run(&service, "rules list").await.done();
    has(&listed, &["until 2026-12-24T18:00:03Z", "disabled"]);
    hand.advance(Duration::from_secs(3));
    for command in ["rules list", "rules get guest"] {
        has(&run(&service, command).await.done().0, &["expired 2026-12-24T18:00:03Z"]);
    }
    let (shown, notes) = run(&service, "rules update guest --description gone").await.done();
    has(&shown, &["expired 2026-12-24T18:00:03Z"]);
    assert_eq!(notes, "", "it was expired before");
    let past = "rules create --id past --action allow --range 192.0.2.3 --expire-time 2026-12-24T18:00:01Z";
    has(&run(&service, past).await.done().1, &["has expired"]);
    let (shown, _) = run(&service, "rules update guest --disabled").await.done();
    has(&shown, &["disabled, expired 2026-12-24T18:00:03Z"]);
    service.stop().await;
}

#[tokio::test]
async fn the_end_of_the_last_denial_is_said() {
    let service = Service::start().await;
    let open =
        "note: permitted from now on: every IPv4 address and every IPv6 address, at organizations/default (shell";
    let create = "rules create --id rest --action deny --range any";
    run(&service, create).await.done();
    run(&service, "rules create --id lab --action deny --range 192.0.2.0/24 --position 1").await.done();
    let (_, notes) = run(&service, "rules delete lab").await.done();
    assert_eq!(notes, "");
    let (_, notes) = run(&service, "rules delete rest").await.done();
    has(&notes, &[open]);
    for update in ["--action allow", "--disabled"] {
        run(&service, create).await.done();
        has(&run(&service, &format!("rules update rest {update}")).await.done().1, &[open]);
        let (_, notes) = run(&service, "rules delete rest").await.done();
        assert_eq!(notes, "", "it denied nothing before");
    }
    // An answer of the server says it, too.
    service.add_rule("past", Action::Deny, "any").await;
    let mut past = rule(Action::Deny, "any");
    past.name = "organizations/default/rules/past".to_owned();
    past.expire_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let request = UpdateRuleRequest { rule: Some(past), ..UpdateRuleRequest::default() };
    assert!(service.firewall().update_rule(request).await.unwrap().into_inner().expired);
    service.stop().await;
}

/// The hazard: a list is typed again for one more address, and what was forgotten loses its access in silence.
#[tokio::test]
async fn entries_and_gates_that_an_update_loses_are_said_and_a_gate_that_is_not_named_stays() {
    let service = Service::start().await;
    run(&service, "groups create office --range 10.0.0.0/8").await.done();
    let list = "nodes update default --access allow-list --range 192.0.2.0/24 --range 198.51.100.7 --group office";
    let (_, notes) = run(&service, list).await.done();
    let expected = "note: denied from now on: most IPv4 addresses and every IPv6 address, at organizations/default (shell, \
                    preview)\n";
    assert_eq!(notes, expected);
    let (_, notes) = run(&service, "nodes update default --access allow-list --range 192.0.2.0/24").await.done();
    assert_eq!(notes, "note: organizations/default has lost the entries 198.51.100.7, group office\n");
    let (_, notes) = run(&service, "nodes update default --access allow-list").await.done();
    has(&notes, &["has lost the entry 192.0.2.0/24", "organizations/default: the access permits nobody"]);
    run(&service, "nodes update default --access allow-all").await.done();

    let set =
        "nodes update default --gates-guard-ip 10.0.0.1 --gates-max-revocations 3 --gates-refuse-open-to-internet";
    let all = "guards 10.0.0.1, revokes at most 3, opens nothing to the internet";
    has(&run(&service, set).await.done().1, &[all]);
    let (_, notes) = run(&service, "nodes update default --gates-max-revocations 0").await.done();
    let expected = "note: the gates of organizations/default are now: guards 10.0.0.1, revokes at most 0, opens nothing to \
                    the internet\n";
    assert_eq!(notes, expected);
    let (_, notes) =
        run(&service, "nodes update default --gates-guard-ip none --gates-refuse-open-to-internet=false").await.done();
    has(&notes, &["are now: revokes at most 0\n"]);
    has(&run(&service, "nodes update default --gates-max-revocations none").await.done().1, &["are now: none"]);
    service.stop().await;
}

#[tokio::test]
async fn a_forced_deletion_says_what_went_with_it_and_who_gets_in_now() {
    let service = Service::start().await;
    run(&service, "nodes create projects/web --access allow-all").await.done();
    run(&service, "nodes create projects/web/workspaces/dev --access allow-list --range 192.0.2.0/24").await.done();
    run(&service, "nodes create projects/web/workspaces/dev/endpoints/shell").await.done();
    let refused = run(&service, "nodes delete projects/web/workspaces/dev").await;
    assert_eq!(refused.status, 1, "{refused:?}");
    let (shown, notes) = run(&service, "nodes delete projects/web/workspaces/dev --force").await.done();
    assert_eq!(shown, "deleted organizations/default/projects/web/workspaces/dev\n");
    let below = "organizations/default/projects/web/workspaces/dev/endpoints/shell";
    has(
        &notes,
        &[
            "1 node below it went with it",
            below,
            "alters who gets in",
            "+ permitted from now on: every IPv6 address (::/0); most IPv4 addresses: 0.0.0.0/1",
        ],
    );
    service.stop().await;
}
