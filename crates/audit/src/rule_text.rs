//! What tells a person which rule a record is about, after that rule was changed or deleted.
//!
//! Invariant: it is what the rule said when the record was made. It is never looked up later.
//! Not here: which records have one (`record`, `session`), its bytes (`store::codec`).

use std::sync::Arc;

use portcullis_policy::rule::{Rule, Source};

/// The addresses and the description of a rule at some moment. It is policy, not personal data: an erasure leaves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleText {
    /// Which addresses the rule was about.
    pub source: Source,
    /// Its description; may be empty.
    pub description: Arc<str>,
}

impl RuleText {
    /// What a rule says now. Shares its texts.
    pub fn of(rule: &Rule) -> Self {
        Self { source: rule.source.clone(), description: Arc::clone(&rule.description) }
    }
}
