//! `portcullis policy tests`: what the policy must decide.
//!
//! Invariant: a test that fails is told apart by the exit status of the list, so that a script can act on it.
//! Not here: refusing changes: that is the server's.

use clap::{Args, Subcommand, ValueEnum};

use super::Client;
use crate::cli::change::ChangeArgs;
use crate::cli::check::ConnectionType;
use crate::cli::json::{self, Json};
use crate::cli::names::{OrganizationArgs, below, id};
use crate::cli::output::Output;
use crate::cli::{Exit, pages, table};
use crate::proto::v1;
use portcullis_client::answer;

#[derive(Args, Debug)]
pub(super) struct TestsArgs {
    #[command(subcommand)]
    command: TestsCommand,
}

#[derive(Subcommand, Debug)]
enum TestsCommand {
    /// List the tests with what is decided now; exits with 3 where one fails
    List,
    /// Add a test: from then on, a change that breaks it is refused
    Create(CreateArgs),
    /// Delete a test
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// The id of the test; the server makes one up where none is given
    #[arg(long, value_name = "ID", default_value = "")]
    id: String,
    /// The address that the user comes from
    #[arg(long, value_name = "ADDRESS")]
    ip: String,
    /// What the user opens
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    connection_type: ConnectionType,
    /// The node that the user connects to: a full name, `projects/…` of the organization, or an organization's id
    #[arg(long, value_name = "NAME")]
    endpoint: String,
    /// What must be decided
    #[arg(long, value_enum, value_name = "DECISION")]
    expect: Expected,
    /// What the test is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// A decision as it is typed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Allow,
    Deny,
}

#[derive(Args, Debug)]
struct DeleteArgs {
    /// The test: its id or full name
    test: String,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn run(
    mut client: Client,
    names: &OrganizationArgs,
    args: TestsArgs,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    match args.command {
        TestsCommand::List => return list(client, names, output).await,
        TestsCommand::Create(args) => {
            let expected = match args.expect {
                Expected::Allow => v1::Decision::Allow,
                Expected::Deny => v1::Decision::Deny,
            };
            let test = v1::PolicyTest {
                ip: args.ip,
                connection_type: v1::ConnectionType::from(args.connection_type).into(),
                endpoint: names.node(&args.endpoint),
                expected_decision: expected.into(),
                description: args.description,
                ..v1::PolicyTest::default()
            };
            let request = v1::CreatePolicyTestRequest {
                parent: names.name(),
                policy_test: Some(test),
                policy_test_id: args.id,
                options: args.change.options(),
            };
            let test = answer(client.create_policy_test(request).await)?;
            args.change.say_if_validated(output);
            output.show(|| json::policy_test(&test), || lines(std::slice::from_ref(&test)))?;
        }
        TestsCommand::Delete(args) => {
            let name = below(&names.name(), "policyTests", &args.test);
            let request = v1::DeletePolicyTestRequest { name: name.clone(), options: args.change.options() };
            answer(client.delete_policy_test(request).await)?;
            args.change.say_if_validated(output);
            output.show(json::empty, || args.change.deleted(&name))?;
        }
    }
    Ok(Exit::Success)
}

async fn list(mut client: Client, names: &OrganizationArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let parent = names.name();
    let fetch = async |page_token: String| {
        let request = v1::ListPolicyTestsRequest { parent: parent.clone(), page_size: pages::PAGE_SIZE, page_token };
        client.list_policy_tests(request).await.map(tonic::Response::into_inner)
    };
    let pages = pages::read(fetch, |page: &v1::ListPolicyTestsResponse| &page.next_page_token).await?;
    let tests: Vec<v1::PolicyTest> = pages.into_iter().flat_map(|page| page.policy_tests).collect();
    let items = || tests.iter().map(json::policy_test).collect();
    output.show(|| Json::object().items("policyTests", items()).into(), || lines(&tests))?;
    let fails = |test: &v1::PolicyTest| test.actual_decision != test.expected_decision;
    Ok(if tests.iter().any(fails) { Exit::Denied } else { Exit::Success })
}

fn lines(tests: &[v1::PolicyTest]) -> String {
    let word = |decision: v1::Decision| table::word(decision.as_str_name(), "DECISION_");
    let row = |test: &v1::PolicyTest| {
        let outcome = if test.actual_decision == test.expected_decision { "passes" } else { "FAILS" };
        [
            id(&test.name).to_owned(),
            outcome.to_owned(),
            test.ip.clone(),
            table::connection_type(test.connection_type),
            test.endpoint.clone(),
            word(test.expected_decision()),
            word(test.actual_decision()),
            test.description.clone(),
        ]
    };
    let headings = ["ID", "OUTCOME", "ADDRESS", "TYPE", "ENDPOINT", "EXPECTED", "ACTUAL", "DESCRIPTION"];
    table::grid(headings, tests.iter().map(row))
}
