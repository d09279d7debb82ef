//! Whether something holds, at every moment from now on.
//!
//! Decisions depend on time only by the expire times of rules, so something holds or not between two of them. A timeline
//! is whether it holds now and the moments at which that turns over: few, and compared as a value.
//!
//! Invariant: the moments ascend, and all of them are later than now. So equal timelines are equal values.
//! Not here: which addresses have which timeline (`timed_set`), what holds (`firewall`, `judging`).

use super::time::Timestamp;

/// A moment from now on. Now is before every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// The present moment.
    Now,
    /// A later one.
    At(Timestamp),
}

/// A stretch of time that begins now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// The first moment.
    pub from: Moment,
    /// The first moment after the period; none where it does not end.
    pub to: Option<Timestamp>,
}

/// Whether something holds, from now on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timeline {
    holds_now: bool,
    turns: Box<[Timestamp]>,
}

impl Moment {
    /// The time of a later moment; none for now.
    pub fn time(self) -> Option<Timestamp> {
        match self {
            Self::Now => None,
            Self::At(time) => Some(time),
        }
    }
}

impl Period {
    /// From now on without an end.
    pub const ALWAYS: Self = Self { from: Moment::Now, to: None };
}

impl Timeline {
    /// What always holds, or never does.
    pub fn constant(holds: bool) -> Self {
        Self { holds_now: holds, turns: Box::default() }
    }

    /// What holds from step to step. The first step is the present moment's; the others ascend and are later.
    pub fn of_steps(steps: impl IntoIterator<Item = (Moment, bool)>) -> Self {
        let mut steps = steps.into_iter();
        let holds_now = steps.next().is_some_and(|(_, holds)| holds);
        let (mut turns, mut holds) = (Vec::new(), holds_now);
        for (moment, next) in steps {
            if let Moment::At(time) = moment
                && next != holds
            {
                turns.push(time);
                holds = next;
            }
        }
        Self { holds_now, turns: turns.into() }
    }

    /// What holds before a moment; none stands for no end. The moment is later than now.
    pub fn until(end: Option<Timestamp>) -> Self {
        Self { holds_now: true, turns: end.into_iter().collect() }
    }

    /// Whether it never holds.
    pub fn is_never(&self) -> bool {
        !self.holds_now && self.turns.is_empty()
    }

    /// Whether it holds now and for ever.
    pub fn is_always(&self) -> bool {
        self.holds_now && self.turns.is_empty()
    }

    /// Whether it holds at a moment.
    pub fn holds_at(&self, moment: Moment) -> bool {
        let turned = match moment {
            Moment::Now => 0,
            Moment::At(time) => self.turns.partition_point(|turn| *turn <= time),
        };
        self.holds_now == turned.is_multiple_of(2)
    }

    /// The first moment at which it holds.
    pub fn first(&self) -> Option<Moment> {
        if self.holds_now { Some(Moment::Now) } else { self.turns.first().copied().map(Moment::At) }
    }

    /// The first moment at which it holds that is not before a moment.
    pub fn first_from(&self, moment: Moment) -> Option<Moment> {
        if self.holds_at(moment) {
            return Some(moment);
        }
        let later = self.turns.partition_point(|turn| Moment::At(*turn) <= moment);
        self.turns.get(later).copied().map(Moment::At)
    }

    /// The periods in which it holds, in order. No two of them touch.
    pub fn periods(&self) -> impl Iterator<Item = Period> + '_ {
        let starts = self.holds_now.then_some(Moment::Now).into_iter();
        let mut edges = starts.chain(self.turns.iter().copied().map(Moment::At));
        std::iter::from_fn(move || {
            let from = edges.next()?;
            Some(Period { from, to: edges.next().and_then(Moment::time) })
        })
    }

    /// What holds where this does not.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { holds_now: !self.holds_now, turns: self.turns.clone() }
    }

    /// What holds where both do.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one && other)
    }

    /// What holds where either does.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one || other)
    }

    /// What holds where this does and the other does not.
    #[must_use]
    pub fn and_not(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one && !other)
    }

    /// The same before a moment, and from there on as just before it.
    #[must_use]
    pub fn cut(&self, at: Timestamp) -> Self {
        let turns = self.turns.iter().copied().take_while(|turn| *turn < at).collect();
        Self { holds_now: self.holds_now, turns }
    }

    /// How often it turns over.
    pub fn turns(&self) -> &[Timestamp] {
        &self.turns
    }

    /// What holds as `holds` says of whether each of two holds.
    #[must_use]
    pub fn combined(&self, other: &Self, holds: impl Fn(bool, bool) -> bool) -> Self {
        let (mut one_holds, mut other_holds) = (self.holds_now, other.holds_now);
        let (mut one, mut two) = (self.turns.iter().copied().peekable(), other.turns.iter().copied().peekable());
        let later = std::iter::from_fn(|| {
            let time = match (one.peek(), two.peek()) {
                (Some(time), Some(other)) => *time.min(other),
                (Some(time), None) | (None, Some(time)) => *time,
                (None, None) => return None,
            };
            one_holds ^= one.next_if_eq(&time).is_some();
            other_holds ^= two.next_if_eq(&time).is_some();
            Some((Moment::At(time), holds(one_holds, other_holds)))
        });
        let now = (Moment::Now, holds(self.holds_now, other.holds_now));
        Self::of_steps(std::iter::once(now).chain(later))
    }

    /// What holds where any of several does. In the order of all their moments together, however many there are.
    pub fn any<'a>(timelines: impl IntoIterator<Item = &'a Self>) -> Self {
        // A start raises the number of those that hold by one, an end lowers it.
        let mut edges: Vec<(Moment, i64)> = Vec::new();
        for period in timelines.into_iter().flat_map(Self::periods) {
            edges.push((period.from, 1));
            edges.extend(period.to.map(|to| (Moment::At(to), -1)));
        }
        edges.sort_unstable();
        let mut holding = 0;
        let mut steps = vec![(Moment::Now, false)];
        for of_moment in edges.chunk_by(|(one, _), (other, _)| one == other) {
            holding += of_moment.iter().map(|(_, change)| change).sum::<i64>();
            let Some((moment, _)) = of_moment.first() else { continue };
            if *moment == Moment::Now {
                steps.clear();
            }
            steps.push((*moment, holding > 0));
        }
        Self::of_steps(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Moment {
        Moment::At(Timestamp::from_millis(millis))
    }

    /// Every timeline over the moments 1 to 5, and now.
    fn all() -> Vec<Timeline> {
        let of = |bits: u32| {
            let steps = (0..6).map(|step| {
                let moment = if step == 0 { Moment::Now } else { at(i64::from(step)) };
                (moment, bits >> step & 1 == 1)
            });
            Timeline::of_steps(steps)
        };
        (0..64).map(of).collect()
    }

    fn holds(timeline: &Timeline) -> Vec<bool> {
        (0..7).map(|step| timeline.holds_at(if step == 0 { Moment::Now } else { at(step) })).collect()
    }

    #[test]
    fn timelines_combine_at_every_moment_and_equal_ones_are_equal_values() {
        let all = all();
        for (bits, one) in all.iter().enumerate() {
            let expected: Vec<bool> = (0..7).map(|step| bits >> step.min(5) & 1 == 1).collect();
            assert_eq!(holds(one), expected);
            assert_eq!(holds(&one.negated()), expected.iter().map(|holds| !holds).collect::<Vec<_>>());
            let moments = [Moment::Now].into_iter().chain((1..7).map(at));
            let first = moments.zip(&expected).find(|(_, holds)| **holds);
            assert_eq!(one.first(), first.map(|(moment, _)| moment));
            assert_eq!((one.is_never(), one.is_always()), (bits == 0, bits == 63));
            for (other_bits, other) in all.iter().enumerate() {
                assert_eq!(one.and(other), all[bits & other_bits]);
                assert_eq!(one.or(other), all[bits | other_bits]);
                assert_eq!(one.and_not(other), all[bits & !other_bits]);
                assert_eq!(Timeline::any([one, other]), all[bits | other_bits]);
            }
        }
        assert!(Timeline::any([]).is_never());
    }

    #[test]
    fn periods_are_as_long_as_they_can_be() {
        let steps = [(Moment::Now, true), (at(1), true), (at(2), false), (at(3), true)];
        let periods: Vec<Period> = Timeline::of_steps(steps).periods().collect();
        let expected =
            [Period { from: Moment::Now, to: Some(Timestamp::from_millis(2)) }, Period { from: at(3), to: None }];
        assert_eq!(periods, expected);
        assert_eq!(Timeline::constant(true).periods().collect::<Vec<_>>(), [Period::ALWAYS]);
        assert_eq!(Timeline::constant(false).periods().next(), None);
        assert!(Timeline::until(None).is_always());
    }
}
