//! The flags of `portcullis rules`.
//!
//! Invariant: an action has no default: it is always typed.
//! Not here: what is done with them.

use anyhow::bail;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::change::{ChangeArgs, EtagArgs, PreviewArgs};
use crate::error::UsageError;
use crate::names::OrganizationArgs;
use crate::times::parse_expiry;
use crate::words::{ConnectionType, Decision};
use portcullis_proto::v1;

pub(super) use crate::times::Expiry;

#[derive(Args, Debug)]
pub(crate) struct RulesArgs {
    #[command(flatten)]
    pub(super) organization: OrganizationArgs,
    #[command(subcommand)]
    pub(super) command: RulesCommand,
}

#[derive(Subcommand, Debug)]
pub(super) enum RulesCommand {
    /// List the rules in the order of their positions
    List,
    /// Show one rule
    Get(GetArgs),
    /// Create a rule, at the end unless a position is given
    Create(CreateArgs),
    /// Change fields of a rule; the others stay as they are
    Update(UpdateArgs),
    /// Delete a rule
    Delete(DeleteArgs),
    /// Move a rule to another position
    Move(MoveArgs),
    /// Put all rules in a new order, in one change
    Reorder(ReorderArgs),
    /// Replace all rules by those of a file, in one change
    Replace(ReplaceArgs),
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The rule: its id or full name
    pub(super) rule: String,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("source").args(["range", "group"]).required(true))]
pub(super) struct CreateArgs {
    /// The id of the new rule; without it the server makes one up
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// What the firewall decides if this rule is the first that matches
    #[arg(long, value_enum)]
    pub(super) action: Decision,
    /// The addresses that the rule matches: an address, CIDR notation or `any`
    #[arg(long, value_name = "RANGE")]
    pub(super) range: Option<String>,
    /// The address group whose ranges the rule matches: its id or full name
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// A connection type that the rule applies to; may be given several times [default: all of them]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(super) connection_types: Vec<ConnectionType>,
    /// What the rule is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) description: String,
    /// Keep the rule, but do not let it match
    #[arg(long)]
    pub(super) disabled: bool,
    /// When the rule stops matching, such as `2030-01-31T18:00:00Z`, or how long from now, such as `2h` or `7d`; without
    /// it, or with `never`, it does not
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    pub(super) expire_time: Option<Expiry>,
    /// Where to put the rule, from 1 on
    #[arg(long, value_name = "POSITION")]
    pub(super) position: Option<i32>,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The rule: its id or full name
    pub(super) rule: String,
    #[command(flatten)]
    pub(super) fields: UpdateFields,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

/// The fields to change: at least one.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct UpdateFields {
    /// What the firewall decides if this rule is the first that matches
    #[arg(long, value_enum)]
    pub(super) action: Option<Decision>,
    /// The addresses that the rule matches; replaces an address group
    #[arg(long, value_name = "RANGE", conflicts_with = "group")]
    pub(super) range: Option<String>,
    /// The address group whose ranges the rule matches; replaces a range
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// A connection type that the rule applies to, or `all`; may be given several times
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(super) connection_types: Vec<ConnectionTypes>,
    /// What the rule is for
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// Keep the rule, but do not let it match
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) disabled: Option<bool>,
    /// When the rule stops matching, such as `2030-01-31T18:00:00Z`, or how long from now, such as `2h` or `7d`, or
    /// `never`
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    pub(super) expire_time: Option<Expiry>,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The rule: its id or full name
    pub(super) rule: String,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct MoveArgs {
    /// The rule: its id or full name
    pub(super) rule: String,
    /// The new position of the rule, from 1 on
    pub(super) position: i32,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct ReorderArgs {
    /// Every rule of the organization, in the new order: ids or full names
    #[arg(required = true, value_name = "RULE")]
    pub(super) rules: Vec<String>,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct ReplaceArgs {
    /// A policy file, of which only the rules are used, or a list of rules in the same form; `-` for standard input. The
    /// output of `portcullis rules list --output json` is accepted too; its etag guards the change unless `--etag` is
    /// given
    #[arg(long, value_name = "FILE")]
    pub(super) file: String,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

/// What an update sets the connection types to.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionTypes {
    Shell,
    Preview,
    All,
}

/// The connection types of a rule; `all` is the empty list.
pub(super) fn connection_types(given: &[ConnectionTypes]) -> anyhow::Result<Vec<i32>> {
    let mut types = Vec::new();
    for given in given {
        match given {
            ConnectionTypes::Shell => types.push(v1::ConnectionType::Shell.into()),
            ConnectionTypes::Preview => types.push(v1::ConnectionType::Preview.into()),
            ConnectionTypes::All => {}
        }
    }
    if given.contains(&ConnectionTypes::All) && !types.is_empty() {
        bail!(UsageError("`--type all` is every connection type: give it alone".to_owned()));
    }
    Ok(types)
}
