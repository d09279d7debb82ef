//! What the crates may depend on, by their manifests: the compiler holds the rest.
//!
//! Invariant: a dependency that is not on a crate's list is a fault, and so is one on the service.
//! Not here: what the parts of the service may name (`rules`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::sources::{crate_folders, repository};

/// What the pure crates depend on, tests and build scripts included. Nothing in it does input or output, or waits.
const PURE: &[(&str, &[&str])] = &[
    ("portcullis-audit", &["base64", "ed25519-dalek", "portcullis-policy", "sha2", "thiserror"]),
    ("portcullis-policy", &["ipnet", "thiserror"]),
];

/// What each crate depends on of ours. No other crate may depend on any.
const OURS: &[(&str, &[&str])] = &[
    ("portcullis", &["portcullis-audit", "portcullis-cli", "portcullis-policy", "portcullis-proto"]),
    ("portcullis-audit", &["portcullis-policy"]),
    ("portcullis-cli", &["portcullis-client", "portcullis-policy", "portcullis-proto"]),
    ("portcullis-client", &["portcullis-proto"]),
    ("portcullis-policy", &[]),
    ("portcullis-proto", &[]),
];

/// The names of everything that a manifest depends on, by the table that says so.
fn dependencies(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut tables = vec![&manifest];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    tables.extend(targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table));
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = table.get(kind).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            found.entry(kind.to_owned()).or_default().extend(names.cloned());
        }
    }
    found
}

fn name_of(folder: &Path) -> String {
    let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["package"]["name"].as_str().unwrap().to_owned()
}

/// The crates that the sources of a folder may name, as they are written in code.
pub(crate) fn named_in_code(folder: &Path) -> Vec<String> {
    let mut found = dependencies(folder);
    found.remove("build-dependencies");
    let names = found.into_values().flatten().chain([name_of(folder)]);
    names.map(|name| name.replace('-', "_")).collect()
}

#[test]
fn the_pure_crates_depend_on_what_is_listed_and_nothing_else() {
    for (name, expected) in PURE {
        let folder = repository().join(name.replace("portcullis-", "crates/"));
        assert_eq!(name_of(&folder), *name);
        let mut found: Vec<_> = dependencies(&folder).into_values().flatten().collect();
        found.sort();
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn crates_depend_on_what_is_listed_of_ours() {
    let folders = crate_folders();
    let names: BTreeSet<_> = folders.iter().map(|folder| name_of(folder)).collect();
    assert_eq!(names, OURS.iter().map(|(name, _)| (*name).to_owned()).collect(), "a crate is not on the list");
    for folder in folders {
        let name = name_of(&folder);
        let ours: BTreeSet<_> =
            dependencies(&folder).into_values().flatten().filter(|depends| names.contains(depends)).collect();
        let (_, expected) = OURS.iter().find(|(known, _)| *known == name).unwrap();
        assert_eq!(ours, expected.iter().map(|name| (*name).to_owned()).collect(), "{name}");
    }
}
