//! A crate as modules: which file each lies in, and which names each has.
//!
//! Invariant: every `.rs` file below the folder belongs to exactly one module that the crate's root reaches.
//! Not here: what the names lead to (`resolve`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::references::{Reference, is_test, references};

/// What a name stands for in its module. One name may have several: a module, a function, an import.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    /// A module: its number.
    Module(usize),
    /// Defined here.
    Item,
    /// Brought in by `use`: the path.
    Import(Vec<String>),
}

/// A module of a crate.
#[derive(Debug)]
pub(crate) struct Module {
    /// The module around it.
    pub(crate) parent: Option<usize>,
    /// The file that it is in, as a path below the crate's folder.
    pub(crate) file: String,
    /// The names in it, those that are imported inside of its functions included.
    pub(crate) names: BTreeMap<String, Vec<Name>>,
    /// What it imports all names of.
    pub(crate) globs: Vec<Vec<String>>,
}

/// A crate's sources.
#[derive(Debug)]
pub(crate) struct Crate {
    /// Its modules; the first is its root.
    pub(crate) modules: Vec<Module>,
    /// Every path that is named, with the module that names it.
    pub(crate) references: Vec<(usize, Reference)>,
    /// The crates that its manifest lets it name, as they are named in code.
    pub(crate) dependencies: BTreeSet<String>,
    /// The text of each file.
    pub(crate) texts: BTreeMap<String, String>,
}

/// The repository's folder.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folders with sources: of the service, then of the other crates.
pub(crate) fn crate_folders() -> Vec<PathBuf> {
    let members = std::fs::read_dir(repository().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = members.filter(|folder| folder.join("Cargo.toml").exists()).collect();
    folders.sort();
    folders.insert(0, repository().to_owned());
    folders
}

/// All files below the folder `src` of a crate, by their path below it.
pub(crate) fn texts(folder: &Path) -> BTreeMap<String, String> {
    let root = folder.join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                files.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

/// The crate in a folder.
pub(crate) fn read_crate(folder: &Path) -> Crate {
    Crate::parse(texts(folder), &crate::manifests::named_in_code(folder))
}

/// The service, read once.
pub(crate) fn service() -> &'static Crate {
    static SERVICE: LazyLock<Crate> = LazyLock::new(|| read_crate(repository()));
    &SERVICE
}

impl Crate {
    /// A crate of these files, `lib.rs` being the first, which may name these crates.
    pub(crate) fn parse(texts: BTreeMap<String, String>, dependencies: &[String]) -> Self {
        let mut crate_ = Self {
            modules: Vec::new(),
            references: Vec::new(),
            dependencies: dependencies.iter().cloned().collect(),
            texts,
        };
        crate_.dependencies.extend(["std", "core", "alloc"].map(str::to_owned));
        crate_.read("lib.rs", None, "");
        if crate_.texts.contains_key("main.rs") {
            crate_.read("main.rs", None, "");
        }
        let reached: BTreeSet<_> = crate_.modules.iter().map(|module| &module.file).collect();
        for file in crate_.texts.keys() {
            assert!(reached.contains(file), "`{file}` belongs to no module: the compiler does not see it either");
        }
        crate_
    }

    /// Reads a file as a module whose child modules lie in `folder`.
    fn read(&mut self, file: &str, parent: Option<usize>, folder: &str) -> usize {
        let text = self.texts.get(file).unwrap_or_else(|| panic!("`{file}` is missing"));
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("`{file}` cannot be parsed: {error}"));
        self.module(file, parent, folder, &syntax.items, false)
    }

    fn module(&mut self, file: &str, parent: Option<usize>, folder: &str, items: &[syn::Item], in_test: bool) -> usize {
        let number = self.modules.len();
        let module = Module { parent, file: file.to_owned(), names: BTreeMap::new(), globs: Vec::new() };
        self.modules.push(module);
        for item in items {
            if let syn::Item::Mod(inner) = item {
                let name = inner.ident.to_string();
                let inside = format!("{folder}{name}/");
                let child = if let Some((_, items)) = &inner.content {
                    self.module(file, Some(number), &inside, items, in_test || is_test(&inner.attrs))
                } else {
                    let beside = format!("{folder}{name}.rs");
                    let file = if self.texts.contains_key(&beside) { beside } else { format!("{inside}mod.rs") };
                    self.read(&file, Some(number), &inside)
                };
                self.name(number, name, Name::Module(child));
                continue;
            }
            for name in defined_by(item) {
                self.name(number, name, Name::Item);
            }
            let mut uses = Uses::default();
            uses.visit_item(item);
            for (name, path) in uses.0 {
                match name.as_str() {
                    "*" => self.modules[number].globs.push(path),
                    "_" => {}
                    _ => self.name(number, name, Name::Import(path)),
                }
            }
            let named = references(item, in_test);
            self.references.extend(named.into_iter().map(|reference| (number, reference)));
        }
        number
    }

    fn name(&mut self, module: usize, name: String, stands_for: Name) {
        self.modules[module].names.entry(name).or_default().push(stands_for);
    }
}

/// Every `use` of an item, inside of functions too: the name that it gives, and the path.
#[derive(Default)]
struct Uses(Vec<(String, Vec<String>)>);

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut leaves = Vec::new();
        leaves_of(&item.tree, &prefix_of(item), &mut leaves);
        self.0.extend(leaves);
    }

    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    fn visit_item(&mut self, item: &'ast syn::Item) {
        visit::visit_item(self, item);
    }
}

/// `::tokio` names the crate and nothing else; kept as an empty first segment.
pub(crate) fn prefix_of(item: &syn::ItemUse) -> Vec<String> {
    if item.leading_colon.is_some() { vec![String::new()] } else { Vec::new() }
}

/// Takes a tree of `use` apart: for each leaf the name that it gives (`*` for all, `_` for none) and its whole path.
pub(crate) fn leaves_of(tree: &syn::UseTree, before: &[String], leaves: &mut Vec<(String, Vec<String>)>) {
    let with = |ident: &syn::Ident| {
        let mut path = before.to_vec();
        if ident != "self" || before.is_empty() {
            path.push(ident.to_string());
        }
        path
    };
    match tree {
        syn::UseTree::Path(path) => leaves_of(&path.tree, &with(&path.ident), leaves),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| leaves_of(item, before, leaves)),
        syn::UseTree::Name(name) => {
            let path = with(&name.ident);
            leaves.push((path.last().cloned().unwrap_or_default(), path));
        }
        syn::UseTree::Rename(rename) => leaves.push((rename.rename.to_string(), with(&rename.ident))),
        syn::UseTree::Glob(_) => leaves.push(("*".to_owned(), before.to_vec())),
    }
}

/// The names that an item defines in its module. What a macro's call defines is read from its tokens.
fn defined_by(item: &syn::Item) -> Vec<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::TraitAlias(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        syn::Item::Macro(item) => match &item.ident {
            Some(ident) => ident,
            None => return defined_in(item.mac.tokens.clone()),
        },
        _ => return Vec::new(),
    };
    vec![ident.to_string()]
}

fn defined_in(tokens: TokenStream) -> Vec<String> {
    const KEYWORDS: [&str; 6] = ["const", "enum", "fn", "struct", "trait", "type"];
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut names = Vec::new();
    for pair in tokens.windows(2) {
        if let [TokenTree::Ident(keyword), TokenTree::Ident(name)] = pair
            && KEYWORDS.iter().any(|known| keyword == known)
        {
            names.push(name.to_string());
        }
    }
    names
}
