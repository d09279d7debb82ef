//! How files begin, and how long they are.
//!
//! Invariant: every file of every crate opens with what it is, what holds and what is elsewhere, and is short.
//! Not here: what they name (`rules`).

use crate::sources::{crate_folders, repository, texts};

/// Lines of a file at most. A file that wants more wants a better cut.
const LINES_MAX: usize = 400;

/// Roots: what holds in a whole crate may stand in its parts.
const ROOTS: &[&str] = &["src/lib.rs", "src/main.rs"];

fn all_texts() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for folder in crate_folders() {
        let within = folder.strip_prefix(repository()).unwrap().join("src");
        for (file, text) in texts(&folder) {
            all.push((within.join(file).to_string_lossy().into_owned(), text));
        }
    }
    assert!(all.len() > 200, "the sources were not found");
    all
}

#[test]
fn every_file_says_what_it_is_what_holds_and_what_is_elsewhere() {
    let mut faults = Vec::new();
    for (file, text) in all_texts() {
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let head = head.join("\n");
        if head.is_empty() {
            faults.push(format!("{file} does not open with what it is"));
        } else if !ROOTS.contains(&file.as_str()) {
            if !head.contains("nvariant:") {
                faults.push(format!("{file} names no invariant"));
            }
            if !head.contains("Not here:") {
                faults.push(format!("{file} does not say what it leaves to others"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_stay_small_enough_to_be_read() {
    let texts = all_texts();
    let lines = texts.iter().map(|(file, text)| (file, text.lines().count())).filter(|(_, lines)| *lines > LINES_MAX);
    let faults: Vec<_> = lines.map(|(file, lines)| format!("{file} has {lines} lines: find a better cut")).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
