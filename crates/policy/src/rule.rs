//! A firewall rule (design.md §2.2), and patches of its settable fields.
//!
//! Invariant: a rule that exists has an action and a source.
//! Not here: the order of rules (`organization`) and which of them wins (`firewall`).

use std::sync::Arc;

use super::address::Range;
use super::name::Id;
use super::time::Timestamp;

/// What a rule does with the connections it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The firewall lets the connections through; allowlists still apply.
    Allow,
    /// The connections are refused.
    Deny,
}

/// How a person connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionType {
    /// A terminal, over a WebSocket.
    Shell,
    /// A live preview, over HTTP.
    Preview,
}

impl std::fmt::Display for ConnectionType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shell => "shell",
            Self::Preview => "preview",
        })
    }
}

impl ConnectionType {
    /// Every connection type.
    pub const ALL: [Self; 2] = [Self::Shell, Self::Preview];
}

/// A set of connection types. In a rule, the empty set means all types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionTypes {
    shell: bool,
    preview: bool,
}

impl ConnectionTypes {
    /// The types in the set, in the order of [`ConnectionType::ALL`].
    pub fn iter(self) -> impl Iterator<Item = ConnectionType> {
        ConnectionType::ALL.into_iter().filter(move |connection_type| self.contains(*connection_type))
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether the type is in the set. See `applies_to` for the meaning of the empty set.
    fn contains(self, connection_type: ConnectionType) -> bool {
        match connection_type {
            ConnectionType::Shell => self.shell,
            ConnectionType::Preview => self.preview,
        }
    }

    /// Whether a rule with this set applies to the type.
    pub fn applies_to(self, connection_type: ConnectionType) -> bool {
        self.is_empty() || self.contains(connection_type)
    }
}

impl FromIterator<ConnectionType> for ConnectionTypes {
    fn from_iter<I: IntoIterator<Item = ConnectionType>>(types: I) -> Self {
        let mut set = Self::default();
        for connection_type in types {
            match connection_type {
                ConnectionType::Shell => set.shell = true,
                ConnectionType::Preview => set.preview = true,
            }
        }
        set
    }
}

/// Where a rule or an allowlist entry takes its addresses from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// One range.
    Range(Range),
    /// An address group of the same organization.
    Group(Id),
}

/// A rule of an organization's firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its id, unique among the organization's rules.
    pub id: Id,
    /// What it does with the connections it matches.
    pub action: Action,
    /// The addresses it matches.
    pub source: Source,
    /// The connection types it applies to.
    pub connection_types: ConnectionTypes,
    /// Free text.
    pub description: Arc<str>,
    /// Whether it is skipped, as if it were not in the list.
    pub disabled: bool,
    /// The moment from which it no longer matches; none means that it never expires.
    pub expire_time: Option<Timestamp>,
    /// Whether it is on the record that this moment has passed: then it matches never again, whatever a clock shows.
    /// Another expire time takes the mark away.
    pub expired: bool,
    /// When it was created.
    pub create_time: Timestamp,
    /// When its settable fields were last changed.
    pub update_time: Timestamp,
    /// The organization's revision that last changed its settable fields: what its etag holds.
    pub changed_at: u64,
}

impl Rule {
    /// The moment from which it no longer matches; none means never. A rule that is marked as expired has ended before
    /// every moment.
    pub fn end(&self) -> Option<Timestamp> {
        if self.expired { Some(Timestamp::MIN) } else { self.expire_time }
    }

    /// Whether it has expired at a moment, or is marked so.
    pub fn has_expired(&self, at: Timestamp) -> bool {
        self.end().is_some_and(|end| end <= at)
    }
}

/// How often a rule was the one that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleMatches {
    /// The number of decisions since `start`.
    pub count: u64,
    /// The moment from which decisions are counted: the rule's creation, or later when older counts were lost.
    pub start: Timestamp,
    /// The moment of the last decision, to the millisecond; none when there was none.
    pub last: Option<Timestamp>,
}

/// New values for the settable fields of a rule. An absent field stays as it is; in a new rule it has its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RulePatch {
    /// See [`Rule::action`]; a new rule must have one.
    pub action: Option<Action>,
    /// See [`Rule::source`]; a new rule must have one.
    pub source: Option<Source>,
    /// See [`Rule::connection_types`].
    pub connection_types: Option<ConnectionTypes>,
    /// See [`Rule::description`].
    pub description: Option<Arc<str>>,
    /// See [`Rule::disabled`].
    pub disabled: Option<bool>,
    /// See [`Rule::expire_time`], which is the inner option.
    pub expire_time: Option<Option<Timestamp>>,
    /// That the rule is on the record as expired, see [`Rule::expired`]; with the expire time of the patch. Only
    /// [`RulePatch::of`] sets it: callers neither expire rules nor revive them. False says nothing.
    pub expired: bool,
}

impl RulePatch {
    /// A patch with the values of all fields of `rule`.
    pub fn of(rule: &Rule) -> Self {
        Self {
            action: Some(rule.action),
            source: Some(rule.source.clone()),
            connection_types: Some(rule.connection_types),
            description: Some(Arc::clone(&rule.description)),
            disabled: Some(rule.disabled),
            expire_time: Some(rule.expire_time),
            expired: rule.expired,
        }
    }

    /// `rule` with the values of the patch. The caller sets the times and `changed_at`.
    pub(crate) fn applied_to(&self, rule: &Rule) -> Rule {
        let expire_time = self.expire_time.unwrap_or(rule.expire_time);
        Rule {
            id: rule.id.clone(),
            action: self.action.unwrap_or(rule.action),
            source: self.source.clone().unwrap_or_else(|| rule.source.clone()),
            connection_types: self.connection_types.unwrap_or(rule.connection_types),
            description: self.description.clone().unwrap_or_else(|| Arc::clone(&rule.description)),
            disabled: self.disabled.unwrap_or(rule.disabled),
            expire_time,
            expired: self.expired || (rule.expired && expire_time == rule.expire_time),
            create_time: rule.create_time,
            update_time: rule.update_time,
            changed_at: rule.changed_at,
        }
    }

    /// A new rule with the values of the patch; none when the action or the source is absent.
    pub fn to_rule(&self, id: Id, now: Timestamp, revision: u64) -> Option<Rule> {
        Some(Rule {
            id,
            action: self.action?,
            source: self.source.clone()?,
            connection_types: self.connection_types.unwrap_or_default(),
            description: self.description.clone().unwrap_or_default(),
            disabled: self.disabled.unwrap_or_default(),
            expire_time: self.expire_time.flatten(),
            expired: self.expired,
            create_time: now,
            update_time: now,
            changed_at: revision,
        })
    }
}
