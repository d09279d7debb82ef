//! A disk in memory that keeps apart what programs see and what would survive a power cut, and that fails or dies at
//! any operation that one names.
//!
//! It also holds the store to its rule that a file of which a write or sync failed is never written or synced again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use portcullis::store::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// A disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<World>>);

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and does nothing.
    Error,
    /// It fails; of a write half arrived.
    HalfWritten,
    /// It fails after having done everything, as a write whose sync is what fails.
    Done,
    /// It and everything after it fails: the machine is off.
    PowerCut,
}

/// What is wrong below a directory, until it is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Everything goes wrong.
    Always(Fault),
    /// An operation goes wrong or not, as two bits of the number say: the next two for the next operation.
    Sometimes(u64),
    /// There is no room: what makes a file, or makes one larger, fails.
    Full,
}

impl Fault {
    pub(crate) const ERRORS: [Self; 3] = [Self::Error, Self::HalfWritten, Self::Done];
}

/// What a power cut leaves of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Nothing.
    Synced,
    /// Everything, names included.
    Everything,
    /// The contents but not the names.
    Contents,
    /// The names but not the contents.
    Names,
    /// Every second change of a name, and all contents.
    SomeNames,
    /// Half of each file: of the sectors that were written over, or else of the bytes behind them.
    Half,
    /// The sizes, with zeros for contents.
    Sizes,
    /// The sizes, and every second of the sectors that changed.
    SomeSectors,
    /// The sizes where the number is odd; of the sectors that changed those whose bit is set.
    Sectors(u64),
}

impl Survival {
    pub(crate) const ALL: [Self; 8] = [
        Self::Synced,
        Self::Everything,
        Self::Contents,
        Self::Names,
        Self::SomeNames,
        Self::Half,
        Self::Sizes,
        Self::SomeSectors,
    ];
}

#[derive(Debug, Default, Clone)]
struct World {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    files: Vec<Contents>,
    operations: usize,
    faults: BTreeMap<usize, Fault>,
    /// By directory.
    troubles: BTreeMap<PathBuf, Trouble>,
    off: bool,
    /// Counts the starts, so that handles of before a power cut are dead.
    boot: usize,
    /// Files may have zeros at their end, which are written over.
    allows_room: bool,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Whether a write or sync failed.
    failed: bool,
}

impl Contents {
    /// The sectors within what is on the disk that are others there.
    fn changed_sectors(&self) -> Vec<Range<usize>> {
        let size = self.durable.len();
        let sectors = (0..size).step_by(SECTOR_BYTES).map(|start| start..(start + SECTOR_BYTES).min(size));
        sectors.filter(|sector| self.durable[sector.clone()] != self.seen[sector.clone()]).collect()
    }

    fn arrive(&mut self, sector: Range<usize>) {
        self.durable[sector.clone()].copy_from_slice(&self.seen[sector]);
    }

    /// Half of what is not on the disk comes there: of what was written over the first sectors, else what is behind up
    /// to a multiple of `unit`.
    fn arrive_half(&mut self, unit: usize) {
        let changed = self.changed_sectors();
        let half = usize::midpoint(self.durable.len(), self.seen.len());
        if changed.is_empty() {
            let end = (half - half % unit).max(self.durable.len());
            self.durable = self.seen[..end].to_vec();
        }
        for sector in &changed[..changed.len().div_ceil(2)] {
            self.arrive(sector.clone());
        }
    }
}

#[derive(Debug)]
struct SimulatedFile {
    world: Arc<Mutex<World>>,
    path: PathBuf,
    inode: usize,
    boot: usize,
}

impl SimulatedDisk {
    /// A disk on which the operations with these numbers, counted from 0, go wrong.
    pub(crate) fn with_faults(faults: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().faults = faults.into_iter().collect();
        disk
    }

    /// Lets zeros at the end of a file be written over; without it a file only ever grows.
    pub(crate) fn allow_room(&self) {
        self.0.lock().unwrap().allows_room = true;
    }

    /// Lets the operation with this number go wrong as well.
    pub(crate) fn fail_at(&self, operation: usize, fault: Fault) {
        self.0.lock().unwrap().faults.insert(operation, fault);
    }

    /// What goes wrong below a directory from now on; none: nothing does.
    pub(crate) fn trouble(&self, directory: &Path, trouble: Option<Trouble>) {
        let mut world = self.0.lock().unwrap();
        match trouble {
            Some(trouble) => world.troubles.insert(directory.to_owned(), trouble),
            None => world.troubles.remove(directory),
        };
    }

    /// What the next process finds after this one has died, or, with a survival, after the power has gone as well. This
    /// disk is off from now on, so that what is left of the dead process changes nothing more.
    pub(crate) fn crash(&self, survival: Option<Survival>) -> Self {
        let mut world = self.0.lock().unwrap();
        world.off = true;
        let mut next = world.clone();
        drop(world);
        let named: BTreeSet<usize> = next.names.values().chain(next.durable_names.values()).copied().collect();
        for (inode, file) in next.files.iter_mut().enumerate() {
            if !named.contains(&inode) {
                *file = Contents::default();
            }
        }
        let next = Self(Arc::new(Mutex::new(next)));
        match survival {
            Some(survival) => next.power_cycle(survival),
            None => next.kill(),
        }
        next
    }

    /// Another disk with the same on it.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = self.0.lock().unwrap().clone();
        copy.restart();
        Self(Arc::new(Mutex::new(copy)))
    }

    pub(crate) fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().unwrap().off
    }

    /// Whether a file that has a name, or would have it again after a power cut, holds `bytes`.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        let world = self.0.lock().unwrap();
        let mut inodes = world.names.values().chain(world.durable_names.values());
        inodes.any(|inode| {
            let Contents { seen, durable, .. } = &world.files[*inode];
            [seen, durable].into_iter().any(|contents| contents.windows(bytes.len()).any(|part| part == bytes))
        })
    }

    /// Power goes and comes back.
    pub(crate) fn power_cycle(&self, survival: Survival) {
        let mut world = self.0.lock().unwrap();
        let world = &mut *world;
        match survival {
            Survival::Everything | Survival::Names => world.durable_names = world.names.clone(),
            Survival::SomeNames => world.keep_some_names(),
            _ => {}
        }
        world.names = world.durable_names.clone();
        for file in &mut world.files {
            match survival {
                Survival::Sectors(arrived) => {
                    if arrived % 2 == 1 {
                        file.durable.resize(file.seen.len(), 0);
                    }
                    for (number, sector) in file.changed_sectors().into_iter().enumerate() {
                        if arrived >> (1 + number % 63) & 1 == 1 {
                            file.arrive(sector);
                        }
                    }
                }
                Survival::Synced | Survival::Names => {}
                Survival::Everything | Survival::Contents | Survival::SomeNames => {
                    file.durable = file.seen.clone();
                }
                Survival::Half => file.arrive_half(1),
                Survival::Sizes => file.durable.resize(file.seen.len(), 0),
                Survival::SomeSectors => {
                    file.durable.resize(file.seen.len(), 0);
                    for sector in file.changed_sectors().into_iter().skip(1).step_by(2) {
                        file.arrive(sector);
                    }
                }
            }
            file.seen = file.durable.clone();
            file.failed = false;
        }
        world.restart();
    }

    /// The process dies, the machine goes on: everything written is still seen.
    pub(crate) fn kill(&self) {
        self.0.lock().unwrap().restart();
    }
}

impl World {
    fn restart(&mut self) {
        self.off = false;
        self.boot += 1;
        self.faults.clear();
        self.troubles.clear();
    }

    /// Brings the second, fourth and so on of the names that changed to the disk.
    fn keep_some_names(&mut self) {
        let all: BTreeSet<PathBuf> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        let changed =
            all.into_iter().filter(|path| self.names.get(path) != self.durable_names.get(path)).collect::<Vec<_>>();
        for path in changed.into_iter().skip(1).step_by(2) {
            match self.names.get(&path) {
                Some(inode) => self.durable_names.insert(path, *inode),
                None => self.durable_names.remove(&path),
            };
        }
    }

    /// Counts an operation that changes something and says what goes wrong with it. `grows`: it needs room.
    fn step(&mut self, path: &Path, grows: bool) -> io::Result<Option<Fault>> {
        if self.off {
            return Err(broken());
        }
        let number = self.operations;
        let trouble = self.troubles.iter().find(|(directory, _)| path.starts_with(directory));
        let fault = self.faults.get(&number).copied().or_else(|| match trouble?.1 {
            Trouble::Always(fault) => Some(*fault),
            Trouble::Sometimes(bits) => {
                let number = usize::try_from(bits >> (number % 32 * 2) & 3).unwrap();
                Fault::ERRORS.get(number.checked_sub(1)?).copied()
            }
            Trouble::Full => grows.then_some(Fault::Error),
        });
        self.operations += 1;
        match fault {
            Some(Fault::PowerCut) => {
                self.off = true;
                Err(broken())
            }
            fault => Ok(fault),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("injected")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn finish(fault: Option<Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |_| Err(broken()))
}

impl Disk for SimulatedDisk {
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.0.lock().unwrap();
        let inside = world.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let world = self.0.lock().unwrap();
        if world.off {
            return Err(broken());
        }
        let inode = *world.names.get(path).ok_or_else(missing)?;
        let boot = world.boot;
        drop(world);
        let world = Arc::clone(&self.0);
        Ok(Box::new(SimulatedFile { world, path: path.to_owned(), inode, boot }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.0.lock().unwrap();
        let fault = world.step(path, true)?;
        if fault != Some(Fault::Error) {
            world.files.push(Contents::default());
            let inode = world.files.len() - 1;
            world.names.insert(path.to_owned(), inode);
        }
        finish(fault)?;
        drop(world);
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let fault = world.step(to, false)?;
        if fault != Some(Fault::Error) {
            let inode = world.names.remove(from).ok_or_else(missing)?;
            world.names.insert(to.to_owned(), inode);
        }
        finish(fault)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let fault = world.step(path, false)?;
        if fault != Some(Fault::Error) {
            world.names.remove(path).ok_or_else(missing)?;
        }
        finish(fault)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let fault = world.step(directory, false)?;
        if matches!(fault, None | Some(Fault::Done)) {
            let inside = |path: &PathBuf| path.parent() == Some(directory);
            world.durable_names.retain(|path, _| !inside(path));
            let names: Vec<_> = world
                .names
                .iter()
                .filter(|(path, _)| inside(path))
                .map(|(path, inode)| (path.clone(), *inode))
                .collect();
            world.durable_names.extend(names);
        }
        finish(fault)
    }
}

impl SimulatedFile {
    fn with<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world.lock().unwrap();
        if world.off || world.boot != self.boot {
            return Err(broken());
        }
        work(&mut world)
    }
}

impl DiskFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|world| Ok(world.files[self.inode].seen.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|world| {
            let seen = &world.files[self.inode].seen;
            let start = usize::try_from(offset).unwrap().min(seen.len());
            let count = buffer.len().min(seen.len() - start);
            buffer[..count].copy_from_slice(&seen[start..start + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|world| {
            let start = usize::try_from(offset).unwrap();
            let grows = start + bytes.len() > world.files[self.inode].seen.len();
            let fault = world.step(&self.path, grows)?;
            let allows_room = world.allows_room;
            let file = &mut world.files[self.inode];
            assert!(!file.failed, "a failed file is written again");
            assert!(allows_room || start == file.seen.len(), "a file is written from front to back");
            let room = file.seen.get(start..).expect("a file is written from front to back");
            assert!(room.iter().all(|byte| *byte == 0), "only zeros are written over");
            let half = start + bytes.len() / 2;
            // Within a file there is room on the disk; a write is not cut off inside a sector there.
            let half = if half < file.seen.len() { (half - half % SECTOR_BYTES).max(start) } else { half };
            let count = match fault {
                None | Some(Fault::Done) => bytes.len(),
                Some(Fault::HalfWritten) => half - start,
                Some(_) => 0,
            };
            file.seen.resize(file.seen.len().max(start + count), 0);
            file.seen[start..start + count].copy_from_slice(&bytes[..count]);
            file.failed = fault.is_some();
            finish(fault)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|world| {
            let fault = world.step(&self.path, false)?;
            let file = &mut world.files[self.inode];
            assert!(!file.failed, "a failed file is synced again");
            match fault {
                None | Some(Fault::Done) => file.durable = file.seen.clone(),
                // A sector arrives whole or not at all.
                Some(Fault::HalfWritten) => file.arrive_half(SECTOR_BYTES),
                Some(_) => {}
            }
            file.failed = fault.is_some();
            finish(fault)
        })
    }

    fn settle(&self) -> io::Result<()> {
        self.with(|world| {
            let file = &mut world.files[self.inode];
            if file.failed {
                // The kernel holds what it could not write for written; forgetting it shows what is really there.
                file.seen = file.durable.clone();
            } else {
                file.durable = file.seen.clone();
            }
            Ok(())
        })
    }
}
