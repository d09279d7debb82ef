//! What is removed from an address group or an allowlist, and by what its addresses stay in it.
//!
//! Invariant: ranges that cover a removed one together count as one that covers it, and narrower ones are named.
//! Not here: what a change of ranges or entries does otherwise (`patch_ranges`, `entries_api`).

use portcullis::policy::address::Range;
use portcullis::policy::intervals::Share;
use portcullis::policy::ranges::RangeList;
use portcullis::proto::v1::{CoveredSource, PatchRangesResponse, RangeToRemove};
use proptest::collection::vec;
use proptest::prelude::*;
use tonic::Code;
use tonic_types::StatusExt;

use crate::campaign::rounds;
use crate::cli_edit::run;
use crate::entries_api::{OFFICE, PROJECT, add, addition, entry, prepared, removal, remove};
use crate::harness::{Service, assert_error};
use crate::patch_ranges::{create, first, patch};
use crate::strategies::range_text;

async fn without(service: &Service, group: &str, ranges: &[&str]) -> PatchRangesResponse {
    patch(service, vec![first(group, &[], ranges)]).await.unwrap().into_inner()
}

fn by(range: &str, covering: &[&str], partly: bool) -> RangeToRemove {
    RangeToRemove {
        range: range.to_owned(),
        covered_by: String::new(),
        covering_ranges: covering.iter().map(|range| (*range).to_owned()).collect(),
        covering_count: i64::try_from(covering.len()).unwrap(),
        partly,
    }
}

#[tokio::test]
async fn ranges_that_cover_a_removed_one_together_are_named() {
    let service = Service::start().await;
    create(&service, "halves", &["10.0.0.0/25", "10.0.0.128/25"]).await;
    let answer = without(&service, "halves", &["10.0.0.0/24", "10.0.0.0/23", "192.0.2.0/24"]).await;
    let halves = ["10.0.0.0/25", "10.0.0.128/25"];
    let absent = [by("10.0.0.0/23", &halves, true), by("10.0.0.0/24", &halves, false), by("192.0.2.0/24", &[], false)];
    assert_eq!((answer.absent_count, answer.absent_ranges), (3, absent.to_vec()));

    create(&service, "all", &["any", "0.0.0.0/0", "::/0", "10.0.0.0/8"]).await;
    let answer = without(&service, "all", &["any"]).await;
    let covered = vec![by("any", &["0.0.0.0/0", "::/0"], false)];
    assert_eq!((answer.still_covered_count, answer.still_covered_ranges), (1, covered));
    let answer = without(&service, "all", &["::/0", "0.0.0.0/0"]).await;
    let covered = vec![by("0.0.0.0/0", &["10.0.0.0/8"], true)];
    assert_eq!((answer.removed_count, answer.still_covered_count, answer.still_covered_ranges), (2, 1, covered));

    // Narrower ones stay where a wider one goes; of many, the first are named and all counted.
    let narrow: Vec<String> = (0..12).map(|number| format!("10.0.{number}.0/24")).collect();
    let ranges: Vec<&str> = narrow.iter().map(String::as_str).chain(["10.0.0.0/8", "10.0.0.7"]).collect();
    create(&service, "many", &ranges).await;
    let answer = without(&service, "many", &["10.0.0.0/8"]).await;
    let [covered] = answer.still_covered_ranges.as_slice() else { panic!("{answer:?}") };
    assert_eq!((covered.covering_ranges.as_slice(), covered.covering_count), (&narrow[..10], 12));
    assert!(covered.partly && covered.covered_by.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn the_command_line_names_the_ranges_that_keep_addresses_in_a_group() {
    let service = Service::start().await;
    create(&service, "halves", &["10.0.0.0/25", "10.0.0.128/25"]).await;
    let (shown, _) = run(&service, "groups remove halves --range 10.0.0.0/24 --range 10.0.0.0/8").await.done();
    for line in [
        "not in the group: 10.0.0.0/24, its addresses stay in the group by 10.0.0.0/25, 10.0.0.128/25\n",
        "not in the group: 10.0.0.0/8, some of its addresses stay in the group by 10.0.0.0/25, 10.0.0.128/25\n",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    create(&service, "all", &["any", "0.0.0.0/0", "::/0"]).await;
    let (shown, _) = run(&service, "groups remove all --range any").await.done();
    assert!(shown.contains("still covered: any, its addresses stay in the group by 0.0.0.0/0, ::/0\n"), "{shown}");
    let narrow: Vec<String> = (0..12).map(|number| format!("--range 10.0.{number}.0/24")).collect();
    run(&service, &format!("groups create many --range 10.0.0.0/8 {}", narrow.join(" "))).await.done();
    let (shown, _) = run(&service, "groups remove many --range 10.0.0.0/8").await.done();
    let line = "still covered: 10.0.0.0/8, some of its addresses stay in the group by 10.0.0.0/24, ";
    assert!(shown.contains(line) && shown.contains("10.0.9.0/24 and 2 more\n"), "{shown}");
    service.stop().await;
}

#[tokio::test]
async fn entries_that_permit_a_removed_one_together_are_named() {
    let service = prepared().await;
    let new = ["any", "0.0.0.0/0", "::/0", "10.0.0.0/9", "10.128.0.0/9", OFFICE].map(|source| entry(source, ""));
    add(&service, addition(PROJECT, new.to_vec())).await.unwrap();
    let told = |covering: &[&str], partly| CoveredSource {
        covering_entries: covering.iter().map(|source| (*source).to_owned()).collect(),
        covering_count: i64::try_from(covering.len()).unwrap(),
        partly,
        ..CoveredSource::default()
    };
    let answer = remove(&service, removal(PROJECT, &["any"])).await.unwrap();
    let all = ["192.0.2.0/24", "0.0.0.0/0", "::/0", "10.0.0.0/9", "10.128.0.0/9", OFFICE];
    assert_eq!(answer.still_covered, [CoveredSource { range: "any".to_owned(), ..told(&all, false) }]);
    let answer = remove(&service, removal(PROJECT, &["0.0.0.0/0", "::/0", OFFICE])).await.unwrap();
    let halves = ["10.0.0.0/9", "10.128.0.0/9"];
    let whole = CoveredSource { address_group: OFFICE.to_owned(), ..told(&halves, false) };
    let part = ["192.0.2.0/24", "10.0.0.0/9", "10.128.0.0/9"];
    assert_eq!(answer.still_covered, [CoveredSource { range: "0.0.0.0/0".to_owned(), ..told(&part, true) }, whole]);

    // A source that is no entry: who permits all of it together, or a part.
    let absent = ["10.0.0.0/8", "10.0.0.0/7", "192.0.2.7", "192.0.0.0/16", "203.0.113.1", OFFICE];
    let refused = remove(&service, removal(PROJECT, &absent)).await;
    let status = assert_error(refused, Code::InvalidArgument, "INVALID_FIELD");
    let details = status.get_details_bad_request().unwrap().field_violations;
    let told: Vec<&str> = details.iter().map(|of| of.description.split_once("; ").unwrap().1).collect();
    assert_eq!(
        told,
        [
            "its entries `10.0.0.0/9`, `10.128.0.0/9` still permit it: remove those if they are meant",
            "its entries `10.0.0.0/9`, `10.128.0.0/9` still permit a part of it: remove those if they are meant",
            "its entry `192.0.2.0/24` still permits it: remove that one if it is meant",
            "its entry `192.0.2.0/24` still permits a part of it: remove that one if it is meant",
            "no other permits any of it: name the entries as they are",
            "its entries `10.0.0.0/9`, `10.128.0.0/9` still permit it: remove those if they are meant",
        ]
    );
    add(&service, addition(PROJECT, vec![entry("10.0.0.0/8", "")])).await.unwrap();
    let (shown, _) = run(&service, "nodes entries remove projects/web 10.0.0.0/8 10.0.0.0/9").await.done();
    assert!(shown.contains("still permitted in part: 10.0.0.0/8, by 10.128.0.0/9\n"), "{shown}");
    assert!(!shown.contains("permitted: 10.0.0.0/9"), "{shown}");
    service.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(300, 3_000), failure_persistence: None, ..ProptestConfig::default() })]

    /// The narrowest wider range, the widest ranges inside, and how much is left, against looking at all of them.
    #[test]
    fn what_covers_a_range_is_found(outer in vec(range_text(), 0..24), inner in vec(range_text(), 0..12)) {
        let parsed = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<Range>>();
        let (outer, inner) = (parsed(&outer), parsed(&inner));
        let size = |range: &Range| match range {
            Range::Any => 0,
            Range::V4(block) => 1 + block.prefix_length(),
            Range::V6(block) => 1 + block.prefix_length(),
        };
        let list: RangeList = outer.iter().copied().collect();
        let of = inner.iter().copied().collect::<RangeList>().without(&list);
        let set = list.to_set();
        for range in of.iter() {
            let wider = list.iter().filter(|wide| *wide != range && wide.covers(range)).max_by_key(size);
            prop_assert_eq!(list.wider(range), wider);
            if wider.is_some() {
                prop_assert_eq!(set.share_of(range), Share::Whole);
                continue;
            }
            let within: Vec<Range> = list.iter().filter(|narrow| range.covers(*narrow)).collect();
            let widest = |one: &Range| !within.iter().any(|other| other != one && other.covers(*one));
            let expected: Vec<Range> = within.iter().copied().filter(widest).collect();
            prop_assert_eq!(list.inside(range).collect::<Vec<_>>(), expected);
            let whole = RangeList::from_iter([range]).to_set();
            let share = match (within.is_empty(), whole.is_subset(&set)) {
                (true, _) => Share::Nothing,
                (false, true) => Share::Whole,
                (false, false) => Share::Part,
            };
            prop_assert_eq!(set.share_of(range), share);
        }
    }
}
