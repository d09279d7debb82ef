//! Reads a policy file: all of its faults, or the policy.
//!
//! Invariant: a file with a fault never becomes a request. A section that the file does not name is not in the request.
//! Not here: the schema (`schema`), finding faults (`walk`, `across`), the places of what a server refuses (`locations`).

use super::across;
use super::faults::Faults;
use super::kinds::full_name;
use super::locations::Locations;
use super::schema::{Kind, POLICY, SECTIONS};
use super::walk::{self, Use};
use super::yaml::{self, Map, Node, Position, Value};
use crate::error::UsageError;
use crate::names::OrganizationArgs;
use crate::times::parse_time;
use portcullis_proto::v1;

/// A policy, and where its parts stand in the file.
pub(crate) struct Read {
    pub(crate) policy: v1::Policy,
    pub(crate) locations: Locations,
}

/// The rules of a policy, and where they stand in the file.
#[derive(Default)]
pub(crate) struct ReadRules {
    pub(crate) rules: Vec<v1::Rule>,
    pub(crate) locations: Locations,
    /// Whether the file has more than rules.
    pub(crate) has_others: bool,
}

/// Reads the policy of the organization that `names` names.
pub(crate) fn policy(file: &str, text: &str, names: &OrganizationArgs) -> Result<Read, UsageError> {
    let mut faults = Faults::default();
    let yaml::Document { root, is_cut } = yaml::parse(text, &mut faults);
    if !is_cut {
        walk::check_sections(&root, &mut faults);
    }
    if !matches!(root.value, Value::Nothing) {
        walk::check(&root, &Kind::Object(&POLICY), "", names, &mut faults);
    }
    if let (Some(map), false) = (root.map(), is_cut) {
        across::check(map, names, &mut faults);
    }
    faults.into_result(file)?;
    let empty = Map::default();
    let policy = Reader { names }.policy(root.map().unwrap_or(&empty));
    Ok(Read { policy, locations: Locations::new(root, names) })
}

/// Reads the rules of a policy, or a list of rules in the same form.
pub(crate) fn rules(file: &str, text: &str, names: &OrganizationArgs) -> Result<ReadRules, UsageError> {
    let mut faults = Faults::default();
    let yaml::Document { root, is_cut } = yaml::parse(text, &mut faults);
    let is_list = matches!(root.value, Value::List(_));
    let has_rules = root.map().is_some_and(|map| map.entry("rules").is_some());
    if !is_list && !has_rules && !is_cut {
        let message = "there are no `rules` in it: write them, or `rules: []` to delete all rules";
        faults.add(Position { line: 1, column: 1 }, "", message);
    }
    if is_list {
        // The list of rules is the value of the key in a whole policy.
        if let Some(key) = POLICY.key("rules") {
            walk::check_as(&root, &key.kind, "rules", Use::Rules, names, &mut faults);
        }
    } else if !matches!(root.value, Value::Nothing) {
        walk::check_as(&root, &Kind::Object(&POLICY), "", Use::Rules, names, &mut faults);
    }
    let root = if is_list { as_document(root) } else { root };
    if let (Some(map), false) = (root.map(), is_cut) {
        across::check_rules(map, names, &mut faults);
    }
    faults.into_result(file)?;
    let others = SECTIONS.iter().filter(|section| **section != "rules");
    let has_others = root.map().is_some_and(|map| others.into_iter().any(|section| !map.items(section).is_empty()));
    let reader = Reader { names };
    let rules = root.map().map_or(&[][..], |map| map.items("rules")).iter().map(|rule| reader.rule(rule)).collect();
    Ok(ReadRules { rules, locations: Locations::new(root, names), has_others })
}

/// A list of rules as the document that holds them.
fn as_document(list: Node) -> Node {
    let at = list.at;
    let entry = yaml::Entry { at, key: "rules".into(), value: list };
    Node { at, value: Value::Map(Map { entries: vec![entry], is_cut: false }) }
}

/// Makes messages of a file that has no faults.
struct Reader<'a> {
    names: &'a OrganizationArgs,
}

impl Reader<'_> {
    fn policy(&self, map: &Map) -> v1::Policy {
        let (own, below): (Vec<_>, Vec<_>) =
            map.items("nodes").iter().map(|node| self.node(node)).partition(|node| node.name == self.names.name());
        let sections = [
            ("rules", v1::PolicySection::Rules),
            ("groups", v1::PolicySection::AddressGroups),
            ("nodes", v1::PolicySection::Nodes),
            ("tests", v1::PolicySection::PolicyTests),
        ];
        let named = sections.into_iter().filter(|(key, _)| map.entry(key).is_some());
        v1::Policy {
            organization: self.names.name(),
            // The organization itself comes first: `locations` knows.
            nodes: own.into_iter().chain(below).collect(),
            address_groups: map.items("groups").iter().map(|group| self.group(group)).collect(),
            rules: map.items("rules").iter().map(|rule| self.rule(rule)).collect(),
            ranges_omitted: map.flag("ranges_omitted").unwrap_or_default(),
            policy_tests: map.items("tests").iter().map(|test| self.test(test)).collect(),
            sections: named.map(|(_, section)| section.into()).collect(),
            ..v1::Policy::default()
        }
    }

    fn rule(&self, node: &Node) -> v1::Rule {
        let Some(map) = node.map() else { return v1::Rule::default() };
        let action = if map.text("action") == Some("deny") { v1::Action::Deny } else { v1::Action::Allow };
        let range = map.text("range").map(|range| v1::rule::Source::Range(range.to_owned()));
        let group = || map.text("group").map(|group| v1::rule::Source::AddressGroup(self.names.group(group)));
        v1::Rule {
            name: map.text("id").map(|id| self.names.rule(id)).unwrap_or_default(),
            action: action.into(),
            source: range.or_else(group),
            connection_types: map.items("types").iter().filter_map(Node::text).map(connection_type).collect(),
            description: owned(map, "description"),
            disabled: map.flag("disabled").unwrap_or_default(),
            expire_time: map.text("expires").and_then(|time| parse_time(time).ok()),
            ..v1::Rule::default()
        }
    }

    fn group(&self, node: &Node) -> v1::AddressGroup {
        let Some(map) = node.map() else { return v1::AddressGroup::default() };
        v1::AddressGroup {
            name: map.text("id").map(|id| self.names.group(id)).unwrap_or_default(),
            description: owned(map, "description"),
            ranges: texts(map, "ranges"),
            ..v1::AddressGroup::default()
        }
    }

    fn node(&self, node: &Node) -> v1::Node {
        let Some(map) = node.map() else { return v1::Node::default() };
        let mode = map.text("access").map(|mode| match mode {
            "allow-all" => v1::AccessMode::AllowAll,
            "allow-list" => v1::AccessMode::AllowList,
            _ => v1::AccessMode::Inherit,
        });
        let entries = || map.items("entries").iter().map(|entry| self.entry(entry)).collect();
        let gates = map.get("gates").and_then(Node::map).map(|gates| v1::ChangeGates {
            guard_ips: texts(gates, "guard_ips"),
            max_revocations: gates.text("max_revocations").and_then(|count| count.parse().ok()),
            refuse_open_to_internet: gates.flag("refuse_open_to_internet").unwrap_or_default(),
        });
        v1::Node {
            name: full_name(map.text("node").unwrap_or_default(), self.names),
            display_name: owned(map, "display_name"),
            require_projects: map.flag("require_projects"),
            access: mode.map(|mode| v1::Access { mode: mode.into(), entries: entries() }),
            change_gates: gates,
            ..v1::Node::default()
        }
    }

    fn entry(&self, node: &Node) -> v1::AccessEntry {
        let Some(map) = node.map() else { return v1::AccessEntry::default() };
        let range = map.text("range").map(|range| v1::access_entry::Source::Range(range.to_owned()));
        let group = || map.text("group").map(|group| v1::access_entry::Source::AddressGroup(self.names.group(group)));
        v1::AccessEntry { description: owned(map, "description"), source: range.or_else(group) }
    }

    fn test(&self, node: &Node) -> v1::PolicyTest {
        let Some(map) = node.map() else { return v1::PolicyTest::default() };
        let expected = if map.text("expect") == Some("allow") { v1::Decision::Allow } else { v1::Decision::Deny };
        v1::PolicyTest {
            name: map.text("id").map(|id| self.names.test(id)).unwrap_or_default(),
            ip: owned(map, "ip"),
            connection_type: map.text("type").map(connection_type).unwrap_or_default(),
            endpoint: full_name(map.text("endpoint").unwrap_or_default(), self.names),
            expected_decision: expected.into(),
            description: owned(map, "description"),
            end_time: map.text("until").and_then(|time| parse_time(time).ok()),
            ..v1::PolicyTest::default()
        }
    }
}

fn connection_type(word: &str) -> i32 {
    if word == "preview" { v1::ConnectionType::Preview.into() } else { v1::ConnectionType::Shell.into() }
}

fn owned(map: &Map, key: &str) -> String {
    map.text(key).unwrap_or_default().to_owned()
}

fn texts(map: &Map, key: &str) -> Vec<String> {
    map.items(key).iter().filter_map(Node::text).map(str::to_owned).collect()
}
