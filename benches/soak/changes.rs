//! What administrators do meanwhile: a change of the policy every second, and now and then a list.
//!
//! Invariant: the changes go round, so the policy stays as large as it is. After each a Check has to be decided by it.
//! Not here: the Checks of the portal (`load`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::hierarchy_service_client::HierarchyServiceClient;
use portcullis::proto::v1::{self, CheckRequest};
use tonic::Status;
use tonic::transport::Channel;

use super::load::Counts;

const PARENT: &str = "organizations/default";
const DENY: &str = "organizations/default/rules/soak-deny";
const ALLOW: &str = "organizations/default/rules/soak-allow";
const GROUP: &str = "organizations/default/addressGroups/soak";
const PROJECT: &str = "organizations/default/projects/team-3";
const WORKSPACE: &str = "organizations/default/projects/team-3/workspaces/ws-3";

/// The projects.
const TEAMS: u32 = 20;

/// A quarter of a sixteenth of the users.
const SOME: &str = "10.32.4.0/22";

/// The changes of a round.
const STEPS: u64 = 11;

const PAGE: i32 = 50;

/// What was done, and how long the slowest of it took.
#[derive(Default)]
pub(crate) struct Administration {
    /// Says that it is enough.
    pub(crate) stop: AtomicBool,
    pub(crate) changes: AtomicU64,
    slowest_change: AtomicU64,
    lists: AtomicU64,
    slowest_list: AtomicU64,
}

impl fmt::Display for Administration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stop: _, changes, slowest_change, lists, slowest_list } = self;
        let [changes, slowest_change, lists, slowest_list] =
            [changes, slowest_change, lists, slowest_list].map(|number| number.load(Ordering::Relaxed));
        write!(f, "{changes} changes, the slowest {slowest_change} ms; {lists} lists, the slowest {slowest_list} ms")
    }
}

fn took(slowest: &AtomicU64, begun: Instant) {
    slowest.fetch_max(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The projects that Checks name, and the rule that denies one in sixteen.
pub(crate) async fn prepare(channel: &Channel) -> Result<(), Status> {
    for number in 0..TEAMS {
        create_node(channel, PARENT, &format!("team-{number}"), everybody()).await?;
    }
    create_rule(channel, "base", v1::Action::Deny, v1::rule::Source::Range("10.0.0.0/12".to_owned())).await
}

/// Makes a change every second until it is stopped.
pub(crate) async fn change(channel: Channel, counts: Arc<Counts>, done: Arc<Administration>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for number in 0.. {
        seconds.tick().await;
        if done.stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        match step(&channel, number % STEPS).await {
            Ok(()) => drop(done.changes.fetch_add(1, Ordering::Relaxed)),
            Err(status) => counts.faults.add("change", format_args!("step {}: {status}", number % STEPS)),
        }
        took(&done.slowest_change, begun);
        probe(&channel, number % STEPS, &counts).await;
    }
}

/// Asks what the newest change decides.
async fn probe(channel: &Channel, step: u64, counts: &Counts) {
    let (ip, workspace, allowed) = match step {
        0..=2 | 4 => ("10.32.5.9", "team-1/workspaces/ws-1", false),
        3 | 10 => ("10.32.5.9", "team-1/workspaces/ws-1", true),
        5 => ("10.160.1.9", "team-3/workspaces/ws-3", false),
        _ => ("10.160.1.9", "team-3/workspaces/ws-3", true),
    };
    let request = CheckRequest {
        ip: ip.to_owned(),
        connection_type: v1::ConnectionType::Preview.into(),
        endpoint: format!("{PARENT}/projects/{workspace}/endpoints/main"),
        user_email: "probe@example.com".to_owned(),
        ..CheckRequest::default()
    };
    let answer = DecisionServiceClient::new(channel.clone()).check(request).await;
    let is_error = answer.is_err();
    let session = counts.answered(answer.map(tonic::Response::into_inner));
    if !is_error && session.is_some() != allowed {
        counts.faults.add("probe", format_args!("step {step} is not what decides"));
    }
}

async fn step(channel: &Channel, step: u64) -> Result<(), Status> {
    let mut firewall = FirewallServiceClient::new(channel.clone());
    let mut hierarchy = HierarchyServiceClient::new(channel.clone());
    match step {
        0 => create_rule(channel, "soak-deny", v1::Action::Deny, v1::rule::Source::Range(SOME.to_owned())).await,
        1 => {
            let group = v1::AddressGroup { ranges: vec!["10.48.0.0/22".to_owned()], ..v1::AddressGroup::default() };
            let (parent, address_group) = (PARENT.to_owned(), Some(group));
            let address_group_id = "soak".to_owned();
            let create = v1::CreateAddressGroupRequest { parent, address_group, address_group_id, options: None };
            firewall.create_address_group(create).await.map(drop)
        }
        2 => {
            create_rule(channel, "soak-allow", v1::Action::Allow, v1::rule::Source::AddressGroup(GROUP.to_owned()))
                .await
        }
        3 => {
            let (name, ranges) = (GROUP.to_owned(), vec![SOME.to_owned()]);
            firewall.add_ranges(v1::AddRangesRequest { name, ranges, options: None }).await.map(drop)
        }
        4 => {
            let moved = v1::MoveRuleRequest { name: DENY.to_owned(), position: 1, ..v1::MoveRuleRequest::default() };
            firewall.move_rule(moved).await.map(drop)
        }
        5 => {
            let entry = v1::AccessEntry {
                source: Some(v1::access_entry::Source::Range("10.0.0.0/9".to_owned())),
                description: String::new(),
            };
            let access = v1::Access { mode: v1::AccessMode::AllowList.into(), entries: vec![entry] };
            create_node(channel, PROJECT, "ws-3", access).await
        }
        6 => {
            let node = v1::Node { name: WORKSPACE.to_owned(), access: Some(everybody()), ..v1::Node::default() };
            hierarchy.update_node(v1::UpdateNodeRequest { node: Some(node), ..Default::default() }).await.map(drop)
        }
        7 => {
            let delete = v1::DeleteNodeRequest { name: WORKSPACE.to_owned(), ..v1::DeleteNodeRequest::default() };
            hierarchy.delete_node(delete).await.map(drop)
        }
        8 => delete_rule(&mut firewall, ALLOW).await,
        9 => {
            let delete =
                v1::DeleteAddressGroupRequest { name: GROUP.to_owned(), ..v1::DeleteAddressGroupRequest::default() };
            firewall.delete_address_group(delete).await.map(drop)
        }
        _ => delete_rule(&mut firewall, DENY).await,
    }
}

fn everybody() -> v1::Access {
    v1::Access { mode: v1::AccessMode::AllowAll.into(), entries: Vec::new() }
}

async fn create_node(channel: &Channel, parent: &str, id: &str, access: v1::Access) -> Result<(), Status> {
    let node = Some(v1::Node { access: Some(access), ..v1::Node::default() });
    let (parent, node_id) = (parent.to_owned(), id.to_owned());
    let create = v1::CreateNodeRequest { parent, node_id, node, options: None };
    HierarchyServiceClient::new(channel.clone()).create_node(create).await.map(drop)
}

/// Creates a rule at the top.
async fn create_rule(channel: &Channel, id: &str, action: v1::Action, source: v1::rule::Source) -> Result<(), Status> {
    let rule = v1::Rule { action: action.into(), source: Some(source), ..v1::Rule::default() };
    let (parent, rule_id) = (PARENT.to_owned(), id.to_owned());
    let create = v1::CreateRuleRequest { parent, rule: Some(rule), rule_id, position: Some(1), options: None };
    FirewallServiceClient::new(channel.clone()).create_rule(create).await.map(drop)
}

async fn delete_rule(firewall: &mut FirewallServiceClient<Channel>, name: &str) -> Result<(), Status> {
    firewall.delete_rule(v1::DeleteRuleRequest { name: name.to_owned(), ..Default::default() }).await.map(drop)
}

/// Asks for a list every two seconds until it is stopped.
pub(crate) async fn list(channel: Channel, counts: Arc<Counts>, done: Arc<Administration>) {
    let mut client = AuditServiceClient::new(channel);
    let mut seconds = tokio::time::interval(Duration::from_secs(2));
    let parent = || PARENT.to_owned();
    for number in 0_u64.. {
        seconds.tick().await;
        if done.stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let fault = match number % 3 {
            0 => {
                let rule = format!("{PARENT}/rules/base");
                let denials = v1::ListFirewallEventsRequest {
                    parent: parent(),
                    page_size: PAGE,
                    rule,
                    ..v1::ListFirewallEventsRequest::default()
                };
                let answer = client.list_firewall_events(denials).await;
                answer.map(|answer| answer.into_inner().firewall_events.iter().map(|event| event.sequence).collect())
            }
            1 => {
                let user_email = format!("firstname.lastname-{}@example.com", number % 4_000);
                let (parent, page_size) = (parent(), PAGE);
                let records = v1::ListAuditRecordsRequest { parent, page_size, user_email, ..Default::default() };
                let answer = client.list_audit_records(records).await;
                answer.map(|answer| answer.into_inner().audit_records.iter().map(|record| record.sequence).collect())
            }
            _ => {
                let state = v1::SessionState::Active.into();
                let (parent, page_size) = (parent(), PAGE);
                let sessions = v1::ListSessionsRequest { parent, page_size, state, ..Default::default() };
                client.list_sessions(sessions).await.map(|_| Vec::new())
            }
        };
        match fault {
            Ok(sequences) if sequences.is_sorted_by(|newer: &i64, older| newer > older) => {
                done.lists.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => counts.faults.add("list", "records are out of order"),
            Err(status) => counts.faults.add("list", status),
        }
        took(&done.slowest_list, begun);
    }
}

/// Sessions that are active now.
pub(crate) async fn active_sessions(channel: &Channel, counts: &Counts) -> i64 {
    let request = v1::GetOverviewRequest { parent: PARENT.to_owned() };
    match AuditServiceClient::new(channel.clone()).get_overview(request).await {
        Ok(overview) => overview.into_inner().active_sessions.iter().map(|of_type| of_type.count).sum(),
        Err(status) => {
            counts.faults.add("GetOverview", status);
            0
        }
    }
}
