//! The distinct sources of rules: what many rules name is looked at once.
//!
//! Invariant: the intervals of one source are disjoint and ascend.
//! Not here: which rules win where (`segments`).

use std::collections::HashMap;

use super::ends::Ends;
use super::examined::Examined;
use crate::rule::{ConnectionType, Rule, Source};

/// The distinct sources of the rules that apply to a connection type.
pub(super) struct Sources {
    /// For each source: the rules that have it, of those that can win or come to win when another is removed.
    rules: Vec<Vec<u32>>,
    /// For each source: the two latest ends of its rules, and the rule with the latest.
    latest: Vec<(u32, u32, u32)>,
    /// Each rule with its source.
    in_order: Vec<(u32, usize)>,
    /// Rules that never win because of one before them with the same source.
    hidden: HashMap<u32, u32>,
    /// The intervals of all sources: first address, last address, source.
    pub(super) v4: Vec<(u32, u32, usize)>,
    pub(super) v6: Vec<(u128, u128, usize)>,
}

impl Sources {
    pub(super) fn new(examined: &Examined<'_>, ends: &Ends, connection_types: &[ConnectionType]) -> Self {
        let organization = examined.organization;
        let mut numbers: HashMap<&Source, usize> = HashMap::new();
        let mut sources = Self {
            rules: Vec::new(),
            latest: Vec::new(),
            in_order: Vec::new(),
            hidden: HashMap::new(),
            v4: Vec::new(),
            v6: Vec::new(),
        };
        for (index, rule) in (0_u32..).zip(organization.rules.iter()) {
            if ends.rank(index) == 0 || !applies(rule, connection_types) {
                continue;
            }
            let number = *numbers.entry(&rule.source).or_insert_with(|| {
                let number = sources.rules.len();
                sources.rules.push(Vec::new());
                sources.latest.push((0, 0, 0));
                let set = organization.source_set(&rule.source);
                sources.v4.extend(set.v4.intervals().iter().map(|(first, last)| (*first, *last, number)));
                sources.v6.extend(set.v6.intervals().iter().map(|(first, last)| (*first, *last, number)));
                number
            });
            sources.add(index, ends.rank(index), number);
        }
        sources
    }

    fn add(&mut self, rule: u32, rank: u32, number: usize) {
        let (Some(rules), Some(latest)) = (self.rules.get_mut(number), self.latest.get_mut(number)) else { return };
        self.in_order.push((rule, number));
        let (greatest, second, of) = *latest;
        // After two rules with the same source that end no earlier, it cannot win, even if one of the two is removed.
        if rank > second {
            rules.push(rule);
        }
        if rank > greatest {
            *latest = (rank, greatest, rule);
        } else {
            self.hidden.insert(rule, of);
            *latest = (greatest, second.max(rank), of);
        }
    }

    /// The rules of a source that can win, or come to win when another is removed.
    pub(super) fn rules(&self, source: usize) -> &[u32] {
        self.rules.get(source).map_or(&[], Vec::as_slice)
    }

    /// The rank of the latest end of a source's rules.
    pub(super) fn latest(&self, source: usize) -> u32 {
        self.latest.get(source).map_or(0, |(latest, ..)| *latest)
    }

    /// The number of sources.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rules in order, each with its source.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        self.in_order.iter().copied()
    }

    /// The source of a rule.
    pub(super) fn of_rule(&self, rule: u32) -> Option<usize> {
        let at = self.in_order.partition_point(|(other, _)| *other < rule);
        self.in_order.get(at).filter(|(other, _)| *other == rule).map(|(_, source)| *source)
    }

    /// The rule with the same source because of which a rule never wins.
    pub(super) fn hidden_by(&self, rule: u32) -> Option<u32> {
        self.hidden.get(&rule).copied()
    }
}

/// Whether a rule applies to some of the connection types.
pub(super) fn applies(rule: &Rule, connection_types: &[ConnectionType]) -> bool {
    connection_types.iter().any(|of| rule.connection_types.applies_to(*of))
}
