//! `portcullis problems`: parts of a policy that are probably mistakes.
//!
//! Invariant: an empty list is a success; a failure has another exit status.
//! Not here: finding them, which the server does.

use clap::Args;

use super::advice::of_problem;
use super::color::{ColorArgs, Colors, Look};
use super::context::Context;
use super::exit::Exit;
use super::names::OrganizationArgs;
use super::times::rfc3339;
use super::{pages, table};
use portcullis_proto::v1;

#[derive(Args, Debug)]
pub(super) struct ProblemsArgs {
    /// The node to look at, with all below it: `organizations/…`, `projects/…` of the organization, or `cluster`
    /// [default: the organization that `--organization` names]
    #[arg(value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    organization: OrganizationArgs,
    #[command(flatten)]
    color: ColorArgs,
}

pub(super) async fn run(args: ProblemsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let mut client = context.client.analysis();
    let named = args.node.as_deref().map(|node| args.organization.node(node)).transpose()?;
    let parent = named.unwrap_or_else(|| args.organization.name());
    let list = pages::all(async |page_size, page_token| {
        client.list_problems(v1::ListProblemsRequest { parent: parent.clone(), page_size, page_token }).await
    });
    let list = list.await?;
    let colors = Colors::of(args.color.color, context.output);
    context.list(&list, |list| lines(&list.problems, colors))?;
    if list.incomplete {
        context.output.note("note: some problems are left out, because finding them in this policy takes too long");
    } else if list.problems.is_empty() {
        context.output.note("note: no problems were found");
    }
    Ok(Exit::Success)
}

/// Each problem as a heading line, with its message below. The heading names the moment at which it begins, where that
/// is later.
fn lines(problems: &[v1::Problem], colors: Colors) -> String {
    let mut lines = Vec::new();
    for problem in problems {
        let look = match problem.severity() {
            v1::Severity::Error => Look::Red,
            v1::Severity::Warning => Look::Yellow,
            v1::Severity::Info | v1::Severity::Unspecified => Look::Faint,
        };
        let severity = colors.paint(look, &table::word(problem.severity().as_str_name(), "SEVERITY_"));
        let code = table::word(problem.code().as_str_name(), "PROBLEM_CODE_");
        let (resource, message) = (table::clean(&problem.resource), table::clean(&of_problem(problem)));
        let from = problem.from_time.as_ref().map(|from| format!(" from {}", rfc3339(from))).unwrap_or_default();
        lines.push(format!("{severity} {code} {resource}{from}\n    {message}\n"));
    }
    lines.concat()
}
