//! Rules: from requests to mutations and back (design.md §3.3).
//!
//! Invariant: an answer shows the policy right after its change, or the current one.
//! Not here: the meaning of a mutation (`policy::plan`).

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message;
use tonic::{Response, Status};

use super::caller::Caller;
use super::convert::names;
use super::convert::names::{optional_id, organization, rule_of};
use super::convert::options::Mask;
use super::convert::reader::{ReadChange, Reader};
use super::convert::rule::{SETTABLE, at_moment, patch, to_rule};
use super::mutation::ChangedOrganization;
use super::{ANSWER_BYTES_MAX, ANSWER_BYTES_RESERVED, Api, at_revision, status, to_i64};
use crate::policy::document::RuleSpec;
use crate::policy::name::Id;
use crate::policy::plan::Mutation;
use crate::policy::problems::{Problem, Resource};
use crate::policy::rule::{Rule, RulePatch};
use crate::policy::time::Timestamp;
use crate::proto::v1;

/// Rules in the answer of a call that changes the whole list.
const RULES_SHOWN_MAX: usize = 1_000;

impl Api {
    pub(super) async fn create_rule(
        &self,
        caller: Caller,
        request: v1::CreateRuleRequest,
    ) -> Result<Response<v1::Rule>, Status> {
        let changed = self.make(caller, self.read_create_rule(request)).await?;
        rule_answer(&changed, self.engine()?.clock().now())
    }

    pub(super) fn read_create_rule(&self, request: v1::CreateRuleRequest) -> ReadChange {
        let v1::CreateRuleRequest { parent, rule, rule_id, position, options } = request;
        let mut read = self.change_reader(options);
        let parent = organization(&mut read, "parent", &parent);
        let id = optional_id(&mut read, "rule_id", &rule_id);
        let patch = new_rule(&mut read, "rule", parent.as_ref(), rule.unwrap_or_default());
        if let Some(position) = position {
            read.position("position", position);
        }
        let mutation = Mutation::CreateRule { id, position, patch };
        read.change_inside(parent, Some(mutation))
    }

    pub(super) async fn get_rule(&self, request: v1::GetRuleRequest) -> Result<Response<v1::Rule>, Status> {
        let v1::GetRuleRequest { name, include_problems } = request;
        let (organization, id) =
            names::rule(&name).map_err(|error| status::invalid_field("name", error.to_string()))?;
        let published = self.published(&organization)?;
        let view = &published.view;
        let (index, rule) = view.organization.rule(id.as_str()).ok_or_else(|| status::not_found(&name))?;
        let revision = view.organization.revision;
        let mut shown = at_moment(to_rule(self.etags()?, view, index, rule), rule, self.engine()?.clock().now());
        if include_problems {
            let concerns = |problem: &Problem| {
                let is_rule = |resource: &Resource| matches!(resource, Resource::Rule(of) if *of == id);
                is_rule(&problem.resource) || problem.related.iter().any(is_rule)
            };
            shown.problems = self.problems_of_listed(Arc::clone(&published), shown.encoded_len(), concerns).await?;
        }
        Ok(at_revision(shown, revision))
    }

    pub(super) async fn list_rules(
        &self,
        request: v1::ListRulesRequest,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        let v1::ListRulesRequest { parent, page_size, page_token } = request;
        let (id, page) = self.page_of_organization("rules", &parent, page_size, &page_token)?;
        let published = self.published(&id)?;
        let view = &published.view;
        let page = page.of_state(view.organization.rules_changed_at.to_string())?;
        let etags = self.etags()?;
        let etag = etags.rules(view.organization.rules_changed_at);
        let now = self.engine()?.clock().now();
        let rules = view.organization.rules.iter().enumerate().skip(page.offset());
        let (rules, next_page_token) =
            page.page_by_offset(rules.map(|(index, rule)| at_moment(to_rule(etags, view, index, rule), rule, now)));
        let listed = view.organization.rules.iter().skip(page.offset()).take(rules.len());
        let (listed, revision): (HashSet<Id>, _) =
            (listed.map(|rule| rule.id.clone()).collect(), view.organization.revision);
        let (revision_shown, problems) = (to_i64(revision), Vec::new());
        let mut answer = v1::ListRulesResponse { rules, next_page_token, etag, revision: revision_shown, problems };
        let is_listed = |problem: &Problem| matches!(&problem.resource, Resource::Rule(id) if listed.contains(id));
        answer.problems = self.problems_of_listed(published, answer.encoded_len(), is_listed).await?;
        Ok(at_revision(answer, revision))
    }

    pub(super) async fn update_rule(
        &self,
        caller: Caller,
        request: v1::UpdateRuleRequest,
    ) -> Result<Response<v1::Rule>, Status> {
        let changed = self.make(caller, self.read_update_rule(request)).await?;
        rule_answer(&changed, self.engine()?.clock().now())
    }

    pub(super) fn read_update_rule(&self, request: v1::UpdateRuleRequest) -> ReadChange {
        let v1::UpdateRuleRequest { rule, update_mask, options } = request;
        let mut read = self.change_reader(options);
        let mut rule = rule.unwrap_or_default();
        let etag = self.given_etag(std::mem::take(&mut rule.etag))?;
        let named = read.note("rule.name", names::rule(&rule.name));
        let mask = read.mask(update_mask, SETTABLE);
        let organization = named.as_ref().map(|(organization, _)| organization.as_str());
        let patch = patch(&mut read, "rule", organization, rule, &mask);
        let (organization, id) = named.unzip();
        let mutation = id.map(|id| Mutation::UpdateRule { id, etag, patch });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn delete_rule(
        &self,
        caller: Caller,
        request: v1::DeleteRuleRequest,
    ) -> Result<Response<()>, Status> {
        let changed = self.make(caller, self.read_delete_rule(request)).await?;
        Ok(at_revision((), changed.revision))
    }

    pub(super) fn read_delete_rule(&self, request: v1::DeleteRuleRequest) -> ReadChange {
        let v1::DeleteRuleRequest { name, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::rule(&name)).unzip();
        let mutation = id.map(|id| Mutation::DeleteRule { id, etag });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn move_rule(
        &self,
        caller: Caller,
        request: v1::MoveRuleRequest,
    ) -> Result<Response<v1::Rule>, Status> {
        let changed = self.make(caller, self.read_move_rule(request)).await?;
        rule_answer(&changed, self.engine()?.clock().now())
    }

    pub(super) fn read_move_rule(&self, request: v1::MoveRuleRequest) -> ReadChange {
        let v1::MoveRuleRequest { name, position, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::rule(&name)).unzip();
        read.position("position", position);
        let mutation = id.map(|id| Mutation::MoveRule { id, position, etag });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn reorder_rules(
        &self,
        caller: Caller,
        request: v1::ReorderRulesRequest,
    ) -> Result<Response<v1::ReorderRulesResponse>, Status> {
        let changed = self.make(caller, self.read_reorder_rules(request)).await?;
        let (rules, etag) = (shown_rules(&changed, self.engine()?.clock().now()), list_etag(&changed));
        let answer = v1::ReorderRulesResponse { rules, etag, revision: to_i64(changed.revision) };
        Ok(at_revision(answer, changed.revision))
    }

    pub(super) fn read_reorder_rules(&self, request: v1::ReorderRulesRequest) -> ReadChange {
        let v1::ReorderRulesRequest { parent, rules, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let parent = organization(&mut read, "parent", &parent);
        let name =
            |(index, name): (usize, &String)| rule_of(&mut read, &format!("rules[{index}]"), parent.as_ref(), name);
        let order = rules.iter().enumerate().map(name).collect();
        let mutation = Mutation::ReorderRules { order, etag };
        read.change_inside(parent, Some(mutation))
    }

    pub(super) async fn replace_rules(
        &self,
        caller: Caller,
        request: v1::ReplaceRulesRequest,
    ) -> Result<Response<v1::ReplaceRulesResponse>, Status> {
        let changed = self.make(caller, self.read_replace_rules(request)).await?;
        let (rules, etag) = (shown_rules(&changed, self.engine()?.clock().now()), list_etag(&changed));
        let answer = v1::ReplaceRulesResponse { rules, etag, revision: to_i64(changed.revision) };
        Ok(at_revision(answer, changed.revision))
    }

    pub(super) fn read_replace_rules(&self, request: v1::ReplaceRulesRequest) -> ReadChange {
        let v1::ReplaceRulesRequest { parent, rules, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let parent = organization(&mut read, "parent", &parent);
        let rules = read_rules(&mut read, "rules", parent.as_ref(), rules);
        let mutation = Mutation::ReplaceRules { rules, etag };
        read.change_inside(parent, Some(mutation))
    }
}

/// Reads a list of rules, which is the request's field `field`. One whose name cannot be read is in the list without an
/// id, so that its other fields are judged too.
pub(super) fn read_rules(
    read: &mut Reader,
    field: &str,
    organization: Option<&Id>,
    rules: Vec<v1::Rule>,
) -> Vec<RuleSpec> {
    let mut specs = Vec::with_capacity(rules.len());
    for (index, rule) in rules.into_iter().enumerate() {
        if read.is_full() {
            break;
        }
        let field = format!("{field}[{index}]");
        let name = (!rule.name.is_empty()).then_some(&rule.name);
        let id = name.and_then(|name| rule_of(read, &format!("{field}.name"), organization, name));
        let patch = new_rule(read, &field, organization, rule);
        specs.push(RuleSpec { index, id, patch });
    }
    specs
}

/// Reads all fields of a rule.
fn new_rule(read: &mut Reader, field: &str, organization: Option<&Id>, rule: v1::Rule) -> RulePatch {
    patch(read, field, organization.map(Id::as_str), rule, &Mask::All)
}

fn rule_answer(changed: &ChangedOrganization, now: Timestamp) -> Result<Response<v1::Rule>, Status> {
    let found = changed.object.as_ref().and_then(|id| changed.view.organization.rule(id.as_str()));
    let (index, rule) = found.ok_or_else(|| status::not_found("the rule"))?;
    Ok(at_revision(changed_rule(changed, index, rule, now), changed.revision))
}

/// A rule after a change, or as it would be.
fn changed_rule(changed: &ChangedOrganization, index: usize, rule: &Rule, now: Timestamp) -> v1::Rule {
    let mut shown = at_moment(to_rule(changed.etags, &changed.view, index, rule), rule, now);
    shown.etag = changed.etag(shown.etag);
    shown.revision = to_i64(changed.revision);
    shown
}

fn list_etag(changed: &ChangedOrganization) -> String {
    changed.etag(changed.etags.rules(changed.view.organization.rules_changed_at))
}

/// The first rules of a list, as many as are shown and fit.
fn shown_rules(changed: &ChangedOrganization, now: Timestamp) -> Vec<v1::Rule> {
    let mut room = ANSWER_BYTES_MAX - ANSWER_BYTES_RESERVED;
    let rules = changed.view.organization.rules.iter().enumerate().take(RULES_SHOWN_MAX);
    let rules = rules.map(|(index, rule)| changed_rule(changed, index, rule, now));
    let fits = |rule: &v1::Rule| {
        let left = room.checked_sub(rule.encoded_len() + 6);
        room = left.unwrap_or(0);
        left.is_some()
    };
    rules.take_while(fits).collect()
}
