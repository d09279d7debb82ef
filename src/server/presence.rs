//! Watching that the data directory and its journals stay where they were opened.
//!
//! Invariant: within a second after one of them is gone, health says `NOT_SERVING` and nothing counts as recorded any more.
//! Not here: how one file or directory is told from another (`store::presence`).

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::store::presence::Presence;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(500);

/// Watches until it is dropped.
pub(super) async fn watch(presence: Presence, engine: Arc<Engine>) {
    let presence = Arc::new(presence);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let look = Arc::clone(&presence);
        // A disk that does not answer holds up this task only.
        let missing = tokio::task::spawn_blocking(move || look.missing().map(|path| path.display().to_string()));
        let Ok(missing) = missing.await else { continue };
        let is_new = engine.set_directory_gone(missing.is_some());
        match missing {
            Some(path) if is_new => tracing::error!(
                "`{path}` was removed or replaced while in use: {} until the same one is back",
                engine.audit().options().on_failure.consequence()
            ),
            None if is_new => tracing::info!("the data directory is whole again"),
            _ => {}
        }
    }
}
