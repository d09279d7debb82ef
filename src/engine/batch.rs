//! Many Checks at once: decided by one version of each policy.
//!
//! Invariant: no session is opened by a policy that was replaced before, though the rest of the batch is decided by it.
//! Not here: deciding and recording one (`check`).

use std::collections::HashMap;
use std::sync::Arc;

use super::Engine;
use super::begun::Begun;
use super::check::{Answer, CheckError, Question};
use super::directory::{Published, PublishedCluster};

/// The versions of the policy that a batch is decided by.
pub(super) struct Pinned {
    pub(super) cluster: Arc<PublishedCluster>,
    pub(super) published: Option<Arc<Published>>,
}

/// Checks of a batch that are decided without letting others have the thread.
const BATCH_STRIDE: usize = 256;

impl Engine {
    /// Decides and records many, all of one organization by one version of its policy. Where a policy changes meanwhile,
    /// what would open a session is decided by the new one: no session is opened by a policy that was replaced before.
    /// An error comes with the place of the question; sessions that were opened are abandoned then.
    pub async fn check_batch(&self, questions: &[Question<'_>]) -> Result<Vec<Answer>, (usize, CheckError)> {
        let cluster = self.directory.cluster();
        let mut pins: HashMap<&str, Pinned> = HashMap::new();
        for (place, question) in questions.iter().enumerate() {
            let pinned = pins.entry(question.target.organization).or_insert_with(|| Pinned {
                cluster: Arc::clone(&cluster),
                published: self.directory.organization(question.target.organization),
            });
            self.check_revisions(question, &pinned.cluster, pinned.published.as_deref())
                .map_err(|error| (place, error))?;
        }
        let mut begun = Vec::with_capacity(questions.len());
        for (place, question) in questions.iter().enumerate() {
            if place % BATCH_STRIDE == BATCH_STRIDE - 1 {
                tokio::task::yield_now().await;
            }
            let pinned = pins.get(question.target.organization);
            begun.push(self.begin_by(question, pinned).await.map_err(|error| (place, error))?);
        }
        // The disk is waited for once, for the last of them: it has the others then.
        for (place, one) in begun.iter_mut().enumerate().rev() {
            one.wait().await.map_err(|error| (place, error))?;
        }
        Ok(begun.into_iter().map(Begun::answer).collect())
    }

    /// Whether versions are still those that are published.
    pub(super) fn is_current(&self, pinned: &Pinned, question: &Question<'_>) -> bool {
        let cluster = self.directory.cluster_guard();
        let same = |published: Option<&Published>| match (published, &pinned.published) {
            (Some(published), Some(pinned)) => std::ptr::eq(published, &raw const **pinned),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&cluster, &pinned.cluster) && self.directory.with(question.target.organization, same)
    }
}
