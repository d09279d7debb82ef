//! When rules end and what they decide, close together in memory; and trees over the ends of rules.
//!
//! Invariant: ends compare as their ranks do. Rank 0 is that of what does not match: disabled and expired rules.
//! Not here: which rules match where (`segments`).

use super::examined::Examined;
use crate::rule::Action;
use crate::time::Timestamp;
use crate::timeline::Moment;

/// The rank of a rule that does not expire.
pub(super) const NEVER: u32 = u32::MAX;

/// The ends and the actions of all rules, by their 0-based indexes.
pub(super) struct Ends {
    now: Timestamp,
    times: Vec<Timestamp>,
    rules: Vec<(u32, Action)>,
}

impl Ends {
    pub(super) fn new(examined: &Examined<'_>) -> Self {
        let (rules, now) = (&examined.organization.rules, examined.now);
        let ends = rules.iter().filter(|rule| !rule.disabled).filter_map(|rule| rule.end());
        let mut times: Vec<Timestamp> = ends.filter(|time| *time > now).collect();
        times.sort_unstable();
        times.dedup();
        let rank = |end: Option<Timestamp>| match end {
            None => NEVER,
            Some(time) if time <= now => 0,
            Some(time) => u32::try_from(1 + times.partition_point(|other| *other < time)).unwrap_or(NEVER - 1),
        };
        let of_rule = |rule: &crate::rule::Rule| if rule.disabled { 0 } else { rank(rule.end()) };
        let rules = rules.iter().map(|rule| (of_rule(rule), rule.action)).collect();
        Self { now, times, rules }
    }

    /// The number of rules.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rank of a rule's end.
    pub(super) fn rank(&self, rule: u32) -> u32 {
        self.rules.get(rule as usize).map_or(0, |(rank, _)| *rank)
    }

    /// What a rule decides.
    pub(super) fn action(&self, rule: u32) -> Action {
        self.rules.get(rule as usize).map_or(Action::Allow, |(_, action)| *action)
    }

    /// The time of a rank; none where that is no end.
    pub(super) fn time(&self, rank: u32) -> Option<Timestamp> {
        match rank.checked_sub(1) {
            None => Some(self.now),
            Some(at) => self.times.get(at as usize).copied(),
        }
    }

    /// The moment of a rank, of which 0 is now.
    pub(super) fn moment(&self, rank: u32) -> Moment {
        self.time(rank).filter(|_| rank > 0).map_or(Moment::Now, Moment::At)
    }
}

/// A rank for each of some places, of which the greatest are found by halving.
pub(super) struct MaxTree {
    size: usize,
    nodes: Vec<u32>,
}

impl MaxTree {
    pub(super) fn new(places: usize) -> Self {
        let size = places.max(1).next_power_of_two();
        Self { size, nodes: vec![0; 2 * size] }
    }

    fn node(&self, at: usize) -> u32 {
        self.nodes.get(at).copied().unwrap_or_default()
    }

    /// The greatest rank.
    pub(super) fn greatest(&self) -> u32 {
        self.node(1)
    }

    pub(super) fn set(&mut self, place: usize, rank: u32) {
        let mut at = place + self.size;
        if let Some(leaf) = self.nodes.get_mut(at) {
            *leaf = rank;
        }
        while at > 1 {
            at /= 2;
            let greatest = self.node(2 * at).max(self.node(2 * at + 1));
            if let Some(node) = self.nodes.get_mut(at) {
                *node = greatest;
            }
        }
    }

    /// The first place from `from` on whose rank is above `rank`.
    pub(super) fn next_above(&self, from: usize, rank: u32) -> Option<usize> {
        if from >= self.size {
            return None;
        }
        let mut at = from + self.size;
        while self.node(at) <= rank {
            // Of a right half, the place after it is found further up.
            while at % 2 == 1 {
                at /= 2;
            }
            if at == 0 {
                return None;
            }
            at += 1;
        }
        while at < self.size {
            at *= 2;
            if self.node(at) <= rank {
                at += 1;
            }
        }
        Some(at - self.size)
    }

    /// The greatest rank of the places from `from` to before `to`.
    pub(super) fn greatest_of(&self, from: usize, to: usize) -> u32 {
        let (mut from, mut to) = (from.min(self.size) + self.size, to.min(self.size) + self.size);
        let mut greatest = 0;
        while from < to {
            if from % 2 == 1 {
                greatest = greatest.max(self.node(from));
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                greatest = greatest.max(self.node(to));
            }
            from /= 2;
            to /= 2;
        }
        greatest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greatest_ranks_are_found_as_by_looking_at_all() {
        for places in [1_usize, 2, 3, 7, 8, 13] {
            let (mut tree, mut plain) = (MaxTree::new(places), vec![0_u32; places]);
            let mut seed = 1_u32;
            for _ in 0..500 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (place, rank, from) = ((seed >> 8) as usize % places, (seed >> 4) % 10, (seed >> 16) as usize);
                tree.set(place, rank);
                plain[place] = rank;
                let (from, rank) = (from % (places + 2), (seed >> 20) % 10);
                let expected = (from..places).find(|at| plain[*at] > rank);
                assert_eq!(tree.next_above(from, rank), expected);
                let expected = plain.iter().take(place).skip(from).max().copied().unwrap_or_default();
                assert_eq!(tree.greatest_of(from, place), expected);
                assert_eq!(Some(tree.greatest()), plain.iter().max().copied());
            }
        }
    }
}
