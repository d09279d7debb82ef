//! What is told in the log at intervals while the service serves.
//!
//! Invariant: the lines have a bounded rate, whatever callers do.
//! Not here: denials, which the audit log counts (`engine::audit::denials`).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::Api;
use crate::tally;

/// How often the warning about an open address is repeated.
const WARNING_INTERVAL: Duration = Duration::from_hours(1);

/// Gives the warning, and reports until it is dropped.
pub(super) fn run(api: Api, address: SocketAddr) -> impl Future<Output = ()> {
    let mut warning = Warning::default();
    let mut warn = move || {
        if warning.is_due(Instant::now()) {
            warn_if_open(address);
        }
    };
    // Now: the service may end before the task has run.
    warn();
    async move {
        let mut ticks = interval(tally::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            api.refusals().tell();
            warn();
        }
    }
}

/// When the warning was given last.
#[derive(Default)]
struct Warning(Option<Instant>);

impl Warning {
    /// At once, and then every hour: whoever is told gives it.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= WARNING_INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// Warns where other machines reach a service that asks nobody who they are.
fn warn_if_open(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "there is neither TLS nor authentication (`--insecure`): everybody who reaches this address can read and \
             change every policy"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_given_at_once_and_then_every_hour() {
        let (mut warning, begin) = (Warning::default(), Instant::now());
        let given = (0..=180).filter(|minute| warning.is_due(begin + Duration::from_mins(*minute)));
        assert_eq!(given.collect::<Vec<_>>(), [0, 60, 120, 180]);
    }
}
