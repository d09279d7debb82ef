//! Reads a policy file, and remembers the line and column of each value.
//!
//! Invariant: a location is kept under the path that the value has in the request.
//! Not here: the schema (`document`).

use std::collections::HashMap;

use portcullis_client::CallError;
use serde::de::DeserializeOwned;
use serde_saphyr::{Location, Spanned};

use super::document::{Document, Entry, Gates, Group, Node, ORGANIZATION, Rule, Test};
use crate::error::{UsageError, with_fields};
use crate::names::{OrganizationArgs, organization};
use crate::times::parse_time;
use crate::words::{AccessMode, ConnectionType};
use portcullis_proto::v1;

/// Far more than a policy within the limits has; the default of the parser is a million.
const EVENTS_MAX: usize = 20_000_000;

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

/// Line and column of the parts of a policy, by their paths in it.
#[derive(Default)]
pub(crate) struct Locations {
    by_path: HashMap<String, (u64, u64)>,
}

impl Locations {
    fn note(&mut self, path: impl Into<String>, location: Location) {
        self.by_path.insert(path.into(), (location.line(), location.column()));
    }

    /// Names refused fields by their line and column in the file. `prefix` is the path of the policy in the request.
    pub(crate) fn locate(&self, error: CallError, file: &str, prefix: &str) -> CallError {
        with_fields(error, |field| {
            let within = field.strip_prefix(prefix)?;
            let (line, column) = self.find(within)?;
            Some(format!("{file}:{line}:{column}: {within}"))
        })
    }

    /// The location of a path, or of the nearest part that it is in.
    fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = path;
        loop {
            if let Some(location) = self.by_path.get(path) {
                return Some(*location);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// Reads the policy of the organization that `names` names.
pub(crate) fn policy(file: &str, text: &str, names: &OrganizationArgs) -> Result<Read, UsageError> {
    Reader::new(file, names).read(parse(file, text)?)
}

/// Reads the rules of a policy, or a list of rules in the same form.
pub(crate) fn rules(file: &str, text: &str, names: &OrganizationArgs) -> Result<ReadRules, UsageError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "---");
    let is_list = lines.take(1).any(|line| line.starts_with(['-', '[']));
    let document: Document =
        if is_list { Document { rules: Some(parse(file, text)?), ..Document::default() } } else { parse(file, text)? };
    if document.rules.is_none() {
        return Err(UsageError(format!("{file}: there are no `rules` in it: write `rules: []` to delete all rules")));
    }
    let has_others = !(document.groups.is_empty() && document.nodes.is_empty() && document.tests.is_empty());
    let Read { policy, locations } = Reader::new(file, names).read(document)?;
    Ok(ReadRules { rules: policy.rules, locations, has_others })
}

fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, UsageError> {
    let mut options = serde_saphyr::Options::default();
    if let Some(budget) = &mut options.budget {
        budget.max_events = EVENTS_MAX;
        budget.max_nodes = EVENTS_MAX;
        budget.max_total_scalar_bytes = usize::MAX;
    }
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location().filter(|location| location.line() > 0);
        let location = location.map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        UsageError(format!("{file}{location}: {}", error.without_snippet()))
    })
}

struct Reader<'a> {
    file: &'a str,
    names: &'a OrganizationArgs,
    parent: String,
    locations: Locations,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, names: &'a OrganizationArgs) -> Self {
        Self { file, names, parent: names.name(), locations: Locations::default() }
    }

    fn read(mut self, document: Document) -> Result<Read, UsageError> {
        let Document { organization: given, ranges_omitted, rules, groups, nodes, tests } = document;
        if let Some(given) = given {
            let named = organization(&given.value);
            if named != self.parent {
                let message = format!(
                    "the file is for `{named}`, not for `{}`: name the organization with `--organization`",
                    self.parent
                );
                return Err(self.fault(&given.referenced, &message));
            }
        }
        let rules = rules.into_iter().flatten();
        let rules = rules.enumerate().map(|(index, rule)| self.rule(index, rule)).collect::<Result<_, _>>()?;
        let address_groups = groups.into_iter().enumerate().map(|(index, group)| self.group(index, group)).collect();
        let nodes = self.nodes(nodes)?;
        let policy_tests = tests.into_iter().enumerate().map(|(index, test)| self.test(index, test)).collect();
        let policy = v1::Policy {
            organization: self.parent.clone(),
            nodes,
            address_groups,
            rules,
            ranges_omitted,
            policy_tests,
            ..v1::Policy::default()
        };
        Ok(Read { policy, locations: self.locations })
    }

    fn fault(&self, at: &Location, message: &str) -> UsageError {
        UsageError(format!("{}:{}:{}: {message}", self.file, at.line(), at.column()))
    }

    /// Takes the value out, and notes its location.
    fn taken<T>(&mut self, path: String, value: Spanned<T>) -> T {
        self.locations.note(path, value.referenced);
        value.value
    }

    fn rule(&mut self, index: usize, rule: Spanned<Rule>) -> Result<v1::Rule, UsageError> {
        let path = format!("rules[{index}]");
        let at = rule.referenced;
        let Rule { id, action, range, group, types, description, disabled, expires } = self.taken(path.clone(), rule);
        if range.is_some() && group.is_some() {
            return Err(self.fault(&at, "a rule has a `range` or a `group`, not both"));
        }
        let expire_time = match expires {
            None => None,
            Some(expires) => {
                let at = expires.referenced;
                let text = self.taken(format!("{path}.expire_time"), expires);
                Some(
                    parse_time(&text)
                        .map_err(|advice| self.fault(&at, &format!("`{text}` is not a time: {advice}")))?,
                )
            }
        };
        let source = match (range, group) {
            (Some(range), _) => Some(v1::rule::Source::Range(self.taken(format!("{path}.range"), range))),
            (None, Some(group)) => {
                let group = self.taken(format!("{path}.address_group"), group);
                Some(v1::rule::Source::AddressGroup(self.names.group(&group)))
            }
            (None, None) => None,
        };
        let id = id.map(|id| self.taken(format!("{path}.name"), id));
        Ok(v1::Rule {
            name: id.map(|id| self.names.rule(&id)).unwrap_or_default(),
            action: v1::Action::from(action).into(),
            source,
            connection_types: types.into_iter().map(connection_type).collect(),
            description,
            disabled,
            expire_time,
            ..v1::Rule::default()
        })
    }

    fn group(&mut self, index: usize, group: Spanned<Group>) -> v1::AddressGroup {
        let path = format!("address_groups[{index}]");
        let Group { id, description, ranges } = self.taken(path.clone(), group);
        let id = self.taken(format!("{path}.name"), id);
        let ranges = ranges.into_iter().enumerate();
        let ranges = ranges.map(|(at, range)| self.taken(format!("{path}.ranges[{at}]"), range)).collect();
        v1::AddressGroup { name: self.names.group(&id), description, ranges, ..v1::AddressGroup::default() }
    }

    /// The nodes, the organization itself first.
    fn nodes(&mut self, nodes: Vec<Spanned<Node>>) -> Result<Vec<v1::Node>, UsageError> {
        let is_own = |node: &Spanned<Node>| node.value.name.value == ORGANIZATION;
        let (mut own, mut below): (Vec<_>, Vec<_>) = nodes.into_iter().partition(is_own);
        if let Some(second) = own.get(1) {
            return Err(
                self.fault(&second.referenced, "the organization is listed twice among the nodes: merge the two")
            );
        }
        let given = own.pop();
        // If there are projects, a check must name an existing one, unless the file says otherwise: or a made-up name
        // would skip their allowlists.
        let require = !below.is_empty();
        let mut read = vec![match given {
            Some(node) => self.node(0, node, Some(require))?,
            None => v1::Node { name: self.parent.clone(), require_projects: Some(require), ..v1::Node::default() },
        }];
        for (index, node) in (1..).zip(below.drain(..)) {
            read.push(self.node(index, node, None)?);
        }
        Ok(read)
    }

    fn node(&mut self, index: usize, node: Spanned<Node>, require: Option<bool>) -> Result<v1::Node, UsageError> {
        let path = format!("nodes[{index}]");
        let at = node.referenced;
        let Node { name, display_name, require_projects, access, entries, gates } = self.taken(path.clone(), node);
        let name = self.taken(format!("{path}.name"), name);
        if access != Some(AccessMode::AllowList) && !entries.is_empty() {
            return Err(self.fault(&at, "`entries` need `access: allow-list`"));
        }
        let entries = entries.into_iter().enumerate().map(|(entry, value)| self.entry(&path, entry, value));
        let entries: Vec<v1::AccessEntry> = entries.collect::<Result<_, _>>()?;
        let access = access.map(|access| v1::Access { mode: v1::AccessMode::from(access).into(), entries });
        Ok(v1::Node {
            name: self.node_name(&name),
            display_name,
            require_projects: require_projects.or(require),
            access,
            change_gates: gates.map(|gates| self.gates(&path, gates)),
            ..v1::Node::default()
        })
    }

    fn node_name(&self, given: &str) -> String {
        match given {
            ORGANIZATION => self.parent.clone(),
            _ if given.starts_with("organizations/") => given.to_owned(),
            _ => format!("{}/{given}", self.parent),
        }
    }

    fn entry(&mut self, node: &str, index: usize, entry: Spanned<Entry>) -> Result<v1::AccessEntry, UsageError> {
        let path = format!("{node}.access.entries[{index}]");
        let at = entry.referenced;
        let Entry { range, group, description } = self.taken(path.clone(), entry);
        let source = match (range, group) {
            (Some(_), Some(_)) => return Err(self.fault(&at, "an entry has a `range` or a `group`, not both")),
            (Some(range), None) => Some(v1::access_entry::Source::Range(self.taken(format!("{path}.range"), range))),
            (None, Some(group)) => {
                let group = self.taken(format!("{path}.address_group"), group);
                Some(v1::access_entry::Source::AddressGroup(self.names.group(&group)))
            }
            (None, None) => None,
        };
        Ok(v1::AccessEntry { description, source })
    }

    fn gates(&mut self, node: &str, gates: Spanned<Gates>) -> v1::ChangeGates {
        let path = format!("{node}.change_gates");
        let Gates { guard_ips, max_revocations, refuse_open_to_internet } = self.taken(path.clone(), gates);
        let guard_ips = guard_ips.into_iter().enumerate();
        let guard_ips = guard_ips.map(|(index, ip)| self.taken(format!("{path}.guard_ips[{index}]"), ip)).collect();
        v1::ChangeGates { guard_ips, max_revocations, refuse_open_to_internet }
    }

    fn test(&mut self, index: usize, test: Spanned<Test>) -> v1::PolicyTest {
        let path = format!("policy_tests[{index}]");
        let Test { id, ip, connection_type: of, endpoint, expect, description } = self.taken(path.clone(), test);
        let id = id.map(|id| self.taken(format!("{path}.name"), id));
        let endpoint = self.taken(format!("{path}.endpoint"), endpoint);
        v1::PolicyTest {
            name: id.map(|id| self.names.test(&id)).unwrap_or_default(),
            ip: self.taken(format!("{path}.ip"), ip),
            connection_type: connection_type(of),
            endpoint: self.node_name(&endpoint),
            expected_decision: v1::Decision::from(expect).into(),
            description,
            ..v1::PolicyTest::default()
        }
    }
}

fn connection_type(typed: ConnectionType) -> i32 {
    v1::ConnectionType::from(typed).into()
}
