//! The paths that an item names: in `use`, in types, expressions, patterns, attributes, and in the tokens of macros.
//!
//! Invariant: a path that is named anywhere is found; what looks like one in a string or a comment is not.
//! Not here: what a path leads to (`resolve`).

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::sources::{leaves_of, prefix_of};

/// A path as it stands in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Its segments; an empty first one stands for a leading `::`.
    pub(crate) path: Vec<String>,
    /// How it is named.
    pub(crate) how: How,
    /// Whether this is compiled for tests only.
    pub(crate) in_test: bool,
}

/// How a path is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By a `use` for this module alone.
    Import,
    /// By a `use` that others see: they name what is behind it.
    ReExport,
    /// In code.
    Code,
}

/// What an item names. Inner modules are left out: their items are asked for by themselves.
pub(crate) fn references(item: &syn::Item, in_test: bool) -> Vec<Reference> {
    let mut collector = Collector { found: Vec::new(), in_test };
    collector.visit_item(item);
    collector.found
}

/// Whether these attributes compile an item for tests only.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::NameValue(_) => false,
    })
}

struct Collector {
    found: Vec<Reference>,
    in_test: bool,
}

impl Collector {
    fn add(&mut self, path: Vec<String>, how: How) {
        self.found.push(Reference { path, how, in_test: self.in_test });
    }

    /// Paths among tokens: identifiers with `::` between them. One that follows a `.` is a field or a method.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let colons = |at: usize| {
            let is_colon =
                |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
            is_colon(at) && is_colon(at + 1)
        };
        let mut at = 0;
        let mut after_dot = false;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                TokenTree::Ident(first) if !after_dot => {
                    let mut path = vec![first.to_string()];
                    while colons(at)
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.add(path, How::Code);
                }
                _ => {}
            }
            after_dot = matches!(token, TokenTree::Punct(punct) if punct.as_char() == '.');
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let outer = self.in_test;
        self.in_test = outer || is_test(attributes_of(item));
        visit::visit_item(self, item);
        self.in_test = outer;
    }

    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let how = if matches!(item.vis, syn::Visibility::Inherited) { How::Import } else { How::ReExport };
        let mut leaves = Vec::new();
        leaves_of(&item.tree, &prefix_of(item), &mut leaves);
        for (_, path) in leaves {
            self.add(path, how);
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.add(vec![String::new(), item.ident.to_string()], How::Import);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = if path.leading_colon.is_some() { vec![String::new()] } else { Vec::new() };
        segments.extend(path.segments.iter().map(|segment| segment.ident.to_string()));
        self.add(segments, How::Code);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.add_tokens(call.tokens.clone());
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        visit::visit_meta_list(self, list);
        self.add_tokens(list.tokens.clone());
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
