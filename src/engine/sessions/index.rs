//! Sessions by organization and endpoint, so that a change of policy looks only at sessions that it may affect.
//!
//! Invariant: lists every active session of its shard once, at the position that the session stores. No organization or
//! endpoint is listed without a session.
//! Not here: the sessions themselves (`slab`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Scope;
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;

/// The capacity that is kept for each endpoint with sessions.
const ROOM_KEPT: usize = 8;

/// The sessions of one organization.
#[derive(Default)]
struct Endpoints {
    /// Slots of sessions by the full name of their node.
    by_name: HashMap<Arc<str>, Vec<u32>, RandomState>,
    /// The same names in order, which only a first and a last session change.
    names: BTreeSet<Arc<str>>,
    counts: Counts,
}

/// How many sessions there are of each connection type.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) shell: u64,
    pub(super) preview: u64,
}

/// The index of a shard.
#[derive(Default)]
pub(super) struct Index {
    organizations: HashMap<Id, Endpoints, RandomState>,
}

impl Counts {
    fn of(&mut self, connection_type: ConnectionType) -> &mut u64 {
        match connection_type {
            ConnectionType::Shell => &mut self.shell,
            ConnectionType::Preview => &mut self.preview,
        }
    }
}

impl Index {
    /// The name as an earlier session of the endpoint holds it, to be shared.
    pub(super) fn shared_name(&self, organization: &Id, endpoint: &str) -> Option<Arc<str>> {
        let (name, _) = self.organizations.get(organization)?.by_name.get_key_value(endpoint)?;
        Some(Arc::clone(name))
    }

    /// Lists a session; returns its position.
    pub(super) fn insert(
        &mut self,
        organization: &Id,
        endpoint: &Arc<str>,
        connection_type: ConnectionType,
        slot: u32,
    ) -> u32 {
        let endpoints = match self.organizations.get_mut(organization) {
            Some(endpoints) => endpoints,
            None => self.organizations.entry(organization.clone()).or_default(),
        };
        *endpoints.counts.of(connection_type) += 1;
        let slots = if let Some(slots) = endpoints.by_name.get_mut(endpoint) {
            slots
        } else {
            endpoints.names.insert(Arc::clone(endpoint));
            // Most endpoints have one or two sessions in a shard.
            endpoints.by_name.entry(Arc::clone(endpoint)).or_insert_with(|| Vec::with_capacity(1))
        };
        slots.push(slot);
        u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
    }

    /// Removes the session at a position; returns the slot of the session that moved there.
    pub(super) fn remove(
        &mut self,
        organization: &Id,
        endpoint: &str,
        connection_type: ConnectionType,
        position: u32,
    ) -> Option<u32> {
        let position = position as usize;
        let endpoints = self.organizations.get_mut(organization)?;
        let slots = endpoints.by_name.get_mut(endpoint)?;
        if position < slots.len() {
            slots.swap_remove(position);
            *endpoints.counts.of(connection_type) -= 1;
        }
        let moved = slots.get(position).copied();
        if slots.is_empty() {
            endpoints.by_name.remove(endpoint);
            endpoints.names.remove(endpoint);
            if endpoints.by_name.capacity() > ROOM_KEPT * (endpoints.by_name.len() + 1) {
                endpoints.by_name.shrink_to(2 * endpoints.by_name.len());
            }
            if endpoints.by_name.is_empty() {
                self.organizations.remove(organization);
            }
        }
        moved
    }

    /// How many sessions an organization has.
    pub(super) fn counts(&self, organization: &Id) -> Counts {
        self.organizations.get(organization).map(|endpoints| endpoints.counts).unwrap_or_default()
    }

    /// The slots of the sessions in a scope. Those of an organization come together, and in it those of an endpoint.
    pub(super) fn slots<'a>(&'a self, scope: &'a Scope) -> Box<dyn Iterator<Item = u32> + 'a> {
        match scope {
            Scope::All => Box::new(self.organizations.values().flat_map(Endpoints::slots)),
            Scope::Organization(id) => Box::new(self.organizations.get(id).into_iter().flat_map(Endpoints::slots)),
            Scope::Subtree(id, node) => {
                Box::new(self.organizations.get(id).into_iter().flat_map(|endpoints| endpoints.slots_below(node)))
            }
        }
    }
}

impl Endpoints {
    fn slots(&self) -> impl Iterator<Item = u32> {
        self.names.iter().flat_map(|name| self.slots_of(name))
    }

    fn slots_of(&self, name: &str) -> impl Iterator<Item = u32> {
        self.by_name.get(name).into_iter().flatten().copied()
    }

    /// The slots of a node and of all below it. Their names are not contiguous: `web-2` lies between `web` and `web/…`.
    fn slots_below(&self, node: &str) -> impl Iterator<Item = u32> {
        let prefix: Arc<str> = format!("{node}/").into();
        let below = self.names.range(Arc::clone(&prefix)..).take_while(move |name| name.starts_with(&*prefix));
        self.slots_of(node).chain(below.flat_map(|name| self.slots_of(name)))
    }
}
