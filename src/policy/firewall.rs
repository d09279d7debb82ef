//! The compiled firewall: for every address the rule that wins, now and when it expires (design.md §2.2).
//!
//! Each interval is labelled with its first matching rule. Where that rule expires, the label names a chain instead:
//! the rules that would win one after the other, down to the first that stays for ever; a rule that expires no later
//! than one above it can never win and is left out. So expiry is judged at the decision and needs no timer.
//!
//! Invariant: for every moment, address and connection type the answer is the first rule in order that is enabled, not
//! expired, applies to the type and contains the address.
//! Not here: allowlists (`members`) and the order of steps (`snapshot`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use super::address::{Address, Block, Range};
use super::intervals::{IntervalMap, IntervalSet};
use super::organization::Organization;
use super::ranges::RangeSet;
use super::rule::{Action, ConnectionType, Rule, Source};
use super::table::Table;
use super::time::Timestamp;
use super::word::Word;

/// The firewall of one organization, compiled.
#[derive(Clone, Debug)]
pub struct Firewall {
    rules: Arc<Vec<Arc<Rule>>>,
    /// Shared by both types unless a rule tells them apart.
    shell: Arc<FirewallTable>,
    preview: Arc<FirewallTable>,
}

/// The table of one connection type.
#[derive(Debug)]
struct FirewallTable {
    v4: Table<u32>,
    v6: Table<u128>,
    /// Places of rules, in the order in which they win.
    chains: Vec<Box<[u32]>>,
}

/// No rule matches.
const NO_RULE: u32 = 0;
/// Labels from here on name chains; those below are a rule's place plus one.
const FIRST_CHAIN: u32 = 1 << 28;

impl Firewall {
    /// Compiles the firewall.
    pub fn compile(organization: &Organization) -> Self {
        let rules = Arc::clone(&organization.rules);
        let compile = |connection_type| Arc::new(FirewallTable::compile(organization, connection_type));
        let shell = compile(ConnectionType::Shell);
        let told_apart = rules.iter().any(|rule| {
            let applies = |connection_type| rule.connection_types.applies_to(connection_type);
            applies(ConnectionType::Shell) != applies(ConnectionType::Preview)
        });
        let preview = if told_apart { compile(ConnectionType::Preview) } else { Arc::clone(&shell) };
        Self { rules, shell, preview }
    }

    fn table(&self, connection_type: ConnectionType) -> &FirewallTable {
        match connection_type {
            ConnectionType::Shell => &self.shell,
            ConnectionType::Preview => &self.preview,
        }
    }

    /// The rule that wins, and its place (0 is the first).
    #[inline]
    pub fn first_match(
        &self,
        address: Address,
        connection_type: ConnectionType,
        now: Timestamp,
    ) -> Option<(usize, &Rule)> {
        let table = self.table(connection_type);
        let label = match address {
            Address::V4(word) => table.v4.label(word),
            Address::V6(word) => table.v6.label(word),
        };
        self.winner(table, label, now)
    }

    #[inline]
    fn winner(&self, table: &FirewallTable, label: u32, now: Timestamp) -> Option<(usize, &Rule)> {
        if label == NO_RULE {
            return None;
        }
        if label < FIRST_CHAIN {
            return Some(self.rule_at(label as usize - 1));
        }
        let chain = table.chain(label);
        let alive = |place: &&u32| self.rule_at(**place as usize).1.expire_time.is_none_or(|time| now < time);
        chain.iter().find(alive).map(|place| self.rule_at(*place as usize))
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "labels are made from this list; a wrong one must not pass as no match"
    )]
    fn rule_at(&self, place: usize) -> (usize, &Rule) {
        (place, &self.rules[place])
    }

    /// The addresses that the firewall lets through at `now`.
    pub fn allowed(&self, connection_type: ConnectionType, now: Timestamp) -> RangeSet {
        let table = self.table(connection_type);
        let allowed = |label| self.winner(table, label, now).is_none_or(|(_, rule)| rule.action == Action::Allow);
        RangeSet {
            v4: IntervalSet::from_map(table.v4.map(), allowed),
            v6: IntervalSet::from_map(table.v6.map(), allowed),
        }
    }
}

impl FirewallTable {
    fn compile(organization: &Organization, connection_type: ConnectionType) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (place, rule) in (0_u32..).zip(organization.rules.iter()) {
            if rule.disabled || !rule.connection_types.applies_to(connection_type) {
                continue;
            }
            match &rule.source {
                Source::Range(Range::Any) => {
                    v4.push(Item::of(u32::MIN, u32::MAX, place));
                    v6.push(Item::of(u128::MIN, u128::MAX, place));
                }
                Source::Range(Range::V4(block)) => v4.push(Item::of_block(*block, place)),
                Source::Range(Range::V6(block)) => v6.push(Item::of_block(*block, place)),
                Source::Group(id) => {
                    if let Some(group) = organization.groups.get(id.as_str()) {
                        let intervals = |(first, last): &(_, _)| Item::of(*first, *last, place);
                        v4.extend(group.set().v4.intervals().iter().map(intervals));
                        let intervals = |(first, last): &(_, _)| Item::of(*first, *last, place);
                        v6.extend(group.set().v6.intervals().iter().map(intervals));
                    }
                }
            }
        }
        let mut chains = Chains { rules: &organization.rules, made: Vec::new(), known: HashMap::new() };
        let v4 = Table::new(overlay(v4, &mut chains));
        let v6 = Table::new(overlay(v6, &mut chains));
        Self { v4, v6, chains: chains.made }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "labels are made from this list; a wrong one must not pass as no match"
    )]
    fn chain(&self, label: u32) -> &[u32] {
        &self.chains[(label - FIRST_CHAIN) as usize]
    }
}

/// One interval of one rule.
struct Item<W> {
    first: W,
    last: W,
    place: u32,
}

impl<W: Word> Item<W> {
    fn of(first: W, last: W, place: u32) -> Self {
        Self { first, last, place }
    }

    fn of_block(block: Block<W>, place: u32) -> Self {
        Self { first: block.first(), last: block.last(), place }
    }
}

/// Sweeps over the items from the lowest address up and labels every stretch with the rules that are active in it.
/// A rule's own items must be disjoint. The stable sort is quick on the sorted runs that groups are.
fn overlay<W: Word>(mut items: Vec<Item<W>>, chains: &mut Chains<'_>) -> IntervalMap<W> {
    items.sort_by_key(|item| item.first);
    let mut map = IntervalMap::with_capacity(2 * items.len() + 1);
    map.push(W::MIN, NO_RULE);
    let mut active: BTreeMap<u32, W> = BTreeMap::new();
    let mut ends: BinaryHeap<Reverse<(W, u32)>> = BinaryHeap::new();
    let mut items = items.into_iter().peekable();
    loop {
        let next_first = items.peek().map(|item| item.first);
        let next_after_end = ends.peek().and_then(|Reverse((last, _))| last.next());
        // What ends at the highest address needs no end; the smaller of the two others comes next.
        let at = match (next_first, next_after_end) {
            (Some(first), Some(after)) => first.min(after),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return map,
        };
        while let Some(Reverse((last, place))) = ends.peek().copied()
            && last < at
        {
            ends.pop();
            active.remove(&place);
        }
        while let Some(item) = items.next_if(|item| item.first == at) {
            active.insert(item.place, item.last);
            ends.push(Reverse((item.last, item.place)));
        }
        map.push(at, chains.label(active.keys().copied()));
    }
}

/// Makes labels, each distinct chain once.
struct Chains<'a> {
    rules: &'a [Arc<Rule>],
    made: Vec<Box<[u32]>>,
    known: HashMap<Box<[u32]>, u32>,
}

impl Chains<'_> {
    /// The label for the rules at these places, the first in order first.
    fn label(&mut self, mut places: impl Iterator<Item = u32>) -> u32 {
        let expire_time = |place: u32| self.rules.get(place as usize).and_then(|rule| rule.expire_time);
        let Some(first) = places.next() else { return NO_RULE };
        let Some(mut latest) = expire_time(first) else { return first + 1 };
        let mut chain = vec![first];
        for place in places {
            match expire_time(place) {
                None => {
                    chain.push(place);
                    break;
                }
                Some(time) if time > latest => {
                    latest = time;
                    chain.push(place);
                }
                Some(_) => {}
            }
        }
        let chain = chain.into_boxed_slice();
        if let Some(label) = self.known.get(&chain) {
            return *label;
        }
        let label = FIRST_CHAIN + u32::try_from(self.made.len()).unwrap_or(u32::MAX - FIRST_CHAIN);
        self.made.push(chain.clone());
        self.known.insert(chain, label);
        label
    }
}
