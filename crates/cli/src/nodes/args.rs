//! The flags of `portcullis nodes`.
//!
//! Invariant: an access is given as a whole: its mode and all of its entries.
//! Not here: what is done with them.

use clap::{Args, Subcommand};

use super::entries::EntriesArgs;
use crate::change::{ChangeArgs, EtagArgs, PreviewArgs};
use crate::error::UsageError;
use crate::names::{OrganizationArgs, group_beside};
use crate::ranges_file::{Origins, Ranges};
use crate::words::{AccessMode, ConnectionType};
use portcullis_proto::v1;

#[derive(Args, Debug)]
#[command(after_help = NODE_NAMES)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    pub(super) organization: OrganizationArgs,
    #[command(subcommand)]
    pub(super) command: NodesCommand,
}

const NODE_NAMES: &str = "A node is named by its full name (`organizations/acme/projects/web`), by the part from \
                          `projects/` on, or as `cluster`. An id alone could be a project or an organization and is \
                          refused, unless it is the id of the organization that `--organization` names.";

#[derive(Subcommand, Debug)]
pub(super) enum NodesCommand {
    /// List the children of a node; without one and without `--organization`, the organizations
    List(ListArgs),
    /// Show one node and its own access
    Get(GetArgs),
    /// Create an organization, project, workspace or endpoint
    Create(CreateArgs),
    /// Change fields of a node; the others stay as they are
    Update(UpdateArgs),
    /// Add entries to an allowlist, or remove some; the others stay
    Entries(EntriesArgs),
    /// Delete a node
    Delete(DeleteArgs),
    /// Show the access of a node after inheritance, and the ranges that all levels together permit
    Effective(GetArgs),
    /// List all ranges that all levels together permit for one connection type
    Permitted(PermittedArgs),
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// The node whose children to list [default: the organization that `--organization` names; without that, the
    /// organizations are listed]
    #[arg(value_name = "NODE")]
    pub(super) parent: Option<String>,
    /// List everything below the node
    #[arg(long)]
    pub(super) recursive: bool,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The node
    pub(super) node: String,
}

#[derive(Args, Debug)]
pub(super) struct PermittedArgs {
    /// The node
    pub(super) node: String,
    /// The connection type
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(super) connection_type: ConnectionType,
}

/// The fields of a node that are given when it is created and when it is changed.
#[derive(Args, Debug)]
pub(super) struct FieldArgs {
    /// What people call the node
    #[arg(long, value_name = "TEXT")]
    pub(super) display_name: Option<String>,
    /// Whether a check must name an existing project; organizations only
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) require_projects: Option<bool>,
    #[command(flatten)]
    pub(super) access: AccessArgs,
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The name of the new node
    #[arg(value_name = "NODE")]
    pub(super) node: String,
    #[command(flatten)]
    pub(super) fields: FieldArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The node
    pub(super) node: String,
    #[command(flatten)]
    pub(super) fields: FieldArgs,
    #[command(flatten)]
    pub(super) gates: NodeGateArgs,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

/// The gates of an organization or of the cluster. A flag replaces its own gate, the others stay as they are.
#[derive(Args, Debug)]
#[command(next_help_heading = "Gates for every change")]
pub(super) struct NodeGateArgs {
    /// An address that no change may deny anything that it is allowed now; may be given several times, and replaces the
    /// present ones; `none` for no address
    #[arg(long = "gates-guard-ip", value_name = "ADDRESS")]
    gates_guard_ips: Vec<String>,
    /// How many active sessions one change may revoke, or `none` for any number
    #[arg(long = "gates-max-revocations", value_name = "COUNT", value_parser = parse_max)]
    gates_max_revocations: Option<MaxRevocations>,
    /// Refuse changes that would open something to every IPv4 or every IPv6 address
    #[arg(long = "gates-refuse-open-to-internet", value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    gates_refuse_open_to_internet: Option<bool>,
    /// Remove all gates
    #[arg(long, conflicts_with_all = ["gates_guard_ips", "gates_max_revocations", "gates_refuse_open_to_internet"])]
    no_gates: bool,
}

/// What a flag sets the gate of revocations to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MaxRevocations(Option<i64>);

/// What a flag is given to remove its gate.
const NONE: &str = "none";

fn parse_max(text: &str) -> Result<MaxRevocations, String> {
    match text {
        NONE => Ok(MaxRevocations(None)),
        _ => text.parse().map(|max| MaxRevocations(Some(max))).map_err(|_| format!("write a number, or `{NONE}`")),
    }
}

impl NodeGateArgs {
    /// Whether any flag about gates was given.
    pub(super) fn given(&self) -> bool {
        self.no_gates
            || !self.gates_guard_ips.is_empty()
            || self.gates_max_revocations.is_some()
            || self.gates_refuse_open_to_internet.is_some()
    }

    /// Whether what was given about gates makes sense.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let is_doubtful = self.gates_guard_ips.len() > 1 && self.gates_guard_ips.iter().any(|given| given == NONE);
        let message = || UsageError(format!("`--gates-guard-ip {NONE}` removes the gate: give it alone"));
        if is_doubtful { Err(message()) } else { Ok(()) }
    }

    /// The gates of a node with those that were given in place of its own.
    pub(super) fn over(&self, before: Option<&v1::Node>) -> v1::ChangeGates {
        let mut gates = before.and_then(|before| before.change_gates.clone()).unwrap_or_default();
        if self.no_gates {
            gates = v1::ChangeGates::default();
        }
        if !self.gates_guard_ips.is_empty() {
            gates.guard_ips = self.gates_guard_ips.iter().filter(|given| *given != NONE).cloned().collect();
        }
        if let Some(MaxRevocations(max)) = self.gates_max_revocations {
            gates.max_revocations = max;
        }
        if let Some(refuse) = self.gates_refuse_open_to_internet {
            gates.refuse_open_to_internet = refuse;
        }
        gates
    }
}

/// A node's own access. If it is given, it replaces the present one as a whole.
#[derive(Args, Debug)]
#[command(next_help_heading = "Access")]
pub(super) struct AccessArgs {
    /// The node's own access mode; replaces the present one and its entries
    #[arg(long = "access", value_enum, value_name = "MODE")]
    mode: Option<AccessMode>,
    /// A range to permit, and why; may be given several times
    #[arg(long = "range", value_name = "RANGE[=DESCRIPTION]")]
    ranges: Vec<String>,
    /// Permit the ranges in this file, one a line, `-` for standard input; a `#` starts a comment
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// An address group to permit, by its id or full name, and why; may be given several times
    #[arg(long = "group", value_name = "GROUP[=DESCRIPTION]")]
    groups: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The node
    pub(super) node: String,
    /// Also delete all nodes below, and even if that gives access to someone who is denied now
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) etag: EtagArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
    #[command(flatten)]
    pub(super) preview: PreviewArgs,
}

impl AccessArgs {
    /// Whether the access is given.
    pub(super) fn given(&self) -> bool {
        self.mode.is_some()
    }

    /// The access of the node, and where its ranges came from; none if no flag about it was given.
    pub(super) fn access(&self, node: &str) -> anyhow::Result<Option<(v1::Access, Origins)>> {
        let Some(mode) = self.mode else {
            if !self.ranges.is_empty() || self.file.is_some() || !self.groups.is_empty() {
                let message = "ranges and groups are the entries of an allowlist: give `--access allow-list` with them";
                return Err(UsageError(message.to_owned()).into());
            }
            return Ok(None);
        };
        let (ranges, origins) = Ranges::read(&self.ranges, self.file.as_deref())?.split();
        let ranges = ranges.iter().map(|given| {
            let (range, description) = split_entry(given);
            (v1::access_entry::Source::Range(range.to_owned()), description)
        });
        let groups = self.groups.iter().map(|given| {
            let (group, description) = split_entry(given);
            (v1::access_entry::Source::AddressGroup(group_beside(node, group)), description)
        });
        let entries = ranges
            .chain(groups)
            .map(|(source, description)| v1::AccessEntry { source: Some(source), description: description.to_owned() });
        let access = v1::Access { mode: v1::AccessMode::from(mode).into(), entries: entries.collect() };
        Ok(Some((access, origins)))
    }
}

/// Splits an entry as it is typed. Neither ranges nor names contain a `=`.
fn split_entry(given: &str) -> (&str, &str) {
    given.split_once('=').unwrap_or((given, ""))
}
