//! Sets of rules, and what a set decides as its rules expire one after the other.
//!
//! A set is a binary tree over the places of rules in the list, in which equal halves are kept once. Each node knows until
//! when some rule in it is in force, and when what it decides turns over for the last time. So the moments at which the
//! decision of a set turns over are found without visiting the rules between them: policies may have many rules that
//! expire one after the other, and many sets that share nearly all of them.
//!
//! Moments are ranks of expire times: a rule of rank `r` is in force at all ranks below `r`.
//!
//! Invariant: two sets with the same rules have the same number. Each turn takes steps in proportion to the logarithm of
//! the number of rules.
//! Not here: which addresses a set is about (`classes`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::covered::NEVER;

/// The set without rules.
pub(super) const EMPTY: u32 = 0;

/// What took fewer steps is not kept.
const KEPT_STEPS_MIN: u64 = 16;

/// A set without rules decides as the default does.
const DEFAULT_ALLOWS: bool = true;

/// Sets of rules. A set is the number of its root.
pub(super) struct RuleSets {
    nodes: Vec<Node>,
    /// The node of each pair of halves.
    known: HashMap<(u32, u32), u32, Numbers>,
    /// The rules that are in one of two sets and not in both.
    apart: HashMap<(u32, u32), u32, Numbers>,
    /// Half of the rules that a tree has room for; a power of two.
    half: u32,
    /// The nodes that were visited to make sets.
    pub(super) steps: u64,
}

/// Hashes pairs of numbers that are counted here. Nobody chooses them, so no key is needed.
pub(super) type Numbers = BuildHasherDefault<NumbersHasher>;

#[derive(Default)]
pub(super) struct NumbersHasher(u64);

impl Hasher for NumbersHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0.rotate_left(29) ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Clone, Copy)]
struct Node {
    left: u32,
    right: u32,
    /// The rank of the latest expire time in it.
    latest: u32,
    /// The last rank below `latest` from which on it decides otherwise than just before; 0 where there is none.
    last_turn: u32,
    /// Whether it allows from the last turn on.
    allows: bool,
}

const NOTHING: Node = Node { left: EMPTY, right: EMPTY, latest: 0, last_turn: 0, allows: DEFAULT_ALLOWS };

impl RuleSets {
    /// Sets of rules, each given by the rank of its expire time and whether it allows.
    pub(super) fn new(rules: impl ExactSizeIterator<Item = (u32, bool)>) -> Self {
        let half = u32::try_from(rules.len().max(2).next_power_of_two() / 2).unwrap_or(1 << 31);
        // Leaves come first among the nodes.
        let leaves = rules.map(|(latest, allows)| Node { latest, allows, ..NOTHING });
        let nodes = std::iter::once(NOTHING).chain(leaves).collect();
        Self { nodes, known: HashMap::default(), apart: HashMap::default(), half, steps: 0 }
    }

    fn node(&self, number: u32) -> Node {
        self.nodes.get(number as usize).copied().unwrap_or(NOTHING)
    }

    /// The set of rules, which ascend.
    pub(super) fn of_rules(&mut self, rules: &[u32]) -> u32 {
        self.build(rules, self.half)
    }

    fn build(&mut self, rules: &[u32], half: u32) -> u32 {
        match rules {
            [] => EMPTY,
            [rule, ..] if half == 0 => rule + 1,
            _ => {
                let (left, right) = rules.split_at(rules.partition_point(|rule| rule & half == 0));
                let (left, right) = (self.build(left, half / 2), self.build(right, half / 2));
                self.joined(left, right)
            }
        }
    }

    /// The rules that are in one of two sets and not in both. Equal parts and parts that only one has are not visited.
    pub(super) fn apart(&mut self, one: u32, other: u32) -> u32 {
        match (one, other) {
            (EMPTY, set) | (set, EMPTY) => return set,
            (one, other) if one == other => return EMPTY,
            _ => {}
        }
        if let Some(known) = self.apart.get(&(one, other)) {
            return *known;
        }
        let ([of_one, of_other], steps) = ([one, other].map(|number| self.node(number)), self.steps);
        let left = self.apart(of_one.left, of_other.left);
        let right = self.apart(of_one.right, of_other.right);
        let made = self.joined(left, right);
        // What takes few steps is found anew as fast as it is looked up.
        if self.steps > steps + KEPT_STEPS_MIN {
            self.apart.insert((one, other), made);
        }
        made
    }

    fn joined(&mut self, left: u32, right: u32) -> u32 {
        self.steps += 1;
        if (left, right) == (EMPTY, EMPTY) {
            return EMPTY;
        }
        if let Some(known) = self.known.get(&(left, right)) {
            return *known;
        }
        let (first, then) = (self.node(left), self.node(right));
        // The right half decides from the rank on at which nothing of the left half is in force any more.
        let Node { latest, last_turn, allows, .. } = match then {
            then if then.latest <= first.latest => first,
            then if first.latest == 0 || then.last_turn > first.latest => then,
            then if then.allows == first.allows => Node { latest: then.latest, ..first },
            then => Node { last_turn: first.latest, ..then },
        };
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node { left, right, latest, last_turn, allows });
        self.known.insert((left, right), number);
        number
    }

    /// What a set decides from rank 0 on: whether it allows, and from which rank on. Not every step is a turn, but between
    /// two turns there are only some.
    pub(super) fn steps_of(&self, set: u32) -> impl Iterator<Item = (u32, bool)> + '_ {
        let (mut from, mut rest, mut ended) = (0, vec![set], false);
        std::iter::from_fn(move || {
            while let Some(number) = rest.pop() {
                let node = self.node(number);
                if node.latest <= from {
                    continue;
                }
                if node.last_turn <= from {
                    let step = (from, node.allows);
                    from = node.latest;
                    return Some(step);
                }
                rest.push(node.right);
                rest.push(node.left);
            }
            let ends = from != NEVER && !std::mem::replace(&mut ended, true);
            ends.then_some((from, DEFAULT_ALLOWS))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: u32 = 13;

    #[test]
    fn a_set_decides_at_every_rank_as_its_first_rule_in_force_does() {
        let mut seed = 7_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..300 {
            let rules: Vec<(u32, bool)> =
                (0..RULES).map(|_| (if random(8) == 0 { NEVER } else { 1 + random(9) }, random(2) == 0)).collect();
            let mut sets = RuleSets::new(rules.iter().copied());
            let (mut set, mut members) = (EMPTY, 0_u32);
            for _ in 0..20 {
                let changed = random(1 << RULES);
                let listed: Vec<u32> = (0..RULES).filter(|rule| changed >> rule & 1 == 1).collect();
                let other = sets.of_rules(&listed);
                set = sets.apart(set, other);
                members ^= changed;
                let of_members: Vec<u32> = (0..RULES).filter(|rule| members >> rule & 1 == 1).collect();
                assert_eq!(set, sets.of_rules(&of_members));
                let steps: Vec<(u32, bool)> = sets.steps_of(set).collect();
                assert!(steps.is_sorted_by_key(|(from, _)| *from));
                for rank in 0..12 {
                    let first = of_members.iter().map(|rule| rules[*rule as usize]).find(|(end, _)| rank < *end);
                    let told = steps.iter().rev().find(|(from, _)| *from <= rank).map(|(_, allows)| *allows);
                    assert_eq!(told, Some(first.is_none_or(|(_, allows)| allows)), "{rules:?} {members:b} at {rank}");
                }
            }
        }
    }

    #[test]
    fn rules_that_do_alike_one_after_the_other_take_few_steps() {
        let count: u32 = 50_000;
        // A rule that decides first, and then very many that all deny.
        let mut sets = RuleSets::new((0..count).map(|rule| (rule + 1, rule == 0)));
        let all: Vec<u32> = (0..count).collect();
        let set = sets.of_rules(&all);
        let built = sets.steps;
        assert!(sets.steps_of(set).count() < 40);
        // Sets without one of them are made and asked in few steps, too.
        for rule in (1..count).step_by(100) {
            let one = sets.of_rules(&[rule]);
            let without = sets.apart(set, one);
            assert!(sets.steps_of(without).count() < 80);
        }
        assert!(sets.steps - built < 500 * 60, "{}", sets.steps - built);
    }
}
