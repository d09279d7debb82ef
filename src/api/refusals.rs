//! Calls that were refused, by method, reason and field, told in the log once a minute.
//!
//! Invariant: nothing that a caller sent is kept, neither values nor names of unknown methods. What is counted is bounded,
//! and counting never waits.
//! Not here: the form of the line (`tally`), statuses that end a stream after its first answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};

use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::methods::METHODS;
use crate::locks::IgnorePoison;
use crate::tally;

/// Kinds that are told apart between two lines.
const KINDS_MAX: usize = 256;

/// A field's path is at most so long.
const FIELD_BYTES_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Refusals {
    counted: Mutex<Counted>,
    /// Those for which there was no room, or no time.
    others: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    kinds: HashMap<Kind, u64>,
    since: Instant,
}

/// Which refusals count as one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    method: &'static str,
    reason: String,
    field: String,
}

impl Default for Refusals {
    fn default() -> Self {
        let counted = Counted { kinds: HashMap::new(), since: Instant::now() };
        Self { counted: Mutex::new(counted), others: AtomicU64::new(0) }
    }
}

impl Refusals {
    /// Counts a call of the method with this path.
    pub(super) fn note(&self, path: &str, status: &Status) {
        // A caller that has gone was refused nothing.
        if matches!(status.code(), Code::Ok | Code::Cancelled) {
            return;
        }
        // Made before the lock is taken: while it is held, the others have no time to count theirs.
        let kind = Kind::of(path, status);
        let mut counted = match self.counted.try_lock() {
            Ok(counted) => counted,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.note_other(),
        };
        if let Some(count) = counted.kinds.get_mut(&kind) {
            *count += 1;
        } else if counted.kinds.len() < KINDS_MAX {
            counted.kinds.insert(kind, 1);
        } else {
            self.note_other();
        }
    }

    fn note_other(&self) {
        self.others.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells what was refused since the last call.
    pub fn tell(&self) {
        let mut counted = self.counted.lock().ignore_poison();
        let period = counted.since.elapsed();
        let kinds = std::mem::take(&mut counted.kinds);
        counted.since = Instant::now();
        // Nothing is logged under a lock.
        drop(counted);
        let counts = kinds.into_iter().map(|(kind, count)| (kind.text(), count));
        let others = ("others".to_owned(), self.others.swap(0, Ordering::Relaxed));
        if let Some(line) = tally::line("refused calls", period, counts.chain([others])) {
            tracing::info!("{line}");
        }
    }
}

impl Kind {
    fn of(path: &str, status: &Status) -> Self {
        let method = method_name(path);
        let details = status.get_error_details();
        let reason = details.error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason.clone());
        let field = details.bad_request().and_then(|request| request.field_violations.first());
        let field = field.map(|violation| field_name(&violation.field)).unwrap_or_default();
        Self { method, reason, field }
    }

    fn text(&self) -> String {
        let Self { method, reason, field } = self;
        if field.is_empty() { format!("{method} {reason}") } else { format!("{method} {reason} `{field}`") }
    }
}

/// The name of the method with this path. The path of an unknown one is the caller's text, which is never logged.
pub(super) fn method_name(path: &str) -> &'static str {
    let known = METHODS.iter().find(|method| method.path == path);
    known.and_then(|method| method.path.rsplit('/').next()).unwrap_or("another method")
}

/// A path of fields without what is in brackets; empty where it is no such path.
fn field_name(path: &str) -> String {
    let mut name = String::new();
    let mut in_brackets = false;
    for character in path.chars() {
        match character {
            '[' => in_brackets = true,
            ']' => {
                in_brackets = false;
                name.push_str("[]");
            }
            _ if in_brackets => {}
            'a'..='z' | '0'..='9' | '_' | '.' => name.push(character),
            _ => return String::new(),
        }
    }
    if name.len() > FIELD_BYTES_MAX { String::new() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::methods::CHECK;
    use crate::api::status;

    #[test]
    fn kinds_have_no_text_of_callers() {
        let invalid = status::invalid_field("requests[17].ip", "`ada@example.com` is no address");
        assert_eq!(Kind::of(CHECK, &invalid).text(), "Check INVALID_FIELD `requests[].ip`");
        let unknown = status::not_found("organizations/ada");
        assert_eq!(Kind::of("/ada@example.com/192.0.2.1", &unknown).text(), "another method NOT_FOUND");
        for path in ["ada@example.com", "groups[ada@example.com", &"a".repeat(65), "Rules"] {
            let name = field_name(path);
            assert!(!name.contains("ada") && name.len() <= FIELD_BYTES_MAX, "{path}: {name}");
        }
    }

    #[test]
    fn no_more_kinds_are_kept_than_there_is_room_for() {
        let refusals = Refusals::default();
        for number in 0..1_000 {
            refusals.note(CHECK, &status::invalid_field(&format!("field_{number}"), "wrong"));
        }
        assert_eq!(refusals.counted.lock().unwrap().kinds.len(), KINDS_MAX);
        assert_eq!(refusals.others.load(Ordering::Relaxed), 1_000 - KINDS_MAX as u64);
        refusals.tell();
        assert_eq!(refusals.counted.lock().unwrap().kinds.len(), 0);
    }
}
