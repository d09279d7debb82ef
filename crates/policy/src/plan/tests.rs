//! Planning changes of the policy tests, and the confirmation of a change.
//!
//! Invariant: tests stay in ascending order of their ids.
//! Not here: whether a test passes (`gates`).

use super::{PlanError, Task, check_limit};
use crate::change::Delta;
use crate::name::Id;
use crate::policy_test::PolicyTest;

pub(super) const LIMITED: &str = "policy tests of an organization";

impl Task<'_> {
    pub(super) fn create_test(mut self, test: PolicyTest) -> Result<Vec<Delta>, PlanError> {
        let mut tests = self.organization.tests.to_vec();
        let Err(at) = tests.binary_search_by(|known| known.id.cmp(&test.id)) else {
            return Err(PlanError::AlreadyExists(self.test_name(&test.id)));
        };
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

    pub(super) fn confirm(mut self, revision: u64) -> Result<Vec<Delta>, PlanError> {
        self.refuse()?;
        match self.organization.pending.as_deref() {
            Some(pending) if pending.revision == revision => Ok(vec![Delta::Confirm { revision }]),
            _ => Err(PlanError::NothingToConfirm {
                organization: format!("organizations/{}", self.organization.id),
                revision,
            }),
        }
    }

    pub(super) fn test_name(&self, id: &Id) -> String {
        format!("organizations/{}/policyTests/{id}", self.organization.id)
    }
}
