//! What one or two firewalls decide at many addresses from now on, in a bounded number of steps.
//!
//! Addresses that the same rules contain are decided alike, so each question is answered once for all of them. Which
//! addresses these are is found out only where the compiled chains do not hold all rules that win there.
//!
//! Invariant: an answer is what the firewalls decide at every moment. What would take too many steps has no answer, so that
//! whoever asks can refuse.
//! Not here: allowlists and nodes (`judging`), sets of addresses (`timed_set`).

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::address::Address;
use super::classes::Classes;
use super::firewall::Firewall;
use super::ranges::RangeSet;
use super::rule::{Action, ConnectionType, ConnectionTypes, Rule, Source};
use super::time::Timestamp;
use super::timeline::Moment;
use super::version::Version;

/// The turns of decisions that are looked at to judge one change by one gate.
const STEPS_MAX: u64 = 10_000_000;

/// The question takes too many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many rules expire one after the other")]
pub struct TooCostly;

/// The steps that are left.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Default for Budget {
    fn default() -> Self {
        Self::new(STEPS_MAX)
    }
}

impl Budget {
    /// So many steps.
    pub fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    fn spend(&self) -> Result<(), TooCostly> {
        self.0.set(self.0.get().checked_sub(1).ok_or(TooCostly)?);
        Ok(())
    }
}

/// What is asked about two firewalls at an address: when it holds first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The one before allows, and the one after does not.
    Lost,
    /// The one after allows, and the one before does not.
    Gained,
    /// The one before allows.
    AllowedBefore,
    /// The one after allows.
    AllowedAfter,
    /// The one after denies.
    DeniedAfter,
}

impl Event {
    fn holds(self, before: bool, after: bool) -> bool {
        match self {
            Self::Lost => before && !after,
            Self::Gained => after && !before,
            Self::AllowedBefore => before,
            Self::AllowedAfter => after,
            Self::DeniedAfter => !after,
        }
    }

    /// Whether it is about the firewall before, and about the one after.
    fn concerns(self) -> [bool; 2] {
        match self {
            Self::Lost | Self::Gained => [true; 2],
            Self::AllowedBefore => [true, false],
            Self::AllowedAfter | Self::DeniedAfter => [false, true],
        }
    }
}

/// What one firewall decides from now on, at each address that is asked about.
struct Forecast<'a> {
    firewall: &'a Firewall,
    now: Timestamp,
    /// For each connection type, once it is asked for; none inside where finding them takes too many steps.
    classes: [OnceCell<Option<Classes>>; 2],
}

/// What is decided at an address: equal ones are decided alike at every moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Course {
    /// As a label of the compiled table says.
    Label(u32),
    /// As a set of rules says.
    Set(u32),
}

/// Whether an address is allowed, from step to step. The first is now.
type Steps<'s> = Box<dyn Iterator<Item = (Moment, bool)> + 's>;

type Key = (Event, ConnectionType, [Option<Course>; 2]);

/// Two firewalls, compared at many addresses. None stands for an organization that does not exist: it denies everything.
pub struct Comparison<'a> {
    before: Option<Forecast<'a>>,
    /// None also where it is the same as the one before.
    after: Option<Forecast<'a>>,
    is_same: bool,
    /// The only addresses that are asked about, in order; none where they are not known.
    points: Option<Vec<Address>>,
    known: RefCell<HashMap<Key, Option<Moment>>>,
}

impl<'a> Forecast<'a> {
    fn new(firewall: &'a Firewall, now: Timestamp) -> Self {
        Self { firewall, now, classes: Default::default() }
    }

    fn classes(&self, connection_type: ConnectionType, points: Option<&[Address]>) -> Result<&Classes, TooCostly> {
        let [shell, preview] = &self.classes;
        let of_type = match connection_type {
            ConnectionType::Preview if self.firewall.tells_types_apart() => preview,
            ConnectionType::Shell | ConnectionType::Preview => shell,
        };
        let classes = of_type.get_or_init(|| self.firewall.classes(connection_type, self.now, points));
        classes.as_ref().ok_or(TooCostly)
    }

    fn course(
        &self,
        address: Address,
        connection_type: ConnectionType,
        points: Option<&[Address]>,
    ) -> Result<Course, TooCostly> {
        if let Some(label) = self.firewall.whole_label(address, connection_type) {
            return Ok(Course::Label(label));
        }
        Ok(Course::Set(self.classes(connection_type, points)?.set_of(address)))
    }

    fn steps(&self, course: Course, connection_type: ConnectionType) -> Result<Steps<'_>, TooCostly> {
        Ok(match course {
            Course::Label(label) => Box::new(self.firewall.steps_of_label(label, connection_type, self.now)),
            // They are known, because the course was found among them.
            Course::Set(set) => Box::new(self.classes(connection_type, Some(&[]))?.steps(set)),
        })
    }
}

/// What a rule does: equal where two rules match the same connections, at the same moments, and do the same with them.
type Effect<'a> = (Action, &'a Source, ConnectionTypes, bool, Option<Timestamp>, Option<*const RangeSet>);

/// Whether two firewalls have rules that do the same in the same order, whatever their ids and descriptions are. They
/// decide alike at every moment then.
fn does_the_same(one: &Firewall, other: &Firewall) -> bool {
    fn effect<'a>(firewall: &Firewall, rule: &'a Rule) -> Effect<'a> {
        let set = match &rule.source {
            Source::Range(_) => None,
            Source::Group(id) => firewall.groups.get(id.as_str()).map(|group| Arc::as_ptr(group.set())),
        };
        (rule.action, &rule.source, rule.connection_types, rule.disabled, rule.end(), set)
    }
    let rules = || one.rules.iter().zip(other.rules.iter());
    one.rules.len() == other.rules.len() && rules().all(|(rule, its)| effect(one, rule) == effect(other, its))
}

impl<'a> Comparison<'a> {
    /// Compares two firewalls from `now` on. With `points`, only these addresses can be asked about, and few addresses are
    /// faster.
    pub fn new(
        before: Option<&'a Firewall>,
        after: Option<&'a Firewall>,
        points: Option<Vec<Address>>,
        now: Timestamp,
    ) -> Self {
        let is_same = before.zip(after).is_some_and(|(before, after)| does_the_same(before, after));
        let points = points.map(|mut points| {
            points.sort_unstable();
            points.dedup();
            points
        });
        let forecast = |firewall: &'a Firewall| Forecast::new(firewall, now);
        let (before, after) = (before.map(forecast), after.filter(|_| !is_same).map(forecast));
        Self { before, after, is_same, points, known: RefCell::default() }
    }

    /// Compares the firewalls of two versions at these addresses.
    pub fn of_versions(
        before: Option<&Version<'a>>,
        after: Option<&Version<'a>>,
        points: Vec<Address>,
        now: Timestamp,
    ) -> Self {
        let firewall = |version: &Version<'a>| version.snapshot.firewall();
        Self::new(before.map(firewall), after.map(firewall), Some(points), now)
    }

    /// When something holds first at an address; none where it never does.
    pub fn first(
        &self,
        event: Event,
        address: Address,
        connection_type: ConnectionType,
        budget: &Budget,
    ) -> Result<Option<Moment>, TooCostly> {
        let points = self.points.as_deref();
        if points.is_some_and(|points| points.binary_search(&address).is_err()) {
            return Err(TooCostly);
        }
        if self.is_same && matches!(event, Event::Lost | Event::Gained) {
            return Ok(None);
        }
        let after = if self.is_same { &self.before } else { &self.after };
        let [of_before, of_after] = event.concerns();
        let sides = [self.before.as_ref().filter(|_| of_before), after.as_ref().filter(|_| of_after)];
        let course =
            |side: Option<&Forecast<'_>>| side.map(|side| side.course(address, connection_type, points)).transpose();
        let [before, after] = sides;
        let courses = [course(before)?, course(after)?];
        let key = (event, connection_type, courses);
        if let Some(known) = self.known.borrow().get(&key) {
            return Ok(*known);
        }
        let [of_before, of_after] = courses;
        let before = steps(before.zip(of_before), connection_type)?;
        let after = steps(after.zip(of_after), connection_type)?;
        let first = first(event, before, after, budget)?;
        self.known.borrow_mut().insert(key, first);
        Ok(first)
    }
}

/// The steps of one side; of one that does not exist, that it never allows.
fn steps<'s>(
    side: Option<(&'s Forecast<'_>, Course)>,
    connection_type: ConnectionType,
) -> Result<Steps<'s>, TooCostly> {
    match side {
        Some((side, course)) => side.steps(course, connection_type),
        None => Ok(Box::new(std::iter::once((Moment::Now, false)))),
    }
}

/// The first moment at which something holds of what two firewalls decide.
fn first(event: Event, before: Steps<'_>, after: Steps<'_>, budget: &Budget) -> Result<Option<Moment>, TooCostly> {
    let (mut before, mut after) = (before.peekable(), after.peekable());
    let (mut allowed_before, mut allowed_after) = (false, false);
    loop {
        let next = before.peek().into_iter().chain(after.peek()).map(|(moment, _)| *moment).min();
        let Some(moment) = next else { return Ok(None) };
        budget.spend()?;
        if let Some((_, allows)) = before.next_if(|(of, _)| *of == moment) {
            allowed_before = allows;
        }
        if let Some((_, allows)) = after.next_if(|(of, _)| *of == moment) {
            allowed_after = allows;
        }
        if event.holds(allowed_before, allowed_after) {
            return Ok(Some(moment));
        }
    }
}
