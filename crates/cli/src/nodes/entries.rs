//! `portcullis nodes entries`: adding and removing single entries of an allowlist.
//!
//! Invariant: a command is one call. It says on which node it acted, which entries that has now, and what is still
//! permitted of what was removed.
//! Not here: setting an access as a whole (`args`).

use std::collections::HashSet;

use clap::{Args, Subcommand};
use portcullis_client::{CallError, answer};

use super::view;
use crate::change::{ChangeArgs, EtagArgs, PreviewArgs};
use crate::context::Context;
use crate::effects::Effects;
use crate::error::{UsageError, with_fields};
use crate::exit::Exit;
use crate::names::{OrganizationArgs, group_beside};
use crate::ranges_file::{Origins, Ranges};
use crate::table::clean;
use portcullis_policy::address::Range;
use portcullis_proto::v1;
use portcullis_proto::v1::access_entry::Source;
use portcullis_proto::v1::access_source::Source as Removed;
use portcullis_proto::v1::mutation::Request as Asked;

#[derive(Args, Debug)]
pub(super) struct EntriesArgs {
    #[command(subcommand)]
    command: EntriesCommand,
}

#[derive(Subcommand, Debug)]
enum EntriesCommand {
    /// Add entries to the allowlist of a node; one that is there already is left, or gets the new description
    Add(AddArgs),
    /// Remove entries from the allowlist of a node; says which addresses other entries still permit
    Remove(RemoveArgs),
}

#[derive(Args, Debug)]
struct AddArgs {
    #[command(flatten)]
    entries: WhichArgs,
    /// What the entries are for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    preview: PreviewArgs,
}

#[derive(Args, Debug)]
struct RemoveArgs {
    #[command(flatten)]
    entries: WhichArgs,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    preview: PreviewArgs,
}

/// Which entries of which node.
#[derive(Args, Debug)]
struct WhichArgs {
    /// The node
    node: String,
    /// An address, a range in CIDR notation, `any`, or an address group by its id or full name
    #[arg(value_name = "RANGE|GROUP")]
    sources: Vec<String>,
    /// Read more of them from this file, one a line, `-` for standard input; a `#` starts a comment
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
}

/// What was typed, and where each came from.
struct Which {
    sources: Vec<Source>,
    typed_count: usize,
    origins: Origins,
}

pub(super) async fn run(
    names: &OrganizationArgs,
    args: EntriesArgs,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    match args.command {
        EntriesCommand::Add(args) => add(names, args, context).await,
        EntriesCommand::Remove(args) => remove(names, args, context).await,
    }
}

async fn add(names: &OrganizationArgs, args: AddArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.node(&args.entries.node)?;
    let which = args.entries.read(&name)?;
    let entry =
        |source: &Source| v1::AccessEntry { source: Some(source.clone()), description: args.description.clone() };
    let request = v1::AddAccessEntriesRequest {
        name: name.clone(),
        entries: which.sources.iter().map(entry).collect(),
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    if args.preview.preview {
        return preview(&name, Asked::AddAccessEntries(request), &which, context).await;
    }
    let given = which.distinct();
    let effects = Effects::of(&name, Asked::AddAccessEntries(request.clone()), context).await;
    let added = answer(context.client.hierarchy().add_access_entries(request).await);
    let added = added.map_err(|error| which.explain(error))?;
    let is_made = !args.change.validate_only;
    context.changed(&args.change, &added, |added| shown_addition(added, given, is_made))?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn remove(names: &OrganizationArgs, args: RemoveArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.node(&args.entries.node)?;
    let which = args.entries.read(&name)?;
    let source = |source: &Source| v1::AccessSource {
        source: Some(match source.clone() {
            Source::Range(range) => Removed::Range(range),
            Source::AddressGroup(group) => Removed::AddressGroup(group),
        }),
    };
    let request = v1::RemoveAccessEntriesRequest {
        name: name.clone(),
        sources: which.sources.iter().map(source).collect(),
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    if args.preview.preview {
        return preview(&name, Asked::RemoveAccessEntries(request), &which, context).await;
    }
    let effects = Effects::of(&name, Asked::RemoveAccessEntries(request.clone()), context).await;
    let removed = answer(context.client.hierarchy().remove_access_entries(request).await);
    let removed = removed.map_err(|error| which.explain(error))?;
    let is_made = !args.change.validate_only;
    context.changed(&args.change, &removed, |removed| shown_removal(removed, is_made))?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn preview(name: &str, request: Asked, which: &Which, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    context.preview(name, request).await.map_err(|error| match error.downcast::<CallError>() {
        Ok(error) => which.explain(error).into(),
        Err(error) => error,
    })
}

impl WhichArgs {
    fn read(self, node: &str) -> anyhow::Result<Which> {
        if self.sources.is_empty() && self.file.is_none() {
            return Err(
                UsageError("nothing to add or remove: give a range, an address group or `--file`".to_owned()).into()
            );
        }
        let (texts, origins) = Ranges::read(&self.sources, self.file.as_deref())?.split();
        if texts.is_empty() {
            return Err(UsageError("nothing to add or remove: the file has no ranges and no groups".to_owned()).into());
        }
        let sources = texts.iter().map(|text| source(node, text)).collect();
        Ok(Which { sources, typed_count: self.sources.len(), origins })
    }
}

impl Which {
    /// How many different entries were typed.
    fn distinct(&self) -> usize {
        let key = |source: &Source| match source {
            Source::Range(range) => range.parse().map_or_else(|_| range.clone(), |range: Range| range.to_string()),
            Source::AddressGroup(group) => group.clone(),
        };
        self.sources.iter().map(key).collect::<HashSet<_>>().len()
    }

    /// An error in the words of the command line.
    fn explain(&self, error: CallError) -> CallError {
        let error = with_fields(error, |field| {
            let (_, index) = field.rsplit_once("entries[").or_else(|| field.rsplit_once("sources["))?;
            let index: usize = index.split_once(']')?.0.parse().ok()?;
            if index < self.typed_count {
                return Some(format!("RANGE|GROUP {}", index + 1));
            }
            self.origins.name(field)
        });
        in_commands(error)
    }
}

/// Names the command instead of the method where a node has no allowlist.
fn in_commands(error: CallError) -> CallError {
    const ADVICE: &str = "set one with `portcullis nodes update NODE --access allow-list --range RANGE`, with all that it \
                          is to permit";
    match error {
        CallError::Refused(mut refusal) if refusal.reason == "NO_ALLOWLIST" => {
            if let Some((what, _)) = refusal.message.rsplit_once(": ") {
                refusal.message = format!("{what}: {ADVICE}");
            }
            CallError::Refused(refusal)
        }
        error => error,
    }
}

/// A range or a group. No id of a group has a `.`, `:` or `/`, and a range that is not `any` has one.
fn source(node: &str, text: &str) -> Source {
    let is_range = !text.starts_with("organizations/") && text.contains(['.', ':', '/']);
    if is_range || text.eq_ignore_ascii_case("any") {
        Source::Range(text.to_owned())
    } else {
        Source::AddressGroup(group_beside(node, text))
    }
}

fn shown_addition(added: &v1::AddAccessEntriesResponse, given: usize, is_made: bool) -> String {
    let v1::AddAccessEntriesResponse { node, added_count, updated_count } = added;
    let would = if is_made { "" } else { "would be " };
    let described = match *updated_count {
        0 => String::new(),
        count => format!(", {} {would}described anew", entries(count)),
    };
    let present = i64::try_from(given).unwrap_or(i64::MAX).saturating_sub(*added_count).saturating_sub(*updated_count);
    let there = match present {
        1 => ", 1 was there already".to_owned(),
        2.. => format!(", {present} were there already"),
        _ => String::new(),
    };
    with_node(&format!("{} {would}added{described}{there}", entries(*added_count)), node.as_ref())
}

fn shown_removal(removed: &v1::RemoveAccessEntriesResponse, is_made: bool) -> String {
    let v1::RemoveAccessEntriesResponse { node, removed_count, still_covered } = removed;
    let would = if is_made { "" } else { "would be " };
    let line = |of: &v1::CoveredSource| {
        let still = if of.partly { "still permitted in part" } else { "still permitted" };
        let by = crate::table::some_of(&of.covering_entries, of.covering_count);
        format!("\n{still}: {}{}, by {by}", clean(&of.range), clean(&of.address_group))
    };
    let covered: String = still_covered.iter().map(line).collect();
    with_node(&format!("{} {would}removed{covered}", entries(*removed_count)), node.as_ref())
}

fn with_node(text: &str, node: Option<&v1::Node>) -> String {
    format!("{}\n{text}\n", node.map(view::node).unwrap_or_default())
}

fn entries(count: i64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}
