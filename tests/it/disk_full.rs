//! Starts on a file system that is full: what is set aside for them is theirs.
//!
//! Invariant: the file system is a small one in memory, seen by the test's own processes only; where the system lets
//! nobody mount one, the test says that it was skipped.
//! Not here: a disk that fills up or fails under a running service (`audit_disk`, `engine`).

use std::path::Path;
use std::process::{Command, Output};

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

fn run(directory: &Path) -> std::io::Result<Output> {
    let script = ["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"];
    Command::new("unshare").args(script).arg(directory).arg(env!("CARGO_BIN_EXE_portcullis")).output()
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
