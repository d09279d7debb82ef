//! Power cuts: what was written and not synced is gone.
//!
//! A file system on a loop device; the service is stopped in the middle of its work, and the image that backs the
//! device, which has only what the kernel has sent to the "disk", is copied. The copy is what a machine finds after a
//! power cut.
//!
//! Invariant: every acknowledged change is there afterwards, in order, with no revision skipped or used twice.
//! Not here: disks that fail at a chosen operation (`store_journal_crash`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::campaign::rounds;
use crate::load::{self, Acknowledged};
use crate::process::{Process, skipped};

/// Power cuts in the short form and in the long one.
const POWER_CUTS: (u64, u64) = (6, 20);

/// Changes that are acknowledged in a round, at least.
const CHANGES_OF_A_ROUND: usize = 8;
const IMAGE_BYTES: u64 = 96 * 1024 * 1024;

/// A mounted image; unmounted when dropped.
pub(crate) struct Mounted {
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
}

impl Mounted {
    pub(crate) fn new(image: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()])?;
        Ok(Self { at: at.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A killed process may hold the file system for a moment.
        for _ in 0..50 {
            if run("umount", &[self.at.to_str().unwrap()]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

pub(crate) fn make_image(path: &Path) -> Result<(), String> {
    let file = std::fs::File::create(path).map_err(|error| error.to_string())?;
    file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
    run("mkfs.ext4", &["-q", "-F", path.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_change_is_lost_by_power_cuts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, at) = (directory.path().join("image-0"), directory.path().join("disk"));
    let mounted = make_image(&image).and_then(|()| Mounted::new(&image, &at));
    let mut mounted = match mounted {
        Ok(mounted) => mounted,
        Err(why) => return skipped("power cuts", &format!("needs root, mkfs.ext4 and loop devices: {why}")),
    };
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 1..=rounds(POWER_CUTS.0, POWER_CUTS.1) {
        let process = Process::start(&at.join("data"));
        let channel = process.connect().await;
        if round == 1 {
            load::prepare(channel.clone()).await;
        } else {
            load::verify(channel.clone(), &acknowledged).await;
        }
        let before = load::count(&acknowledged);
        let clients = load::start(&channel, &acknowledged);
        tokio::time::sleep(Duration::from_millis(20 + round * 53 % 150)).await;
        load::acknowledged(&acknowledged, before + CHANGES_OF_A_ROUND).await;
        process.signal("STOP");
        // Answers that are on their way count as acknowledged.
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
    }
    let process = Process::start(&at.join("data"));
    load::verify(process.connect().await, &acknowledged).await;
    process.kill();
}
