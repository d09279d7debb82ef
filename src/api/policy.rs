//! The whole policy of an organization in one message: exporting and applying it.
//!
//! Invariant: applying what was exported changes nothing.
//! Not here: what applying a document changes (`policy::plan`).

use std::sync::Arc;

use prost::Message;
use tonic::{Response, Status};

use super::caller::Caller;
use super::convert::names::{self, NodeName, chosen_or_new_id, organization, rule_of};
use super::convert::node::{patch as node_patch, to_node, to_own_node};
use super::convert::options::{Mask, options};
use super::convert::policy_test::{read_test, to_test};
use super::convert::rule::{patch as rule_patch, to_group, to_rule};
use super::convert::{Faults, audit};
use super::differences::Differences;
use super::mutation::{ChangeCall, etag};
use super::{ANSWER_BYTES_MAX, Api, at_revision, status, to_i64};
use crate::engine::Engine;
use crate::engine::directory::OrganizationView;
use crate::policy::document::{Document, GroupSpec, NodeSpec};
use crate::policy::name::{Id, NodeKey};
use crate::policy::node::{Access, NodePatch};
use crate::policy::plan::{Mutation, etag_of_policy};
use crate::policy::policy_test::PolicyTest;
use crate::policy::ranges::RangeList;
use crate::policy::rule::RulePatch;
use crate::proto::v1;

impl Api {
    pub(super) fn export(&self, request: v1::ExportPolicyRequest) -> Result<Response<v1::Policy>, Status> {
        let v1::ExportPolicyRequest { parent, omit_ranges } = request;
        let mut faults = Faults::default();
        let id = organization(&mut faults, "parent", &parent);
        let published = self.published(&faults.result(id)?)?;
        let policy = to_policy(&published.view, omit_ranges);
        if policy.encoded_len() > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large("export it with `omit_ranges`, or list its parts"));
        }
        Ok(at_revision(policy, published.view.organization.revision))
    }

    pub(super) async fn apply(
        &self,
        caller: Caller,
        request: v1::ApplyPolicyRequest,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        let call = self.read_apply_policy(request);
        let before = match &call.target {
            Some(crate::engine::change::ChangeTarget::Organization { id, .. }) => Some(self.published(id)?),
            _ => None,
        };
        let changed = self.make(caller, call).await?;
        let (after, revision) = (Arc::clone(&changed.view.organization), changed.revision);
        let cluster = self.engine()?.directory().cluster();
        let now = self.engine()?.clock().now();
        let answer = self.permitted.compute(move || {
            let mut differences = Differences::default();
            let altered = before.map(|before| Engine::alterations(&before.view.organization, &after));
            let altered = audit::object_changes(&altered.unwrap_or_default(), Some(&after.id), revision);
            let altered = differences.take_changes(altered);
            let (problems, cut) = super::problems::of_organization(&after, &cluster.cluster, now);
            v1::ApplyPolicyResponse {
                revision: to_i64(revision),
                etag: etag_of_policy(revision),
                changes: altered,
                problems,
                truncated: differences.truncated || cut,
            }
        });
        Ok(at_revision(answer.await?, revision))
    }

    pub(super) fn read_apply_policy(&self, request: v1::ApplyPolicyRequest) -> ChangeCall {
        let v1::ApplyPolicyRequest { parent, policy, validate_only, etag: guard, options: given } = request;
        let mut faults = Faults::default();
        let mut options = options(&mut faults, given, self.limits.description_characters_max);
        options.validate_only |= validate_only;
        let id = organization(&mut faults, "parent", &parent);
        if policy.is_none() {
            faults.add("policy", "is required: give the policy that the organization is to have");
        }
        let document = policy.map(|policy| self.read_policy(&mut faults, id.as_ref(), &parent, policy));
        let mutation = document.map(|document| Mutation::ReplacePolicy {
            document: Box::new(document),
            etag: etag(guard),
            goes_back: false,
        });
        ChangeCall::inside(id, mutation, None, faults, options)
    }

    fn read_policy(&self, faults: &mut Faults, id: Option<&Id>, parent: &str, policy: v1::Policy) -> Document {
        let v1::Policy {
            organization,
            etag: _,
            revision: _,
            nodes,
            address_groups,
            rules,
            ranges_omitted,
            policy_tests,
        } = policy;
        if !organization.is_empty() && organization != parent {
            let description = format!("`{organization}` is not `{parent}`: apply the policy of the same organization");
            faults.add("policy.organization", description);
        }
        let (own, nodes) = self.read_nodes(faults, id, nodes);
        let groups = self.read_groups(faults, id, address_groups, ranges_omitted);
        let rules = self.read_rules(faults, id, rules);
        let tests = self.read_tests(faults, id, policy_tests);
        Document { own, nodes, groups, rules, tests }
    }

    fn read_nodes(&self, faults: &mut Faults, id: Option<&Id>, nodes: Vec<v1::Node>) -> (NodePatch, Vec<NodeSpec>) {
        let (mut own, mut specs) = (NodePatch::default(), Vec::with_capacity(nodes.len()));
        for (index, node) in nodes.into_iter().enumerate() {
            if faults.is_full() {
                break;
            }
            let field = format!("policy.nodes[{index}]");
            let key = read_key(faults, &format!("{field}.name"), id, index, &node.name);
            let characters_max = self.limits.description_characters_max;
            let patch = node_patch(faults, &field, id.map(Id::as_str), node, &Mask::Populated, characters_max);
            match key {
                Some(Some(key)) => specs.push(NodeSpec { index, key, patch }),
                // What a document leaves out is as in a new organization.
                Some(None) => {
                    own = NodePatch {
                        display_name: Some(patch.display_name.unwrap_or_default()),
                        require_projects: Some(patch.require_projects.unwrap_or_default()),
                        access: Some(patch.access.unwrap_or(Access::AllowAll)),
                        gates: Some(patch.gates.unwrap_or_default()),
                    };
                }
                None => {}
            }
        }
        (own, specs)
    }

    fn read_groups(
        &self,
        faults: &mut Faults,
        id: Option<&Id>,
        groups: Vec<v1::AddressGroup>,
        ranges_omitted: bool,
    ) -> Vec<GroupSpec> {
        let mut specs = Vec::with_capacity(groups.len());
        for (index, group) in groups.into_iter().enumerate() {
            if faults.is_full() {
                break;
            }
            let field = format!("policy.address_groups[{index}]");
            let name = match (names::group(&group.name), id) {
                (Ok((of, _)), Some(id)) if of != *id => Err(format!("belongs to another organization than `{id}`")),
                (Ok((_, group)), _) => Ok(group),
                (Err(error), _) => Err(error.to_string()),
            };
            let characters_max = self.limits.description_characters_max;
            let description = faults.text(&format!("{field}.description"), &group.description, characters_max);
            if ranges_omitted && !group.ranges.is_empty() {
                let description = "are given, and the policy says that they are left out: clear `ranges_omitted`";
                faults.add(format!("{field}.ranges"), description);
            }
            let ranges: RangeList = faults.ranges(&format!("{field}.ranges"), 0, &group.ranges).into_iter().collect();
            match name {
                Ok(id) => {
                    let ranges = (!ranges_omitted).then(|| Arc::new(ranges));
                    specs.push(GroupSpec { id, description, ranges });
                }
                Err(description) => faults.add(format!("{field}.name"), description),
            }
        }
        specs
    }

    fn read_rules(&self, faults: &mut Faults, id: Option<&Id>, rules: Vec<v1::Rule>) -> Vec<(Id, RulePatch)> {
        let mut patches = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            if faults.is_full() {
                break;
            }
            let field = format!("policy.rules[{index}]");
            let name_field = format!("{field}.name");
            let rule_id = if rule.name.is_empty() {
                chosen_or_new_id(faults, &name_field, "", "rule")
            } else {
                rule_of(faults, &name_field, id, &rule.name)
            };
            let characters_max = self.limits.description_characters_max;
            let patch = rule_patch(faults, &field, id.map(Id::as_str), rule, &Mask::All, characters_max);
            patches.extend(rule_id.map(|id| (id, patch)));
        }
        patches
    }

    fn read_tests(&self, faults: &mut Faults, id: Option<&Id>, tests: Vec<v1::PolicyTest>) -> Vec<PolicyTest> {
        let mut read = Vec::with_capacity(tests.len());
        for (index, test) in tests.into_iter().enumerate() {
            if faults.is_full() {
                break;
            }
            let field = format!("policy.policy_tests[{index}]");
            let name_field = format!("{field}.name");
            let test_id = match names::policy_test(&test.name) {
                _ if test.name.is_empty() => String::new(),
                Ok((of, test_id)) if id.is_none_or(|id| *id == of) => test_id.to_string(),
                Ok(_) => {
                    faults.add(&name_field, "belongs to another organization");
                    String::new()
                }
                Err(error) => {
                    faults.add(&name_field, error.to_string());
                    String::new()
                }
            };
            let characters_max = self.limits.description_characters_max;
            read.extend(read_test(faults, &field, id, (&name_field, &test_id), test, characters_max));
        }
        read
    }
}

/// The key of a node of a document; the inner none is the organization itself, which comes first.
#[expect(clippy::option_option, reason = "the organization and an unreadable name are different answers")]
fn read_key(
    faults: &mut Faults,
    field: &str,
    organization: Option<&Id>,
    index: usize,
    name: &str,
) -> Option<Option<NodeKey>> {
    let fault = match names::node(name) {
        Ok(NodeName::Cluster) => "is not part of an organization: leave it out".to_owned(),
        Ok(NodeName::Organization(of) | NodeName::Below(of, _)) if organization.is_some_and(|id| *id != of) => {
            format!("`{name}` belongs to another organization")
        }
        Ok(NodeName::Organization(_)) if index > 0 => "comes first of all nodes: put it there".to_owned(),
        Ok(NodeName::Organization(_)) => return Some(None),
        Ok(NodeName::Below(_, key)) => return Some(Some(key)),
        Err(error) => error.to_string(),
    };
    faults.add(field, fault);
    None
}

/// The whole policy as the API shows it.
pub(super) fn to_policy(view: &OrganizationView, omit_ranges: bool) -> v1::Policy {
    let organization = &view.organization;
    let id = organization.id.as_str();
    let below = organization
        .nodes
        .iter()
        .map(|(key, node)| to_node(format!("organizations/{id}/{key}"), Some(id), organization.revision, node));
    let group = |group: &Arc<crate::policy::group::Group>| {
        let ranges = group.ranges().iter().map(|range| range.to_string());
        let ranges = if omit_ranges { Vec::new() } else { ranges.collect() };
        v1::AddressGroup { ranges, ..to_group(view, group) }
    };
    v1::Policy {
        organization: format!("organizations/{id}"),
        etag: etag_of_policy(organization.revision),
        revision: to_i64(organization.revision),
        nodes: std::iter::once(to_own_node(organization)).chain(below).collect(),
        address_groups: organization.groups.values().map(group).collect(),
        rules: organization.rules.iter().enumerate().map(|(place, rule)| to_rule(view, place, rule)).collect(),
        ranges_omitted: omit_ranges,
        policy_tests: organization.tests.iter().map(|test| to_test(id, test, None)).collect(),
    }
}
