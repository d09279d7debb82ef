//! Files of the audit log that are missing, damaged or another log's: what a start does, and what a service in use does.
//!
//! Invariant: a start that is refused has left every file as it was, so that it serves once what was lost is back.
//! Not here: parts that are exchanged as a whole (`witnesses`), and damage that verifying finds (`audit_tamper`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::Engine;
use portcullis::engine::audit::Verification;
use portcullis::engine::clock::Clock;
use portcullis::policy::rule::ConnectionType;
use portcullis::server::{self, verify_audit};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};
use tempfile::TempDir;

use crate::audit_engine::{
    DEFAULT, another_unit, check, key, open, open_by, signed as head_signed, small_units, stores,
};
use crate::audit_watch::signed_size;
use crate::clock::{Hand, until};
use crate::harness::Service;
use crate::witnesses_history::{contents, copy};

const HOUR: Duration = Duration::from_hours(1);

/// What becomes of a note.
type Damage = fn(&str) -> String;

/// What somebody does to the file of the checkpoints.
type Harm = fn(&Path);

fn start_small(data_dir: &Path) -> Result<Engine, String> {
    let policy = FileJournal::open(Arc::new(RealDisk), data_dir.join("policy"), JournalOptions::default()).unwrap();
    let stores = stores(Box::new(policy), Arc::new(RealDisk), data_dir, key(1));
    Engine::open(stores, small_units(), Clock::system()).map_err(|error| format!("{error:#}"))
}

fn start(data_dir: &Path) -> Result<Engine, String> {
    server::open(&Config::for_data_dir(data_dir)).map_err(|error| format!("{error:#}"))
}

/// Another place of a file in a log's directory.
fn moved(path: &Path, data_dir: &Path) -> PathBuf {
    data_dir.join("audit").join(path.file_name().unwrap())
}

/// The files of a log that end so, by their names.
fn with_extension(data_dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = files(data_dir, |_| true);
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found
}

/// The files of a log with a name that fits, by their names.
fn files(data_dir: &Path, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let names = fs::read_dir(data_dir.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names.filter(|path| fits(path.file_name().unwrap().to_str().unwrap())).collect();
    found.sort();
    found
}

/// A log of which retention has removed units.
async fn pruned() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut options = small_units();
    (options.audit.retention_age, options.sessions.max_age, options.sessions.idle) = (Some(HOUR), HOUR, HOUR);
    let hand = Hand::at_present();
    let engine = open_by(directory.path(), key(1), options, hand.clock());
    another_unit(&engine, directory.path()).await;
    hand.advance(HOUR + Duration::from_secs(1));
    until("a unit is removed", async || (engine.audit().first_sequence() > 1).then_some(())).await;
    engine.close();
    directory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_refused_removes_no_sealed_unit() {
    let origin = tempfile::tempdir().unwrap();
    let engine = open(origin.path(), key(1), small_units());
    for _ in 0..3 {
        another_unit(&engine, origin.path()).await;
    }
    engine.close();
    let segments = with_extension(origin.path(), "seg");
    assert!(segments.len() >= 3, "{segments:?}");
    let others = pruned().await;
    let removed = files(others.path(), |name| name == "base" || name.starts_with("tree-"));
    assert!(removed.len() >= 2, "{removed:?}");
    let last = segments.len() - 1;
    for (case, lost, foreign) in [
        ("the first unit", &segments[..1], &[][..]),
        ("one in between", &segments[1..2], &[]),
        ("the last one", &segments[last..], &[]),
        ("all units", &segments[..], &[]),
        ("what another log has removed", &[], &removed[..]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        copy(origin.path(), directory.path());
        for path in lost {
            fs::remove_file(moved(path, directory.path())).unwrap();
        }
        for path in foreign {
            copy(path, &moved(path, directory.path()));
        }
        let before = contents(directory.path());
        let message = start_small(directory.path()).err().expect(case);
        assert!(message.contains("audit log"), "{case}: {message}");
        assert!(before == contents(directory.path()), "{case}: a start that is refused changed a file");
        for path in foreign {
            fs::remove_file(moved(path, directory.path())).unwrap();
        }
        for path in lost {
            copy(path, &moved(path, directory.path()));
        }
        let engine = start_small(directory.path()).unwrap_or_else(|message| panic!("{case}: {message}"));
        assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, [], "{case}");
        engine.close();
    }
}

/// A removal that a crash interrupted is finished by a start that serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_serves_removes_what_retention_had_begun_to_remove() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    another_unit(&engine, directory.path()).await;
    engine.close();
    let [segment, openings] = ["seg", "pii"].map(|extension| with_extension(directory.path(), extension).remove(0));
    let kept = tempfile::tempdir().unwrap();
    copy(directory.path(), kept.path());
    let mut options = small_units();
    (options.audit.retention_age, options.sessions.max_age, options.sessions.idle) = (Some(HOUR), HOUR, HOUR);
    let hand = Hand::at_present();
    let engine = open_by(directory.path(), key(1), options, hand.clock());
    hand.advance(HOUR + Duration::from_secs(61));
    until("the units are removed", async || {
        hand.advance(Duration::from_secs(1));
        (!segment.exists() && !openings.exists()).then_some(())
    })
    .await;
    engine.close();
    // Both files of one unit, and the second file of another, which is a removal that has got half way.
    let orphan = directory.path().join(format!("audit/{:020}.pii", 900_001));
    for (path, to) in [(&segment, &segment), (&openings, &openings), (&openings, &orphan)] {
        copy(&moved(path, kept.path()), to);
    }
    start_small(directory.path()).unwrap().close();
    assert!(!segment.exists() && !openings.exists() && !orphan.exists());
}

/// A log with several checkpoints, as a regular stop leaves it.
async fn signed() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::with_config(Config::for_data_dir(directory.path())).await;
    let mut size = signed_size(&service.channel, 2).await;
    for number in 0..3 {
        service.check(&format!("192.0.2.{number}"), "organizations/default").await;
        size = signed_size(&service.channel, size + 1).await;
    }
    service.stop().await;
    directory
}

fn checkpoints(data_dir: &Path) -> PathBuf {
    data_dir.join("audit/checkpoints")
}

/// The notes of a file, each with its two parts.
fn notes(data_dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(checkpoints(data_dir)).unwrap();
    let parts: Vec<&str> = text.trim_end().split("\n\n").collect();
    parts.chunks(2).map(|parts| format!("{}\n", parts.join("\n\n"))).collect()
}

/// A note with another letter at a place of a line.
fn altered(note: &str, line: usize, place: usize) -> String {
    let mut lines: Vec<Vec<char>> = note.lines().map(|line| line.chars().collect()).collect();
    let letter = &mut lines[line][place];
    *letter = if matches!(*letter, '2' | 'A') { '3' } else { '2' };
    lines.into_iter().flat_map(|line| line.into_iter().chain(['\n'])).collect()
}

fn verify(data_dir: &Path) -> Verification {
    verify_audit(data_dir, None, None, &mut |_, _| true).unwrap()
}

/// Where a signature begins in its line. Its first letters are the number of the key.
fn of_signature(note: &str) -> usize {
    let line = note.lines().nth(4).unwrap();
    line.chars().count() - line.rsplit(' ').next().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_refused_wherever_it_is() {
    let origin = signed().await;
    let whole = notes(origin.path());
    assert!(whole.len() >= 4, "{whole:?}");
    let damages: [(&str, Damage); 3] = [
        ("its size", |note| altered(note, 1, 0)),
        ("its root", |note| altered(note, 2, 7)),
        ("its signature", |note| altered(note, 4, of_signature(note) + 20)),
    ];
    for number in 0..whole.len() {
        for (what, damage) in damages {
            let directory = tempfile::tempdir().unwrap();
            copy(origin.path(), directory.path());
            let mut notes = whole.clone();
            notes[number] = damage(&notes[number]);
            fs::write(checkpoints(directory.path()), notes.join("\n")).unwrap();
            let before = contents(&directory.path().join("audit"));
            let message = start(directory.path()).err().unwrap_or_else(|| panic!("{number}, {what}: it is served"));
            let named = format!("checkpoint {} of {} in `audit/checkpoints` is damaged", number + 1, whole.len());
            assert!(message.contains(&named) && message.contains("restore"), "{number}, {what}: {message}");
            assert!(before == contents(&directory.path().join("audit")), "{number}, {what}: a file is changed");
            assert_ne!(verify(directory.path()).faults, [], "{number}, {what}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    copy(origin.path(), directory.path());
    fs::write(checkpoints(directory.path()), whole.join("\n")).unwrap();
    start(directory.path()).unwrap().close();
}

/// A power cut in the middle of writing the last one: it is cut off, or a part of it has zeros.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_checkpoint_that_a_power_cut_tore_is_left_out() {
    let origin = signed().await;
    let whole = notes(origin.path());
    let (kept, last) = (whole[..whole.len() - 1].join("\n"), format!("\n{}", whole.last().unwrap()));
    let ends: Vec<usize> = (0..last.len()).step_by(23).chain([last.len() - 1]).collect();
    let mut torn: Vec<Vec<u8>> = ends.iter().map(|end| last.as_bytes()[..*end].to_vec()).collect();
    for end in &ends[1..] {
        for part in [0..*end, *end..last.len(), *end / 2..*end] {
            let mut zeroed = last.clone().into_bytes();
            zeroed[part].fill(0);
            torn.push(zeroed);
        }
    }
    for torn in torn {
        let directory = tempfile::tempdir().unwrap();
        copy(origin.path(), directory.path());
        // They are saved each minute, and then before the checkpoint that the crash tore.
        fs::remove_dir_all(directory.path().join("sessions")).unwrap();
        fs::write(checkpoints(directory.path()), [kept.as_bytes(), &torn].concat()).unwrap();
        let engine = start(directory.path()).unwrap_or_else(|message| panic!("{torn:?}: {message}"));
        engine.close();
        assert_eq!(verify(directory.path()).faults, []);
    }
}

/// A signature whose key's number is altered looks like another key's. It is kept, so that verifying finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_by_an_unknown_key_is_kept_and_found() {
    let directory = signed().await;
    let mut all = notes(directory.path());
    all[1] = altered(&all[1], 4, of_signature(&all[1]) + 1);
    let strange = all[1].clone();
    fs::write(checkpoints(directory.path()), all.join("\n")).unwrap();
    for _ in 0..2 {
        let service = Service::with_config(Config::for_data_dir(directory.path())).await;
        let size = signed_size(&service.channel, 1).await;
        service.check("192.0.2.9", "organizations/default").await;
        signed_size(&service.channel, size + 1).await;
        service.stop().await;
        assert!(notes(directory.path()).contains(&strange));
        let faults = verify(directory.path()).faults;
        assert!(faults.iter().any(|(_, fault)| fault.contains("is not this log's")), "{faults:?}");
    }
}

/// What somebody does to the file under a service that has nothing to sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_are_lost_in_use_are_written_again() {
    let harms: [(&str, Harm); 4] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("cut off", |path| fs::write(path, "").unwrap()),
        ("replaced by a copy", |path| {
            let content = fs::read(path).unwrap();
            fs::write(path.with_extension("copy"), content).unwrap();
            fs::rename(path.with_extension("copy"), path).unwrap();
        }),
        ("replaced by something else", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "something else").unwrap();
        }),
    ];
    let directory = signed().await;
    for (harm, befall) in harms {
        // Before it has signed anything since its start, and after that.
        for news in [false, true] {
            let service = Service::with_config(Config::for_data_dir(directory.path())).await;
            let size = signed_size(&service.channel, 1).await;
            if news {
                service.check("192.0.2.7", "organizations/default").await;
                signed_size(&service.channel, size + 1).await;
            }
            let size = signed_size(&service.channel, 1).await;
            let before = notes(directory.path());
            befall(&checkpoints(directory.path()));
            if harm != "replaced by a copy" {
                until("the checkpoints are written again", async || {
                    let text = fs::read_to_string(checkpoints(directory.path())).unwrap_or_default();
                    before.iter().all(|note| text.contains(note)).then_some(())
                })
                .await;
            }
            service.check("192.0.2.8", "organizations/default").await;
            signed_size(&service.channel, size + 1).await;
            service.stop().await;
            let verified = verify(directory.path());
            assert_eq!(verified.faults, [], "{harm}, {news}");
            assert_eq!(verified.signed_size, verified.tree_size, "{harm}, {news}");
        }
    }
    start(directory.path()).unwrap().close();
}

/// The hazard: a backup that somebody puts in the place of a directory in use gets checkpoints of records that it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_the_place_of_the_log_gets_no_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let (audit, moved) = (directory.path().join("audit"), directory.path().join("moved"));
    let engine = open(directory.path(), key(1), small_units());
    let ask = async || {
        check(&engine, "ada@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT).await.unwrap();
        head_signed(&engine).await.size.to_string()
    };
    ask().await;
    fs::rename(&audit, &moved).unwrap();
    copy(&moved, &audit);
    let before = contents(&audit);
    let size = ask().await;
    assert!(before == contents(&audit), "the copy was written to");
    assert!(fs::read_to_string(moved.join("checkpoints")).unwrap().lines().any(|line| line == size));
    fs::remove_dir_all(&audit).unwrap();
    fs::rename(&moved, &audit).unwrap();
    ask().await;
    engine.close();
    let key = key(1).verifier().to_string();
    let verified = verify_audit(directory.path(), Some(&key), None, &mut |_, _| true).unwrap();
    assert_eq!((verified.faults, verified.signed_size), (vec![], verified.tree_size));
}
