//! The generated documents: `docs/` says what the program says.
//!
//! Invariant: a document that differs from what the program makes fails; `just docs` writes it anew.
//! Not here: documents that people write.
#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must fail")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use portcullis::cli::{Cli, reference};

/// Compares a document with what the program makes, or writes it where `PORTCULLIS_WRITE_DOCS` is set.
fn current(path: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, generated).unwrap();
        return;
    }
    let written = fs::read_to_string(file).unwrap_or_default();
    let differs = written.lines().zip(generated.lines()).position(|(written, generated)| written != generated);
    assert!(written == generated, "{path} is not current, see line {:?}: run `just docs`", differs.map(|at| at + 1));
}

#[test]
fn cli_reference_is_current() {
    current("docs/cli.md", &reference());
}

#[test]
fn configuration_reference_is_current() {
    current("docs/configuration.md", &portcullis::config::reference());
}

/// The command lines of the examples.
fn examples(reference: &str) -> impl Iterator<Item = &str> {
    reference.lines().filter_map(|line| line.strip_prefix("$ "))
}

/// The words of a command line, up to where a shell does something else with what is printed.
fn words(line: &str) -> Vec<OsString> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, '>' | '|') => break,
            (None, ' ') => words.push(String::new()),
            (_, character) => words.last_mut().unwrap().push(character),
        }
    }
    words.into_iter().filter(|word| !word.is_empty()).map(OsString::from).collect()
}

/// The hazard: an example with a flag that was renamed.
#[test]
fn every_example_is_parsed() {
    let reference = reference();
    for example in examples(&reference) {
        assert!(Cli::try_from_args(words(example)).is_ok(), "{example}");
    }
}

#[test]
fn every_command_has_an_example() {
    fn check(command: &clap::Command, path: &str, reference: &str) {
        let path = format!("{path}{} ", command.get_name());
        if command.get_subcommands().next().is_none() {
            let mut examples = examples(reference).map(|example| format!("{example} "));
            assert!(examples.any(|example| example.starts_with(&path)), "{path}");
        }
        command.get_subcommands().for_each(|below| check(below, &path, reference));
    }
    check(&Cli::command(), "", &reference());
}
