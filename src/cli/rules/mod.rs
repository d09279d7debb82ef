//! `portcullis rules`: the ordered firewall of an organization.
//!
//! Invariant: an update names exactly the fields that were typed in its mask, so that it alters nothing else.
//! Not here: the flags (`args`), how rules are shown (`view`), the format of `replace --file` (`file`).

mod args;
mod file;
mod view;

use tonic::transport::Channel;

use super::Exit;
use super::json::{self, Json};
use super::names::{OrganizationArgs, group_beside};
use super::output::Output;
use super::pages;
use crate::proto::v1;
use crate::proto::v1::firewall_service_client::FirewallServiceClient;
use crate::proto::v1::mutation::Request as Asked;
use args::{CreateArgs, DeleteArgs, Expiry, GetArgs, MoveArgs, ReorderArgs, ReplaceArgs, RulesCommand, UpdateArgs};
use portcullis_client::answer;

pub(super) use args::RulesArgs;

type Client = FirewallServiceClient<Channel>;

pub(super) async fn run(args: RulesArgs, channel: Channel, output: &mut Output) -> anyhow::Result<Exit> {
    let names = args.organization;
    match args.command {
        RulesCommand::List => list(channel, &names, output).await?,
        RulesCommand::Get(args) => get(channel, &names, &args, output).await?,
        RulesCommand::Create(args) => create(channel, &names, args, output).await?,
        RulesCommand::Update(args) => update(channel, &names, args, output).await?,
        RulesCommand::Delete(args) => delete(channel, &names, &args, output).await?,
        RulesCommand::Move(args) => move_rule(channel, &names, &args, output).await?,
        RulesCommand::Reorder(args) => reorder(channel, &names, &args, output).await?,
        RulesCommand::Replace(args) => replace(channel, &names, &args, output).await?,
    }
    Ok(Exit::Success)
}

async fn list(channel: Channel, names: &OrganizationArgs, output: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let parent = names.name();
    let fetch = async |page_token: String| {
        let request = v1::ListRulesRequest { parent: parent.clone(), page_size: pages::PAGE_SIZE, page_token };
        client.list_rules(request).await.map(tonic::Response::into_inner)
    };
    let pages = pages::read(fetch, |page: &v1::ListRulesResponse| &page.next_page_token).await?;
    let mut whole = v1::ListRulesResponse::default();
    for page in pages {
        whole.rules.extend(page.rules);
        whole.problems.extend(page.problems);
        (whole.etag, whole.revision) = (page.etag, page.revision);
    }
    output.show(
        || rules_json(&whole.rules, &whole.etag, whole.revision, &whole.problems),
        || view::rules(&whole.rules, &whole.problems),
    )?;
    Ok(())
}

async fn get(channel: Channel, names: &OrganizationArgs, args: &GetArgs, output: &mut Output) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let rule = answer(client.get_rule(v1::GetRuleRequest { name: names.rule(&args.rule) }).await)?;
    show(&rule, output)
}

async fn create(
    channel: Channel,
    names: &OrganizationArgs,
    args: CreateArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let source = match (args.range, args.group) {
        (Some(range), _) => Some(v1::rule::Source::Range(range)),
        (None, group) => group.map(|group| v1::rule::Source::AddressGroup(names.group(&group))),
    };
    let rule = v1::Rule {
        action: v1::Action::from(args.action).into(),
        source,
        connection_types: args
            .connection_types
            .into_iter()
            .map(|given| v1::ConnectionType::from(given).into())
            .collect(),
        description: args.description,
        disabled: args.disabled,
        expire_time: args.expire_time,
        ..v1::Rule::default()
    };
    let request = v1::CreateRuleRequest {
        parent: names.name(),
        rule: Some(rule),
        rule_id: args.id.unwrap_or_default(),
        position: args.position,
        options: args.change.options(),
    };
    if args.preview.preview {
        let name = request.parent.clone();
        return args.preview.show(channel, &name, Asked::CreateRule(request), output).await;
    }
    let rule = answer(client.create_rule(request).await)?;
    args.change.say_if_validated(output);
    show(&rule, output)
}

async fn update(
    channel: Channel,
    names: &OrganizationArgs,
    args: UpdateArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let mut rule = v1::Rule { name: names.rule(&args.rule), etag: args.etag.etag(), ..v1::Rule::default() };
    let mut paths = Vec::new();
    let fields = args.fields;
    if let Some(action) = fields.action {
        rule.set_action(action.into());
        paths.push("action");
    }
    if let Some(range) = fields.range {
        rule.source = Some(v1::rule::Source::Range(range));
        paths.push("range");
    }
    if let Some(group) = fields.group {
        rule.source = Some(v1::rule::Source::AddressGroup(group_beside(&rule.name, &group)));
        paths.push("address_group");
    }
    if !fields.connection_types.is_empty() {
        rule.connection_types = args::connection_types(&fields.connection_types)?;
        paths.push("connection_types");
    }
    if let Some(description) = fields.description {
        rule.description = description;
        paths.push("description");
    }
    if let Some(disabled) = fields.disabled {
        rule.disabled = disabled;
        paths.push("disabled");
    }
    if let Some(expiry) = fields.expire_time {
        rule.expire_time = match expiry {
            Expiry::At(time) => Some(time),
            Expiry::Never => None,
        };
        paths.push("expire_time");
    }
    let update_mask = Some(prost_types::FieldMask { paths: paths.into_iter().map(str::to_owned).collect() });
    let request = v1::UpdateRuleRequest { rule: Some(rule), update_mask, options: args.change.options() };
    if args.preview.preview {
        let name = request.rule.as_ref().map(|rule| rule.name.clone()).unwrap_or_default();
        return args.preview.show(channel, &name, Asked::UpdateRule(request), output).await;
    }
    let rule = answer(client.update_rule(request).await)?;
    args.change.say_if_validated(output);
    show(&rule, output)
}

async fn delete(
    channel: Channel,
    names: &OrganizationArgs,
    args: &DeleteArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let name = names.rule(&args.rule);
    let options = args.change.options();
    let request = v1::DeleteRuleRequest { name: name.clone(), etag: args.etag.etag(), options };
    if args.preview.preview {
        return args.preview.show(channel, &name, Asked::DeleteRule(request), output).await;
    }
    answer(client.delete_rule(request).await)?;
    args.change.say_if_validated(output);
    output.show(json::empty, || args.change.deleted(&name))?;
    Ok(())
}

async fn move_rule(
    channel: Channel,
    names: &OrganizationArgs,
    args: &MoveArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let request = v1::MoveRuleRequest {
        name: names.rule(&args.rule),
        position: args.position,
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    if args.preview.preview {
        let name = request.name.clone();
        return args.preview.show(channel, &name, Asked::MoveRule(request), output).await;
    }
    let rule = answer(client.move_rule(request).await)?;
    args.change.say_if_validated(output);
    show(&rule, output)
}

async fn reorder(
    channel: Channel,
    names: &OrganizationArgs,
    args: &ReorderArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let request = v1::ReorderRulesRequest {
        parent: names.name(),
        rules: args.rules.iter().map(|rule| names.rule(rule)).collect(),
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    if args.preview.preview {
        let name = request.parent.clone();
        return args.preview.show(channel, &name, Asked::ReorderRules(request), output).await;
    }
    let v1::ReorderRulesResponse { rules, etag, revision } = answer(client.reorder_rules(request).await)?;
    args.change.say_if_validated(output);
    output.show(|| rules_json(&rules, &etag, revision, &[]), || view::rules(&rules, &[]))?;
    Ok(())
}

async fn replace(
    channel: Channel,
    names: &OrganizationArgs,
    args: &ReplaceArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = Client::new(channel.clone());
    let file = file::read(&args.file, names)?;
    let request = v1::ReplaceRulesRequest {
        parent: names.name(),
        rules: file.rules,
        etag: args.etag.given().unwrap_or(file.etag),
        options: args.change.options(),
    };
    if args.preview.preview {
        let name = request.parent.clone();
        return args.preview.show(channel, &name, Asked::ReplaceRules(request), output).await;
    }
    let v1::ReplaceRulesResponse { rules, etag, revision } = answer(client.replace_rules(request).await)?;
    args.change.say_if_validated(output);
    output.show(|| rules_json(&rules, &etag, revision, &[]), || view::rules(&rules, &[]))?;
    Ok(())
}

fn show(rule: &v1::Rule, output: &mut Output) -> anyhow::Result<()> {
    output.show(|| json::rule(rule), || view::rule(rule))?;
    Ok(())
}

fn rules_json(rules: &[v1::Rule], etag: &str, revision: i64, problems: &[v1::Problem]) -> Json {
    Json::object()
        .items("rules", rules.iter().map(json::rule).collect())
        .text("etag", etag)
        .int64("revision", revision)
        .problems(problems)
        .into()
}
