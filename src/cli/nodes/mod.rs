//! `portcullis nodes`: the hierarchy of allowlists.
//!
//! Invariant: an update names exactly the fields that were typed in its mask, so that it alters nothing else.
//! Not here: the flags (`args`) and how nodes are shown (`view`).

mod args;
mod view;

use tonic::transport::Channel;

use super::Exit;
use super::error::{UsageError, with_fields};
use super::json::{self, Json};
use super::names::{OrganizationArgs, split_node};
use super::output::Output;
use super::ranges_file::Origins;
use super::{pages, table};
use crate::proto::v1;
use crate::proto::v1::hierarchy_service_client::HierarchyServiceClient;
use crate::proto::v1::mutation::Request as Asked;
use args::{CreateArgs, DeleteArgs, GetArgs, ListArgs, NodesCommand, PermittedArgs, UpdateArgs};
use portcullis_client::answer;

pub(super) use args::NodesArgs;

type Client = HierarchyServiceClient<Channel>;

pub(super) async fn run(args: NodesArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let names = args.organization;
    match args.command {
        NodesCommand::List(args) => list(channel, &names, &args, output).await?,
        NodesCommand::Get(args) => get(channel, &names, &args, output).await?,
        NodesCommand::Create(args) => create(channel, &names, args, output).await?,
        NodesCommand::Update(args) => update(channel, &names, args, output).await?,
        NodesCommand::Delete(args) => delete(channel, &names, &args, output).await?,
        NodesCommand::Effective(args) => effective(channel, &names, &args, output).await?,
        NodesCommand::Permitted(args) => permitted(channel, &names, &args, output).await?,
    }
    Ok(Exit::Success)
}

async fn list(channel: Channel, names: &OrganizationArgs, args: &ListArgs, output: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let parent = args.parent.as_deref().map(|parent| names.node(parent)).or_else(|| names.given()).unwrap_or_default();
    let recursive = args.recursive;
    let fetch = async |page_token: String| {
        let page_size = pages::PAGE_SIZE;
        let request = v1::ListNodesRequest { parent: parent.clone(), page_size, page_token, recursive };
        client.list_nodes(request).await.map(tonic::Response::into_inner)
    };
    let pages = pages::read(fetch, |page: &v1::ListNodesResponse| &page.next_page_token).await?;
    let mut whole = v1::ListNodesResponse::default();
    for page in pages {
        whole.nodes.extend(page.nodes);
        whole.problems.extend(page.problems);
    }
    output.show(
        || {
            let nodes = whole.nodes.iter().map(json::node).collect();
            Json::object().items("nodes", nodes).problems(&whole.problems).into()
        },
        || view::nodes(&whole.nodes, &whole.problems),
    )?;
    Ok(())
}

async fn get(channel: Channel, names: &OrganizationArgs, args: &GetArgs, output: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let node = answer(client.get_node(v1::GetNodeRequest { name: names.node(&args.node) }).await)?;
    show(&node, output)
}

async fn create(
    channel: Channel,
    names: &OrganizationArgs,
    args: CreateArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let name = names.node(&args.node);
    let (parent, node_id) = split_node(&name)?;
    let (access, origins) = args.access.access(&name)?.unzip();
    let node = v1::Node {
        display_name: args.display_name.unwrap_or_default(),
        require_projects: args.require_projects.unwrap_or_default(),
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
        return args.preview.show(channel, &name, Asked::CreateNode(request), output).await;
    }
    let node = answer(client.create_node(request).await)
        .map_err(|error| with_fields(error, |field| line_of(origins.as_ref(), field)))?;
    args.change.say_if_validated(output);
    show(&node, output)
}

async fn update(
    channel: Channel,
    names: &OrganizationArgs,
    args: UpdateArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let mut node = v1::Node { name: names.node(&args.node), etag: args.etag.etag(), ..v1::Node::default() };
    let mut paths = Vec::new();
    if let Some(display_name) = args.display_name {
        node.display_name = display_name;
        paths.push("display_name".to_owned());
    }
    if let Some(require_projects) = args.require_projects {
        node.require_projects = require_projects;
        paths.push("require_projects".to_owned());
    }
    let (access, origins) = args.access.access(&node.name)?.unzip();
    if access.is_some() {
        node.access = access;
        paths.push("access".to_owned());
    }
    if let Some(gates) = args.gates.gates() {
        node.change_gates = Some(gates);
        paths.push("change_gates".to_owned());
    }
    if paths.is_empty() {
        let message = "nothing to change: give `--display-name`, `--require-projects`, `--access` or gates";
        return Err(UsageError(message.to_owned()).into());
    }
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = v1::UpdateNodeRequest { node: Some(node), update_mask, options: args.change.options() };
    if args.preview.preview {
        let name = request.node.as_ref().map(|node| node.name.clone()).unwrap_or_default();
        return args.preview.show(channel, &name, Asked::UpdateNode(request), output).await;
    }
    let node = answer(client.update_node(request).await)
        .map_err(|error| with_fields(error, |field| line_of(origins.as_ref(), field)))?;
    args.change.say_if_validated(output);
    show(&node, output)
}

async fn delete(
    channel: Channel,
    names: &OrganizationArgs,
    args: &DeleteArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let name = names.node(&args.node);
    let request = v1::DeleteNodeRequest {
        name: name.clone(),
        etag: args.etag.etag(),
        force: args.force,
        options: args.change.options(),
    };
    if args.preview.preview {
        return args.preview.show(channel, &name, Asked::DeleteNode(request), output).await;
    }
    answer(client.delete_node(request).await)?;
    args.change.say_if_validated(output);
    output.show(json::empty, || args.change.deleted(&name))?;
    Ok(())
}

async fn effective(
    channel: Channel,
    names: &OrganizationArgs,
    args: &GetArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let request = v1::GetEffectiveAccessRequest { name: names.node(&args.node) };
    let access = answer(client.get_effective_access(request).await)?;
    output.show(|| json::effective_access(&access), || view::effective_access(&access))?;
    Ok(())
}

async fn permitted(
    channel: Channel,
    names: &OrganizationArgs,
    args: &PermittedArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let name = names.node(&args.node);
    let connection_type = v1::ConnectionType::from(args.connection_type).into();
    let fetch = async |page_token: String| {
        let page_size = pages::PAGE_SIZE;
        let request = v1::ListPermittedRangesRequest { name: name.clone(), connection_type, page_size, page_token };
        client.list_permitted_ranges(request).await.map(tonic::Response::into_inner)
    };
    let pages = pages::read(fetch, |page: &v1::ListPermittedRangesResponse| &page.next_page_token).await?;
    let ranges: Vec<String> = pages.into_iter().flat_map(|page| page.ranges).collect();
    let items = || ranges.iter().cloned().map(Json::Text).collect();
    output.show(|| Json::object().items("ranges", items()).into(), || table::lines(&ranges))?;
    Ok(())
}

fn show(node: &v1::Node, output: &mut Output) -> anyhow::Result<()> {
    output.show(|| json::node(node), || view::node(node))?;
    Ok(())
}

/// The line of a file that a refused entry stands in.
fn line_of(origins: Option<&Origins>, field: &str) -> Option<String> {
    origins?.name(field, 0)
}
