//! A disk whose writes to the audit log can be held back, so that what waits for the disk waits for sure.
//!
//! Invariant: while the disk is held, no record becomes durable; whoever has begun to write waits until it is let go.
//! Not here: what is measured meanwhile.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use portcullis::store::disk::{Disk, DiskFile, RealDisk};

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldDisk(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// A write waits.
    reached: bool,
}

impl HeldDisk {
    /// Holds every write to the audit log from now on.
    pub(crate) fn hold(&self) {
        self.0.change(|state| *state = State { held: true, reached: false });
    }

    /// Waits until a write is held.
    pub(crate) fn wait_reached(&self) {
        self.0.wait_until(|state| state.reached);
    }

    /// Lets all writes go.
    pub(crate) fn let_go(&self) {
        self.0.change(|state| state.held = false);
    }

    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        if path.parent().is_some_and(|directory| directory.ends_with("audit")) {
            Box::new(HeldFile { file, gate: Arc::clone(&self.0) })
        } else {
            file
        }
    }
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |state| !is_so(state)));
    }

    fn pass(&self) {
        self.change(|state| state.reached = true);
        self.wait_until(|state| !state.held);
    }
}

impl Disk for HeldDisk {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path).map(|file| self.wrap(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }
}

#[derive(Debug)]
struct HeldFile {
    file: Box<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for HeldFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass();
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn settle(&self) -> io::Result<()> {
        self.file.settle()
    }
}
