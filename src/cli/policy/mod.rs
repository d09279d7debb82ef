//! `portcullis policy`: the whole policy of an organization as a file.
//!
//! Invariant: what `export` writes, `apply` reads, and it changes nothing.
//! Not here: the form of the file (`document`), reading and writing it (`read`, `write`).

mod document;
pub(super) mod read;
mod tests;
mod write;

use clap::{Args, Subcommand};
use tonic::transport::Channel;

use super::change::{ChangeArgs, EtagArgs};
use super::color::{ColorWhen, Colors};
use super::error::with_fields;
use super::names::OrganizationArgs;
use super::output::{Format, Output};
use super::ranges_file::read_text;
use super::{Exit, comparison, json, table};
use crate::proto::v1;
use crate::proto::v1::analysis_service_client::AnalysisServiceClient;
use crate::proto::v1::mutation::Request as Asked;
use portcullis_client::CallError;
use portcullis_client::answer;

/// The JSON Schema of the file, for editors.
const SCHEMA: &str = include_str!("schema.json");

type Client = AnalysisServiceClient<Channel>;

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
    /// Show what applying a file would do, exactly; exits with 3 where a gate would refuse it
    Plan(PlanArgs),
    /// Make the policy what a file says, in one revision; what the file does not name is deleted
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
    /// The file, `-` for the standard input
    file: String,
    /// How far back to decide again what was decided
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::config::parse_duration)]
    replay: std::time::Duration,
    #[command(flatten)]
    gates: super::change::GateArgs,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColorWhen,
}

#[derive(Args, Debug)]
struct ApplyArgs {
    /// The file, `-` for the standard input
    file: String,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

impl PolicyArgs {
    /// Runs what needs no server.
    pub(super) fn run_offline(&self, output: &mut Output) -> Option<anyhow::Result<Exit>> {
        matches!(self.command, PolicyCommand::Schema)
            .then(|| output.text(SCHEMA).map(|()| Exit::Success).map_err(Into::into))
    }
}

pub(super) async fn run(args: PolicyArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::new(channel);
    let names = args.organization;
    match args.command {
        PolicyCommand::Export(args) => export(client, &names, &args, output).await,
        PolicyCommand::Plan(args) => plan(client, &names, &args, output).await,
        PolicyCommand::Apply(args) => apply(client, &names, &args, output).await,
        PolicyCommand::Schema => output.text(SCHEMA).map(|()| Exit::Success).map_err(Into::into),
        PolicyCommand::Tests(args) => tests::run(client, &names, args, output).await,
    }
}

async fn export(
    mut client: Client,
    names: &OrganizationArgs,
    args: &ExportArgs,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let request = v1::ExportPolicyRequest { parent: names.name(), omit_ranges: args.omit_ranges };
    let policy = answer(client.export_policy(request).await)?;
    let document = write::document(&policy);
    let text = match output.asked() {
        Some(Format::Json) => serde_json::to_string_pretty(&document)? + "\n",
        Some(Format::Table) | None => write::yaml(&policy, &document)?,
    };
    output.text(&text)?;
    Ok(Exit::Success)
}

async fn plan(
    mut client: Client,
    names: &OrganizationArgs,
    args: &PlanArgs,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let parent = names.name();
    let read::Read { policy, places } = read::parse(&args.file, &read_text(&args.file)?, &parent)?;
    let options = args.gates.given().then(|| args.gates.options());
    let request =
        v1::ApplyPolicyRequest { parent: parent.clone(), policy: Some(policy), options, ..Default::default() };
    let request = v1::PreviewChangeRequest {
        parent,
        mutations: vec![v1::Mutation { request: Some(Asked::ApplyPolicy(request)) }],
        replay_within: Some(args.replay.try_into()?),
    };
    let preview = answer(client.preview_change(request).await)
        .map_err(|error| at_places(error, &args.file, &places, "mutations[0].apply_policy.policy."))?;
    let colors = Colors::of(args.color, output);
    output.show(|| json::preview(&preview), || comparison::preview(&preview, colors))?;
    Ok(if preview.refusals.is_empty() { Exit::Success } else { Exit::Denied })
}

async fn apply(
    mut client: Client,
    names: &OrganizationArgs,
    args: &ApplyArgs,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let parent = names.name();
    let read::Read { policy, places } = read::parse(&args.file, &read_text(&args.file)?, &parent)?;
    let request = v1::ApplyPolicyRequest {
        parent,
        policy: Some(policy),
        validate_only: false,
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    let applied =
        answer(client.apply_policy(request).await).map_err(|error| at_places(error, &args.file, &places, "policy."))?;
    args.change.say_if_validated(output);
    output.show(|| json::applied(&applied), || applied_text(&applied))?;
    Ok(Exit::Success)
}

/// Names what the server refused by its line and column in the file.
pub(super) fn at_places(error: CallError, file: &str, places: &read::Places, prefix: &str) -> CallError {
    with_fields(error, |field| {
        let within = field.strip_prefix(prefix)?;
        let (line, column) = places.find(within)?;
        Some(format!("{file}:{line}:{column}: {within}"))
    })
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
