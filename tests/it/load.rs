//! A load of changes whose acknowledgements are remembered, and the proof that none of them is lost.
//!
//! Invariant: a change counts as acknowledged when its answer came; a change that was under way when the service died
//! may be there or not, and nothing else may.
//! Not here: how the service dies (`crash_kill`, `crash_power`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{
    Action, AddRangesRequest, AddressGroup, CreateAddressGroupRequest, CreateRuleRequest, DeleteRuleRequest,
    ListRangesRequest, ListRulesRequest,
};
use tonic::transport::Channel;

use crate::harness::rule;

const PARENT: &str = "organizations/default";
const GROUP: &str = "organizations/default/addressGroups/load";

/// Clients that change the policy at the same time.
pub(crate) const CLIENTS: usize = 4;

/// What was acknowledged, over all lives of a service.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged {
    /// Rules by client, in the order of their creation; those deleted are gone again.
    rules: [Vec<String>; CLIENTS],
    deleted: BTreeSet<String>,
    ranges: BTreeSet<String>,
    /// Revisions that answers named.
    revisions: Vec<i64>,
    /// Changes that were asked for and not answered.
    unanswered: usize,
    /// What an unanswered change would have removed.
    perhaps_deleted: BTreeSet<String>,
    next: usize,
}

impl Acknowledged {
    /// What must be in something that came about between then and `later`: what was acknowledged then. What was asked for
    /// meanwhile may be in it.
    pub(crate) fn perhaps_with(self, later: &Self) -> Self {
        let meanwhile = later.revisions.len() - self.revisions.len();
        let deleted = later.deleted.difference(&self.deleted).chain(&later.perhaps_deleted);
        let perhaps_deleted = self.perhaps_deleted.iter().chain(deleted).cloned().collect();
        Self {
            unanswered: self.unanswered.max(later.unanswered) + meanwhile,
            perhaps_deleted,
            next: later.next,
            ..self
        }
    }
}

/// Prepares a fresh service for the load.
pub(crate) async fn prepare(channel: Channel) {
    let request = CreateAddressGroupRequest {
        parent: PARENT.to_owned(),
        address_group: Some(AddressGroup::default()),
        address_group_id: "load".to_owned(),
        ..Default::default()
    };
    FirewallServiceClient::new(channel).create_address_group(request).await.unwrap();
}

/// Somebody else has changed the policy once.
pub(crate) fn note_other(acknowledged: &Mutex<Acknowledged>) {
    acknowledged.lock().unwrap().unanswered += 1;
}

/// Starts clients that change the policy until the service is gone. The handles end when it is.
pub(crate) fn start(channel: &Channel, acknowledged: &Arc<Mutex<Acknowledged>>) -> Vec<tokio::task::JoinHandle<()>> {
    let start = |client| tokio::spawn(change_until_gone(client, channel.clone(), Arc::clone(acknowledged)));
    (0..CLIENTS).map(start).collect()
}

async fn change_until_gone(client: usize, channel: Channel, acknowledged: Arc<Mutex<Acknowledged>>) {
    let mut firewall = FirewallServiceClient::new(channel);
    loop {
        let number = {
            let mut acknowledged = acknowledged.lock().unwrap();
            acknowledged.next += 1;
            acknowledged.unanswered += 1;
            acknowledged.next
        };
        let gone = match number % 4 {
            0 => add_range(&mut firewall, number, &acknowledged).await,
            1 if number % 8 == 1 => delete_oldest(&mut firewall, client, &acknowledged).await,
            _ => create_rule(&mut firewall, client, number, &acknowledged).await,
        };
        if gone {
            return;
        }
    }
}

/// Notes an answer; tells whether the service is gone.
fn note<T>(
    acknowledged: &Mutex<Acknowledged>,
    answer: Result<tonic::Response<T>, tonic::Status>,
    note: impl FnOnce(&mut Acknowledged),
) -> bool {
    let Ok(answer) = answer else { return true };
    let revision = answer.metadata().get("portcullis-revision").unwrap().to_str().unwrap().parse().unwrap();
    let mut acknowledged = acknowledged.lock().unwrap();
    acknowledged.unanswered -= 1;
    acknowledged.revisions.push(revision);
    note(&mut acknowledged);
    false
}

async fn create_rule(
    firewall: &mut FirewallServiceClient<Channel>,
    client: usize,
    number: usize,
    acknowledged: &Mutex<Acknowledged>,
) -> bool {
    let id = format!("rule-{number}");
    let request = CreateRuleRequest {
        parent: PARENT.to_owned(),
        rule: Some(rule(Action::Deny, &address(number))),
        rule_id: id.clone(),
        ..Default::default()
    };
    let answer = firewall.create_rule(request).await;
    note(acknowledged, answer, |acknowledged| acknowledged.rules[client].push(format!("{PARENT}/rules/{id}")))
}

async fn delete_oldest(
    firewall: &mut FirewallServiceClient<Channel>,
    client: usize,
    acknowledged: &Mutex<Acknowledged>,
) -> bool {
    let name = {
        let mut acknowledged = acknowledged.lock().unwrap();
        let Some(name) = acknowledged.rules[client].first().cloned() else {
            acknowledged.unanswered -= 1;
            return false;
        };
        acknowledged.perhaps_deleted.insert(name.clone());
        name
    };
    let answer = firewall.delete_rule(DeleteRuleRequest { name: name.clone(), ..Default::default() }).await;
    note(acknowledged, answer, |acknowledged| {
        acknowledged.rules[client].retain(|rule| *rule != name);
        acknowledged.perhaps_deleted.remove(&name);
        acknowledged.deleted.insert(name);
    })
}

async fn add_range(
    firewall: &mut FirewallServiceClient<Channel>,
    number: usize,
    acknowledged: &Mutex<Acknowledged>,
) -> bool {
    let range = address(number);
    let request = AddRangesRequest { name: GROUP.to_owned(), ranges: vec![range.clone()], ..Default::default() };
    let answer = firewall.add_ranges(request).await;
    note(acknowledged, answer, |acknowledged| {
        acknowledged.ranges.insert(range);
    })
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number / 65_536, number / 256 % 256, number % 256)
}

/// Compares what a restarted service has with what was acknowledged. Afterwards what it has counts as acknowledged.
pub(crate) async fn verify(channel: Channel, acknowledged: &Mutex<Acknowledged>) {
    let mut firewall = FirewallServiceClient::new(channel);
    let (rules, revision) = all_rules(&mut firewall).await;
    let ranges = all_ranges(&mut firewall).await;
    let mut acknowledged = acknowledged.lock().unwrap();
    let Acknowledged { rules: kept, deleted, ranges: kept_ranges, revisions, unanswered, perhaps_deleted, .. } =
        &mut *acknowledged;

    revisions.sort_unstable();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "a revision was given out twice");
    let newest = revisions.last().copied().unwrap_or(1);
    assert!(newest <= revision, "revision {newest} was acknowledged, and the service is at {revision}");
    // Revision 1 is the organization, 2 the group; every later one is one change.
    let changes = i64::try_from(revisions.len() + *unanswered).unwrap() + 2;
    assert!(revision <= changes, "{changes} changes were asked for, and the service is at revision {revision}");

    for rule in deleted.iter() {
        assert!(!rules.contains(rule), "`{rule}` is back");
    }
    for (client, kept) in kept.iter_mut().enumerate() {
        let of_client: Vec<&String> = rules.iter().filter(|rule| kept.contains(rule)).collect();
        let expected: Vec<&String> = kept.iter().filter(|rule| !perhaps_deleted.contains(*rule)).collect();
        let found: Vec<&String> = of_client.iter().copied().filter(|rule| !perhaps_deleted.contains(*rule)).collect();
        assert_eq!(found, expected, "client {client}: acknowledged rules are missing or out of order");
        kept.retain(|rule| rules.contains(rule));
    }
    for range in kept_ranges.iter() {
        assert!(ranges.contains(range), "`{range}` is missing");
    }
    // What was under way counts from now on as it turned out.
    let settled = usize::try_from(revision).unwrap() - 2;
    assert!(settled >= revisions.len(), "a revision was skipped");
    *revisions = (3..=revision).collect();
    *unanswered = 0;
    perhaps_deleted.clear();
}

async fn all_rules(firewall: &mut FirewallServiceClient<Channel>) -> (Vec<String>, i64) {
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListRulesRequest { parent: PARENT.to_owned(), page_size: 1_000, page_token: token };
        let page = firewall.list_rules(request).await.unwrap().into_inner();
        names.extend(page.rules.into_iter().map(|rule| rule.name));
        token = page.next_page_token;
        if token.is_empty() {
            return (names, page.revision);
        }
    }
}

async fn all_ranges(firewall: &mut FirewallServiceClient<Channel>) -> BTreeSet<String> {
    let (mut ranges, mut token) = (BTreeSet::new(), String::new());
    loop {
        let request = ListRangesRequest { name: GROUP.to_owned(), page_size: 1_000, page_token: token };
        let page = firewall.list_ranges(request).await.unwrap().into_inner();
        ranges.extend(page.ranges);
        token = page.next_page_token;
        if token.is_empty() {
            return ranges;
        }
    }
}

/// Waits until so many changes were acknowledged in all: a machine that is busy with something else must not make the
/// comparison an empty one.
pub(crate) async fn acknowledged(acknowledged: &Mutex<Acknowledged>, changes: usize) {
    let enough = async {
        while count(acknowledged) < changes {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_mins(1), enough).await;
    assert!(in_time.is_ok(), "{} of {changes} changes were acknowledged in a minute", count(acknowledged));
}

/// Number of changes that were acknowledged.
pub(crate) fn count(acknowledged: &Mutex<Acknowledged>) -> usize {
    acknowledged.lock().unwrap().revisions.len()
}
