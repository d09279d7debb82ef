//! Between the API's messages and the policy's types.
//!
//! Invariant: parsing goes on after the first fault and notes every one with its field's path. Messages are destructured
//! whole, so that a new field breaks the build until somebody decides about it.
//! Not here: what depends on the policy's state, such as whether a group exists (`policy::plan`).

pub(super) mod audit;
pub(super) mod decision;
pub(super) mod names;
pub(super) mod node;
pub(super) mod options;
pub(super) mod policy_test;
pub(super) mod reader;
pub(super) mod rule;

use std::str::FromStr;
use std::sync::Arc;

use tonic::Status;

use super::status;
use crate::policy::address::{Address, Range};
use crate::policy::name::Name;
use crate::policy::plan::Violation;
use crate::policy::rule::Source;
use crate::policy::time::Timestamp;

use names::group_id;

/// What is wrong with a request, so far.
#[derive(Default)]
pub(super) struct Faults {
    violations: Vec<Violation>,
}

/// The most faults that are noted: a request of 16 MiB can have far more than anybody reads.
const FAULTS_MAX: usize = 1_000;

impl Faults {
    /// Notes a fault.
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.violations.len() < FAULTS_MAX {
            self.violations.push(Violation::new(field, description));
        }
    }

    /// Whether nothing more is noted.
    pub(super) fn is_full(&self) -> bool {
        self.violations.len() >= FAULTS_MAX
    }

    /// The faults so far.
    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// All faults.
    pub(super) fn into_violations(self) -> Vec<Violation> {
        self.violations
    }

    /// The value, unless there was a fault.
    pub(super) fn result<T>(self, value: Option<T>) -> Result<T, Status> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(status::invalid(self.violations)),
        }
    }

    /// The value of a field that was read, or a fault.
    pub(super) fn note<T, E: ToString>(&mut self, field: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Parses a field, or notes a fault.
    pub(super) fn parse<T: FromStr<Err: ToString>>(&mut self, field: &str, text: &str) -> Option<T> {
        self.note(field, text.parse())
    }

    /// An address.
    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<Address> {
        self.parse(field, text)
    }

    /// Ranges, each with its index in the path.
    pub(super) fn ranges(&mut self, field: &str, first_index: usize, texts: &[String]) -> Vec<Range> {
        let mut ranges = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match self.parse_item(field, first_index + index, text) {
                Some(range) => ranges.push(range),
                None if self.is_full() => break,
                None => {}
            }
        }
        ranges
    }

    /// Parses an item of a list, or notes a fault.
    pub(super) fn parse_item<T: FromStr<Err: ToString>>(&mut self, field: &str, index: usize, text: &str) -> Option<T> {
        match text.parse() {
            Ok(item) => Some(item),
            Err(error) => {
                let error: T::Err = error;
                self.add(format!("{field}[{index}]"), error.to_string());
                None
            }
        }
    }

    /// Free text of a limited length.
    pub(super) fn text(&mut self, field: &str, text: &str, characters_max: usize) -> Arc<str> {
        let characters = text.chars().count();
        if characters > characters_max {
            self.add(field, format!("has {characters} characters: use {characters_max} at most"));
        }
        text.into()
    }

    /// A required value of an enum. `what` is the kind of value that a message names, `advice` what to use.
    pub(super) fn choice<T, M: TryFrom<i32>>(
        &mut self,
        field: &str,
        value: i32,
        from: impl FnOnce(M) -> Option<T>,
        what: &str,
        advice: &str,
    ) -> Option<T> {
        let fault = match M::try_from(value).map(from) {
            Ok(Some(choice)) => return Some(choice),
            Ok(None) => format!("is required: {advice}"),
            Err(_) => format!("`{value}` is no {what}: {advice}"),
        };
        self.add(field, fault);
        None
    }

    /// A number that cannot be negative.
    pub(super) fn unsigned(&mut self, field: &str, value: i64) -> u64 {
        u64::try_from(value).unwrap_or_else(|_| {
            self.add(field, format!("`{value}` is negative: give 0 or more"));
            0
        })
    }

    /// A position that counts from 1. Whether it is too large depends on the list, and is not checked here.
    pub(super) fn position(&mut self, field: &str, position: i32) {
        if position < 1 {
            self.add(field, format!("`{position}` is not a position: give one from 1 on"));
        }
    }

    /// A moment.
    pub(super) fn time(&mut self, field: &str, time: prost_types::Timestamp) -> Option<Timestamp> {
        let prost_types::Timestamp { seconds, nanos } = time;
        let time = u32::try_from(nanos).ok().and_then(|nanos| Timestamp::new(seconds, nanos));
        if time.is_none() {
            self.add(field, "is not a time between the years 1 and 9999");
        }
        time
    }

    /// A range or a group, under the paths of their own fields.
    pub(super) fn source(&mut self, field: &str, organization: Option<&str>, source: SourceText<'_>) -> Option<Source> {
        match source {
            SourceText::Range(text) => self.parse(&format!("{field}.range"), text).map(Source::Range),
            SourceText::Group(name) => group_id(self, &format!("{field}.address_group"), organization, name),
        }
    }
}

/// The two forms of a source in a message.
#[derive(Clone, Copy)]
pub(super) enum SourceText<'a> {
    Range(&'a str),
    Group(&'a str),
}

/// A source as people name it: its range, or the full name of its group.
pub(super) fn to_source_name(organization: Option<&str>, source: &Source) -> String {
    match source {
        Source::Range(range) => range.to_string(),
        Source::Group(group) => Name::group(organization.unwrap_or(""), group).to_string(),
    }
}

/// A moment as the API has it.
pub(super) fn to_time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds(), nanos: i32::try_from(time.nanos()).unwrap_or_default() }
}
