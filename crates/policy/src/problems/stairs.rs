//! The rules that win at an address, one after the other: each ends later than all before it, so they are stairs.
//!
//! A sweep over the addresses tells which rules begin and end to match. Only the part of the stairs that this alters is
//! made anew: a new rule hides those after it that end no later, and where a rule goes, those that it hid come out.
//!
//! Invariant: between two calls of `settle`, the stairs are those of the matching rules. Whether removing a winner alters
//! a decision depends on the rules from it to the next winner only, because the next one ends later.
//! Not here: the sweep (`segments`).

use std::collections::{BTreeMap, BTreeSet};

use super::ends::{Ends, MaxTree};
use super::steps::Steps;
use crate::intervals::IntervalSet;
use crate::rule::Action;
use crate::word::Word;

/// Addresses at which a rule wins from the same moment on until it expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<W> {
    pub(super) rule: u32,
    /// The rank of the moment from which on it wins.
    pub(super) begin: u32,
    pub(super) first: W,
    pub(super) last: W,
}

/// The winners where the sweep is.
pub(super) struct Stairs<'a, W> {
    ends: &'a Ends,
    /// The matching rules that allow, and those that deny.
    matching: [MaxTree; 2],
    /// The winners, each with the rank from which on it wins, and the address from which on that is so.
    winners: BTreeMap<u32, (u32, W)>,
    /// Winners of which something is to be looked at again.
    touched: BTreeSet<u32>,
    /// Winners of which it is not known whether they alter a decision here.
    open: BTreeSet<u32>,
    pub(super) pieces: Vec<Piece<W>>,
}

impl<'a, W: Word> Stairs<'a, W> {
    pub(super) fn new(ends: &'a Ends) -> Self {
        Self {
            ends,
            matching: [MaxTree::new(ends.len()), MaxTree::new(ends.len())],
            winners: BTreeMap::new(),
            touched: BTreeSet::new(),
            open: BTreeSet::new(),
            pieces: Vec::new(),
        }
    }

    /// The winner before a rule, and the rank of its end.
    fn before(&self, rule: u32) -> Option<(u32, u32)> {
        self.winners.range(..rule).next_back().map(|(winner, _)| (*winner, self.ends.rank(*winner)))
    }

    fn after(&self, rule: u32) -> Option<u32> {
        self.winners.range(rule.saturating_add(1)..).next().map(|(winner, _)| *winner)
    }

    fn match_from(&mut self, rule: u32, rank: u32) {
        let tree = usize::from(self.ends.action(rule) == Action::Deny);
        if let Some(tree) = self.matching.get_mut(tree) {
            tree.set(rule as usize, rank);
        }
    }

    /// The first matching rule from `from` on that ends after `rank`.
    fn next_lasting(&self, from: u32, rank: u32) -> Option<u32> {
        let [allows, denies] = self.matching.each_ref().map(|tree| tree.next_above(from as usize, rank));
        allows.into_iter().chain(denies).min().and_then(|at| u32::try_from(at).ok())
    }

    /// From an address on, a rule matches. Says whether the steps sufficed.
    pub(super) fn enter(&mut self, rule: u32, at: W, steps: &mut Steps) -> bool {
        let rank = self.ends.rank(rule);
        self.match_from(rule, rank);
        let before = self.before(rule);
        self.touched.extend(before.map(|(winner, _)| winner));
        let begin = before.map_or(0, |(_, rank)| rank);
        if rank <= begin {
            return steps.take(1);
        }
        self.winners.insert(rule, (begin, at));
        while let Some(hidden) = self.after(rule).filter(|after| self.ends.rank(*after) <= rank) {
            if !steps.take(1) {
                return false;
            }
            self.remove(hidden, at);
        }
        self.touched.insert(rule);
        self.touched.extend(self.after(rule));
        steps.take(2)
    }

    /// From an address on, a rule does not match any more. Says whether the steps sufficed.
    pub(super) fn leave(&mut self, rule: u32, at: W, steps: &mut Steps) -> bool {
        self.match_from(rule, 0);
        let before = self.before(rule);
        self.touched.extend(before.map(|(winner, _)| winner));
        if !self.winners.contains_key(&rule) {
            return steps.take(1);
        }
        self.remove(rule, at);
        let mut begin = before.map_or(0, |(_, rank)| rank);
        let mut from = rule.saturating_add(1);
        while let Some(next) = self.next_lasting(from, begin) {
            self.touched.insert(next);
            if self.winners.contains_key(&next) {
                break;
            }
            if !steps.take(1) {
                return false;
            }
            self.winners.insert(next, (begin, at));
            begin = self.ends.rank(next);
            from = next.saturating_add(1);
        }
        steps.take(2)
    }

    fn remove(&mut self, rule: u32, at: W) {
        if let Some((begin, since)) = self.winners.remove(&rule) {
            self.close(rule, begin, since, at.previous());
        }
    }

    fn close(&mut self, rule: u32, begin: u32, first: W, last: Option<W>) {
        if let Some(last) = last.filter(|last| first <= *last) {
            self.pieces.push(Piece { rule, begin, first, last });
        }
    }

    /// Looks at what the rules that enter and leave at an address have altered. The stairs stay as they are up to `last`.
    /// Says whether the steps sufficed.
    pub(super) fn settle(
        &mut self,
        (at, last): (W, W),
        permitted: &IntervalSet<W>,
        alters: &mut [bool],
        steps: &mut Steps,
    ) -> bool {
        for rule in std::mem::take(&mut self.touched) {
            let Some((begin, since)) = self.winners.get(&rule).copied() else { continue };
            let now = self.before(rule).map_or(0, |(_, rank)| rank);
            if now != begin {
                self.close(rule, begin, since, at.previous());
                self.winners.insert(rule, (now, at));
            }
            if alters.get(rule as usize) == Some(&false) {
                self.open.insert(rule);
            }
        }
        if self.open.is_empty() || !permitted.meets(at, last) {
            return true;
        }
        for rule in std::mem::take(&mut self.open) {
            if !self.winners.contains_key(&rule) {
                continue;
            }
            let Some(differs) = self.differs(rule, steps) else { return false };
            if let Some(alters) = alters.get_mut(rule as usize).filter(|_| differs) {
                *alters = true;
            }
        }
        true
    }

    /// Whether, at some moment at which a rule wins, those after it decide otherwise. When none of them matches, the
    /// firewall allows. None when there are too few steps.
    fn differs(&self, rule: u32, steps: &mut Steps) -> Option<bool> {
        let action = self.ends.action(rule);
        let [allows, denies] = &self.matching;
        let (same, other) = if action == Action::Allow { (allows, denies) } else { (denies, allows) };
        let end = self.ends.rank(rule);
        let mut begin = self.before(rule).map_or(0, |(_, rank)| rank);
        let first = rule as usize + 1;
        let mut from = first;
        while steps.take(1) {
            let next = other.next_above(from, begin);
            // The rules of the same action before it hide it until then.
            let hidden = same.greatest_of(first, next.unwrap_or(usize::MAX));
            begin = begin.max(hidden);
            if begin >= end {
                return Some(false);
            }
            let Some(next) = next else { return Some(action != Action::Allow) };
            if self.ends.rank(u32::try_from(next).ok()?) > begin {
                return Some(true);
            }
            from = next + 1;
        }
        None
    }

    /// The pieces in the order of rules and addresses. The sweep has come to before an address, or to the end.
    pub(super) fn finish(mut self, before: Option<W>) -> Vec<Piece<W>> {
        let last = before.map_or(Some(W::MAX), W::previous);
        for (rule, (begin, since)) in std::mem::take(&mut self.winners) {
            self.close(rule, begin, since, last);
        }
        self.pieces.sort_unstable_by_key(|piece| (piece.rule, piece.first));
        self.pieces
    }
}
