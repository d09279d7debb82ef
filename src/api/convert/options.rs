//! What every mutation can ask for besides its change (design.md §3, `ChangeOptions`).
//!
//! Invariant: an option that is given is applied or refused, never ignored.
//! Not here: the gates themselves (`policy::gates`).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::Faults;
use crate::engine::prospect::GateOptions;
use crate::policy::gates::{GUARD_MAX, Gates};
use crate::proto::v1::ChangeOptions;

/// How long a change may wait for its confirmation.
const CONFIRM_WITHIN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(7 * 24);

/// The options of a change.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Options {
    /// Judge the change without making it.
    pub(in crate::api) validate_only: bool,
    /// Recorded with the change.
    pub(in crate::api) comment: Arc<str>,
    /// The gates that may refuse it.
    pub(in crate::api) gates: GateOptions,
    /// Undo it unless it is confirmed within this time.
    pub(in crate::api) confirm_within: Option<Duration>,
}

impl Options {
    pub(super) fn read(faults: &mut Faults, options: Option<ChangeOptions>, characters_max: usize) -> Self {
        let ChangeOptions {
            validate_only,
            comment,
            guard_ips,
            max_revocations,
            refuse_open_to_internet,
            override_tests,
            confirm_within,
        } = options.unwrap_or_default();
        let comment = faults.text("options.comment", &comment, characters_max);
        let gates = read_gates(faults, "options", &guard_ips, max_revocations, refuse_open_to_internet);
        let confirm_within = confirm_within.and_then(|within| {
            let valid = Duration::try_from(within).ok().filter(|within| CONFIRM_WITHIN.contains(within));
            if valid.is_none() {
                faults.add("options.confirm_within", "must be from 1 second to 7 days");
            }
            valid
        });
        Self { validate_only, comment, gates: GateOptions { gates, override_tests }, confirm_within }
    }
}

/// Reads gates, whose fields are in the message at `field`.
pub(super) fn read_gates(
    faults: &mut Faults,
    field: &str,
    guard_ips: &[String],
    max_revocations: Option<i64>,
    refuse_open_to_internet: bool,
) -> Gates {
    if guard_ips.len() > GUARD_MAX {
        faults.add(format!("{field}.guard_ips"), format!("are {}: give {GUARD_MAX} at most", guard_ips.len()));
    }
    let guard = guard_ips.iter().enumerate().take(GUARD_MAX);
    let guard = guard.filter_map(|(index, ip)| faults.address(&format!("{field}.guard_ips[{index}]"), ip)).collect();
    let max_revocations = max_revocations.map(|max| faults.unsigned(&format!("{field}.max_revocations"), max));
    Gates { guard, max_revocations, refuse_open_to_internet }
}

/// Characters of a wrong path that a message repeats.
const PATH_SHOWN_CHARACTERS_MAX: usize = 64;

/// Which fields of a resource an update names.
pub(in crate::api) enum Mask {
    /// Those that are populated.
    Populated,
    /// All.
    All,
    /// These.
    Paths(Vec<String>),
}

impl Mask {
    /// Reads a mask. A path that is not in `settable` is a fault.
    pub(super) fn read(faults: &mut Faults, mask: Option<prost_types::FieldMask>, settable: &[&str]) -> Self {
        let Some(prost_types::FieldMask { paths }) = mask.filter(|mask| !mask.paths.is_empty()) else {
            return Self::Populated;
        };
        if paths.iter().any(|path| path == "*") {
            if paths.len() > 1 {
                faults.add("update_mask", "`*` stands for all fields: name it alone");
            }
            return Self::All;
        }
        for path in paths.iter().filter(|path| !settable.contains(&path.as_str())) {
            let known = settable.join("`, `");
            let path: String = path.chars().take(PATH_SHOWN_CHARACTERS_MAX).collect();
            faults.add("update_mask", format!("`{path}` cannot be updated: use `*` or some of `{known}`"));
        }
        Self::Paths(paths)
    }

    /// Whether a field is to be set, given whether it is populated.
    pub(in crate::api) fn names(&self, path: &str, populated: bool) -> bool {
        match self {
            Self::Populated => populated,
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|named| named == path),
        }
    }
}
