//! Which entries of an allowlist permit the addresses of a source that is none of them (design.md §3.4).
//!
//! Invariant: what several entries permit together counts as what one of them permits by itself.
//! Not here: the entries that an edit leaves (`entries`), the same of the ranges of a group (`ranges`).

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::address::Range;
use crate::intervals::Share;
use crate::node::AccessEntry;
use crate::organization::Organization;
use crate::ranges::{RangeList, RangeSet};
use crate::rule::Source;

/// The entries of an allowlist, each with the addresses that it permits.
#[derive(Debug)]
pub struct Permitting<'a> {
    entries: Vec<(&'a AccessEntry, Cow<'a, RangeSet>)>,
    organization: Option<&'a Organization>,
    /// All of them together. Only a source that several permit asks for it.
    union: OnceCell<RangeSet>,
}

/// The entries that permit addresses of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted<'a> {
    /// The first that permits all of it, alone; or else those that permit some, in their order.
    pub entries: Vec<&'a AccessEntry>,
    /// Whether the first permits all of it by itself.
    pub by_one: bool,
    /// Whether they permit all of it together.
    pub is_whole: bool,
}

impl<'a> Permitting<'a> {
    /// The entries of a node of the organization, or of the cluster, which has none.
    pub fn new(entries: &'a [AccessEntry], organization: Option<&'a Organization>) -> Self {
        let with_set = |entry: &'a AccessEntry| (entry, set_of(&entry.source, organization));
        Self { entries: entries.iter().map(with_set).collect(), organization, union: OnceCell::new() }
    }

    /// The entries that permit addresses of a source; none where no entry does.
    pub fn of(&self, source: &Source) -> Option<Permitted<'a>> {
        let wanted = set_of(source, self.organization);
        let mut some = Vec::new();
        for (entry, set) in &self.entries {
            let share = match source {
                Source::Range(range) => set.share_of(*range),
                Source::Group(_) => share_of(&wanted, set),
            };
            match share {
                Share::Nothing => {}
                Share::Part => some.push(*entry),
                Share::Whole => return Some(Permitted { entries: vec![*entry], by_one: true, is_whole: true }),
            }
        }
        if some.is_empty() {
            return None;
        }
        let is_whole = some.len() > 1 && wanted.is_subset(self.union.get_or_init(|| self.union()));
        Some(Permitted { entries: some, by_one: false, is_whole })
    }

    /// Sets of the same size are united first, so that many entries take little longer than their ranges do.
    fn union(&self) -> RangeSet {
        let (mut ranges, mut sets) = (Vec::<Range>::new(), Vec::new());
        for (entry, set) in &self.entries {
            match &entry.source {
                Source::Range(range) => ranges.push(*range),
                Source::Group(_) => sets.push(Cow::Borrowed(&**set)),
            }
        }
        sets.push(Cow::Owned(ranges.into_iter().collect::<RangeList>().to_set()));
        while sets.len() > 1 {
            let pair = |pair: &[Cow<'_, RangeSet>]| match pair {
                [one, other] => Cow::Owned(one.union(other)),
                rest => rest.first().map_or_else(Cow::default, |only| Cow::Owned(RangeSet::clone(only))),
            };
            sets = sets.chunks(2).map(pair).collect();
        }
        sets.pop().map(Cow::into_owned).unwrap_or_default()
    }
}

fn set_of<'a>(source: &Source, organization: Option<&'a Organization>) -> Cow<'a, RangeSet> {
    match source {
        Source::Range(range) => Cow::Owned(RangeList::from_iter([*range]).to_set()),
        Source::Group(id) => {
            let group = organization.and_then(|organization| organization.groups.get(id.as_str()));
            group.map_or_else(|| Cow::Owned(RangeSet::default()), |group| Cow::Borrowed(&**group.set()))
        }
    }
}

/// How much of a set is in another; nothing of an empty one.
fn share_of(wanted: &RangeSet, of: &RangeSet) -> Share {
    let count = |set: &RangeSet| set.v4.intervals().len() + set.v6.intervals().len();
    let (few, many) = if count(wanted) < count(of) { (wanted, of) } else { (of, wanted) };
    match many.meets(few) {
        false => Share::Nothing,
        true if wanted.is_subset(of) => Share::Whole,
        true => Share::Part,
    }
}
