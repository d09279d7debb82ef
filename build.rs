//! Tells the program which commit it was built from, for `portcullis --version`.
//!
//! `PORTCULLIS_COMMIT` names it where the sources are no checkout, such as in an image. Otherwise git is asked, for
//! release builds only: a development build would be made anew after every commit.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PORTCULLIS_COMMIT");
    let commit = match env::var("PORTCULLIS_COMMIT") {
        Ok(commit) => Some(commit).filter(|commit| !commit.is_empty()),
        Err(_) if env::var("PROFILE").as_deref() == Ok("release") => commit_of_checkout(),
        Err(_) => None,
    };
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = commit.map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=PORTCULLIS_VERSION={version}");
}

/// The commit that is checked out; none where git cannot tell.
fn commit_of_checkout() -> Option<String> {
    println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git prints; none where it is missing or refuses.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
