//! The overlay of a firewall's rules: which rules contain each address, and in which order they win.
//!
//! Memory and time grow with the sum of ranges and rules, never with their product. The sweep visits every group once,
//! however many rules name it. A chain holds a bounded number of rules, and says where to continue the search.
//!
//! Invariant: the label at an address leads, at every moment, to the first rule that is enabled, not expired, applies
//! to the connection type and contains the address.
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
/// Labels from here on name chains. A lower label is a rule's index plus one.
pub(super) const FIRST_CHAIN: u32 = 1 << 28;

/// The number of rules that a chain can hold.
const CHAIN_RULES_MAX: usize = 16;
/// The number of rules that are examined for a chain, those included that it leaves out.
const CHAIN_EXAMINED_MAX: usize = 64;
/// The number of rules of one group that take part in the sweep.
const GROUP_RULES_MAX: usize = 16;

/// The rules that win one after the other as each expires. Rules are identified by their index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chain {
    /// The rules in order; all but the last expire.
    pub(super) rules: Box<[u32]>,
    /// The rule from which to search the list when all of these are expired; none when no further rule can match.
    pub(super) scan_from: Option<u32>,
}

/// The labels of both families, and the chains that some of them name.
pub(super) struct Overlay {
    pub(super) v4: IntervalMap<u32>,
    pub(super) v6: IntervalMap<u128>,
    pub(super) chains: Vec<Chain>,
}

/// One interval of a source. The source is a rule's own range or a group; see [`FIRST_GROUP`].
struct Item<W> {
    first: W,
    last: W,
    source: u32,
}

/// Sources from here on are groups, numbered from here. A lower source is the index of a rule with a range of its own.
const FIRST_GROUP: u32 = 1 << 28;

/// The rules that name one group and can win: none after the first that never expires.
#[derive(Default)]
struct GroupRules {
    rules: Vec<u32>,
    /// Whether no later rule of the group is listed.
    complete: bool,
}

impl Overlay {
    /// The overlay of the rules that apply to the connection type, for every moment.
    pub(super) fn new(rules: &[Arc<Rule>], groups: &CowMap<Id, Group>, connection_type: ConnectionType) -> Self {
        Self::of(rules, groups, connection_type, None)
    }

    /// The overlay at one moment: without the rules that are expired then, and as if the others never expired. No label
    /// names a chain.
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
        let is_expired = |rule: &Rule| rule.expired || at.is_some_and(|at| rule.has_expired(at));
        let can_expire = |rule: &Rule| at.is_none() && rule.expire_time.is_some();
        let mut numbers: HashMap<&Id, usize> = HashMap::new();
        let mut groups: Vec<(&Id, GroupRules)> = Vec::new();
        let mut chains = Chains::new(rules);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, rule) in (0_u32..).zip(rules.iter()) {
            chains.expires.push(can_expire(rule));
            if rule.disabled || !rule.connection_types.applies_to(connection_type) || is_expired(rule) {
                continue;
            }
            let id = match &rule.source {
                Source::Range(range) => {
                    add_range(*range, index, &mut v4, &mut v6);
                    continue;
                }
                Source::Group(id) => id,
            };
            let number = *numbers.entry(id).or_insert_with(|| {
                groups.push((id, GroupRules::default()));
                groups.len() - 1
            });
            let Some((_, group)) = groups.get_mut(number) else { continue };
            if group.complete {
                continue;
            }
            if group.rules.len() < GROUP_RULES_MAX {
                group.rules.push(index);
                group.complete = !can_expire(rule);
            } else if let Some(last) = group.rules.last() {
                chains.unlisted_after.insert(*last);
                group.complete = true;
            }
        }
        for (source, (id, _)) in (FIRST_GROUP..).zip(&groups) {
            let Some(group) = known.get(id.as_str()) else { continue };
            let set = group.set();
            v4.extend(set.v4.intervals().iter().map(|(first, last)| Item { first: *first, last: *last, source }));
            v6.extend(set.v6.intervals().iter().map(|(first, last)| Item { first: *first, last: *last, source }));
        }
        let groups: Vec<Vec<u32>> = groups.into_iter().map(|(_, group)| group.rules).collect();
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

/// The rules that have a source.
fn rules_of<'a>(source: &'a u32, groups: &'a [Vec<u32>]) -> &'a [u32] {
    match source.checked_sub(FIRST_GROUP) {
        None => std::slice::from_ref(source),
        Some(group) => groups.get(group as usize).map_or(&[], Vec::as_slice),
    }
}

/// Sweeps over the items in ascending order and labels every interval by the rules whose items cover it. The items of
/// one source are disjoint. The stable sort is fast here, because the items of a group are sorted already.
fn sweep<W: Word>(mut items: Vec<Item<W>>, groups: &[Vec<u32>], chains: &mut Chains<'_>) -> IntervalMap<W> {
    items.sort_by_key(|item| item.first);
    let mut map = IntervalMap::with_capacity(2 * items.len() + 1);
    map.push(W::MIN, NO_RULE);
    let mut active: BTreeSet<u32> = BTreeSet::new();
    let mut ends: BinaryHeap<Reverse<(W, u32)>> = BinaryHeap::new();
    let mut rest = items.as_slice();
    loop {
        // Most items overlap with no other: they need no queue.
        while ends.is_empty()
            && let [item, following @ ..] = rest
            && following.first().is_none_or(|next| item.last < next.first)
        {
            map.push(item.first, chains.label(rules_of(&item.source, groups).iter().copied()));
            if let Some(after) = item.last.next() {
                map.push(after, NO_RULE);
            }
            rest = following;
        }
        let next_first = rest.first().map(|item| item.first);
        let next_after_end = ends.peek().and_then(|Reverse((last, _))| last.next());
        // The next interval starts where an item begins or after one ends. One that ends at the highest address has
        // nothing after it.
        let start = match (next_first, next_after_end) {
            (Some(first), Some(after)) => first.min(after),
            (Some(start), None) | (None, Some(start)) => start,
            (None, None) => return map,
        };
        while let Some(Reverse((last, source))) = ends.peek().copied()
            && last < start
        {
            ends.pop();
            for rule in rules_of(&source, groups) {
                active.remove(rule);
            }
        }
        while let [item, following @ ..] = rest
            && item.first == start
        {
            active.extend(rules_of(&item.source, groups));
            ends.push(Reverse((item.last, item.source)));
            rest = following;
        }
        map.push(start, chains.label(active.iter().copied()));
    }
}

/// Makes labels, and each distinct chain once.
struct Chains<'a> {
    rules: &'a [Arc<Rule>],
    /// Whether each rule can expire, close together in memory, while the rules themselves lie far apart.
    expires: Vec<bool>,
    /// The last listed rule of every group that is named by more rules than take part.
    unlisted_after: HashSet<u32>,
    made: Vec<Chain>,
    known: HashMap<Chain, u32>,
}

impl<'a> Chains<'a> {
    /// The caller fills `expires`.
    fn new(rules: &'a [Arc<Rule>]) -> Self {
        Self {
            rules,
            expires: Vec::with_capacity(rules.len()),
            unlisted_after: HashSet::new(),
            made: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// The label of an interval that these rules cover, given in order.
    fn label(&mut self, mut rules: impl Iterator<Item = u32>) -> u32 {
        let Some(first) = rules.next() else { return NO_RULE };
        if !self.expires.get(first as usize).is_some_and(|expires| *expires) {
            return first + 1;
        }
        let chain = self.chain(first, rules);
        if let Some(label) = self.known.get(&chain) {
            return *label;
        }
        let label = FIRST_CHAIN + u32::try_from(self.made.len()).unwrap_or(u32::MAX - FIRST_CHAIN);
        self.made.push(chain.clone());
        self.known.insert(chain, label);
        label
    }

    fn chain(&self, first: u32, rest: impl Iterator<Item = u32>) -> Chain {
        let (mut rules, mut latest) = (Vec::new(), None);
        for (examined, index) in std::iter::once(first).chain(rest).enumerate() {
            if examined >= CHAIN_EXAMINED_MAX || rules.len() >= CHAIN_RULES_MAX {
                return Chain { rules: rules.into(), scan_from: Some(index) };
            }
            let Some(expire_time) = self.rules.get(index as usize).and_then(|rule| rule.expire_time) else {
                rules.push(index);
                return Chain { rules: rules.into(), scan_from: None };
            };
            if latest.is_none_or(|latest| expire_time > latest) {
                latest = Some(expire_time);
                rules.push(index);
            }
            if self.unlisted_after.contains(&index) {
                return Chain { rules: rules.into(), scan_from: Some(index + 1) };
            }
        }
        Chain { rules: rules.into(), scan_from: None }
    }
}
