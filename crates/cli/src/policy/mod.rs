//! `portcullis policy`: the whole policy of an organization as a file.
//!
//! Invariant: applying what `export` wrote changes nothing.
//! Not here: reading and writing the file (`read`, `write`), planning and applying it (`apply`).

mod across;
mod apply;
mod document;
mod faults;
mod kinds;
mod locations;
pub(super) mod read;
mod schema;
mod tests;
mod walk;
mod write;
mod yaml;

use clap::{Args, Subcommand};
use portcullis_client::answer;

use super::context::Context;
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::output::{Format, Output};
use portcullis_proto::v1;

/// The JSON Schema of the file, for editors.
const SCHEMA: &str = include_str!("schema.json");

#[derive(Args, Debug)]
pub(super) struct PolicyArgs {
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Subcommand, Debug)]
enum PolicyCommand {
    /// Print the whole policy as YAML
    Export(ExportArgs),
    /// Show the exact effect of applying a file; exits with 3 if a gate would refuse it
    ///
    /// With `--exit-code` it exits with 4 if the file would change anything, and with 0 if it would not.
    Plan(apply::PlanArgs),
    /// Apply a file: replace the sections that it names, in one revision, and leave the others as they are
    ///
    /// Objects of those sections that the file does not name are deleted. On a terminal, the effect is shown first, and
    /// nothing is changed without a `y`.
    Apply(apply::ApplyArgs),
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Manage the tests that are kept with the policy
    Tests(tests::TestsArgs),
}

#[derive(Args, Debug)]
struct ExportArgs {
    /// Leave out the ranges of address groups: applying the file then leaves them as they are
    #[arg(long)]
    omit_ranges: bool,
}

impl PolicyArgs {
    /// Runs what needs no server.
    pub(super) fn run_offline(&self, output: &mut Output) -> Option<anyhow::Result<Exit>> {
        matches!(self.command, PolicyCommand::Schema).then(|| schema(output))
    }
}

pub(super) async fn run(args: PolicyArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let names = args.organization;
    match args.command {
        PolicyCommand::Export(args) => export(&names, &args, context).await,
        PolicyCommand::Plan(args) => apply::plan(&names, &args, context).await,
        PolicyCommand::Apply(args) => apply::apply(&names, &args, context).await,
        PolicyCommand::Schema => schema(context.output),
        PolicyCommand::Tests(args) => tests::run(&names, args, context).await,
    }
}

fn schema(output: &mut Output) -> anyhow::Result<Exit> {
    output.text(SCHEMA)?;
    Ok(Exit::Success)
}

async fn export(names: &OrganizationArgs, args: &ExportArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = v1::ExportPolicyRequest { parent: names.name(), omit_ranges: args.omit_ranges };
    let policy = answer(context.client.analysis().export_policy(request).await)?;
    let document = write::document(&policy);
    match context.output.asked() {
        Some(Format::Json) => context.output.json(&document)?,
        Some(Format::Table) | None => context.output.text(&write::yaml(&policy, &document)?)?,
    }
    Ok(Exit::Success)
}
