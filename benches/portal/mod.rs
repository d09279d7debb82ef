//! Checks as a portal asks them.
//!
//! Invariant: the same number is the same Check in every run.
//! Not here: how many are asked, and by whom.

use portcullis::proto::v1::{CheckRequest, ConnectionType};

/// Users of a portal.
const USERS: u32 = 4_000;

/// A Check by one of many users, each at an address and an endpoint of its own below `10.NETWORK.0.0/16`.
pub(crate) fn check_of(user: u32, network: u32, connection_type: ConnectionType) -> CheckRequest {
    CheckRequest {
        ip: format!("10.{network}.{}.{}", user / 250, 1 + user % 250),
        connection_type: connection_type.into(),
        endpoint: format!(
            "organizations/default/projects/team-{}/workspaces/ws-{}/endpoints/main",
            user % 20,
            user % 25
        ),
        user_email: format!("firstname.lastname-{user}@example.com"),
        ..CheckRequest::default()
    }
}

/// One after the other by any of the users: previews three times as often as shells, one in sixteen in `10.0.0.0/12`.
pub(crate) fn nth_check(number: u32) -> CheckRequest {
    let user = number.wrapping_mul(2_654_435_761) % USERS;
    let is_shell = (number / 16).is_multiple_of(4);
    let connection_type = if is_shell { ConnectionType::Shell } else { ConnectionType::Preview };
    check_of(user, number % 16 * 16, connection_type)
}
