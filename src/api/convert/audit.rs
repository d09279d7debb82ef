//! Records of the audit log and sessions in messages.
//!
//! Invariant: what was erased is shown empty, never in part.
//! Not here: which of them are shown (`api::audit`).

use super::decision::{self, node_name, to_connection_type, to_reason};
use super::node::to_node;
use super::policy_test::to_test;
use super::rule::rule_message;
use super::to_time;
use crate::api::to_i64;
use crate::audit::filter::SessionState;
use crate::audit::policy_change;
use crate::audit::record::{
    ClockChangeCause, Content, DecisionRecord, DigestRecord, GroupRecord, Object, ObjectChange, Person,
    PolicyChangeRecord, Record, RecordType, Subject,
};
use crate::audit::rule_text::RuleText;
use crate::audit::session::{EndReason, SessionRecord};
use crate::engine::sessions::Session;
use crate::policy::decision::{Decision, Level};
use crate::policy::name::{CLUSTER, Id, Name, NodePath};
use crate::policy::plan::Etags;
use crate::policy::rule::Source;
use crate::proto::{same_variants, v1};
use v1::audit_record::Content as ContentMessage;
use v1::policy_object::Object as ObjectMessage;

/// A record as the API has it.
pub(in crate::api) fn to_record(etags: Etags, record: &Record) -> v1::AuditRecord {
    let Record { sequence, organization_sequence, subject, entry } = record;
    let organization = entry.organization.as_ref();
    let content = match &entry.content {
        Content::Decision(content) => ContentMessage::Decision(to_decision(content, organization, subject)),
        Content::SessionEnded(session) | Content::SessionRevoked(session) => {
            ContentMessage::Session(session_message(session, organization, subject))
        }
        Content::PolicyChanged(change) => {
            ContentMessage::PolicyChange(to_policy_change(etags, change, organization, subject))
        }
        Content::Gap(gap) => ContentMessage::Gap(v1::Gap {
            from_time: Some(to_time(gap.from_time)),
            to_time: Some(to_time(gap.to_time)),
            count: to_i64(gap.count),
        }),
        Content::Pruned(pruned) => ContentMessage::Pruned(v1::Pruning {
            to_sequence: to_i64(pruned.to_sequence),
            root_hash: pruned.root.as_bytes().to_vec(),
        }),
        Content::Erased(erased) => {
            ContentMessage::Erased(v1::Erasure { actor: actor(subject), opening_count: to_i64(erased.opening_count) })
        }
        Content::ClockChanged(changed) => ContentMessage::ClockChange(v1::ClockChange {
            from_time: Some(to_time(changed.from_time)),
            to_time: Some(to_time(changed.to_time)),
            cause: to_clock_cause(changed.cause).into(),
        }),
        Content::KeyChanged(changed) => ContentMessage::KeyChange(v1::KeyChange {
            previous_key: changed.previous_key.to_string(),
            key: changed.key.to_string(),
            signed_size: to_i64(changed.signed_size),
        }),
        Content::Restored(restored) => ContentMessage::Restored(v1::Restoration {
            previous_lineage: restored.previous_lineage.to_string(),
            lineage: restored.lineage.to_string(),
        }),
    };
    v1::AuditRecord {
        sequence: to_i64(*sequence),
        organization_sequence: to_i64(*organization_sequence),
        time: Some(to_time(entry.time)),
        r#type: to_type(entry.content.record_type()).into(),
        organization: organization.map(|id| Name::organization(id).to_string()).unwrap_or_default(),
        content: Some(content),
    }
}

/// A denial as the API has it, if the record is one.
pub(in crate::api) fn to_firewall_event(record: &Record) -> Option<v1::FirewallEvent> {
    let Content::Decision(content) = &record.entry.content else { return None };
    if content.reason.decision() != Decision::Deny {
        return None;
    }
    let message = to_decision(content, record.entry.organization.as_ref(), &record.subject);
    Some(v1::FirewallEvent {
        sequence: to_i64(record.sequence),
        time: Some(to_time(record.entry.time)),
        ip: message.ip,
        user_email: message.user_email,
        connection_type: message.connection_type,
        endpoint: message.endpoint,
        reason: message.reason,
        rule: message.rule,
        node: message.node,
        rule_source: message.rule_source,
        rule_description: message.rule_description,
    })
}

/// A session as the API has it.
pub(in crate::api) fn to_session(session: &Session) -> v1::Session {
    let Session { organization, subject, record } = session;
    session_message(record, Some(organization), subject)
}

same_variants!(
    pub(in crate::api) to_type, from_type: RecordType => v1::AuditType {
        Decision SessionEnded SessionRevoked PolicyChanged Gap Pruned Erased ClockChanged KeyChanged Restored
    }
);
same_variants!(pub(in crate::api) to_state, from_state: SessionState => v1::SessionState { Active Ended });
same_variants!(to_clock_cause: ClockChangeCause => v1::ClockChangeCause { Correction Start Confirmation });
same_variants!(to_end_reason: EndReason => v1::EndReason { Closed LeaseExpired Idle MaxAge Revoked Abandoned });

fn rule_name(organization: Option<&Id>, rule: Option<&Id>) -> String {
    match (organization, rule) {
        (Some(organization), Some(rule)) => Name::rule(organization, rule).to_string(),
        _ => String::new(),
    }
}

/// The source and the description of a rule as it was; both are empty where nothing is known of one.
pub(in crate::api) fn rule_text_parts(organization: Option<&Id>, text: Option<&RuleText>) -> (String, String) {
    let Some(RuleText { source, description }) = text else { return Default::default() };
    let source = match source {
        Source::Range(range) => range.to_string(),
        Source::Group(group) => Name::group(organization.map_or("", Id::as_str), group).to_string(),
    };
    (source, description.to_string())
}

fn person(subject: &Subject) -> Option<&Person> {
    match subject {
        Subject::Person(person) => Some(person),
        Subject::Nobody | Subject::Actor(_) | Subject::Erased => None,
    }
}

fn email(subject: &Subject) -> String {
    person(subject).map(|person| person.email.to_string()).unwrap_or_default()
}

fn actor(subject: &Subject) -> String {
    match subject {
        Subject::Actor(actor) => actor.name.to_string(),
        Subject::Nobody | Subject::Person(_) | Subject::Erased => String::new(),
    }
}

fn ip(subject: &Subject) -> String {
    person(subject).map(|person| person.address.to_string()).unwrap_or_default()
}

/// The name of a level of an endpoint's name.
fn node_at(level: Option<Level>, endpoint: &str) -> String {
    match (level, NodePath::parse(endpoint)) {
        (Some(Level::Cluster), _) => CLUSTER.to_owned(),
        (Some(level), Ok(path)) => node_name(level, &path).to_owned(),
        _ => String::new(),
    }
}

fn to_decision(content: &DecisionRecord, organization: Option<&Id>, subject: &Subject) -> v1::DecisionRecord {
    let DecisionRecord {
        id,
        reason,
        connection_type,
        endpoint,
        rule,
        rule_text,
        level,
        session,
        session_opened: _,
        revision,
        cluster_revision,
        request_id,
        lease: _,
    } = content;
    let (rule_source, rule_description) = rule_text_parts(organization, rule_text.as_deref());
    let session = organization.zip(*session).map(|(organization, id)| Name::session(organization, id).to_string());
    v1::DecisionRecord {
        decision_id: id.to_string(),
        decision: decision::to_decision(reason.decision()).into(),
        reason: to_reason(*reason).into(),
        ip: ip(subject),
        user_email: email(subject),
        connection_type: to_connection_type(*connection_type).into(),
        endpoint: endpoint.to_string(),
        rule: rule_name(organization, rule.as_ref()),
        node: node_at(*level, endpoint),
        session: session.unwrap_or_default(),
        revision: to_i64(*revision),
        cluster_revision: to_i64(*cluster_revision),
        request_id: request_id.to_string(),
        rule_source,
        rule_description,
    }
}

fn session_message(session: &SessionRecord, organization: Option<&Id>, subject: &Subject) -> v1::Session {
    let SessionRecord {
        id,
        connection_type,
        endpoint,
        start_time,
        last_seen_time,
        request_count,
        rule,
        revision,
        lease_expire_time,
        revocation,
        end,
    } = session;
    let state = to_state(if end.is_some() { SessionState::Ended } else { SessionState::Active });
    let revoked = revocation.as_ref();
    let (revoke_rule_source, revoke_rule_description) =
        rule_text_parts(organization, revoked.and_then(|revoked| revoked.rule_text.as_deref()));
    v1::Session {
        name: organization.map(|organization| Name::session(organization, id).to_string()).unwrap_or_default(),
        user_email: email(subject),
        ip: ip(subject),
        connection_type: to_connection_type(*connection_type).into(),
        endpoint: endpoint.to_string(),
        state: state.into(),
        start_time: Some(to_time(*start_time)),
        last_seen_time: Some(to_time(*last_seen_time)),
        end_time: end.map(|end| to_time(end.time)),
        end_reason: end.map_or(v1::EndReason::Unspecified, |end| to_end_reason(end.reason)).into(),
        request_count: to_i64(*request_count),
        rule: rule_name(organization, rule.as_ref()),
        revision: to_i64(*revision),
        lease_expire_time: lease_expire_time.map(to_time),
        revoke_time: revoked.map(|revoked| to_time(revoked.time)),
        revoke_reason: revoked.map_or(v1::Reason::Unspecified, |revoked| to_reason(revoked.reason)).into(),
        revoke_rule: rule_name(organization, revoked.and_then(|revoked| revoked.rule.as_ref())),
        revoke_node: node_at(revoked.and_then(|revoked| revoked.level), endpoint),
        revoke_revision: to_i64(revoked.map(|revoked| revoked.revision).unwrap_or_default()),
        revoke_rule_source,
        revoke_rule_description,
    }
}

fn to_policy_change(
    etags: Etags,
    change: &PolicyChangeRecord,
    organization: Option<&Id>,
    subject: &Subject,
) -> v1::PolicyChange {
    let PolicyChangeRecord { policy_sequence: _, revision, comment, changes, confirm_until, overridden_tests } = change;
    let test = |id: &Id| Name::policy_test(organization.map_or("", Id::as_str), id).to_string();
    v1::PolicyChange {
        actor: actor(subject),
        revision: to_i64(*revision),
        comment: comment.to_string(),
        changes: object_changes(etags, changes, organization, *revision),
        truncated: changes.iter().any(policy_change::is_count),
        overridden_tests: overridden_tests.iter().map(test).collect(),
        revert_time: confirm_until.map(to_time),
    }
}

/// What was altered.
pub(in crate::api) fn object_changes(
    etags: Etags,
    changes: &[ObjectChange],
    organization: Option<&Id>,
    revision: u64,
) -> Vec<v1::ObjectChange> {
    let object = |object: &Object| to_object(etags, object, organization, revision);
    let change = |ObjectChange { before, after }: &ObjectChange| v1::ObjectChange {
        before: before.as_ref().map(object),
        after: after.as_ref().map(object),
    };
    changes.iter().map(change).collect()
}

/// Whether a change stands for objects that are only counted.
pub(in crate::api) fn is_count(change: &v1::ObjectChange) -> bool {
    let is_count = |object: &v1::PolicyObject| match &object.object {
        // Behind `organizations` and the id. A change of the cluster alters one object.
        Some(ObjectMessage::Digest(digest)) => {
            digest.name.splitn(3, '/').nth(2).is_some_and(policy_change::is_count_key)
        }
        _ => false,
    };
    change.before.iter().chain(&change.after).any(is_count)
}

fn to_object(etags: Etags, object: &Object, organization: Option<&Id>, revision: u64) -> v1::PolicyObject {
    let owner = organization.map_or_else(|| CLUSTER.to_owned(), |id| Name::organization(id).to_string());
    let id = organization.map(Id::as_str);
    let name = |key: &str| if key.is_empty() { owner.clone() } else { format!("{owner}/{key}") };
    let object = match object {
        Object::Rule { rule, position } => {
            let position = i32::try_from(*position).unwrap_or(i32::MAX);
            ObjectMessage::Rule(rule_message(etags, id.unwrap_or_default(), position, None, revision, rule))
        }
        Object::Group(group) => ObjectMessage::AddressGroup(to_group(etags, group, id.unwrap_or_default(), revision)),
        Object::OwnNode(node) => ObjectMessage::Node(to_node(etags, owner, id, revision, node)),
        Object::Node { key, node } => ObjectMessage::Node(to_node(etags, name(&key.to_string()), id, revision, node)),
        Object::RuleOrder(rules) => {
            let rules = rules.iter().map(|rule| rule_name(organization, Some(rule))).collect();
            ObjectMessage::RuleOrder(v1::RuleOrder { rules })
        }
        Object::Test(test) => ObjectMessage::PolicyTest(to_test(id.unwrap_or_default(), test, None)),
        Object::Digest(DigestRecord { key, item_count, sha256, first_ranges }) => {
            ObjectMessage::Digest(v1::ObjectDigest {
                name: if **key == *"rules" { owner } else { name(key) },
                item_count: to_i64(*item_count),
                sha256: sha256.to_vec(),
                first_ranges: first_ranges.iter().map(ToString::to_string).collect(),
                object_count: if policy_change::is_count_key(key) { to_i64(*item_count) } else { 1 },
            })
        }
    };
    v1::PolicyObject { object: Some(object) }
}

fn to_group(etags: Etags, group: &GroupRecord, organization: &str, revision: u64) -> v1::AddressGroup {
    let GroupRecord { id, description, create_time, update_time, changed_at, ranges, range_count } = group;
    v1::AddressGroup {
        name: Name::group(organization, id).to_string(),
        description: description.to_string(),
        ranges: ranges.iter().map(|range| range.to_string()).collect(),
        range_count: to_i64(*range_count),
        etag: etags.group(*changed_at),
        create_time: Some(to_time(*create_time)),
        update_time: Some(to_time(*update_time)),
        revision: to_i64(revision),
    }
}
