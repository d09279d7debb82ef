//! `kill -9` and power cuts in the middle of Checks.
//!
//! Invariant: no answered Check of a synchronous kind is missing from the log, those of an asynchronous kind only within
//! the stated bound; the log verifies, its sequences are dense, and the sessions are those that were open.
//! Not here: full disks and failing ones (`audit_disk`), tampering (`audit_tamper`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::audit_load::{self, Model};
use crate::audit_watch::signed_size;
use crate::campaign::rounds;
use crate::crash_power::{Mounted, make_image};
use crate::process::{Process, skipped};

/// Kills in the short form and in the long one.
const KILLS: (u64, u64) = (20, 200);

/// Kills after which a new data directory begins, so that reading all of it again stays short.
const KILLS_OF_A_DIRECTORY: (u64, u64) = (10, 40);

/// Power cuts in the short form and in the long one.
const POWER_CUTS: (u64, u64) = (8, 40);

/// Checks of each durability that are answered in a round, at least.
const ANSWERED_BEFORE_A_KILL: usize = 4;
const ANSWERED_BEFORE_A_CUT: usize = 20;

/// What an asynchronous Check may lose: what was answered since the interval (9 ms) and the write before it began. A write
/// that takes longer than the deadline, 2 s, refuses further Checks.
const LOST_WITHIN_MAX: Duration = Duration::from_millis(2_009);

#[expect(clippy::print_stdout, reason = "the figures that the test is there to show")]
fn report(what: &str, model: &Mutex<Model>) {
    let model = model.lock().unwrap();
    println!(
        "{what}: {} synchronous checks, none lost; {} asynchronous checks, {} lost, all answered within {:?} of the end",
        model.sync_checks, model.async_checks, model.async_lost, model.lost_within
    );
    assert!(model.lost_within <= LOST_WITHIN_MAX, "{:?}", model.lost_within);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_no_synchronous_record_and_no_session() {
    let totals = Arc::new(Mutex::new(Model::default()));
    let (kills, of_a_directory) = (rounds(KILLS.0, KILLS.1), rounds(KILLS_OF_A_DIRECTORY.0, KILLS_OF_A_DIRECTORY.1));
    for first in (0..kills).step_by(usize::try_from(of_a_directory).unwrap()) {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let model = Arc::new(Mutex::new(Model::default()));
        let mut died = Instant::now();
        for round in first..first + of_a_directory {
            let process = Process::start(&data_dir);
            let channel = process.connect().await;
            if round == first {
                audit_load::prepare(&channel).await;
                // So that there is a signed checkpoint from the first round on.
                signed_size(&channel, 1).await;
            } else {
                audit_load::verify(channel.clone(), &model, died).await;
            }
            let clients = audit_load::start(&channel, &model);
            tokio::time::sleep(Duration::from_millis(10 + round * 37 % 70)).await;
            audit_load::answered(&model, ANSWERED_BEFORE_A_KILL).await;
            process.kill();
            died = Instant::now();
            for client in clients {
                client.await.unwrap();
            }
            let verification = audit_load::verify_offline(&data_dir);
            assert!(verification.faults.is_empty(), "round {round}: {:?}", verification.faults);
        }
        let process = Process::start(&data_dir);
        audit_load::verify(process.connect().await, &model, died).await;
        let (mut totals, model) = (totals.lock().unwrap(), model.lock().unwrap());
        totals.sync_checks += model.sync_checks;
        totals.async_checks += model.async_checks;
        totals.async_lost += model.async_lost;
        totals.lost_within = totals.lost_within.max(model.lost_within);
    }
    report(&format!("{kills} kills"), &totals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_no_synchronous_record_and_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, at) = (directory.path().join("image-0"), directory.path().join("disk"));
    let mounted = make_image(&image).and_then(|()| Mounted::new(&image, &at));
    let mut mounted = match mounted {
        Ok(mounted) => mounted,
        Err(why) => return skipped("power cuts", &format!("needs root, mkfs.ext4 and loop devices: {why}")),
    };
    let model = Arc::new(Mutex::new(Model::default()));
    let mut died = Instant::now();
    let cuts = rounds(POWER_CUTS.0, POWER_CUTS.1);
    for round in 1..=cuts {
        let process = Process::start(&at.join("data"));
        let channel = process.connect().await;
        if round == 1 {
            audit_load::prepare(&channel).await;
            signed_size(&channel, 1).await;
        } else {
            audit_load::verify(channel.clone(), &model, died).await;
        }
        let clients = audit_load::start(&channel, &model);
        tokio::time::sleep(Duration::from_millis(20 + round * 53 % 150)).await;
        audit_load::answered(&model, ANSWERED_BEFORE_A_CUT).await;
        process.signal("STOP");
        died = Instant::now();
        // Answers that are on their way count.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let after_cut = directory.path().join(format!("image-{round}"));
        std::fs::copy(&image, &after_cut).unwrap();
        process.kill();
        for client in clients {
            client.await.unwrap();
        }
        drop(mounted);
        std::fs::remove_file(&image).unwrap();
        image = after_cut;
        mounted = Mounted::new(&image, &at).unwrap();
        let verification = audit_load::verify_offline(&at.join("data"));
        assert!(verification.faults.is_empty(), "cut {round}: {:?}", verification.faults);
    }
    let process = Process::start(&at.join("data"));
    audit_load::verify(process.connect().await, &model, died).await;
    process.kill();
    report(&format!("{cuts} power cuts"), &model);
}
