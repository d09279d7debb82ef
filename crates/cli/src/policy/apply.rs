//! `portcullis policy plan` and `apply`: what a file would change, and changing it.
//!
//! Invariant: what a person at a terminal agreed to is what is applied. What is deleted is said by name.
//! Not here: reading the file (`read`), how a plan looks (`comparison`).

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use portcullis_client::{CallError, answer};

use super::read::{self, Read};
use crate::change::{ChangeArgs, EtagArgs, ForceArgs, GateArgs};
use crate::color::{ColorArgs, ColorWhen, Colors};
use crate::context::Context;
use crate::deletions;
use crate::difference::Told;
use crate::effects::Effects;
use crate::exit::Exit;
use crate::forced::{self, Previewed};
use crate::names::OrganizationArgs;
use crate::ranges_file::read_text;
use crate::times::parse_span;
use crate::{comparison, record, table};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

/// Where the policy is in a preview of applying it.
const IN_PREVIEW: &str = "mutations[0].apply_policy.policy.";

/// How long ago recorded checks are decided again for the plan that `apply` shows: as `plan` does.
const REPLAY: Duration = Duration::from_hours(24);

#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    /// The policy file, `-` for standard input
    file: String,
    /// Decide the recorded checks of this long ago again, to show which would change
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_span)]
    replay: Duration,
    /// Exit with 4 if the file would change anything, with 0 if not; with 3 still where a gate would refuse it
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    gates: GateArgs,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    color: ColorArgs,
}

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// The policy file, `-` for standard input
    file: String,
    /// Do not ask on a terminal
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    etag: EtagArgs,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// What was shown, and what the person at the terminal said.
enum Answer {
    /// Go on, if the policy still has this etag.
    Apply {
        etag: String,
    },
    Stop(Exit),
}

pub(super) async fn plan(names: &OrganizationArgs, args: &PlanArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let read = read::policy(&args.file, &read_text(&args.file)?, names)?;
    let request = v1::ApplyPolicyRequest {
        parent: names.name(),
        policy: Some(read.policy.clone()),
        force: args.force.force,
        options: args.gates.given().then(|| args.gates.options()),
        ..Default::default()
    };
    let previewed = previewed(request, &read, &args.file, args.replay, context).await?;
    let preview = &previewed.preview;
    let exit = context.previewed(preview, args.color.color)?;
    context.note_consequences(&names.name(), &preview.changes).await;
    if let Some(exit) = context.note_force(&previewed) {
        return Ok(exit);
    }
    Ok(if exit == Exit::Success && args.exit_code && !preview.changes.is_empty() { Exit::Changes } else { exit })
}

async fn previewed(
    request: v1::ApplyPolicyRequest,
    read: &Read,
    file: &str,
    replay: Duration,
    context: &Context<'_>,
) -> anyhow::Result<Previewed> {
    let request = v1::PreviewChangeRequest {
        parent: request.parent.clone(),
        mutations: vec![v1::Mutation { request: Some(Asked::ApplyPolicy(request)) }],
        replay_within: Some(replay.try_into()?),
    };
    let preview = forced::preview(&context.client, request).await;
    preview.map_err(|error| read.locations.locate(error, file, IN_PREVIEW).into())
}

pub(super) async fn apply(
    names: &OrganizationArgs,
    args: &ApplyArgs,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let read = read::policy(&args.file, &read_text(&args.file)?, names)?;
    let mut request = v1::ApplyPolicyRequest {
        parent: names.name(),
        policy: Some(read.policy.clone()),
        validate_only: false,
        etag: args.etag.etag(),
        force: args.force.force,
        options: args.change.options(),
    };
    let asks = context.output.has_person() && !args.yes && !args.change.validate_only;
    if asks {
        match asked(&request, &read, &args.file, context).await? {
            Answer::Apply { etag } => request.etag = etag,
            Answer::Stop(exit) => return Ok(exit),
        }
    }
    // What a plan has told needs no second time.
    let effects = if asks {
        None
    } else {
        Some(Effects::of(&request.parent, Asked::ApplyPolicy(request.clone()), context).await)
    };
    let applied = answer(context.client.analysis().apply_policy(request.clone()).await)
        .map_err(|error| read.locations.locate(error, &args.file, "policy."));
    let applied = match applied {
        Err(error) if asks && is_stale(&error) => {
            return Err(error).context("the policy was changed after the plan was shown, and nothing was applied");
        }
        applied => applied?,
    };
    deletions::note(context.output, &args.change, &applied.changes);
    if applied.truncated {
        context.output.note("note: the answer is cut: it names only a part of what is altered");
    }
    let told = args.change.told();
    context.changed(&args.change, &applied, |applied| applied_text(&request.parent, applied, told))?;
    if let Some(effects) = effects {
        context.note_change_consequences(&request.parent, &applied.changes, told).await;
        effects.tell_without_problems(&args.change, context).await;
    }
    Ok(Exit::Success)
}

/// Shows the plan, and asks whether to apply it. A plan that changes nothing needs no answer.
async fn asked(
    request: &v1::ApplyPolicyRequest,
    read: &Read,
    file: &str,
    context: &mut Context<'_>,
) -> anyhow::Result<Answer> {
    let previewed = previewed(request.clone(), read, file, REPLAY, context).await?;
    let preview = &previewed.preview;
    let etag = if request.etag.is_empty() { preview.etag.clone() } else { request.etag.clone() };
    if preview.changes.is_empty() {
        return Ok(Answer::Apply { etag });
    }
    let colors = Colors::of(ColorWhen::Auto, context.output);
    context.output.note(comparison::preview(&context.in_words(preview), colors).trim_end());
    context.note_consequences(&request.parent, &preview.changes).await;
    if !preview.refusals.is_empty() {
        context.output.note("error: a gate refuses the change, and nothing was applied");
        return Ok(Answer::Stop(Exit::Denied));
    }
    if let Some(exit) = context.note_force(&previewed) {
        context.output.note("nothing was applied");
        return Ok(Answer::Stop(exit));
    }
    if context.output.ask("\nApply?")? {
        return Ok(Answer::Apply { etag });
    }
    context.output.note("nothing was applied");
    Ok(Answer::Stop(Exit::Failure))
}

fn is_stale(error: &CallError) -> bool {
    error.refusal().is_some_and(|refusal| ["STALE_ETAG", "LINEAGE_CHANGED"].contains(&refusal.reason.as_str()))
}

fn applied_text(parent: &str, applied: &v1::ApplyPolicyResponse, told: Told) -> String {
    let revision = applied.revision;
    let mut text = match (record::objects(&applied.changes), told) {
        (0, _) => format!("the policy of {} is that already, revision {revision}\n", table::clean(parent)),
        (1, Told::Is) => format!("1 object is altered, revision {revision}\n"),
        (count, Told::Is) => format!("{} objects are altered, revision {revision}\n", table::number(count)),
        (1, Told::Would) => format!("1 object would be altered, after revision {revision}\n"),
        (count, Told::Would) => {
            format!("{} objects would be altered, after revision {revision}\n", table::number(count))
        }
    };
    text.push_str(&comparison::changes(&applied.changes, told));
    text.push_str(&table::problems(&applied.problems));
    text
}
