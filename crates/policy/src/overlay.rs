//! Laying the rules of a firewall over each other: which rules are there at each address, and in which order they win.
//!
//! Every group is swept over once, however many rules name it, and a chain remembers a bounded number of rules: beyond
//! that it says where to look further. So memory and time are bounded by the ranges and rules that the
//! limits allow, never by their product.
//!
//! Invariant: the label at an address leads to the first enabled rule of the connection type that contains it and is
//! alive, whatever the time.
//! Not here: the rules' actions and the lookup (`firewall`).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::address::Range;
use super::cow_map::CowMap;
use super::group::Group;
use super::intervals::IntervalMap;
use super::name::Id;
use super::rule::{ConnectionType, Rule, Source};
use super::time::Timestamp;
use super::word::Word;

/// The label where no rule matches.
pub(super) const NO_RULE: u32 = 0;
/// Labels from here on name chains; those below are a rule's place plus one.
pub(super) const FIRST_CHAIN: u32 = 1 << 28;

/// Rules that a chain remembers at most.
const CHAIN_PLACES_MAX: usize = 16;
/// Rules that are looked at for a chain at most: those that expire no later than one above them are passed over.
const CHAIN_EXAMINED_MAX: usize = 64;
/// Rules of one group that take part in the sweep at most.
const GROUP_PLACES_MAX: usize = 16;

/// The rules that win one after the other as each expires.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chain {
    /// Their places, in order; all but the last expire.
    pub(super) places: Box<[u32]>,
    /// The place from which on to look through the rules once all of these are expired, where there may be more.
    pub(super) scan_from: Option<u32>,
}

/// The labels of both families and what the chains among them stand for.
pub(super) struct Overlay {
    pub(super) v4: IntervalMap<u32>,
    pub(super) v6: IntervalMap<u128>,
    pub(super) chains: Vec<Chain>,
}

/// One interval of one source: of a rule's own range, which is told by the rule's place, or of a group.
struct Item<W> {
    first: W,
    last: W,
    source: u32,
}

/// Sources from here on are groups, counted from here; those below are places of rules.
const FIRST_GROUP: u32 = 1 << 28;

/// The rules that name one group, as far as they matter: nothing behind one that never expires.
#[derive(Default)]
struct Named {
    places: Vec<u32>,
    /// Whether its last place hides all later ones.
    settled: bool,
}

impl Overlay {
    /// Lays the rules that apply to the type over each other.
    pub(super) fn new(rules: &[Arc<Rule>], groups: &CowMap<Id, Group>, connection_type: ConnectionType) -> Self {
        Self::of(rules, groups, connection_type, None)
    }

    /// The same as they are at one moment: without those that are expired, and as if the others never did. So no label
    /// is a chain's.
    pub(super) fn at(
        rules: &[Arc<Rule>],
        groups: &CowMap<Id, Group>,
        connection_type: ConnectionType,
        now: Timestamp,
    ) -> Self {
        Self::of(rules, groups, connection_type, Some(now))
    }

    fn of(
        rules: &[Arc<Rule>],
        known: &CowMap<Id, Group>,
        connection_type: ConnectionType,
        at: Option<Timestamp>,
    ) -> Self {
        let is_over = |rule: &Rule| at.is_some_and(|at| rule.expire_time.is_some_and(|time| time <= at));
        let may_end = |rule: &Rule| at.is_none() && rule.expire_time.is_some();
        let mut index: HashMap<&Id, usize> = HashMap::new();
        let mut groups: Vec<(&Id, Named)> = Vec::new();
        let mut chains = Chains::new(rules);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (place, rule) in (0_u32..).zip(rules.iter()) {
            chains.expires.push(may_end(rule));
            if rule.disabled || !rule.connection_types.applies_to(connection_type) || is_over(rule) {
                continue;
            }
            let id = match &rule.source {
                Source::Range(range) => {
                    add_range(*range, place, &mut v4, &mut v6);
                    continue;
                }
                Source::Group(id) => id,
            };
            let at = *index.entry(id).or_insert_with(|| {
                groups.push((id, Named::default()));
                groups.len() - 1
            });
            let Some((_, named)) = groups.get_mut(at) else { continue };
            if named.settled {
                continue;
            }
            if named.places.len() < GROUP_PLACES_MAX {
                named.places.push(place);
                named.settled = !may_end(rule);
            } else if let Some(last) = named.places.last() {
                chains.unlisted_after.insert(*last);
                named.settled = true;
            }
        }
        for (source, (id, _)) in (FIRST_GROUP..).zip(&groups) {
            let Some(group) = known.get(id.as_str()) else { continue };
            let set = group.set();
            v4.extend(set.v4.intervals().iter().map(|(first, last)| Item { first: *first, last: *last, source }));
            v6.extend(set.v6.intervals().iter().map(|(first, last)| Item { first: *first, last: *last, source }));
        }
        let groups: Vec<Vec<u32>> = groups.into_iter().map(|(_, named)| named.places).collect();
        let v4 = sweep(v4, &groups, &mut chains);
        let v6 = sweep(v6, &groups, &mut chains);
        Self { v4, v6, chains: chains.made }
    }
}

fn add_range(range: Range, source: u32, v4: &mut Vec<Item<u32>>, v6: &mut Vec<Item<u128>>) {
    match range {
        Range::Any => {
            v4.push(Item { first: u32::MIN, last: u32::MAX, source });
            v6.push(Item { first: u128::MIN, last: u128::MAX, source });
        }
        Range::V4(block) => v4.push(Item { first: block.first(), last: block.last(), source }),
        Range::V6(block) => v6.push(Item { first: block.first(), last: block.last(), source }),
    }
}

/// The places of the rules that name a source.
fn places_of<'a>(source: &'a u32, groups: &'a [Vec<u32>]) -> &'a [u32] {
    match source.checked_sub(FIRST_GROUP) {
        None => std::slice::from_ref(source),
        Some(group) => groups.get(group as usize).map_or(&[], Vec::as_slice),
    }
}

/// Goes over the items from the lowest address up and labels every stretch with the rules that are active in it. A
/// source's own items are disjoint. The stable sort is quick on the sorted runs that groups are.
fn sweep<W: Word>(mut items: Vec<Item<W>>, groups: &[Vec<u32>], chains: &mut Chains<'_>) -> IntervalMap<W> {
    items.sort_by_key(|item| item.first);
    let mut map = IntervalMap::with_capacity(2 * items.len() + 1);
    map.push(W::MIN, NO_RULE);
    let mut active: BTreeSet<u32> = BTreeSet::new();
    let mut ends: BinaryHeap<Reverse<(W, u32)>> = BinaryHeap::new();
    let mut rest = items.as_slice();
    loop {
        // Most items are alone from their first to their last address: they need no queue.
        while ends.is_empty()
            && let [item, behind @ ..] = rest
            && behind.first().is_none_or(|next| item.last < next.first)
        {
            map.push(item.first, chains.label(places_of(&item.source, groups).iter().copied()));
            if let Some(after) = item.last.next() {
                map.push(after, NO_RULE);
            }
            rest = behind;
        }
        let next_first = rest.first().map(|item| item.first);
        let next_after_end = ends.peek().and_then(|Reverse((last, _))| last.next());
        // What ends at the highest address needs no end; the smaller of the two others comes next.
        let at = match (next_first, next_after_end) {
            (Some(first), Some(after)) => first.min(after),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return map,
        };
        while let Some(Reverse((last, source))) = ends.peek().copied()
            && last < at
        {
            ends.pop();
            for place in places_of(&source, groups) {
                active.remove(place);
            }
        }
        while let [item, behind @ ..] = rest
            && item.first == at
        {
            active.extend(places_of(&item.source, groups));
            ends.push(Reverse((item.last, item.source)));
            rest = behind;
        }
        map.push(at, chains.label(active.iter().copied()));
    }
}

/// Makes labels, each distinct chain once.
struct Chains<'a> {
    rules: &'a [Arc<Rule>],
    /// Whether each expires, close together: the rules themselves lie far apart, and most of them never do.
    expires: Vec<bool>,
    /// Last places of groups that more rules name than take part.
    unlisted_after: HashSet<u32>,
    made: Vec<Chain>,
    known: HashMap<Chain, u32>,
}

impl<'a> Chains<'a> {
    /// Whether each rule expires is still to be told.
    fn new(rules: &'a [Arc<Rule>]) -> Self {
        Self {
            rules,
            expires: Vec::with_capacity(rules.len()),
            unlisted_after: HashSet::new(),
            made: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// The label for the rules at these places, the first in order first.
    fn label(&mut self, mut places: impl Iterator<Item = u32>) -> u32 {
        let Some(first) = places.next() else { return NO_RULE };
        if !self.expires.get(first as usize).is_some_and(|expires| *expires) {
            return first + 1;
        }
        let chain = self.chain(first, places);
        if let Some(label) = self.known.get(&chain) {
            return *label;
        }
        let label = FIRST_CHAIN + u32::try_from(self.made.len()).unwrap_or(u32::MAX - FIRST_CHAIN);
        self.made.push(chain.clone());
        self.known.insert(chain, label);
        label
    }

    fn chain(&self, first: u32, rest: impl Iterator<Item = u32>) -> Chain {
        let (mut places, mut latest) = (Vec::new(), None);
        for (examined, place) in std::iter::once(first).chain(rest).enumerate() {
            if examined >= CHAIN_EXAMINED_MAX || places.len() >= CHAIN_PLACES_MAX {
                return Chain { places: places.into(), scan_from: Some(place) };
            }
            let Some(expire_time) = self.rules.get(place as usize).and_then(|rule| rule.expire_time) else {
                places.push(place);
                return Chain { places: places.into(), scan_from: None };
            };
            if latest.is_none_or(|latest| expire_time > latest) {
                latest = Some(expire_time);
                places.push(place);
            }
            if self.unlisted_after.contains(&place) {
                return Chain { places: places.into(), scan_from: Some(place + 1) };
            }
        }
        Chain { places: places.into(), scan_from: None }
    }
}
