//! Starts and ends on a file system that is full: what is set aside for them is theirs.
//!
//! Invariant: the file system is a small one in memory, seen by the test's own processes only; where the system lets
//! nobody mount one, the test says that it was skipped.
//! Not here: a disk that fills up or fails under a running service (`audit_disk`, `engine`).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{BatchCheckRequest, ConnectionType};
use tonic::transport::{Channel, Endpoint};

use crate::audit_api::check_of;
use crate::audit_engine::DEFAULT;
use crate::clock::until;

/// Starts and asks the service three times: with room, without any, and with room again. `$1`: a directory, `$2`: the
/// program. It prints how that went; all else goes to a log.
const SCRIPT: &str = r#"
set -u
disk=$1/disk log=$1/log binary=$2 socket=$1/socket
program() { "$binary" --server "unix:$socket" "$@" >>"$log" 2>&1; }
start() {
    "$binary" serve --listen 127.0.0.1:0 --listen-unix "$socket" --data-dir "$disk/data" >>"$log" 2>&1 &
    service=$! patience=1200
    until program check-health; do
        patience=$((patience - 1))
        kill -0 "$service" 2>/dev/null || { echo "$1: not served"; return; }
        test "$patience" -gt 0 || { echo "$1: not healthy within a minute"; kill -9 "$service"; return; }
        sleep 0.05
    done
    program check --ip 192.0.2.1 --type shell --endpoint organizations/default && answer=allowed || answer=$?
    test -e "$disk/data/ballast" && ballast=there || ballast=gone
    echo "$1: $answer, ballast $ballast"
    kill "$service"
    wait "$service"
}
mkdir "$disk"
mount -t tmpfs -o size=16m none "$disk" || exit
echo "mounted"
start "with room"
dd if=/dev/zero of="$disk/fill" bs=4096 >>"$log" 2>&1
start "full"
rm "$disk/fill"
start "with room again"
"#;

/// Serves, fills the disk after a line of input, and ends the service after another.
const ENDING: &str = r#"
set -u
disk=$1/disk log=$1/log
mkdir "$disk"
mount -t tmpfs -o size=24m none "$disk" || exit
echo "mounted"
"$2" serve --listen 127.0.0.1:0 --listen-unix "$1/socket" --data-dir "$disk/data" --drain-timeout 1s \
    --audit-async-interval 1s >>"$log" 2>&1 &
service=$!
read -r _
dd if=/dev/zero of="$disk/fill" bs=4096 2>/dev/null
echo "full"
read -r _
kill "$service"
wait "$service" && status=0 || status=$?
test -e "$disk/data/ballast" && ballast=there || ballast=gone
echo "ended with $status, ballast $ballast"
"#;

fn unshared(script: &str, directory: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(directory).arg(env!("CARGO_BIN_EXE_portcullis"));
    command
}

fn run(directory: &Path) -> std::io::Result<Output> {
    unshared(SCRIPT, directory).output()
}

/// Asks for previews whose records wait in memory.
async fn preview(channel: &Channel, count: usize) {
    let request = |number: usize| {
        let email = format!("user-{number}@example.com");
        check_of(&email, "192.0.2.1", ConnectionType::Preview, DEFAULT)
    };
    let requests = (0..count).map(request).collect();
    DecisionServiceClient::new(channel.clone()).batch_check(BatchCheckRequest { requests }).await.unwrap();
}

/// Ends a service that has answered so many previews on a full disk. How that went, and its log; none where no file system
/// can be mounted.
async fn end_when_full(batches: &[usize]) -> Option<(String, String)> {
    let directory = tempfile::tempdir().unwrap();
    let mut command = unshared(ENDING, directory.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let (mut input, mut lines) = (child.stdin.take()?, BufReader::new(child.stdout.take()?).lines());
    if lines.next()?.unwrap() != "mounted" {
        child.wait().unwrap();
        return None;
    }
    let socket = format!("unix:{}", directory.path().join("socket").display());
    let endpoint = Endpoint::from_shared(socket).unwrap();
    let channel = until("the socket", async || endpoint.connect().await.ok()).await;
    until("a decision", async || {
        let check = check_of("first@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT);
        DecisionServiceClient::new(channel.clone()).check(check).await.ok()
    })
    .await;
    writeln!(input).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "full");
    for count in batches {
        preview(&channel, *count).await;
    }
    writeln!(input).unwrap();
    let ended = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap();
    child.wait().unwrap();
    Some((ended, std::fs::read_to_string(directory.path().join("log")).unwrap()))
}

#[test]
#[expect(clippy::print_stdout, reason = "a test that could not run says so")]
fn a_start_on_a_full_disk_lives_on_the_ballast_and_takes_it_back_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let output = match run(directory.path()) {
        Ok(output) if output.stdout.starts_with(b"mounted") => output,
        failed => return println!("skipped: no file system can be mounted here: {failed:?}"),
    };
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let expected = "mounted\n\
                    with room: allowed, ballast there\n\
                    full: allowed, ballast gone\n\
                    with room again: allowed, ballast there\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "a test that could not run says so")]
async fn an_end_on_a_full_disk_writes_the_last_records_with_the_ballast_or_says_how_many_are_lost() {
    let Some((ended, log)) = end_when_full(&[3_000]).await else {
        return println!("skipped: no file system can be mounted here");
    };
    assert_eq!(ended, "ended with 0, ballast gone", "{log}");
    assert!(log.contains("the ballast is removed to make room") && log.contains("stopped"), "{log}");
    let (ended, log) = end_when_full(&[6_000; 4]).await.unwrap();
    assert_eq!(ended, "ended with 1, ballast gone", "{log}");
    assert!(log.contains(" decisions could not be recorded"), "{log}");
    assert!(!log.contains("stopped"), "{log}");
}
