//! `portcullis groups`: the address groups of an organization.
//!
//! Invariant: a replacement is one change however many ranges it has; where a command needs several changes, it says so
//! before, and what was done after a failure.
//! Not here: the flags (`args`), how ranges are read (`ranges_file`) and sent in parts (`upload`).

mod args;
mod view;

use tonic::transport::Channel;

use super::Exit;
use super::error::{UsageError, with_fields};
use super::json::{self, Json};
use super::names::OrganizationArgs;
use super::output::Output;
use super::ranges_file::Origins;
use super::upload::{Parts, STREAM_BYTES_MAX, UNARY_BYTES_MAX, replacement};
use super::{pages, table, upload};
use crate::proto::v1;
use crate::proto::v1::firewall_service_client::FirewallServiceClient;
use args::{CreateArgs, DeleteArgs, GetArgs, GroupsCommand, PatchArgs, ReplaceArgs, UpdateArgs};
use portcullis_client::CallError;
use portcullis_client::answer;

pub(super) use args::GroupsArgs;

type Client = FirewallServiceClient<Channel>;

/// What is done with the ranges of a patch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patch {
    Add,
    Remove,
}

pub(super) async fn run(args: GroupsArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::new(channel);
    let names = args.organization;
    match args.command {
        GroupsCommand::List => list(client, &names, output).await?,
        GroupsCommand::Get(args) => get(client, &names, &args, output).await?,
        GroupsCommand::Create(args) => create(client, &names, args, output).await?,
        GroupsCommand::Update(args) => update(client, &names, args, output).await?,
        GroupsCommand::Delete(args) => delete(client, &names, &args, output).await?,
        GroupsCommand::Add(args) => patch(client, &names, &args, Patch::Add, output).await?,
        GroupsCommand::Remove(args) => patch(client, &names, &args, Patch::Remove, output).await?,
        GroupsCommand::Ranges(args) => ranges(client, &names, &args, output).await?,
        GroupsCommand::Replace(args) => replace(client, &names, &args, output).await?,
    }
    Ok(Exit::Success)
}

async fn list(mut client: Client, names: &OrganizationArgs, output: &mut Output) -> anyhow::Result<()> {
    let parent = names.name();
    let fetch = async |page_token: String| {
        let request = v1::ListAddressGroupsRequest { parent: parent.clone(), page_size: pages::PAGE_SIZE, page_token };
        client.list_address_groups(request).await.map(tonic::Response::into_inner)
    };
    let pages = pages::read(fetch, |page: &v1::ListAddressGroupsResponse| &page.next_page_token).await?;
    let mut whole = v1::ListAddressGroupsResponse::default();
    for page in pages {
        whole.address_groups.extend(page.address_groups);
        whole.problems.extend(page.problems);
        (whole.etag, whole.revision) = (page.etag, page.revision);
    }
    output.show(
        || {
            Json::object()
                .items("addressGroups", whole.address_groups.iter().map(json::address_group).collect())
                .text("etag", &whole.etag)
                .int64("revision", whole.revision)
                .problems(&whole.problems)
                .into()
        },
        || view::groups(&whole.address_groups, &whole.problems),
    )?;
    Ok(())
}

async fn get(mut client: Client, names: &OrganizationArgs, args: &GetArgs, output: &mut Output) -> anyhow::Result<()> {
    let request = v1::GetAddressGroupRequest { name: names.group(&args.group) };
    let group = answer(client.get_address_group(request).await)?;
    show(&group, output)
}

async fn create(
    mut client: Client,
    names: &OrganizationArgs,
    args: CreateArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let (ranges, origins) = args.ranges.read()?.split();
    let mut parts: Vec<_> = Parts::of(ranges, UNARY_BYTES_MAX).collect();
    let fits = parts.len() <= 1;
    if !fits && args.change.validate_only {
        let message = "these are more ranges than one request holds, and without the address group there is nothing to \
                       validate the others against: create it, then validate with `portcullis groups replace`";
        return Err(UsageError(message.to_owned()).into());
    }
    let first_ranges = if fits { parts.pop().unwrap_or_default() } else { Vec::new() };
    let group = v1::AddressGroup { description: args.description, ranges: first_ranges, ..Default::default() };
    let request = v1::CreateAddressGroupRequest {
        parent: names.name(),
        address_group: Some(group),
        address_group_id: args.id.unwrap_or_default(),
        options: args.change.options(),
    };
    let created = client.create_address_group(request).await;
    let mut group = answer(created).map_err(|error| with_fields(error, |field| origins.name(field, 0)))?;
    if !fits {
        output.note("note: more ranges than one request holds: the address group is created first, then filled");
        let first =
            v1::ReplaceRangesRequest { name: group.name.clone(), options: args.change.options(), ..Default::default() };
        let ranges = parts.into_iter().flatten().collect();
        group = send_replacement(&mut client, first, ranges, &origins).await.map_err(|error| {
            let done = format!("`{}` was created and is empty, its ranges were refused", group.name);
            anyhow::Error::new(error).context(done)
        })?;
    }
    args.change.say_if_validated(output);
    show(&group, output)
}

async fn update(
    mut client: Client,
    names: &OrganizationArgs,
    args: UpdateArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let group = v1::AddressGroup {
        name: names.group(&args.group),
        description: args.description,
        etag: args.etag.etag(),
        ..Default::default()
    };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["description".to_owned()] });
    let options = args.change.options();
    let request = v1::UpdateAddressGroupRequest { address_group: Some(group), update_mask, options };
    let group = answer(client.update_address_group(request).await)?;
    args.change.say_if_validated(output);
    show(&group, output)
}

async fn delete(
    mut client: Client,
    names: &OrganizationArgs,
    args: &DeleteArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let name = names.group(&args.group);
    let etag = args.etag.etag();
    let request = v1::DeleteAddressGroupRequest { name: name.clone(), etag, options: args.change.options() };
    answer(client.delete_address_group(request).await)?;
    args.change.say_if_validated(output);
    output.show(json::empty, || args.change.deleted(&name))?;
    Ok(())
}

async fn patch(
    mut client: Client,
    names: &OrganizationArgs,
    args: &PatchArgs,
    patch: Patch,
    output: &mut Output,
) -> anyhow::Result<()> {
    args.ranges.require("nothing to add or remove")?;
    let (ranges, origins) = args.ranges.read()?.split();
    let name = names.group(&args.group);
    let progress = upload::progress(&ranges);
    let total = ranges.len();
    let mut parts: Vec<_> = Parts::of(ranges, UNARY_BYTES_MAX).collect();
    if parts.len() > 1 {
        let changes = parts.len();
        output.note(&format!("note: {total} ranges are sent as {changes} changes, each atomic by itself"));
    }
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let mut group = v1::AddressGroup::default();
    let mut done = 0;
    for ranges in parts {
        let (count, name, options) = (ranges.len(), name.clone(), args.change.options());
        let result = match patch {
            Patch::Add => client.add_ranges(v1::AddRangesRequest { name, ranges, options }).await,
            Patch::Remove => client.remove_ranges(v1::RemoveRangesRequest { name, ranges, options }).await,
        };
        let error = match answer(result) {
            Ok(answered) => {
                group = answered;
                done += count;
                progress.advance(count);
                continue;
            }
            Err(error) => anyhow::Error::new(with_fields(error, |field| origins.name(field, done))),
        };
        progress.finish();
        let partly = format!("{done} of {total} ranges were sent and stay as they are, the others were not");
        return Err(if done > 0 && !args.change.validate_only { error.context(partly) } else { error });
    }
    progress.finish();
    args.change.say_if_validated(output);
    show(&group, output)
}

async fn ranges(
    mut client: Client,
    names: &OrganizationArgs,
    args: &GetArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let name = names.group(&args.group);
    let fetch = async |page_token: String| {
        let request = v1::ListRangesRequest { name: name.clone(), page_size: pages::PAGE_SIZE, page_token };
        client.list_ranges(request).await.map(tonic::Response::into_inner)
    };
    let pages = pages::read(fetch, |page: &v1::ListRangesResponse| &page.next_page_token).await?;
    let mut whole = v1::ListRangesResponse::default();
    for page in pages {
        whole.ranges.extend(page.ranges);
        (whole.etag, whole.revision) = (page.etag, page.revision);
    }
    let items = || whole.ranges.iter().cloned().map(Json::Text).collect();
    output.show(
        || Json::object().items("ranges", items()).text("etag", &whole.etag).int64("revision", whole.revision).into(),
        || table::lines(&whole.ranges),
    )?;
    Ok(())
}

async fn replace(
    mut client: Client,
    names: &OrganizationArgs,
    args: &ReplaceArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    if !args.allow_empty {
        args.ranges.require("nothing to replace the ranges by")?;
    }
    let (ranges, origins) = args.ranges.read()?.split();
    let first = v1::ReplaceRangesRequest {
        name: names.group(&args.group),
        etag: args.etag.etag(),
        allow_empty: args.allow_empty,
        options: args.change.options(),
        ..Default::default()
    };
    let group = send_replacement(&mut client, first, ranges, &origins).await?;
    args.change.say_if_validated(output);
    show(&group, output)
}

/// Streams `ranges` after the message `first`, as one change.
async fn send_replacement(
    client: &mut Client,
    first: v1::ReplaceRangesRequest,
    ranges: Vec<String>,
    origins: &Origins,
) -> Result<v1::AddressGroup, CallError> {
    let progress = upload::progress(&ranges);
    let expected_count = i64::try_from(ranges.len()).unwrap_or(i64::MAX);
    let first = v1::ReplaceRangesRequest { expected_count, ..first };
    let parts = Parts::of(ranges, STREAM_BYTES_MAX);
    let messages = tokio_stream::iter(replacement(first, parts, progress.clone()));
    let result = client.replace_ranges(messages).await;
    progress.finish();
    answer(result).map_err(|error| with_fields(error, |field| origins.name(field, 0)))
}

fn show(group: &v1::AddressGroup, output: &mut Output) -> anyhow::Result<()> {
    output.show(|| json::address_group(group), || view::group(group))?;
    Ok(())
}
