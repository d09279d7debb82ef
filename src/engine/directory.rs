//! Which policy is current: the published version of the cluster and of every organization.
//!
//! Invariant: a reader takes no lock and sees one whole version of an organization. Publishing one organization touches
//! nothing of another.
//! Not here: publishing (`apply` alone) and what is decided (`check`).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::published::Pinned;
pub use super::published::{OrganizationView, Published, PublishedCluster};
use crate::policy::cow_map::CowMap;
use crate::policy::name::Id;

/// Holds the current version of one organization.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) published: ArcSwap<Published>,
}

/// A fast hash without a key is enough: only administrators choose ids, and they gain nothing by collisions.
type Shard = HashMap<Id, Arc<Slot>, RandomState>;

/// With so many shards, creating one of 100,000 organizations copies some hundreds of entries.
const SHARDS: usize = 256;

/// Everything that is published.
pub struct Directory {
    cluster: ArcSwap<PublishedCluster>,
    shards: Vec<ArcSwap<Shard>>,
    /// Last revisions of organizations that were deleted.
    deleted: ArcSwap<CowMap<Id, u64>>,
    /// The same slots by ascending id, for lists.
    ordered: ArcSwap<CowMap<Id, Slot>>,
    hasher: RandomState,
}

impl Directory {
    /// A directory of these organizations. Built in one step: publishing each would copy a shard every time.
    pub(super) fn new(
        cluster: PublishedCluster,
        deleted: CowMap<Id, u64>,
        organizations: impl Iterator<Item = Published>,
    ) -> Self {
        let hasher = RandomState::default();
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
        let mut ordered = CowMap::default();
        for published in organizations {
            let id = published.view.organization.id.clone();
            let slot = Arc::new(Slot { published: ArcSwap::from_pointee(published) });
            if let Some(shard) = shards.get_mut(shard_of(&hasher, id.as_str())) {
                shard.insert(id.clone(), Arc::clone(&slot));
            }
            ordered.insert(id, slot);
        }
        Self {
            cluster: ArcSwap::from_pointee(cluster),
            shards: shards.into_iter().map(ArcSwap::from_pointee).collect(),
            deleted: ArcSwap::from_pointee(deleted),
            ordered: ArcSwap::from_pointee(ordered),
            hasher,
        }
    }

    /// Has all match counts stored again.
    pub(super) fn mark_counters_unsaved(&self) {
        for published in self.organizations_after(None, usize::MAX) {
            published.view.counters.mark_unsaved();
        }
    }

    fn shard(&self, id: &str) -> Option<&ArcSwap<Shard>> {
        self.shards.get(shard_of(&self.hasher, id))
    }

    /// Reads the current version of an organization; the reader must be quick and must not wait.
    pub(super) fn with<T>(&self, id: &str, read: impl FnOnce(Option<&Published>) -> T) -> T {
        let Some(shard) = self.shard(id) else { return read(None) };
        let shard = shard.load();
        match shard.get(id) {
            Some(slot) => read(Some(&slot.published.load())),
            None => read(None),
        }
    }

    /// The current version of an organization, to keep.
    pub fn organization(&self, id: &str) -> Option<Arc<Published>> {
        let shard = self.shard(id)?.load();
        shard.get(id).map(|slot| slot.published.load_full())
    }

    /// The current version of the cluster, to keep.
    pub fn cluster(&self) -> Arc<PublishedCluster> {
        self.cluster.load_full()
    }

    /// The current version of the cluster, for a moment.
    pub(super) fn cluster_guard(&self) -> arc_swap::Guard<Arc<PublishedCluster>> {
        self.cluster.load()
    }

    /// The current versions of the organizations whose ids are greater than `after`, by ascending id; all where none is
    /// given.
    pub fn organizations_after(&self, after: Option<&str>, count_max: usize) -> Vec<Arc<Published>> {
        let ordered = self.ordered.load_full();
        ordered.iter_after(after).take(count_max).map(|(_, slot)| slot.published.load_full()).collect()
    }

    /// Number of organizations.
    pub fn len(&self) -> usize {
        self.ordered.load().len()
    }

    /// Whether there is no organization.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the pinned versions are still the published ones.
    pub(super) fn is_current(&self, pinned: &Pinned, id: &str) -> bool {
        let same = |published: Option<&Published>| match (published, &pinned.organization) {
            (Some(published), Some(pinned)) => std::ptr::eq(published, &raw const **pinned),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.cluster.load(), &pinned.cluster) && self.with(id, same)
    }

    /// Publishes a version of the cluster.
    pub(super) fn publish_cluster(&self, cluster: PublishedCluster) {
        self.cluster.store(Arc::new(cluster));
    }

    /// Publishes a version of an organization, new or known.
    pub(super) fn publish(&self, published: Published) {
        let id = published.view.organization.id.clone();
        let Some(shard) = self.shard(id.as_str()) else { return };
        let current = shard.load_full();
        if let Some(slot) = current.get(id.as_str()) {
            slot.published.store(Arc::new(published));
            return;
        }
        let slot = Arc::new(Slot { published: ArcSwap::from_pointee(published) });
        let mut changed = (*current).clone();
        changed.insert(id.clone(), Arc::clone(&slot));
        shard.store(Arc::new(changed));
        let mut ordered = (*self.ordered.load_full()).clone();
        ordered.insert(id, slot);
        self.ordered.store(Arc::new(ordered));
    }

    /// The last revision of an organization that was deleted; 0 where there never was one.
    pub(super) fn last_revision_of_deleted(&self, id: &str) -> u64 {
        self.deleted.load().get(id).map_or(0, |revision| **revision)
    }

    /// Whether there was an organization that is deleted.
    pub fn was_deleted(&self, id: &str) -> bool {
        self.last_revision_of_deleted(id) > 0
    }

    /// Removes an organization; `revision` was its last.
    pub(super) fn withdraw(&self, id: &Id, revision: u64) {
        let mut deleted = (*self.deleted.load_full()).clone();
        deleted.insert(id.clone(), Arc::new(revision));
        self.deleted.store(Arc::new(deleted));
        let Some(shard) = self.shard(id.as_str()) else { return };
        let mut changed = (*shard.load_full()).clone();
        changed.remove(id.as_str());
        shard.store(Arc::new(changed));
        let mut ordered = (*self.ordered.load_full()).clone();
        ordered.remove(id.as_str());
        self.ordered.store(Arc::new(ordered));
    }
}

fn shard_of(hasher: &RandomState, id: &str) -> usize {
    usize::try_from(hasher.hash_one(id) % SHARDS as u64).unwrap_or_default()
}
