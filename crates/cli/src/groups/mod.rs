//! `portcullis groups`: the address groups of an organization.
//!
//! Invariant: a replacement is one change, however many ranges it has. A command that needs several changes says so
//! first, and after a failure what was done.
//! Not here: the flags (`args`), how ranges are read (`ranges_file`) and sent in parts (`upload`).

mod args;
mod view;

use portcullis_client::{CallError, answer};

use super::context::Context;
use super::error::{UsageError, with_fields};
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::ranges_file::Origins;
use super::upload::{Parts, STREAM_BYTES_MAX, UNARY_BYTES_MAX, replacement};
use super::{pages, table, upload};
use args::{CreateArgs, DeleteArgs, GetArgs, GroupsCommand, PatchArgs, ReplaceArgs, UpdateArgs};
use portcullis_proto::v1;

pub(super) use args::GroupsArgs;

/// Whether ranges are added or removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patch {
    Add,
    Remove,
}

pub(super) async fn run(args: GroupsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let names = args.organization;
    match args.command {
        GroupsCommand::List => list(&names, context).await,
        GroupsCommand::Get(args) => {
            let request = v1::GetAddressGroupRequest { name: names.group(&args.group) };
            let group = answer(context.client.firewall().get_address_group(request).await)?;
            context.show(&group, view::group)
        }
        GroupsCommand::Create(args) => create(&names, args, context).await,
        GroupsCommand::Update(args) => update(&names, args, context).await,
        GroupsCommand::Delete(args) => delete(&names, &args, context).await,
        GroupsCommand::Add(args) => patch(&names, &args, Patch::Add, context).await,
        GroupsCommand::Remove(args) => patch(&names, &args, Patch::Remove, context).await,
        GroupsCommand::Ranges(args) => ranges(&names, &args, context).await,
        GroupsCommand::Replace(args) => replace(&names, &args, context).await,
    }
}

async fn list(names: &OrganizationArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (parent, mut client) = (names.name(), context.client.firewall());
    let groups = pages::all(async |page_size, page_token| {
        let request = v1::ListAddressGroupsRequest { parent: parent.clone(), page_size, page_token };
        client.list_address_groups(request).await
    });
    let groups = groups.await?;
    context.list(&groups, view::groups)
}

async fn create(names: &OrganizationArgs, args: CreateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (ranges, origins) = args.ranges.read()?.split();
    let mut parts: Vec<_> = Parts::of(ranges, UNARY_BYTES_MAX).collect();
    let fits = parts.len() <= 1;
    if !fits && args.change.validate_only {
        let message = "the ranges do not fit into one request, so that they cannot be validated before the address group \
                       exists: create it, then validate with `portcullis groups replace --validate-only`";
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
    let created = context.client.firewall().create_address_group(request).await;
    let mut group = answer(created).map_err(|error| with_fields(error, |field| origins.name(field, 0)))?;
    if !fits {
        context
            .output
            .note("note: the ranges do not fit into one request: the address group is created first, then filled");
        let first =
            v1::ReplaceRangesRequest { name: group.name.clone(), options: args.change.options(), ..Default::default() };
        let ranges = parts.into_iter().flatten().collect();
        group = send_replacement(context, first, ranges, &origins).await.map_err(|error| {
            let done = format!("`{}` was created and is empty, its ranges were refused", group.name);
            anyhow::Error::new(error).context(done)
        })?;
    }
    context.changed(&args.change, &group, view::group)
}

async fn update(names: &OrganizationArgs, args: UpdateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let group = v1::AddressGroup {
        name: names.group(&args.group),
        description: args.description,
        etag: args.etag.etag(),
        ..Default::default()
    };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["description".to_owned()] });
    let options = args.change.options();
    let request = v1::UpdateAddressGroupRequest { address_group: Some(group), update_mask, options };
    let group = answer(context.client.firewall().update_address_group(request).await)?;
    context.changed(&args.change, &group, view::group)
}

async fn delete(names: &OrganizationArgs, args: &DeleteArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.group(&args.group);
    let etag = args.etag.etag();
    let request = v1::DeleteAddressGroupRequest { name: name.clone(), etag, options: args.change.options() };
    answer(context.client.firewall().delete_address_group(request).await)?;
    context.deleted(&args.change, &name)
}

async fn patch(
    names: &OrganizationArgs,
    args: &PatchArgs,
    patch: Patch,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    args.ranges.require("nothing to add or remove")?;
    let (ranges, origins) = args.ranges.read()?.split();
    let (name, mut client) = (names.group(&args.group), context.client.firewall());
    let progress = upload::progress(&ranges);
    let total = ranges.len();
    let mut parts: Vec<_> = Parts::of(ranges, UNARY_BYTES_MAX).collect();
    if parts.len() > 1 {
        let changes = parts.len();
        context.output.note(&format!("note: {total} ranges are sent as {changes} changes, each atomic by itself"));
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
    context.changed(&args.change, &group, view::group)
}

async fn ranges(names: &OrganizationArgs, args: &GetArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (name, mut client) = (names.group(&args.group), context.client.firewall());
    let ranges = pages::all(async |page_size, page_token| {
        client.list_ranges(v1::ListRangesRequest { name: name.clone(), page_size, page_token }).await
    });
    let ranges = ranges.await?;
    context.list(&ranges, |ranges| table::lines(&ranges.ranges))
}

async fn replace(names: &OrganizationArgs, args: &ReplaceArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
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
    let group = send_replacement(context, first, ranges, &origins).await?;
    context.changed(&args.change, &group, view::group)
}

/// Streams `ranges` after the message `first`, as one change.
async fn send_replacement(
    context: &Context<'_>,
    first: v1::ReplaceRangesRequest,
    ranges: Vec<String>,
    origins: &Origins,
) -> Result<v1::AddressGroup, CallError> {
    let progress = upload::progress(&ranges);
    let expected_count = i64::try_from(ranges.len()).unwrap_or(i64::MAX);
    let first = v1::ReplaceRangesRequest { expected_count, ..first };
    let parts = Parts::of(ranges, STREAM_BYTES_MAX);
    let messages = tokio_stream::iter(replacement(first, parts, progress.clone()));
    let result = context.client.firewall().replace_ranges(messages).await;
    progress.finish();
    answer(result).map_err(|error| with_fields(error, |field| origins.name(field, 0)))
}
