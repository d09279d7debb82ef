//! Which problems come and go between two versions of a policy.
//!
//! Invariant: a problem that is left out of a list, because it takes too long to find out, is not said to have come or
//! gone.
//! Not here: finding problems (`policy::problems`).

use std::collections::HashMap;

use crate::policy::address::Range;
use crate::policy::problems::{Code, Found, Problem, Resource};
use crate::policy::rule::ConnectionType;
use crate::policy::time::Timestamp;

/// What a problem is about, whenever it begins: for one connection type, or none where it is about all.
type Key<'a> = (Code, &'a Resource, &'a [Range], Option<ConnectionType>);

/// When the problems of a version begin, and the ranges that they are about from then on.
pub(super) struct Beginnings<'a> {
    known: HashMap<Key<'a>, (Option<Timestamp>, &'a [Range])>,
    incomplete: bool,
}

impl<'a> Beginnings<'a> {
    pub(super) fn of(found: &'a Found) -> Self {
        let keys = found.problems.iter().flat_map(|problem| keys(problem).map(move |key| (key, problem)));
        let known = keys.map(|(key, problem)| (key, (problem.from, &*problem.ranges)));
        Self { known: known.collect(), incomplete: found.incomplete }
    }

    /// Whether a problem of another version is none of this one. One that begins at another moment is.
    pub(super) fn lacks(&self, problem: &Problem) -> bool {
        self.tells_of(problem) && keys(problem).any(|key| self.differs(&key, problem).unwrap_or(true))
    }

    /// Whether a problem of another version is none of this one, or begins here only later.
    pub(super) fn lacks_or_has_later(&self, problem: &Problem) -> bool {
        let later = |key: &Key<'_>| self.known.get(key).is_some_and(|(from, _)| problem.from < *from);
        self.lacks(problem) || (self.tells_of(problem) && keys(problem).any(|key| later(&key)))
    }

    /// Whether a problem that this version has would have been found.
    fn tells_of(&self, problem: &Problem) -> bool {
        !self.incomplete || problem.code.is_always_found()
    }

    /// Whether what is known begins at the same moment with other ranges; none where nothing is known.
    fn differs(&self, key: &Key<'_>, problem: &Problem) -> Option<bool> {
        let (from, ranges) = self.known.get(key)?;
        // Where something is left out, it may be some of the ranges.
        Some(!self.incomplete && *from == problem.from && **ranges != *problem.ranges)
    }
}

fn keys(problem: &Problem) -> impl Iterator<Item = Key<'_>> {
    // These ranges depend on the moment. Those of other problems say which of several it is.
    let of_moment = matches!(problem.code, Code::Ipv4OnlyCatchAll | Code::TranslatedAddress);
    let ranges = if of_moment { &[] } else { &*problem.ranges };
    let of_all = problem.connection_types.is_empty().then_some(None);
    let types = problem.connection_types.iter().copied().map(Some).chain(of_all);
    types.map(move |of| (problem.code, &problem.resource, ranges, of))
}
