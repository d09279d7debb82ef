//! Previews of changes that need `--force`: the effect is shown all the same, and that it is needed.
//!
//! Invariant: forcing is for looking only: the change itself is asked for as it was typed.
//! Not here: how a preview looks (`comparison`).

use portcullis_client::{CallError, Client, answer};

use super::error::of_call;
use super::flags::Flags;
use portcullis_proto::v1;
use portcullis_proto::v1::ErrorReason;
use portcullis_proto::v1::mutation::Request as Asked;

/// The reasons for which a change needs `--force`.
const REASONS: [ErrorReason; 2] = [ErrorReason::WouldWidenAccess, ErrorReason::HasChildren];

/// What changes would do.
pub(super) struct Previewed {
    pub(super) preview: v1::PreviewChangeResponse,
    /// Why the changes are refused without `--force`; absent where they are not.
    refused: Option<CallError>,
}

impl Previewed {
    /// What is to be said of a change that needs `--force`.
    pub(super) fn needs_force(&self, flags: &Flags) -> Option<String> {
        let error = flags.translate(self.refused.clone()?);
        Some(format!("error: making the change needs `--force`: {}", of_call(&error)))
    }
}

/// Asks what changes would do. Where that is refused because they need `--force`, asks what they would do with it.
pub(super) async fn preview(client: &Client, request: v1::PreviewChangeRequest) -> Result<Previewed, CallError> {
    let error = match answer(client.analysis().preview_change(request.clone()).await) {
        Ok(preview) => return Ok(Previewed { preview, refused: None }),
        Err(error) => error,
    };
    let reason = error.refusal().map_or("", |refusal| refusal.reason.as_str());
    let needs_force = REASONS.iter().any(|of| of.as_str_name().strip_prefix("ERROR_REASON_") == Some(reason));
    let mut request = request;
    // Of several changes, any may be the one that needs it.
    let forced = request.mutations.iter_mut().filter_map(|mutation| force(mutation.request.as_mut()?)).count();
    if !needs_force || forced == 0 {
        return Err(error);
    }
    let preview = answer(client.analysis().preview_change(request).await)?;
    Ok(Previewed { preview, refused: Some(error) })
}

/// Forces a change; none if it cannot be forced, or is already.
fn force(request: &mut Asked) -> Option<()> {
    let force = match request {
        Asked::DeleteNode(request) => &mut request.force,
        Asked::ApplyPolicy(request) => &mut request.force,
        Asked::RollbackRevision(request) => &mut request.force,
        _ => return None,
    };
    (!std::mem::replace(force, true)).then_some(())
}
