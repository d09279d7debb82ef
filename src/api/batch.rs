//! `BatchCheck`: many Checks in one call (design.md §3.2).
//!
//! Invariant: answers have the order of the requests. In a batch with a malformed request, none is decided. A Check that
//! is not answered leaves no session open.
//! Not here: single Checks (`decision`), streams of them (`streams`), deciding (`engine::check`).

use tonic::{Response, Status};

use super::decision::{read_question, to_response};
use super::{ANSWER_BYTES_MAX, Api, status};
use crate::engine::question::Question;
use crate::policy::name::NodePath;
use crate::policy::plan::{PlanError, Violation};
use crate::proto::v1::{BatchCheckRequest, BatchCheckResponse, CheckRequest};

/// Requests of a batch.
const BATCH_MAX: usize = 10_000;

/// Violations after which a batch is not read further.
const VIOLATIONS_MAX: usize = 1_000;

/// Bytes of an answer besides the names from the request.
const ANSWER_BYTES: usize = 300;

impl Api {
    pub(super) async fn check_batch(
        &self,
        request: &BatchCheckRequest,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let BatchCheckRequest { requests } = request;
        if requests.len() > BATCH_MAX {
            let (what, max, would_be) = ("requests of a batch".to_owned(), BATCH_MAX, requests.len());
            return Err(status::plan(PlanError::LimitReached { what, max, would_be }));
        }
        let questions = read_batch(requests)?;
        // Checked before anything is decided, because a decision cannot be undone.
        let bytes: usize = questions.iter().map(answer_bytes).sum();
        if bytes > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large("send fewer requests in one batch"));
        }
        let answers = self.engine()?.check_batch(&questions).await;
        let answers = answers.map_err(|(index, error)| status::check_of_batch(index, error))?;
        let responses = answers.iter().zip(&questions).map(|(answer, of)| to_response(answer, &of.target)).collect();
        Ok(Response::new(BatchCheckResponse { responses }))
    }
}

fn read_batch(requests: &[CheckRequest]) -> Result<Vec<Question<'_>>, Status> {
    let (mut questions, mut violations) = (Vec::with_capacity(requests.len()), Vec::new());
    for (index, request) in requests.iter().enumerate() {
        match read_question(request.into()) {
            Ok(question) => questions.push(question),
            Err(found) => violations.extend(found.into_iter().map(|violation| {
                Violation::new(format!("requests[{index}].{}", violation.field), violation.description)
            })),
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    if violations.is_empty() { Ok(questions) } else { Err(status::invalid(violations)) }
}

/// The most bytes of an answer: it names the node, or rule and session.
fn answer_bytes(question: &Question<'_>) -> usize {
    let NodePath { text, organization, .. } = question.target;
    ANSWER_BYTES + text.len().max(2 * organization.len())
}
