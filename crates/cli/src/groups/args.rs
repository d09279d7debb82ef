//! The flags of `portcullis groups`.
//!
//! Invariant: ranges are always given in the same two ways, `--range` and `--file`.
//! Not here: what is done with them.

use clap::{Args, Subcommand};

use crate::change::{ChangeArgs, EtagArgs, PreviewArgs};
use crate::names::OrganizationArgs;
use crate::ranges_file::RangesArgs;

#[derive(Args, Debug)]
pub(crate) struct GroupsArgs {
    #[command(flatten)]
    pub(super) organization: OrganizationArgs,
    #[command(subcommand)]
    pub(super) command: GroupsCommand,
}

#[derive(Subcommand, Debug)]
pub(super) enum GroupsCommand {
    /// List the address groups
    List,
    /// Show one address group, without its ranges
    Get(GetArgs),
    /// Create an address group
    Create(CreateArgs),
    /// Change the description of an address group
    Update(UpdateArgs),
    /// Delete an address group that nothing uses
    Delete(DeleteArgs),
    /// Add ranges to an address group; says how many it had already
    Add(PatchArgs),
    /// Remove ranges from an address group; says which it did not have, and which wider ranges still cover
    Remove(PatchArgs),
    /// List the ranges of an address group
    Ranges(GetArgs),
    /// Replace all ranges of an address group, in one change
    Replace(ReplaceArgs),
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The address group: its id or full name
    pub(super) group: String,
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The id of the new address group; without it the server makes one up
    pub(super) id: Option<String>,
    /// What the address group is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) description: String,
    #[command(flatten)]
    pub(super) ranges: RangesArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The address group: its id or full name
    pub(super) group: String,
    /// What the address group is for
    #[arg(long, value_name = "TEXT")]
    pub(super) description: String,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The address group: its id or full name
    pub(super) group: String,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct PatchArgs {
    /// The address group: its id or full name
    pub(super) group: String,
    #[command(flatten)]
    pub(super) ranges: RangesArgs,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct ReplaceArgs {
    /// The address group: its id or full name
    pub(super) group: String,
    #[command(flatten)]
    pub(super) ranges: RangesArgs,
    /// Let the address group become empty if no ranges are given
    #[arg(long)]
    pub(super) allow_empty: bool,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}
