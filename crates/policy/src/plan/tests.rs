//! Planning changes of the policy tests.
//!
//! Invariant: tests stay in ascending order of their ids.
//! Not here: whether a test passes (`judging`).

use super::error::PlanError;
use super::task::{Task, check_limit};
use crate::change::Delta;
use crate::name::{Id, Name};
use crate::policy_test::PolicyTest;

pub(super) const LIMITED: &str = "policy tests of an organization";

impl Task<'_> {
    pub(super) fn create_test(mut self, test: PolicyTest) -> Result<Vec<Delta>, PlanError> {
        let mut tests = self.organization.tests.to_vec();
        let Err(at) = tests.binary_search_by(|known| known.id.cmp(&test.id)) else {
            return Err(PlanError::AlreadyExists(self.test_name(&test.id)));
        };
        if test.end_time.is_some_and(|end| end <= self.planner.now) {
            let description = "has passed, so the test would say nothing: give a later moment, or leave it out";
            self.violation("policy_test.end_time", description);
        }
        self.refuse()?;
        check_limit(LIMITED, tests.len() + 1, self.planner.limits.tests_per_organization_max)?;
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

    fn test_name(&self, id: &Id) -> String {
        Name::policy_test(&self.organization.id, id).to_string()
    }
}
