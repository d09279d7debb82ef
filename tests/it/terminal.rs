//! The program at a terminal: what it prints there, and what a person types.
//!
//! Invariant: the terminal is a real pseudo-terminal, so that the program finds out by itself that it has one.
//! Not here: what the program is to say.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::harness::Service;

/// What a run at a terminal ended with.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    /// The standard output, which is not the terminal.
    pub(crate) stdout: String,
    /// What the terminal shows: the standard error, and what was typed.
    pub(crate) shown: String,
}

/// Runs the program with a terminal for standard input and standard error. Once it has printed `question`, `then` runs and
/// `answer` is typed.
pub(crate) async fn run(
    service: &Service,
    arguments: &[&str],
    question: &'static str,
    answer: &'static str,
    then: impl AsyncFnOnce(),
) -> Ended {
    let (mut typing, terminal) = open();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).args(["--server", &service.address().to_string()]);
    command.stdin(terminal.try_clone().unwrap()).stderr(terminal).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The program alone holds the terminal, so that reading it ends with the program.
    drop(command);
    let mut reading = typing.try_clone().unwrap();
    let (asked, mut shown) = tokio::task::spawn_blocking(move || {
        let shown = read_until(&mut reading, question);
        (reading, shown)
    })
    .await
    .unwrap();
    if shown.contains(question) {
        then().await;
        typing.write_all(answer.as_bytes()).unwrap();
    }
    let mut asked = asked;
    tokio::task::spawn_blocking(move || {
        shown += &read_until(&mut asked, "\u{0}");
        let mut stdout = String::new();
        child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        Ended { status: child.wait().unwrap().code(), stdout, shown }
    })
    .await
    .unwrap()
}

/// A new terminal: the side of the person, and that of the program.
pub(crate) fn open() -> (File, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    (File::from(controller), OpenOptions::new().read(true).write(true).open(name).unwrap())
}

/// What the terminal shows until a text is there, or the program has ended, which Linux tells by an error.
pub(crate) fn read_until(reading: &mut File, end: &str) -> String {
    let mut shown = Vec::new();
    let mut part = [0; 4_096];
    while !String::from_utf8_lossy(&shown).contains(end) {
        match reading.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(length) => shown.extend_from_slice(&part[..length]),
        }
    }
    String::from_utf8_lossy(&shown).into_owned()
}
