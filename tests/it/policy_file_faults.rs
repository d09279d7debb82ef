//! Faulty policy files, and exactly what is said of each: place, path and text of every fault.
//!
//! The hazard: a fault that is shown at the wrong line, or only after the one before it was mended; a fault that is no
//! fault, because it follows from another.
//!
//! The cases are in `policy_file_faults.txt`: a line `=== name`, the file, a line `---`, what is printed for the file.

use std::io::Write;
use std::process::{Command, Stdio};

const CASES: &str = include_str!("policy_file_faults.txt");

/// An address that nobody listens on: faults of a file are told without a server.
const NOBODY: &str = "127.0.0.1:1";

/// The status, and what is printed on the standard error.
fn planned(file: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["policy", "plan", "-", "--server", NOBODY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_fault_of_a_file_is_told_once_at_its_place() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in CASES.split("\n=== ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (file, expected) = rest.split_once("\n--- says\n").unwrap();
        // Tabs, NUL and the missing last line break of a file are written visibly.
        let file = format!("{file}\n").replace("<TAB>", "\t").replace("<NUL>", "\0");
        let (status, told) = planned(&file);
        if (status, told.trim_end()) != (Some(2), expected.trim_end()) {
            wrong.push(format!("=== {name}\n{file}--- says, with {status:?}\n{told}"));
        }
        count += 1;
    }
    assert!(count >= 30, "{count} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The hazard: a file that an editor saved in another encoding is refused without a word of where.
#[test]
fn a_file_that_is_no_text_is_refused_at_its_place() {
    let file = std::env::temp_dir().join(format!("portcullis-not-utf8-{}.yaml", std::process::id()));
    std::fs::write(&file, b"rules:\n  - {action: deny, range: \"\xff\"}\n").unwrap();
    let path = file.to_str().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["policy", "plan", path, "--server", NOBODY])
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(&format!("{path}:2:28: the file is not a text in UTF-8")), "{told}");
}
