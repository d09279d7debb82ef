//! Files that import each other in a circle.
//!
//! A file imports the file that *defines* what it names. So:
//! * `mod child;` and a re-export (`pub use`) are no imports: whoever names the re-export imports the file behind it.
//! * `super::Name` imports the `mod.rs` only where that defines `Name`, not where it passes it on.
//! * A `mod.rs` and the files below its folder belong together: it has the type and the words, they have the parts. So
//!   what a file names of a `mod.rs` around it is left out; a circle between two children is not.
//! * What only tests name is left out: a file and its test may know each other.
//!
//! Invariant: the list of known circles only shrinks.
//! Not here: which part may name which (`rules`).

use std::collections::{BTreeMap, BTreeSet};

use crate::references::How;
use crate::resolve::Target;
use crate::sources::{Crate, crate_folders, read_crate, repository};

/// Circles that are still there. What is left of one may be smaller than listed.
const KNOWN: &[&[&str]] = &[
    &["src/api/convert/audit.rs", "src/api/convert/policy_test.rs", "src/api/decision.rs", "src/api/sessions.rs"],
    &["src/api/permitted.rs", "src/api/problems.rs"],
    &["src/cli/json/analysis.rs", "src/cli/json/audit.rs"],
    &[
        "src/engine/audit/committer.rs",
        "src/engine/audit/erasing.rs",
        "src/engine/audit/pipeline.rs",
        "src/engine/audit/placer.rs",
        "src/engine/audit/pruning.rs",
        "src/engine/audit/queue.rs",
        "src/engine/audit/recovery.rs",
        "src/engine/audit/sealer.rs",
        "src/engine/audit/writer.rs",
    ],
    &["src/engine/audit/verify.rs", "src/engine/audit/verify_unit.rs"],
    &[
        "src/engine/batch.rs",
        "src/engine/begun.rs",
        "src/engine/check.rs",
        "src/engine/directory.rs",
        "src/engine/shadow.rs",
    ],
    &["src/engine/change.rs", "src/engine/unconfirmed.rs", "src/engine/writer.rs"],
    &["src/engine/follower.rs", "src/engine/recovery.rs"],
    &["src/server/connections.rs", "src/server/cores.rs", "src/server/http2.rs"],
    &["src/store/codec/audit/entry.rs", "src/store/codec/audit/session.rs", "src/store/codec/audit/wire.rs"],
    &[
        "crates/policy/src/change.rs",
        "crates/policy/src/firewall.rs",
        "crates/policy/src/gates.rs",
        "crates/policy/src/impact.rs",
        "crates/policy/src/members.rs",
        "crates/policy/src/node.rs",
        "crates/policy/src/node_index.rs",
        "crates/policy/src/organization.rs",
        "crates/policy/src/policy_test.rs",
        "crates/policy/src/snapshot.rs",
        "crates/policy/src/version.rs",
    ],
];

/// For each file the files that it imports, and one path by which it does.
pub(crate) type Imports = BTreeMap<String, BTreeMap<String, String>>;

/// What the files of a crate import of each other.
pub(crate) fn imports(crate_: &Crate) -> Imports {
    let mut imports = Imports::new();
    for (module, reference) in &crate_.references {
        if reference.in_test || reference.how == How::ReExport {
            continue;
        }
        let file = &crate_.modules[*module].file;
        for target in crate_.resolve(*module, &reference.path) {
            let Target::Item(defines, _) = target else { continue };
            let defines = &crate_.modules[defines].file;
            if defines != file && !is_around(defines, file) {
                let of_file = imports.entry(file.clone()).or_default();
                of_file.entry(defines.clone()).or_insert_with(|| reference.path.join("::"));
            }
        }
    }
    imports
}

/// Whether a file is the `mod.rs` of a folder that the other lies in, at any depth.
fn is_around(parent: &str, file: &str) -> bool {
    parent.strip_suffix("mod.rs").is_some_and(|folder| file.starts_with(folder))
}

/// The circles: sets of files of which each reaches each other.
pub(crate) fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reached(imports, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reach {
        if others.contains(file) {
            let back = others.iter().filter(|other| reach.get(*other).is_some_and(|reached| reached.contains(file)));
            circles.insert(back.map(|other| (*other).clone()).collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

fn reached<'a>(imports: &'a Imports, from: &String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut to_visit: Vec<_> = imports.get(from).into_iter().flat_map(BTreeMap::keys).collect();
    while let Some(file) = to_visit.pop() {
        if found.insert(file) {
            to_visit.extend(imports.get(file).into_iter().flat_map(BTreeMap::keys));
        }
    }
    found
}

#[test]
#[expect(clippy::print_stdout, reason = "what is still to be cut is to be seen")]
fn no_files_import_each_other_in_a_circle() {
    let mut faults = Vec::new();
    let mut gone: BTreeSet<&[&str]> = KNOWN.iter().copied().collect();
    for folder in crate_folders() {
        let imports = imports(&read_crate(&folder));
        let within = folder.strip_prefix(repository()).unwrap().join("src");
        for circle in circles(&imports) {
            let named: Vec<_> = circle.iter().map(|file| within.join(file).to_string_lossy().into_owned()).collect();
            if let Some(known) = KNOWN.iter().find(|known| named.iter().all(|file| known.contains(&file.as_str()))) {
                println!("known: {} files import each other in a circle: {named:?}", named.len());
                gone.remove(known);
                continue;
            }
            faults.push(format!("{} files import each other in a circle: {named:?}", named.len()));
            for file in &circle {
                for (other, path) in imports[file].iter().filter(|(other, _)| circle.contains(other)) {
                    faults.push(format!("    {file} → {other} by `{path}`"));
                }
            }
        }
    }
    faults.extend(gone.iter().map(|circle| format!("no circle any more, take it off the list: {circle:?}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
