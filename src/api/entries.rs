//! Adding and removing single entries of allowlists (design.md §3.4).
//!
//! Invariant: an answer tells what the change did, from the node before and after it.
//! Not here: setting an access as a whole (`hierarchy`), what an edit makes of a list (`policy::plan`).

use std::collections::HashSet;

use tonic::{Response, Status};

use super::caller::Caller;
use super::convert::names::{self, NodeName};
use super::convert::node::read_entry;
use super::convert::reader::{ReadChange, Reader};
use super::convert::{SourceText, to_source_name};
use super::hierarchy::{shown_node, target_name, update_of};
use super::{Api, at_revision};
use crate::policy::name::Id;
use crate::policy::node::{AccessEntry, EntriesEdit, Node, NodePatch};
use crate::policy::organization::Organization;
use crate::policy::plan::{Permitted, Permitting};
use crate::policy::rule::Source;
use crate::policy::state::Outcome;
use crate::proto::v1;
use crate::proto::v1::access_source::Source as AskedSource;

/// The removed entries for which those that still permit them are looked for. Each takes a pass over the entries left.
const LOOKED_AT_MAX: usize = 1_000;

/// The same of address groups, for which a pass can take as long as they are large.
const GROUPS_LOOKED_AT_MAX: usize = 20;

/// Entries that an answer names for one whose addresses are still permitted.
const COVERING_MAX: usize = 10;

/// A node before and after its entries were edited.
struct EditedEntries {
    node: v1::Node,
    before: Vec<AccessEntry>,
    after: Vec<AccessEntry>,
    outcome: Outcome,
    revision: u64,
}

impl Api {
    pub(super) fn read_add_entries(&self, request: v1::AddAccessEntriesRequest) -> ReadChange {
        let v1::AddAccessEntriesRequest { name, entries, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (named, organization) = read_node(&mut read, &name);
        if entries.is_empty() {
            read.add("entries", "is required: give the entries to add");
        }
        let mut added = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            if read.is_full() {
                break;
            }
            let organization = organization.as_ref().map(Id::as_str);
            added.push(read_entry(&mut read, &format!("entries[{index}]"), organization, entry));
        }
        edit(read, named, etag, EntriesEdit::Add(added))
    }

    pub(super) fn read_remove_entries(&self, request: v1::RemoveAccessEntriesRequest) -> ReadChange {
        let v1::RemoveAccessEntriesRequest { name, sources, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (named, organization) = read_node(&mut read, &name);
        if sources.is_empty() {
            read.add("sources", "is required: give the sources of the entries to remove");
        }
        let mut removed = Vec::with_capacity(sources.len());
        for (index, v1::AccessSource { source }) in sources.into_iter().enumerate() {
            if read.is_full() {
                break;
            }
            let (field, organization) = (format!("sources[{index}]"), organization.as_ref().map(Id::as_str));
            let source = match &source {
                Some(AskedSource::Range(text)) => read.source(&field, organization, SourceText::Range(text)),
                Some(AskedSource::AddressGroup(name)) => read.source(&field, organization, SourceText::Group(name)),
                None => {
                    read.add(format!("{field}.range"), "is required: give a `range` or an `address_group`");
                    None
                }
            };
            removed.extend(source);
        }
        edit(read, named, etag, EntriesEdit::Remove(removed))
    }

    pub(super) async fn add_access_entries(
        &self,
        caller: Caller,
        request: v1::AddAccessEntriesRequest,
    ) -> Result<Response<v1::AddAccessEntriesResponse>, Status> {
        let edited = self.edit_entries(caller, self.read_add_entries(request)).await?;
        let EditedEntries { node, before, after, revision, .. } = edited;
        // Those that were there keep their places.
        let updated = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let added_count = count(after.len().saturating_sub(before.len()));
        let answer = v1::AddAccessEntriesResponse { node: Some(node), added_count, updated_count: count(updated) };
        Ok(at_revision(answer, revision))
    }

    pub(super) async fn remove_access_entries(
        &self,
        caller: Caller,
        request: v1::RemoveAccessEntriesRequest,
    ) -> Result<Response<v1::RemoveAccessEntriesResponse>, Status> {
        let edited = self.edit_entries(caller, self.read_remove_entries(request)).await?;
        let still_covered = still_covered(&edited);
        let EditedEntries { node, before, after, revision, .. } = edited;
        let removed_count = count(before.len().saturating_sub(after.len()));
        let answer = v1::RemoveAccessEntriesResponse { node: Some(node), removed_count, still_covered };
        Ok(at_revision(answer, revision))
    }

    async fn edit_entries(&self, caller: Caller, read: ReadChange) -> Result<EditedEntries, Status> {
        let request = read?;
        let (name, validate_only) = (target_name(&request.target), request.validate_only);
        let changed = self.change(caller, request).await?;
        let entries = |outcome| {
            let node = node_of(outcome, &name);
            node.map(|node| node.access.entries().to_vec()).unwrap_or_default()
        };
        let node = shown_node(self.etags()?, &changed, &name, validate_only)?;
        let (before, after, revision) = (entries(&changed.before), entries(&changed.outcome), changed.revision);
        Ok(EditedEntries { node, before, after, outcome: changed.outcome, revision })
    }
}

/// The node whose entries are edited, and its organization unless it is the cluster.
fn read_node(read: &mut Reader, name: &str) -> (Option<NodeName>, Option<Id>) {
    let named = read.note("name", names::node(name));
    let organization = match &named {
        Some(NodeName::Organization(id) | NodeName::Below(id, _)) => Some(id.clone()),
        Some(NodeName::Cluster) | None => None,
    };
    (named, organization)
}

fn edit(read: Reader, named: Option<NodeName>, etag: Option<String>, edit: EntriesEdit) -> ReadChange {
    let patch = NodePatch { entries: Some(edit), ..NodePatch::default() };
    read.change(named.map(|named| update_of(named, etag, patch)))
}

/// The node of a name in an outcome.
fn node_of<'a>(outcome: &'a Outcome, name: &str) -> Option<&'a Node> {
    match (outcome, names::node(name).ok()?) {
        (Outcome::Cluster(cluster), NodeName::Cluster) => Some(&cluster.node),
        (Outcome::Organization(organization), NodeName::Organization(_)) => Some(&organization.node),
        (Outcome::Organization(organization), NodeName::Below(_, key)) => {
            organization.nodes.get(&key).map(|node| &**node)
        }
        _ => None,
    }
}

/// The removed entries whose addresses those that are left still permit.
fn still_covered(edited: &EditedEntries) -> Vec<v1::CoveredSource> {
    let organization: Option<&Organization> = edited.outcome.organization().map(|organization| &**organization);
    let id = organization.map(|organization| organization.id.as_str());
    let left: HashSet<&Source> = edited.after.iter().map(|entry| &entry.source).collect();
    let removed = || edited.before.iter().map(|entry| &entry.source).filter(|source| !left.contains(source));
    let is_group = |source: &&Source| matches!(source, Source::Group(_));
    let groups = removed().filter(is_group).take(GROUPS_LOOKED_AT_MAX);
    let ranges = removed().filter(|source| !is_group(source)).take(LOOKED_AT_MAX);
    let looked_at: HashSet<&Source> = ranges.chain(groups).collect();
    let permitting = Permitting::new(&edited.after, organization);
    let mut told = HashSet::new();
    let removed = removed().filter(|source| looked_at.contains(source) && told.insert(*source));
    let covered = removed.filter_map(|source| {
        let Permitted { entries, by_one, is_whole } = permitting.of(source)?;
        let name = |entry: &&AccessEntry| to_source_name(id, &entry.source);
        let (range, address_group) = match source {
            Source::Range(range) => (range.to_string(), String::new()),
            Source::Group(_) => (String::new(), to_source_name(id, source)),
        };
        Some(v1::CoveredSource {
            range,
            covered_by: entries.first().filter(|_| by_one).map(name).unwrap_or_default(),
            address_group,
            covering_entries: entries.iter().take(COVERING_MAX).map(name).collect(),
            covering_count: count(entries.len()),
            partly: !is_whole,
        })
    });
    covered.collect()
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
