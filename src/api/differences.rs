//! The differences that a change makes to decisions, in messages, as many as fit an answer.
//!
//! Invariant: what matters most is left out last: a whole address family stands before every other range, and a difference
//! about a whole family before every other difference. Every difference is there, with its counts and its widest ranges,
//! before one is there with all of them. An answer says whether something is left out.
//! Not here: finding differences (`policy::impact`).

use std::cmp::Ordering;

use prost::Message;

use super::convert::audit::is_count;
use super::convert::decision::to_connection_type;
use super::convert::to_time;
use super::to_i64;
use crate::engine::prospect::Prospect;
use crate::policy::address::Range;
use crate::policy::impact::{Difference, Impact};
use crate::policy::ranges::RangeSet;
use crate::policy::rule::ConnectionType;
use crate::policy::timeline::{Moment, Period};
use crate::proto::v1;

/// Ranges of one address family that a list of a difference always has room for: it has at most twice as many, where the
/// other family leaves room.
const RANGES_MAX: usize = 5_000;

/// The same as long as not all ranges of all differences fit. The last is for answers with very many differences.
const WIDEST: [usize; 3] = [8, 3, 1];

/// Bytes of all differences of an answer.
const DIFFERENCES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of the objects that an answer shows as altered.
const CHANGES_BYTES_MAX: usize = 1024 * 1024;

/// Differences that are held: more than an answer has room for, as each takes 50 bytes at least.
const HELD_MAX: usize = 40_000;

/// Of so many differences, the widest ranges are held; of those behind them, one range of each family.
const HELD_WIDE_MAX: usize = 4_000;

/// Ranges that are held: more than an answer has room for, as each takes 9 bytes at least.
const HELD_RANGES_MAX: usize = 250_000;

/// Differences so far.
#[derive(Default)]
pub(super) struct Differences {
    held: Vec<Held>,
    held_ranges: usize,
    /// Whether something is left out.
    truncated: bool,
}

/// A difference, with as many ranges as an answer may show.
struct Held {
    node: String,
    connection_type: ConnectionType,
    period: Period,
    permitted: Ranges,
    denied: Ranges,
}

/// The ranges of a set.
struct Ranges {
    v4: Family,
    v6: Family,
}

/// The ranges of an address family.
#[derive(Default)]
struct Family {
    /// The widest ones, the widest first.
    widest: Vec<Range>,
    count: usize,
    /// How much of the family they are, from 0 to 1.
    share: f64,
}

/// What a difference is about: what opens a family to most of its addresses matters most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    OpensFamily,
    ClosesFamily,
    SomeRanges,
}

impl Differences {
    /// Adds all of a prospect.
    pub(super) fn add(&mut self, prospect: &Prospect) {
        for prospected in &prospect.organizations {
            let impact = Impact::new(prospected.before(prospect), prospected.after(prospect), prospect.now);
            self.truncated |= impact.horizon().is_some();
            for Difference { targets, connection_type, period, newly_permitted, newly_denied } in impact.differences() {
                let node = targets.name(&prospected.id);
                let (permitted, denied) = (Ranges::of(&newly_permitted), Ranges::of(&newly_denied));
                let held = Held { node, connection_type, period, permitted, denied };
                self.held_ranges += held.len();
                self.held.push(held);
                if self.held.len() >= 2 * HELD_MAX || self.held_ranges > 2 * HELD_RANGES_MAX {
                    self.compact();
                }
            }
        }
    }

    /// Lets go of what an answer has no room for, whatever is still added.
    fn compact(&mut self) {
        self.held.sort_by(Held::order);
        self.truncated |= self.held.len() > HELD_MAX;
        self.held.truncate(HELD_MAX);
        let mut ranges = 0;
        for (index, held) in self.held.iter_mut().enumerate() {
            if ranges + held.len() > HELD_RANGES_MAX || index >= HELD_WIDE_MAX {
                let [most, _, least] = WIDEST;
                held.keep(if index < HELD_WIDE_MAX { most } else { least });
            }
            ranges += held.len();
        }
        self.held_ranges = ranges;
    }

    /// The differences in the order in which they matter, and whether something is left out.
    pub(super) fn finish(mut self) -> (Vec<v1::AccessDifference>, bool) {
        self.held.sort_by(Held::order);
        let mut items: Vec<v1::AccessDifference> = Vec::new();
        let mut bytes = 0;
        for widest in WIDEST {
            items = self.held.iter().map(|held| held.message(widest)).collect();
            bytes = items.iter().map(size).sum();
            if bytes <= DIFFERENCES_BYTES_MAX {
                break;
            }
        }
        while bytes > DIFFERENCES_BYTES_MAX
            && let Some(last) = items.pop()
        {
            bytes -= size(&last);
            self.truncated = true;
        }
        for (item, held) in items.iter_mut().zip(&self.held) {
            if item.truncated {
                let whole = held.message(RANGES_MAX);
                let with_it = bytes - size(item) + size(&whole);
                if with_it <= DIFFERENCES_BYTES_MAX {
                    (*item, bytes) = (whole, with_it);
                }
            }
            self.truncated |= item.truncated;
        }
        (items, self.truncated)
    }
}

/// As many changes as fit, and whether some are left out or only counted.
pub(super) fn fitting_changes(changes: Vec<v1::ObjectChange>) -> (Vec<v1::ObjectChange>, bool) {
    let (mut bytes, count) = (0, changes.len());
    let fits = |change: &v1::ObjectChange| {
        bytes += change.encoded_len() + 6;
        bytes <= CHANGES_BYTES_MAX
    };
    let taken: Vec<_> = changes.into_iter().take_while(fits).collect();
    let is_cut = taken.len() < count || taken.iter().any(is_count);
    (taken, is_cut)
}

fn size(item: &v1::AccessDifference) -> usize {
    item.encoded_len() + 6
}

impl Held {
    fn len(&self) -> usize {
        self.permitted.len() + self.denied.len()
    }

    fn keep(&mut self, widest: usize) {
        self.permitted.keep(widest);
        self.denied.keep(widest);
    }

    fn rank(&self) -> Rank {
        match (self.permitted.share() >= MOST, self.denied.share() >= MOST) {
            (true, _) => Rank::OpensFamily,
            (false, true) => Rank::ClosesFamily,
            (false, false) => Rank::SomeRanges,
        }
    }

    /// What matters most comes first.
    fn order(&self, other: &Self) -> Ordering {
        let (is_later, other_is_later) = (self.period.from != Moment::Now, other.period.from != Moment::Now);
        let share = |held: &Self| held.permitted.share().max(held.denied.share());
        (self.rank(), is_later).cmp(&(other.rank(), other_is_later)).then_with(|| share(other).total_cmp(&share(self)))
    }

    /// The difference with so many ranges of each family at most.
    fn message(&self, widest: usize) -> v1::AccessDifference {
        let (newly_permitted, newly_denied) = (self.permitted.texts(widest), self.denied.texts(widest));
        let counts = self.permitted.count() + self.denied.count();
        v1::AccessDifference {
            node: self.node.clone(),
            connection_type: to_connection_type(self.connection_type).into(),
            truncated: newly_permitted.len() + newly_denied.len() < counts,
            newly_permitted,
            newly_denied,
            from_time: self.period.from.time().map(to_time),
            to_time: self.period.to.map(to_time),
            newly_permitted_count: self.permitted.counts(),
            newly_denied_count: self.denied.counts(),
        }
    }
}

/// As much of a family counts as the family.
const MOST: f64 = 0.5;

impl Ranges {
    fn of(set: &RangeSet) -> Self {
        let (mut v4, mut v6) = (Family::default(), Family::default());
        for range in set.ranges() {
            match range {
                Range::V6(_) => v6.add(range),
                Range::V4(_) | Range::Any => v4.add(range),
            }
        }
        let mut ranges = Self { v4, v6 };
        ranges.keep(RANGES_MAX);
        ranges
    }

    /// How many ranges of each family there is room for, where a list has room for `widest` of each at least.
    fn room(&self, widest: usize) -> [usize; 2] {
        let room = |other: &Family| widest.max((2 * widest).saturating_sub(other.widest.len()));
        [room(&self.v6), room(&self.v4)]
    }

    fn len(&self) -> usize {
        self.v4.widest.len() + self.v6.widest.len()
    }

    fn keep(&mut self, widest: usize) {
        let [of_v4, of_v6] = self.room(widest);
        self.v4.keep(of_v4);
        self.v6.keep(of_v6);
    }

    fn count(&self) -> usize {
        self.v4.count + self.v6.count
    }

    fn counts(&self) -> Option<v1::RangeCount> {
        let count = |family: &Family| to_i64(family.count as u64);
        (self.count() > 0).then(|| v1::RangeCount { ipv4_count: count(&self.v4), ipv6_count: count(&self.v6) })
    }

    fn share(&self) -> f64 {
        self.v4.share.max(self.v6.share)
    }

    /// The widest of both families, the widest first.
    fn texts(&self, widest: usize) -> Vec<String> {
        let [of_v4, of_v6] = self.room(widest);
        let shown = self.v4.widest.iter().take(of_v4).chain(self.v6.widest.iter().take(of_v6));
        let mut shown: Vec<Range> = shown.copied().collect();
        shown.sort_by_key(prefix_length);
        shown.iter().map(ToString::to_string).collect()
    }
}

impl Family {
    fn add(&mut self, range: Range) {
        self.widest.push(range);
        self.count += 1;
        self.share += 2f64.powi(-i32::from(prefix_length(&range)));
    }

    /// Keeps no more than the widest.
    fn keep(&mut self, widest: usize) {
        self.widest.sort_by_key(prefix_length);
        if widest < self.widest.len() {
            self.widest.truncate(widest);
            self.widest.shrink_to_fit();
        }
    }
}

fn prefix_length(range: &Range) -> u8 {
    match range {
        Range::Any => 0,
        Range::V4(block) => block.prefix_length(),
        Range::V6(block) => block.prefix_length(),
    }
}
