//! Planning shadow policies: policies that decide beside the enforced one.
//!
//! Invariant: promoting a shadow policy never undoes a change that was made after it was set.
//! Not here: setting one, which plans other mutations (`plan`), and deciding by it (`engine`).

use super::error::PlanError;
use super::task::Task;
use crate::change::Delta;
use crate::document::Document;
use crate::name::Name;
use crate::organization::ShadowPolicy;

impl Task<'_> {
    pub(super) fn remove_shadow_policy(mut self) -> Result<Vec<Delta>, PlanError> {
        self.shadow_policy()?;
        self.refuse()?;
        Ok(vec![Delta::RemoveShadowPolicy])
    }

    pub(super) fn promote_shadow_policy(mut self, force: bool) -> Result<Vec<Delta>, PlanError> {
        let ShadowPolicy { revision, organization, .. } = self.shadow_policy()?;
        self.refuse()?;
        if revision != self.organization.revision {
            let organization = Name::organization(&self.organization.id).to_string();
            return Err(PlanError::ShadowOutdated { organization, revision });
        }
        let mut deltas = self.replace_policy(Document::of(&organization), None, force)?;
        deltas.push(Delta::RemoveShadowPolicy);
        Ok(deltas)
    }

    fn shadow_policy(&self) -> Result<ShadowPolicy, PlanError> {
        let name = || format!("the shadow policy of {}", Name::organization(&self.organization.id));
        self.organization.shadow.as_deref().cloned().ok_or_else(|| PlanError::NotFound(name()))
    }
}
