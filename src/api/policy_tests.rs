//! Policy tests: from requests to mutations and back.
//!
//! Invariant: the decision that a test shows is the answer to a Check at the version that is shown, and so is the moment at
//! which it fails.
//! Not here: refusing changes that break tests (`policy::gates`).

use tonic::{Response, Status};

use super::caller::Caller;
use super::convert::names::{self, organization};
use super::convert::policy_test::{Judged, read_test, to_test};
use super::convert::reader::ReadChange;
use super::node_scope::version;
use super::paging::PageRequest;
use super::{Api, at_revision, status};
use crate::engine::directory::{Published, PublishedCluster};
use crate::policy::breakage::failures;
use crate::policy::forecast::TooCostly;
use crate::policy::plan::Mutation;
use crate::policy::policy_test::PolicyTest;
use crate::policy::time::Timestamp;
use crate::policy::timeline::Moment;
use crate::policy::version::Version;
use crate::proto::v1;

impl Api {
    pub(super) fn read_create_policy_test(&self, request: v1::CreatePolicyTestRequest) -> ReadChange {
        let v1::CreatePolicyTestRequest { parent, policy_test, policy_test_id, options } = request;
        let mut read = self.change_reader(options);
        let parent = organization(&mut read, "parent", &parent);
        let (test, id) = (policy_test.unwrap_or_default(), ("policy_test_id", policy_test_id.as_str()));
        let test = read_test(&mut read, "policy_test", parent.as_ref(), id, (0, test));
        read.change_inside(parent, test.map(|test| Mutation::CreateTest { test }))
    }

    pub(super) async fn create_policy_test(
        &self,
        caller: Caller,
        request: v1::CreatePolicyTestRequest,
    ) -> Result<Response<v1::PolicyTest>, Status> {
        let changed = self.make(caller, self.read_create_policy_test(request)).await?;
        let organization = &changed.view.organization;
        let is_it = |test: &&PolicyTest| changed.object.as_ref() == Some(&test.id);
        let test = organization.tests.iter().find(is_it).ok_or_else(|| status::not_found("the policy test"))?;
        // A new test passes, unless it was created with `override_tests`: then the answer shows what is decided instead.
        let published = self.published(&organization.id)?;
        let (cluster, now) = (self.engine()?.directory().cluster(), self.now()?);
        let (id, test, revision) = (organization.id.clone(), test.clone(), changed.revision);
        let answer = move || {
            let judged = judged(&[&test], &version(&published, &cluster), now);
            at_revision(to_test(id.as_str(), &test, judged.first()), revision)
        };
        self.shared.heavy.run(answer).await
    }

    pub(super) async fn list_policy_tests(
        &self,
        request: v1::ListPolicyTestsRequest,
    ) -> Result<Response<v1::ListPolicyTestsResponse>, Status> {
        let v1::ListPolicyTestsRequest { parent, page_size, page_token } = request;
        let (id, page) = self.page_of_organization("policy tests", &parent, page_size, &page_token)?;
        let published = self.published(&id)?;
        let (cluster, now) = (self.engine()?.directory().cluster(), self.now()?);
        // Judging them takes a pass over all rules where very many rules expire.
        self.shared.heavy.run(move || page_of_tests(&page, &published, &cluster, now)).await
    }

    pub(super) fn read_delete_policy_test(&self, request: v1::DeletePolicyTestRequest) -> ReadChange {
        let v1::DeletePolicyTestRequest { name, options } = request;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::policy_test(&name)).unzip();
        read.change_inside(organization, id.map(|id| Mutation::DeleteTest { id }))
    }

    pub(super) async fn delete_policy_test(
        &self,
        caller: Caller,
        request: v1::DeletePolicyTestRequest,
    ) -> Result<Response<()>, Status> {
        let changed = self.make(caller, self.read_delete_policy_test(request)).await?;
        Ok(at_revision((), changed.revision))
    }

    fn now(&self) -> Result<Timestamp, Status> {
        Ok(self.engine()?.clock().now())
    }
}

fn page_of_tests(
    page: &PageRequest,
    published: &Published,
    cluster: &PublishedCluster,
    now: Timestamp,
) -> Response<v1::ListPolicyTestsResponse> {
    let organization = &published.view.organization;
    let after = |test: &&PolicyTest| page.cursor.as_deref().is_none_or(|cursor| test.id.as_str() > cursor);
    let tests: Vec<&PolicyTest> = organization.tests.iter().filter(after).collect();
    let judged = judged(&tests, &version(published, cluster), now);
    let shown = |(test, judged)| (test, to_test(organization.id.as_str(), test, Some(judged)));
    let tests = tests.into_iter().zip(&judged).map(shown);
    let (tests, more) = page.take(tests, |(_, test)| prost::Message::encoded_len(test));
    let last = tests.last().filter(|_| more);
    let next_page_token = last.map(|(test, _)| page.token(test.id.as_str())).unwrap_or_default();
    let policy_tests = tests.into_iter().map(|(_, test)| test).collect();
    at_revision(v1::ListPolicyTestsResponse { policy_tests, next_page_token }, organization.revision)
}

/// What a version decides about tests from `now` on.
fn judged(tests: &[&PolicyTest], version: &Version<'_>, now: Timestamp) -> Vec<Judged> {
    let failures = failures(tests, version, now);
    let judged = |(test, first): (&&PolicyTest, Result<Option<Moment>, TooCostly>)| {
        let actual = test.actual(version, now);
        let fails_now = actual != test.expected && test.is_on(now);
        let is_later_unknown = first.is_err() && !fails_now;
        let fail_time = match first.ok().flatten() {
            Some(Moment::At(time)) => Some(time),
            Some(Moment::Now) => Some(now),
            None => fails_now.then_some(now),
        };
        Judged { actual, fail_time, is_later_unknown, ended: test.has_ended(now) }
    };
    tests.iter().zip(failures).map(judged).collect()
}
