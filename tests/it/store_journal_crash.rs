//! The journal on a disk that fails, under a process that dies, in a machine that loses power, at every operation.
//!
//! What must hold: acknowledged records are all there, in order; beyond them at most one append whose outcome nobody
//! was told, whole; and nothing of a failed append once `recover` has returned, with room for frames to come and
//! without. A redaction leaves each record as it was or as it was made; one that is done leaves nothing of what it
//! overwrote in any file.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::{JournalError, Log, Redaction, Segments};
use proptest::prelude::*;

use crate::campaign::rounds;
use crate::store_disk::{Fault, SimulatedDisk, Survival};
use crate::store_journal::{read_all, small_segments};

/// What a run was told, and what it was not.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    /// Sequence and bytes of what was acknowledged.
    acknowledged: Vec<(u64, Vec<u8>)>,
    /// The one append of which it is open whether it happened.
    open: Vec<Vec<u8>>,
    /// Records that a redaction may have changed; it failed or was cut off.
    pub(crate) perhaps_redacted: BTreeSet<u64>,
}

/// What a redaction makes of a record.
fn redacted(record: &[u8]) -> Vec<u8> {
    vec![b'#'; record.len()]
}

impl Told {
    /// One append, and its recovery where it fails. Stops where the machine is off.
    pub(crate) fn append(&mut self, journal: &mut FileJournal, disk: &Setup, records: &[Vec<u8>]) {
        match journal.append(records) {
            Ok(first) => {
                assert_eq!(first, self.next());
                let numbered = (first..).zip(records.iter().cloned());
                self.acknowledged.extend(numbered);
            }
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                self.open = records.to_vec();
                Self::recover(journal, disk);
                if !disk.is_off() {
                    self.open.clear();
                }
            }
        }
        assert_eq!(journal.next_sequence(), self.next());
    }

    /// Makes a failed journal writable again, unless the machine is off.
    fn recover(journal: &mut FileJournal, disk: &Setup) {
        let refused = journal.append(&[b"refused".to_vec()]).unwrap_err();
        assert!(matches!(refused, JournalError::Failed { .. }), "{refused}");
        let refused = journal.redact(0, &mut |_, _| panic!("a failed journal is redacted")).unwrap_err();
        assert!(matches!(refused, JournalError::Failed { .. }), "{refused}");
        assert!(matches!(journal.roll(), Err(JournalError::Failed { .. })));
        // Several faults may follow one another; each attempt passes at least one.
        while !disk.is_off() && journal.recover().is_err() {}
    }

    /// Ends the segment, and recovers where that fails.
    pub(crate) fn roll(&self, journal: &mut FileJournal, disk: &Setup) {
        if let Err(error) = journal.roll() {
            assert!(error.is_transient(), "{error}");
            Self::recover(journal, disk);
        }
        assert_eq!(journal.next_sequence(), self.next());
    }

    /// Redacts the acknowledged records that `select` names, once.
    pub(crate) fn redact(
        &mut self,
        journal: &mut FileJournal,
        select: impl Fn(u64, &[u8]) -> bool,
    ) -> Result<u64, JournalError> {
        let mut selected = BTreeSet::new();
        let result = journal.redact(1, &mut |sequence, record| {
            let wanted = redacted(record);
            let changes = select(sequence, record) && *record != *wanted;
            if changes {
                selected.insert(sequence);
                record.copy_from_slice(&wanted);
            }
            changes
        });
        match &result {
            Ok(changed) => {
                assert_eq!(*changed, selected.len() as u64);
                for (sequence, record) in &mut self.acknowledged {
                    let again = self.perhaps_redacted.contains(sequence) && select(*sequence, record);
                    if selected.contains(sequence) || again {
                        *record = redacted(record);
                        self.perhaps_redacted.remove(sequence);
                    }
                }
            }
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                self.perhaps_redacted.extend(selected);
            }
        }
        result
    }

    /// Whether a record read is the one acknowledged.
    fn agrees(&self, acknowledged: &(u64, Vec<u8>), read: &(u64, Vec<u8>)) -> bool {
        let (sequence, record) = acknowledged;
        acknowledged == read || self.perhaps_redacted.contains(sequence) && (*sequence, redacted(record)) == *read
    }

    pub(crate) fn next(&self) -> u64 {
        self.acknowledged.len() as u64 + 1
    }

    /// Holds what a journal has against what was told.
    pub(crate) fn check(&self, journal: &FileJournal) {
        let read = read_all(journal);
        let known = self.acknowledged.len();
        let kept: Vec<_> =
            self.acknowledged.iter().filter(|(sequence, _)| *sequence >= journal.first_sequence()).collect();
        assert!(read.len() >= kept.len(), "acknowledged records are gone");
        for (acknowledged, read) in kept.into_iter().zip(&read) {
            assert!(self.agrees(acknowledged, read), "{read:?} was {acknowledged:?}");
        }
        let beyond: Vec<_> = read.into_iter().filter(|(sequence, _)| *sequence > known as u64).collect();
        if !beyond.is_empty() {
            let open: Vec<_> = (self.next()..).zip(self.open.iter().cloned()).collect();
            assert_eq!(beyond, open, "records came back that were refused");
        }
    }

    /// The same after a restart: what is there now counts.
    pub(crate) fn adopt(&mut self, journal: &FileJournal) {
        self.check(journal);
        let beyond = read_all(journal);
        let known = self.acknowledged.len() as u64;
        self.acknowledged.extend(beyond.into_iter().filter(|(sequence, _)| *sequence > known));
        self.open.clear();
    }
}

/// A disk, and how the journal on it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    disk: SimulatedDisk,
    options: JournalOptions,
}

impl std::ops::Deref for Setup {
    type Target = SimulatedDisk;

    fn deref(&self) -> &SimulatedDisk {
        &self.disk
    }
}

/// Without room for frames to come, and with room over some sectors; in both cases there are several segments.
pub(crate) fn kept() -> [JournalOptions; 2] {
    let with_room = JournalOptions { segment_bytes_max: 620, room_bytes: 450, ..JournalOptions::default() };
    [small_segments(), with_room]
}

/// With room over many sectors.
fn with_much_room() -> JournalOptions {
    JournalOptions { segment_bytes_max: 9_000, room_bytes: 4_000, ..JournalOptions::default() }
}

pub(crate) fn setup(options: &JournalOptions, faults: impl IntoIterator<Item = (usize, Fault)>) -> Setup {
    let disk = SimulatedDisk::with_faults(faults);
    if options.room_bytes > 0 {
        disk.allow_room();
    }
    Setup { disk, options: options.clone() }
}

pub(crate) fn open(disk: &Setup) -> Result<FileJournal, JournalError> {
    FileJournal::open(Arc::new(disk.disk.clone()), "/j", disk.options.clone())
}

/// Appends of different sizes over a few segments.
fn script(disk: &Setup) -> Told {
    let mut told = Told::default();
    let Ok(mut journal) = open(disk) else {
        return told;
    };
    for step in 0..7_u8 {
        let records: Vec<Vec<u8>> =
            (0..=usize::from(step) % 3).map(|number| vec![b'a' + step; 10 + 40 * number]).collect();
        told.append(&mut journal, disk, &records);
        if disk.is_off() {
            break;
        }
    }
    told
}

/// Reopens, checks, goes on, reopens and checks again.
pub(crate) fn check_reopened(disk: &Setup, mut told: Told) {
    let mut journal = open(disk).unwrap();
    told.adopt(&journal);
    told.append(&mut journal, disk, &[b"after".to_vec(), vec![b'z'; 300]]);
    disk.power_cycle(Survival::Synced);
    let journal = open(disk).unwrap();
    told.check(&journal);
    assert_eq!(journal.next_sequence(), told.next());
}

fn operations(options: &JournalOptions) -> usize {
    let disk = setup(options, []);
    assert_eq!(script(&disk).next(), 14);
    disk.operations()
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for options in kept() {
        for operation in 0..=operations(&options) {
            for survival in Survival::ALL {
                let disk = setup(&options, [(operation, Fault::PowerCut)]);
                let told = script(&disk);
                disk.power_cycle(survival);
                check_reopened(&disk, told);
            }
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_even_when_power_goes_after_the_restart() {
    for options in kept() {
        for operation in 0..=operations(&options) {
            let disk = setup(&options, [(operation, Fault::PowerCut)]);
            let mut told = script(&disk);
            disk.kill();
            told.adopt(&open(&disk).unwrap());
            disk.power_cycle(Survival::Synced);
            check_reopened(&disk, told);
        }
    }
}

#[test]
fn what_failed_does_not_come_back_after_recovery() {
    for options in kept() {
        for operation in 0..operations(&options) {
            for fault in Fault::ERRORS {
                for survival in Survival::ALL {
                    let disk = setup(&options, [(operation, fault)]);
                    let told = script(&disk);
                    assert!(told.open.is_empty());
                    disk.power_cycle(survival);
                    check_reopened(&disk, told);
                }
                let disk = setup(&options, [(operation, fault)]);
                let told = script(&disk);
                disk.kill();
                check_reopened(&disk, told);
            }
        }
    }
}

#[test]
fn two_failures_in_a_row_and_a_power_cut_after_them() {
    for options in kept() {
        for operation in 0..operations(&options) {
            // What follows a failure closely is what it may have left half done.
            let distances = rounds(4, 8);
            for distance in 1..distances {
                for cut in distance + 1..distance + distances {
                    for (fault, survival) in
                        Fault::ERRORS.into_iter().flat_map(|fault| Survival::ALL.map(|survival| (fault, survival)))
                    {
                        let disk = setup(
                            &options,
                            [(operation, fault), (operation + distance, fault), (operation + cut, Fault::PowerCut)],
                        );
                        let told = script(&disk);
                        disk.power_cycle(survival);
                        check_reopened(&disk, told);
                    }
                }
            }
        }
    }
}

/// The kernel takes pages that it could not write for written: a process started later reads them from memory, and a
/// power cut after that takes them away.
#[test]
fn what_a_failed_sync_left_in_memory_is_not_taken_for_kept() {
    for options in kept() {
        for fault in Fault::ERRORS {
            let disk = setup(&options, []);
            let mut journal = open(&disk).unwrap();
            journal.append(&[b"kept".to_vec()]).unwrap();
            // The write passes, its sync does not.
            disk.fail_at(disk.operations() + 1, fault);
            journal.append(&[b"lost".to_vec()]).unwrap_err();
            disk.kill();
            let after_restart = read_all(&open(&disk).unwrap());
            disk.power_cycle(Survival::Synced);
            assert_eq!(read_all(&open(&disk).unwrap()), after_restart);
        }
    }
}

#[test]
fn truncation_cut_off_at_any_operation_leaves_no_hole() {
    for options in kept() {
        let (mut done, mut cut_off) = (0, 0);
        for operation in 0..20 {
            for fault in [Fault::PowerCut, Fault::Error, Fault::Done] {
                for survival in Survival::ALL {
                    let disk = setup(&options, []);
                    let told = script(&disk);
                    let before = disk.operations();
                    disk.fail_at(before + operation, fault);
                    let mut journal = open(&disk).unwrap();
                    let result = journal.truncate_before(told.next());
                    if fault != Fault::PowerCut {
                        told.check(&journal);
                    }
                    if result.is_ok() {
                        assert!(journal.first_sequence() > 1);
                        done += 1;
                    } else {
                        cut_off += 1;
                    }
                    disk.power_cycle(survival);
                    told.check(&open(&disk).unwrap());
                }
            }
        }
        assert!(done > 0 && cut_off > 0, "{done} were done, {cut_off} cut off");
    }
}

#[test]
fn rolling_cut_off_at_any_operation_loses_nothing() {
    for options in kept() {
        let script = |disk: &Setup| {
            let mut told = Told::default();
            let mut journal = open(disk).unwrap();
            for step in 0..3_u8 {
                told.append(&mut journal, disk, &[vec![b'a' + step; 20]]);
                if !disk.is_off() {
                    told.roll(&mut journal, disk);
                }
                if disk.is_off() {
                    break;
                }
            }
            told
        };
        let whole = setup(&options, []);
        script(&whole);
        for operation in 0..=whole.operations() {
            for fault in [Fault::PowerCut, Fault::Error, Fault::HalfWritten, Fault::Done] {
                for survival in Survival::ALL {
                    let disk = setup(&options, [(operation, fault)]);
                    let told = script(&disk);
                    disk.power_cycle(survival);
                    check_reopened(&disk, told);
                }
                let disk = setup(&options, [(operation, fault)]);
                let mut told = script(&disk);
                disk.kill();
                told.adopt(&open(&disk).unwrap());
                disk.power_cycle(Survival::Synced);
                check_reopened(&disk, told);
            }
        }
    }
}

/// One thing that happens to a journal.
#[derive(Debug, Clone)]
enum Event {
    Append(Vec<usize>),
    Fault(usize, Fault),
    Truncate(u64),
    Roll,
    /// Of the records whose sequence this divides.
    Redact(u64),
    Kill,
    PowerCycle(Survival),
}

fn event() -> impl Strategy<Value = Event> {
    let fault = prop::sample::select(vec![Fault::Error, Fault::HalfWritten, Fault::Done, Fault::PowerCut]);
    prop_oneof![
        6 => prop::collection::vec(0..600_usize, 1..4).prop_map(Event::Append),
        2 => (0..6_usize, fault).prop_map(|(distance, fault)| Event::Fault(distance, fault)),
        1 => (0..30_u64).prop_map(Event::Truncate),
        1 => Just(Event::Roll),
        2 => (1..6_u64).prop_map(Event::Redact),
        1 => Just(Event::Kill),
        1 => prop::sample::select(Survival::ALL.to_vec()).prop_map(Event::PowerCycle),
        2 => any::<u64>().prop_map(|arrived| Event::PowerCycle(Survival::Sectors(arrived))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(150, 500), failure_persistence: None, ..ProptestConfig::default() })]

    /// Any row of events, against a list in memory.
    #[test]
    fn a_journal_is_a_list_whatever_happens(
        options in prop::sample::select([&kept()[..], &[with_much_room()]].concat()),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let disk = setup(&options, []);
        let mut told = Told::default();
        let mut journal = open(&disk).unwrap();
        for (step, event) in (0_u8..).zip(events) {
            match event {
                Event::Append(sizes) => {
                    let records: Vec<_> = sizes.iter().map(|size| vec![step; *size]).collect();
                    told.append(&mut journal, &disk, &records);
                }
                Event::Fault(distance, fault) => disk.fail_at(disk.operations() + distance, fault),
                // A failure here is for the caller to repeat, and disturbs nothing else.
                Event::Truncate(sequence) => drop(journal.truncate_before(sequence)),
                Event::Roll => told.roll(&mut journal, &disk),
                // A failure here is for the caller to repeat, and the journal goes on.
                Event::Redact(divisor) => {
                    drop(told.redact(&mut journal, |sequence, _| sequence.is_multiple_of(divisor)));
                }
                Event::Kill => {
                    disk.kill();
                    journal = open(&disk).unwrap();
                    told.adopt(&journal);
                }
                Event::PowerCycle(survival) => {
                    disk.power_cycle(survival);
                    journal = open(&disk).unwrap();
                    told.adopt(&journal);
                }
            }
            if disk.is_off() {
                disk.power_cycle(Survival::Sectors(u64::from(step).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
                journal = open(&disk).unwrap();
                told.adopt(&journal);
            }
            told.check(&journal);
        }
    }
}
