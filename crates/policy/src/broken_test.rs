//! A policy test that a change breaks, and in words what is decided instead (design.md §2.10).
//!
//! Invariant: what is told is what the version after the change decides at the first moment at which the test fails.
//! Not here: which tests break (`breakage`), what a test says (`policy_test`).

use std::fmt::{Display, Formatter, Result, Write};

use super::decision::{Decision, Reason};
use super::name::Id;
use super::policy_test::PolicyTest;
use super::time::Timestamp;
use super::timeline::Moment;
use super::version::Version;

/// The tests that a message names.
const NAMED_MAX: usize = 5;

/// The tests of which a message tells what is decided: nobody reads more, and a message has its bounds.
const TOLD_MAX: usize = 3;

/// A policy test that a change breaks, or that does not hold where the change sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenTest {
    /// Its id.
    pub id: Id,
    /// Whether the change sets it: it is new, or says something else than before.
    pub is_new: bool,
    /// The first moment at which the change makes it fail.
    pub from: Moment,
    /// What must be decided.
    pub expected: Decision,
    /// Why it is decided otherwise at that moment. None where the target does not exist.
    pub reason: Option<Reason>,
    /// The rule that decides then.
    pub rule: Option<Id>,
}

impl BrokenTest {
    pub(super) fn new(
        test: &PolicyTest,
        is_new: bool,
        from: Moment,
        after: Option<&Version<'_>>,
        now: Timestamp,
    ) -> Self {
        let at = from.time().unwrap_or(now);
        let verdict = after.and_then(|after| after.verdict(test.address, test.connection_type, &test.endpoint, at));
        let rule = verdict.and_then(|verdict| verdict.rule).map(|(_, rule)| rule.id.clone());
        let reason = verdict.map(|verdict| verdict.reason);
        Self { id: test.id.clone(), is_new, from, expected: test.expected, reason, rule }
    }

    /// What is expected and what is decided, and why.
    fn told(&self) -> String {
        let Self { id: _, is_new: _, from: _, expected, reason, rule } = self;
        let by = rule.as_ref().map(|id| format!("by rule `{id}`")).unwrap_or_default();
        let why = match reason {
            Some(Reason::AllowRule | Reason::DenyRule) => &by,
            Some(Reason::DefaultAllow) => "because no rule matches",
            Some(Reason::UnknownEndpoint) | None => "because the endpoint is unknown",
            Some(Reason::OutsideCluster) => "because the cluster does not permit the address",
            Some(Reason::OutsideOrganization) => "because the organization does not permit the address",
            Some(Reason::OutsideEndpoint) => "because the access of the endpoint does not permit the address",
        };
        match expected {
            Decision::Allow => format!("must be allowed, and is denied {why}"),
            Decision::Deny => format!("must be denied, and is allowed {why}"),
        }
    }
}

/// Broken tests of an organization in words, without advice.
pub(super) struct Told<'a> {
    pub(super) organization: &'a Id,
    pub(super) broken: &'a [BrokenTest],
}

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (new, kept): (Vec<&BrokenTest>, Vec<_>) = self.broken.iter().partition(|test| test.is_new);
        let (of, many) =
            (format!("of `organizations/{}`", self.organization), |count| if count == 1 { "" } else { "s" });
        if !kept.is_empty() {
            write!(f, "the change breaks {} policy test{} {of}, {}", kept.len(), many(kept.len()), list(&kept)?)?;
        }
        if !new.is_empty() {
            let and = if kept.is_empty() { "" } else { ", and " };
            let does = if new.len() == 1 { "does" } else { "do" };
            write!(f, "{and}{} new policy test{} {of} {does} not hold, {}", new.len(), many(new.len()), list(&new)?)?;
        }
        Ok(())
    }
}

/// The first tests, each from when on it fails, and what is decided then.
fn list(tests: &[&BrokenTest]) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (index, test) in tests.iter().take(NAMED_MAX).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(text, "{comma}`{}`", test.id)?;
        if let Some(time) = test.from.time() {
            write!(text, " from {time} on")?;
        }
        if index < TOLD_MAX {
            write!(text, " ({})", test.told())?;
        }
    }
    let more = if tests.len() > NAMED_MAX { ", …" } else { "" };
    Ok(text + more)
}
