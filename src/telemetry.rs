//! Logs: one line per event, as text or JSON, on standard error.
//!
//! Invariant: no address and no email of a user is ever logged.
//! Not here: what is worth a line; each module decides that for itself.

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the process. A second call changes nothing, so that tests can share a process.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::new(config.filter.as_str());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match config.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging was started before");
    }
}
