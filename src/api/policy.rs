//! The whole policy of an organization in one message: exporting and applying it.
//!
//! Invariant: applying what was exported changes nothing.
//! Not here: what applying a document changes (`policy::plan`).

use std::sync::Arc;

use prost::Message;
use tonic::{Response, Status};

use super::caller::Caller;
use super::convert::names::{self, NodeName, organization};
use super::convert::node::{patch as node_patch, to_node, to_own_node};
use super::convert::options::Mask;
use super::convert::policy_test::{read_test, to_test};
use super::convert::reader::{ReadChange, Reader};
use super::convert::rule::{to_group, to_rule};
use super::convert::{Faults, audit};
use super::differences::fitting_changes;
use super::rules::read_rules;
use super::{ANSWER_BYTES_MAX, Api, at_revision, status, to_i64};
use crate::engine::Engine;
use crate::engine::directory::OrganizationView;
use crate::policy::document::{Document, GroupSpec, NodeSpec, TestSpec};
use crate::policy::name::{Id, Name, NodeKey};
use crate::policy::node::NodePatch;
use crate::policy::plan::{Etags, Mutation};
use crate::policy::ranges::RangeList;
use crate::proto::v1;
use crate::proto::v1::PolicySection as Section;

/// Every section of a policy.
const SECTIONS: [Section; 4] = [Section::Rules, Section::AddressGroups, Section::Nodes, Section::PolicyTests];

impl Api {
    pub(super) fn export_policy(&self, request: v1::ExportPolicyRequest) -> Result<Response<v1::Policy>, Status> {
        let v1::ExportPolicyRequest { parent, omit_ranges } = request;
        let published = self.published(&names::parent(&parent)?)?;
        let policy = to_policy(self.etags()?, &published.view, omit_ranges);
        if policy.encoded_len() > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large("export it with `omit_ranges`, or list its parts"));
        }
        Ok(at_revision(policy, published.view.organization.revision))
    }

    pub(super) async fn apply_policy(
        &self,
        caller: Caller,
        request: v1::ApplyPolicyRequest,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        let changed = self.make(caller, self.read_apply_policy(request)).await?;
        let (before, after, revision) = (changed.before, changed.view.organization, changed.revision);
        let cluster = self.engine()?.directory().cluster();
        let (engine, now, etags) = (Arc::clone(self.engine()?), self.engine()?.clock().now(), changed.etags);
        let answer = self.shared.heavy.run(move || {
            let altered = before.map(|before| Engine::alterations(&before, &after));
            let altered = audit::object_changes(etags, &altered.unwrap_or_default(), Some(&after.id), revision);
            let (altered, altered_cut) = fitting_changes(altered);
            let (problems, cut) = super::problems::of_organization(&engine, &after, &cluster.cluster, now);
            v1::ApplyPolicyResponse {
                revision: to_i64(revision),
                etag: etags.policy(revision),
                changes: altered,
                problems,
                truncated: altered_cut || cut,
            }
        });
        Ok(at_revision(answer.await?, revision))
    }

    pub(super) fn read_apply_policy(&self, request: v1::ApplyPolicyRequest) -> ReadChange {
        let v1::ApplyPolicyRequest { parent, policy, validate_only, etag, force, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        read.options.validate_only |= validate_only;
        let id = organization(&mut read, "parent", &parent);
        if policy.is_none() {
            read.add("policy", "is required: give the policy that the organization is to have");
        }
        let document = policy.map(|policy| read_policy(&mut read, id.as_ref(), &parent, policy));
        let mutation = document.map(|document| Mutation::ReplacePolicy {
            document: Box::new(document),
            etag,
            goes_back: false,
            force,
        });
        read.change_inside(id, mutation)
    }
}

fn read_policy(read: &mut Reader, id: Option<&Id>, parent: &str, policy: v1::Policy) -> Document {
    let v1::Policy {
        organization,
        etag: _,
        revision: _,
        nodes,
        address_groups,
        rules,
        ranges_omitted,
        policy_tests,
        sections,
    } = policy;
    if !organization.is_empty() && organization != parent {
        let description = format!("`{organization}` is not `{parent}`: apply the policy of the same organization");
        read.add("policy.organization", description);
    }
    let sections = Sections::read(read, &sections);
    let nodes = sections.of(read, Section::Nodes, nodes).map(|nodes| read_nodes(read, id, nodes));
    let groups = sections.of(read, Section::AddressGroups, address_groups);
    let groups = groups.map(|groups| read_groups(read, id, groups, ranges_omitted));
    let rules = sections.of(read, Section::Rules, rules);
    let rules = rules.map(|rules| read_rules(read, "policy.rules", id, rules));
    let tests = sections.of(read, Section::PolicyTests, policy_tests).map(|tests| read_tests(read, id, tests));
    if read.is_full() {
        // What was read no further must not be judged as if it were all.
        return Document::default();
    }
    let (own, nodes) = nodes.unzip();
    Document { own: own.unwrap_or_default(), nodes, groups, rules, tests }
}

/// The sections that a policy names; none where it leaves that to its objects.
struct Sections(Option<Vec<Section>>);

impl Sections {
    fn read(read: &mut Reader, named: &[i32]) -> Self {
        let section = |(index, section): (usize, &i32)| {
            let field = format!("policy.sections[{index}]");
            let known = |section| (section != Section::Unspecified).then_some(section);
            let advice = "use POLICY_SECTION_RULES, POLICY_SECTION_ADDRESS_GROUPS, POLICY_SECTION_NODES or \
                          POLICY_SECTION_POLICY_TESTS";
            read.choice(&field, *section, known, "section of a policy", advice)
        };
        let sections: Vec<Section> = named.iter().enumerate().filter_map(section).collect();
        // Of a name that could not be read, nothing follows about the objects.
        let is_read = sections.len() == named.len();
        Self((!named.is_empty() && is_read).then_some(sections))
    }

    /// The objects of a section; none where the policy does not have it.
    fn of<T>(&self, faults: &mut Faults, section: Section, objects: Vec<T>) -> Option<Vec<T>> {
        match &self.0 {
            None => (!objects.is_empty()).then_some(objects),
            Some(sections) if sections.contains(&section) => Some(objects),
            Some(_) if objects.is_empty() => None,
            Some(_) => {
                let name = section.as_str_name();
                let field = match section {
                    Section::Unspecified => "",
                    Section::Rules => "rules",
                    Section::AddressGroups => "address_groups",
                    Section::Nodes => "nodes",
                    Section::PolicyTests => "policy_tests",
                };
                let description =
                    format!("are given, and `sections` does not name them: name {name}, or leave them out");
                faults.add(format!("policy.{field}"), description);
                Some(objects)
            }
        }
    }
}

fn read_nodes(read: &mut Reader, id: Option<&Id>, nodes: Vec<v1::Node>) -> (NodePatch, Vec<NodeSpec>) {
    let (mut own, mut specs) = (NodePatch::default(), Vec::with_capacity(nodes.len()));
    for (index, node) in nodes.into_iter().enumerate() {
        if read.is_full() {
            break;
        }
        let field = format!("policy.nodes[{index}]");
        let key = read_key(read, &format!("{field}.name"), id, index, &node.name);
        let patch = node_patch(read, &field, id.map(Id::as_str), node, &Mask::Populated);
        match key {
            Some(Some(key)) => specs.push(NodeSpec { index, key, patch }),
            Some(None) => own = patch,
            None => {}
        }
    }
    (own, specs)
}

fn read_groups(
    read: &mut Reader,
    id: Option<&Id>,
    groups: Vec<v1::AddressGroup>,
    ranges_omitted: bool,
) -> Vec<GroupSpec> {
    let mut specs = Vec::with_capacity(groups.len());
    for (index, group) in groups.into_iter().enumerate() {
        if read.is_full() {
            break;
        }
        let field = format!("policy.address_groups[{index}]");
        let name = match (names::group(&group.name), id) {
            (Ok((of, _)), Some(id)) if of != *id => {
                Err(format!("`{}` belongs to another organization than `{id}`", group.name))
            }
            (Ok((_, group)), _) => Ok(group),
            (Err(error), _) => Err(error.to_string()),
        };
        let description = read.description(&format!("{field}.description"), &group.description);
        if ranges_omitted && !group.ranges.is_empty() {
            let description = "are given, and the policy says that they are left out: clear `ranges_omitted`";
            read.add(format!("{field}.ranges"), description);
        }
        let ranges: RangeList = read.ranges(&format!("{field}.ranges"), 0, &group.ranges).into_iter().collect();
        match name {
            Ok(id) => {
                let ranges = (!ranges_omitted).then(|| Arc::new(ranges));
                specs.push(GroupSpec { index, id, description, ranges });
            }
            Err(description) => read.add(format!("{field}.name"), description),
        }
    }
    specs
}

fn read_tests(read: &mut Reader, id: Option<&Id>, tests: Vec<v1::PolicyTest>) -> Vec<TestSpec> {
    let mut specs = Vec::with_capacity(tests.len());
    for (index, test) in tests.into_iter().enumerate() {
        if read.is_full() {
            break;
        }
        let field = format!("policy.policy_tests[{index}]");
        let name_field = format!("{field}.name");
        let named = if test.name.is_empty() { None } else { read.note(&name_field, names::policy_test(&test.name)) };
        let test_id = match named {
            Some((of, _)) if id.is_some_and(|id| *id != of) => {
                read.add(&name_field, format!("`{}` belongs to another organization", test.name));
                String::new()
            }
            named => named.map(|(_, test_id)| test_id.to_string()).unwrap_or_default(),
        };
        specs.extend(read_test(read, &field, id, (&name_field, &test_id), (index, test)));
    }
    specs
}

/// Reads the key of a node of a document. The inner `None` stands for the organization itself, which comes first.
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
pub(super) fn to_policy(etags: Etags, view: &OrganizationView, omit_ranges: bool) -> v1::Policy {
    let organization = &view.organization;
    let id = organization.id.as_str();
    let below = organization
        .nodes
        .iter()
        .map(|(key, node)| to_node(etags, Name::node(id, key).to_string(), Some(id), organization.revision, node));
    // Having no gates is said, so that applying the policy takes newer ones away.
    let own = to_own_node(etags, organization);
    let own = v1::Node { change_gates: Some(own.change_gates.unwrap_or_default()), ..own };
    let group = |group: &Arc<crate::policy::group::Group>| {
        let ranges = group.ranges().iter().map(|range| range.to_string());
        let ranges = if omit_ranges { Vec::new() } else { ranges.collect() };
        v1::AddressGroup { ranges, ..to_group(etags, view, group) }
    };
    v1::Policy {
        organization: Name::organization(id).to_string(),
        etag: etags.policy(organization.revision),
        revision: to_i64(organization.revision),
        nodes: std::iter::once(own).chain(below).collect(),
        address_groups: organization.groups.values().map(group).collect(),
        rules: organization.rules.iter().enumerate().map(|(index, rule)| to_rule(etags, view, index, rule)).collect(),
        ranges_omitted: omit_ranges,
        policy_tests: organization.tests.iter().map(|test| to_test(id, test, None)).collect(),
        sections: SECTIONS.map(i32::from).to_vec(),
    }
}
