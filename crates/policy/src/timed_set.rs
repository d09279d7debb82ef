//! A set of addresses that changes as time passes: for each address, the moments from now on at which it is in the set.
//!
//! Addresses with the same timeline share it, so what is done to timelines is done once for each distinct one, and what
//! is done to addresses is one pass over intervals.
//!
//! Invariant: the pieces are sorted and disjoint, and two that touch have different timelines. An address outside all
//! pieces is never in the set. So equal sets have the same pieces.
//! Not here: which addresses a firewall allows at which moments (`firewall`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::address::Address;
use super::interned::Interned;
use super::intervals::{IntervalMap, IntervalSet};
use super::ranges::RangeSet;
use super::time::Timestamp;
use super::timeline::{Moment, Period, Timeline};
use super::word::Word;

/// When one of two lists has this many times fewer pieces than the other, each of them is looked up in the other.
const LOPSIDED: usize = 16;

/// Addresses, each at some moments.
#[derive(Clone, Debug, Default)]
pub struct TimedSet {
    v4: Vec<Piece<u32>>,
    v6: Vec<Piece<u128>>,
    timelines: Arc<Vec<Timeline>>,
    horizon: Option<Timestamp>,
}

/// An interval, and the index of the timeline of its addresses, which is not the one that never holds.
#[derive(Clone, Copy, Debug)]
struct Piece<W> {
    first: W,
    last: W,
    timeline: u32,
}

/// The periods in which some address is in a set, each with its addresses.
pub struct ByPeriod {
    v4: Vec<IntervalSet<u32>>,
    v6: Vec<IntervalSet<u128>>,
    /// The timelines that have each period.
    periods: BTreeMap<Period, Vec<u32>>,
}

impl TimedSet {
    /// The set in which an address has the timeline of the number that its label stands for.
    pub(super) fn new(
        (v4, of_v4): (&IntervalMap<u32>, impl Fn(u32) -> Option<u32>),
        (v6, of_v6): (&IntervalMap<u128>, impl Fn(u32) -> Option<u32>),
        timelines: Interned,
    ) -> Self {
        let v4 = joined(v4.iter().map(|(first, last, label)| (first, last, of_v4(label))));
        let v6 = joined(v6.iter().map(|(first, last, label)| (first, last, of_v6(label))));
        let made = Self { v4, v6, timelines: Arc::new(timelines.made), horizon: None };
        match timelines.horizon {
            Some(horizon) => made.cut(horizon),
            None => made,
        }
    }

    /// The moment up to which it is known which addresses are in the set; none where there is no such end. From there on
    /// it is told as just before.
    pub fn horizon(&self) -> Option<Timestamp> {
        self.horizon
    }

    /// The same with a horizon at a moment.
    #[must_use]
    pub fn cut(&self, horizon: Timestamp) -> Self {
        let mut interned = Interned::default();
        let numbers: Vec<_> = self.timelines.iter().map(|timeline| interned.number(timeline.cut(horizon))).collect();
        let number = |number: u32| numbers.get(number as usize).copied().flatten();
        let v4 = joined(self.v4.iter().map(|piece| (piece.first, piece.last, number(piece.timeline))));
        let v6 = joined(self.v6.iter().map(|piece| (piece.first, piece.last, number(piece.timeline))));
        Self { v4, v6, timelines: Arc::new(interned.made), horizon: Some(horizon) }
    }

    /// Addresses that are in the set at every moment.
    pub fn constant(set: &RangeSet) -> Self {
        fn pieces<W: Word>(set: &IntervalSet<W>) -> Vec<Piece<W>> {
            let piece = |(first, last): &(W, W)| Piece { first: *first, last: *last, timeline: 0 };
            set.intervals().iter().map(piece).collect()
        }
        Self {
            v4: pieces(&set.v4),
            v6: pieces(&set.v6),
            timelines: Arc::new(vec![Timeline::constant(true)]),
            horizon: None,
        }
    }

    /// Whether no address is ever in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether some address enters or leaves the set later.
    pub fn changes(&self) -> bool {
        self.timelines.iter().any(|timeline| !timeline.is_always())
    }

    /// When an address is in the set.
    pub fn timeline(&self, address: Address) -> Timeline {
        let number = match address {
            Address::V4(word) => find(&self.v4, word),
            Address::V6(word) => find(&self.v6, word),
        };
        number.and_then(|number| self.timelines.get(number as usize)).cloned().unwrap_or(Timeline::constant(false))
    }

    /// The addresses that are in the set at some moment.
    pub fn ever(&self) -> RangeSet {
        self.where_timeline(|_| true)
    }

    /// The addresses that are in the set at a moment.
    pub fn at(&self, moment: Moment) -> RangeSet {
        let holding: Vec<bool> = self.timelines.iter().map(|timeline| timeline.holds_at(moment)).collect();
        self.where_timeline(|number| holding.get(number as usize).is_some_and(|holds| *holds))
    }

    /// The addresses that are in the set at every moment.
    pub fn always(&self) -> RangeSet {
        self.where_timeline(|number| self.timelines.get(number as usize).is_some_and(Timeline::is_always))
    }

    /// When some address is in the set.
    pub fn somebody(&self) -> Timeline {
        let numbers = self.v4.iter().map(|piece| piece.timeline).chain(self.v6.iter().map(|piece| piece.timeline));
        // Most sets that are asked about have far fewer pieces than there are timelines.
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        Timeline::any(numbers.into_iter().filter_map(|number| self.timelines.get(number as usize)))
    }

    /// The IPv6 addresses from `first` to `last` that are in the set at some moment, in order and with their moments.
    pub fn v6_from_to(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128, &Timeline)> {
        let from = self.v6.partition_point(|piece| piece.last < first);
        let meeting = self.v6.iter().skip(from).take_while(move |piece| piece.first <= last);
        meeting.filter_map(move |piece| {
            let timeline = self.timelines.get(piece.timeline as usize)?;
            Some((piece.first.max(first), piece.last.min(last), timeline))
        })
    }

    fn where_timeline(&self, keep: impl Fn(u32) -> bool) -> RangeSet {
        RangeSet { v4: intervals(&self.v4, &keep), v6: intervals(&self.v6, &keep) }
    }

    /// The part that is in a set.
    #[must_use]
    pub fn within(&self, set: &RangeSet) -> Self {
        Self {
            v4: clipped(&self.v4, &set.v4),
            v6: clipped(&self.v6, &set.v6),
            timelines: Arc::clone(&self.timelines),
            horizon: self.horizon,
        }
    }

    /// The addresses that are in this set, and at that moment not in the other. Both have the same horizon.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut pairs = Pairs { left: &self.timelines, right: &other.timelines, ..Pairs::default() };
        let v4 = differing(&self.v4, &other.v4, &mut pairs);
        let v6 = differing(&self.v6, &other.v6, &mut pairs);
        Self { v4, v6, timelines: Arc::new(pairs.interned.made), horizon: self.horizon }
    }

    /// The periods in which addresses are in the set.
    pub fn by_period(&self) -> ByPeriod {
        let count = self.timelines.len();
        let (v4, v6) = (by_timeline(&self.v4, count), by_timeline(&self.v6, count));
        let mut periods: BTreeMap<Period, Vec<u32>> = BTreeMap::new();
        for ((number, timeline), (of_v4, of_v6)) in (0_u32..).zip(self.timelines.iter()).zip(v4.iter().zip(&v6)) {
            if !of_v4.is_empty() || !of_v6.is_empty() {
                for period in timeline.periods() {
                    periods.entry(period).or_default().push(number);
                }
            }
        }
        ByPeriod { v4, v6, periods }
    }
}

impl ByPeriod {
    /// The periods, those that begin now first.
    pub fn periods(&self) -> impl Iterator<Item = Period> + '_ {
        self.periods.keys().copied()
    }

    /// The addresses that are in the set all through a period, and neither just before nor just after it.
    pub fn set(&self, period: Period) -> RangeSet {
        let numbers = self.periods.get(&period).map_or(&[][..], Vec::as_slice);
        RangeSet { v4: union(&self.v4, numbers), v6: union(&self.v6, numbers) }
    }
}

/// Timelines of which each is one of the left and not of the right, computed once for each pair.
#[derive(Default)]
struct Pairs<'a> {
    left: &'a [Timeline],
    right: &'a [Timeline],
    known: HashMap<(u32, u32), Option<u32>>,
    alone: HashMap<u32, Option<u32>>,
    interned: Interned,
}

impl Pairs<'_> {
    fn number(&mut self, left: u32, right: Option<u32>) -> Option<u32> {
        let of = |list: &[Timeline], number: u32| list.get(number as usize).cloned();
        let Some(right) = right else {
            if let Some(number) = self.alone.get(&left) {
                return *number;
            }
            let number = of(self.left, left).and_then(|timeline| self.interned.number(timeline));
            self.alone.insert(left, number);
            return number;
        };
        if let Some(number) = self.known.get(&(left, right)) {
            return *number;
        }
        let both = self.left.get(left as usize).zip(self.right.get(right as usize));
        let number = both.and_then(|(one, other)| self.interned.number(one.and_not(other)));
        self.known.insert((left, right), number);
        number
    }
}

/// Pieces without those that have no timeline; two that touch and have the same one are one.
fn joined<W: Word>(pieces: impl Iterator<Item = (W, W, Option<u32>)>) -> Vec<Piece<W>> {
    let mut joined: Vec<Piece<W>> = Vec::new();
    for (first, last, timeline) in pieces {
        let Some(timeline) = timeline else { continue };
        match joined.last_mut() {
            Some(piece) if piece.timeline == timeline && piece.last.next() == Some(first) => piece.last = last,
            _ => joined.push(Piece { first, last, timeline }),
        }
    }
    joined
}

fn find<W: Word>(pieces: &[Piece<W>], word: W) -> Option<u32> {
    let piece = pieces.get(pieces.partition_point(|piece| piece.last < word))?;
    (piece.first <= word).then_some(piece.timeline)
}

fn intervals<W: Word>(pieces: &[Piece<W>], keep: impl Fn(u32) -> bool) -> IntervalSet<W> {
    let mut set = IntervalSet::default();
    for piece in pieces.iter().filter(|piece| keep(piece.timeline)) {
        set.push(piece.first, piece.last);
    }
    set
}

/// The parts of the pieces that are in a set. Each of the fewer is looked up among the others where there are far more.
fn clipped<W: Word>(pieces: &[Piece<W>], set: &IntervalSet<W>) -> Vec<Piece<W>> {
    let intervals = set.intervals();
    let clip = |piece: &Piece<W>, (first, last): (W, W)| {
        let (first, last) = (piece.first.max(first), piece.last.min(last));
        (first, last, Some(piece.timeline))
    };
    if intervals.len() * LOPSIDED < pieces.len() {
        let of_interval = |interval: &(W, W)| {
            let from = pieces.partition_point(|piece| piece.last < interval.0);
            let interval = *interval;
            let meeting = pieces.iter().skip(from).take_while(move |piece| piece.first <= interval.1);
            meeting.map(move |piece| clip(piece, interval))
        };
        return joined(intervals.iter().flat_map(of_interval));
    }
    let mut rest = intervals;
    let of_piece = |piece: &Piece<W>| {
        // Both ascend, so the intervals before this piece are before all that follow.
        if pieces.len() * LOPSIDED < intervals.len() {
            rest = rest.get(rest.partition_point(|(_, last)| *last < piece.first)..).unwrap_or_default();
        }
        while let [(_, last), following @ ..] = rest
            && *last < piece.first
        {
            rest = following;
        }
        let piece = *piece;
        rest.iter().take_while(move |(first, _)| *first <= piece.last).map(move |interval| clip(&piece, *interval))
    };
    joined(pieces.iter().flat_map(of_piece))
}

fn differing<W: Word>(left: &[Piece<W>], right: &[Piece<W>], pairs: &mut Pairs<'_>) -> Vec<Piece<W>> {
    let mut rest = right;
    let mut made = Vec::new();
    for piece in left {
        let mut at = Some(piece.first);
        while let Some(first) = at.filter(|first| *first <= piece.last) {
            while let [other, following @ ..] = rest
                && other.last < first
            {
                rest = following;
            }
            let (last, other) = match rest.first() {
                Some(other) if other.first <= first => (other.last, Some(other.timeline)),
                Some(other) => (other.first.previous().unwrap_or(W::MIN), None),
                None => (W::MAX, None),
            };
            let last = last.min(piece.last);
            made.push((first, last, pairs.number(piece.timeline, other)));
            at = last.next();
        }
    }
    joined(made.into_iter())
}

fn by_timeline<W: Word>(pieces: &[Piece<W>], count: usize) -> Vec<IntervalSet<W>> {
    let mut sets = vec![IntervalSet::default(); count];
    for piece in pieces {
        if let Some(set) = sets.get_mut(piece.timeline as usize) {
            set.push(piece.first, piece.last);
        }
    }
    sets
}

/// The union of some of the sets, which are disjoint.
fn union<W: Word>(sets: &[IntervalSet<W>], numbers: &[u32]) -> IntervalSet<W> {
    let of = |number: &u32| sets.get(*number as usize).map_or(&[][..], IntervalSet::intervals);
    let mut all: Vec<(W, W)> = numbers.iter().flat_map(of).copied().collect();
    all.sort_unstable();
    let mut set = IntervalSet::default();
    for (first, last) in all {
        set.push(first, last);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timelines_that_are_too_long_are_cut_at_one_moment() {
        let at = |millis| Moment::At(Timestamp::from_millis(millis));
        let steps = |count: i64| {
            let later = (1..=count).map(move |step| (at(10 * step), step % 2 == 0));
            std::iter::once((Moment::Now, true)).chain(later)
        };
        let mut interned = Interned::default();
        let numbers = [interned.number_at_most(steps(2), 3), interned.number_at_most(steps(9), 3)];
        let map = |start| {
            let mut map = IntervalMap::with_capacity(2);
            map.push(0, 0);
            map.push(start, 1);
            map
        };
        let number = |label: u32| numbers.get(label as usize).copied().flatten();
        let set = TimedSet::new((&map(100), number), (&IntervalMap::uniform(0), number), interned);
        assert_eq!(set.horizon(), Some(Timestamp::from_millis(40)));
        let expected = |count| Timeline::of_steps(steps(count)).cut(Timestamp::from_millis(40));
        assert_eq!(set.timeline(Address::V4(99)), expected(2));
        assert_eq!(set.timeline(Address::V4(100)), expected(9));
        assert_eq!(set.cut(Timestamp::from_millis(15)).timeline(Address::V4(100)), expected(1));
        let (all, early) = (set.ever(), set.at(at(15)));
        assert_eq!((all, early.is_empty()), (RangeSet::full(), true));
    }
}
