//! Previews through the command line: what would be is told with "would", the most important first, and nothing is left
//! out without a count.
//!
//! Invariant: a preview and the change that follows name the same objects and the same settings.
//! Not here: that a preview is exact (`impact`, `preview_api`).

use portcullis::proto::v1::Action;

use crate::cli_edit::run;
use crate::harness::{Service, command_line};

/// The positions of parts of a text, which must all be there.
#[track_caller]
fn order(text: &str, parts: &[&str]) {
    let at: Vec<usize> =
        parts.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("`{part}` is missing in:\n{text}"))).collect();
    assert!(at.is_sorted(), "{parts:?} are at {at:?} in:\n{text}");
}

/// The hazard: somebody reads "is created" and believes that it was.
#[tokio::test]
async fn a_preview_says_would_wherever_something_was_not_done() {
    let service = Service::start().await;
    run(&service, "rules create --id office --action allow --range 203.0.113.0/24").await.done();
    run(&service, "rules create --id rest --action deny --range any").await.done();
    run(&service, "groups create lab --range 192.0.2.0/24").await.done();
    run(&service, "nodes create projects/web --access allow-all").await.done();
    run(&service, "check --ip 203.0.113.9 --type shell --endpoint projects/web --user ada@example.com").await.done();
    for change in [
        "rules create --id lab --action allow --group lab",
        "rules create --id early --action deny --range 203.0.113.0/28 --position 1",
        "rules update office --range 203.0.113.0/25",
        "rules update rest --disabled",
        "rules move rest 1",
        "rules reorder rest office",
        "rules delete rest",
        "nodes create projects/ops",
        "nodes update projects/web --access allow-list --range 203.0.113.7",
        "nodes update default --gates-max-revocations 0",
        "nodes delete projects/web",
    ] {
        let (shown, _) = run(&service, &format!("{change} --preview")).await.done();
        assert!(shown.contains("would "), "{change}: {shown}");
        for done in [
            "is created",
            "is deleted",
            "are altered",
            "is altered",
            "is revoked",
            "are revoked",
            "deleted ",
            "created ",
            "updated ",
        ] {
            assert!(!shown.contains(done), "{change}: `{done}` in {shown}");
        }
        let lines = shown.lines().filter(|line| line.starts_with("  + ") || line.starts_with("  - "));
        for line in lines {
            assert!(line.contains(" would be ") && line.contains(" from now on: "), "{line}");
        }
    }
    let (listed, _) = run(&service, "rules list").await.done();
    assert!(listed.contains("203.0.113.0/24") && !listed.contains("early"), "{listed}");
    service.stop().await;
}

/// The hazard: all of IPv6 opens, below eight ranges and "and 1 more".
#[tokio::test]
async fn a_whole_family_comes_before_single_ranges_and_untidiness_comes_last() {
    let service = Service::start().await;
    for block in 0..12 {
        let create = format!("rules create --id allow-{block} --action allow --range 10.{}.0.0/16", block * 2);
        run(&service, &create).await.done();
    }
    run(&service, "rules create --id v6 --action deny --range ::/0").await.done();
    run(&service, "rules create --id office --action deny --range 192.0.2.0/24 --position 1").await.done();
    run(&service, "rules create --id lab --action allow --range 10.0.5.0/24").await.done();
    run(&service, "rules create --id rest --action deny --range any").await.done();
    run(&service, "nodes create projects/web --access allow-list --range 10.0.0.0/8").await.done();
    run(&service, "check --ip 192.0.2.9 --type preview --endpoint default").await;
    let (shown, _) = run(&service, "rules update rest --range 0.0.0.0/0 --preview").await.done();
    order(
        &shown,
        &["would update organizations/default/rules/rest: source any -> 0.0.0.0/0", "nobody would gain or lose"],
    );

    // The gate makes a refusal, which comes before everything else.
    run(&service, "nodes update default --gates-refuse-open-to-internet").await.done();
    run(&service, "rules delete rest").await.done();
    let preview = run(&service, "rules delete v6 --preview").await;
    assert_eq!(preview.status, 3, "{preview:?}");
    order(
        &preview.shown,
        &[
            "would be refused: open-to-internet",
            "would delete organizations/default/rules/v6",
            "organizations/default (shell, preview)",
            "+ would be permitted from now on: every IPv6 address (::/0)",
            "of 1 connection that was checked since ",
            "problems that would",
        ],
    );
    service.stop().await;
}

/// The hazard: a rule is replaced by one without its description, types and expire time, and nobody is told.
#[tokio::test]
async fn every_setting_that_an_update_loses_is_named() {
    let service = Service::start().await;
    run(&service, "rules create --id guest --action allow --range 192.0.2.1 --type shell --expire-time 2099-01-01T00:00:00Z --description guest").await.done();
    run(&service, "rules create --id gone --action deny --range 192.0.2.2").await.done();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, "- {id: guest, action: allow, range: 192.0.2.1}\n").unwrap();
    let replace = format!("rules replace --file {}", file.display());
    let lost = "organizations/default/rules/guest: types shell -> all, expires 2099-01-01T00:00:00Z -> never, description \
                \"guest\" -> \"\"";
    let (shown, _) = run(&service, &format!("{replace} --preview")).await.done();
    order(&shown, &[&format!("would update {lost}")]);
    assert!(shown.contains("would delete organizations/default/rules/gone"), "{shown}");
    let (_, notes) = run(&service, &replace).await.done();
    assert!(notes.contains(&format!("note: updated {lost}")), "{notes}");
    assert!(notes.contains("note: deleted organizations/default/rules/gone: deny 192.0.2.2"), "{notes}");
    let (shown, _) =
        run(&service, "nodes update default --access allow-list --range 192.0.2.0/24 --preview").await.done();
    order(
        &shown,
        &["organizations/default: access allow-all -> allow-list, + entry 192.0.2.0/24", "most IPv4 addresses"],
    );
    service.stop().await;
}

/// The hazard: an empty place is taken for "nothing was compared".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_says_where_nobody_gains_or_loses_access() {
    let service = Service::start().await;
    service.add_rule("office", Action::Allow, "203.0.113.0/24").await;
    let update = ["rules", "update", "office", "--description", "the office"];
    assert!(command_line(&service, &update, "").await.status.success());
    let compare = ["revisions", "compare", "2", "3", "--output", "table"];
    let compared = command_line(&service, &compare, "").await;
    let text = String::from_utf8(compared.stdout).unwrap();
    assert!(text.contains("description") && text.ends_with("nobody gains or loses access from now on\n"), "{text}");
    service.stop().await;
}
