//! Planning changes of the firewall: rules and their order.
//!
//! Invariant: positions stay dense. A mutation that leaves every rule as it was has no deltas.
//! Not here: address groups (`groups`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::PlanError;
use super::etag::check_etag;
use super::identity::{Symbol, paired};
use super::task::Task;
use crate::change::Delta;
use crate::document::RuleSpec;
use crate::name::{Id, MadeUpKind, Name};
use crate::rule::{Action, ConnectionTypes, Rule, RulePatch, Source};
use crate::time::Timestamp;

const LIMITED: &str = "rules";

/// What makes two rules equal, whatever their ids are.
type Settings<'a> = (Action, &'a Source, ConnectionTypes, &'a str, bool, Option<Timestamp>);

fn settings_of_rule(rule: &Rule) -> Settings<'_> {
    let Rule { action, source, connection_types, description, disabled, expire_time, .. } = rule;
    (*action, source, *connection_types, description, *disabled, *expire_time)
}

/// The settings of the rule that a patch makes; none where it makes none.
fn settings_of_patch(patch: &RulePatch) -> Option<Settings<'_>> {
    let RulePatch { action, source, connection_types, description, disabled, expire_time, expired: _ } = patch;
    Some((
        (*action)?,
        source.as_ref()?,
        connection_types.unwrap_or_default(),
        description.as_deref().unwrap_or_default(),
        disabled.unwrap_or_default(),
        expire_time.flatten(),
    ))
}

impl Task<'_> {
    pub(super) fn create_rule(
        mut self,
        id: Option<Id>,
        position: Option<i32>,
        patch: &RulePatch,
    ) -> Result<Vec<Delta>, PlanError> {
        let id = self.rule_id(id);
        if self.organization.rule(id.as_str()).is_some() {
            return Err(PlanError::AlreadyExists(self.rule_name(&id)));
        }
        let count = self.organization.rules.len() + 1;
        let index = position.map_or(Some(count - 1), |position| self.index(position, count));
        self.check_group("rule.address_group", patch.source.as_ref());
        let rule = self.new_rule(id, patch, None, "rule");
        self.refuse()?;
        self.check_own_limit(LIMITED, count, self.planner.limits.rules_per_organization_max)?;
        Ok(index.zip(rule).map(|(index, rule)| Delta::InsertRule { index, rule }).into_iter().collect())
    }

    pub(super) fn update_rule(
        mut self,
        id: &Id,
        etag: Option<&str>,
        patch: &RulePatch,
    ) -> Result<Vec<Delta>, PlanError> {
        let old = self.guarded_rule(id, etag)?;
        self.check_group("rule.address_group", patch.source.as_ref());
        self.refuse()?;
        let mut rule = patch.applied_to(&old);
        self.mark(&mut rule, Some(&old));
        if rule == *old {
            return Ok(Vec::new());
        }
        (rule.update_time, rule.changed_at) = (self.planner.now, self.revision);
        Ok(vec![Delta::SetRule { rule }])
    }

    pub(super) fn delete_rule(mut self, id: Id, etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        self.guarded_rule(&id, etag)?;
        self.refuse()?;
        Ok(vec![Delta::RemoveRule { id }])
    }

    pub(super) fn move_rule(mut self, id: Id, position: i32, etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        let name = self.rule_name(&id);
        let Some((from, rule)) = self.organization.rule(id.as_str()) else { return Err(PlanError::NotFound(name)) };
        // Either etag is accepted: that of the rule guards its fields, that of the list guards the order.
        if etag != Some(self.planner.etags.rules(self.organization.rules_changed_at).as_str()) {
            check_etag(&name, etag, &self.planner.etags.rule(rule.changed_at))?;
        }
        let count = self.organization.rules.len();
        // The position after the last one means the end, as when a rule is created.
        let is_end = usize::try_from(position).is_ok_and(|position| position == count + 1);
        let index = if is_end { Some(count - 1) } else { self.index(position, count) };
        self.refuse()?;
        Ok(index.filter(|index| *index != from).map(|index| Delta::MoveRule { id, index }).into_iter().collect())
    }

    pub(super) fn reorder_rules(mut self, order: &[Option<Id>], etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        self.check_list_etag(etag)?;
        let rules = &self.organization.rules;
        let mut indexes: HashMap<&str, u32> =
            (0_u32..).zip(rules.iter()).map(|(index, rule)| (rule.id.as_str(), index)).collect();
        let known: HashSet<&str> = indexes.keys().copied().collect();
        let mut new_order = Vec::with_capacity(order.len());
        let is_read = order.iter().all(Option::is_some);
        for (number, id) in order.iter().enumerate() {
            let Some(id) = id else { continue };
            let description = match indexes.remove(id.as_str()) {
                Some(index) => {
                    new_order.push(index);
                    continue;
                }
                None if known.contains(id.as_str()) => "is named twice: name every rule once",
                None => "does not exist: name the rules of the list",
            };
            let name = self.rule_name(id);
            self.violation(&format!("rules[{number}]"), format!("`{name}` {description}"));
        }
        // A name that could not be read may be that of a rule which seems to be missing.
        if is_read && let Some(missing) = rules.iter().find(|rule| indexes.contains_key(rule.id.as_str())) {
            let name = self.rule_name(&missing.id);
            let missing = match indexes.len() {
                1 => format!("1 rule is missing, `{name}`"),
                count => format!("{count} rules are missing, the first is `{name}`"),
            };
            self.violation("rules", format!("{missing}: name every rule once"));
        }
        self.refuse()?;
        if new_order.is_sorted() {
            return Ok(Vec::new());
        }
        Ok(vec![Delta::OrderRules { order: new_order }])
    }

    pub(super) fn replace_rules(mut self, rules: Vec<RuleSpec>, etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        self.check_list_etag(etag)?;
        let deltas = self.rule_list(rules, "rules");
        self.refuse()?;
        deltas
    }

    /// The deltas that replace the rules by a list, which is the request's field `field`.
    pub(super) fn rule_list(&mut self, rules: Vec<RuleSpec>, field: &str) -> Result<Vec<Delta>, PlanError> {
        let present = Arc::clone(&self.organization.rules);
        let kept = kept_rules(&present, &rules);
        let given = rules.iter().filter_map(|rule| rule.id.as_ref());
        let mut ids = self.list_ids(MadeUpKind::Rule, present.iter().map(|rule| &rule.id), given);
        let mut new = Vec::with_capacity(rules.len());
        for (RuleSpec { index, id, patch }, kept) in rules.into_iter().zip(kept) {
            let kept = kept.and_then(|at| present.get(at));
            let (id, is_repeated) = ids.id(id.as_ref(), kept.map(|kept| &kept.id));
            if is_repeated {
                let description = format!("`{}` is named twice: name every rule once", self.rule_name(&id));
                self.violation(&format!("{field}[{index}].name"), description);
            }
            self.check_group(&format!("{field}[{index}].address_group"), patch.source.as_ref());
            let before = kept.map(|kept| &**kept);
            let Some(mut rule) = self.new_rule(id, &patch, before, &format!("{field}[{index}]")) else { continue };
            if let Some(kept) = kept {
                let as_before = Rule { update_time: kept.update_time, changed_at: kept.changed_at, ..rule.clone() };
                let as_before = Rule { create_time: kept.create_time, ..as_before };
                rule = if as_before == **kept { as_before } else { Rule { create_time: kept.create_time, ..rule } };
            }
            new.push(rule);
        }
        self.check_own_limit(LIMITED, new.len(), self.planner.limits.rules_per_organization_max)?;
        if new.iter().eq(present.iter().map(|rule| &**rule)) {
            return Ok(Vec::new());
        }
        Ok(vec![Delta::ReplaceRules { rules: new }])
    }

    /// The rule that a patch makes. What it lacks is a violation, unless the request's reader said so already.
    /// `before` is the rule that it takes the place of.
    fn new_rule(&mut self, id: Id, patch: &RulePatch, before: Option<&Rule>, field: &str) -> Option<Rule> {
        let mut rule = patch.to_rule(id, self.planner.now, self.revision);
        if let Some(rule) = &mut rule {
            self.mark(rule, before);
        }
        if rule.is_none() && self.violations.is_empty() {
            self.violation(field, "must have an action and a source");
        }
        rule
    }

    /// Marks a rule whose new expire time has passed as expired at once, so that the answer says so and no clock makes it
    /// match. With the expire time that the rule had before, it keeps the mark that it had. A mark that the rule brings along
    /// stays: it is of the same expire time.
    fn mark(&self, rule: &mut Rule, before: Option<&Rule>) {
        let before = before.filter(|before| before.expire_time == rule.expire_time);
        rule.expired |= match before {
            Some(before) => before.expired,
            None => rule.expire_time.is_some_and(|time| time <= self.planner.now),
        };
    }

    /// The 0-based index of a 1-based position; a violation when the position is not from 1 to `count`.
    fn index(&mut self, position: i32, count: usize) -> Option<usize> {
        let index = usize::try_from(position).ok().and_then(|position| position.checked_sub(1));
        let index = index.filter(|index| *index < count);
        if index.is_none() && !self.violations.iter().any(|violation| violation.field == "position") {
            self.violation("position", format!("`{position}` is not a position: give one from 1 to {count}"));
        }
        index
    }

    fn guarded_rule(&self, id: &Id, etag: Option<&str>) -> Result<Arc<Rule>, PlanError> {
        let name = self.rule_name(id);
        let Some((_, rule)) = self.organization.rule(id.as_str()) else { return Err(PlanError::NotFound(name)) };
        check_etag(&name, etag, &self.planner.etags.rule(rule.changed_at))?;
        Ok(Arc::clone(rule))
    }

    fn check_list_etag(&self, etag: Option<&str>) -> Result<(), PlanError> {
        let name = format!("organizations/{}/rules", self.organization.id);
        check_etag(&name, etag, &self.planner.etags.rules(self.organization.rules_changed_at))
    }

    fn rule_name(&self, id: &Id) -> String {
        Name::rule(&self.organization.id, id).to_string()
    }
}

/// For each rule of a new list, the index of the present rule that it is: the one of its id; without an id, one with the
/// same settings whose id the list does not give.
fn kept_rules(present: &[Arc<Rule>], new: &[RuleSpec]) -> Vec<Option<usize>> {
    let named: HashSet<&str> = new.iter().filter_map(|rule| rule.id.as_ref()).map(Id::as_str).collect();
    let old: Vec<_> = present
        .iter()
        .map(|rule| match named.get(rule.id.as_str()) {
            Some(id) => Symbol::Named(id),
            None => Symbol::Settings(settings_of_rule(rule)),
        })
        .collect();
    let new: Vec<_> = new
        .iter()
        .map(|rule| match &rule.id {
            Some(id) => Some(Symbol::Named(id.as_str())),
            None => settings_of_patch(&rule.patch).map(Symbol::Settings),
        })
        .collect();
    paired(&old, &new)
}
