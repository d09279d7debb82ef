//! The differences that a change makes to decisions, in messages, as many as fit an answer.
//!
//! Invariant: an answer says whether something is left out.
//! Not here: finding differences (`policy::impact`).

use prost::Message;

use super::convert::decision::to_connection_type;
use super::convert::to_time;
use crate::engine::prospect::Prospect;
use crate::policy::impact::{Difference, Impact};
use crate::policy::ranges::RangeSet;
use crate::proto::v1;

/// Ranges that one difference shows of each kind.
const RANGES_MAX: usize = 10_000;

/// Bytes of all differences of an answer.
const DIFFERENCES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of the objects that an answer shows as altered.
const CHANGES_BYTES_MAX: usize = 1024 * 1024;

/// Differences so far.
#[derive(Default)]
pub(super) struct Differences {
    pub(super) items: Vec<v1::AccessDifference>,
    /// Whether something is left out.
    pub(super) truncated: bool,
    bytes: usize,
}

impl Differences {
    /// Adds all of a prospect.
    pub(super) fn add(&mut self, prospect: &Prospect) {
        for prospected in &prospect.organizations {
            let impact = Impact::new(prospected.before(prospect), prospected.after(prospect), prospect.now);
            self.truncated |= impact.horizon().is_some();
            for Difference { targets, connection_type, period, newly_permitted, newly_denied } in impact.differences() {
                let (permitted, permitted_cut) = shown(&newly_permitted);
                let (denied, denied_cut) = shown(&newly_denied);
                let item = v1::AccessDifference {
                    node: targets.name(&prospected.id),
                    connection_type: to_connection_type(connection_type).into(),
                    newly_permitted: permitted,
                    newly_denied: denied,
                    truncated: permitted_cut || denied_cut,
                    from_time: period.from.time().map(to_time),
                    to_time: period.to.map(to_time),
                };
                self.bytes += item.encoded_len() + 6;
                if self.bytes > DIFFERENCES_BYTES_MAX {
                    self.truncated = true;
                    return;
                }
                self.items.push(item);
            }
        }
    }

    /// As many changes as fit.
    pub(super) fn take_changes(&mut self, changes: Vec<v1::ObjectChange>) -> Vec<v1::ObjectChange> {
        let (mut bytes, count) = (0, changes.len());
        let fits = |change: &v1::ObjectChange| {
            bytes += change.encoded_len() + 6;
            bytes <= CHANGES_BYTES_MAX
        };
        let taken: Vec<_> = changes.into_iter().take_while(fits).collect();
        self.truncated |= taken.len() < count;
        taken
    }
}

fn shown(set: &RangeSet) -> (Vec<String>, bool) {
    let mut ranges: Vec<String> = set.ranges().take(RANGES_MAX + 1).map(|range| range.to_string()).collect();
    let cut = ranges.len() > RANGES_MAX;
    ranges.truncate(RANGES_MAX);
    (ranges, cut)
}
