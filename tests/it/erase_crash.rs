//! Erasures that a power cut or a failing disk interrupts, at each operation of the disk.
//!
//! Invariant: what was recorded before the ERASED record is erased once the mark is gone, and nothing else is: neither
//! another user nor what the same user does later, not even while the erasure is still being finished.
//! Not here: the real binary (`erase_kill`), erasures beside load (`erase_race`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{Content, ErasedUnit, Record, RecordType, Subject};
use portcullis::engine::{Engine, Options};
use portcullis::policy::rule::ConnectionType;
use portcullis::store::disk::Disk;
use portcullis::store::folder::Folder;
use portcullis::store::sealed::{SealedFiles, StoredOpening};
use tempfile::TempDir;

use crate::audit_engine::{DEFAULT, check, erasure, key, open_on, settle, small_units};
use crate::audit_erase::assert_closes;
use crate::campaign::rounds;
use crate::clock::until;
use crate::store_disk::{Fault, SimulatedDisk, Survival};

const PERSON: &str = "ada@example.com";
const OTHER: &str = "bob@example.com";

/// Where the person comes from before the erasure only. Its octets are looked for in the files.
const ONLY_BEFORE: &str = "2001:db8:1234:5678:9abc:def0:1357:9bdf";
const OCTETS: [u8; 16] = 0x2001_0db8_1234_5678_9abc_def0_1357_9bdf_u128.to_be_bytes();

/// Operations of the disk from the request to the end of an erasure, and some more.
const OPERATIONS: usize = 60;

/// A simulated disk with the log and the sessions, and a directory of the real one with the policy, for itself.
struct Site {
    disk: SimulatedDisk,
    data_dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        // As open_on wants it: a log that no policy was made for yet.
        std::fs::create_dir(data_dir.path().join("audit")).unwrap();
        Self { disk: SimulatedDisk::default(), data_dir }
    }

    fn start(&self) -> Arc<Engine> {
        self.start_with(small_units())
    }

    fn start_with(&self, options: Options) -> Arc<Engine> {
        self.disk.allow_room();
        Arc::new(open_on(Arc::new(self.disk.clone()), self.data_dir.path(), key(1), options))
    }

    fn units(&self) -> SealedFiles {
        SealedFiles::new(Folder::new(Arc::new(self.disk.clone()), self.data_dir.path().join("audit")))
    }

    fn is_marked(&self) -> bool {
        self.disk.list(&self.data_dir.path().join("audit")).unwrap().iter().any(|name| name == "erasing")
    }
}

/// The sequences of the records that a filter by email finds.
fn records_of(engine: &Engine, email: &str) -> Vec<u64> {
    let filter = RecordFilter { email: Some(email.to_owned()), ..RecordFilter::default() };
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = engine.audit().list(&filter, before, 1_000).unwrap();
        found.extend(page.records.into_iter().map(|record| record.sequence));
        match page.next_before {
            Some(next) => before = Some(next),
            None => return found,
        }
    }
}

/// The records of erasures, newest first.
fn erasures(engine: &Engine) -> Vec<Record> {
    let filter = RecordFilter { types: vec![RecordType::Erased], ..RecordFilter::default() };
    engine.audit().list(&filter, None, 100).unwrap().records
}

/// The first record of an erasure.
fn erased_at(engine: &Engine) -> Option<u64> {
    erasures(engine).last().map(|record| record.sequence)
}

/// The openings that the records of erasures list, as units and slots.
fn listed(engine: &Engine) -> Vec<(u64, u32)> {
    let of_unit = |unit: ErasedUnit| unit.slots.into_iter().map(move |slot| (unit.first_sequence, slot));
    let of_record = |record: Record| match record.entry.content {
        Content::Erased(erased) => erased.units.into_iter().flat_map(of_unit).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    erasures(engine).into_iter().flat_map(of_record).collect()
}

/// A person and another with a sealed unit, records in the tail, active sessions and a snapshot of these.
async fn prepared() -> Site {
    let site = Site::new();
    let engine = site.start();
    let mut number = 0;
    while site.units().list().unwrap().is_empty() {
        assert!(number < 100_000, "no unit is sealed");
        let (email, ip) = if number % 5 == 0 { (PERSON, ONLY_BEFORE) } else { (OTHER, "192.0.2.2") };
        check(&engine, email, ip, ConnectionType::Preview, DEFAULT).await.unwrap();
        number += 1;
        if number % 64 == 0 {
            settle(&engine).await;
        }
    }
    for (email, ip) in [(PERSON, ONLY_BEFORE), (PERSON, "192.0.2.1"), (OTHER, "192.0.2.2")] {
        for connection_type in [ConnectionType::Shell, ConnectionType::Preview] {
            check(&engine, email, ip, connection_type, DEFAULT).await.unwrap();
        }
    }
    settle(&engine).await;
    engine.close();
    drop(engine);
    site
}

/// Asserts that all before `first` is erased, and that `later`, the sequences of a new person's records, are found.
fn assert_erased(site: &Site, engine: &Engine, first: u64, later: &[u64], case: &str) {
    assert_eq!(records_of(engine, PERSON), later, "{case}");
    let sessions = engine.sessions().list(None, &|_, _| true, None, usize::MAX);
    let of = |email: &str| {
        let is_of = |subject: &Subject| matches!(subject, Subject::Person(person) if &*person.email == email);
        sessions.iter().filter(|session| is_of(&session.subject)).count()
    };
    // A preview and a shell of the other; of the person only what was opened later.
    assert_eq!((of(OTHER), of(PERSON)), (2, later.len()), "{case}");
    assert_eq!(sessions.len(), 6 + later.len(), "{case}: the sessions of the erased person stay open");
    assert!(!site.disk.holds(&OCTETS), "{case}");
    for unit in site.units().list().unwrap() {
        let openings = site.units().openings(unit).unwrap();
        for slot in 0..u32::try_from(openings.len()).unwrap() {
            if let StoredOpening::Present { email, .. } = openings.get(slot).unwrap().unwrap() {
                assert!(email != PERSON || unit > first, "{case}");
            }
        }
    }
    let listed = listed(engine);
    assert_eq!(listed.iter().collect::<HashSet<_>>().len(), listed.len(), "{case}: an opening is listed twice");
    assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, [], "{case}");
}

/// Has somebody erased on a disk that fails at an operation; then the service ends.
async fn interrupted(site: &Site, at: usize, fault: Fault) {
    interrupted_on(site, site.start(), at, fault).await;
}

async fn interrupted_on(site: &Site, engine: Arc<Engine>, at: usize, fault: Fault) {
    site.disk.fail_at(site.disk.operations() + at, fault);
    let erasing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { drop(engine.erase_user(erasure(PERSON, "somebody")).await) }
    });
    until("the power is cut, or the erasure is over", async || {
        (site.disk.is_off() || erasing.is_finished()).then_some(())
    })
    .await;
    assert_closes(&engine).await;
    erasing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_step_leaves_an_erasure_that_the_next_start_finishes() {
    let every = rounds(5, 1);
    let (mut begun, mut unfinished) = (0, 0);
    for at in (0..OPERATIONS).step_by(every) {
        let survival = Survival::ALL[at % 3];
        let case = format!("cut at {at}, {survival:?}");
        let site = prepared().await;
        interrupted(&site, at, Fault::PowerCut).await;
        site.disk.power_cycle(survival);
        let (was_marked, engine) = (site.is_marked(), site.start());
        let others = records_of(&engine, OTHER).len();
        let recorded = erased_at(&engine);
        begun += usize::from(recorded.is_some());
        unfinished += usize::from(was_marked && recorded.is_some());
        // Somebody comes back while the erasure is still being finished.
        let mut later = Vec::new();
        if recorded.is_some() {
            check(&engine, PERSON, "192.0.2.1", ConnectionType::Preview, DEFAULT).await.unwrap();
            later.push(settle(&engine).await);
        }
        until("the erasure is finished", async || (!site.is_marked()).then_some(())).await;
        let first = if let Some(first) = erased_at(&engine) {
            first
        } else {
            // Nothing of it happened.
            assert!(records_of(&engine, PERSON).len() > 4, "{case}");
            engine.erase_user(erasure(PERSON, "somebody")).await.unwrap().sequence
        };
        assert_eq!(records_of(&engine, OTHER).len(), others, "{case}");
        assert_erased(&site, &engine, first, &later, &case);
        engine.close();
        drop(engine);
        // The next start finds the same.
        let engine = site.start();
        assert_erased(&site, &engine, first, &later, &case);
        engine.close();
    }
    assert!(begun > 1 && unfinished > 1, "{begun} erasures were on record, {unfinished} were left to the next start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_any_step_is_told_and_the_erasure_is_finished_without_a_restart() {
    for at in (0..OPERATIONS).step_by(rounds(11, 1)) {
        for fault in rounds(&Fault::ERRORS[at % 3..=at % 3], &Fault::ERRORS[..]) {
            let case = format!("{fault:?} at {at}");
            let site = prepared().await;
            let engine = site.start();
            site.disk.fail_at(site.disk.operations() + at, *fault);
            let erased = tokio::time::timeout(Duration::from_secs(20), engine.erase_user(erasure(PERSON, "somebody")));
            let erased = erased.await.expect("it is answered");
            until("nothing is left to do", async || (!site.is_marked()).then_some(())).await;
            if erased.is_err() && erased_at(&engine).is_none() {
                engine.erase_user(erasure(PERSON, "somebody")).await.unwrap();
            }
            let first = erased_at(&engine).unwrap();
            until("the sessions are saved", async || (!site.disk.holds(&OCTETS)).then_some(())).await;
            assert_erased(&site, &engine, first, &[], &case);
            engine.close();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_after_a_crash_is_a_new_person_whom_filters_find() {
    // The power goes at each of the operations until the mark goes: at some of them the record is durable, and the
    // journal still holds the opening that the open unit would use again.
    let mut reused = 0;
    for at in (5..25).step_by(rounds(2, 1)) {
        let site = prepared().await;
        interrupted(&site, at, Fault::PowerCut).await;
        site.disk.power_cycle(Survival::Synced);
        let was_held = site.disk.holds(&OCTETS);
        let engine = site.start();
        if erased_at(&engine).is_none() {
            assert_closes(&engine).await;
            continue;
        }
        reused += usize::from(was_held);
        // Before anything was redacted: the opening of the same user and address is in the unit.
        check(&engine, PERSON, "192.0.2.1", ConnectionType::Shell, DEFAULT).await.unwrap();
        let sequence = settle(&engine).await;
        until("the erasure is finished", async || (!site.is_marked()).then_some(())).await;
        assert!(records_of(&engine, PERSON).contains(&sequence), "cut at {at}: the later record has no user");
        let record = engine.audit().read(sequence, 1).unwrap().remove(0);
        assert!(matches!(&record.subject, Subject::Person(person) if &*person.email == PERSON), "cut at {at}");
        assert_closes(&engine).await;
    }
    assert!(reused > 0, "at no cut the record was durable and the journal still unchanged");
}

/// More than one record of an erasure lists.
const MANY: usize = 4_100;

/// The hazard: the open unit numbers somebody's openings again that no durable record of the erasure lists yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_between_two_records_of_an_erasure_is_a_new_person() {
    let mut open_unit = small_units();
    open_unit.audit.unit_age_max = Duration::from_hours(1);
    open_unit.audit.checkpoint_interval = Duration::from_hours(1);
    let address = |number: usize| format!("10.0.{}.{}", number / 250, number % 250);
    let mut site = Site::new();
    let engine = site.start_with(open_unit.clone());
    for number in 0..MANY {
        check(&engine, PERSON, &address(number), ConnectionType::Preview, DEFAULT).await.unwrap();
    }
    settle(&engine).await;
    engine.close();
    drop(engine);
    let mut between = 0;
    // The disk may take both records at once: then it is tried again.
    for turn in 0..OPERATIONS {
        let at = turn % (OPERATIONS / 3);
        if at == 0 && between > 0 {
            break;
        }
        let prepared = site.disk.crash(None);
        site.disk = prepared.crash(None);
        let (engine, disk) = (site.start_with(open_unit.clone()), site.disk.clone());
        interrupted_on(&site, engine, at, Fault::PowerCut).await;
        disk.power_cycle(Survival::Synced);
        let engine = site.start_with(open_unit.clone());
        let was_listed = listed(&engine).len();
        if (1..MANY).contains(&was_listed) {
            between += 1;
            let mut later = Vec::new();
            for number in [0, MANY - 1] {
                check(&engine, PERSON, &address(number), ConnectionType::Shell, DEFAULT).await.unwrap();
                later.insert(0, settle(&engine).await);
            }
            until("the erasure is finished", async || (!site.is_marked()).then_some(())).await;
            assert_eq!(records_of(&engine, PERSON), later, "cut at {at}");
            let listed = listed(&engine);
            assert_eq!(listed.iter().collect::<HashSet<_>>().len(), listed.len(), "cut at {at}");
            assert_eq!(listed.len(), MANY, "cut at {at}");
        }
        assert_closes(&engine).await;
        drop(engine);
        site.disk = prepared;
        site.disk.kill();
    }
    assert!(between > 0, "no cut came between the two records");
}
