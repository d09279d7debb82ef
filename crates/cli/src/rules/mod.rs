//! `portcullis rules`: the ordered firewall of an organization.
//!
//! Invariant: an update names exactly the fields that were typed in its mask, so that it alters nothing else.
//! Not here: the flags (`args`), how rules are shown (`view`), what a change of all rules did (`effects`), reading
//! the file of `replace` (`file`).

mod args;
mod effects;
mod file;
mod view;

use portcullis_client::answer;

use super::context::Context;
use super::difference::Told;
use super::effects::Effects;
use super::exit::Exit;
use super::names::{OrganizationArgs, group_beside};
use super::pages;
use super::ranges_file::read_text;
use args::{CreateArgs, DeleteArgs, Expiry, MoveArgs, ReorderArgs, ReplaceArgs, RulesCommand, UpdateArgs};
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;

pub(super) use args::RulesArgs;

pub(super) async fn run(args: RulesArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let names = args.organization;
    match args.command {
        RulesCommand::List => list(&names, context).await,
        RulesCommand::Get(args) => {
            let request = v1::GetRuleRequest { name: names.rule(&args.rule), include_problems: true };
            let rule = answer(context.client.firewall().get_rule(request).await)?;
            context.show(&rule, view::rule)
        }
        RulesCommand::Create(args) => create(&names, args, context).await,
        RulesCommand::Update(args) => update(&names, args, context).await,
        RulesCommand::Delete(args) => delete(&names, &args, context).await,
        RulesCommand::Move(args) => move_rule(&names, &args, context).await,
        RulesCommand::Reorder(args) => reorder(&names, &args, context).await,
        RulesCommand::Replace(args) => replace(&names, &args, context).await,
    }
}

async fn list(names: &OrganizationArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (parent, mut client) = (names.name(), context.client.firewall());
    let rules = pages::all(async |page_size, page_token| {
        client.list_rules(v1::ListRulesRequest { parent: parent.clone(), page_size, page_token }).await
    });
    let rules = rules.await?;
    context.list(&rules, view::rules)?;
    if rules.rules.is_empty() {
        context.output.note(&effects::nothing_denied(&names.name(), Told::Is));
    }
    Ok(Exit::Success)
}

async fn create(names: &OrganizationArgs, args: CreateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
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
        expire_time: args.expire_time.and_then(Expiry::time),
        ..v1::Rule::default()
    };
    let parent = names.name();
    let request = v1::CreateRuleRequest {
        parent: parent.clone(),
        rule: Some(rule),
        rule_id: args.id.unwrap_or_default(),
        position: args.position,
        options: args.change.options(),
    };
    if args.preview.preview {
        return context.preview(&parent, Asked::CreateRule(request)).await;
    }
    let effects = Effects::of(&parent, Asked::CreateRule(request.clone()), context).await;
    let rule = answer(context.client.firewall().create_rule(request).await)?;
    context.changed(&args.change, &rule, view::rule)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn update(names: &OrganizationArgs, args: UpdateArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.rule(&args.rule);
    let mut rule = v1::Rule { name: name.clone(), etag: args.etag.etag(), ..v1::Rule::default() };
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
        rule.source = Some(v1::rule::Source::AddressGroup(group_beside(&name, &group)));
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
        return context.preview(&name, Asked::UpdateRule(request)).await;
    }
    let effects = Effects::of(&name, Asked::UpdateRule(request.clone()), context).await;
    let rule = answer(context.client.firewall().update_rule(request).await)?;
    context.changed(&args.change, &rule, view::rule)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn delete(names: &OrganizationArgs, args: &DeleteArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.rule(&args.rule);
    let options = args.change.options();
    let request = v1::DeleteRuleRequest { name: name.clone(), etag: args.etag.etag(), options };
    if args.preview.preview {
        return context.preview(&name, Asked::DeleteRule(request)).await;
    }
    let effects = Effects::of(&name, Asked::DeleteRule(request.clone()), context).await;
    answer(context.client.firewall().delete_rule(request).await)?;
    context.deleted(&args.change, &name)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn move_rule(names: &OrganizationArgs, args: &MoveArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let name = names.rule(&args.rule);
    let request = v1::MoveRuleRequest {
        name: name.clone(),
        position: args.position,
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    if args.preview.preview {
        return context.preview(&name, Asked::MoveRule(request)).await;
    }
    let effects = Effects::of(&name, Asked::MoveRule(request.clone()), context).await;
    let rule = answer(context.client.firewall().move_rule(request).await)?;
    context.changed(&args.change, &rule, view::rule)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn reorder(names: &OrganizationArgs, args: &ReorderArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let parent = names.name();
    let request = v1::ReorderRulesRequest {
        parent: parent.clone(),
        rules: args.rules.iter().map(|rule| names.rule(rule)).collect(),
        etag: args.etag.etag(),
        options: args.change.options(),
    };
    if args.preview.preview {
        return context.preview(&parent, Asked::ReorderRules(request)).await;
    }
    let effects = Effects::of(&parent, Asked::ReorderRules(request.clone()), context).await;
    let reordered = answer(context.client.firewall().reorder_rules(request).await)?;
    context.note_change(&args.change, Some(parent.clone()));
    let v1::ReorderRulesResponse { rules, etag, revision } = reordered;
    let list = v1::ListRulesResponse { rules, etag, revision, ..Default::default() };
    effects::show(&args.change, &parent, &list, context)?;
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}

async fn replace(names: &OrganizationArgs, args: &ReplaceArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let parent = names.name();
    let (read, etag) = file::parse(&args.file, &read_text(&args.file)?, names)?;
    if read.has_others {
        context.output.note("note: only the rules of the file are used, its groups, nodes and tests are ignored");
    }
    let request = v1::ReplaceRulesRequest {
        parent: parent.clone(),
        rules: read.rules,
        etag: args.etag.given().unwrap_or(etag),
        options: args.change.options(),
    };
    if args.preview.preview {
        let previewed = context.preview(&parent, Asked::ReplaceRules(request)).await;
        return previewed.map_err(|error| read.locations.locate_in(error, &args.file, ""));
    }
    let is_empty = request.rules.is_empty();
    let effects = Effects::of(&parent, Asked::ReplaceRules(request.clone()), context).await;
    let replaced = answer(context.client.firewall().replace_rules(request).await)
        .map_err(|error| read.locations.locate(error, &args.file, ""))?;
    context.note_change(&args.change, Some(parent.clone()));
    let v1::ReplaceRulesResponse { rules, etag, revision } = replaced;
    let list = v1::ListRulesResponse { rules, etag, revision, ..Default::default() };
    effects::show(&args.change, &parent, &list, context)?;
    effects::of_replacement(&args.change, effects.changes(), context);
    if is_empty {
        context.output.note(&effects::no_rules(&args.change, &parent));
    }
    effects.tell(&args.change, context).await;
    Ok(Exit::Success)
}
