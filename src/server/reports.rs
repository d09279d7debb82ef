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

/// Reports until it is dropped.
pub(super) async fn run(api: Api, address: SocketAddr) {
    let mut ticks = interval(tally::INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned = Instant::now();
    warn_if_open(address);
    loop {
        ticks.tick().await;
        api.refusals().tell();
        if warned.elapsed() >= WARNING_INTERVAL {
            warned = Instant::now();
            warn_if_open(address);
        }
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
