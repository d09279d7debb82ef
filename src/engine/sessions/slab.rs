//! The memory of a shard's sessions: numbered slots that are used again.
//!
//! Invariant: a slot with its generation never names a second session; every slot without a session is in the free list.
//! Not here: what a session is.

use super::Session;
use super::lifetime::Life;

/// A session, and where the shard's other structures hold it.
pub(super) struct Active {
    pub(super) session: Session,
    pub(super) life: Life,
    /// The deadline of its one live entry among the timers, in microseconds.
    pub(super) queued: i64,
    /// Its position in the index's list of its endpoint.
    pub(super) position: u32,
    /// The hash under which further checks find it; none where they must not.
    pub(super) fold: Option<u64>,
}

/// Names a session in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle {
    pub(super) slot: u32,
    generation: u32,
}

struct Cell {
    generation: u32,
    /// Boxed: growing moves 16 bytes a session instead of 300, and the memory of an ended session is given back.
    active: Option<Box<Active>>,
}

/// The slots.
#[derive(Default)]
pub(super) struct Slab {
    cells: Vec<Cell>,
    free: Vec<u32>,
}

impl Slab {
    pub(super) fn len(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, active: Active) -> Handle {
        let active = Some(Box::new(active));
        if let Some(slot) = self.free.pop()
            && let Some(cell) = self.cells.get_mut(slot as usize)
        {
            cell.active = active;
            return Handle { slot, generation: cell.generation };
        }
        // Four thousand million sessions would need a terabyte.
        let slot = u32::try_from(self.cells.len()).unwrap_or(u32::MAX);
        self.cells.push(Cell { generation: 0, active });
        Handle { slot, generation: 0 }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Active> {
        let cell = self.cells.get_mut(slot as usize)?;
        let active = cell.active.take()?;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(slot);
        Some(*active)
    }

    /// The session at a slot.
    pub(super) fn at(&self, slot: u32) -> Option<&Active> {
        self.cells.get(slot as usize)?.active.as_deref()
    }

    /// The session at a slot.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Active> {
        self.cells.get_mut(slot as usize)?.active.as_deref_mut()
    }

    /// The handle of what is at a slot.
    pub(super) fn handle(&self, slot: u32) -> Option<Handle> {
        let cell = self.cells.get(slot as usize)?;
        cell.active.as_ref().map(|_| Handle { slot, generation: cell.generation })
    }

    /// The session that a handle names, unless it has ended.
    pub(super) fn get(&self, handle: Handle) -> Option<&Active> {
        let cell = self.cells.get(handle.slot as usize)?;
        cell.active.as_deref().filter(|_| cell.generation == handle.generation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Active> {
        self.cells.iter().filter_map(|cell| cell.active.as_deref())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Active)> {
        (0..).zip(&mut self.cells).filter_map(|(slot, cell)| Some((slot, cell.active.as_deref_mut()?)))
    }
}
