//! Timelines, each kept once and known by a number.
//!
//! Invariant: two numbers stand for different timelines, and none for the one that never holds.
//! Not here: which addresses have which timeline (`timed_set`).

use std::collections::HashMap;

use super::time::Timestamp;
use super::timeline::{Moment, Timeline};

/// Distinct timelines, numbered.
#[derive(Default)]
pub(super) struct Interned {
    known: HashMap<Timeline, u32>,
    pub(super) made: Vec<Timeline>,
    /// The first moment that some timeline leaves out.
    pub(super) horizon: Option<Timestamp>,
}

impl Interned {
    /// The number of a timeline; none for the one that never holds.
    pub(super) fn number(&mut self, timeline: Timeline) -> Option<u32> {
        if timeline.is_never() {
            return None;
        }
        if let Some(number) = self.known.get(&timeline) {
            return Some(*number);
        }
        let number = u32::try_from(self.made.len()).ok()?;
        self.made.push(timeline.clone());
        self.known.insert(timeline, number);
        Some(number)
    }

    /// The number of the timeline of steps, of which only so many turns are kept.
    pub(super) fn number_at_most(
        &mut self,
        steps: impl Iterator<Item = (Moment, bool)>,
        turns_max: usize,
    ) -> Option<u32> {
        let (mut last, mut turns, mut end) = (None, 0, None);
        let kept = steps.take_while(|(moment, holds)| {
            turns += usize::from(last.replace(*holds).is_some_and(|last| last != *holds));
            end = moment.time().filter(|_| turns > turns_max);
            end.is_none()
        });
        let timeline = Timeline::of_steps(kept);
        self.horizon = self.horizon.into_iter().chain(end).min();
        self.number(timeline)
    }
}
