//! A small disk for the campaign over processes: a file system of its own, which a test can fill.
//!
//! Invariant: it is unmounted whatever becomes of the test.
//! Not here: what happens on it (`faults_process`).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::skipped;

const DISK_BYTES: usize = 48 << 20;

/// A small file system of the test's own, where one may be mounted.
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    /// Where it is mounted.
    disk: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new(directory: &Path) -> Self {
        let disk = directory.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let options = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk).output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        if !is_mounted {
            skipped("full disks of the campaign over processes", "needs root and tmpfs");
        }
        Self { data_dir: disk.join("data"), disk: is_mounted.then_some(disk) }
    }

    /// Takes all room. False where that is not to be done.
    pub(crate) fn fill(&self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let (mut size, filler) = (DISK_BYTES, disk.join("filler"));
        while size > 4_096 && std::fs::write(&filler, vec![1; size]).is_err() {
            size -= size / 8;
        }
        // What is left, in small pieces.
        for piece in 0.. {
            if std::fs::write(disk.join(format!("filler-{piece}")), vec![1; 4_096]).is_err() {
                return true;
            }
        }
        true
    }

    pub(crate) fn free(&self) {
        let Some(disk) = &self.disk else { return };
        for entry in std::fs::read_dir(disk).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("filler") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            let _ = Command::new("umount").arg("-l").arg(disk).status();
        }
    }
}
