//! The line of the log that every change of the policy gets.
//!
//! Invariant: it holds no address, no email and no text that a caller wrote. A name of an actor is told only where it is
//! neither.
//! Not here: the audit record, which has all of them (`apply`).

use std::net::{IpAddr, SocketAddr};

use super::expiry::ACTOR as EXPIRY;
use crate::policy::change::{Change, Delta, Effect};
use crate::policy::name::Id;

/// The actor of changes that come over the Unix socket.
const UNIX_SOCKET: &str = "unix socket";

/// Kinds of steps that a line names.
const KINDS_MAX: usize = 5;

/// Logs a change that is in force.
pub(super) fn log(change: &Change) {
    tracing::info!(
        organization = change.effect.organization().map(Id::as_str),
        revision = change.effect.revision(),
        kind = kind_of(&change.effect),
        actor = actor_to_tell(&change.actor),
        via = via(&change.actor),
        // What callers write as a comment may be about persons.
        comment = (*change.actor == *EXPIRY).then_some(&*change.comment),
        unconfirmed = change.confirm_until.map(|_| true),
        "policy changed"
    );
}

/// The actor, unless it is an address or an email.
fn actor_to_tell(actor: &str) -> Option<&str> {
    (!actor.is_empty() && !actor.contains('@') && !is_address(actor)).then_some(actor)
}

fn is_address(actor: &str) -> bool {
    actor.parse::<IpAddr>().is_ok() || actor.parse::<SocketAddr>().is_ok()
}

/// By which connection the change came; none for one that the service itself makes.
fn via(actor: &str) -> Option<&'static str> {
    if is_address(actor) {
        Some("tcp")
    } else if actor == UNIX_SOCKET {
        Some("unix")
    } else {
        None
    }
}

fn kind_of(effect: &Effect) -> String {
    match effect {
        Effect::Cluster { .. } => "set_cluster".to_owned(),
        Effect::CreateOrganization { .. } => "create_organization".to_owned(),
        Effect::DeleteOrganization { .. } => "delete_organization".to_owned(),
        Effect::Organization { deltas, .. } => {
            let mut kinds: Vec<&str> = Vec::new();
            for kind in deltas.iter().map(kind_of_step) {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            if kinds.len() > KINDS_MAX {
                kinds.truncate(KINDS_MAX);
                kinds.push("…");
            }
            kinds.join(" ")
        }
    }
}

fn kind_of_step(delta: &Delta) -> &'static str {
    match delta {
        Delta::SetOrganization { .. } => "set_organization",
        Delta::SetNode { .. } => "set_node",
        Delta::RemoveNode { .. } => "remove_node",
        Delta::InsertRule { .. } => "insert_rule",
        Delta::SetRule { .. } => "set_rule",
        Delta::RemoveRule { .. } => "remove_rule",
        Delta::MoveRule { .. } => "move_rule",
        Delta::OrderRules { .. } => "order_rules",
        Delta::ReplaceRules { .. } => "replace_rules",
        Delta::SetGroup { .. } => "set_group",
        Delta::SetGroupContent { .. } => "set_group_content",
        Delta::RemoveGroup { .. } => "remove_group",
        Delta::SetTests { .. } => "set_policy_tests",
        Delta::SetShadowPolicy { .. } => "set_shadow_policy",
        Delta::RemoveShadowPolicy => "remove_shadow_policy",
        Delta::Confirm { .. } => "confirm",
        Delta::ExpireRules { .. } => "expire_rules",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_told_only_by_a_name() {
        for actor in ["", "192.0.2.1", "2001:db8::1", "[2001:db8::1]:443", "192.0.2.1:5", "ada@example.com"] {
            assert_eq!(actor_to_tell(actor), None, "{actor}");
        }
        for actor in ["unix socket", "deployer", "expiry"] {
            assert_eq!(actor_to_tell(actor), Some(actor));
        }
    }

    #[test]
    fn the_connection_of_a_change_is_told_without_an_address() {
        for (actor, told) in [("192.0.2.1", Some("tcp")), ("2001:db8::1", Some("tcp")), ("unix socket", Some("unix"))] {
            assert_eq!(via(actor), told, "{actor}");
        }
        for actor in ["", "expiry", "deployer"] {
            assert_eq!(via(actor), None, "{actor}: by the service itself, or not known");
        }
    }
}
