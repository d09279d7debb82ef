//! What the passing of time asks of the policy writer: marking expired rules, undoing what nobody confirmed, and
//! corrections of the decision time.
//!
//! Invariant: a correction is on the record. One that leads back waits until all that has expired is marked, so it revives
//! nothing.
//! Not here: how time follows the wall clock (`clock`).

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::apply::Applier;
use super::change::{ChangeError, Changed};
use super::clock::Due;
use super::expiry;
use super::unconfirmed::Unconfirmed;
use super::writer::{Pending, Writer};
use crate::audit::record::ClockChangedRecord;
use crate::policy::name::Id;

/// The shortest time between the beginnings of two passes over what has expired: each compiles the policies that it
/// concerns, whole.
const EXPIRY_PAUSE: Duration = Duration::from_millis(500);

/// A pass takes one part of the policy writer's time in so many at most; the others are for those who change policies.
const PASS_PARTS: u32 = 3;

/// How many organizations share one sync of the journal.
const ORGANIZATIONS_MAX: usize = 256;

/// How long a pass goes on; the next one follows at once where some organizations are left.
const PASS_MAX: Duration = Duration::from_millis(250);

/// No correction leads back while a rule is about to expire within this time.
const MARGIN: Duration = Duration::from_millis(5);

/// So often at most a correction waits for [`MARGIN`].
const MARGIN_WAITS_MAX: u32 = 50;

impl Writer {
    /// Looks at the clock, and does what has become due.
    pub(super) fn keep_time(&mut self) {
        if self.timekeeping.next_pass.is_none_or(|next| Instant::now() >= next) {
            let begun = Instant::now();
            while self.expire_some() && begun.elapsed() < PASS_MAX {}
            self.timekeeping.next_pass = Some(begun + EXPIRY_PAUSE.max(begun.elapsed() * PASS_PARTS));
        }
        self.undo_unconfirmed();
        self.follow_clock();
        self.keep_clock(false);
    }

    /// At the start, before anything is answered.
    pub(super) fn catch_up(&mut self) {
        // A kill of this run must not make the next one begin with a wall clock that is wrong.
        self.keep_clock(true);
        self.expire();
        self.undo_unconfirmed();
        self.expire();
    }

    /// Keeps the clock across restarts, unless a start would go on from a correction that is not on the record.
    pub(super) fn keep_clock(&self, now: bool) {
        let correction = self.applier.audit.last_correction();
        if correction <= self.applier.audit.newest_sequence() {
            self.applier.clock.keep(now, correction);
        }
    }

    /// Follows the wall clock.
    fn follow_clock(&mut self) {
        let Some(due) = self.applier.clock.follow() else { return };
        if self.applier.audit.queue().check_writable().is_err() {
            return;
        }
        match due {
            Due::Confirmation => return self.confirm_start(),
            Due::Correction { backwards: true } if !self.is_all_marked() => return,
            Due::Correction { .. } => {}
        }
        let clock = &self.applier.clock;
        let (was_settled, passed) = (clock.is_settled(), clock.surely_passed());
        clock.forget_kept();
        let follow = || self.sessions.follow_correction(clock.moment());
        let Some(correction) = self.applier.audit.correct(clock, follow) else { return };
        correction.log();
        if correction.to < correction.from {
            // What a clock that had not settled showed is no reason to mark anything.
            self.timekeeping.expired_to = Some(if was_settled { correction.from } else { passed });
        }
        // What expired between the last pass and the correction, or by the correction.
        self.expire();
    }

    /// The time by which the clock leapt ahead at starts has passed: what was due meanwhile is done.
    fn confirm_start(&mut self) {
        let Applier { clock, audit, state, .. } = &self.applier;
        let follow = |sequence, starts: &[ClockChangedRecord]| self.sessions.confirm(sequence, starts);
        let Some(confirmed) = audit.confirm(clock, follow) else { return };
        let seconds = confirmed.by() / 1_000_000;
        tracing::info!("the wall clock has stayed: the {seconds} s before the start count as passed");
        match Unconfirmed::of(state, clock.moment(), audit) {
            Ok(unconfirmed) => self.applier.unconfirmed = unconfirmed,
            Err(error) => tracing::error!(%error, "changes that wait for a confirmation wait longer than they should"),
        }
        self.expire();
    }

    /// Marks what has expired; false where something stays unmarked or is about to expire.
    fn is_all_marked(&mut self) -> bool {
        self.expire();
        let next = self.applier.expiries.next_in(self.applier.clock.surely_passed());
        let is_soon = next.is_some_and(|next| next < MARGIN);
        let is_overdue = next.is_some_and(|next| next.is_zero());
        if is_overdue || (is_soon && self.timekeeping.waits < MARGIN_WAITS_MAX) {
            self.timekeeping.waits += 1;
            return false;
        }
        self.timekeeping.waits = 0;
        true
    }

    /// Marks what has surely expired. What cannot be written now stays due.
    fn expire(&mut self) {
        while self.expire_some() {}
    }

    /// Whether a correction is in force that is not on the record yet. A crash may undo it, and must not leave its marks.
    fn is_unrecorded(&self) -> bool {
        let Applier { clock, audit, .. } = &self.applier;
        clock.is_settled() && audit.last_correction() > audit.newest_sequence()
    }

    /// Marks what has surely expired in some organizations. True where some are left, and can be written.
    fn expire_some(&mut self) -> bool {
        let now = self.applier.clock.surely_passed();
        let now = self.timekeeping.expired_to.map_or(now, |before| before.max(now));
        let due = self.applier.expiries.first_due(now, ORGANIZATIONS_MAX);
        if due.is_empty() {
            self.timekeeping.expired_to = None;
            return false;
        }
        if !self.writable || self.applier.audit.queue().check_writable().is_err() || self.is_unrecorded() {
            return false;
        }
        let (time, mut pending, mut answers) = (self.applier.clock.now(), Vec::new(), Vec::new());
        for id in due {
            let Some(planned) = self.applier.state.organizations.get(&id).and_then(|of| expiry::plan(of, now, time))
            else {
                self.applier.expiries.set(&id, None);
                continue;
            };
            let (reply, answer) = oneshot::channel();
            pending.push(Pending { planned: Ok(planned), reply });
            answers.push((id, answer));
        }
        self.write(pending);
        let mut are_written = true;
        for (id, mut answer) in answers {
            let answer = answer.try_recv().ok();
            are_written &= matches!(answer, Some(Ok(_)));
            log(&id, answer);
        }
        let is_due = self.applier.expiries.is_due(now);
        if !is_due {
            self.timekeeping.expired_to = None;
        }
        is_due && are_written
    }
}

/// The change itself is logged as every other.
fn log(id: &Id, answer: Option<Result<Changed, ChangeError>>) {
    if let Some(Err(error)) = answer {
        let organization = id.as_str();
        tracing::error!(organization, %error, "expired rules cannot be marked yet: they match nothing meanwhile");
    }
}
