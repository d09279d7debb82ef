//! What was ever stored is read for ever: bytes written by earlier versions decode to what they meant.
//!
//! Invariant: golden files are added, never altered; a change of the format that breaks one breaks a user's data.
//! Not here: damaged bytes (`store_journal_files`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::policy::change::{Change, Delta, Effect, GroupContent};
use portcullis::policy::decision::Decision;
use portcullis::policy::gates::Gates;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, Node};
use portcullis::policy::policy_test::PolicyTest;
use portcullis::policy::ranges::RangeList;
use portcullis::policy::rule::{Action, ConnectionType, Rule, Source};
use portcullis::policy::state::PolicyState;
use portcullis::policy::time::Timestamp;
use portcullis::store::codec::{PolicySnapshot, decode_change, decode_snapshot, encode_change, encode_snapshot};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::snapshots::FileSnapshots;
use portcullis::store::{Log, Snapshots};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn key(text: &str) -> NodeKey {
    NodeKey::of(&NodePath::parse(&format!("organizations/o/{text}")).unwrap()).unwrap()
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 123_456_789).unwrap()
}

fn ranges(texts: &[&str]) -> RangeList {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn rule(name: &str, source: Source, changed_at: u64) -> Rule {
    Rule {
        id: id(name),
        action: Action::Deny,
        source,
        connection_types: [ConnectionType::Preview].into_iter().collect(),
        description: "büro".into(),
        disabled: true,
        expire_time: Some(time(4_000_000_000)),
        create_time: time(1_700_000_000),
        update_time: time(1_700_000_001),
        expired: false,
        changed_at,
    }
}

fn node(access: Access, changed_at: u64) -> Node {
    Node {
        display_name: "Web".into(),
        require_projects: true,
        access,
        gates: Arc::default(),
        create_time: time(1_700_000_000),
        update_time: time(1_700_000_002),
        changed_at,
    }
}

fn list() -> Access {
    let entry = |source| AccessEntry { source, description: "entry".into() };
    Access::AllowList(Arc::new([
        entry(Source::Range("203.0.113.0/24".parse().unwrap())),
        entry(Source::Range("any".parse().unwrap())),
        entry(Source::Group(id("offices"))),
    ]))
}

/// One change with every kind of delta, and one of every other effect. They can be applied one after the other.
fn samples() -> Vec<Change> {
    let change =
        |effect| Change { actor: "ada".into(), comment: "why".into(), ..Change::new(time(1_700_000_003), effect) };
    let group = |content| Delta::SetGroupContent { id: id("offices"), content };
    let whole = ranges(&["any", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
    let patch = GroupContent::Patch { added: ranges(&["198.51.100.0/24"]), removed: ranges(&["192.0.2.7", "::1"]) };
    let deltas = vec![
        Delta::SetOrganization { node: node(Access::AllowAll, 2) },
        Delta::SetGroup { id: id("offices"), description: "all offices".into() },
        group(GroupContent::Whole(whole)),
        group(patch),
        Delta::SetGroup { id: id("gone"), description: "".into() },
        Delta::RemoveGroup { id: id("gone") },
        Delta::InsertRule { index: 0, rule: rule("first", Source::Group(id("offices")), 2) },
        Delta::InsertRule { index: 1, rule: rule("second", Source::Range("2001:db8::7".parse().unwrap()), 2) },
        Delta::SetRule { rule: Rule { action: Action::Allow, ..rule("second", Source::Group(id("offices")), 2) } },
        Delta::MoveRule { id: id("second"), index: 0 },
        Delta::OrderRules { order: vec![1, 0] },
        Delta::RemoveRule { id: id("second") },
        Delta::ReplaceRules { rules: vec![rule("only", Source::Range("any".parse().unwrap()), 2)] },
        Delta::SetNode { key: key("projects/web"), node: node(list(), 2) },
        Delta::SetNode { key: key("projects/web/workspaces/main"), node: node(Access::Inherit, 2) },
        Delta::SetNode { key: key("projects/web/workspaces/main/endpoints/shell"), node: node(list(), 2) },
        Delta::RemoveNode { key: key("projects/web/workspaces/main") },
    ];
    vec![
        change(Effect::Cluster { revision: 1, node: node(Access::AllowAll, 1) }),
        change(Effect::CreateOrganization { id: id("o"), revision: 1, node: node(Access::AllowAll, 1) }),
        change(Effect::Organization { id: id("o"), revision: 2, deltas }),
        change(Effect::CreateOrganization { id: id("left"), revision: 1, node: node(list(), 1) }),
        change(Effect::DeleteOrganization { id: id("left"), revision: 2 }),
    ]
}

/// What changes can hold besides since they were first written; they follow the others.
fn later_samples() -> Vec<Change> {
    let gates = Gates {
        guard: vec!["203.0.113.7".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        max_revocations: Some(0),
        refuse_open_to_internet: true,
    };
    let guarded = Node { gates: Arc::new(gates), ..node(Access::AllowAll, 3) };
    let test = |name: &str, expected| PolicyTest {
        id: id(name),
        address: "2001:db8::7".parse().unwrap(),
        connection_type: ConnectionType::Preview,
        endpoint: "organizations/o/projects/web".into(),
        expected,
        description: "must stay".into(),
        end_time: None,
    };
    let tests = vec![test("one", Decision::Allow), test("two", Decision::Deny)];
    let inside = |revision, deltas| Effect::Organization { id: id("o"), revision, deltas };
    let confirmed = Change::new(time(1_700_000_005), inside(4, vec![Delta::Confirm { revision: 3 }]));
    let waiting = inside(3, vec![Delta::SetOrganization { node: guarded }, Delta::SetTests { tests }]);
    let waiting = Change {
        confirm_until: Some(time(1_700_000_600)),
        overridden_tests: vec![id("one")],
        ..Change::new(time(1_700_000_004), waiting)
    };
    let again = inside(6, vec![Delta::SetOrganization { node: node(Access::AllowAll, 6) }]);
    let again = Change { confirm_until: Some(time(1_700_000_700)), ..Change::new(time(1_700_000_006), again) };
    let tried = vec![Delta::SetTests { tests: Vec::new() }, Delta::RemoveRule { id: id("only") }];
    let tried = Change::new(time(1_700_000_007), inside(5, vec![Delta::SetShadowPolicy { deltas: tried }]));
    let dropped = Change::new(time(1_700_000_008), inside(7, vec![Delta::RemoveShadowPolicy]));
    vec![waiting, confirmed, tried, again, dropped]
}

/// Changes with rules that have expired; they follow each other.
fn expiry_samples() -> Vec<Change> {
    let source = Source::Range("192.0.2.0/24".parse().unwrap());
    let expiring = Rule { expire_time: Some(time(1_700_000_100)), ..rule("short", source, 2) };
    let expired = Rule { id: id("past"), expired: true, ..expiring.clone() };
    let inside = |revision, deltas| Effect::Organization { id: id("o"), revision, deltas };
    let rules = vec![Delta::InsertRule { index: 0, rule: expired }, Delta::InsertRule { index: 1, rule: expiring }];
    let mark = inside(3, vec![Delta::ExpireRules { indexes: vec![1] }]);
    vec![
        Change::new(time(1_700_000_003), Effect::Cluster { revision: 1, node: node(Access::AllowAll, 1) }),
        Change::new(
            time(1_700_000_004),
            Effect::CreateOrganization { id: id("o"), revision: 1, node: node(Access::AllowAll, 1) },
        ),
        Change::new(time(1_700_000_005), inside(2, rules)),
        Change { actor: "expiry".into(), ..Change::new(time(1_700_000_100), mark) },
    ]
}

#[test]
fn the_journal_of_version_1_with_expired_rules_reads_as_what_was_written() {
    let copied = tempfile::tempdir().unwrap();
    copy(&golden("policy-v1-expiry"), copied.path());
    let journal = open_journal(copied.path());
    let records: Vec<Change> =
        journal.read_from(1).unwrap().map(|record| decode_change(&record.unwrap().1).unwrap()).collect();
    assert_eq!(records, expiry_samples());
    let mut state = PolicyState::empty();
    for change in &records {
        state.apply(change).unwrap();
    }
    assert!(state.organizations["o"].rules.iter().all(|rule| rule.expired));
    assert_eq!(decode_snapshot(&encode_snapshot(&state, None)).unwrap().state, state);
}

#[test]
#[ignore = "writes golden files; run it once, by name, when there is something new to write"]
fn write_the_golden_files_with_expired_rules() {
    let directory = golden("policy-v1-expiry");
    std::fs::create_dir_all(&directory).unwrap();
    let records: Vec<Vec<u8>> = expiry_samples().iter().map(encode_change).collect();
    open_journal(&directory).append(&records).unwrap();
}

fn state() -> PolicyState {
    let mut state = PolicyState::empty();
    for change in samples() {
        state.apply(&change).unwrap();
    }
    state
}

fn open_journal(directory: &Path) -> FileJournal {
    FileJournal::open(Arc::new(RealDisk), directory, JournalOptions::default()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_change_of_every_kind_survives_encoding() {
    for change in samples().into_iter().chain(later_samples()) {
        assert_eq!(decode_change(&encode_change(&change)).unwrap(), change);
    }
}

#[test]
fn a_state_with_every_kind_of_object_survives_encoding() {
    let mut state = state();
    assert_eq!(decode_snapshot(&encode_snapshot(&state, None)).unwrap().state, state);
    for (change, waits) in later_samples().into_iter().zip([true, false, false, true, false]) {
        state.apply(&change).unwrap();
        assert_eq!(state.organizations["o"].pending.is_some(), waits);
        assert_eq!(decode_snapshot(&encode_snapshot(&state, None)).unwrap().state, state);
    }
}

#[test]
fn the_journal_of_version_1_reads_as_what_was_written() {
    let copied = tempfile::tempdir().unwrap();
    copy(&golden("policy-v1"), copied.path());
    let journal = open_journal(copied.path());
    let records: Vec<Change> =
        journal.read_from(1).unwrap().map(|record| decode_change(&record.unwrap().1).unwrap()).collect();
    assert_eq!(records, samples());
}

#[test]
fn the_snapshot_of_version_1_reads_as_what_was_written() {
    let copied = tempfile::tempdir().unwrap();
    copy(&golden("policy-v1"), copied.path());
    let snapshots = FileSnapshots::new(Arc::new(RealDisk), copied.path());
    let (sequence, bytes) = snapshots.newest_valid().unwrap().unwrap();
    assert_eq!(sequence, samples().len() as u64);
    let snapshot = decode_snapshot(&bytes).unwrap();
    assert_eq!((snapshot.state, snapshot.last), (state(), None));
}

/// The journal with all changes, and a snapshot before the last of them, in which a candidate is tried and a change
/// waits.
#[test]
fn the_journal_and_the_snapshot_of_version_1_with_candidates_read_as_what_was_written() {
    let copied = tempfile::tempdir().unwrap();
    copy(&golden("policy-v1-candidates"), copied.path());
    let journal = open_journal(copied.path());
    let records: Vec<Change> =
        journal.read_from(1).unwrap().map(|record| decode_change(&record.unwrap().1).unwrap()).collect();
    let all: Vec<Change> = samples().into_iter().chain(later_samples()).collect();
    assert_eq!(records, all);
    let (sequence, bytes) = FileSnapshots::new(Arc::new(RealDisk), copied.path()).newest_valid().unwrap().unwrap();
    assert_eq!(sequence, all.len() as u64 - 1);
    let snapshot = decode_snapshot(&bytes).unwrap().state;
    assert_eq!(snapshot, later_state());
    let organization = &snapshot.organizations["o"];
    assert!(organization.pending.is_some() && organization.shadow.is_some());
}

/// Since a snapshot says which change it is after.
#[test]
fn the_snapshot_of_version_1_with_its_change_reads_as_what_was_written() {
    let bytes = std::fs::read(golden("policy-snapshot-v1-change.bin")).unwrap();
    let (state, last) = (later_state(), later_samples()[3].identity());
    assert_eq!(decode_snapshot(&bytes).unwrap(), PolicySnapshot { state: state.clone(), last: Some(last.clone()) });
    assert_eq!(encode_snapshot(&state, Some(&last)), bytes);
}

#[test]
#[ignore = "writes the golden file of the current version; run by hand when the format gets a new one"]
fn write_the_golden_snapshot_with_its_change() {
    let bytes = encode_snapshot(&later_state(), Some(&later_samples()[3].identity()));
    std::fs::write(golden("policy-snapshot-v1-change.bin"), bytes).unwrap();
}

/// After all changes but the last.
fn later_state() -> PolicyState {
    let mut state = state();
    for change in later_samples().iter().rev().skip(1).rev() {
        state.apply(change).unwrap();
    }
    state
}

#[test]
#[ignore = "writes golden files; run it once, by name, when there is something new to write"]
fn write_the_golden_files_with_candidates() {
    let directory = golden("policy-v1-candidates");
    std::fs::create_dir_all(&directory).unwrap();
    let records: Vec<Vec<u8>> = samples().iter().chain(&later_samples()).map(encode_change).collect();
    open_journal(&directory).append(&records).unwrap();
    let snapshots = FileSnapshots::new(Arc::new(RealDisk), &directory);
    snapshots.write(records.len() as u64 - 1, &encode_snapshot(&later_state(), None)).unwrap();
}

#[test]
#[ignore = "writes the golden files of a new format version; run it once, by name, when there is one"]
fn write_the_golden_files() {
    let directory = golden("policy-v1");
    std::fs::create_dir_all(&directory).unwrap();
    let records: Vec<Vec<u8>> = samples().iter().map(encode_change).collect();
    open_journal(&directory).append(&records).unwrap();
    let snapshots = FileSnapshots::new(Arc::new(RealDisk), &directory);
    snapshots.write(records.len() as u64, &encode_snapshot(&state(), None)).unwrap();
}
