//! `portcullis problems`: what is probably not meant in a policy.
//!
//! Invariant: an empty list is an answer, told apart from a failure by the exit status alone.
//! Not here: the JSON form (`json`).

use clap::Args;
use tonic::transport::Channel;

use super::color::{ColorWhen, Colors, Look};
use super::json::{self, Json};
use super::names::OrganizationArgs;
use super::output::Output;
use super::{Exit, pages, table};
use crate::proto::v1;
use crate::proto::v1::analysis_service_client::AnalysisServiceClient;

#[derive(Args, Debug)]
pub(super) struct ProblemsArgs {
    /// The node at and below which to look: an organization, `projects/…` of it, or `cluster` [default: the
    /// organization that `--organization` names]
    #[arg(value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    organization: OrganizationArgs,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColorWhen,
}

pub(super) async fn run(args: ProblemsArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let mut client = AnalysisServiceClient::new(channel);
    let parent = args.node.as_deref().map_or_else(|| args.organization.name(), |node| args.organization.node(node));
    let fetch = async |page_token| {
        let request = v1::ListProblemsRequest { parent: parent.clone(), page_size: pages::PAGE_SIZE, page_token };
        Ok(client.list_problems(request).await?.into_inner())
    };
    let pages = pages::read(fetch, |page: &v1::ListProblemsResponse| &page.next_page_token).await?;
    let problems: Vec<v1::Problem> = pages.into_iter().flat_map(|page| page.problems).collect();
    let colors = Colors::of(args.color, output);
    let json = || Json::object().items("problems", problems.iter().map(json::problem).collect()).into();
    output.show(json, || lines(&problems, colors))?;
    if problems.is_empty() {
        output.note("note: no problems were found");
    }
    Ok(Exit::Success)
}

/// A problem a line, and below it what takes part.
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
        let (resource, message) = (table::clean(&problem.resource), table::clean(&problem.message));
        lines.push(format!("{severity} {code} {resource}\n    {message}\n"));
    }
    lines.concat()
}
