//! What a policy file may hold: its keys, the kinds of their values, and the fields of the API that they become.
//!
//! Invariant: the tables here are the only place that names a key for reading; reading, checking, and finding the place of
//! a refused field all follow them.
//! Not here: checking values (`kinds`), walking a file (`walk`), the JSON Schema for editors, which a test compares with
//! these tables.

use super::yaml::Map;

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Free text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A number from 0 on.
    Count,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The organization.
    Organization,
    /// The id, or the full name, of what is in this collection of the organization.
    Id(&'static str),
    /// A node of the organization.
    Node,
    /// An address, CIDR notation, or `any`.
    Range,
    /// An address.
    Address,
    /// A time.
    Time,
    /// A list, of at most so many items.
    List(&'static Kind, usize),
    /// An object.
    Object(&'static Object),
}

/// A key of an object.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The field of the API; where it lies deeper, its path.
    pub(super) field: &'static str,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
}

/// An object with named keys.
pub(super) struct Object {
    /// What a message calls it.
    pub(super) what: &'static str,
    pub(super) keys: &'static [Key],
    /// Two keys of which there must be exactly one.
    pub(super) either: Option<(&'static str, &'static str)>,
    /// What the keys must be together: faults by the key that they stand at.
    pub(super) check: fn(&Map) -> Vec<(&'static str, &'static str)>,
}

impl Object {
    /// A key by its name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Whether an object can be without a key that it has: not advice to give where that would be refused.
    pub(super) fn may_lack(&self, key: &Key) -> bool {
        let is_either = self.either.is_some_and(|(one, other)| [one, other].contains(&key.name));
        // Groups have their ranges, unless the file says that they are left out.
        !key.is_required && !is_either && key.name != "ranges"
    }
}

/// Whether any object of a file has a key of this name.
pub(super) fn is_key(name: &str) -> bool {
    [&POLICY, &RULE, &GROUP, &NODE, &ENTRY, &GATES, &TEST].iter().any(|object| object.key(name).is_some())
}

/// The name that stands for the organization itself among the nodes.
pub(super) const ORGANIZATION: &str = "organization";

/// The words of rules' actions and of expected decisions.
pub(super) const DECISIONS: &[&str] = &["allow", "deny"];

/// The words of connection types.
pub(super) const CONNECTION_TYPES: &[&str] = &["shell", "preview"];

/// The words of access modes.
pub(super) const ACCESS_MODES: &[&str] = &["inherit", "allow-all", "allow-list"];

/// The keys of the sections, in the order of a file.
pub(super) const SECTIONS: &[&str] = &["rules", "groups", "nodes", "tests"];

/// The whole file.
pub(super) static POLICY: Object = Object {
    what: "a policy",
    keys: &[
        optional("organization", "organization", Kind::Organization),
        optional("ranges_omitted", "ranges_omitted", Kind::Flag),
        optional("rules", "rules", Kind::List(&Kind::Object(&RULE), usize::MAX)),
        optional("groups", "address_groups", Kind::List(&Kind::Object(&GROUP), usize::MAX)),
        optional("nodes", "nodes", Kind::List(&Kind::Object(&NODE), usize::MAX)),
        optional("tests", "policy_tests", Kind::List(&Kind::Object(&TEST), usize::MAX)),
    ],
    either: None,
    check: nothing,
};

static RULE: Object = Object {
    what: "a rule",
    keys: &[
        optional("id", "name", Kind::Id("rules")),
        required("action", "action", Kind::Word(DECISIONS)),
        optional("range", "range", Kind::Range),
        optional("group", "address_group", Kind::Id("addressGroups")),
        optional("types", "connection_types", Kind::List(&Kind::Word(CONNECTION_TYPES), usize::MAX)),
        optional("description", "description", Kind::Text),
        optional("disabled", "disabled", Kind::Flag),
        optional("expires", "expire_time", Kind::Time),
    ],
    either: Some(("range", "group")),
    check: nothing,
};

static GROUP: Object = Object {
    what: "a group",
    keys: &[
        required("id", "name", Kind::Id("addressGroups")),
        optional("description", "description", Kind::Text),
        optional("ranges", "ranges", Kind::List(&Kind::Range, usize::MAX)),
    ],
    either: None,
    check: nothing,
};

static NODE: Object = Object {
    what: "a node",
    keys: &[
        required("node", "name", Kind::Node),
        optional("display_name", "display_name", Kind::Text),
        optional("require_projects", "require_projects", Kind::Flag),
        optional("access", "access", Kind::Word(ACCESS_MODES)),
        optional("entries", "access.entries", Kind::List(&Kind::Object(&ENTRY), usize::MAX)),
        optional("gates", "change_gates", Kind::Object(&GATES)),
    ],
    either: None,
    check: check_node,
};

static ENTRY: Object = Object {
    what: "an entry",
    keys: &[
        optional("range", "range", Kind::Range),
        optional("group", "address_group", Kind::Id("addressGroups")),
        optional("description", "description", Kind::Text),
    ],
    either: Some(("range", "group")),
    check: nothing,
};

static GATES: Object = Object {
    what: "a set of gates",
    keys: &[
        optional("guard_ips", "guard_ips", Kind::List(&Kind::Address, GUARD_MAX)),
        optional("max_revocations", "max_revocations", Kind::Count),
        optional("refuse_open_to_internet", "refuse_open_to_internet", Kind::Flag),
    ],
    either: None,
    check: nothing,
};

static TEST: Object = Object {
    what: "a test",
    keys: &[
        optional("id", "name", Kind::Id("policyTests")),
        required("ip", "ip", Kind::Address),
        required("type", "connection_type", Kind::Word(CONNECTION_TYPES)),
        required("endpoint", "endpoint", Kind::Node),
        required("expect", "expected_decision", Kind::Word(DECISIONS)),
        optional("description", "description", Kind::Text),
        optional("until", "end_time", Kind::Time),
    ],
    either: None,
    check: nothing,
};

/// The most guarded addresses of the gates.
const GUARD_MAX: usize = portcullis_policy::gates::GUARD_MAX;

const fn optional(name: &'static str, field: &'static str, kind: Kind) -> Key {
    Key { name, field, kind, is_required: false }
}

const fn required(name: &'static str, field: &'static str, kind: Kind) -> Key {
    Key { name, field, kind, is_required: true }
}

fn nothing(_: &Map) -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

/// What depends on the level of the node, and on its mode.
fn check_node(node: &Map) -> Vec<(&'static str, &'static str)> {
    let mut faults = Vec::new();
    let mode = node.text("access");
    let is_known = mode.is_none_or(|mode| ACCESS_MODES.contains(&mode));
    if !node.items("entries").is_empty() && mode != Some("allow-list") && is_known {
        faults.push(("entries", "are for `access: allow-list` only: leave them out, or add it"));
    }
    let Some(name) = node.text("node") else { return faults };
    let depth = name.split('/').filter(|part| matches!(*part, "projects" | "workspaces" | "endpoints")).count();
    if depth < 2 && mode == Some("inherit") {
        faults.push(("access", "`inherit` is for workspaces and endpoints: write `allow-all` or `allow-list`"));
    }
    if depth > 0 && node.flag("require_projects") == Some(true) {
        faults.push(("require_projects", "is a setting of the organization: move it to the node `organization`"));
    }
    if depth > 0 && node.get("gates").is_some_and(|gates| gates.map().is_some_and(|gates| !gates.entries.is_empty())) {
        faults.push(("gates", "are kept with the organization: move them to the node `organization`"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
        let reference = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.trim_start_matches('#')));
        reference.unwrap_or(schema)
    }

    fn compare(root: &Value, schema: &Value, kind: &Kind, path: &str) {
        let schema = resolved(root, schema);
        match kind {
            Kind::Object(object) => {
                let named: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
                let mut known: Vec<&str> = object.keys.iter().map(|key| key.name).collect();
                known.sort_unstable();
                assert_eq!(named, known, "{path}");
                let required: Vec<&str> =
                    object.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
                let listed = schema["required"].as_array();
                let listed: Vec<_> = listed.into_iter().flatten().filter_map(Value::as_str).collect();
                assert_eq!(listed, required, "{path}");
                for key in object.keys {
                    compare(root, &schema["properties"][key.name], &key.kind, &format!("{path}.{}", key.name));
                }
            }
            Kind::List(item, max) => {
                assert_eq!(schema["type"], "array", "{path}");
                let listed = schema["maxItems"].as_u64().map_or(usize::MAX, |max| usize::try_from(max).unwrap());
                assert_eq!(listed, *max, "{path}");
                compare(root, &schema["items"], item, &format!("{path}[]"));
            }
            Kind::Word(words) => assert_eq!(schema["enum"], serde_json::json!(words), "{path}"),
            Kind::Flag => assert_eq!(schema["type"], "boolean", "{path}"),
            Kind::Count => assert_eq!(schema["type"], "integer", "{path}"),
            Kind::Time => assert_eq!(schema["format"], "date-time", "{path}"),
            Kind::Text | Kind::Organization | Kind::Id(_) | Kind::Node | Kind::Range | Kind::Address => {
                assert_eq!(schema["type"], "string", "{path}");
            }
        }
    }

    /// The hazard: an editor that marks what is right, or helps to write what is refused.
    #[test]
    fn the_json_schema_has_the_same_keys() {
        let schema: Value = serde_json::from_str(include_str!("schema.json")).unwrap();
        compare(&schema, &schema, &Kind::Object(&POLICY), "");
    }
}
