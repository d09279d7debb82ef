//! Tampering with the files of a log: whatever is changed, removed, moved or made up is found, at a sequence.
//!
//! Invariant: the attacker may write any file, with valid checksums and roots, and lacks only the key.
//! Not here: what an honest log verifies to after a crash (`audit_crash`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis::audit::commitment::{Opening, Salt, record_hash};
use portcullis::audit::merkle::root_of;
use portcullis::engine::audit::Verification;
use portcullis::policy::address::Address;
use portcullis::policy::rule::{Action, ConnectionType};
use portcullis::server::verify_audit;
use portcullis::store::Log;
use portcullis::store::codec::audit::peek;
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::sealed::{IndexSet, StoredOpening, TileSummary, Unit};

use crate::audit_api::files_with;
use crate::audit_engine::{
    DEFAULT, add_rule, check, erasure, key, open, sealed_files, sealed_units, settle, signed, small_units,
};
use crate::campaign::rounds;

/// A log with several sealed units and a tail, ended in the regular way.
pub(crate) async fn make_log(data_dir: &Path, seed: u8) {
    let engine = open(data_dir, key(seed), small_units());
    add_rule(&engine, "bad", Action::Deny, "203.0.113.0/24").await;
    for number in 0..1_200_usize {
        let ip = format!("{}.0.113.{}", if number % 3 == 0 { 203 } else { 198 }, number % 9);
        let email = format!("user-{}@example.com", number % 11);
        let endpoint = format!("{DEFAULT}/projects/p{}", number % 5);
        check(&engine, &email, &ip, ConnectionType::Preview, &endpoint).await.unwrap();
        if number == 499 || number == 999 {
            // Something is signed in between; and the sealer has seen that the unit has a tile, 256 records, and is old
            // enough: it ends with the tile that is begun.
            signed(&engine).await;
        }
    }
    let mut more = 0;
    while sealed_units(data_dir) < 2 {
        assert!(more < 100_000, "no second unit is sealed");
        check(&engine, "more@example.com", "198.0.113.2", ConnectionType::Preview, DEFAULT).await.unwrap();
        more += 1;
        if more % 64 == 0 {
            settle(&engine).await;
        }
    }
    signed(&engine).await;
    check(&engine, "last@example.com", "198.0.113.1", ConnectionType::Shell, DEFAULT).await.unwrap();
    engine.close();
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

pub(crate) fn verify(data_dir: &Path, note: Option<&str>) -> Verification {
    let verifier = key(1).verifier().to_string();
    verify_audit(data_dir, Some(&verifier), note, &mut |_, _| true).unwrap()
}

fn files(data_dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(data_dir.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(suffix));
    files.sort();
    files
}

/// Writes a unit again as an attacker would who knows everything but the key: checksums, index and roots fit.
fn forge(data_dir: &Path, first: u64, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let audit = data_dir.join("audit");
    let unit = sealed_files(&audit).open(first).unwrap();
    let openings = sealed_files(&audit).openings(first).unwrap();
    let openings: Vec<StoredOpening> =
        (0..u32::try_from(openings.len()).unwrap()).map(|slot| openings.get(slot).unwrap().unwrap()).collect();
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for number in 0..unit.tile_summaries().len() {
        let tile = unit.tile(number).unwrap();
        bodies.extend((0..tile.len()).map(|index| tile.body(index).unwrap().to_vec()));
    }
    change(&mut bodies);
    let leaf = |body: &Vec<u8>| {
        let commitment = peek(body).unwrap().slot.map(|slot| match &openings[slot as usize] {
            StoredOpening::Present { salt, email, address, .. } => {
                let address =
                    <[u8; 4]>::try_from(address.as_slice()).ok().map(|v4| Address::V4(u32::from_be_bytes(v4)));
                Opening::new(Salt::new(*salt), email.clone(), address).unwrap().commitment()
            }
            StoredOpening::Erased { .. } => panic!("nothing is erased here"),
        });
        record_hash(body, commitment.as_slice())
    };
    let root = |bodies: &[Vec<u8>]| {
        let leaves: Vec<_> = bodies.iter().map(leaf).collect();
        if leaves.len() == 256 { root_of(&leaves).into() } else { [0; 32] }
    };
    let tiles: Vec<TileSummary> = bodies
        .chunks(256)
        .zip(unit.tile_summaries())
        .map(|(bodies, tile)| TileSummary { root: root(bodies), ..*tile })
        .collect();
    let mut postings = std::collections::BTreeMap::new();
    for (term, _) in unit.terms_with_prefix(b"").unwrap() {
        let mut set = IndexSet::default();
        unit.postings(&term, &mut set).unwrap();
        postings.insert(term, set.iter().filter(|index| usize::from(*index) < bodies.len()).collect());
    }
    let attachment = unit.attachment().unwrap();
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let forged = Unit {
        first_sequence: first,
        bodies: &bodies,
        tiles: &tiles,
        postings: &postings
            .iter()
            .map(|(term, list): (&Vec<u8>, &Vec<u16>)| (term.clone(), &list[..]))
            .collect::<Vec<_>>(),
        openings: &openings,
        attachment: &attachment,
    };
    sealed_files(&audit).write(&forged).unwrap();
}

/// The faults of a copy of a log that was tampered with.
fn faults(original: &Path, tamper: impl FnOnce(&Path)) -> Vec<(u64, String)> {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    copy(original, &data_dir);
    tamper(&data_dir);
    let verification = verify(&data_dir, None);
    assert!(!verification.faults.is_empty(), "nothing was found");
    verification.faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_changed_removed_moved_cut_or_made_up_is_found_at_its_sequence() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("data");
    make_log(&original, 1).await;
    let honest = verify(&original, None);
    assert_eq!(honest.faults, []);
    assert_eq!(honest.signed_size, honest.tree_size, "the end is signed at a regular stop");
    let units = sealed_files(&original.join("audit")).list().unwrap();
    assert!(units.len() >= 2 && files(&original, ".wal").len() == 1, "{units:?}");
    let (first, second) = (units[0], units[1]);

    // A record says something else.
    let changed = faults(&original, |data_dir| {
        forge(data_dir, first, |bodies| {
            let body = &mut bodies[100];
            let at = body.windows(2).position(|pair| pair == b"p0" || pair == b"p1" || pair == b"p2").unwrap();
            body[at + 1] = b'4';
        });
    });
    assert!(changed[0].0 >= first && changed[0].0 <= first + 100, "{changed:?}");

    // A record is removed, and its neighbours close up.
    let removed = faults(&original, |data_dir| {
        forge(data_dir, first, |bodies| {
            bodies.remove(77);
        });
    });
    assert_eq!(removed[0].0, first + 77, "{removed:?}");

    // Two records change places.
    let swapped = faults(&original, |data_dir| forge(data_dir, second, |bodies| bodies.swap(3, 9)));
    assert_eq!(swapped[0].0, second + 3, "{swapped:?}");

    // A whole unit is gone.
    let missing = faults(&original, |data_dir| {
        sealed_files(&data_dir.join("audit")).remove(second).unwrap();
    });
    assert_eq!(missing[0].0, second, "{missing:?}");

    // The tail is cut off behind a checkpoint: the newest records are gone.
    let tail = files(&original, ".wal")[0].file_name().unwrap().to_owned();
    let cut = faults(&original, |data_dir| std::fs::remove_file(data_dir.join("audit").join(&tail)).unwrap());
    assert!(cut.iter().any(|(_, message)| message.contains("cut off")), "{cut:?}");

    // Its last third reads as zeros, which a crash would leave too.
    let zeroed = faults(&original, |data_dir| {
        let path = data_dir.join("audit").join(&tail);
        let mut bytes = std::fs::read(&path).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[written * 2 / 3..].fill(0);
        std::fs::write(path, bytes).unwrap();
    });
    assert!(zeroed.iter().any(|(_, message)| message.contains("cut off")), "{zeroed:?}");

    // The last record alone.
    let options = JournalOptions::audit(1);
    let shortened = faults(&original, |data_dir| {
        let audit = data_dir.join("audit");
        let journal = FileJournal::open(Arc::new(RealDisk), &audit, options.clone()).unwrap();
        let from = journal.first_sequence();
        let mut records: Vec<Vec<u8>> = journal.read_from(from).unwrap().map(|record| record.unwrap().1).collect();
        records.pop();
        std::fs::remove_file(audit.join(&tail)).unwrap();
        let options = JournalOptions { first_sequence: from, ..options.clone() };
        FileJournal::open(Arc::new(RealDisk), &audit, options).unwrap().append(&records).unwrap();
    });
    assert_eq!(shortened[0].0, honest.tree_size, "{shortened:?}");

    // The openings of a user are removed, and no record says so.
    let taken = faults(&original, |data_dir| {
        let audit = data_dir.join("audit");
        let openings = sealed_files(&audit).openings(first).unwrap();
        let slot = openings.slots_of_email(None, "user-5@example.com").unwrap()[0];
        let StoredOpening::Present { salt, email, address, .. } = openings.get(slot).unwrap().unwrap() else {
            panic!()
        };
        let address = Address::V4(u32::from_be_bytes(address.as_slice().try_into().unwrap()));
        let commitment = Opening::new(Salt::new(salt), email, Some(address)).unwrap().commitment();
        sealed_files(&audit).erase_openings(first, &[(slot, *commitment.as_bytes())]).unwrap();
    });
    assert!(taken[0].1.contains("no record says it was erased"), "{taken:?}");

    // The index hides a record.
    let hidden = faults(&original, |data_dir| {
        let audit = data_dir.join("audit");
        let unit = sealed_files(&audit).open(first).unwrap();
        let (term, _) = unit.terms_with_prefix(b"r").unwrap().remove(0);
        drop(unit);
        hide(data_dir, first, &term);
    });
    assert!(hidden[0].1.contains("index"), "{hidden:?}");

    // The whole log is made up with another key.
    let forged_dir = directory.path().join("forged");
    make_log(&forged_dir, 2).await;
    let forged = verify(&forged_dir, None);
    assert!(forged.faults.iter().any(|(_, message)| message.contains("is not this log's")), "{:?}", forged.faults);
    // Without its checkpoints it is not better; and an older checkpoint kept elsewhere tells it apart from the real one.
    std::fs::remove_file(forged_dir.join("audit/checkpoints")).unwrap();
    assert!(!verify(&forged_dir, None).faults.is_empty());
    let note = last_note(&original);
    assert_eq!(verify(&original, Some(&note)).faults, []);
    assert!(!verify(&forged_dir, Some(&note)).faults.is_empty());
}

/// The newest note that lies with a log.
fn last_note(data_dir: &Path) -> String {
    let text = std::fs::read_to_string(data_dir.join("audit/checkpoints")).unwrap();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len() - 5..].join("\n") + "\n"
}

/// Takes a record out of the postings of a term.
fn hide(data_dir: &Path, first: u64, hidden: &[u8]) {
    let audit = data_dir.join("audit");
    let unit = sealed_files(&audit).open(first).unwrap();
    let openings = sealed_files(&audit).openings(first).unwrap();
    let openings: Vec<StoredOpening> =
        (0..u32::try_from(openings.len()).unwrap()).map(|slot| openings.get(slot).unwrap().unwrap()).collect();
    let tiles: Vec<_> = (0..unit.tile_summaries().len()).map(|number| unit.tile(number).unwrap()).collect();
    let bodies: Vec<&[u8]> =
        tiles.iter().flat_map(|tile| (0..tile.len()).map(|index| tile.body(index).unwrap())).collect();
    let mut postings = std::collections::BTreeMap::new();
    for (term, _) in unit.terms_with_prefix(b"").unwrap() {
        let mut set = IndexSet::default();
        unit.postings(&term, &mut set).unwrap();
        let skipped = usize::from(term == hidden);
        postings.insert(term, set.iter().skip(skipped).collect());
    }
    let forged = Unit {
        first_sequence: first,
        bodies: &bodies,
        tiles: unit.tile_summaries(),
        postings: &postings
            .iter()
            .map(|(term, list): (&Vec<u8>, &Vec<u16>)| (term.clone(), &list[..]))
            .collect::<Vec<_>>(),
        openings: &openings,
        attachment: &unit.attachment().unwrap(),
    };
    sealed_files(&audit).write(&forged).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("data");
    make_log(&original, 1).await;
    let [of_units, of_others] = rounds([50, 30], [150, 80]);
    let mut flipped = 0;
    for (suffix, samples) in [(".seg", of_units), (".pii", of_others), (".wal", of_others)] {
        let path = files(&original, suffix)[0].clone();
        let bytes = std::fs::read(&path).unwrap();
        // Behind the last frame of a journal there is room, which says nothing.
        let written =
            if suffix == ".wal" { bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1 } else { bytes.len() };
        for sample in 0..samples {
            // Spread over the whole file, its first and last byte among them.
            let at = sample * (written - 1) / (samples - 1);
            let found = faults(&original, |data_dir| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (sample % 8);
                std::fs::write(data_dir.join("audit").join(path.file_name().unwrap()), bytes).unwrap();
            });
            assert!(found[0].0 >= 1, "{suffix} byte {at}: {found:?}");
            flipped += 1;
        }
    }
    assert_eq!(flipped, of_units + 2 * of_others);
    let path = files(&original, ".wal")[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.last_mut().unwrap();
    assert_eq!(*last, 0, "there is room");
    *last = 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(verify(&original, None).faults, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_user_is_nowhere_and_the_log_still_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    make_log(&data_dir, 1).await;
    let note = last_note(&data_dir);
    let engine = open(&data_dir, key(1), small_units());
    // In the tail as well, and with an active session.
    check(&engine, "user-5@example.com", "198.0.113.77", ConnectionType::Shell, DEFAULT).await.unwrap();
    settle(&engine).await;
    let count = engine.erase_user(erasure("user-5@example.com", "an administrator")).await.unwrap().openings;
    assert!(count >= 3, "sealed units, tail and session: {count}");
    engine.close();
    assert_nowhere(&data_dir, "user-5@example.com");
    let verification = verify(&data_dir, Some(&note));
    assert_eq!(verification.faults, []);
    // Opening it again changes nothing.
    open(&data_dir, key(1), small_units()).close();
    assert_eq!(verify(&data_dir, Some(&note)).faults, []);
    assert_nowhere(&data_dir, "user-5@example.com");
}

/// That an email is in no file, compressed or not.
pub(crate) fn assert_nowhere(data_dir: &Path, email: &str) {
    assert_eq!(files_with(data_dir, email.as_bytes()), Vec::<String>::new());
    let audit = data_dir.join("audit");
    let mut others = 0;
    for first in sealed_files(&audit).list().unwrap() {
        let openings = sealed_files(&audit).openings(first).unwrap();
        for slot in 0..u32::try_from(openings.len()).unwrap() {
            if let StoredOpening::Present { email: kept, .. } = openings.get(slot).unwrap().unwrap() {
                assert_ne!(kept, email);
                others += 1;
            }
        }
    }
    assert!(others > 0, "others are not erased");
    let mut snapshots = 0;
    for entry in std::fs::read_dir(data_dir.join("sessions")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "zst") {
            let bytes = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
            assert!(!bytes.windows(email.len()).any(|window| window == email.as_bytes()), "{}", path.display());
            snapshots += 1;
        }
    }
    assert!(snapshots > 0, "the sessions are saved at the end");
}
