//! Nodes and access settings in messages.
//!
//! Invariant: an access that is given has a mode, and entries only with an allowlist; only a wholly absent access of a
//! new node takes the node's default.
//! Not here: which modes a kind of node can have (`policy::plan`).

use std::sync::Arc;

use super::options::{Mask, read_gates};
use super::reader::Reader;
use super::{SourceText, to_source_name, to_time};
use crate::api::{ANSWER_BYTES_MAX, to_i64};
use crate::policy::address::Address;
use crate::policy::gates::Gates;
use crate::policy::name::Name;
use crate::policy::node::{Access, AccessEntry, Node, NodePatch};
use crate::policy::organization::Organization;
use crate::policy::plan::Etags;
use crate::policy::rule::Source;
use crate::proto::v1;
use crate::proto::v1::access_entry::Source as EntrySource;
use prost::Message;

/// Fields of a node that an update may name.
pub(in crate::api) const SETTABLE: &[&str] = &["display_name", "require_projects", "access", "change_gates"];

/// Bytes of a node, so that it fits an answer, with others beside it.
const NODE_BYTES_MAX: usize = ANSWER_BYTES_MAX / 4;

/// Reads the settable fields of a node. `organization` is the id of its organization, unless it is the cluster.
pub(in crate::api) fn patch(
    read: &mut Reader,
    field: &str,
    organization: Option<&str>,
    node: v1::Node,
    mask: &Mask,
) -> NodePatch {
    if node.encoded_len() > NODE_BYTES_MAX {
        let advice = "use an address group, or shorter descriptions";
        read.add(field, format!("has more than {NODE_BYTES_MAX} bytes: {advice}"));
        return NodePatch::default();
    }
    let v1::Node {
        name: _,
        display_name,
        require_projects,
        revision: _,
        access,
        etag: _,
        create_time: _,
        update_time: _,
        change_gates,
        pending_revision: _,
    } = node;
    let mut patch = NodePatch::default();
    if mask.names("display_name", !display_name.is_empty()) {
        patch.display_name = Some(read.description(&format!("{field}.display_name"), &display_name));
    }
    if mask.names("require_projects", require_projects.is_some()) {
        patch.require_projects = Some(require_projects.unwrap_or_default());
    }
    if mask.names("access", access.is_some()) {
        match access {
            Some(access) => patch.access = read_access(read, field, organization, access),
            None => read
                .add(format!("{field}.access"), "is required: give a mode, and for ACCESS_MODE_ALLOW_LIST the entries"),
        }
    }
    if mask.names("change_gates", change_gates.is_some()) {
        let v1::ChangeGates { guard_ips, max_revocations, refuse_open_to_internet } = change_gates.unwrap_or_default();
        let field = format!("{field}.change_gates");
        patch.gates = Some(Arc::new(read_gates(read, &field, &guard_ips, max_revocations, refuse_open_to_internet)));
    }
    patch
}

fn read_access(read: &mut Reader, field: &str, organization: Option<&str>, access: v1::Access) -> Option<Access> {
    const MODES: &str = "use ACCESS_MODE_INHERIT, ACCESS_MODE_ALLOW_ALL or ACCESS_MODE_ALLOW_LIST";
    let v1::Access { mode, entries } = access;
    let given_entries = !entries.is_empty();
    let entries = entries.into_iter().enumerate();
    let entry_field = |index| format!("{field}.access.entries[{index}]");
    let entries: Vec<AccessEntry> =
        entries.map(|(index, entry)| read_entry(read, &entry_field(index), organization, entry)).collect();
    let access = |mode| match mode {
        v1::AccessMode::Unspecified => None,
        v1::AccessMode::Inherit => Some(Access::Inherit),
        v1::AccessMode::AllowAll => Some(Access::AllowAll),
        v1::AccessMode::AllowList => Some(Access::AllowList(entries.into())),
    };
    let access = read.choice(&format!("{field}.access.mode"), mode, access, "access mode", MODES)?;
    if given_entries && !matches!(access, Access::AllowList(_)) {
        read.add(
            format!("{field}.access.entries"),
            "are for ACCESS_MODE_ALLOW_LIST only: leave them out or change the mode",
        );
        return None;
    }
    Some(access)
}

/// Reads an entry of an allowlist, which is in the message at `field`.
pub(in crate::api) fn read_entry(
    read: &mut Reader,
    field: &str,
    organization: Option<&str>,
    entry: v1::AccessEntry,
) -> AccessEntry {
    let v1::AccessEntry { source, description } = entry;
    let source = match &source {
        Some(EntrySource::Range(text)) => read.source(field, organization, SourceText::Range(text)),
        Some(EntrySource::AddressGroup(name)) => read.source(field, organization, SourceText::Group(name)),
        None => {
            read.add(format!("{field}.range"), "is required: give a `range` or an `address_group`");
            None
        }
    };
    let description: Arc<str> = read.description(&format!("{field}.description"), &description);
    // An entry that could not be read keeps its index, so that faults of later entries name the right one. The change is
    // refused in any case.
    let source = source.unwrap_or(Source::Range(Address::V4(0).into()));
    AccessEntry { source, description }
}

/// A node as the API shows it. `organization` is the id of its organization, unless it is the cluster.
pub(in crate::api) fn to_node(
    etags: Etags,
    name: String,
    organization: Option<&str>,
    revision: u64,
    node: &Node,
) -> v1::Node {
    let Node { display_name, require_projects, access, gates, create_time, update_time, changed_at } = node;
    let is_organization = organization.is_some() && name.strip_prefix("organizations/") == organization;
    v1::Node {
        name,
        display_name: display_name.to_string(),
        require_projects: is_organization.then_some(*require_projects),
        revision: to_i64(revision),
        access: Some(v1::Access { mode: to_mode(access).into(), entries: to_entries(organization, access) }),
        etag: etags.node(*changed_at),
        create_time: Some(to_time(*create_time)),
        update_time: Some(to_time(*update_time)),
        change_gates: Some(&**gates).filter(|gates| !gates.is_empty()).map(to_gates),
        pending_revision: None,
    }
}

fn to_gates(gates: &Gates) -> v1::ChangeGates {
    let Gates { guard, max_revocations, refuse_open_to_internet } = gates;
    v1::ChangeGates {
        guard_ips: guard.iter().map(ToString::to_string).collect(),
        max_revocations: max_revocations.map(to_i64),
        refuse_open_to_internet: *refuse_open_to_internet,
    }
}

/// The node of an organization as the API shows it.
pub(in crate::api) fn to_own_node(etags: Etags, organization: &Organization) -> v1::Node {
    let id = organization.id.as_str();
    let node = to_node(etags, Name::organization(id).to_string(), Some(id), organization.revision, &organization.node);
    let pending_revision = organization.pending.as_deref().map(|pending| v1::PendingRevision {
        revision: to_i64(pending.revision),
        revert_time: Some(to_time(pending.until)),
    });
    v1::Node { pending_revision, ..node }
}

/// A mode as the API has it.
pub(in crate::api) fn to_mode(access: &Access) -> v1::AccessMode {
    match access {
        Access::Inherit => v1::AccessMode::Inherit,
        Access::AllowAll => v1::AccessMode::AllowAll,
        Access::AllowList(_) => v1::AccessMode::AllowList,
    }
}

/// Entries as the API has them.
pub(in crate::api) fn to_entries(organization: Option<&str>, access: &Access) -> Vec<v1::AccessEntry> {
    let entry = |AccessEntry { source, description }: &AccessEntry| {
        let source = match source {
            Source::Range(range) => EntrySource::Range(range.to_string()),
            Source::Group(_) => EntrySource::AddressGroup(to_source_name(organization, source)),
        };
        v1::AccessEntry { source: Some(source), description: description.to_string() }
    };
    access.entries().iter().map(entry).collect()
}
