//! The structure of the sources: who may name what, and how files begin.
//!
//! Invariant: the import rule of ARCHITECTURE.md holds for every file below `src`, tests inside of them included.
//! Not here: what a compiler or clippy checks.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test that meets the unexpected must fail, and helpers are outside of #[test] functions"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// For each part of the program: parts it may name, and crates it may not.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("locks", &[], &[]),
    ("store/codec", &["store", "policy", "audit", "proto"], &["tokio", "tonic", "sled", "anyhow", "arc_swap"]),
    ("store", &["store", "locks"], &["tokio", "tonic", "prost", "anyhow", "arc_swap"]),
    ("engine", &["engine", "locks", "policy", "store", "audit"], &["tonic", "prost", "sled", "anyhow", "http"]),
    ("api", &["api", "locks", "engine", "policy", "audit", "proto"], &["sled", "anyhow"]),
    ("config", &["config", "policy"], &["tonic", "prost", "sled", "tokio"]),
    ("telemetry", &["config", "telemetry"], &["tonic", "prost", "sled"]),
    (
        "server",
        &["server", "locks", "api", "engine", "policy", "store", "audit", "config", "proto"],
        &["prost", "sled"],
    ),
    ("cli", &["cli", "config", "proto", "server", "telemetry", "policy"], &["sled"]),
];

/// Lines of a file at most. A file that wants more wants a better cut.
const LINES_MAX: usize = 450;

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                files.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(files.len() > 40, "the sources were not found");
    files
}

/// The rule of the most specific part that a file belongs to.
fn rule_of(file: &str) -> Option<&'static (&'static str, &'static [&'static str], &'static [&'static str])> {
    let belongs = |part: &str| file.strip_prefix(part).is_some_and(|rest| rest.starts_with(['/', '.']));
    RULES.iter().find(|(part, _, _)| belongs(part))
}

/// Names that follow `prefix` wherever it stands for itself in the code.
fn names_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        let stands_alone = before.is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':');
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        stands_alone.then(|| &rest[..end])
    })
}

fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_file_names_only_what_the_import_rule_permits() {
    let mut faults = Vec::new();
    for (file, text) in sources() {
        let Some((part, parts, crates)) = rule_of(&file) else {
            assert!(["lib.rs", "main.rs"].contains(&file.as_str()), "`src/{file}` has no import rule: add one");
            continue;
        };
        let code = code(&text);
        for named in names_after(&code, "crate::") {
            if !named.is_empty() && !parts.contains(&named) {
                faults.push(format!("src/{file}: `{part}` may not name `crate::{named}`"));
            }
        }
        for forbidden in *crates {
            let path = format!("{forbidden}::");
            let is_adapter = *forbidden == "sled" && file == "store/state/sled.rs";
            if !is_adapter && names_after(&code, &path).next().is_some() {
                faults.push(format!("src/{file}: `{part}` may not name `{forbidden}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_the_composition_root_picks_adapters() {
    let adapters = ["FileJournal", "SledState", "FileSnapshots", "MemoryState", "MemoryJournal", "RealDisk"];
    for (file, text) in sources() {
        if file.starts_with("server/") || file.starts_with("store/") {
            continue;
        }
        for adapter in adapters {
            assert!(!code(&text).contains(adapter), "src/{file} names the adapter `{adapter}`");
        }
    }
}

#[test]
fn every_file_says_what_it_is_what_holds_and_what_is_elsewhere() {
    for (file, text) in sources() {
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(!head.is_empty(), "src/{file} does not open with what it is");
        if file == "lib.rs" || file == "main.rs" {
            continue;
        }
        let head = head.join("\n");
        assert!(head.contains("nvariant:"), "src/{file} names no invariant");
        assert!(
            head.contains("Not here:") || head.contains("not do"),
            "src/{file} does not say what it leaves to others"
        );
    }
}

#[test]
fn files_stay_small_enough_to_be_read() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "src/{file} has {lines} lines: {LINES_MAX} at most, find a better cut");
    }
}
