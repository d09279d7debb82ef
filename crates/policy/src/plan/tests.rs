//! Planning changes of the policy tests.
//!
//! Invariant: tests stay in ascending order of their ids.
//! Not here: whether a test passes (`judging`).

use std::collections::HashSet;

use super::error::PlanError;
use super::identity::{Symbol, paired};
use super::task::Task;
use crate::address::Address;
use crate::change::Delta;
use crate::decision::Decision;
use crate::document::TestSpec;
use crate::name::{Id, MadeUpKind, Name};
use crate::policy_test::PolicyTest;
use crate::rule::ConnectionType;
use crate::time::Timestamp;

const LIMITED: &str = "policy tests";

/// What makes two tests equal, whatever their ids are.
type Settings<'a> = (Address, ConnectionType, &'a str, Decision, &'a str, Option<Timestamp>);

fn settings_of_test(test: &PolicyTest) -> Settings<'_> {
    let PolicyTest { id: _, address, connection_type, endpoint, expected, description, end_time } = test;
    (*address, *connection_type, endpoint, *expected, description, *end_time)
}

fn settings_of_spec(test: &TestSpec) -> Settings<'_> {
    let TestSpec { index: _, id: _, address, connection_type, endpoint, expected, description, end_time } = test;
    (*address, *connection_type, endpoint, *expected, description, *end_time)
}

impl Task<'_> {
    pub(super) fn create_test(mut self, test: TestSpec) -> Result<Vec<Delta>, PlanError> {
        let mut tests = self.organization.tests.to_vec();
        let id = self.test_id(test.id.clone());
        let test = test.to_test(id);
        let Err(at) = tests.binary_search_by(|known| known.id.cmp(&test.id)) else {
            return Err(PlanError::AlreadyExists(self.test_name(&test.id)));
        };
        if test.has_ended(self.planner.now) {
            let description = "has passed, so the test would say nothing: give a later moment, or leave it out";
            self.violation("policy_test.end_time", description);
        }
        self.refuse()?;
        self.check_own_limit(LIMITED, tests.len() + 1, self.planner.limits.tests_per_organization_max)?;
        tests.insert(at, test);
        Ok(vec![Delta::SetTests { tests }])
    }

    pub(super) fn delete_test(mut self, id: &Id) -> Result<Vec<Delta>, PlanError> {
        let mut tests = self.organization.tests.to_vec();
        let Ok(at) = tests.binary_search_by(|known| known.id.cmp(id)) else {
            return Err(PlanError::NotFound(self.test_name(id)));
        };
        self.refuse()?;
        tests.remove(at);
        Ok(vec![Delta::SetTests { tests }])
    }

    /// The deltas that replace the tests by those of a document.
    pub(super) fn test_list(&mut self, wanted: Vec<TestSpec>) -> Result<Vec<Delta>, PlanError> {
        let present = &self.organization.tests;
        let kept = kept_tests(present, &wanted);
        let given = wanted.iter().filter_map(|test| test.id.as_ref());
        let mut ids = self.list_ids(MadeUpKind::Test, present.iter().map(|test| &test.id), given);
        let mut tests = Vec::with_capacity(wanted.len());
        for (test, kept) in wanted.into_iter().zip(kept) {
            let (index, kept) = (test.index, kept.and_then(|at| present.get(at)));
            let (id, is_repeated) = ids.id(test.id.as_ref(), kept.map(|kept| &kept.id));
            if is_repeated {
                let description = format!("`{}` is named twice: name every test once", self.test_name(&id));
                self.violation(&format!("policy.policy_tests[{index}].name"), description);
            }
            tests.push(test.to_test(id));
        }
        self.check_own_limit(LIMITED, tests.len(), self.planner.limits.tests_per_organization_max)?;
        tests.sort_by(|one, other| one.id.cmp(&other.id));
        let differs = tests != **present;
        Ok(if differs { vec![Delta::SetTests { tests }] } else { Vec::new() })
    }

    fn test_name(&self, id: &Id) -> String {
        Name::policy_test(&self.organization.id, id).to_string()
    }
}

/// For each test of a document, the index of the present test that it is: the one of its id; without an id, one with the
/// same settings whose id the document does not give.
fn kept_tests(present: &[PolicyTest], new: &[TestSpec]) -> Vec<Option<usize>> {
    let named: HashSet<&str> = new.iter().filter_map(|test| test.id.as_ref()).map(Id::as_str).collect();
    let old: Vec<_> = present
        .iter()
        .map(|test| match named.get(test.id.as_str()) {
            Some(id) => Symbol::Named(id),
            None => Symbol::Settings(settings_of_test(test)),
        })
        .collect();
    let new: Vec<_> = new
        .iter()
        .map(|test| match &test.id {
            Some(id) => Some(Symbol::Named(id.as_str())),
            None => Some(Symbol::Settings(settings_of_spec(test))),
        })
        .collect();
    paired(&old, &new)
}
