//! What a list of records or sessions asks for, and what passes it (the field comments of `audit_service.proto`).
//!
//! Invariant: a filter on something that a record does not have lets no such record pass. An erased person is nobody's
//! email and comes from nowhere.
//! Not here: how candidates are found quickly (`terms`).

use portcullis_policy::address::Range;
use portcullis_policy::decision::Decision;
use portcullis_policy::name::Id;
use portcullis_policy::rule::ConnectionType;
use portcullis_policy::time::Timestamp;

use super::record::{Content, Object, ObjectChange, PolicyChangeRecord, Record, RecordType, Subject};
use super::session::SessionRecord;

/// Which records; what is set must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordFilter {
    /// Only this organization's; none: all, those of no organization included.
    pub organization: Option<Id>,
    /// Only these types; empty: all.
    pub types: Vec<RecordType>,
    /// Only about this connection type.
    pub connection_type: Option<ConnectionType>,
    /// Only checks so decided.
    pub decision: Option<Decision>,
    /// Only about this user, or what they did as an actor.
    pub email: Option<String>,
    /// Only about users from this range.
    pub range: Option<Range>,
    /// Only about this node and all below it: its full name.
    pub endpoint: Option<String>,
    /// Only about this rule: its organization and id.
    pub rule: Option<(Id, Id)>,
    /// Only of this time or later.
    pub start_time: Option<Timestamp>,
    /// Only from before this time.
    pub end_time: Option<Timestamp>,
}

/// Whether a session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It is, perhaps revoked.
    Active,
    /// It is not.
    Ended,
}

/// Which sessions; what is set must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionFilter {
    /// Only this organization's; none: all.
    pub organization: Option<Id>,
    /// Only in this state.
    pub state: Option<SessionState>,
    /// Only of this connection type.
    pub connection_type: Option<ConnectionType>,
    /// Only of this user.
    pub email: Option<String>,
    /// Only of users from this range.
    pub range: Option<Range>,
    /// Only to this node and all below it: its full name.
    pub endpoint: Option<String>,
    /// Only those that this rule allowed, or whose revocation it caused: its organization and id.
    pub rule: Option<(Id, Id)>,
    /// Only those that were open at this time or later.
    pub start_time: Option<Timestamp>,
    /// Only those that started before this time.
    pub end_time: Option<Timestamp>,
}

impl RecordFilter {
    /// Whether a record passes.
    pub fn matches(&self, record: &Record) -> bool {
        let Self { organization, types, connection_type, decision, email, range, endpoint, rule, start_time, end_time } =
            self;
        let entry = &record.entry;
        (organization.is_none() || *organization == entry.organization)
            && (types.is_empty() || types.contains(&entry.content.record_type()))
            && connection_type.is_none_or(|wanted| connection_type_of(&entry.content) == Some(wanted))
            && decision.is_none_or(|wanted| decision_of(&entry.content) == Some(wanted))
            && of_person(&record.subject, email.as_deref(), *range)
            && endpoint.as_deref().is_none_or(|node| is_about_node(record, node))
            && rule
                .as_ref()
                .is_none_or(|(of, rule)| entry.organization.as_ref() == Some(of) && is_about_rule(&entry.content, rule))
            && start_time.is_none_or(|start| entry.time >= start)
            && end_time.is_none_or(|end| entry.time < end)
    }
}

impl SessionFilter {
    /// Whether a session passes. Its organization is the one in its endpoint's name.
    pub fn matches(&self, session: &SessionRecord, subject: &Subject) -> bool {
        let Self { organization, state, connection_type, email, range, endpoint, rule, start_time, end_time } = self;
        let is_state = |state| (state == SessionState::Active) == session.end.is_none();
        organization.as_ref().is_none_or(|id| is_within(&session.endpoint, &format!("organizations/{id}")))
            && state.is_none_or(is_state)
            && connection_type.is_none_or(|wanted| session.connection_type == wanted)
            && of_person(subject, email.as_deref(), *range)
            && endpoint.as_deref().is_none_or(|node| is_within(&session.endpoint, node))
            && rule.as_ref().is_none_or(|(of, rule)| {
                is_within(&session.endpoint, &format!("organizations/{of}")) && concerns_rule(session, rule)
            })
            && start_time.is_none_or(|start| session.end.is_none_or(|end| end.time >= start))
            && end_time.is_none_or(|end| session.start_time < end)
    }
}

/// Whether `name` is the node `of` or one below it.
fn is_within(name: &str, of: &str) -> bool {
    name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn of_person(subject: &Subject, email: Option<&str>, range: Option<Range>) -> bool {
    if email.is_none() && range.is_none() {
        return true;
    }
    let (name, address) = match subject {
        Subject::Person(person) => (&person.email, Some(person.address)),
        Subject::Actor(actor) => (&actor.name, None),
        Subject::Nobody | Subject::Erased => return false,
    };
    email.is_none_or(|email| **name == *email)
        && range.is_none_or(|range| address.is_some_and(|address| range.contains(address)))
}

fn connection_type_of(content: &Content) -> Option<ConnectionType> {
    match content {
        Content::Decision(decision) => Some(decision.connection_type),
        Content::SessionEnded(session) | Content::SessionRevoked(session) => Some(session.connection_type),
        Content::PolicyChanged(_)
        | Content::Gap(_)
        | Content::Pruned(_)
        | Content::Erased(_)
        | Content::ClockChanged(_)
        | Content::KeyChanged(_)
        | Content::Restored(_) => None,
    }
}

fn decision_of(content: &Content) -> Option<Decision> {
    match content {
        Content::Decision(decision) => Some(decision.reason.decision()),
        _ => None,
    }
}

fn is_about_node(record: &Record, node: &str) -> bool {
    match &record.entry.content {
        Content::Decision(decision) => is_within(&decision.endpoint, node),
        Content::SessionEnded(session) | Content::SessionRevoked(session) => is_within(&session.endpoint, node),
        Content::PolicyChanged(change) => {
            let Some(organization) = &record.entry.organization else { return false };
            nodes_of(change).any(|key| match key {
                None => format!("organizations/{organization}") == node,
                Some(key) => is_within(&format!("organizations/{organization}/{key}"), node),
            })
        }
        Content::Gap(_)
        | Content::Pruned(_)
        | Content::Erased(_)
        | Content::ClockChanged(_)
        | Content::KeyChanged(_)
        | Content::Restored(_) => false,
    }
}

fn is_about_rule(content: &Content, rule: &Id) -> bool {
    match content {
        Content::Decision(decision) => decision.rule.as_ref() == Some(rule),
        Content::SessionEnded(session) | Content::SessionRevoked(session) => concerns_rule(session, rule),
        Content::PolicyChanged(change) => rules_of(change).any(|changed| changed == rule.as_str()),
        Content::Gap(_)
        | Content::Pruned(_)
        | Content::Erased(_)
        | Content::ClockChanged(_)
        | Content::KeyChanged(_)
        | Content::Restored(_) => false,
    }
}

fn concerns_rule(session: &SessionRecord, rule: &Id) -> bool {
    let revoked_by = session.revocation.as_ref().and_then(|revocation| revocation.rule.as_ref());
    session.rule.as_ref() == Some(rule) || revoked_by == Some(rule)
}

fn objects(change: &PolicyChangeRecord) -> impl Iterator<Item = &Object> {
    change.changes.iter().flat_map(|ObjectChange { before, after }| before.iter().chain(after))
}

/// The nodes that a change altered, by their names below the organization; none for its own.
pub(super) fn nodes_of(change: &PolicyChangeRecord) -> impl Iterator<Item = Option<String>> {
    objects(change).filter_map(|object| match object {
        Object::OwnNode(_) => Some(None),
        Object::Node { key, .. } => Some(Some(key.to_string())),
        Object::Digest(digest) if digest.key.is_empty() => Some(None),
        Object::Digest(digest) if digest.key.starts_with("projects/") => Some(Some(digest.key.to_string())),
        Object::Digest(_) | Object::Rule { .. } | Object::Group(_) | Object::RuleOrder(_) | Object::Test(_) => None,
    })
}

/// The rules that a change altered, by their ids.
pub(super) fn rules_of(change: &PolicyChangeRecord) -> impl Iterator<Item = &str> {
    objects(change).filter_map(|object| match object {
        Object::Rule { rule, .. } => Some(rule.id.as_str()),
        Object::Digest(digest) => digest.key.strip_prefix("rules/"),
        Object::OwnNode(_) | Object::Node { .. } | Object::Group(_) | Object::RuleOrder(_) | Object::Test(_) => None,
    })
}
