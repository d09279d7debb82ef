//! Data directories for tests of a start: one history at two moments, and another one.
//!
//! Invariant: those of `write` were left by a regular stop, so everything in them is as new as everything else.
//! Not here: what becomes of them (`witnesses`, `witnesses_files`, `witnesses_killed`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis::config::Config;
use portcullis::proto::v1::Action;
use tempfile::TempDir;

use crate::audit_watch::signed_size;
use crate::harness::Service;

/// Addresses that an acknowledged rule denies, the first since the earlier moment.
pub(crate) const ACKNOWLEDGED: [&str; 2] = ["198.51.100.2", "198.51.100.1"];

/// Changes of policy in the newest state: two make the first organization.
pub(crate) const CHANGES: u64 = 4;

/// Sessions in the newest state.
pub(crate) const SESSIONS: usize = 2;

/// See the module.
pub(crate) struct Histories {
    _root: TempDir,
    /// The history at a moment.
    pub(crate) earlier: PathBuf,
    /// The same history later.
    pub(crate) newest: PathBuf,
    /// Another history, with more changes and records.
    pub(crate) others: PathBuf,
}

impl Histories {
    pub(crate) async fn write() -> Self {
        let root = tempfile::tempdir().unwrap();
        let [earlier, newest, others] = ["earlier", "newest", "others"].map(|name| root.path().join(name));
        go_on(&newest, &["198.51.100.1"]).await;
        copy(&newest, &earlier);
        go_on(&newest, &["198.51.100.2"]).await;
        go_on(&others, &["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"]).await;
        Self { _root: root, earlier, newest, others }
    }

    /// The same, each left by `kill -9`, with nothing that comes later written.
    pub(crate) async fn write_killed() -> Self {
        let root = tempfile::tempdir().unwrap();
        let [earlier, newest, others] = ["earlier", "newest", "others"].map(|name| root.path().join(name));
        let begin = async || Service::with_config(Config::for_data_dir(root.path().join("running"))).await;
        let service = begin().await;
        for (denied, records, image) in [("198.51.100.1", 4, &earlier), ("198.51.100.2", 6, &newest)] {
            deny(&service, denied).await;
            signed_size(&service.channel, records).await;
            copy(service.data_dir(), image);
        }
        service.stop().await;
        remove(&root.path().join("running"));
        let service = begin().await;
        for denied in ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"] {
            deny(&service, denied).await;
        }
        signed_size(&service.channel, 10).await;
        copy(service.data_dir(), &others);
        service.stop().await;
        Self { _root: root, earlier, newest, others }
    }

    /// The newest state after Checks that a rule decided, and nothing else.
    pub(crate) async fn after_checks(&self) -> TempDir {
        let directory = self.copy_of_the_newest();
        let service = Service::with_config(Config::for_data_dir(directory.path())).await;
        for _ in 0..5 {
            service.check(ACKNOWLEDGED[0], "organizations/default").await;
        }
        service.stop().await;
        directory
    }

    /// A copy of the newest state, to do harm to.
    pub(crate) fn copy_of_the_newest(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        copy(&self.newest, directory.path());
        directory
    }
}

/// Serves on a directory until addresses are denied, with a session opened before each.
pub(crate) async fn go_on(directory: &Path, denied: &[&str]) {
    let service = Service::with_config(Config::for_data_dir(directory)).await;
    for address in denied {
        deny(&service, address).await;
    }
    service.stop().await;
}

async fn deny(service: &Service, address: &str) {
    service.check("192.0.2.1", "organizations/default").await;
    service.add_rule("", Action::Deny, address).await;
}

/// Copies a file or a directory, without the ballast.
pub(crate) fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            if name != "ballast" {
                copy(&from.join(&name), &to.join(&name));
            }
        }
    } else if from.exists() {
        std::fs::copy(from, to).unwrap();
    }
}

/// Removes a file or a directory, if it is there.
pub(crate) fn remove(path: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        std::fs::remove_file(path).unwrap();
    }
}

/// The content of every file below a directory; of none where it does not exist.
pub(crate) fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}
