//! Lists that come in pages: read whole, or their first items.
//!
//! Invariant: the pages of a list that is read whole belong to one state of it: where it changes meanwhile, it is read
//! again from the start. Lists of which only the first items are read grow at their end alone.
//! Not here: what is listed.

use clap::Args;
use portcullis_client::{CallError, answer};
use prost::{Message, Name};
use tonic::{Code, Response, Status};

use portcullis_proto::v1;

/// The most that a server answers with.
pub(super) const PAGE_SIZE: i32 = 1_000;

/// How often a list that keeps changing is read from the start.
const ATTEMPTS_MAX: usize = 5;

/// How much of a list without a foreseeable end is shown.
#[derive(Args, Debug)]
pub(super) struct LimitArgs {
    /// List at most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
}

/// A page of a list, or the whole list.
pub(super) trait Page: Message + Name + Default {
    /// What is listed.
    type Item;

    /// The name of the list in JSON.
    const ITEMS: &'static str;

    /// What is listed.
    fn items(&self) -> &[Self::Item];

    /// Keeps so many of the items.
    fn truncate(&mut self, count: usize);

    /// The token of the next page; empty in the last one.
    fn token(&mut self) -> &mut String;

    /// Adds the page that comes next.
    fn append(&mut self, next: Self);
}

/// Reads a list whole; `fetch` answers with the page that a size and a token stand for.
pub(super) async fn all<P: Page>(
    mut fetch: impl AsyncFnMut(i32, String) -> Result<Response<P>, Status>,
) -> Result<P, CallError> {
    let mut list = P::default();
    let mut attempts = 1;
    loop {
        match answer(fetch(PAGE_SIZE, list.token().clone()).await) {
            Ok(page) => list.append(page),
            Err(error) if is_aborted(&error) && !list.token().is_empty() && attempts < ATTEMPTS_MAX => {
                list = P::default();
                attempts += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        if list.token().is_empty() {
            return Ok(list);
        }
    }
}

/// Reads the first items of a list, and whether there are more.
pub(super) async fn first<P: Page>(
    limit: u32,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<Response<P>, Status>,
) -> Result<(P, bool), CallError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut list = P::default();
    loop {
        let missing = i32::try_from(limit.saturating_sub(list.items().len())).unwrap_or(PAGE_SIZE);
        let page = answer(fetch(missing.min(PAGE_SIZE), list.token().clone()).await)?;
        list.append(page);
        let count = list.items().len();
        if count >= limit || list.token().is_empty() {
            let more = count > limit || !list.token().is_empty();
            list.truncate(limit);
            list.token().clear();
            return Ok((list, more));
        }
    }
}

/// The list changed since its first page was read.
fn is_aborted(error: &CallError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.code == Code::Aborted)
}

/// A page, its items and their name in JSON, what else is a list, and what the last page says of the whole list.
macro_rules! page {
    ($page:ident, $items:ident: $item:ty = $json:literal $(, lists $($list:ident)+)? $(, last $($last:ident)+)?) => {
        impl Page for v1::$page {
            type Item = $item;

            const ITEMS: &'static str = $json;

            fn items(&self) -> &[$item] {
                &self.$items
            }

            fn truncate(&mut self, count: usize) {
                self.$items.truncate(count);
            }

            fn token(&mut self) -> &mut String {
                &mut self.next_page_token
            }

            fn append(&mut self, next: Self) {
                self.$items.extend(next.$items);
                self.next_page_token = next.next_page_token;
                $($(self.$list.extend(next.$list);)+)?
                $($(self.$last = next.$last;)+)?
            }
        }
    };
}

page!(ListRulesResponse, rules: v1::Rule = "rules", lists problems, last etag revision);
page!(ListAddressGroupsResponse, address_groups: v1::AddressGroup = "addressGroups", lists problems, last etag revision);
page!(ListRangesResponse, ranges: String = "ranges", last etag revision);
page!(ListNodesResponse, nodes: v1::Node = "nodes", lists problems);
page!(ListPermittedRangesResponse, ranges: String = "ranges");
page!(ListProblemsResponse, problems: v1::Problem = "problems", last incomplete);
page!(ListPolicyTestsResponse, policy_tests: v1::PolicyTest = "policyTests");
page!(ListRevisionsResponse, revisions: v1::Revision = "revisions");
page!(ListDivergencesResponse, divergences: v1::Divergence = "divergences");
page!(ListSessionsResponse, sessions: v1::Session = "sessions");
page!(ListAuditRecordsResponse, audit_records: v1::AuditRecord = "auditRecords");
