//! Planning changes of the firewall: rules and their order.
//!
//! Invariant: positions stay dense; a change that leaves every rule as it was has no deltas.
//! Not here: address groups (`groups`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::PlanError;
use super::etag::{check_etag, etag_of_rule, etag_of_rules};
use super::task::{Task, check_limit};
use crate::change::Delta;
use crate::name::{Id, Name};
use crate::rule::{Rule, RulePatch};

const LIMITED: &str = "rules of an organization";

impl Task<'_> {
    pub(super) fn create_rule(
        mut self,
        id: Id,
        position: Option<i32>,
        patch: &RulePatch,
    ) -> Result<Vec<Delta>, PlanError> {
        if self.organization.rule(id.as_str()).is_some() {
            return Err(PlanError::AlreadyExists(self.rule_name(&id)));
        }
        let places = self.organization.rules.len() + 1;
        let at = position.map_or(Some(places - 1), |position| self.place(position, places));
        self.check_group("rule.address_group", patch.source.as_ref());
        let rule = self.new_rule(id, patch, "rule");
        self.refuse()?;
        check_limit(LIMITED, places, self.planner.limits.rules_per_organization_max)?;
        Ok(at.zip(rule).map(|(at, rule)| Delta::InsertRule { at, rule }).into_iter().collect())
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
        // Either guard makes sense: nobody changed the rule, or nobody changed the order.
        if etag != Some(etag_of_rules(self.organization.rules_changed_at).as_str()) {
            check_etag(&name, etag, &etag_of_rule(rule.changed_at))?;
        }
        let count = self.organization.rules.len();
        // One behind the last is the end, as when a rule is created.
        let at = self.place(position, count + 1).map(|at| at.min(count - 1));
        self.refuse()?;
        Ok(at.filter(|at| *at != from).map(|at| Delta::MoveRule { id, at }).into_iter().collect())
    }

    pub(super) fn reorder_rules(mut self, order: &[Id], etag: Option<&str>) -> Result<Vec<Delta>, PlanError> {
        self.check_list_etag(etag)?;
        let rules = &self.organization.rules;
        let mut places: HashMap<&str, u32> =
            (0_u32..).zip(rules.iter()).map(|(at, rule)| (rule.id.as_str(), at)).collect();
        let known: HashSet<&str> = places.keys().copied().collect();
        let mut new_order = Vec::with_capacity(order.len());
        let malformed: HashSet<String> = self.violations.iter().map(|violation| violation.field.clone()).collect();
        for (index, id) in order.iter().enumerate() {
            if !malformed.is_empty() && malformed.contains(&format!("rules[{index}]")) {
                continue;
            }
            let description = match places.remove(id.as_str()) {
                Some(at) => {
                    new_order.push(at);
                    continue;
                }
                None if known.contains(id.as_str()) => "is named twice: name every rule once",
                None => "does not exist",
            };
            let name = self.rule_name(id);
            self.violation(&format!("rules[{index}]"), format!("`{name}` {description}"));
        }
        if let Some(missing) = rules.iter().find(|rule| places.contains_key(rule.id.as_str())) {
            let (count, name) = (places.len(), self.rule_name(&missing.id));
            self.violation("rules", format!("{count} missing, the first is `{name}`: name every rule once"));
        }
        self.refuse()?;
        if new_order.is_sorted() {
            return Ok(Vec::new());
        }
        Ok(vec![Delta::OrderRules { order: new_order }])
    }

    pub(super) fn replace_rules(
        mut self,
        rules: Vec<(Id, RulePatch)>,
        etag: Option<&str>,
    ) -> Result<Vec<Delta>, PlanError> {
        self.check_list_etag(etag)?;
        let deltas = self.rule_list(rules, "rules");
        self.refuse()?;
        deltas
    }

    /// The deltas to a list of rules, noting under `field` what is wrong with them.
    pub(super) fn rule_list(&mut self, rules: Vec<(Id, RulePatch)>, field: &str) -> Result<Vec<Delta>, PlanError> {
        let old: HashMap<&str, &Arc<Rule>> =
            self.organization.rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
        let mut named = HashSet::new();
        let mut new = Vec::with_capacity(rules.len());
        for (index, (id, patch)) in rules.into_iter().enumerate() {
            if !named.insert(id.clone()) {
                let name = self.rule_name(&id);
                self.violation(&format!("{field}[{index}].name"), format!("`{name}` is named twice"));
            }
            self.check_group(&format!("{field}[{index}].address_group"), patch.source.as_ref());
            let Some(mut rule) = self.new_rule(id, &patch, &format!("{field}[{index}]")) else { continue };
            if let Some(old) = old.get(rule.id.as_str()) {
                let as_before = Rule { update_time: old.update_time, changed_at: old.changed_at, ..rule.clone() };
                let as_before = Rule { create_time: old.create_time, ..as_before };
                rule = if as_before == ***old { as_before } else { Rule { create_time: old.create_time, ..rule } };
            }
            new.push(rule);
        }
        check_limit(LIMITED, new.len(), self.planner.limits.rules_per_organization_max)?;
        if new.iter().eq(self.organization.rules.iter().map(|rule| &**rule)) {
            return Ok(Vec::new());
        }
        Ok(vec![Delta::ReplaceRules { rules: new }])
    }

    /// The rule of a patch; what it lacks is a violation, unless parsing has named that field already.
    fn new_rule(&mut self, id: Id, patch: &RulePatch, field: &str) -> Option<Rule> {
        let rule = patch.to_rule(id, self.planner.now, self.revision);
        if rule.is_none() && !self.violations.iter().any(|violation| violation.field.starts_with(field)) {
            self.violation(field, "must have an action and a source");
        }
        rule
    }

    /// A 1-based position as a place; a violation when it is not one of `places`.
    fn place(&mut self, position: i32, places: usize) -> Option<usize> {
        let place = usize::try_from(position).ok().and_then(|position| position.checked_sub(1));
        let place = place.filter(|place| *place < places);
        if place.is_none() && !self.violations.iter().any(|violation| violation.field == "position") {
            self.violation("position", format!("`{position}` is not a position: give one from 1 to {places}"));
        }
        place
    }

    fn guarded_rule(&self, id: &Id, etag: Option<&str>) -> Result<Arc<Rule>, PlanError> {
        let name = self.rule_name(id);
        let Some((_, rule)) = self.organization.rule(id.as_str()) else { return Err(PlanError::NotFound(name)) };
        check_etag(&name, etag, &etag_of_rule(rule.changed_at))?;
        Ok(Arc::clone(rule))
    }

    fn check_list_etag(&self, etag: Option<&str>) -> Result<(), PlanError> {
        let name = format!("organizations/{}/rules", self.organization.id);
        check_etag(&name, etag, &etag_of_rules(self.organization.rules_changed_at))
    }

    fn rule_name(&self, id: &Id) -> String {
        Name::rule(&self.organization.id, id).to_string()
    }
}
