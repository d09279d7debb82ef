//! `portcullis policy tests`: decisions that the policy must make.
//!
//! Invariant: the exit status of the list tells whether a test fails, so that a script can act on it.
//! Not here: refusing changes that break a test, which the server does.

use clap::{Args, Subcommand};
use portcullis_client::{CallError, answer};

use crate::change::ChangeArgs;
use crate::context::Context;
use crate::effects::Effects;
use crate::exit::Exit;
use crate::names::{OrganizationArgs, id};
use crate::times::{Expiry, parse_expiry, rfc3339};
use crate::words::{ConnectionArgs, Decision};
use crate::{pages, table};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

#[derive(Args, Debug)]
pub(super) struct TestsArgs {
    #[command(subcommand)]
    command: TestsCommand,
}

#[derive(Subcommand, Debug)]
enum TestsCommand {
    /// List the tests with their present decisions; exits with 3 if one fails
    List,
    /// Add a test; from then on, a change that breaks it is refused
    Create(CreateArgs),
    /// Delete a test
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// The id of the test; without it the server makes one up
    #[arg(long, value_name = "ID", default_value = "")]
    id: String,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The decision that the policy must make
    #[arg(long, value_enum, value_name = "DECISION")]
    expect: Decision,
    /// What the test is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// From when on the test need not hold, such as `2030-01-31T18:00:00Z`, or how long from now, such as `7d`; without
    /// it, or with `never`, it holds always
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    until: Option<Expiry>,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct DeleteArgs {
    /// The test: its id or full name
    test: String,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn run(names: &OrganizationArgs, args: TestsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match args.command {
        TestsCommand::List => list(names, context).await,
        TestsCommand::Create(args) => create(names, args, context).await,
        TestsCommand::Delete(args) => {
            let name = names.test(&args.test);
            let request = v1::DeletePolicyTestRequest { name: name.clone(), options: args.change.options() };
            let effects = Effects::of(&name, Asked::DeletePolicyTest(request.clone()), context).await;
            answer(context.client.analysis().delete_policy_test(request).await)?;
            context.deleted(&args.change, &name)?;
            effects.tell(&args.change, context).await;
            Ok(Exit::Success)
        }
    }
}

async fn create(names: &OrganizationArgs, args: CreateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let test = v1::PolicyTest {
        ip: args.connection.ip,
        connection_type: v1::ConnectionType::from(args.connection.connection_type).into(),
        endpoint: names.endpoint(&args.connection.endpoint)?,
        expected_decision: v1::Decision::from(args.expect).into(),
        description: args.description,
        end_time: args.until.and_then(Expiry::time),
        ..v1::PolicyTest::default()
    };
    let request = v1::CreatePolicyTestRequest {
        parent: names.name(),
        policy_test: Some(test),
        policy_test_id: args.id,
        options: args.change.options(),
    };
    let effects = Effects::of(&request.parent, Asked::CreatePolicyTest(request.clone()), context).await;
    let test = answer(context.client.analysis().create_policy_test(request).await)?;
    context.changed(&args.change, &test, record)?;
    let node = v1::GetNodeRequest { name: test.endpoint.clone() };
    if answer(context.client.hierarchy().get_node(node).await).is_err_and(|error| is_missing(&error)) {
        context.output.note(&format!(
            "note: {} does not exist: the test asserts what a check of an unknown node gets",
            table::clean(&test.endpoint)
        ));
    }
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

fn is_missing(error: &CallError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.reason == "NOT_FOUND")
}

async fn list(names: &OrganizationArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (parent, mut client) = (names.name(), context.client.analysis());
    let tests = pages::all(async |page_size, page_token| {
        let request = v1::ListPolicyTestsRequest { parent: parent.clone(), page_size, page_token };
        client.list_policy_tests(request).await
    });
    let tests = tests.await?;
    context.list(&tests, |tests| lines(&tests.policy_tests))?;
    Ok(if tests.policy_tests.iter().any(fails) { Exit::Denied } else { Exit::Success })
}

/// Whether a test fails now.
fn fails(test: &v1::PolicyTest) -> bool {
    test.actual_decision != test.expected_decision && !test.ended
}

/// Whether a test passes, fails, will fail, or asserts nothing any more.
fn outcome(test: &v1::PolicyTest) -> String {
    match &test.fail_time {
        _ if test.ended => "ended".to_owned(),
        _ if fails(test) => "FAILS".to_owned(),
        Some(time) => format!("passes, will fail at {}", rfc3339(time)),
        None if test.fail_time_unknown => "passes now, later is not known".to_owned(),
        None => "passes".to_owned(),
    }
}

fn word(decision: v1::Decision) -> String {
    table::word(decision.as_str_name(), "DECISION_")
}

/// One test with every field.
fn record(test: &v1::PolicyTest) -> String {
    table::record([
        ("name", test.name.clone()),
        ("outcome", outcome(test)),
        ("address", test.ip.clone()),
        ("type", table::connection_type(test.connection_type)),
        ("endpoint", test.endpoint.clone()),
        ("expected", word(test.expected_decision())),
        ("actual", word(test.actual_decision())),
        ("until", table::time(test.end_time.as_ref())),
        ("description", test.description.clone()),
    ])
}

fn lines(tests: &[v1::PolicyTest]) -> String {
    let row = |test: &v1::PolicyTest| {
        [
            id(&test.name).to_owned(),
            outcome(test),
            test.ip.clone(),
            table::connection_type(test.connection_type),
            test.endpoint.clone(),
            word(test.expected_decision()),
            word(test.actual_decision()),
            table::time(test.end_time.as_ref()),
            test.description.clone(),
        ]
    };
    let headings = ["ID", "OUTCOME", "ADDRESS", "TYPE", "ENDPOINT", "EXPECTED", "ACTUAL", "UNTIL", "DESCRIPTION"];
    table::grid(headings, tests.iter().map(row))
}
