//! The command line over address groups: lists of any size are one change, and what had no effect is said.
//!
//! Invariant: a command that fails leaves the policy as it was.
//! Not here: what the server does with a stream of ranges (`patch_ranges`).

use std::process::Output;
use std::time::Duration;

use portcullis::policy::limits::Limits;
use portcullis::proto::v1::GetAddressGroupRequest;

use crate::clock::{Hand, until};
use crate::harness::{Service, command_line};
use crate::patch_ranges::{addresses, deny_group, exists, revision, sessions};

const ORGANIZATION: &str = "organizations/default";

/// Runs the program against a service, with a text for its standard input. Answers with its exit status, its output and
/// its errors.
pub(crate) async fn run(service: &Service, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let arguments = [arguments, &["--output", "table"]].concat();
    let Output { status, stdout, stderr } = command_line(service, &arguments, input).await;
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// More than 3 MiB of ranges, one a line, between two lines of their own.
fn long_list(first: &str, last: &str) -> String {
    let between: Vec<String> = addresses(300_000).collect();
    let text = format!("{first}\n{}\n{last}\n", between.join("\n"));
    assert!(text.len() > 3 << 20);
    text
}

async fn range_count(service: &Service, id: &str) -> i64 {
    let request = GetAddressGroupRequest { name: format!("{ORGANIZATION}/addressGroups/{id}") };
    service.firewall().get_address_group(request).await.unwrap().into_inner().range_count
}

/// The hazard: the gate counted for each part, so that two sessions were revoked where one was the most.
#[tokio::test]
async fn a_long_list_is_gated_as_one_change() {
    let service = Service::start().await;
    assert_eq!(run(&service, &["groups", "create", "block"], "").await.0, Some(0));
    deny_group(&service, "block").await;
    for ip in ["198.51.100.1", "203.0.113.1"] {
        service.check(ip, ORGANIZATION).await;
    }
    let before = revision(&service).await;
    let list = long_list("198.51.100.1", "203.0.113.1");
    let add = ["groups", "add", "block", "--file", "-", "--max-revocations"];
    let (status, _, told) = run(&service, &[&add[..], &["1"]].concat(), &list).await;
    assert_eq!(status, Some(3), "{told}");
    let replace = ["groups", "replace", "block", "--file", "-", "--max-revocations", "1"];
    let (status, _, told) = run(&service, &replace, &list).await;
    assert_eq!(status, Some(3), "{told}");
    assert_eq!((sessions(&service).await, revision(&service).await), ((2, 0), before));
    assert_eq!(range_count(&service, "block").await, 0);
    let (status, shown, told) = run(&service, &[&add[..], &["2"]].concat(), &list).await;
    assert_eq!(status, Some(0), "{told}");
    assert!(shown.contains("300002 ranges added"), "{shown}");
    assert_eq!(revision(&service).await, before + 1);
    until("both are revoked", async || (sessions(&service).await == (2, 2)).then_some(())).await;
    let (status, shown, told) = run(&service, &["groups", "remove", "block", "--file", "-"], &list).await;
    assert_eq!(status, Some(0), "{told}");
    assert!(shown.contains("300002 ranges removed"), "{shown}");
    assert_eq!(revision(&service).await, before + 2);
    service.stop().await;
}

/// The hazard: the empty group was armed, and its ranges were refused because it waited.
#[tokio::test]
async fn a_long_creation_waits_for_its_confirmation_as_one_change() {
    let hand = Hand::new();
    let service = Service::start_at(&hand).await;
    let list = long_list("198.51.100.1", "203.0.113.1");
    let create = |id: &'static str| ["groups", "create", id, "--file", "-", "--confirm-within", "10m"];
    let (status, _, told) = run(&service, &create("kept"), &list).await;
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(range_count(&service, "kept").await, 300_002);
    let number = revision(&service).await.to_string();
    let (status, _, told) = run(&service, &["revisions", "confirm", &number], "").await;
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(run(&service, &create("lost"), &list).await.0, Some(0));
    hand.advance(Duration::from_mins(10));
    until("the creation goes back", async || (!exists(&service, "lost").await).then_some(())).await;
    assert!(exists(&service, "kept").await);
    service.stop().await;
}

/// The hazard: 389,687 of 400,000 ranges stayed, and an empty group after a refused creation.
#[tokio::test]
async fn a_refusal_near_the_end_of_a_list_leaves_nothing_and_names_the_line() {
    let service = Service::start().await;
    let mut list: Vec<String> = addresses(400_000).collect();
    list[399_989] = "10.0.0.5/8".to_owned();
    let list = list.join("\n");
    assert_eq!(run(&service, &["groups", "create", "office", "--range", "192.0.2.1"], "").await.0, Some(0));
    let before = revision(&service).await;
    for arguments in [["groups", "create", "new"], ["groups", "add", "office"], ["groups", "remove", "office"]] {
        let (status, _, told) = run(&service, &[&arguments[..], &["--file", "-"]].concat(), &list).await;
        assert_eq!(status, Some(1), "{told}");
        assert!(told.contains("standard input, line 399990: `10.0.0.5/8` has host bits set"), "{told}");
        assert!(told.contains("1 field is invalid"), "{told}");
    }
    assert!(!exists(&service, "new").await);
    assert_eq!((revision(&service).await, range_count(&service, "office").await), (before, 1));
    service.stop().await;
}

#[tokio::test]
async fn what_had_no_effect_is_said() {
    let service = Service::start().await;
    let create = ["groups", "create", "office", "--range", "10.0.0.0/8", "--range", "10.1.0.0/16"];
    assert_eq!(run(&service, &create, "").await.0, Some(0));
    let (_, shown, _) =
        run(&service, &["groups", "add", "office", "--range", "10.1.0.0/16", "--range", "::1"], "").await;
    assert!(shown.contains("1 range added, 1 was in the group already"), "{shown}");
    assert!(shown.contains("organizations/default/addressGroups/office"), "{shown}");
    let remove =
        ["groups", "remove", "office", "--range", "10.1.0.0/16", "--range", "10.0.0.5", "--range", "192.0.2.1"];
    let validated: Vec<&str> = remove.iter().copied().chain(["--validate-only"]).collect();
    let (_, shown, _) = run(&service, &validated, "").await;
    assert!(shown.contains("1 range would be removed, 2 were not in the group"), "{shown}");
    let (status, shown, told) = run(&service, &remove, "").await;
    assert_eq!(status, Some(0), "{told}");
    for line in [
        "1 range removed, 2 were not in the group\n",
        "not in the group: 10.0.0.5, its addresses stay in the group by 10.0.0.0/8\n",
        "not in the group: 192.0.2.1\n",
        "still covered: 10.1.0.0/16, its addresses stay in the group by 10.0.0.0/8\n",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    // The list may be long; the table names the first.
    let many = addresses(1_000).collect::<Vec<_>>().join("\n");
    let (_, shown, _) = run(&service, &["groups", "remove", "office", "--file", "-"], &many).await;
    assert!(shown.contains("0 ranges removed, 1000 were not in the group"), "{shown}");
    assert!(shown.contains("not in the group: 980 more"), "{shown}");
    // A made-up id is shown.
    let (_, shown, _) = run(&service, &["groups", "create"], "").await;
    assert!(shown.contains("organizations/default/addressGroups/group-"), "{shown}");
    service.stop().await;
}

#[tokio::test]
async fn a_preview_takes_what_fits_one_message_and_says_so_where_it_does_not() {
    let service = Service::start().await;
    assert_eq!(run(&service, &["groups", "create", "block"], "").await.0, Some(0));
    deny_group(&service, "block").await;
    let before = revision(&service).await;
    let list = long_list("198.51.100.1", "203.0.113.1");
    for command in ["add", "replace"] {
        let preview = ["groups", command, "block", "--file", "-", "--preview"];
        let (status, shown, told) = run(&service, &preview, &list).await;
        assert_eq!(status, Some(0), "{told}");
        assert!(shown.contains("- would be denied"), "{shown}");
    }
    let (status, shown, told) = run(&service, &["groups", "create", "--range", "x", "--preview"], "").await;
    assert_eq!(status, Some(1), "{shown}");
    assert!(told.contains("--range: `x`"), "{told}");
    let addresses = (0..1_000_000).map(|number| format!("2001:db8:aaaa:bbbb::{number:x}"));
    let too_long = addresses.collect::<Vec<_>>().join("\n");
    let (status, _, told) = run(&service, &["groups", "add", "block", "--file", "-", "--preview"], &too_long).await;
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("a preview takes ranges of 16 MiB at most"), "{told}");
    assert_eq!(revision(&service).await, before);
    assert_eq!(Limits::default().ranges_per_group_max, 1_000_000);
    service.stop().await;
}
