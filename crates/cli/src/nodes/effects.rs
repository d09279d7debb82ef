//! What a change of nodes does that its answer does not show: the last project, nodes that go with another, lost entries.
//!
//! Invariant: a change that was made is never told as failed because one of these questions was not answered.
//! Not here: the changes themselves, guards (`guards`), and what a preview foresees (`crate::effects`).

use portcullis_client::{CallError, answer};

use super::args::UpdateArgs;
use super::guards;
use crate::change::ChangeArgs;
use crate::consequences::no_project_left;
use crate::context::Context;
use crate::difference::Told;
use crate::names::{organization_of, split_node};
use crate::record::object_name;
use crate::settings;
use crate::table::clean;
use portcullis_proto::v1;
use portcullis_proto::v1::policy_object::Object;

/// The most names that a note has.
const NAMES_SHOWN: usize = 8;

/// The node before an update, where the update depends on it or may lose something of it.
pub(super) async fn present(
    name: &str,
    args: &UpdateArgs,
    context: &Context<'_>,
) -> Result<Option<v1::Node>, CallError> {
    if !args.gates.given() && !args.fields.access.given() {
        return Ok(None);
    }
    answer(context.client.hierarchy().get_node(v1::GetNodeRequest { name: name.to_owned() }).await).map(Some)
}

/// Whether a node is the last project of an organization that requires projects.
pub(super) async fn is_last_required_project(name: &str, context: &Context<'_>) -> bool {
    is_project(name) && requires_projects(name, context).await == Some(true) && projects(name, context).await == [name]
}

/// Says what stays when the last project goes.
pub(super) fn of_last_project(told: Told, name: &str, context: &mut Context<'_>) {
    context.output.note(&no_project_left(&organization_of(name), told));
}

/// Says which nodes a deletion takes with it.
pub(super) fn of_deletion(told: Told, changes: &[v1::ObjectChange], context: &mut Context<'_>) {
    let nodes = changes.iter().filter(|change| change.after.is_none()).filter_map(|change| {
        let before = change.before.as_ref()?;
        matches!(before.object, Some(Object::Node(_))).then(|| object_name(before)).flatten()
    });
    // The first is the node itself.
    let below: Vec<String> = nodes.skip(1).map(clean).collect();
    if !below.is_empty() {
        let nodes = if below.len() == 1 { "node" } else { "nodes" };
        let verb = if told == Told::Would { "would go" } else { "went" };
        context.output.note(&format!("note: {} {nodes} below it {verb} with it: {}", below.len(), some(&below)));
    }
}

/// Says what an update took away, and which gates are left.
pub(super) async fn of_update(args: &UpdateArgs, before: &v1::Node, after: &v1::Node, context: &mut Context<'_>) {
    if args.fields.access.given() {
        of_access(&args.change, before, after, context);
    }
    if args.gates.given() {
        context.output.note(&settings::gates_told(after, args.change.told()));
        guards::tell(&args.change, before, after, context).await;
    }
}

/// Says which entries an access has lost.
fn of_access(change: &ChangeArgs, before: &v1::Node, after: &v1::Node, context: &mut Context<'_>) {
    let now = sources(after);
    let lost: Vec<String> = sources(before).into_iter().filter(|source| !now.contains(source)).collect();
    let loses = if change.validate_only { "would lose" } else { "has lost" };
    if !lost.is_empty() {
        let entries = if lost.len() == 1 { "the entry" } else { "the entries" };
        context.output.note(&format!("note: {} {loses} {entries} {}", clean(&after.name), some(&lost)));
    }
}

/// Says that an organization that is not made yet would permit nobody, which is a problem of one that is.
pub(super) fn of_new_access(node: &v1::Node, context: &mut Context<'_>) {
    let is_list = node.access.as_ref().is_some_and(|access| access.mode() == v1::AccessMode::AllowList);
    if is_list && sources(node).is_empty() {
        let name = clean(&node.name);
        context.output.note(&format!("note: {name} would permit nobody: its allowlist has no entries"));
    }
}

/// The entries of an access, each in a word.
fn sources(node: &v1::Node) -> Vec<String> {
    let entries = node.access.iter().flat_map(|access| &access.entries);
    entries.map(|entry| clean(&settings::entry_source(entry))).collect()
}

/// The first of some names, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn is_project(name: &str) -> bool {
    split_node(name).is_ok_and(|(parent, _)| !parent.is_empty() && parent == organization_of(name))
}

/// Whether the organization of a node requires projects; none where that is not known.
async fn requires_projects(name: &str, context: &Context<'_>) -> Option<bool> {
    let request = v1::GetNodeRequest { name: organization_of(name) };
    answer(context.client.hierarchy().get_node(request).await).ok().map(|node| node.require_projects())
}

/// The first two projects of the organization of a node.
async fn projects(name: &str, context: &Context<'_>) -> Vec<String> {
    let request = v1::ListNodesRequest { parent: organization_of(name), page_size: 2, ..Default::default() };
    let listed = answer(context.client.hierarchy().list_nodes(request).await);
    listed.map(|list| list.nodes.into_iter().map(|node| node.name).collect()).unwrap_or_default()
}
