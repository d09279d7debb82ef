//! Segments: intervals of addresses that the same rules contain, and the rules that win in each, one after the other.
//!
//! A sweep over the ranges of all rules yields them. In a segment, at any moment, the first rule that is not expired
//! wins. So a rule wins from the moment when all earlier rules are expired until it expires itself.
//!
//! Invariant: what is said of a segment holds at every moment from the given one on, and nothing is said of those that
//! the sweep did not come to because there were too few steps. Rules are identified by their 0-based index.
//! Not here: how winners follow from matching rules (`stairs`), what of it is a problem (`rules`, `translated`).

use super::ends::{Ends, MaxTree, NEVER};
use super::examined::{Examined, LevelSets};
use super::shadows::{Shadow, Shadows};
use super::sources::{Sources, applies};
use super::stairs::{Piece, Stairs};
use super::steps::Steps;
use crate::intervals::IntervalSet;
use crate::ranges::RangeSet;
use crate::rule::{ConnectionType, Rule};
use crate::time::Timestamp;
use crate::word::Word;

/// Rules that are named as the reason why others never win, in one analysis.
const RELATED_STEPS: u64 = 1_000_000;

/// Where the rules of one family win, for one connection type.
pub(super) struct Segments<W> {
    /// In the order of rules, and of addresses for each.
    pieces: Vec<Piece<W>>,
    /// From this address on nothing is known; none means that all is.
    unknown_from: Option<W>,
    unmatched: Option<(u32, IntervalSet<W>)>,
}

/// The segments of one connection type, or of both where no rule tells them apart.
pub(super) struct TypeSegments {
    pub(super) connection_types: Vec<ConnectionType>,
    pub(super) v4: Segments<u32>,
    v6: Segments<u128>,
    /// For each rule: whether removing it would alter a decision.
    alters: Vec<bool>,
    shadows: Shadows,
    /// The number of intervals of all sources.
    interval_count: usize,
    /// The steps that finding all this took.
    pub(super) steps: Steps,
}

impl TypeSegments {
    /// The segments of every connection type.
    pub(super) fn all(examined: &Examined<'_>, levels: &LevelSets, ends: &Ends) -> Vec<Self> {
        let new = |types: &[ConnectionType]| Self::new(examined, levels, ends, types.to_vec());
        if !examined.snapshot.firewall().tells_types_apart() {
            return vec![new(&ConnectionType::ALL)];
        }
        ConnectionType::ALL.iter().map(|of| new(std::slice::from_ref(of))).collect()
    }

    fn new(examined: &Examined<'_>, levels: &LevelSets, ends: &Ends, connection_types: Vec<ConnectionType>) -> Self {
        let sources = Sources::new(examined, ends, &connection_types);
        let mut alters = vec![false; examined.organization.rules.len()];
        let interval_count = sources.v4.len() + sources.v6.len();
        let steps = Steps::of(examined, interval_count);
        let (mut of_v4, mut of_v6, mut of_shadows, mut related) = (steps, steps, steps, Steps::new(RELATED_STEPS));
        let v4 = Segments::new(ends, &sources, &sources.v4, &levels.permitted.v4, &mut alters, &mut of_v4);
        let v6 = Segments::new(ends, &sources, &sources.v6, &levels.permitted.v6, &mut alters, &mut of_v6);
        let shadows = Shadows::new(&sources, ends, &mut of_shadows, &mut related);
        let mut steps = of_v4;
        for other in [of_v6, of_shadows, related] {
            steps.note(&other);
        }
        Self { connection_types, v4, v6, alters, shadows, interval_count, steps }
    }

    /// The first moment at which some permitted addresses of a family are matched by no rule, and those addresses: of
    /// IPv4, and of IPv6.
    pub(super) fn first_unmatched(&self, ends: &Ends) -> [Option<Unmatched>; 2] {
        let of_v4 = |v4: &IntervalSet<u32>| RangeSet { v4: v4.clone(), ..RangeSet::default() };
        let of_v6 = |v6: &IntervalSet<u128>| RangeSet { v6: v6.clone(), ..RangeSet::default() };
        let v4 = self.v4.unmatched.as_ref().and_then(|(at, set)| Some((ends.time(*at)?, of_v4(set))));
        let v6 = self.v6.unmatched.as_ref().and_then(|(at, set)| Some((ends.time(*at)?, of_v6(set))));
        [v4, v6]
    }

    /// The number of intervals that the rules' sources have, each source counted once.
    pub(super) fn interval_count(&self) -> usize {
        self.interval_count
    }

    /// Whether a rule is among those that the segments are made of.
    pub(super) fn has(&self, rule: &Rule) -> bool {
        applies(rule, &self.connection_types)
    }

    /// Whether removing the rule at an index would alter a decision.
    pub(super) fn alters(&self, index: usize) -> bool {
        self.alters.get(index).copied().unwrap_or_default()
    }

    /// Whether all is known of a rule with this source.
    pub(super) fn knows(&self, source: &RangeSet) -> bool {
        self.v4.knows(&source.v4) && self.v6.knows(&source.v6)
    }

    /// Whether a rule ever wins.
    pub(super) fn shadow(&self, index: usize) -> Shadow<'_> {
        u32::try_from(index).map_or(Shadow::Unknown, |rule| self.shadows.of(rule))
    }

    /// In how many pieces a rule wins.
    pub(super) fn piece_count(&self, index: usize) -> usize {
        self.v4.pieces(index).len() + self.v6.pieces(index).len()
    }

    /// The known addresses at which a rule wins at some moment.
    pub(super) fn won(&self, index: usize) -> RangeSet {
        RangeSet { v4: self.v4.won(index), v6: self.v6.won(index) }
    }
}

/// Addresses that no rule matches, and from which moment on.
pub(super) type Unmatched = (Timestamp, RangeSet);

/// An address at which a source begins or ends, whether it ends, and the source. Beginnings come first: where one rule
/// follows another, what the first one hides does not come out in between.
type Event<W> = (W, bool, usize);

impl<W: Word> Segments<W> {
    fn new(
        ends: &Ends,
        sources: &Sources,
        items: &[(W, W, usize)],
        permitted: &IntervalSet<W>,
        alters: &mut [bool],
        steps: &mut Steps,
    ) -> Self {
        let mut events: Vec<Event<W>> = Vec::with_capacity(2 * items.len());
        for (first, last, source) in items {
            events.push((*first, false, *source));
            events.extend(last.next().map(|after| (after, true, *source)));
        }
        events.sort_unstable();
        let unmatched = unmatched(&events, sources, permitted);
        let mut stairs = Stairs::new(ends);
        let unknown_from = sweep(&events, |at, last, events| {
            let mut sufficed = true;
            for (_, ends, source) in events {
                for rule in sources.rules(*source) {
                    sufficed =
                        sufficed && if *ends { stairs.leave(*rule, at, steps) } else { stairs.enter(*rule, at, steps) };
                }
            }
            sufficed && stairs.settle((at, last), permitted, alters, steps)
        });
        Self { pieces: stairs.finish(unknown_from), unknown_from, unmatched }
    }

    fn knows(&self, source: &IntervalSet<W>) -> bool {
        self.unknown_from.is_none_or(|from| !source.meets(from, W::MAX))
    }

    /// Whether all is known of every rule.
    pub(super) fn is_known(&self) -> bool {
        self.unknown_from.is_none()
    }

    /// The known pieces in which a rule wins, ascending.
    pub(super) fn pieces(&self, index: usize) -> &[Piece<W>] {
        let from = self.pieces.partition_point(|piece| (piece.rule as usize) < index);
        let to = self.pieces.partition_point(|piece| piece.rule as usize <= index);
        self.pieces.get(from..to).unwrap_or_default()
    }

    fn won(&self, index: usize) -> IntervalSet<W> {
        let mut won = IntervalSet::default();
        self.pieces(index).iter().for_each(|piece| won.push(piece.first, piece.last));
        won
    }
}

/// Calls `step` for every segment in which a source begins or ends, with its first and its last address and the events at
/// the first, until it says no. Then tells where that was.
fn sweep<W: Word>(events: &[Event<W>], mut step: impl FnMut(W, W, &[Event<W>]) -> bool) -> Option<W> {
    let mut chunks = events.chunk_by(|(one, ..), (other, ..)| one == other).peekable();
    while let Some(chunk) = chunks.next() {
        let Some((at, ..)) = chunk.first().copied() else { continue };
        let next = chunks.peek().and_then(|next| next.first());
        let last = next.and_then(|(next, ..)| next.previous()).unwrap_or(W::MAX);
        if !step(at, last, chunk) {
            return Some(at);
        }
    }
    None
}

/// The first moment, by its rank, at which some permitted addresses are matched by no rule, and those addresses.
fn unmatched<W: Word>(
    events: &[Event<W>],
    sources: &Sources,
    permitted: &IntervalSet<W>,
) -> Option<(u32, IntervalSet<W>)> {
    let mut matching = MaxTree::new(sources.len());
    let mut found: Option<(u32, IntervalSet<W>)> = None;
    let mut note = |rank: u32, first: W, last: W| {
        if rank == NEVER || found.as_ref().is_some_and(|(known, _)| *known < rank) || !permitted.meets(first, last) {
            return;
        }
        if found.as_ref().is_none_or(|(known, _)| rank < *known) {
            found = Some((rank, IntervalSet::default()));
        }
        if let Some((_, set)) = &mut found {
            set.push(first, last);
        }
    };
    let before = events.first().map_or(Some(W::MAX), |(first, ..)| first.previous());
    if let Some(last) = before {
        note(0, W::MIN, last);
    }
    sweep(events, |at, last, events| {
        for (_, ends, source) in events {
            matching.set(*source, if *ends { 0 } else { sources.latest(*source) });
        }
        note(matching.greatest(), at, last);
        true
    });
    found.map(|(rank, set)| (rank, set.intersection(permitted)))
}
