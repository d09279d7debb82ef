//! The journal on a disk that fails, under a process that dies, in a machine that loses power, at every operation.
//!
//! What must hold: acknowledged records are all there, in order; beyond them at most one append whose outcome nobody
//! was told, whole; and nothing of a failed append once `recover` has returned.

use std::sync::Arc;

use portcullis::store::journal::FileJournal;
use portcullis::store::{Journal, JournalError};
use proptest::prelude::*;

use crate::store_disk::{Fault, SimulatedDisk, Survival};
use crate::store_journal::{read_all, small_segments};

/// What a run was told, and what it was not.
#[derive(Debug, Default, Clone)]
struct Told {
    /// Sequence and bytes of what was acknowledged.
    acknowledged: Vec<(u64, Vec<u8>)>,
    /// The one append of which it is open whether it happened.
    open: Vec<Vec<u8>>,
}

impl Told {
    /// One append, and its recovery where it fails. Stops where the machine is off.
    fn append(&mut self, journal: &mut FileJournal, disk: &SimulatedDisk, records: &[Vec<u8>]) {
        match journal.append(records) {
            Ok(first) => {
                assert_eq!(first, self.next());
                let numbered = (first..).zip(records.iter().cloned());
                self.acknowledged.extend(numbered);
            }
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                self.open = records.to_vec();
                let refused = journal.append(records).unwrap_err();
                assert!(matches!(refused, JournalError::Failed { .. }), "{refused}");
                // Several faults may follow one another; each attempt passes at least one.
                while !disk.is_off() && journal.recover().is_err() {}
                if !disk.is_off() {
                    self.open.clear();
                }
            }
        }
        assert_eq!(journal.next_sequence(), self.next());
    }

    fn next(&self) -> u64 {
        self.acknowledged.len() as u64 + 1
    }

    /// Holds what a journal has against what was told.
    fn check(&self, journal: &FileJournal) {
        let read = read_all(journal);
        let known = self.acknowledged.len();
        let kept = self.acknowledged.iter().filter(|(sequence, _)| *sequence >= journal.first_sequence());
        assert!(read.len() >= kept.clone().count(), "acknowledged records are gone");
        assert!(kept.eq(read.iter().take_while(|(sequence, _)| *sequence <= known as u64)));
        let beyond: Vec<_> = read.into_iter().filter(|(sequence, _)| *sequence > known as u64).collect();
        if !beyond.is_empty() {
            let open: Vec<_> = (self.next()..).zip(self.open.iter().cloned()).collect();
            assert_eq!(beyond, open, "records came back that were refused");
        }
    }

    /// The same after a restart: what is there now counts.
    fn adopt(&mut self, journal: &FileJournal) {
        self.check(journal);
        let beyond = read_all(journal);
        let known = self.acknowledged.len() as u64;
        self.acknowledged.extend(beyond.into_iter().filter(|(sequence, _)| *sequence > known));
        self.open.clear();
    }
}

fn open(disk: &SimulatedDisk) -> Result<FileJournal, JournalError> {
    FileJournal::open(Arc::new(disk.clone()), "/j", small_segments())
}

/// Appends of different sizes over a few segments.
fn script(disk: &SimulatedDisk) -> Told {
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
fn check_reopened(disk: &SimulatedDisk, mut told: Told) {
    let mut journal = open(disk).unwrap();
    told.adopt(&journal);
    told.append(&mut journal, disk, &[b"after".to_vec(), vec![b'z'; 300]]);
    disk.power_cycle(Survival::Synced);
    let journal = open(disk).unwrap();
    assert_eq!(read_all(&journal), told.acknowledged);
}

fn operations() -> usize {
    let disk = SimulatedDisk::default();
    assert_eq!(script(&disk).next(), 14);
    disk.operations()
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for operation in 0..=operations() {
        for survival in Survival::ALL {
            let disk = SimulatedDisk::with_faults([(operation, Fault::PowerCut)]);
            let told = script(&disk);
            disk.power_cycle(survival);
            check_reopened(&disk, told);
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_even_when_power_goes_after_the_restart() {
    for operation in 0..=operations() {
        let disk = SimulatedDisk::with_faults([(operation, Fault::PowerCut)]);
        let mut told = script(&disk);
        disk.kill();
        told.adopt(&open(&disk).unwrap());
        disk.power_cycle(Survival::Synced);
        check_reopened(&disk, told);
    }
}

#[test]
fn what_failed_does_not_come_back_after_recovery() {
    for operation in 0..operations() {
        for fault in Fault::ERRORS {
            for survival in Survival::ALL {
                let disk = SimulatedDisk::with_faults([(operation, fault)]);
                let told = script(&disk);
                assert!(told.open.is_empty());
                disk.power_cycle(survival);
                check_reopened(&disk, told);
            }
            let disk = SimulatedDisk::with_faults([(operation, fault)]);
            let told = script(&disk);
            disk.kill();
            check_reopened(&disk, told);
        }
    }
}

#[test]
fn two_failures_in_a_row_and_a_power_cut_after_them() {
    for operation in 0..operations() {
        for distance in 1..8 {
            for cut in distance + 1..distance + 8 {
                for (fault, survival) in
                    Fault::ERRORS.into_iter().flat_map(|fault| Survival::ALL.map(|survival| (fault, survival)))
                {
                    let disk = SimulatedDisk::with_faults([
                        (operation, fault),
                        (operation + distance, fault),
                        (operation + cut, Fault::PowerCut),
                    ]);
                    let told = script(&disk);
                    disk.power_cycle(survival);
                    check_reopened(&disk, told);
                }
            }
        }
    }
}

/// The kernel takes pages that it could not write for written: a process started later reads them from memory, and a
/// power cut after that takes them away.
#[test]
fn what_a_failed_sync_left_in_memory_is_not_taken_for_kept() {
    for fault in Fault::ERRORS {
        let disk = SimulatedDisk::default();
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

#[test]
fn truncation_cut_off_at_any_operation_leaves_no_hole() {
    for operation in 0..20 {
        for fault in [Fault::PowerCut, Fault::Error, Fault::Done] {
            for survival in Survival::ALL {
                let disk = SimulatedDisk::default();
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
                }
                disk.power_cycle(survival);
                told.check(&open(&disk).unwrap());
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
    Kill,
    PowerCycle(Survival),
}

fn event() -> impl Strategy<Value = Event> {
    let fault = prop::sample::select(vec![Fault::Error, Fault::HalfWritten, Fault::Done, Fault::PowerCut]);
    prop_oneof![
        6 => prop::collection::vec(0..200_usize, 1..4).prop_map(Event::Append),
        2 => (0..6_usize, fault).prop_map(|(distance, fault)| Event::Fault(distance, fault)),
        1 => (0..30_u64).prop_map(Event::Truncate),
        1 => Just(Event::Kill),
        1 => prop::sample::select(Survival::ALL.to_vec()).prop_map(Event::PowerCycle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any row of events, against a list in memory.
    #[test]
    fn a_journal_is_a_list_whatever_happens(events in prop::collection::vec(event(), 1..60)) {
        let disk = SimulatedDisk::default();
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
                disk.power_cycle(Survival::Half);
                journal = open(&disk).unwrap();
                told.adopt(&journal);
            }
            told.check(&journal);
        }
    }
}
