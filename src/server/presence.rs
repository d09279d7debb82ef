//! Watching that the data directory and its journals stay where they were opened.
//!
//! Invariant: within a second after one of them is gone, health says `NOT_SERVING` and nothing counts as recorded any more.
//! Not here: how one file or directory is told from another (`store::presence`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Engine;
use crate::store::presence::Presence;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often to tell the same thing.
const AGAIN: Duration = Duration::from_mins(1);

/// Watches until it is dropped.
pub(super) async fn watch(presence: Presence, engine: Arc<Engine>) {
    let presence = Arc::new(presence);
    let mut told = Told::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let look = Arc::clone(&presence);
        // A disk that does not answer holds up this task only.
        let missing = tokio::task::spawn_blocking(move || look.missing().map(|path| (path.exists(), path)));
        let Ok(missing) = missing.await else { continue };
        let is_new = engine.set_directory_gone(missing.is_some());
        match missing {
            Some((is_another, path)) => {
                let line = line(&path, is_another, engine.audit().options().on_failure.consequence());
                if told.is_due(&line, Instant::now()) {
                    tracing::error!("{line}");
                }
            }
            None if is_new => {
                told = Told::default();
                tracing::info!("the data directory is whole again");
            }
            None => {}
        }
    }
}

fn line(path: &Path, is_another: bool, consequence: &str) -> String {
    let another = if is_another { "; another one is there now, and a copy is not the same" } else { "" };
    let path = path.display();
    format!("`{path}` was removed or replaced while in use: {consequence} until the same one is back{another}")
}

/// What was told last, and when.
#[derive(Default)]
struct Told(Option<(String, Instant)>);

impl Told {
    /// Whether a line is to be told now: one that says something else at once, the same one again after a while.
    fn is_due(&mut self, line: &str, now: Instant) -> bool {
        let is_due = self.0.as_ref().is_none_or(|(last, at)| last != line || now.duration_since(*at) >= AGAIN);
        if is_due {
            self.0 = Some((line.to_owned(), now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_is_told_again_after_a_minute_and_another_one_at_once() {
        let (mut told, begun) = (Told::default(), Instant::now());
        let path = Path::new("/data");
        let (gone, another) = (line(path, false, "x"), line(path, true, "x"));
        assert!(another.ends_with("a copy is not the same") && !gone.contains("copy"), "{gone} {another}");
        let mut is_due = |line: &str, seconds| told.is_due(line, begun + Duration::from_secs(seconds));
        assert!(is_due(&gone, 0) && !is_due(&gone, 59) && is_due(&gone, 60) && !is_due(&gone, 61));
        assert!(is_due(&another, 62) && !is_due(&another, 63) && is_due(&gone, 64));
    }
}
