//! Which rules never win, and which rules before them are why.
//!
//! A tree over the addresses keeps the latest end of the rules so far. A rule never wins exactly where that end is not
//! before its own at any of its addresses.
//!
//! Invariant: what is not known, because there are too few steps, is said to be unknown.
//! Not here: at which addresses the other rules win (`stairs`).

use std::collections::{BTreeSet, HashMap};

use super::ends::Ends;
use super::problem::RELATED_MAX;
use super::sources::Sources;
use super::steps::Steps;
use crate::word::Word;

/// Whether a rule ever wins.
pub(super) enum Shadow<'a> {
    /// It is not known.
    Unknown,
    /// At some address and moment it does.
    Wins,
    /// It never does, because of these rules.
    Never(&'a [u32]),
}

/// The rules that never win.
#[derive(Default)]
pub(super) struct Shadows {
    covering: HashMap<u32, Vec<u32>>,
    unknown: BTreeSet<u32>,
    /// All rules from this one on are unknown.
    unknown_from: Option<u32>,
}

impl Shadows {
    /// Steps are taken from `ends` for finding them, and from `related` for saying why.
    pub(super) fn new(sources: &Sources, ends: &Ends, steps: &mut Steps, related: &mut Steps) -> Self {
        let mut families = [Tree::new(&sources.v4, sources.len()), Tree::new(&sources.v6, sources.len())];
        let mut found = Self::default();
        for (rule, source) in sources.in_order() {
            if let Some(twin) = sources.hidden_by(rule) {
                found.covering.insert(rule, vec![twin]);
                continue;
            }
            if !steps.take(families.iter().map(|tree| tree.runs(source).len()).sum()) {
                found.unknown_from = Some(rule);
                break;
            }
            let rank = ends.rank(rule);
            if families.iter().any(|tree| tree.least(source) < rank) {
                for tree in &mut families {
                    tree.raise(source, rank, rule);
                }
                continue;
            }
            if let Some(one) = one_coverer(&families, sources, source, rank, related) {
                found.covering.insert(rule, vec![one]);
                continue;
            }
            let mut covering = BTreeSet::new();
            if families.iter().all(|tree| tree.add_coverers(source, rank, related, &mut covering)) {
                found.covering.insert(rule, covering.into_iter().collect());
            } else {
                found.unknown.insert(rule);
            }
        }
        found
    }

    pub(super) fn of(&self, rule: u32) -> Shadow<'_> {
        match self.covering.get(&rule) {
            Some(covering) => Shadow::Never(covering),
            None if self.unknown.contains(&rule) || self.unknown_from.is_some_and(|from| from <= rule) => {
                Shadow::Unknown
            }
            None => Shadow::Wins,
        }
    }
}

/// The first of the rules known at one address of a source that ends at `rank` or later and covers all of the source.
fn one_coverer(families: &[Tree; 2], sources: &Sources, source: usize, rank: u32, steps: &mut Steps) -> Option<u32> {
    let of_first = families.iter().find_map(|tree| Some(tree.lasting_at(tree.runs(source).first()?.0, rank)))?;
    of_first.into_iter().find(|rule| {
        let of_rule = sources.of_rule(*rule);
        steps.take(families.iter().map(|tree| tree.runs(source).len()).sum())
            && of_rule.is_some_and(|of_rule| families.iter().all(|tree| tree.covers(of_rule, source)))
    })
}

/// The latest end so far at each elementary interval of a family.
struct Tree {
    nodes: Vec<Node>,
    size: usize,
    /// For each source: the elementary intervals that it holds, as the first and the one after the last.
    runs: Vec<Vec<(usize, usize)>>,
}

#[derive(Clone, Copy, Default)]
struct Node {
    /// The least end below the node, apart from what nodes above it say.
    least: u32,
    /// The latest end of a rule that covers the whole node, and that rule.
    whole: u32,
    rule: u32,
}

/// A node's number, and the elementary intervals below it.
type Place = (usize, usize, usize);

impl Tree {
    fn new<W: Word>(items: &[(W, W, usize)], sources: usize) -> Self {
        let starts = items.iter().flat_map(|(first, last, _)| [Some(*first), last.next()]);
        let mut starts: Vec<W> = starts.flatten().collect();
        starts.sort_unstable();
        starts.dedup();
        let size = starts.len().max(1).next_power_of_two();
        let mut runs = vec![Vec::new(); sources];
        for (first, last, source) in items {
            let run = (starts.partition_point(|at| at < first), starts.partition_point(|at| at <= last));
            runs.get_mut(*source).into_iter().for_each(|runs: &mut Vec<_>| runs.push(run));
        }
        Self { nodes: vec![Node::default(); 2 * size], size, runs }
    }

    fn runs(&self, source: usize) -> &[(usize, usize)] {
        self.runs.get(source).map_or(&[], Vec::as_slice)
    }

    fn node(&self, at: usize) -> Node {
        self.nodes.get(at).copied().unwrap_or_default()
    }

    fn root(&self) -> Place {
        (1, 0, self.size)
    }

    /// The least end at the addresses of a source; the latest of all where it has none of this family.
    fn least(&self, source: usize) -> u32 {
        self.runs(source).iter().map(|run| self.least_of(self.root(), *run)).min().unwrap_or(u32::MAX)
    }

    fn least_of(&self, place: Place, run: (usize, usize)) -> u32 {
        let (at, from, to) = place;
        if run.1 <= from || to <= run.0 {
            return u32::MAX;
        }
        let node = self.node(at);
        if run.0 <= from && to <= run.1 {
            return node.least;
        }
        let [left, right] = halves(place);
        self.least_of(left, run).min(self.least_of(right, run)).max(node.whole)
    }

    fn raise(&mut self, source: usize, rank: u32, rule: u32) {
        for at in 0..self.runs(source).len() {
            if let Some(run) = self.runs(source).get(at).copied() {
                self.raise_below(self.root(), run, rank, rule);
            }
        }
    }

    fn raise_below(&mut self, place: Place, run: (usize, usize), rank: u32, rule: u32) {
        let (at, from, to) = place;
        let mut node = self.node(at);
        if run.1 <= from || to <= run.0 || node.least >= rank {
            return;
        }
        if run.0 <= from && to <= run.1 {
            node = Node { least: node.least.max(rank), whole: rank, rule };
        } else {
            let [left, right] = halves(place);
            self.raise_below(left, run, rank, rule);
            self.raise_below(right, run, rank, rule);
            node.least = self.node(left.0).least.min(self.node(right.0).least).max(node.whole);
        }
        if let Some(place) = self.nodes.get_mut(at) {
            *place = node;
        }
    }

    /// The rules with an end at `rank` or later that are known to cover an elementary interval, in order.
    fn lasting_at(&self, interval: usize, rank: u32) -> BTreeSet<u32> {
        let path = std::iter::successors(Some(self.size + interval), |at| (*at > 1).then_some(*at / 2));
        path.map(|at| self.node(at)).filter(|node| node.whole >= rank).map(|node| node.rule).collect()
    }

    /// Whether one source holds all addresses of another.
    fn covers(&self, source: usize, other: usize) -> bool {
        let runs = self.runs(source);
        self.runs(other).iter().all(|(first, end)| {
            let at = runs.partition_point(|(_, end)| end <= first);
            runs.get(at).is_some_and(|(from, to)| from <= first && end <= to)
        })
    }

    /// Adds rules that end at `rank` or later and together cover a source, all of which such rules cover. Says whether the
    /// steps sufficed.
    fn add_coverers(&self, source: usize, rank: u32, steps: &mut Steps, covering: &mut BTreeSet<u32>) -> bool {
        self.runs(source).iter().all(|run| self.add_below(self.root(), *run, rank, steps, covering))
    }

    fn add_below(
        &self,
        place: Place,
        run: (usize, usize),
        rank: u32,
        steps: &mut Steps,
        covering: &mut BTreeSet<u32>,
    ) -> bool {
        let (at, from, to) = place;
        if run.1 <= from || to <= run.0 || covering.len() >= RELATED_MAX || at >= self.nodes.len() {
            return true;
        }
        let node = self.node(at);
        if node.whole >= rank {
            covering.insert(node.rule);
            return steps.take(1);
        }
        let [left, right] = halves(place);
        steps.take(1)
            && self.add_below(left, run, rank, steps, covering)
            && self.add_below(right, run, rank, steps, covering)
    }
}

fn halves((at, from, to): Place) -> [Place; 2] {
    let middle = from.midpoint(to);
    [(2 * at, from, middle), (2 * at + 1, middle, to)]
}
