//! `portcullis policy`: the whole policy of an organization as a file.
//!
//! Invariant: applying what `export` wrote changes nothing.
//! Not here: the schema of the file (`document`), reading and writing it (`read`, `write`).

mod document;
pub(super) mod read;
mod tests;
mod write;

use clap::{Args, Subcommand};
use portcullis_client::answer;

use super::change::{ChangeArgs, EtagArgs};
use super::color::ColorArgs;
use super::context::Context;
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::output::{Format, Output};
use super::ranges_file::read_text;
use super::{comparison, table};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

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
    Plan(PlanArgs),
    /// Replace the policy by that of a file, in one revision; objects that the file does not name are deleted
    Apply(ApplyArgs),
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

#[derive(Args, Debug)]
struct PlanArgs {
    /// The policy file, `-` for standard input
    file: String,
    /// Decide the recorded checks of this long ago again, to show which would change
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = portcullis_policy::time::parse_duration)]
    replay: std::time::Duration,
    #[command(flatten)]
    gates: super::change::GateArgs,
    #[command(flatten)]
    color: ColorArgs,
}

#[derive(Args, Debug)]
struct ApplyArgs {
    /// The policy file, `-` for standard input
    file: String,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    change: ChangeArgs,
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
        PolicyCommand::Plan(args) => plan(&names, &args, context).await,
        PolicyCommand::Apply(args) => apply(&names, &args, context).await,
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

async fn plan(names: &OrganizationArgs, args: &PlanArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let parent = names.name();
    let read::Read { policy, locations } = read::policy(&args.file, &read_text(&args.file)?, names)?;
    let options = args.gates.given().then(|| args.gates.options());
    let request =
        v1::ApplyPolicyRequest { parent: parent.clone(), policy: Some(policy), options, ..Default::default() };
    let request = v1::PreviewChangeRequest {
        parent,
        mutations: vec![v1::Mutation { request: Some(Asked::ApplyPolicy(request)) }],
        replay_within: Some(args.replay.try_into()?),
    };
    let preview = answer(context.client.analysis().preview_change(request).await)
        .map_err(|error| locations.locate(error, &args.file, "mutations[0].apply_policy.policy."))?;
    context.previewed(&preview, args.color.color)
}

async fn apply(names: &OrganizationArgs, args: &ApplyArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let parent = names.name();
    let read::Read { policy, locations } = read::policy(&args.file, &read_text(&args.file)?, names)?;
    let request = v1::ApplyPolicyRequest {
        parent,
        policy: Some(policy),
        validate_only: false,
        etag: args.etag.etag(),
        force: false,
        options: args.change.options(),
    };
    let applied = answer(context.client.analysis().apply_policy(request).await)
        .map_err(|error| locations.locate(error, &args.file, "policy."))?;
    context.changed(&args.change, &applied, applied_text)
}

fn applied_text(applied: &v1::ApplyPolicyResponse) -> String {
    let mut text = match applied.changes.len() {
        0 => "the policy is that already".to_owned(),
        1 => "1 object is altered".to_owned(),
        count => format!("{count} objects are altered"),
    };
    text.push_str(", revision ");
    text.push_str(&applied.revision.to_string());
    text.push('\n');
    text.push_str(&comparison::changes(&applied.changes));
    text.push_str(&table::problems(&applied.problems));
    text
}
