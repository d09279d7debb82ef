//! Etags: what guards an object against a change that its caller has not seen.
//!
//! An etag is `rule-7-1f3a9c04`: what it guards, the revision that last changed it, and the first half of the lineage
//! (design.md §2.11). To callers it is opaque.
//!
//! Invariant: two states of an object's settable fields never have the same etag. That a rule is marked as expired sets
//! no field, so the rule's etag stays, and the list's does not. It holds the revision that last changed the object, and
//! a lineage never uses a revision twice, so an object that is deleted and created again has another etag. What the
//! revisions of another lineage are says nothing here, so its etags are never current.
//! Not here: how etags travel (`api`).

use super::error::PlanError;

/// Makes and compares the etags of one lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etags {
    lineage: u32,
}

/// What an etag guards. An etag begins with it.
const KINDS: &[&str] = &["rule", "rules", "group", "groups", "node", "nodes", "policy"];

impl Etags {
    /// The etags of the lineage with this number. They hold its first half: etags stay short, and two lineages are taken
    /// for one in one of four thousand million cases.
    pub const fn of_lineage(number: u64) -> Self {
        let [first, second, third, fourth, ..] = number.to_be_bytes();
        Self { lineage: u32::from_be_bytes([first, second, third, fourth]) }
    }

    /// The etag of a rule; `changed_at` is [`Rule::changed_at`](crate::rule::Rule::changed_at).
    pub fn rule(self, changed_at: u64) -> String {
        self.etag("rule", changed_at)
    }

    /// The etag of an organization's list of rules; the argument is
    /// [`Organization::rules_changed_at`](crate::organization::Organization::rules_changed_at).
    pub fn rules(self, rules_changed_at: u64) -> String {
        self.etag("rules", rules_changed_at)
    }

    /// The etag of an address group; `changed_at` is [`Group::changed_at`](crate::group::Group::changed_at).
    pub fn group(self, changed_at: u64) -> String {
        self.etag("group", changed_at)
    }

    /// The etag of an organization's list of address groups at a revision.
    pub fn groups(self, revision: u64) -> String {
        self.etag("groups", revision)
    }

    /// The etag of a node; `changed_at` is [`Node::changed_at`](crate::node::Node::changed_at).
    pub fn node(self, changed_at: u64) -> String {
        self.etag("node", changed_at)
    }

    /// The etag of an organization's list of nodes at a revision.
    pub fn nodes(self, revision: u64) -> String {
        self.etag("nodes", revision)
    }

    /// The etag of an organization's whole policy at a revision.
    pub fn policy(self, revision: u64) -> String {
        self.etag("policy", revision)
    }

    fn etag(self, kind: &str, revision: u64) -> String {
        format!("{kind}-{revision}-{:08x}", self.lineage)
    }

    /// Whether a text is an etag of another lineage. What is no etag at all is of none.
    pub fn is_foreign(self, text: &str) -> bool {
        let mut parts = text.split('-');
        let (Some(kind), Some(revision), Some(lineage), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let is_digits =
            |text: &str, is_digit: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(is_digit);
        let is_etag = KINDS.contains(&kind)
            && is_digits(revision, u8::is_ascii_digit)
            && lineage.len() == 8
            && is_digits(lineage, u8::is_ascii_hexdigit);
        is_etag && u32::from_str_radix(lineage, 16) != Ok(self.lineage)
    }
}

/// Characters of a stale etag that a message repeats. The service's own etags are far shorter.
const ETAG_SHOWN_CHARACTERS_MAX: usize = 64;

/// Refuses an etag that is not the current one. None guards nothing.
pub(super) fn check_etag(name: &str, given: Option<&str>, current: &str) -> Result<(), PlanError> {
    match given {
        Some(given) if given != current => Err(PlanError::Stale {
            name: name.to_owned(),
            given: given.chars().take(ETAG_SHOWN_CHARACTERS_MAX).collect(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_etag_is_foreign_in_another_lineage_only() {
        let (ours, theirs) = (Etags::of_lineage(0x1f3a_9c04_0000_0001), Etags::of_lineage(0x1f3a_9c05_0000_0001));
        let made: [fn(Etags, u64) -> String; 7] =
            [Etags::rule, Etags::rules, Etags::group, Etags::groups, Etags::node, Etags::nodes, Etags::policy];
        assert_eq!(ours.rule(7), "rule-7-1f3a9c04");
        assert_eq!(made.len(), KINDS.len());
        for etag in made {
            for revision in [0, 7, u64::MAX] {
                let etag = etag(theirs, revision);
                assert!(ours.is_foreign(&etag) && !theirs.is_foreign(&etag), "{etag}");
            }
        }
    }

    /// The hazard: a text that is no etag, or one of a build before lineages, says that a backup was restored.
    #[test]
    fn what_is_no_etag_is_of_no_lineage() {
        let etags = Etags::of_lineage(1);
        for text in
            ["", "x", "rule-7", "rule-7-", "rule-7-1f3a9c0", "rule-7-1f3a9c040", "rule-7-1f3a9c0g", "rule--1f3a9c04"]
        {
            assert!(!etags.is_foreign(text), "{text}");
        }
        for text in ["rule-x-1f3a9c04", "ruler-7-1f3a9c04", "rule-7-1f3a9c04-", "-7-1f3a9c04", "Rule-7-1f3a9c04"] {
            assert!(!etags.is_foreign(text), "{text}");
        }
    }
}
