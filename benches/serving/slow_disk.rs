//! What callers see while the disk does not answer: the file system below the data directory is frozen again and again.
//!
//! Invariant: the file system is thawed and unmounted when this ends, also by a panic. Where it is killed meanwhile, run
//! `fsfreeze -u` and `umount` on the directory `disk` below the temporary one.
//! Not here: what becomes of the records (`tests/it/audit_disk.rs`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use tonic::Code;

use super::report::at;
use super::servers::Server;
use crate::portal::nth_check;

/// How long a Check may wait for the disk.
const DEADLINE: Duration = Duration::from_millis(200);

/// Connections, and Checks in flight on each.
const LOAD: (usize, usize) = (8, 4);

/// How often the disk is frozen, for how long, and how long it is left alone.
const FREEZES: usize = 6;
const FROZEN: Duration = Duration::from_millis(700);
const THAWED: Duration = Duration::from_millis(800);

const IMAGE_BYTES: u64 = 512 << 20;

/// A file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(directory: &Path) -> Result<Self, String> {
        let (image, at) = (directory.join("image"), directory.join("disk"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        run("mkfs.ext4", &["-q", "-F"], &[&image])?;
        run("mount", &["-o", "loop"], &[&image, &at])?;
        let disk = Self(at);
        disk.freeze("-f")?;
        disk.freeze("-u")?;
        Ok(disk)
    }

    fn freeze(&self, how: &str) -> Result<(), String> {
        run("fsfreeze", &[how], &[&self.0])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.freeze("-u"));
        // The server that was killed may hold it for a moment.
        for _ in 0..100 {
            if run("umount", &[], &[&self.0]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(run("umount", &["-l"], &[&self.0]));
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = || format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// Microseconds of the Checks that were answered, and of those that were refused.
#[derive(Default)]
struct Times {
    answered: Vec<u128>,
    refused: Vec<u128>,
}

async fn ask(
    mut client: DecisionServiceClient<tonic::transport::Channel>,
    worker: u32,
    stop: Arc<AtomicBool>,
) -> Times {
    let (mut times, mut number) = (Times::default(), worker.wrapping_mul(7_919));
    while !stop.load(Ordering::Relaxed) {
        number = number.wrapping_add(1);
        let begun = Instant::now();
        let answer = client.check(nth_check(number)).await;
        let took = begun.elapsed().as_micros();
        match answer {
            Ok(_) => times.answered.push(took),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                times.refused.push(took);
                // As a portal would, which has refused the connection.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    times
}

fn print(what: &str, mut times: Vec<u128>) {
    times.sort_unstable();
    let [p50, p99, greatest] = [500, 990, 1_000].map(|per_mille| at(&times, per_mille));
    println!("| {what} | {} | {p50} | {p99} | {greatest} |", times.len());
}

/// Freezes the disk below a server that waits for it, and prints how long its callers wait.
pub(crate) async fn measure() {
    let directory = tempfile::tempdir().unwrap();
    let disk = match Disk::mount(directory.path()) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: the slow disk needs root, loop devices, mkfs.ext4 and fsfreeze: {why}"),
    };
    let server = Server::start_at(&disk.0.join("data"), DEADLINE);
    server.prepare().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = server.connect(LOAD.0).await.into_iter().flat_map(|channel| vec![channel; LOAD.1]);
    let clients = clients
        .zip(0..)
        .map(|(channel, worker)| tokio::spawn(ask(DecisionServiceClient::new(channel), worker, Arc::clone(&stop))));
    let clients: Vec<_> = clients.collect();
    for _ in 0..FREEZES {
        tokio::time::sleep(THAWED).await;
        disk.freeze("-f").unwrap();
        tokio::time::sleep(FROZEN).await;
        disk.freeze("-u").unwrap();
    }
    tokio::time::sleep(THAWED).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Times::default();
    for client in clients {
        let Times { answered, refused } = client.await.unwrap();
        times.answered.extend(answered);
        times.refused.extend(refused);
    }
    println!("the disk does not answer for {FROZEN:?} again and again; `audit_deadline` is {DEADLINE:?}; `sync`");
    println!("| Checks | count | p50 µs | p99 µs | greatest µs |\n|---|---|---|---|---|");
    print("answered", times.answered.clone());
    print("refused", times.refused.clone());
    print("all", [times.answered, times.refused].concat());
}
