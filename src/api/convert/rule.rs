//! Rules and address groups in messages.
//!
//! Invariant: an unspecified or unknown action or connection type is a fault; an unset field never means allow.
//! Not here: positions and order (`policy::plan`).

use super::decision::{to_action, to_connection_type};
use super::options::Mask;
use super::reader::Reader;
use super::{Faults, SourceText, to_time};
use crate::api::{count_to_i64, to_i64};
use crate::engine::directory::OrganizationView;
use crate::policy::group::Group;
use crate::policy::name::Name;
use crate::policy::plan::Etags;
use crate::policy::rule::{ConnectionTypes, Rule, RuleMatches, RulePatch, Source};
use crate::policy::time::Timestamp;
use crate::proto::v1;
use crate::proto::v1::rule::Source as RuleSource;

/// Fields of a rule that an update may name.
pub(in crate::api) const SETTABLE: &[&str] =
    &["action", "range", "address_group", "connection_types", "description", "disabled", "expire_time"];

/// Reads the settable fields of a rule. `field` is the path of the rule in the request, `organization` the id of the
/// one it belongs to.
pub(in crate::api) fn patch(
    read: &mut Reader,
    field: &str,
    organization: Option<&str>,
    rule: v1::Rule,
    mask: &Mask,
) -> RulePatch {
    let v1::Rule {
        name: _,
        action,
        source,
        connection_types,
        description,
        position: _,
        disabled,
        expire_time,
        create_time: _,
        update_time: _,
        etag: _,
        match_count: _,
        match_count_start_time: _,
        last_match_time: _,
        revision: _,
        expired: _,
        problems: _,
    } = rule;
    let mut patch = RulePatch::default();
    if mask.names("action", action != 0) {
        patch.action = read.action(&format!("{field}.action"), action);
    }
    let (range, group) = match &source {
        Some(RuleSource::Range(_)) => (true, false),
        Some(RuleSource::AddressGroup(_)) => (false, true),
        None => (false, false),
    };
    let (range_named, group_named) = (mask.names("range", range), mask.names("address_group", group));
    if range_named || group_named {
        // Only a form that the mask names counts.
        let source = source.filter(|_| (range && range_named) || (group && group_named));
        let missing = if range_named { "range" } else { "address_group" };
        patch.source = read_source(read, field, organization, source.as_ref(), missing);
    }
    if mask.names("connection_types", !connection_types.is_empty()) {
        patch.connection_types = Some(read_connection_types(read, field, &connection_types));
    }
    if mask.names("description", !description.is_empty()) {
        patch.description = Some(read.description(&format!("{field}.description"), &description));
    }
    if mask.names("disabled", disabled) {
        patch.disabled = Some(disabled);
    }
    if mask.names("expire_time", expire_time.is_some()) {
        patch.expire_time = Some(expire_time.and_then(|time| read.time(&format!("{field}.expire_time"), time)));
    }
    patch
}

fn read_source(
    faults: &mut Faults,
    field: &str,
    organization: Option<&str>,
    source: Option<&RuleSource>,
    missing: &str,
) -> Option<Source> {
    match source {
        Some(RuleSource::Range(text)) => faults.source(field, organization, SourceText::Range(text)),
        Some(RuleSource::AddressGroup(name)) => faults.source(field, organization, SourceText::Group(name)),
        None => {
            faults.add(format!("{field}.{missing}"), "is required: give a `range` or an `address_group`");
            None
        }
    }
}

fn read_connection_types(faults: &mut Faults, field: &str, values: &[i32]) -> ConnectionTypes {
    let read =
        |(index, value): (usize, &i32)| faults.connection_type(&format!("{field}.connection_types[{index}]"), *value);
    values.iter().enumerate().filter_map(read).collect()
}

/// A rule as the API shows it. `index` is its index in the list, 0 being the first.
pub(in crate::api) fn to_rule(etags: Etags, view: &OrganizationView, index: usize, rule: &Rule) -> v1::Rule {
    let position = i32::try_from(index + 1).unwrap_or(i32::MAX);
    let organization = &view.organization;
    rule_message(etags, organization.id.as_str(), position, view.matches(index), organization.revision, rule)
}

/// A rule at a position, with its match count if that is known.
pub(super) fn rule_message(
    etags: Etags,
    organization: &str,
    position: i32,
    matches: Option<RuleMatches>,
    revision: u64,
    rule: &Rule,
) -> v1::Rule {
    let Rule {
        id,
        action,
        source,
        connection_types,
        description,
        disabled,
        expire_time,
        expired,
        create_time,
        update_time,
        changed_at,
    } = rule;
    let action = to_action(*action);
    let source = match source {
        Source::Range(range) => RuleSource::Range(range.to_string()),
        Source::Group(group) => RuleSource::AddressGroup(Name::group(organization, group).to_string()),
    };
    v1::Rule {
        name: Name::rule(organization, id).to_string(),
        action: action.into(),
        source: Some(source),
        connection_types: connection_types.iter().map(|named| to_connection_type(named).into()).collect(),
        description: description.to_string(),
        position,
        disabled: *disabled,
        expire_time: expire_time.map(to_time),
        create_time: Some(to_time(*create_time)),
        update_time: Some(to_time(*update_time)),
        etag: etags.rule(*changed_at),
        match_count: matches.map_or(0, |matches| to_i64(matches.count)),
        match_count_start_time: matches.map(|matches| to_time(matches.start)),
        last_match_time: matches.and_then(|matches| matches.last).map(to_time),
        revision: to_i64(revision),
        // An answer of the present moment can tell more: see `at_moment`.
        expired: *expired,
        problems: Vec::new(),
    }
}

/// Says of a rule whether it has expired.
pub(in crate::api) fn at_moment(shown: v1::Rule, rule: &Rule, now: Timestamp) -> v1::Rule {
    v1::Rule { expired: rule.has_expired(now), ..shown }
}

/// A group as the API shows it. Its ranges are left out: `ListRanges` has them.
pub(in crate::api) fn to_group(etags: Etags, view: &OrganizationView, group: &Group) -> v1::AddressGroup {
    v1::AddressGroup {
        name: Name::group(&view.organization.id, &group.id).to_string(),
        description: group.description.to_string(),
        ranges: Vec::new(),
        range_count: count_to_i64(group.ranges().len()),
        etag: etags.group(group.changed_at),
        create_time: Some(to_time(group.create_time)),
        update_time: Some(to_time(group.update_time)),
        revision: to_i64(view.organization.revision),
    }
}
