//! Small parts of records in both directions: ids that may be absent, texts of rules, and enums.
//!
//! Invariant: each value has one stored number, and a stored number that no version wrote is none.
//! Not here: the records (`entry`, `session`).

use super::super::error::Decoded;
use super::super::object::{from_source, id, to_source};
use crate::audit::record::ClockChangeCause;
use crate::audit::rule_text::RuleText;
use crate::policy::decision::{Level, Reason};
use crate::policy::name::Id;
use crate::policy::rule::ConnectionType;
use crate::proto::same_variants;
use crate::proto::storage as stored;

pub(super) fn optional_id(text: &str) -> Decoded<Option<Id>> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

pub(super) fn to_rule_text(RuleText { source, description }: &RuleText) -> stored::AuditRuleText {
    stored::AuditRuleText { source: Some(to_source(source)), description: description.to_string() }
}

pub(super) fn from_rule_text(text: stored::AuditRuleText) -> Decoded<RuleText> {
    let stored::AuditRuleText { source, description } = text;
    Ok(RuleText { source: from_source(source)?, description: description.into() })
}

same_variants!(
    pub(super) to_reason, from_reason: Reason => stored::AuditReason {
        AllowRule DefaultAllow UnknownEndpoint OutsideCluster DenyRule OutsideOrganization OutsideEndpoint
    }
);
same_variants!(
    pub(super) to_level, from_level: Level => stored::AuditLevel { Cluster Organization Project Workspace Endpoint }
);
same_variants!(
    pub(super) to_clock_cause, from_clock_cause: ClockChangeCause => stored::AuditClockCause {
        Correction Start Confirmation
    }
);
same_variants!(
    pub(super) to_connection_type, from_connection_type: ConnectionType => stored::AuditConnectionType { Shell Preview }
);
