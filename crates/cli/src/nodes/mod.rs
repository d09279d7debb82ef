//! `portcullis nodes`: the hierarchy of allowlists.
//!
//! Invariant: an update names exactly the fields that were typed in its mask, so that it alters nothing else.
//! Not here: the flags (`args`), how nodes are shown (`view`), what a change causes besides (`effects`).

mod args;
mod effects;
mod entries;
mod guards;
mod view;

use portcullis_client::answer;

use super::context::Context;
use super::effects::{Detail, Effects};
use super::error::{UsageError, with_fields};
use super::exit::Exit;
use super::names::{OrganizationArgs, split_node};
use super::ranges_file::Origins;
use super::{pages, table};
use args::{CreateArgs, DeleteArgs, ListArgs, NodesCommand, PermittedArgs, UpdateArgs};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

pub(super) use args::NodesArgs;

pub(super) async fn run(args: NodesArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let names = args.organization;
    match args.command {
        NodesCommand::List(args) => list(&names, &args, context).await,
        NodesCommand::Get(args) => {
            let request = v1::GetNodeRequest { name: names.node(&args.node)? };
            let node = answer(context.client.hierarchy().get_node(request).await)?;
            context.show(&node, view::node)
        }
        NodesCommand::Create(args) => create(&names, args, context).await,
        NodesCommand::Update(args) => update(&names, args, context).await,
        NodesCommand::Entries(args) => entries::run(&names, args, context).await,
        NodesCommand::Delete(args) => delete(&names, &args, context).await,
        NodesCommand::Effective(args) => {
            let request = v1::GetEffectiveAccessRequest { name: names.node(&args.node)? };
            let access = answer(context.client.hierarchy().get_effective_access(request).await)?;
            context.show(&access, view::effective_access)
        }
        NodesCommand::Permitted(args) => permitted(&names, &args, context).await,
    }
}

async fn list(names: &OrganizationArgs, args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let given = args.parent.as_deref().map(|parent| names.node(parent)).transpose()?;
    let parent = given.or_else(|| names.given()).unwrap_or_default();
    let (recursive, mut client) = (args.recursive, context.client.hierarchy());
    let nodes = pages::all(async |page_size, page_token| {
        client.list_nodes(v1::ListNodesRequest { parent: parent.clone(), page_size, page_token, recursive }).await
    });
    let nodes = nodes.await?;
    context.list(&nodes, view::nodes)
}

async fn create(names: &OrganizationArgs, args: CreateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.node(&args.node)?;
    let (parent, node_id) = split_node(&name)?;
    let (access, origins) = args.fields.access.access(&name)?.unzip();
    let node = v1::Node {
        display_name: args.fields.display_name.unwrap_or_default(),
        require_projects: args.fields.require_projects,
        access,
        ..v1::Node::default()
    };
    let request = v1::CreateNodeRequest {
        parent: parent.to_owned(),
        node_id: node_id.to_owned(),
        node: Some(node),
        options: args.change.options(),
    };
    if args.preview.preview {
        return context.preview(&name, Asked::CreateNode(request)).await;
    }
    let foreseen = Effects::of(&name, Asked::CreateNode(request.clone()), context).await;
    let node = answer(context.client.hierarchy().create_node(request).await)
        .map_err(|error| with_fields(error, |field| line_of(origins.as_ref(), field)))?;
    context.changed(&args.change, &node, view::node)?;
    if parent.is_empty() && args.change.validate_only {
        effects::of_new_access(&node, context);
    }
    foreseen.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn update(names: &OrganizationArgs, args: UpdateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.node(&args.node)?;
    let (access, origins) = args.fields.access.access(&name)?.unzip();
    args.gates.check()?;
    let before = effects::present(&name, &args, context).await?;
    let mut node = v1::Node { name: name.clone(), etag: args.etag.etag(), ..v1::Node::default() };
    let mut paths = Vec::new();
    if let Some(display_name) = &args.fields.display_name {
        node.display_name.clone_from(display_name);
        paths.push("display_name");
    }
    if args.fields.require_projects.is_some() {
        node.require_projects = args.fields.require_projects;
        paths.push("require_projects");
    }
    if access.is_some() {
        node.access = access;
        paths.push("access");
    }
    if args.gates.given() {
        node.change_gates = Some(args.gates.over(before.as_ref()));
        paths.push("change_gates");
        // The gates that no flag names are those that were read, so they must still be the present ones.
        if node.etag.is_empty() {
            node.etag = before.as_ref().map(|before| before.etag.clone()).unwrap_or_default();
        }
    }
    if paths.is_empty() {
        let message = "nothing to change: give `--display-name`, `--require-projects`, `--access` or gates";
        return Err(UsageError(message.to_owned()).into());
    }
    let update_mask = Some(prost_types::FieldMask { paths: paths.into_iter().map(str::to_owned).collect() });
    let request = v1::UpdateNodeRequest { node: Some(node), update_mask, options: args.change.options() };
    if args.preview.preview {
        return context.preview(&name, Asked::UpdateNode(request)).await;
    }
    let foreseen = Effects::of(&name, Asked::UpdateNode(request.clone()), context).await;
    let node = answer(context.client.hierarchy().update_node(request).await)
        .map_err(|error| with_fields(error, |field| line_of(origins.as_ref(), field)))?;
    context.changed(&args.change, &node, view::node)?;
    if let Some(before) = &before {
        effects::of_update(&args, before, &node, context).await;
    }
    foreseen.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn delete(names: &OrganizationArgs, args: &DeleteArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.node(&args.node)?;
    let request = v1::DeleteNodeRequest {
        name: name.clone(),
        etag: args.etag.etag(),
        force: args.force,
        options: args.change.options(),
    };
    let is_last = effects::is_last_required_project(&name, context).await;
    if args.preview.preview {
        return context.preview(&name, Asked::DeleteNode(request)).await;
    }
    let foreseen = Effects::of(&name, Asked::DeleteNode(request.clone()), context).await.in_detail(Detail::Ranges);
    answer(context.client.hierarchy().delete_node(request).await)?;
    context.deleted(&args.change, &name)?;
    effects::of_deletion(args.change.told(), foreseen.changes(), context);
    if is_last {
        effects::of_last_project(args.change.told(), &name, context);
    }
    foreseen.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn permitted(names: &OrganizationArgs, args: &PermittedArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (name, mut client) = (names.node(&args.node)?, context.client.hierarchy());
    let connection_type = v1::ConnectionType::from(args.connection_type).into();
    let permitted = pages::all(async |page_size, page_token| {
        let request = v1::ListPermittedRangesRequest { name: name.clone(), connection_type, page_size, page_token };
        client.list_permitted_ranges(request).await
    });
    let permitted = permitted.await?;
    context.list(&permitted, |permitted| table::lines(&permitted.ranges))
}

/// The line of a file that a refused entry stands in.
fn line_of(origins: Option<&Origins>, field: &str) -> Option<String> {
    origins?.name(field)
}
