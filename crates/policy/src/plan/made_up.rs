//! Ids that the service makes up for rules, address groups and policy tests without one.
//!
//! Invariant: planning the same mutation on the same state makes up the same ids, so that a preview shows the ids that
//! the change will make. None of them exists. They hang on when the organization was created and on the revision, so an
//! organization that is deleted and created again never repeats one.
//! Not here: ids of sessions and decisions, which are random.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::task::Task;
use crate::name::{Id, MadeUpKind};
use crate::organization::Organization;

/// Makes up ids of one kind, for one change.
struct MadeUpIds<'a> {
    organization: &'a Organization,
    revision: u64,
    kind: MadeUpKind,
    made: u64,
}

impl MadeUpIds<'_> {
    /// The next id that is not taken.
    fn next(&mut self, is_taken: impl Fn(&Id) -> bool) -> Id {
        loop {
            let mut hasher = DefaultHasher::new();
            let Organization { id, node, .. } = self.organization;
            (id, node.create_time, self.revision, self.kind, self.made).hash(&mut hasher);
            self.made += 1;
            let id = Id::made_up(self.kind, hasher.finish());
            if !is_taken(&id) {
                return id;
            }
        }
    }
}

impl<'a> Task<'a> {
    fn made_up_ids(&self, kind: MadeUpKind) -> MadeUpIds<'a> {
        MadeUpIds { organization: self.organization, revision: self.revision, kind, made: 0 }
    }

    /// The given id, or one that no rule has.
    pub(super) fn rule_id(&self, given: Option<Id>) -> Id {
        let is_taken = |id: &Id| self.organization.rule(id.as_str()).is_some();
        given.unwrap_or_else(|| self.made_up_ids(MadeUpKind::Rule).next(is_taken))
    }

    /// The given id, or one that no address group has.
    pub(super) fn group_id(&self, given: Option<Id>) -> Id {
        let is_taken = |id: &Id| self.organization.groups.get(id.as_str()).is_some();
        given.unwrap_or_else(|| self.made_up_ids(MadeUpKind::Group).next(is_taken))
    }

    /// The given id, or one that no test has.
    pub(super) fn test_id(&self, given: Option<Id>) -> Id {
        let is_taken = |id: &Id| self.organization.tests.iter().any(|test| test.id == *id);
        given.unwrap_or_else(|| self.made_up_ids(MadeUpKind::Test).next(is_taken))
    }

    /// The ids of a list that replaces `present`.
    pub(super) fn list_ids<'b>(
        &self,
        kind: MadeUpKind,
        present: impl Iterator<Item = &'b Id>,
        given: impl Iterator<Item = &'b Id>,
    ) -> ListIds<'a> {
        let taken = present.chain(given).cloned().collect();
        ListIds { made_up: self.made_up_ids(kind), taken, named: HashSet::new() }
    }
}

/// The ids of the objects of a list that replaces another one.
pub(super) struct ListIds<'a> {
    made_up: MadeUpIds<'a>,
    /// The ids of both lists.
    taken: HashSet<Id>,
    /// The given ids so far.
    named: HashSet<Id>,
}

impl ListIds<'_> {
    /// The id of an object: the given one, that of the object which it is, or a new one; and whether it was given twice.
    pub(super) fn id(&mut self, given: Option<&Id>, kept: Option<&Id>) -> (Id, bool) {
        if let Some(id) = given {
            return (id.clone(), !self.named.insert(id.clone()));
        }
        let id = kept.cloned().unwrap_or_else(|| self.made_up.next(|id| self.taken.contains(id)));
        self.taken.insert(id.clone());
        (id, false)
    }
}
