//! From a path to what it names, as the compiler goes: `crate`, `self`, `super`, then the names of the module, then the
//! crates of the manifest.
//!
//! Invariant: a re-export leads to the file that defines what is behind it.
//! Not here: types. What a method is called on, or what an associated type is, has no path.

use crate::sources::{Crate, Name};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A module of this crate: its number.
    Module(usize),
    /// Something that a module of this crate defines: its number, and the name.
    Item(usize, String),
    /// Another crate: its name, and the rest of the path.
    Extern(String, Vec<String>),
}

/// Imports that lead through each other, at most. More are a circle of names, which leads nowhere.
const DEPTH_MAX: usize = 24;

impl Crate {
    /// What a path in a module leads to; nothing for what is local, generic or in the prelude. A name may stand for a
    /// module and an item at once: then both.
    pub(crate) fn resolve(&self, module: usize, path: &[String]) -> Vec<Target> {
        let mut targets = self.resolve_within(module, path, DEPTH_MAX);
        targets.sort();
        targets.dedup();
        targets
    }

    /// The file that defines a target of this crate.
    pub(crate) fn file_of<'a>(&'a self, target: &Target) -> Option<&'a str> {
        match target {
            Target::Module(module) | Target::Item(module, _) => Some(&self.modules[*module].file),
            Target::Extern(..) => None,
        }
    }

    fn resolve_within(&self, module: usize, path: &[String], depth: usize) -> Vec<Target> {
        let Some((first, mut rest)) = path.split_first() else { return Vec::new() };
        if depth == 0 {
            return Vec::new();
        }
        let begins = match first.as_str() {
            "crate" => vec![Target::Module(self.root_of(module))],
            "self" | "super" => {
                let mut at = if first == "self" { Some(module) } else { self.modules[module].parent };
                while let Some((next, after)) = rest.split_first()
                    && next == "super"
                {
                    at = at.and_then(|at| self.modules[at].parent);
                    rest = after;
                }
                at.map(Target::Module).into_iter().collect()
            }
            "" => match rest.split_first() {
                Some((name, after)) => {
                    rest = after;
                    self.dependency(name)
                }
                None => Vec::new(),
            },
            name => {
                let local = self.lookup(module, name, depth - 1);
                if local.is_empty() { self.dependency(name) } else { local }
            }
        };
        begins.into_iter().flat_map(|begin| self.walk(begin, rest, depth)).collect()
    }

    /// Follows the rest of a path. What a module does not seem to have is taken for its own: a macro may define it.
    fn walk(&self, begin: Target, rest: &[String], depth: usize) -> Vec<Target> {
        let Some((next, after)) = rest.split_first() else { return vec![begin] };
        match begin {
            Target::Module(module) => {
                let found = self.lookup(module, next, depth - 1);
                if found.is_empty() {
                    return vec![Target::Item(module, next.clone())];
                }
                found.into_iter().flat_map(|found| self.walk(found, after, depth)).collect()
            }
            Target::Item(..) => vec![begin],
            Target::Extern(name, mut path) => {
                path.extend(rest.iter().cloned());
                vec![Target::Extern(name, path)]
            }
        }
    }

    fn lookup(&self, module: usize, name: &str, depth: usize) -> Vec<Target> {
        let here = &self.modules[module];
        let stands_for = here.names.get(name).into_iter().flatten();
        let mut found: Vec<_> = stands_for
            .flat_map(|stands_for| match stands_for {
                Name::Module(child) => vec![Target::Module(*child)],
                Name::Item => vec![Target::Item(module, name.to_owned())],
                Name::Import(path) => self.resolve_within(module, path, depth),
            })
            .collect();
        if found.is_empty() && depth > 0 {
            for glob in &here.globs {
                for target in self.resolve_within(module, glob, depth - 1) {
                    if let Target::Module(from) = target {
                        found.extend(self.lookup(from, name, depth - 1));
                    }
                }
            }
        }
        found
    }

    /// The root of the crate; a binary beside the library is one of its own.
    fn root_of(&self, module: usize) -> usize {
        let mut at = module;
        while let Some(parent) = self.modules[at].parent {
            at = parent;
        }
        at
    }

    fn dependency(&self, name: &str) -> Vec<Target> {
        if self.dependencies.contains(name) { vec![Target::Extern(name.to_owned(), Vec::new())] } else { Vec::new() }
    }
}
