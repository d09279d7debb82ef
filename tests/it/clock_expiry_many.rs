//! What expiry costs where very many rules have an expire time of their own, or very many organizations are due at once.
//!
//! Guards against: a pass for every moment, and a policy writer that does nothing else.
//! Not here: what is marked (`clock_expiry`).

use std::sync::Arc;
use std::time::Duration;

use portcullis::engine::Engine;
use portcullis::engine::change::{ChangeRequest, ChangeTarget};
use portcullis::policy::document::RuleSpec;
use portcullis::policy::name::Id;
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};

use crate::audit_engine::{change, key, open_with_policy, small_units};
use crate::campaign::rounds;
use crate::clock::{Hand, until};

fn open(directory: &std::path::Path, hand: &Hand) -> Engine {
    for part in ["audit", "sessions", "policy"] {
        std::fs::create_dir_all(directory.join(part)).unwrap();
    }
    let journal = FileJournal::open(Arc::new(RealDisk), directory.join("policy"), JournalOptions::default()).unwrap();
    let disk = Arc::new(RealDisk);
    open_with_policy(Box::new(journal), disk, directory, key(1), small_units(), hand.clock())
}

fn rules(count: u32, first: Timestamp, apart: Duration) -> Vec<RuleSpec> {
    let rule = |number: u32| {
        let range = format!("{}.{}.{}.0/24", 1 + number / 65_536, number / 256 % 256, number % 256);
        let patch = RulePatch {
            action: Some(Action::Deny),
            source: Some(Source::Range(range.parse().unwrap())),
            expire_time: Some(Some(first.after(apart * number))),
            ..RulePatch::default()
        };
        RuleSpec { index: number as usize, id: Some(Id::parse(&format!("r{number}")).unwrap()), patch }
    };
    (0..count).map(rule).collect()
}

fn default() -> Id {
    Id::parse("default").unwrap()
}

/// The revision, and how many rules are not marked.
fn state(engine: &Engine) -> (u64, usize) {
    let organization = engine.directory().organization("default").unwrap().view.organization.clone();
    (organization.revision, organization.rules.iter().filter(|rule| !rule.expired).count())
}

/// What the files of the policy journal hold.
fn bytes(directory: &std::path::Path) -> usize {
    let files = std::fs::read_dir(directory.join("policy")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "wal"));
    let written = |file: Vec<u8>| file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    files.map(|path| written(std::fs::read(path).unwrap())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are what the long form is run for")]
async fn a_hundred_thousand_moments_cost_a_few_passes_a_second() {
    let (directory, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let engine = open(directory.path(), &hand);
    let count = rounds(10_000_u32, 100_000);
    // A rule expires every tenth of a second.
    let apart = Duration::from_millis(100);
    let first = engine.clock().now().after(Duration::from_secs(10));
    let begun = tokio::time::Instant::now();
    change(&engine, Mutation::ReplaceRules { rules: rules(count, first, apart), etag: None }).await;
    println!("{count} rules are made in {:.2?}", begun.elapsed());
    let ((before, _), journal) = (state(&engine), bytes(directory.path()));
    hand.advance(Duration::from_secs(10));
    let begun = tokio::time::Instant::now();
    let (mut changes, mut slowest) = (0, Duration::ZERO);
    // Time passes ten times as fast as it does.
    let mut shown = Duration::ZERO;
    while begun.elapsed() < rounds(Duration::from_secs(4), Duration::from_secs(20)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let passed = begun.elapsed() * 10;
        hand.advance(passed.saturating_sub(shown));
        shown = passed;
        if changes * 20 < begun.elapsed().as_millis() / 10 {
            changes += 1;
            let patch = RulePatch { description: Some(format!("change {changes}").into()), ..RulePatch::default() };
            let last = Id::parse(&format!("r{}", count - 1)).unwrap();
            let mutation = Mutation::UpdateRule { id: last, etag: None, patch };
            let asked = tokio::time::Instant::now();
            let target = ChangeTarget::Organization { id: default(), mutation };
            engine.change(ChangeRequest::new(target)).await.unwrap();
            slowest = slowest.max(asked.elapsed());
        }
    }
    let took = begun.elapsed();
    let due = engine.clock().now();
    until("what has expired is marked", async || {
        let organization = engine.directory().organization("default").unwrap().view.organization.clone();
        let is_marked = organization.rules.iter().all(|rule| rule.expired == rule.has_expired(due));
        is_marked.then_some(())
    })
    .await;
    let (revision, left) = state(&engine);
    let passes = u128::from(revision - before) - changes;
    let written = bytes(directory.path()) - journal;
    let marked = count as usize - left;
    println!(
        "{marked} rules in {passes} passes within {took:.2?}, {written} bytes of journal with {changes} other changes, the \
         slowest of which took {slowest:.2?}"
    );
    assert!(marked > 300, "{marked}");
    assert!(passes <= took.as_millis() / 500 + 3, "{passes} passes within {took:?}");
    assert!(written < 20 * marked + 400 * usize::try_from(passes + changes).unwrap(), "{written} bytes");
    assert!(slowest < Duration::from_secs(10), "a change waited {slowest:?}");
    engine.close();
}
