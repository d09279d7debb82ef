//! h2load, of Debian's `nghttp2-client`: a client that nobody here wrote.
//!
//! One process sends one body only, so several run side by side, each with another: four users' previews, of which one is
//! denied. With one connection the body is another in every round. How many processes there are, and whether all send the
//! body of one user at one address, can be chosen.
//!
//! Invariant: all were answered with status 200 and as many messages came back as were sent; that they are decisions,
//! the other client has seen.
//! Not here: what is made of the figures (`report`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use portcullis::proto::v1::ConnectionType;
use prost::Message;

use super::report::Round;
use super::servers::{Role, Server};
use crate::portal::check_of;

/// Users whose Checks are sent.
const USERS: usize = 4;

/// Bytes of a decision at the least, with the five before it.
const MESSAGE_BYTES_MIN: usize = 5 + 2;

/// What is chosen of the load.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Processes that run side by side, where there are that many connections.
    pub(crate) processes: usize,
    /// All processes send the Check of one user at one address. Its sessions have one lock in the server.
    pub(crate) one_user: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { processes: USERS, one_user: false }
    }
}

/// Files with bodies.
pub(crate) struct Bodies {
    directory: tempfile::TempDir,
    load: Load,
}

/// Whether it is installed.
pub(crate) fn is_there() -> bool {
    Command::new("h2load").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Bodies {
    pub(crate) fn write(load: Load) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..USERS {
            // The first is denied.
            let user = if load.one_user { 1 } else { u32::try_from(number).unwrap() };
            let request = check_of(user, user * 16, ConnectionType::Preview);
            let message = request.encode_to_vec();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            std::fs::write(Self::path(directory.path(), number), [&[0][..], &length, &message].concat()).unwrap();
        }
        Self { directory, load }
    }

    fn path(directory: &Path, number: usize) -> PathBuf {
        directory.join(format!("body-{number}"))
    }
}

/// Bytes of all messages that came back, as h2load prints them: `… (123) data`.
fn data_bytes(printed: &str) -> usize {
    let (before, _) = printed.rsplit_once(") data").unwrap();
    before.rsplit_once('(').unwrap().1.parse().unwrap()
}

/// Asks so often in all; the first round is `turn` 0.
pub(crate) fn round(
    server: &Server,
    bodies: &Bodies,
    (connections, in_flight): (usize, usize),
    requests: usize,
    turn: usize,
) -> Round {
    let processes = connections.min(bodies.load.processes);
    let (begun, processor) = (Instant::now(), server.processor());
    let running: Vec<(Child, PathBuf)> = (0..processes)
        .map(|number| {
            let log = bodies.directory.path().join(format!("log-{number}"));
            drop(std::fs::remove_file(&log));
            let body = Bodies::path(bodies.directory.path(), (number + turn) % USERS);
            let mut command = Command::new("h2load");
            command
                .args(["-t", "1", "-n", &(requests / processes).to_string()])
                .args(["-c", &(connections / processes).to_string(), "-m", &in_flight.to_string()])
                .arg("-d")
                .arg(body)
                .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
                .arg(format!("--log-file={}", log.display()));
            if server.role == Role::Socket {
                command.arg("-B").arg(format!("unix:{}", server.socket().display()));
            }
            command.arg(format!("http://{}/portcullis.v1.DecisionService/Check", server.address));
            (command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap(), log)
        })
        .collect();
    let mut times = Vec::with_capacity(requests);
    // It prints less than a pipe takes, so none waits for being read.
    let ended: Vec<(Output, PathBuf)> =
        running.into_iter().map(|(process, log)| (process.wait_with_output().unwrap(), log)).collect();
    let (elapsed, used): (Duration, Duration) = (begun.elapsed(), server.processor().saturating_sub(processor));
    for (output, log) in ended {
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        // An error of gRPC has status 200 too, but no message.
        assert!(data_bytes(&printed) >= requests / processes * MESSAGE_BYTES_MIN, "{printed}");
        for line in std::fs::read_to_string(log).unwrap().lines() {
            // When it began, the status, how long it took in microseconds.
            let mut fields = line.split('\t').skip(1);
            assert_eq!(fields.next(), Some("200"), "{line}");
            times.push(fields.next().unwrap().parse().unwrap());
        }
    }
    assert_eq!(times.len(), requests / processes * processes);
    Round::new(times, elapsed, used)
}
