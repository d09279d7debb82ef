//! What becomes of guarded addresses when gates are set: those that are given up, and those that guard nothing.
//!
//! Invariant: an address guards nothing only where it is denied at every organization that the gate is for.
//! Not here: refusing changes, which the server does.

use portcullis_client::answer;

use crate::change::ChangeArgs;
use crate::context::Context;
use crate::names::organization_of;
use crate::table::clean;
use portcullis_policy::name::CLUSTER;
use portcullis_proto::v1;

/// The most guarded addresses that are looked up.
const GUARDS_ASKED: usize = 8;

/// The most organizations that are asked for an address that the cluster guards.
const ORGANIZATIONS_ASKED: i32 = 20;

/// Says which addresses are no longer guarded, and which of the guarded ones are denied everywhere.
pub(super) async fn tell(change: &ChangeArgs, before: &v1::Node, after: &v1::Node, context: &mut Context<'_>) {
    let (old, new) = (guarded(before), guarded(after));
    let (no_longer, are) =
        if change.validate_only { ("would no longer be", "would guard") } else { ("is no longer", "guards") };
    for gone in old.iter().filter(|old| !new.contains(old)) {
        context.output.note(&format!("note: {} {no_longer} guarded", clean(gone)));
    }
    let endpoints = endpoints(&after.name, context).await;
    let added = new.iter().filter(|new| !old.contains(new));
    for ip in added.take(GUARDS_ASKED) {
        if !endpoints.is_empty() && is_denied_at_all(ip, &endpoints, context).await {
            let note = format!(
                "note: the gate {are} nothing for {}, which is denied everywhere in {}: permit it first, and then set the \
                 gate",
                clean(ip),
                clean(&after.name)
            );
            context.output.note(&note);
        }
    }
}

fn guarded(node: &v1::Node) -> &[String] {
    node.change_gates.as_ref().map(|gates| gates.guard_ips.as_slice()).unwrap_or_default()
}

/// The organizations that a node's gates are for; none where they are too many to be asked. What is denied at an
/// organization is denied below it.
async fn endpoints(name: &str, context: &Context<'_>) -> Vec<String> {
    if name != CLUSTER {
        return vec![organization_of(name)];
    }
    let request = v1::ListNodesRequest { page_size: ORGANIZATIONS_ASKED, ..Default::default() };
    let list = answer(context.client.hierarchy().list_nodes(request).await).unwrap_or_default();
    if list.next_page_token.is_empty() { list.nodes.into_iter().map(|node| node.name).collect() } else { Vec::new() }
}

async fn is_denied_at_all(ip: &str, endpoints: &[String], context: &Context<'_>) -> bool {
    for endpoint in endpoints {
        for connection_type in [v1::ConnectionType::Shell, v1::ConnectionType::Preview] {
            let (ip, connection_type, endpoint) = (ip.to_owned(), connection_type.into(), endpoint.clone());
            let request = v1::ExplainRequest { ip, connection_type, endpoint, at_time: None };
            let explained = answer(context.client.analysis().explain(request).await);
            if explained.map_or(true, |explained| explained.decision() != v1::Decision::Deny) {
                return false;
            }
        }
    }
    true
}
