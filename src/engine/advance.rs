//! From one published version of an organization to the next.
//!
//! Invariant: the next version decides as if it were compiled anew; what a change leaves alone is shared.
//! Not here: who may publish it (`writer`).

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::{RuleCounter, RuleCounters, RuleKey};
use super::directory::{OrganizationView, Published};
use super::sessions::Scope;
use super::shadow::Shadow;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::members::MembersCache;
use crate::policy::name::Id;
use crate::policy::organization::Organization;
use crate::policy::snapshot::Snapshot;
use crate::policy::time::Timestamp;

/// Where sessions may be concerned by changes of an organization, or of the cluster.
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

/// The counters of a version's rules, by rule.
pub(super) fn counters_of(view: &OrganizationView) -> HashMap<RuleKey, Arc<RuleCounter>> {
    view.counters.by_key(&view.organization)
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
    let (snapshot, counters) = match current.filter(|_| changes.iter().all(inside)) {
        None => {
            let counters = RuleCounters::following(&organization, &HashMap::new(), now);
            (Snapshot::compile(&organization, lists), Arc::new(counters))
        }
        Some(current) => {
            let deltas = changes.iter().flat_map(|change| match &change.effect {
                Effect::Organization { deltas, .. } => deltas.as_slice(),
                _ => &[],
            });
            let same_rules = Arc::ptr_eq(&organization.rules, &current.view.organization.rules);
            let counters = if same_rules {
                Arc::clone(&current.view.counters)
            } else {
                Arc::new(RuleCounters::following(&organization, &counters_of(&current.view), now))
            };
            (current.snapshot.advance(&organization, deltas, lists), counters)
        }
    };
    let current = current.and_then(|current| current.shadow.as_ref());
    let shadow = Shadow::following(organization.shadow.as_ref(), current, now);
    Published { view: OrganizationView { organization, counters }, snapshot, shadow }
}
