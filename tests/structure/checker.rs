//! The checker itself: each of these small sources has a fault, or looks as if it had one.
//!
//! Invariant: what a search for text lets through is found.
//! Not here: the real sources.

use std::collections::BTreeMap;

use crate::circles::{circles, imports};
use crate::rules::{Part, adapters_of, faults_of};
use crate::sources::Crate;

/// `api` may name `engine`, and `engine` nothing but `anyhow`.
const PARTS: &[Part] = &[
    Part { name: "engine", parts: &[], crates: &["anyhow"] },
    Part { name: "api", parts: &["engine"], crates: &[] },
    Part { name: "store", parts: &[], crates: &[] },
    Part { name: "lib", parts: &["engine"], crates: &["tokio"] },
];

fn parse(files: &[(&str, &str)]) -> Crate {
    let texts: BTreeMap<_, _> = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    Crate::parse(texts, &["anyhow".to_owned(), "tokio".to_owned(), "portcullis_policy".to_owned()])
}

/// The faults of a crate in which `engine/deep.rs` is this text.
fn faults(text: &str) -> Vec<String> {
    let crate_ = parse(&[
        ("lib.rs", "pub mod api; pub mod engine; pub mod store; pub use tokio as runtime;"),
        ("api/mod.rs", "pub struct Api; pub mod convert { pub fn of() {} }"),
        ("engine/mod.rs", "pub mod deep; pub struct Engine; pub use anyhow::Result;"),
        ("engine/deep.rs", text),
        ("store/mod.rs", "pub struct Store; pub use self::file::FileStore; mod file; pub trait Port {}"),
        ("store/file.rs", "use super::Port as Wanted; pub struct FileStore; impl Wanted for FileStore {}"),
    ]);
    faults_of(&crate_, PARTS)
}

#[test]
fn what_is_permitted_is_no_fault() {
    for text in [
        "use super::Engine; use std::fmt; fn f(_: &Engine) -> super::Result<()> { anyhow::bail!(\"crate::api::Api\") }",
        "/// Says `crate::api::Api`.\nfn f() { let api = 1; let store = api; g(store.api()) }",
        "mod api { pub struct Api; } use self::api::Api; fn f(_: Api) {}",
        "fn f<store: Clone>(a: store) -> store { a.clone() }",
    ] {
        assert_eq!(faults(text), [] as [String; 0], "{text}");
    }
}

#[test]
fn a_name_is_found_however_it_is_written() {
    for text in [
        "use crate::api::Api;",
        "use crate::{api, store};",
        "use crate::{store::{self as kept}, engine::Engine};",
        "use super::super::api;",
        "use self::super::super::api::Api;",
        "use super::super::{store as engine};",
        "use crate as root; fn f(_: root::api::Api) {}",
        "use crate::*; fn f(_: api::Api) {}",
        "pub use crate::api::Api as Engine;",
        "fn f(_: crate::api::Api) {}",
        "fn f() -> Vec<Option<super::super::store::Store>> { Vec::new() }",
        "fn f() { use crate::api::convert; convert::of() }",
        "fn f() { crate::api::convert::of() }",
        "fn f() { println!(\"{}\", crate::api::convert::of()) }",
        "fn f() { matches!(1, if g(vec![super::super::api::Api])); }",
        "macro_rules! m { () => { $crate::api::Api } }",
        "#[derive(crate::api::Derive)] struct S;",
        "#[crate::api::attribute] fn f() {}",
        "mod inner { use super::super::super::api::Api; }",
        "#[cfg(test)] mod tests { use crate::api::Api; }",
        "impl From<crate::api::Api> for u8 { fn from(_: crate::api::Api) -> u8 { 0 } }",
        "fn f(a: u8) { match a { crate::api::LIMIT => {} _ => {} } }",
        "impl crate::api::Trait for u8 {}",
        "type A = <u8 as crate::api::Trait>::Item;",
        "const A: [u8; crate::api::LEN] = [];",
    ] {
        let faults = faults(text);
        let found = faults.iter().any(|fault| fault.contains("`engine` may not name `"));
        assert!(found, "{text}: {faults:?}");
    }
}

#[test]
fn a_crate_that_is_not_on_the_list_is_a_fault() {
    for text in [
        "use tokio::sync::watch;",
        "use ::tokio::sync::watch;",
        "use tokio as rt; fn f(_: rt::Runtime) {}",
        "use crate::runtime::sync::watch;",
        "use {anyhow::Result, tokio::sync};",
        "async fn f() { tokio::select! { _ = g() => {} } }",
        "#[tokio::test] async fn f() {}",
        "extern crate tokio;",
    ] {
        let faults = faults(text);
        assert!(faults.iter().any(|fault| fault.contains("may not name the crate `tokio`")), "{text}: {faults:?}");
    }
    assert!(faults("use portcullis_policy::name::Id;")[0].contains("the crate `portcullis_policy`"));
}

#[test]
fn a_part_without_a_rule_is_a_fault() {
    let crate_ = parse(&[("lib.rs", "mod cluster;"), ("cluster.rs", "use std::fmt;")]);
    let faults = faults_of(&crate_, PARTS);
    assert_eq!(faults, ["cluster.rs has no import rule: add one"]);
}

#[test]
fn an_adapter_is_what_implements_a_port_under_any_name() {
    let crate_ = parse(&[
        ("lib.rs", "mod store;"),
        ("store/mod.rs", "pub mod file; pub mod port; pub struct Other; impl Clone for Other {}"),
        ("store/port.rs", "pub trait Port {} pub struct Error;"),
        (
            "store/file.rs",
            "use super::port as seam; pub struct File; impl seam::Port for File {} impl Clone for File {}",
        ),
    ]);
    assert_eq!(adapters_of(&crate_).into_values().collect::<Vec<_>>(), ["File"]);
}

/// The circles among the files of a crate.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    circles(&imports(&parse(files)))
}

#[test]
fn a_circle_is_found_through_files_groups_and_re_exports() {
    let two = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "fn f(_: super::a::A) {} pub struct B;"),
    ];
    assert_eq!(circles_of(&two), [["a.rs", "b.rs"]]);
    let three = [
        ("lib.rs", "mod a; mod b; mod c; pub use c::C as Renamed;"),
        ("a.rs", "use crate::{b::{B}}; pub struct A;"),
        ("b.rs", "pub struct B; fn f() { g!(crate::Renamed) }"),
        ("c.rs", "use super::*; pub struct C(a::A);"),
    ];
    assert_eq!(circles_of(&three), [["a.rs", "b.rs", "c.rs"]]);
    let children = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod left; mod right; use left::Left; pub struct A(Left);"),
        ("a/left.rs", "use super::{A, right}; pub struct Left; fn f(_: A, _: right::Right) {}"),
        ("a/right.rs", "use super::{A, left::Left}; pub struct Right;"),
    ];
    assert_eq!(circles_of(&children), [["a/left.rs", "a/right.rs"]]);
    let through_the_parent = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod child; use child::Child; pub struct A(Child);"),
        ("a/child.rs", "use crate::b::B; use super::A; pub struct Child(B);"),
        ("b.rs", "use crate::a::A; pub struct B;"),
    ];
    assert_eq!(circles_of(&through_the_parent), [["a/child.rs", "a/mod.rs", "b.rs"]]);
}

#[test]
fn what_only_passes_a_name_on_is_in_no_circle() {
    let siblings = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod left; mod right; pub use left::Left; pub use right::Right;"),
        ("a/left.rs", "use super::Right; pub struct Left;"),
        ("a/right.rs", "pub struct Right;"),
    ];
    assert_eq!(circles_of(&siblings), [] as [Vec<String>; 0]);
    let parent = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b; use b::c::Child; pub struct Parent(Child);"),
        ("a/b/mod.rs", "pub mod c;"),
        ("a/b/c.rs", "use super::super::Parent; pub struct Child;"),
    ];
    assert_eq!(circles_of(&parent), [] as [Vec<String>; 0]);
    let tests = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; use super::*; }"),
        ("b.rs", "use crate::a::A; pub struct B;"),
    ];
    assert_eq!(circles_of(&tests), [] as [Vec<String>; 0]);
}
