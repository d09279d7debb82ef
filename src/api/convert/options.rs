//! What every mutation can ask for besides its change (design.md §3, `ChangeOptions`).
//!
//! Invariant: a gate that this version cannot judge refuses the change; it is never passed over in silence.
//! Not here: the gates themselves, which come with the analysis.

use std::sync::Arc;

use tonic::{Code, Status};

use super::Faults;
use crate::api::status;
use crate::proto::v1::{ChangeOptions, ErrorReason};

/// The options that this version carries out.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Options {
    /// Judge the change and leave it at that.
    pub(in crate::api) validate_only: bool,
    /// Goes on the record.
    pub(in crate::api) comment: Arc<str>,
}

/// Reads the options.
pub(in crate::api) fn options(
    faults: &mut Faults,
    options: Option<ChangeOptions>,
    characters_max: usize,
) -> Result<Options, Status> {
    let ChangeOptions {
        validate_only,
        comment,
        guard_ips,
        max_revocations,
        refuse_open_to_internet,
        override_tests,
        confirm_within,
    } = options.unwrap_or_default();
    let unsupported = [
        ("guard_ips", !guard_ips.is_empty()),
        ("max_revocations", max_revocations.is_some()),
        ("refuse_open_to_internet", refuse_open_to_internet),
        ("override_tests", override_tests),
        ("confirm_within", confirm_within.is_some()),
    ];
    if let Some((name, _)) = unsupported.iter().find(|(_, set)| *set) {
        let message = format!("change option `{name}` is not supported by this version: leave it unset");
        return Err(status::error(Code::Unimplemented, ErrorReason::UnsupportedOption, message));
    }
    let comment = faults.text("options.comment", &comment, characters_max);
    Ok(Options { validate_only, comment })
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
    /// Reads a mask; a path that is not one of `settable` is a fault.
    pub(in crate::api) fn new(faults: &mut Faults, mask: Option<prost_types::FieldMask>, settable: &[&str]) -> Self {
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
