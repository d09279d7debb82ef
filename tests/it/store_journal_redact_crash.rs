//! Redacting the journal on a disk that fails, under a process that dies, in a machine that loses power, at every
//! operation.
//!
//! What must hold, with room for frames to come and without: a redaction leaves each record as it was or as it was made;
//! one that is done leaves nothing of what it overwrote in any file.

use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::{Log, Segments};

use crate::store_disk::{Fault, Survival};
use crate::store_journal_crash::{Setup, Told, check_reopened, kept, open, setup};

const SECRET: &[u8] = b"name of a person";

fn is_secret(_: u64, record: &[u8]) -> bool {
    record.windows(SECRET.len()).any(|part| part == SECRET)
}

/// Appends with something secret in the first segment, at the end of a failed append, and in the last segment, with
/// rolls between.
fn script_with_secrets(disk: &Setup) -> (FileJournal, Told) {
    let mut told = Told::default();
    let mut journal = open(disk).unwrap();
    let secret = |length: usize| [SECRET, &vec![b'x'; length]].concat();
    told.append(&mut journal, disk, &[b"first".to_vec(), secret(0), secret(90)]);
    told.append(&mut journal, disk, &[b"other".to_vec()]);
    told.roll(&mut journal, disk);
    told.append(&mut journal, disk, &[vec![b'y'; 700]]);
    told.roll(&mut journal, disk);
    told.append(&mut journal, disk, &[b"before".to_vec()]);
    // Its bytes stay behind the end of a segment without any other secret.
    disk.fail_at(disk.operations() + 1, Fault::Done);
    told.append(&mut journal, disk, &[secret(40)]);
    told.append(&mut journal, disk, &[b"after".to_vec()]);
    told.append(&mut journal, disk, &[b"last".to_vec(), secret(5)]);
    assert!(disk.holds(SECRET));
    (journal, told)
}

/// The operations that a redaction makes after the script, in the process that wrote and in the next.
fn redaction_operations(options: &JournalOptions) -> [usize; 2] {
    [false, true].map(|restart| {
        let disk = setup(options, []);
        let (mut journal, mut told) = script_with_secrets(&disk);
        if restart {
            journal = open(&disk).unwrap();
        }
        let before = disk.operations();
        assert_eq!(told.redact(&mut journal, is_secret).unwrap(), 3);
        assert!(!disk.holds(SECRET));
        disk.operations() - before
    })
}

/// Cuts a redaction off by each of `faults` at each of its operations, in the process that wrote and in the next.
fn with_redaction_cut_off(faults: &[Fault], check: impl Fn(Setup, FileJournal, Told)) {
    for options in kept() {
        for (restart, operations) in [false, true].into_iter().zip(redaction_operations(&options)) {
            assert!(operations > 10, "{operations}");
            for operation in 0..operations {
                for fault in faults {
                    let disk = setup(&options, []);
                    let (mut journal, mut told) = script_with_secrets(&disk);
                    if restart {
                        journal = open(&disk).unwrap();
                    }
                    disk.fail_at(disk.operations() + operation, *fault);
                    let done = told.redact_unless_off(&mut journal, &disk);
                    assert!(!done, "{fault:?} at {operation} was not noticed");
                    check(disk, journal, told);
                }
            }
        }
    }
}

impl Told {
    /// Redacts what is secret, and says whether that is done.
    fn redact_unless_off(&mut self, journal: &mut FileJournal, disk: &Setup) -> bool {
        let done = self.redact(journal, is_secret).is_ok();
        if !disk.is_off() {
            self.check(journal);
        }
        assert!(!done || !disk.holds(SECRET), "something secret is left");
        done
    }

    /// Redacts again, after which nothing secret may be left, whatever survives a power cut.
    fn finish_redaction(mut self, disk: &Setup, mut journal: FileJournal, survival: Survival) {
        assert!(self.redact_unless_off(&mut journal, disk));
        disk.power_cycle(survival);
        assert!(!disk.holds(SECRET));
        assert!(self.perhaps_redacted.is_empty());
        check_reopened(disk, self);
        assert!(!disk.holds(SECRET));
    }
}

#[test]
fn a_redaction_cut_off_by_a_power_cut_leaves_each_record_as_it_was_or_as_it_became() {
    for survival in Survival::ALL {
        for later in [Survival::Synced, Survival::SomeNames] {
            with_redaction_cut_off(&[Fault::PowerCut], |disk, _, mut told| {
                disk.power_cycle(survival);
                let journal = open(&disk).unwrap();
                told.adopt(&journal);
                told.finish_redaction(&disk, journal, later);
            });
        }
    }
}

#[test]
fn a_redaction_cut_off_by_a_kill_is_finished_by_the_next_process() {
    for survival in Survival::ALL {
        with_redaction_cut_off(&[Fault::PowerCut], |disk, _, mut told| {
            disk.kill();
            let journal = open(&disk).unwrap();
            told.adopt(&journal);
            told.finish_redaction(&disk, journal, survival);
        });
    }
}

#[test]
fn a_failed_redaction_leaves_a_journal_that_takes_records_and_is_redacted_again() {
    for survival in Survival::ALL {
        with_redaction_cut_off(&Fault::ERRORS, |disk, mut journal, mut told| {
            let before = told.next();
            told.append(&mut journal, &disk, &[b"goes on".to_vec()]);
            assert!(told.next() > before, "the journal takes no records");
            told.finish_redaction(&disk, journal, survival);
        });
        with_redaction_cut_off(&Fault::ERRORS, |disk, mut journal, mut told| {
            told.append(&mut journal, &disk, &[b"goes on".to_vec()]);
            disk.power_cycle(survival);
            check_reopened(&disk, told);
        });
    }
}

/// The copy that was begun for one redaction holds what another has to erase.
#[test]
fn a_redaction_removes_what_one_cut_off_before_has_left() {
    for options in kept() {
        let disk = setup(&options, []);
        let mut told = Told::default();
        let mut journal = open(&disk).unwrap();
        told.append(&mut journal, &disk, &[b"one".to_vec(), SECRET.to_vec()]);
        told.roll(&mut journal, &disk);
        told.append(&mut journal, &disk, &[b"two".to_vec()]);
        // The rename fails, and so does removing the copy.
        disk.fail_at(disk.operations() + 3, Fault::Error);
        disk.fail_at(disk.operations() + 4, Fault::Error);
        told.redact(&mut journal, |sequence, _| sequence == 1).unwrap_err();
        // Giving the segment up is cut off as well.
        disk.fail_at(disk.operations(), Fault::Error);
        journal.truncate_before(3).unwrap_err();
        assert!(disk.holds(SECRET));
        assert!(told.redact_unless_off(&mut journal, &disk));
        told.check(&journal);
    }
}

/// The torn end is all that the last segment has, so another segment gets its name.
#[test]
fn a_redaction_removes_a_torn_append_whatever_fails_first() {
    for options in kept() {
        for operation in 0..8 {
            for fault in Fault::ERRORS {
                let disk = setup(&options, []);
                let mut told = Told::default();
                let mut journal = open(&disk).unwrap();
                told.append(&mut journal, &disk, &[b"kept".to_vec()]);
                told.roll(&mut journal, &disk);
                // Its sync is cut off.
                disk.fail_at(disk.operations() + 1, Fault::PowerCut);
                told.append(&mut journal, &disk, &[[SECRET, &[b'x'; 400]].concat()]);
                disk.power_cycle(Survival::Half);
                let mut journal = open(&disk).unwrap();
                assert_eq!(journal.next_sequence(), 2);
                told.adopt(&journal);
                assert!(disk.holds(SECRET));
                disk.fail_at(disk.operations() + operation, fault);
                if !told.redact_unless_off(&mut journal, &disk) {
                    assert!(told.redact_unless_off(&mut journal, &disk));
                }
                check_reopened(&disk, told);
            }
        }
    }
}
