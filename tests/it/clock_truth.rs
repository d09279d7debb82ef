//! What must hold of time in every schedule of jumps, by the true time.
//!
//! Invariant: nothing is judged by the service's own clock. No live rule expires early and no expired one is revived;
//! sessions, unconfirmed changes and what retention keeps end when their time has passed; a correction is on the record, and
//! comes only after a minute.
//! Not here: what happens in a schedule (`clock_campaign`).

use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::filter::RecordFilter;
use portcullis::audit::record::{ClockChangeCause, Content, Record};
use portcullis::audit::session::SessionId;
use portcullis::engine::audit::AuditError;
use portcullis::policy::decision::Decision;
use portcullis::policy::name::Id;

use crate::audit_engine::settle;
use crate::clock::{Hand, until};
use crate::clock_campaign::Run;
use crate::clock_model::{SECOND, Span, TOLERANCE, Times, correction};

/// How long records are kept, and how old a session becomes.
pub(crate) const KEPT: Duration = Duration::from_hours(2);
const KEPT_MICROS: i64 = 2 * 3_600 * SECOND;
/// Records that may stay, because they share a tile or a unit with younger ones.
const TILES: u64 = 512;

pub(crate) fn micros(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap() * SECOND
}

/// A rule that expires.
#[derive(Clone, Debug)]
pub(crate) struct Ruled {
    id: String,
    ip: String,
    /// In microseconds since 1970.
    end: i64,
    /// It may be marked: there was a moment at which its time had surely passed.
    may: bool,
    /// It must never match again: its time has passed by a clock that had settled.
    must: bool,
    /// It was seen marked.
    marked: bool,
}

impl Ruled {
    pub(crate) fn new(id: String, ip: String, end: i64) -> Self {
        Self { id, ip, end, may: false, must: false, marked: false }
    }
}

pub(crate) struct Model {
    pub(crate) times: Times,
    pub(crate) rules: Vec<Ruled>,
    pub(crate) sessions: Vec<(SessionId, Span)>,
    /// A change that waits: the address that it denies, and when it is undone.
    pub(crate) waiting: Option<(String, Span)>,
    /// Records, each with when it is too old to be kept.
    records: Vec<(u64, Span)>,
    /// The newest record that was read.
    read: u64,
    /// The decision times between which the next records were made.
    between: (i64, i64),
}

impl Model {
    pub(crate) fn new(hand: &Hand) -> Self {
        let times = Times::new(hand);
        let now = times.now();
        let (rules, sessions, records) = (Vec::new(), Vec::new(), Vec::new());
        Self { times, rules, sessions, waiting: None, records, read: 0, between: (now, now) }
    }

    /// Holds what is true at this moment.
    fn hold(&mut self) {
        let now = self.times.now();
        // A correction that is due is in force, or not yet.
        let due = self.times.due().filter(|due| *due > 0);
        let perhaps = now + due.unwrap_or(0);
        let surely = if due.is_some() { perhaps } else { self.times.surely_passed() };
        self.between = (self.between.0.min(now), self.between.1.max(perhaps));
        for rule in &mut self.rules {
            rule.may |= surely >= rule.end - TOLERANCE;
            rule.must |= self.times.is_settled() && now >= rule.end + TOLERANCE;
        }
    }

    fn spans(&mut self) -> impl Iterator<Item = &mut Span> {
        let sessions = self.sessions.iter_mut().map(|(_, span)| span);
        let records = self.records.iter_mut().map(|(_, span)| span);
        sessions.chain(records).chain(self.waiting.iter_mut().map(|(_, span)| span))
    }
}

impl Run {
    pub(crate) fn hold(&mut self) {
        self.model.hold();
    }

    /// The service has started.
    pub(crate) fn started(&mut self, goes_on: bool) {
        self.hold();
        let records = self.read_records();
        // What the last process had put on the record is so; what it had not, is not.
        self.take_over(&records);
        let (until, now) = (self.model.between.1 + TOLERANCE, self.model.times.now());
        // The leap of this start is its first record.
        let is_leap = |content: &Content| match content {
            Content::ClockChanged(change) => change.cause == ClockChangeCause::Start,
            _ => false,
        };
        let before = records.iter().rposition(|record| is_leap(&record.entry.content)).unwrap_or(records.len());
        let is_change = |content: &Content| matches!(content, Content::PolicyChanged(_));
        let owed =
            records[..before].iter().rposition(|record| !is_change(&record.entry.content)).map_or(0, |at| at + 1);
        let owed = if before < records.len() { owed } else { before };
        let newest = |of: &[Arc<Record>]| {
            let times = of.iter().map(|record| record.entry.time.micros()).filter(|time| *time <= until);
            times.max().unwrap_or(self.model.between.0).min(now)
        };
        let (newest, recorded) = (newest(&records[..before]), newest(&records[..owed]));
        let (leap, unknown) = self.model.times.started(goes_on, newest, recorded);
        for span in self.model.spans() {
            span.leap(leap, unknown);
        }
        // Nothing tells what passed since the newest record, and no rule was marked meanwhile.
        for rule in self.model.rules.iter_mut().filter(|_| !goes_on) {
            rule.must = false;
        }
        if self.model.times.is_settled() {
            self.settled();
        }
        self.hold();
        self.check_times(&records);
    }

    fn settled(&mut self) {
        self.model.spans().for_each(Span::settled);
    }

    /// The records that are new.
    fn read_records(&mut self) -> Vec<Arc<Record>> {
        let mut found = Vec::new();
        loop {
            let records = match self.engine().audit().read(self.model.read + 1, usize::MAX) {
                Err(AuditError::Removed { first }) => {
                    self.model.read = first - 1;
                    continue;
                }
                read => read.unwrap(),
            };
            let Some(last) = records.last() else { return found };
            self.model.read = last.sequence;
            found.extend(records);
        }
    }

    /// What was put on the record since is taken over, and no time lies beside.
    fn learn(&mut self) {
        self.hold();
        let records = self.read_records();
        self.take_over(&records);
        self.check_times(&records);
    }

    fn check_times(&mut self, records: &[Arc<Record>]) {
        let (first, last) = self.model.between;
        for record in records {
            let time = record.entry.time.micros();
            // An end has the time at which the session was due.
            let first = if matches!(record.entry.content, Content::SessionEnded(_)) { i64::MIN / 2 } else { first };
            let is_between = (first - TOLERANCE..=last + TOLERANCE).contains(&time);
            assert!(is_between, "{}: a record not from {first} to {last}: {record:?}", self.context());
            self.reached.prunes += usize::from(matches!(record.entry.content, Content::Pruned(_)));
        }
    }

    fn take_over(&mut self, records: &[Arc<Record>]) {
        for record in records {
            if let Some(by) = correction(&record.entry.content) {
                self.corrected(by);
            }
        }
    }

    fn corrected(&mut self, by: i64) {
        let (was_settled, context) = (self.model.times.is_settled(), self.context());
        self.model.times.corrected(by, &context);
        let model = &mut self.model;
        model.spans().for_each(Span::corrected);
        self.hold();
        *(if by > 0 { &mut self.reached.forwards } else { &mut self.reached.backwards }) += 1;
        self.reached.boots_corrected += usize::from(!was_settled);
    }

    /// Lets the service look at the clocks, and holds it against the model.
    pub(crate) async fn look(&mut self) {
        self.watched.looked().await;
        if self.model.times.looked() {
            self.reached.boots_settled += 1;
            self.settled();
        }
        self.hold();
        let context = self.context();
        if let Some(due) = self.model.times.due()
            && (due > 0 || !self.journal_fails)
        {
            let (before, engine) = (self.model.times.now(), self.engine());
            let is_there = |micros: i64| (micros - before - due).abs() <= TOLERANCE;
            let follows = async || is_there(engine.clock().now().micros()).then_some(());
            until(&format!("{context}: a correction by {due} µs"), follows).await;
        }
        settle(self.engine()).await;
        self.learn();
        // The time of a Check is on the record, and that of the newest record outlasts every crash.
        self.ask("203.0.113.9", None).await;
        self.learn();
        let (now, found) = (self.model.times.now(), self.engine().clock().now().micros());
        assert!(
            (found - now).abs() <= TOLERANCE,
            "{context}: it is {now}, and decided by {found}: {:?}",
            self.model.times
        );
        self.model.between = (now, now);
        self.look_at_rules(&context).await;
        self.look_at_deadlines(&context).await;
        self.look_at_retention(&context).await;
    }

    fn is_marked(&self, id: &str) -> bool {
        let organizations = self.engine().directory().organizations_after(None, usize::MAX);
        let mut rules = organizations.iter().flat_map(|published| published.view.organization.rules.iter());
        rules.find(|rule| rule.id.as_str() == id).is_some_and(|rule| rule.expired)
    }

    async fn look_at_rules(&mut self, context: &str) {
        let now = self.model.times.now();
        for index in 0..self.model.rules.len() {
            let rule = self.model.rules[index].clone();
            let (reason, _) = self.ask(&rule.ip, None).await;
            let is_denied = reason.decision() == Decision::Deny;
            let is_over = rule.must || rule.marked || now >= rule.end + TOLERANCE;
            let is_live = now < rule.end - TOLERANCE && !rule.may;
            assert!(!(is_denied && is_over), "{context}: {rule:?} matches at {now}");
            assert!(is_denied || !is_live, "{context}: {rule:?} does not match at {now}");
            let mut is_marked = self.is_marked(&rule.id);
            if is_marked && !rule.may {
                let log = self.engine().audit().list(&RecordFilter::default(), None, 1_000).unwrap().records;
                let changes = log.iter().filter(|record| !matches!(record.entry.content, Content::Decision(_)));
                let told: Vec<_> =
                    changes.map(|record| (record.sequence, record.entry.time, &record.entry.content)).collect();
                panic!("{context}: {rule:?} is marked at {now}: {:?}; {told:?}", self.model.times);
            }
            assert!(is_marked || !rule.marked, "{context}: {rule:?} is no longer marked");
            if rule.must && !is_marked && !self.journal_fails {
                let marked = async || self.is_marked(&rule.id).then_some(());
                until(&format!("{context}: {rule:?} is marked"), marked).await;
                is_marked = true;
            }
            self.reached.marks += usize::from(is_marked && !rule.marked);
            self.model.rules[index].marked = is_marked;
        }
    }

    async fn look_at_deadlines(&mut self, context: &str) {
        let organization = Id::parse("default").unwrap();
        for (id, span) in self.model.sessions.clone() {
            let is_active = || self.engine().sessions().get(&organization, id).is_some();
            let (may, must) = span.has_come(&self.model.times);
            assert!(is_active() || may, "{context}: a session ended early: {span:?}, {:?}", self.model.times);
            if must {
                until(&format!("{context}: the end of a session"), async || (!is_active()).then_some(())).await;
            }
            if !is_active() {
                self.reached.ends += 1;
                self.model.sessions.retain(|(other, _)| *other != id);
            }
        }
        let Some((ip, span)) = self.model.waiting.clone() else { return };
        let waits = async || self.ask(&ip, None).await.0.decision() == Decision::Deny;
        let (may, must) = span.has_come(&self.model.times);
        assert!(waits().await || may, "{context}: a change was undone early: {span:?}, {:?}", self.model.times);
        if must && !self.journal_fails {
            until(&format!("{context}: the undoing: {span:?}, {:?}", self.model.times), async || {
                (!waits().await).then_some(())
            })
            .await;
        }
        if !waits().await {
            self.reached.undone += 1;
            self.model.waiting = None;
        }
    }

    /// What retention keeps is no younger than it says, and no older but for tiles that have begun.
    async fn look_at_retention(&mut self, context: &str) {
        let newest = settle(self.engine()).await;
        let first = || self.engine().audit().first_sequence();
        let Model { times, records, .. } = &self.model;
        for (sequence, span) in records {
            let is_kept = first() <= *sequence;
            assert!(is_kept || span.has_come(times).0, "{context}: record {sequence} went early: {span:?}, {times:?}");
        }
        let is_old = |(sequence, span): &&(u64, Span)| span.has_come(times).1 && *sequence + TILES < newest;
        if let Some((old, _)) = records.iter().rev().find(is_old).filter(|_| times.is_settled()) {
            let goes = async || (first() + TILES > *old).then_some(());
            until(&format!("{context}: record {old} goes"), goes).await;
        }
        self.model.records.push((newest, Span::new(self.model.times.even + KEPT_MICROS)));
    }
}
