//! The terms under which a record is found: what the index of a unit is made of.
//!
//! A term is one byte, which says of what kind it is, and the rest:
//!
//! ```text
//! o  organization                        e  organization / node below it, such as `acme/projects/web`
//! r  organization / rule                 t  type of record, one byte
//! d  decision, one byte: 1 allow 2 deny  c  connection type, one byte: 1 shell 2 preview
//! x  organization: its denials           p  opening, 32 bits
//! s  ended session: boot and number, 64 bits each
//! ```
//!
//! Numbers have their most significant byte first.
//!
//! Invariant: a record that passes a filter has the terms of every query of that filter; the other way round it is still to
//! be judged. No term holds personal data.
//! Not here: postings (`store::sealed`); email, address and time, which are no terms.

use super::filter::{RecordFilter, nodes_of, rules_of};
use super::record::{Content, Entry, RecordType};
use super::session::{SessionId, SessionRecord};
use portcullis_policy::decision::Decision;
use portcullis_policy::name::Id;
use portcullis_policy::rule::ConnectionType;

const ORGANIZATION: u8 = b'o';
const NODE: u8 = b'e';
const RULE: u8 = b'r';
const TYPE: u8 = b't';
const DECISION: u8 = b'd';
const CONNECTION_TYPE: u8 = b'c';
const DENIALS: u8 = b'x';
const OPENING: u8 = b'p';
const SESSION: u8 = b's';

/// What names of nodes begin with.
const ORGANIZATIONS: &str = "organizations/";

/// What a record must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TermQuery {
    /// This term.
    Exact(Vec<u8>),
    /// This term, or one that goes on behind it with a slash.
    Subtree(Vec<u8>),
    /// One of these terms.
    AnyOf(Vec<Vec<u8>>),
}

/// Tells `found` every term of a record; one of them perhaps more than once. `term` is room to make them in.
pub fn for_each_term(entry: &Entry, slot: Option<u32>, term: &mut Vec<u8>, found: &mut dyn FnMut(&[u8])) {
    let mut tell = |kind: u8, parts: &[&[u8]]| {
        term.clear();
        term.push(kind);
        for part in parts {
            term.extend_from_slice(part);
        }
        found(term);
    };
    tell(TYPE, &[&[type_code(entry.content.record_type())]]);
    if let Some(slot) = slot {
        tell(OPENING, &[&slot.to_be_bytes()]);
    }
    let organization = entry.organization.as_ref().map(|id| id.as_str().as_bytes());
    if let Some(organization) = organization {
        tell(ORGANIZATION, &[organization]);
    }
    match &entry.content {
        Content::Decision(decision) => {
            let decided = decision.reason.decision();
            tell(DECISION, &[&[decision_code(decided)]]);
            tell(CONNECTION_TYPE, &[&[connection_type_code(decision.connection_type)]]);
            tell(NODE, &[node_term(&decision.endpoint)]);
            if let Some(organization) = organization {
                if decided == Decision::Deny {
                    tell(DENIALS, &[organization]);
                }
                if let Some(rule) = &decision.rule {
                    tell(RULE, &[organization, b"/", rule.as_str().as_bytes()]);
                }
            }
        }
        Content::SessionEnded(session) | Content::SessionRevoked(session) => {
            tell(CONNECTION_TYPE, &[&[connection_type_code(session.connection_type)]]);
            tell(NODE, &[node_term(&session.endpoint)]);
            for rule in rules_of_session(session) {
                tell(RULE, &[organization.unwrap_or_default(), b"/", rule.as_str().as_bytes()]);
            }
            if matches!(entry.content, Content::SessionEnded(_)) {
                let SessionId { boot, number } = session.id;
                tell(SESSION, &[&boot.to_be_bytes(), &number.to_be_bytes()]);
            }
        }
        Content::PolicyChanged(change) => {
            let Some(organization) = organization else { return };
            for key in nodes_of(change) {
                match key {
                    None => tell(NODE, &[organization]),
                    Some(key) => tell(NODE, &[organization, b"/", key.as_bytes()]),
                }
            }
            for rule in rules_of(change) {
                tell(RULE, &[organization, b"/", rule.as_bytes()]);
            }
        }
        Content::Gap(_)
        | Content::Pruned(_)
        | Content::Erased(_)
        | Content::ClockChanged(_)
        | Content::KeyChanged(_)
        | Content::Restored(_) => {}
    }
}

impl RecordFilter {
    /// What a record must have to pass, as far as terms tell; what few records have comes first.
    pub fn term_queries(&self) -> Vec<TermQuery> {
        let Self { organization, types, connection_type, decision, endpoint, rule, .. } = self;
        let mut queries = Vec::new();
        if let Some((organization, rule)) = rule {
            let (organization, rule) = (organization.as_str().as_bytes(), rule.as_str().as_bytes());
            queries.push(exact(RULE, &[organization, b"/", rule]));
        }
        if let Some(node) = endpoint {
            queries.push(TermQuery::Subtree(term(NODE, &[node_term(node)])));
        }
        let organization = organization.as_ref().map(|id| id.as_str().as_bytes());
        match (organization, decision) {
            (Some(organization), Some(Decision::Deny)) => queries.push(exact(DENIALS, &[organization])),
            (Some(organization), _) => queries.push(exact(ORGANIZATION, &[organization])),
            (None, _) => {}
        }
        if let Some(decision) = decision
            && (organization.is_none() || *decision == Decision::Allow)
        {
            queries.push(exact(DECISION, &[&[decision_code(*decision)]]));
        }
        // A decision is one already.
        if !types.is_empty() && (decision.is_none() || !types.contains(&RecordType::Decision)) {
            let code = |record_type: &RecordType| term(TYPE, &[&[type_code(*record_type)]]);
            queries.push(TermQuery::AnyOf(types.iter().map(code).collect()));
        }
        if let Some(connection_type) = connection_type {
            queries.push(exact(CONNECTION_TYPE, &[&[connection_type_code(*connection_type)]]));
        }
        queries
    }
}

/// The term of the records about a person, by the number of the opening.
pub fn slot_term(slot: u32) -> Vec<u8> {
    term(OPENING, &[&slot.to_be_bytes()])
}

/// The opening whose records have a term, where it is such a term.
pub fn slot_of_term(term: &[u8]) -> Option<u32> {
    let (kind, slot) = term.split_first()?;
    (*kind == OPENING).then_some(u32::from_be_bytes(slot.try_into().ok()?))
}

/// The term of the record of a session's end.
pub fn ended_session_term(SessionId { boot, number }: SessionId) -> Vec<u8> {
    term(SESSION, &[&boot.to_be_bytes(), &number.to_be_bytes()])
}

fn term(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut term = vec![kind];
    for part in parts {
        term.extend_from_slice(part);
    }
    term
}

fn exact(kind: u8, parts: &[&[u8]]) -> TermQuery {
    TermQuery::Exact(term(kind, parts))
}

/// A node's name from the organization's id on.
fn node_term(name: &str) -> &[u8] {
    name.strip_prefix(ORGANIZATIONS).unwrap_or(name).as_bytes()
}

fn rules_of_session(session: &SessionRecord) -> impl Iterator<Item = &Id> {
    let revoked_by = session.revocation.as_ref().and_then(|revocation| revocation.rule.as_ref());
    session.rule.iter().chain(revoked_by)
}

fn type_code(record_type: RecordType) -> u8 {
    match record_type {
        RecordType::Decision => 1,
        RecordType::SessionEnded => 2,
        RecordType::SessionRevoked => 3,
        RecordType::PolicyChanged => 4,
        RecordType::Gap => 5,
        RecordType::Pruned => 6,
        RecordType::Erased => 7,
        RecordType::ClockChanged => 8,
        RecordType::KeyChanged => 9,
        RecordType::Restored => 10,
    }
}

fn decision_code(decision: Decision) -> u8 {
    match decision {
        Decision::Allow => 1,
        Decision::Deny => 2,
    }
}

fn connection_type_code(connection_type: ConnectionType) -> u8 {
    match connection_type {
        ConnectionType::Shell => 1,
        ConnectionType::Preview => 2,
    }
}
