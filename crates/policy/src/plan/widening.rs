//! Deletions that would permit addresses which the deleted nodes keep out (design.md §2.3).
//!
//! Invariant: the access of organization and cluster counts, as it is after the change. The firewall does not, because
//! its rules change independently. A project that must exist is closed by its deletion, never widened.
//! Not here: which nodes a mutation deletes (`nodes`, `document`).

use std::collections::HashMap;
use std::sync::Arc;

use super::error::PlanError;
use crate::name::{Name, NodeKey};
use crate::node::{Access, Node};
use crate::organization::{Cluster, Organization};
use crate::ranges::RangeSet;
use crate::rule::Source;

/// Names that a refusal gives.
const NAMED_MAX: usize = 3;

/// Refuses a change that deletes nodes and permits addresses there that the nodes keep out.
pub(super) fn refuse_widening<'a>(
    before: &Organization,
    deleted: impl IntoIterator<Item = (&'a NodeKey, &'a Arc<Node>)>,
    after: &Organization,
    cluster: &Cluster,
) -> Result<(), PlanError> {
    let above = after.access_set(&after.node.access).intersection(&after.access_set(&cluster.node.access));
    let (mut nodes, mut count) = (Vec::new(), 0);
    // Neighbors in the order of the keys mostly have the same nearest ancestor, and often the same list.
    let mut permitted: Option<Permitted<'_>> = None;
    for (key, node) in deleted {
        if node.access == Access::Inherit {
            continue;
        }
        let inherited = key.parent().and_then(|parent| after.effective_access(&parent));
        if inherited.is_none() && after.node.require_projects {
            continue;
        }
        let (ancestor, access) = inherited.map_or((None, &Access::AllowAll), |(key, access)| (Some(key), access));
        let known = permitted.take().filter(|permitted| permitted.ancestor == ancestor);
        let permitted = permitted.insert(known.unwrap_or_else(|| Permitted {
            ancestor,
            set: after.access_set(access).intersection(&above),
            widens: HashMap::new(),
        }));
        if permitted.widens(before, &node.access) {
            count += 1;
            if nodes.len() < NAMED_MAX {
                nodes.push(Name::node(&before.id, key).to_string());
            }
        }
    }
    if count == 0 { Ok(()) } else { Err(PlanError::WouldWidenAccess { nodes, count }) }
}

/// What is permitted at nodes that are deleted, once they are.
struct Permitted<'a> {
    /// The node whose access applies then; none where there is none.
    ancestor: Option<NodeKey>,
    set: RangeSet,
    /// Whether that is more than a list of sources permits.
    widens: HashMap<Vec<&'a Source>, bool>,
}

impl<'a> Permitted<'a> {
    fn widens(&mut self, before: &Organization, access: &'a Access) -> bool {
        if !matches!(access, Access::AllowList(_)) {
            return false;
        }
        let sources = access.entries().iter().map(|entry| &entry.source).collect();
        let set = &self.set;
        *self.widens.entry(sources).or_insert_with(|| !set.is_subset(&before.access_set(access)))
    }
}
