//! From one published version of an organization to the next.
//!
//! Invariant: the next version decides as if it were compiled anew; what a change leaves alone is shared.
//! Not here: publishing it (`apply`).

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::RuleCounters;
use super::directory::{OrganizationView, Published};
use super::sessions::Scope;
use super::shadow::Shadow;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::snapshot::Snapshot;
use crate::policy::time::Timestamp;

/// Which sessions changes of an organization, or of the cluster, may affect.
pub(super) fn scopes(id: Option<&Id>, changes: &[&Change]) -> Vec<Scope> {
    let Some(id) = id else { return vec![Scope::All] };
    let mut scopes = Vec::new();
    for change in changes {
        let Effect::Organization { deltas, .. } = &change.effect else {
            return vec![Scope::Organization(id.clone())];
        };
        for delta in deltas {
            match delta {
                Delta::SetNode { key, .. } | Delta::RemoveNode { key } => {
                    scopes.push(Scope::Subtree(id.clone(), format!("organizations/{id}/{key}")));
                }
                _ => return vec![Scope::Organization(id.clone())],
            }
        }
    }
    scopes
}

/// The counters of a version's rules. Rules that the current version has too go on counting where they are.
pub(super) fn counters_after(
    current: Option<&OrganizationView>,
    organization: &Organization,
    now: Timestamp,
) -> Arc<RuleCounters> {
    let known = match current {
        Some(current) if Arc::ptr_eq(&current.organization.rules, &organization.rules) => {
            return Arc::clone(&current.counters);
        }
        Some(current) => current.counters.by_key(&current.organization),
        None => HashMap::new(),
    };
    Arc::new(RuleCounters::following(organization, &known, now))
}

/// The version after `changes`, compiled as far as they reach.
pub(super) fn next_version(
    current: Option<&Published>,
    organization: Arc<Organization>,
    changes: &[&Change],
    lists: &mut MembersCache,
    now: Timestamp,
) -> Published {
    let inside = |change: &&Change| matches!(change.effect, Effect::Organization { .. });
    // An organization that was deleted and created again is compiled from scratch.
    let same = current.filter(|_| changes.iter().all(inside));
    let counters = counters_after(same.map(|same| &same.view), &organization, now);
    let snapshot = match same {
        None => Snapshot::compile(&organization, lists),
        Some(same) => {
            let deltas = changes.iter().flat_map(|change| match &change.effect {
                Effect::Organization { deltas, .. } => deltas.as_slice(),
                _ => &[],
            });
            same.snapshot.advance(&organization, deltas, lists)
        }
    };
    let current = current.and_then(|current| current.shadow.as_ref());
    let shadow = Shadow::following(organization.shadow.as_ref(), current, now);
    Published { view: OrganizationView { organization, counters }, snapshot, shadow }
}
