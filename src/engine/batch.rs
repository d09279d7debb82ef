//! A batch of Checks: all decided by one version of each policy.
//!
//! Invariant: no replaced policy opens a session, even where it decides the rest of the batch.
//! Not here: deciding and recording one (`check`).

use std::collections::HashMap;
use std::sync::Arc;

use super::Engine;
use super::outcome::Unsent;
use super::published::Pinned;
use super::question::{Answer, CheckError, Question};

/// Checks of a batch that are decided before other tasks have the thread.
const BATCH_STRIDE: usize = 256;

impl Engine {
    /// Decides and records many questions, those about one organization by one version of its policy. Where the policy
    /// changes meanwhile, the new version decides every question that would open a session.
    ///
    /// # Errors
    /// The error of one question, with its index. Then no answer is sent, and sessions that were opened are abandoned.
    pub async fn check_batch(&self, questions: &[Question<'_>]) -> Result<Vec<Answer>, (usize, CheckError)> {
        let cluster = self.directory.cluster();
        let mut pins: HashMap<&str, Pinned> = HashMap::new();
        for (index, question) in questions.iter().enumerate() {
            let pinned = pins.entry(question.target.organization).or_insert_with(|| Pinned {
                cluster: Arc::clone(&cluster),
                organization: self.directory.organization(question.target.organization),
            });
            self.check_revisions(question, &pinned.cluster, pinned.organization.as_deref())
                .map_err(|error| (index, error))?;
        }
        let mut outcomes = Vec::with_capacity(questions.len());
        for (index, question) in questions.iter().enumerate() {
            if index % BATCH_STRIDE == BATCH_STRIDE - 1 {
                tokio::task::yield_now().await;
            }
            let pinned = pins.get(question.target.organization);
            let room = self.room().await.map_err(|error| (index, error))?;
            outcomes.push(self.admit_by(room, question, pinned).map_err(|error| (index, error))?);
        }
        // The last one first: once its record is durable, so are all before it.
        let mut unsent = Vec::with_capacity(outcomes.len());
        while let Some(outcome) = outcomes.pop() {
            unsent.push(outcome.settled().await.map_err(|error| (outcomes.len(), error))?);
        }
        Ok(unsent.into_iter().rev().map(Unsent::leave).collect())
    }
}
