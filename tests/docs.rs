//! Generated documents: what the code says of itself, and that the files in `docs/` say the same.
//!
//! Invariant: a document that is out of date fails here. `PORTCULLIS_WRITE_DOCS=1 cargo test --test docs` writes them.
//! Not here: documents that people write.
#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must fail, also in helpers")]

use std::path::Path;

/// Compares a document with what was generated for it, or writes it where that is asked for.
fn current(path: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, generated).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == generated,
        "`{path}` is out of date: run `PORTCULLIS_WRITE_DOCS=1 cargo test --test docs` and commit it"
    );
}

#[test]
fn configuration_reference_is_current() {
    current("docs/configuration.md", &portcullis::config::reference());
}
