//! The compiled nodes of an organization by name: which access setting applies to a target.
//!
//! Invariant: a name is hashed once for each lookup, with secret random seeds. Names with the same hash are never
//! confused.
//! Not here: what a setting permits (`members`), the other steps of a decision (`snapshot`).

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::decision::Level;
use super::members::{CompiledAccess, MembersCache};
use super::name::{NodeKey, NodePath};
use super::organization::Organization;

/// Compiled access settings by the node's name below the organization. A change copies one of the shards.
#[derive(Clone, Debug)]
pub(super) struct NodeIndex {
    shards: Vec<Arc<Shard>>,
    seeds: Seeds,
}

/// Nodes by the hash of their name.
type Shard = HashMap<u64, IndexedNode, BuildHasherDefault<Hashed>>;

/// A node, and the list of further nodes whose names have the same hash, which is nearly always empty.
#[derive(Clone, Debug)]
struct IndexedNode {
    name: Arc<str>,
    access: CompiledAccess,
    next: Option<Box<Self>>,
}

impl IndexedNode {
    /// This node and those with the same hash.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |named| named.next.as_deref())
    }

    /// Removes nodes from the chain. Returns false, without removing any, when none would be left.
    fn retain(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let kept = self.chain().filter(|named| keep(&named.name));
        let kept: Vec<(Arc<str>, CompiledAccess)> =
            kept.map(|named| (Arc::clone(&named.name), named.access.clone())).collect();
        let chain =
            kept.into_iter().fold(None, |next, (name, access)| Some(Self { name, access, next: next.map(Box::new) }));
        let Some(chain) = chain else { return false };
        *self = chain;
        true
    }
}

/// The average number of nodes of a shard after compiling.
const SHARD_NODES: usize = 256;

impl NodeIndex {
    pub(super) fn compile(organization: &Organization, lists: &mut MembersCache) -> Self {
        let count = organization.nodes.len().div_ceil(SHARD_NODES).next_power_of_two();
        let mut index = Self { shards: vec![Arc::default(); count], seeds: Seeds::random() };
        for (key, node) in organization.nodes.iter() {
            index.insert(key.to_string().into(), lists.compile(organization, &node.access));
        }
        index
    }

    #[inline]
    fn get(&self, name: &str) -> Option<&CompiledAccess> {
        self.get_by(self.seeds.hash(name), name)
    }

    #[inline]
    fn get_by(&self, hash: u64, name: &str) -> Option<&CompiledAccess> {
        let mut named = self.shards.get(self.shard_of(hash))?.get(&hash)?;
        while *named.name != *name {
            named = named.next.as_deref()?;
        }
        Some(&named.access)
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    fn insert(&mut self, name: Arc<str>, access: CompiledAccess) {
        self.insert_by(self.seeds.hash(&name), name, access);
    }

    fn insert_by(&mut self, hash: u64, name: Arc<str>, access: CompiledAccess) {
        let at = self.shard_of(hash);
        let Some(shard) = self.shards.get_mut(at) else { return };
        let shard = Arc::make_mut(shard);
        let mut named = shard.get_mut(&hash);
        while let Some(found) = named {
            if found.name == name {
                found.access = access;
                return;
            }
            named = found.next.as_deref_mut();
        }
        let next = shard.remove(&hash).map(Box::new);
        shard.insert(hash, IndexedNode { name, access, next });
    }

    pub(super) fn set(&mut self, key: &NodeKey, access: CompiledAccess) {
        self.insert(key.to_string().into(), access);
        self.grow();
    }

    /// Increases the number of shards when they have become large, so that a change stays cheap.
    fn grow(&mut self) {
        let nodes: usize = self.shards.iter().map(|shard| shard.len()).sum();
        if nodes <= 4 * SHARD_NODES * self.shards.len() {
            return;
        }
        let count = nodes.div_ceil(SHARD_NODES).next_power_of_two();
        let mut grown = Self { shards: vec![Arc::default(); count], seeds: self.seeds };
        for named in self.shards.iter().flat_map(|shard| shard.values()).flat_map(IndexedNode::chain) {
            grown.insert(Arc::clone(&named.name), named.access.clone());
        }
        *self = grown;
    }

    pub(super) fn remove_subtree(&mut self, root: &NodeKey) {
        let root = root.to_string();
        let within =
            |name: &str| name.strip_prefix(root.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        for shard in &mut self.shards {
            if shard.values().any(|first| first.chain().any(|named| within(&named.name))) {
                Arc::make_mut(shard).retain(|_, first| first.retain(|name| !within(name)));
            }
        }
    }

    /// The target's effective access, and the level that it comes from.
    ///
    /// The outer none means that the project is required and unknown. The inner none means that no level below the
    /// organization applies.
    #[inline]
    #[expect(
        clippy::option_option,
        reason = "unknown target and no level below the organization are different answers"
    )]
    pub(super) fn effective(
        &self,
        target: &NodePath<'_>,
        require_projects: bool,
    ) -> Option<Option<(Level, &CompiledAccess)>> {
        let Some(project) = target.project else { return Some(None) };
        let key = target.key();
        let project_end = "projects/".len() + project.len();
        let workspace_end = project_end + target.workspace.map_or(0, |id| "/workspaces/".len() + id.len());
        let project_access = || key.get(..project_end).and_then(|name| self.get(name));
        if require_projects && project_access().is_none() {
            return None;
        }
        let own = |name: Option<&str>| {
            name.and_then(|name| self.get(name)).filter(|access| !matches!(access, CompiledAccess::Inherit))
        };
        if target.endpoint.is_some()
            && let Some(access) = own(Some(key))
        {
            return Some(Some((Level::Endpoint, access)));
        }
        if target.workspace.is_some()
            && let Some(access) = own(key.get(..workspace_end))
        {
            return Some(Some((Level::Workspace, access)));
        }
        Some(project_access().map(|access| (Level::Project, access)))
    }
}

/// Hashes names, with one multiplication for 16 bytes. Every index has random seeds, so nobody can choose names that
/// collide. The standard hasher costs more than the rest of a decision.
#[derive(Clone, Copy, Debug)]
struct Seeds([u64; 2]);

impl Seeds {
    fn random() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0_u8), random.hash_one(1_u8)])
    }

    #[inline]
    fn hash(self, name: &str) -> u64 {
        let bytes = name.as_bytes();
        let [seed, _] = self.0;
        let mut state = seed ^ bytes.len() as u64;
        let (words, _) = bytes.as_chunks::<8>();
        for pair in words.as_chunks::<2>().0 {
            let [first, second] = *pair;
            state = self.mix(state, first, second);
        }
        // The last 16 bytes, which may overlap with those before. A shorter name is hashed whole.
        match (bytes.last_chunk::<16>(), bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(last), ..) => match last.as_chunks::<8>() {
                ([first, second], _) => self.mix(state, *first, *second),
                _ => state,
            },
            (None, Some(first), Some(last)) => self.mix(state, *first, *last),
            _ => bytes.iter().fold(state, |state, byte| self.mix(state, [*byte; 8], [0; 8])),
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "folds the upper half into the lower one")]
    fn mix(self, state: u64, first: [u8; 8], second: [u8; 8]) -> u64 {
        let [_, seed] = self.0;
        let (first, second) = (u64::from_le_bytes(first) ^ state, u64::from_le_bytes(second) ^ seed);
        let product = u128::from(first) * u128::from(second);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

/// A hasher for keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_the_same_hash_are_told_apart() {
        let mut index = NodeIndex { shards: vec![Arc::default()], seeds: Seeds::random() };
        let key = |name: &str| NodeKey::of(&NodePath::parse(&format!("organizations/o/{name}")).unwrap()).unwrap();
        let names = ["projects/a", "projects/a/workspaces/w", "projects/b"];
        for name in names {
            index.insert_by(7, name.into(), CompiledAccess::Inherit);
        }
        index.insert_by(7, names[1].into(), CompiledAccess::AllowAll);
        let is_open =
            |index: &NodeIndex, name| index.get_by(7, name).map(|access| matches!(access, CompiledAccess::AllowAll));
        assert_eq!(names.map(|name| is_open(&index, name)), [Some(false), Some(true), Some(false)]);
        assert_eq!(is_open(&index, "projects/c"), None);
        index.remove_subtree(&key("projects/a"));
        assert_eq!(names.map(|name| is_open(&index, name)), [None, None, Some(false)]);
        index.remove_subtree(&key("projects/b"));
        assert_eq!(names.map(|name| is_open(&index, name)), [None; 3]);
    }
}
