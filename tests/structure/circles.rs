//! Files that import each other in a circle.
//!
//! A file imports the file that *defines* what it names. So:
//! * `mod child;` and a re-export (`pub use`) are no imports: whoever names the re-export imports the file behind it.
//! * `super::Name` imports the `mod.rs` only where that defines `Name`, not where it passes it on.
//! * A `mod.rs` and the files below its folder belong together: it has the type and the words, they have the parts. So
//!   what a file names of a `mod.rs` around it is left out; a circle between two children is not.
//! * What only tests name is left out: a file and its test may know each other.
//!
//! Invariant: there is none.
//! Not here: which part may name which (`rules`).

use std::collections::{BTreeMap, BTreeSet};

use crate::references::How;
use crate::resolve::Target;
use crate::sources::{Crate, crate_folders, read_crate, repository};

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
fn no_files_import_each_other_in_a_circle() {
    let mut faults = Vec::new();
    for folder in crate_folders() {
        let imports = imports(&read_crate(&folder));
        let within = folder.strip_prefix(repository()).unwrap().join("src");
        for circle in circles(&imports) {
            let named: Vec<_> = circle.iter().map(|file| within.join(file).to_string_lossy().into_owned()).collect();
            faults.push(format!("{} files import each other in a circle: {named:?}", named.len()));
            for file in &circle {
                for (other, path) in imports[file].iter().filter(|(other, _)| circle.contains(other)) {
                    faults.push(format!("    {file} → {other} by `{path}`"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
