//! The data directory: one owner, one format, room for bad times.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use portcullis::store::DirectoryError;
use portcullis::store::directory::DataDirectory;
use portcullis::store::presence::Presence;
use tempfile::TempDir;

#[test]
fn a_new_directory_is_made_for_this_user_alone() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("a/b/data");
    let directory = DataDirectory::open(&path).unwrap();
    for made in [parent.path().join("a"), path.clone(), directory.policy()] {
        let mode = made.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", made.display());
    }
    assert_eq!(fs::read_to_string(path.join("FORMAT")).unwrap(), "1\n");
    assert_eq!(directory.path(), path);
    assert!(directory.free_bytes().unwrap() > 0);
}

#[test]
fn a_second_owner_is_refused_and_told_of_the_first() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("data");
    let first = DataDirectory::open(&path).unwrap();
    let error = DataDirectory::open(&path).unwrap_err();
    let expected = format!(
        "data directory `{}` is in use by another process ({}): stop it or choose another --data-dir",
        path.display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    fs::write(path.join("LOCK"), "no number").unwrap();
    let message = DataDirectory::open(&path).unwrap_err().to_string();
    assert!(message.contains("another process: stop it"), "{message}");
    drop(first);
    DataDirectory::open(&path).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let parent = TempDir::new().unwrap();
    drop(DataDirectory::open(parent.path()).unwrap());
    fs::write(parent.path().join("FORMAT"), "2\n").unwrap();
    let error = DataDirectory::open(parent.path()).unwrap_err();
    assert!(matches!(error, DirectoryError::NewerFormat { version: 2, .. }), "{error}");
    assert!(error.to_string().ends_with("use a newer portcullis"), "{error}");
}

#[test]
fn a_format_that_makes_no_sense_is_refused() {
    let parent = TempDir::new().unwrap();
    drop(DataDirectory::open(parent.path()).unwrap());
    for contents in [&b""[..], b"0\n", b"one", b"-1", b"99999999999", b"\xff\xfe"] {
        fs::write(parent.path().join("FORMAT"), contents).unwrap();
        let error = DataDirectory::open(parent.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::UnreadableFormat { .. }), "{error}");
    }
}

#[test]
fn a_directory_that_holds_something_else_is_refused() {
    let parent = TempDir::new().unwrap();
    fs::write(parent.path().join("thesis.tex"), "x").unwrap();
    let error = DataDirectory::open(parent.path()).unwrap_err();
    assert!(matches!(error, DirectoryError::Foreign { .. }), "{error}");
    let file = parent.path().join("thesis.tex");
    assert!(matches!(DataDirectory::open(file).unwrap_err(), DirectoryError::Io { .. }));
}

/// The first start was cut off before FORMAT had its name.
#[test]
fn an_interrupted_first_start_is_finished() {
    let parent = TempDir::new().unwrap();
    fs::write(parent.path().join("LOCK"), "1\n").unwrap();
    fs::write(parent.path().join("FORMAT.new"), "").unwrap();
    fs::create_dir(parent.path().join("lost+found")).unwrap();
    drop(DataDirectory::open(parent.path()).unwrap());
    assert!(parent.path().join("FORMAT").exists());
    DataDirectory::open(parent.path()).unwrap();
}

#[test]
fn the_ballast_is_set_aside_and_given_up() {
    let parent = TempDir::new().unwrap();
    let directory = DataDirectory::open(parent.path()).unwrap();
    let ballast = parent.path().join("ballast");
    directory.release_ballast().unwrap();
    directory.restore_ballast().unwrap();
    assert_eq!(ballast.metadata().unwrap().len(), 1024 * 1024);
    directory.restore_ballast().unwrap();
    fs::write(&ballast, "half").unwrap();
    directory.restore_ballast().unwrap();
    assert_eq!(ballast.metadata().unwrap().len(), 1024 * 1024);
    directory.release_ballast().unwrap();
    assert!(!ballast.exists());
}

#[test]
fn a_directory_that_is_removed_moved_or_replaced_is_missing_until_it_is_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (path, aside) = (temporary.path().join("data"), temporary.path().join("aside"));
    let directory = DataDirectory::open(&path).unwrap();
    let presence = Presence::of(&directory).unwrap();
    assert_eq!(presence.missing(), None);
    fs::rename(&path, &aside).unwrap();
    assert_eq!(presence.missing().as_deref(), Some(&*path));
    fs::create_dir(&path).unwrap();
    assert_eq!(presence.missing().as_deref(), Some(&*path), "another one is there");
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(presence.missing(), None);
    fs::remove_dir_all(path.join("audit")).unwrap();
    assert_eq!(presence.missing(), Some(path.join("audit")));
}
