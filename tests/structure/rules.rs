//! Who may name whom inside of `src`, other crates included; and that only the composition root picks adapters.
//!
//! Invariant: what is not on a list is a fault.
//! Not here: what the crates below `crates` depend on (`manifests`).

use std::collections::{BTreeMap, BTreeSet};

use crate::resolve::Target;
use crate::sources::{Crate, read_crate, repository, service};

/// A part of the service: a folder or a file below `src`, and what its files may name besides each other.
pub(crate) struct Part {
    /// The folder, or the file without `.rs`. Of nested parts the inner one comes first.
    pub(crate) name: &'static str,
    /// The parts that it may name.
    pub(crate) parts: &'static [&'static str],
    /// The crates that it may name, besides the standard library.
    pub(crate) crates: &'static [&'static str],
}

/// The import rule of ARCHITECTURE.md.
const PARTS: &[Part] = &[
    Part {
        name: "store/codec",
        parts: &[],
        crates: &["crc32c", "portcullis_audit", "portcullis_policy", "portcullis_proto", "prost", "thiserror"],
    },
    Part {
        name: "store",
        parts: &["locks"],
        crates: &["crc32c", "getrandom", "rustix", "sha2", "sled", "thiserror", "tracing", "zstd"],
    },
    Part {
        name: "engine",
        parts: &["lifeline", "locks", "store", "store/codec", "tally"],
        crates: &[
            "arc_swap",
            "crc32c",
            "foldhash",
            "getrandom",
            "portcullis_audit",
            "portcullis_policy",
            "rustix",
            "thiserror",
            "tokio",
            "tracing",
        ],
    },
    Part {
        name: "api",
        parts: &["engine", "locks", "tally"],
        crates: &[
            "crc32c",
            "getrandom",
            "http",
            "http_body",
            "jiff",
            "portcullis_audit",
            "portcullis_policy",
            "portcullis_proto",
            "prost",
            "prost_types",
            "tokio",
            "tokio_stream",
            "tonic",
            "tonic_types",
            "tower",
            "tracing",
        ],
    },
    Part { name: "config", parts: &[], crates: &["clap", "portcullis_policy", "strsim", "toml", "tracing_subscriber"] },
    Part { name: "telemetry", parts: &["config", "locks"], crates: &["tracing", "tracing_subscriber"] },
    Part {
        name: "server",
        parts: &["api", "config", "engine", "lifeline", "locks", "store", "tally"],
        crates: &[
            "anyhow",
            "getrandom",
            "http",
            "http_body",
            "http_body_util",
            "hyper",
            "hyper_util",
            "portcullis_audit",
            "portcullis_proto",
            "rustix",
            "sha2",
            "tokio",
            "tonic",
            "tonic_health",
            "tonic_reflection",
            "tower",
            "tracing",
        ],
    },
    Part {
        name: "cli",
        parts: &["config", "server", "telemetry"],
        crates: &["anyhow", "clap", "clap_complete", "portcullis_cli", "portcullis_proto", "tokio", "tracing"],
    },
    Part { name: "lifeline", parts: &[], crates: &["tokio", "tracing"] },
    Part { name: "locks", parts: &[], crates: &[] },
    Part { name: "tally", parts: &[], crates: &[] },
    Part { name: "lib", parts: &[], crates: &["portcullis_audit", "portcullis_policy", "portcullis_proto"] },
    Part { name: "main", parts: &[], crates: &["mimalloc", "portcullis"] },
];

/// Where adapters may be named: the composition root, and the store that defines them.
const PICKS_ADAPTERS: &[&str] = &["server", "store", "store/codec"];

/// Parts of the standard library that have no place in a pure crate: input, output, clocks, locks, threads.
const IMPURE: &[&str] = &["env", "fs", "io", "os", "process", "thread"];

/// The part that a file belongs to.
fn part_of<'a>(parts: &'a [Part], file: &str) -> Option<&'a Part> {
    let belongs = |part: &str| file.strip_prefix(part).is_some_and(|rest| rest.starts_with(['/', '.']));
    parts.iter().find(|part| belongs(part.name))
}

/// What the files name that no list permits.
pub(crate) fn faults_of(crate_: &Crate, parts: &[Part]) -> Vec<String> {
    // One for each file and what it names; the first path that does tells enough.
    let mut faults = BTreeMap::new();
    for (module, reference) in &crate_.references {
        let file = &crate_.modules[*module].file;
        let Some(part) = part_of(parts, file) else {
            faults.insert((file, String::new()), format!("{file} has no import rule: add one"));
            continue;
        };
        let written = reference.path.join("::");
        for target in crate_.resolve(*module, &reference.path) {
            let named = match &target {
                Target::Extern(name, _) if ["std", "core", "alloc"].contains(&name.as_str()) => continue,
                Target::Extern(name, _) if part.crates.contains(&name.as_str()) => continue,
                Target::Extern(name, _) => format!("the crate `{name}`"),
                // Its modules are what matters.
                Target::Module(0) => continue,
                Target::Module(_) | Target::Item(..) => {
                    let other = part_of(parts, crate_.file_of(&target).unwrap()).map_or("nothing", |part| part.name);
                    if other == part.name || part.parts.contains(&other) {
                        continue;
                    }
                    format!("`{other}`")
                }
            };
            let fault = format!("{file}: `{}` may not name {named}, here by `{written}`", part.name);
            faults.entry((file, named)).or_insert(fault);
        }
    }
    faults.into_values().collect()
}

/// What each part names: other parts and crates.
fn named_by(crate_: &Crate, parts: &'static [Part]) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut named: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (module, reference) in &crate_.references {
        let Some(part) = part_of(parts, &crate_.modules[*module].file) else { continue };
        for target in crate_.resolve(*module, &reference.path) {
            let name = match &target {
                Target::Extern(name, _) => name.clone(),
                _ => match part_of(parts, crate_.file_of(&target).unwrap()) {
                    Some(other) => other.name.to_owned(),
                    None => continue,
                },
            };
            named.entry(part.name).or_default().insert(name);
        }
    }
    named
}

#[test]
fn every_file_names_only_what_its_part_may() {
    let faults = faults_of(service(), PARTS);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_lists_permit_nothing_that_nobody_names() {
    let named = named_by(service(), PARTS);
    let mut unused = Vec::new();
    for part in PARTS {
        for &permitted in part.parts.iter().chain(part.crates) {
            if !named.get(part.name).is_some_and(|named| named.contains(permitted)) {
                unused.push(format!("`{}` does not name `{permitted}`: take it off its list", part.name));
            }
        }
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

/// The types below `store` that implement a port, which is a public trait below `store`.
pub(crate) fn adapters_of(crate_: &Crate) -> BTreeMap<Target, String> {
    let in_store = |target: &Target| crate_.file_of(target).is_some_and(|file| file.starts_with("store/"));
    let mut ports = BTreeSet::new();
    let mut implemented = Vec::new();
    for (number, module) in crate_.modules.iter().enumerate().filter(|(_, module)| module.file.starts_with("store/")) {
        let syntax = syn::parse_file(&crate_.texts[&module.file]).unwrap();
        for item in syntax.items {
            match item {
                syn::Item::Trait(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                    ports.insert(Target::Item(number, item.ident.to_string()));
                }
                syn::Item::Impl(item) => {
                    let (Some((port, _)), syn::Type::Path(of)) = (&item.trait_, &*item.self_ty) else { continue };
                    let written = |path: &syn::Path| {
                        path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>()
                    };
                    implemented.push((number, written(port), written(&of.path)));
                }
                _ => {}
            }
        }
    }
    let mut adapters = BTreeMap::new();
    for (module, port, of) in implemented {
        let is_port = crate_.resolve(module, &port).iter().any(|port| ports.contains(port));
        for of in crate_.resolve(module, &of).into_iter().filter(|of| is_port && in_store(of)) {
            if let Target::Item(_, name) = &of {
                let name = name.clone();
                adapters.insert(of, name);
            }
        }
    }
    adapters
}

#[test]
fn only_the_composition_root_picks_adapters() {
    let crate_ = service();
    let adapters = adapters_of(crate_);
    let names: BTreeSet<_> = adapters.values().map(String::as_str).collect();
    for known in ["FileJournal", "SledState", "FileSnapshots", "MemoryJournal", "RealDisk"] {
        assert!(names.contains(known), "`{known}` is an adapter and was not found to be one: {names:?}");
    }
    let mut faults = BTreeSet::new();
    for (module, reference) in &crate_.references {
        let file = &crate_.modules[*module].file;
        if part_of(PARTS, file).is_some_and(|part| PICKS_ADAPTERS.contains(&part.name)) {
            continue;
        }
        for target in crate_.resolve(*module, &reference.path) {
            if let Some(adapter) = adapters.get(&target) {
                faults.insert(format!("{file} names the adapter `{adapter}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_pure_crates_touch_nothing_outside_of_the_program() {
    let mut faults = BTreeSet::new();
    for folder in ["crates/policy", "crates/audit"] {
        let crate_ = read_crate(&repository().join(folder));
        for (module, reference) in &crate_.references {
            for target in crate_.resolve(*module, &reference.path) {
                let Target::Extern(name, rest) = target else { continue };
                let part = rest.first().map_or("", String::as_str);
                let is_clock = part == "time" && rest.get(1).is_some_and(|what| what != "Duration");
                if name == "std" && (IMPURE.contains(&part) || is_clock) && !reference.in_test {
                    let file = &crate_.modules[*module].file;
                    faults.insert(format!("{folder}/src/{file}: `{}`", reference.path.join("::")));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.into_iter().collect::<Vec<_>>().join("\n"));
}
