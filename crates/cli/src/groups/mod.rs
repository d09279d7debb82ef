//! `portcullis groups`: the address groups of an organization.
//!
//! Invariant: a command is one call and one change, however many ranges it has.
//! Not here: the flags (`args`), how ranges are read (`ranges_file`) and cut into messages (`upload`).

mod args;
mod exchange;
mod view;

use portcullis_client::{CallError, answer};

use super::change::ChangeArgs;
use super::context::Context;
use super::effects::{self, Effects};
use super::error::{UsageError, with_fields};
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::ranges_file::Origins;
use super::upload::REQUEST_BYTES_MAX;
use super::{pages, table, upload};
use args::{CreateArgs, DeleteArgs, GetArgs, GroupsCommand, PatchArgs, ReplaceArgs, UpdateArgs};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;
use prost::Message;

pub(super) use args::GroupsArgs;

/// The id by which the server is asked to make one up.
const ANY_ID: &str = "-";

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
    let first = v1::PatchRangesRequest {
        name: names.group(args.id.as_deref().unwrap_or(ANY_ID)),
        create: Some(v1::GroupCreation { description: args.description }),
        options: args.change.options(),
        ..v1::PatchRangesRequest::default()
    };
    if args.preview.preview {
        let name = first.name.clone();
        return preview(&name, Asked::PatchRanges(Patch::Add.whole(first, ranges)), &origins, context).await;
    }
    let effects = of_patch(Patch::Add, &first, &ranges, context).await;
    let created = send_patch(context, first, ranges, Patch::Add, &origins).await?;
    let group = created.address_group.unwrap_or_default();
    context.changed(&args.change, &group, view::group)?;
    tell(&effects, &args.change, &group, context).await;
    Ok(Exit::Success)
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
    let effects = Effects::of(&names.group(&args.group), Asked::UpdateAddressGroup(request.clone()), context).await;
    let group = answer(context.client.firewall().update_address_group(request).await)?;
    context.changed(&args.change, &group, view::group)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn delete(names: &OrganizationArgs, args: &DeleteArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.group(&args.group);
    let etag = args.etag.etag();
    let request = v1::DeleteAddressGroupRequest { name: name.clone(), etag, options: args.change.options() };
    if args.preview.preview {
        return context.preview(&name, Asked::DeleteAddressGroup(request)).await;
    }
    let effects = Effects::of(&name, Asked::DeleteAddressGroup(request.clone()), context).await;
    answer(context.client.firewall().delete_address_group(request).await)?;
    context.deleted(&args.change, &name)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn patch(
    names: &OrganizationArgs,
    args: &PatchArgs,
    patch: Patch,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    args.ranges.require("nothing to add or remove")?;
    let (ranges, origins) = args.ranges.read()?.split();
    if ranges.is_empty() {
        return Err(UsageError("nothing to add or remove: the file has no ranges".to_owned()).into());
    }
    let name = names.group(&args.group);
    let (etag, options) = (args.etag.etag(), args.change.options());
    let first = v1::PatchRangesRequest { name: name.clone(), etag, options, ..v1::PatchRangesRequest::default() };
    if args.preview.preview {
        return preview(&name, Asked::PatchRanges(patch.whole(first, ranges)), &origins, context).await;
    }
    let effects = of_patch(patch, &first, &ranges, context).await;
    let patched = send_patch(context, first, ranges, patch, &origins).await?;
    let is_made = !args.change.validate_only;
    context.changed(&args.change, &patched, |patched| view::patched(patched, patch == Patch::Add, is_made))?;
    tell(&effects, &args.change, &patched.address_group.unwrap_or_default(), context).await;
    Ok(Exit::Success)
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
    if args.preview.preview {
        let name = first.name.clone();
        let request = v1::ReplaceRangesRequest { ranges, ..first };
        return preview(&name, Asked::ReplaceRanges(request), &origins, context).await;
    }
    let effects = if is_large(&ranges) {
        Effects::too_large(&first.name, context).await
    } else {
        let request = v1::ReplaceRangesRequest { ranges: ranges.clone(), ..first.clone() };
        Effects::of(&first.name, Asked::ReplaceRanges(request), context).await
    };
    let before = exchange::before(&first.name, context).await;
    let group = send_replacement(context, first, ranges.clone(), &origins).await?;
    context.changed(&args.change, &group, view::group)?;
    if let Some(before) = before {
        context.output.note(&exchange::told(&args.change, &before, &ranges, group.range_count));
    }
    tell(&effects, &args.change, &group, context).await;
    Ok(Exit::Success)
}

/// What adding or removing ranges will cause.
async fn of_patch(patch: Patch, first: &v1::PatchRangesRequest, ranges: &[String], context: &Context<'_>) -> Effects {
    if is_large(ranges) {
        return Effects::too_large(&first.name, context).await;
    }
    let request = patch.whole(first.clone(), ranges.to_vec());
    Effects::of(&first.name, Asked::PatchRanges(request), context).await
}

/// Whether ranges are too many to be sent twice.
fn is_large(ranges: &[String]) -> bool {
    ranges.iter().map(String::len).sum::<usize>() > effects::BYTES_MAX
}

/// Says what a change of a group caused, and that the group stands for nobody where that is so.
async fn tell(effects: &Effects, change: &ChangeArgs, group: &v1::AddressGroup, context: &mut Context<'_>) {
    if group.range_count == 0 {
        let (has, stands) = if change.validate_only { ("would have", "stand") } else { ("has", "stands") };
        context.output.note(&format!("note: {} {has} no ranges, and {stands} for nobody", table::clean(&group.name)));
    }
    effects.tell(change, context).await;
}

/// Streams `ranges` after the message `first`, as one change that replaces all ranges.
async fn send_replacement(
    context: &Context<'_>,
    first: v1::ReplaceRangesRequest,
    ranges: Vec<String>,
    origins: &Origins,
) -> Result<v1::AddressGroup, CallError> {
    let progress = upload::progress(&ranges);
    let first = v1::ReplaceRangesRequest { expected_count: count(&ranges), ..first };
    let message = |ranges| v1::ReplaceRangesRequest { ranges, ..v1::ReplaceRangesRequest::default() };
    let messages = tokio_stream::iter(upload::messages(first, ranges, progress.clone(), message));
    let result = context.client.firewall().replace_ranges(messages).await;
    progress.finish();
    answer(result).map_err(|error| with_fields(error, |field| origins.name(field)))
}

/// Streams `ranges` after the message `first`, as one change that adds them or removes them.
async fn send_patch(
    context: &Context<'_>,
    first: v1::PatchRangesRequest,
    ranges: Vec<String>,
    patch: Patch,
    origins: &Origins,
) -> Result<v1::PatchRangesResponse, CallError> {
    let progress = upload::progress(&ranges);
    let first = match patch {
        Patch::Add => v1::PatchRangesRequest { expected_add_count: count(&ranges), ..first },
        Patch::Remove => v1::PatchRangesRequest { expected_remove_count: count(&ranges), ..first },
    };
    let message = move |ranges| patch.whole(v1::PatchRangesRequest::default(), ranges);
    let messages = tokio_stream::iter(upload::messages(first, ranges, progress.clone(), message));
    let result = context.client.firewall().patch_ranges(messages).await;
    progress.finish();
    answer(result).map_err(|error| with_fields(error, |field| origins.name(field)))
}

impl Patch {
    /// A message with all of `ranges`.
    fn whole(self, message: v1::PatchRangesRequest, ranges: Vec<String>) -> v1::PatchRangesRequest {
        match self {
            Self::Add => v1::PatchRangesRequest { add: ranges, ..message },
            Self::Remove => v1::PatchRangesRequest { remove: ranges, ..message },
        }
    }
}

/// Shows what a request would do. A preview is one message, so it cannot have as many ranges as a change.
async fn preview(name: &str, request: Asked, origins: &Origins, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let bytes = v1::Mutation { request: Some(request.clone()) }.encoded_len();
    if bytes > REQUEST_BYTES_MAX {
        let message = format!(
            "a preview takes ranges of {} MiB at most, and these take {} MiB: preview some of them, or judge the change \
             with `--validate-only`, which takes all",
            REQUEST_BYTES_MAX >> 20,
            bytes.div_ceil(1 << 20),
        );
        return Err(UsageError(message).into());
    }
    context.preview(name, request).await.map_err(|error| match error.downcast::<CallError>() {
        Ok(error) => with_fields(error, |field| origins.name(field)).into(),
        Err(error) => error,
    })
}

fn count(ranges: &[String]) -> i64 {
    i64::try_from(ranges.len()).unwrap_or(i64::MAX)
}
