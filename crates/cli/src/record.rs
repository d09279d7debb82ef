//! An audit record as a flat row of facts, for lines, tables and CSV.
//!
//! Invariant: a fact is in the same field for every type of record, and empty if the type does not have it. Texts are
//! as recorded, not yet safe for a terminal or a spreadsheet.
//! Not here: the whole record, which only JSON has.

use super::difference::Told;
use super::names::id;
use super::{settings, table};
use portcullis_proto::v1;
use portcullis_proto::v1::audit_record::Content;
use portcullis_proto::v1::policy_object::Object;

/// How many changed objects a summary names.
const OBJECTS_NAMED: usize = 3;

/// How many characters of a rule's description a line or a table shows.
const DESCRIPTION_SHOWN: usize = 48;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Allow,
    Deny,
    Ended,
    Revoked,
    Changed,
    Gap,
    Pruned,
    Erased,
    Clock,
    Key,
    Restored,
    /// Of a type that this program does not know.
    Other,
}

/// The facts of a record.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) decision: String,
    /// The reason of the decision or of the revocation.
    pub(super) reason: String,
    pub(super) ip: String,
    pub(super) user_email: String,
    pub(super) connection_type: String,
    pub(super) endpoint: String,
    /// The rule that decided, that allowed the session, or that revoked it.
    pub(super) rule: String,
    /// The range of that rule, or the full name of its group, as it was; only where it denied or revoked.
    pub(super) rule_source: String,
    /// The description of that rule, as it was; only where it denied or revoked.
    pub(super) rule_description: String,
    /// The node whose access denied or revoked.
    pub(super) node: String,
    pub(super) session: String,
    pub(super) revision: String,
    pub(super) cluster_revision: String,
    pub(super) decision_id: String,
    pub(super) request_id: String,
    pub(super) end_reason: String,
    pub(super) actor: String,
    pub(super) comment: String,
    /// What was changed, is missing or was removed, in a few words.
    pub(super) detail: String,
}

impl Kind {
    pub(super) fn of(record: &v1::AuditRecord) -> Self {
        match (record.r#type(), &record.content) {
            (v1::AuditType::Decision, Some(Content::Decision(decision))) => match decision.decision() {
                v1::Decision::Allow => Self::Allow,
                v1::Decision::Deny | v1::Decision::Unspecified => Self::Deny,
            },
            (v1::AuditType::SessionEnded, _) => Self::Ended,
            (v1::AuditType::SessionRevoked, _) => Self::Revoked,
            (v1::AuditType::PolicyChanged, _) => Self::Changed,
            (v1::AuditType::Gap, _) => Self::Gap,
            (v1::AuditType::Pruned, _) => Self::Pruned,
            (v1::AuditType::Erased, _) => Self::Erased,
            (v1::AuditType::ClockChanged, _) => Self::Clock,
            (v1::AuditType::KeyChanged, _) => Self::Key,
            (v1::AuditType::Restored, _) => Self::Restored,
            (v1::AuditType::Decision | v1::AuditType::Unspecified, _) => Self::Other,
        }
    }

    /// The word, at most seven letters.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Ended => "ENDED",
            Self::Revoked => "REVOKED",
            Self::Changed => "CHANGED",
            Self::Gap => "GAP",
            Self::Pruned => "PRUNED",
            Self::Erased => "ERASED",
            Self::Clock => "CLOCK",
            Self::Key => "KEY",
            Self::Restored => "RESTORE",
            Self::Other => "OTHER",
        }
    }
}

impl Facts {
    pub(super) fn of(record: &v1::AuditRecord) -> Self {
        match &record.content {
            Some(Content::Decision(decision)) => Self::of_decision(decision),
            Some(Content::Session(session)) => Self::of_session(session, record.r#type()),
            Some(Content::PolicyChange(change)) => Self {
                revision: number(change.revision),
                actor: change.actor.clone(),
                comment: change.comment.clone(),
                detail: summary(&change.changes),
                ..Self::default()
            },
            Some(Content::Gap(gap)) => Self { detail: missing(gap), ..Self::default() },
            Some(Content::Pruned(pruned)) => {
                Self { detail: format!("records up to {} were removed", pruned.to_sequence), ..Self::default() }
            }
            Some(Content::Erased(erased)) => Self {
                actor: erased.actor.clone(),
                detail: match erased.opening_count {
                    1 => "1 opening was removed".to_owned(),
                    count => format!("{count} openings were removed"),
                },
                ..Self::default()
            },
            Some(Content::ClockChange(change)) => {
                let (from, to) = (table::time(change.from_time.as_ref()), table::time(change.to_time.as_ref()));
                let detail = match change.cause() {
                    v1::ClockChangeCause::Start => {
                        format!("a start leapt from {from} to {to}, which nothing confirms yet")
                    }
                    v1::ClockChangeCause::Confirmation => format!("the time from {from} to {to} has passed"),
                    _ => format!("the time was corrected from {from} to {to}"),
                };
                Self { detail, ..Self::default() }
            }
            Some(Content::KeyChange(change)) => {
                let detail = match change.previous_key.as_str() {
                    "" => format!("signed by {} from here on", change.key),
                    previous => format!("signed by {} from here on, before by {previous}", change.key),
                };
                Self { detail, ..Self::default() }
            }
            Some(Content::Restored(restored)) => {
                let detail = format!(
                    "restored from a backup of lineage {}: what came after it is lost",
                    restored.previous_lineage
                );
                Self { detail, ..Self::default() }
            }
            None => Self::default(),
        }
    }

    fn of_decision(decision: &v1::DecisionRecord) -> Self {
        Self {
            decision: table::word(decision.decision().as_str_name(), "DECISION_"),
            reason: reason(decision.reason()),
            ip: decision.ip.clone(),
            user_email: decision.user_email.clone(),
            connection_type: table::connection_type(decision.connection_type),
            endpoint: decision.endpoint.clone(),
            rule: decision.rule.clone(),
            rule_source: decision.rule_source.clone(),
            rule_description: decision.rule_description.clone(),
            node: decision.node.clone(),
            session: decision.session.clone(),
            revision: number(decision.revision),
            cluster_revision: number(decision.cluster_revision),
            decision_id: decision.decision_id.clone(),
            request_id: decision.request_id.clone(),
            ..Self::default()
        }
    }

    /// A revoked session has the rule or node that revoked it, an ended one the rule that allowed it.
    fn of_session(session: &v1::Session, audit_type: v1::AuditType) -> Self {
        let facts = Self {
            ip: session.ip.clone(),
            user_email: session.user_email.clone(),
            connection_type: table::connection_type(session.connection_type),
            endpoint: session.endpoint.clone(),
            session: session.name.clone(),
            end_reason: end_reason(session),
            ..Self::default()
        };
        if audit_type == v1::AuditType::SessionRevoked {
            Self {
                reason: reason(session.revoke_reason()),
                rule: session.revoke_rule.clone(),
                rule_source: session.revoke_rule_source.clone(),
                rule_description: session.revoke_rule_description.clone(),
                node: session.revoke_node.clone(),
                revision: number(session.revoke_revision),
                ..facts
            }
        } else {
            Self { rule: session.rule.clone(), revision: number(session.revision), ..facts }
        }
    }

    /// The rule or the node, for people.
    pub(super) fn by(&self) -> String {
        rule_or_node(&self.rule, &self.rule_source, &self.rule_description, &self.node)
    }
}

/// What denied a check, for people.
pub(super) fn denied_by(event: &v1::FirewallEvent) -> String {
    rule_or_node(&event.rule, &event.rule_source, &event.rule_description, &event.node)
}

/// What revoked a session, for people; empty where nothing did.
pub(super) fn revoked_by(session: &v1::Session) -> String {
    let v1::Session { revoke_rule, revoke_rule_source, revoke_rule_description, revoke_node, .. } = session;
    match rule_or_node(revoke_rule, revoke_rule_source, revoke_rule_description, revoke_node) {
        by if by.is_empty() => reason(session.revoke_reason()),
        by => by,
    }
}

/// A rule that denied as it was then, such as `deny 198.51.100.0/24 "known attackers" (rule-1)`, so that it says something
/// after the rule was deleted. A rule of which only the name is known is named; without a rule, the node is.
fn rule_or_node(rule: &str, source: &str, description: &str, node: &str) -> String {
    if rule.is_empty() { node.to_owned() } else { rule_as_it_was("deny", rule, source, description) }
}

/// A rule as it was, with what it did in a word.
pub(super) fn rule_as_it_was(action: &str, rule: &str, source: &str, description: &str) -> String {
    if source.is_empty() {
        return rule.to_owned();
    }
    let source = match source.rsplit_once("/addressGroups/") {
        Some((_, group)) => format!("group {group}"),
        None => source.to_owned(),
    };
    format!("{action} {} ({})", with_description(&source, description), id(rule))
}

/// Which addresses a rule is about, with its description in quotes if it has one.
pub(super) fn with_description(source: &str, description: &str) -> String {
    if description.is_empty() {
        return source.to_owned();
    }
    let mut shown: String = description.chars().take(DESCRIPTION_SHOWN).collect();
    if shown.len() < description.len() {
        shown.push('…');
    }
    // Quotes in it are escaped, so that no description passes for what comes behind it.
    format!("{source} {shown:?}")
}

/// A reason in a word; empty if there is none.
pub(super) fn reason(reason: v1::Reason) -> String {
    match reason {
        v1::Reason::Unspecified => String::new(),
        reason => table::word(reason.as_str_name(), "REASON_"),
    }
}

/// Why a session ended, in a word; empty while it is active.
pub(super) fn end_reason(session: &v1::Session) -> String {
    match session.end_reason() {
        v1::EndReason::Unspecified => String::new(),
        reason => table::word(reason.as_str_name(), "END_REASON_"),
    }
}

fn number(number: i64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn missing(gap: &v1::Gap) -> String {
    let (from, to) = (table::time(gap.from_time.as_ref()), table::time(gap.to_time.as_ref()));
    match gap.count {
        0 => format!("decisions between {from} and {to} may be missing; how many is not known"),
        1 => format!("1 decision between {from} and {to} may be missing"),
        count => format!("up to {count} decisions between {from} and {to} are missing"),
    }
}

fn summary(changes: &[v1::ObjectChange]) -> String {
    let mut parts: Vec<String> = changes.iter().take(OBJECTS_NAMED).map(|of| change(of, Told::Is)).collect();
    let rest = objects(changes.get(OBJECTS_NAMED..).unwrap_or_default());
    if rest > 0 {
        parts.push(format!("and {} more", table::number(rest)));
    }
    parts.join(", ")
}

/// How many objects are altered, also those that are only counted.
pub(super) fn objects<'a>(changes: impl IntoIterator<Item = &'a v1::ObjectChange>) -> i64 {
    changes.into_iter().map(|change| counted(change).map_or(1, |(_, count)| count)).sum()
}

/// The collection and the number of objects that are only counted, where a change stands for such. Older records do not
/// tell of which collection they are.
pub(super) fn counted(change: &v1::ObjectChange) -> Option<(&str, i64)> {
    let object = change.after.as_ref().or(change.before.as_ref())?;
    let Some(Object::Digest(digest)) = &object.object else { return None };
    let below = digest.name.splitn(3, '/').nth(2)?.strip_prefix("others")?;
    if below.is_empty() {
        return Some(("", digest.item_count));
    }
    Some((below.strip_prefix('/')?, digest.item_count))
}

/// An altered object, and what was done to it or would be.
pub(super) fn change(change: &v1::ObjectChange, told: Told) -> String {
    let is_done = told == Told::Is;
    let (verb, object) = match (&change.before, &change.after) {
        (None, Some(after)) => (if is_done { "created" } else { "would create" }, after),
        (Some(before), None) => (if is_done { "deleted" } else { "would delete" }, before),
        (_, Some(after)) => (if is_done { "updated" } else { "would update" }, after),
        (None, None) => return if is_done { "changed nothing" } else { "would change nothing" }.to_owned(),
    };
    if let Some((collection, count)) = counted(change) {
        return more(verb, collection, count, told);
    }
    match (&object.object, object_name(object)) {
        (Some(Object::RuleOrder(_)), _) => {
            if is_done { "reordered the rules" } else { "would reorder the rules" }.to_owned()
        }
        (Some(Object::Rule(rule)), _) if change.after.is_none() => {
            let action = table::word(rule.action().as_str_name(), "ACTION_");
            let what = with_description(&settings::rule_source(rule), &rule.description);
            format!("{verb} {}: {action} {what}", rule.name)
        }
        (_, Some(name)) => format!("{verb} {name}"),
        (_, None) => format!("{verb} something that this program does not know"),
    }
}

/// The collection of an object.
pub(super) fn collection(change: &v1::ObjectChange) -> &'static str {
    let object = change.after.as_ref().or(change.before.as_ref()).and_then(|object| object.object.as_ref());
    match object {
        Some(Object::Rule(_) | Object::RuleOrder(_)) => "rules",
        Some(Object::AddressGroup(_)) => "addressGroups",
        Some(Object::Node(_)) => "nodes",
        Some(Object::PolicyTest(_)) => "policyTests",
        Some(Object::Digest(_)) | None => "objects",
    }
}

/// What was done to objects that are not named.
pub(super) fn more(verb: &str, collection: &str, count: i64, told: Told) -> String {
    let (one, many) = match collection {
        "rules" => ("rule", "rules"),
        "nodes" => ("node", "nodes"),
        "addressGroups" => ("address group", "address groups"),
        "policyTests" => ("policy test", "policy tests"),
        // What was done to them is not known either.
        _ => ("object", "objects"),
    };
    let verb = match (collection, told) {
        ("", Told::Is) => "altered",
        ("", Told::Would) => "would alter",
        _ => verb,
    };
    format!("{verb} {} more {}", table::number(count), if count == 1 { one } else { many })
}

/// The full name of an object; none where it has none.
pub(super) fn object_name(object: &v1::PolicyObject) -> Option<&str> {
    match object.object.as_ref()? {
        Object::Rule(rule) => Some(&rule.name),
        Object::AddressGroup(group) => Some(&group.name),
        Object::Node(node) => Some(&node.name),
        Object::PolicyTest(test) => Some(&test.name),
        Object::Digest(digest) => Some(&digest.name),
        Object::RuleOrder(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_that_denied_is_shown_as_it_was() {
        let (rule, group) = ("organizations/acme/rules/bad", "organizations/acme/addressGroups/listed");
        for (source, description, shown) in [
            ("198.51.100.0/24", "known attackers", "deny 198.51.100.0/24 \"known attackers\" (bad)"),
            ("any", "", "deny any (bad)"),
            (group, "", "deny group listed (bad)"),
            ("::/0", "a \" (other)\nb é", "deny ::/0 \"a \\\" (other)\\nb é\" (bad)"),
            // Of a version that did not record it.
            ("", "", rule),
        ] {
            assert_eq!(rule_or_node(rule, source, description, ""), shown);
        }
        assert_eq!(rule_or_node("", "", "", "cluster"), "cluster");
        let long = rule_or_node(rule, "any", &"ü".repeat(1_024), "");
        assert_eq!(long, format!("deny any \"{}…\" (bad)", "ü".repeat(DESCRIPTION_SHOWN)));
    }
}
