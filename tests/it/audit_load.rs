//! Checks whose records must survive: clients that remember what they were answered, and the comparison with what a
//! restarted service has.
//!
//! Invariant: only what was answered is demanded; what was under way may have happened or not.
//! Not here: how the service dies (`audit_crash`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::engine::audit::Verification;
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::audit_service_client::AuditServiceClient;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{ConnectionType, EndSessionRequest, ListSessionsRequest, SessionState, WatchEventsRequest};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::audit_api::check_of;

const DEFAULT: &str = "organizations/default";
const CLIENTS: usize = 4;

/// An answered check.
#[derive(Clone)]
struct Answered {
    at: Instant,
    connection_type: ConnectionType,
}

/// What the service has answered.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// By decision id.
    answered: BTreeMap<String, Answered>,
    /// Shells that are open, and those whose end was asked for and not answered.
    open: BTreeSet<String>,
    ending: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// Records seen so far, dense from 1.
    seen: i64,
    /// Over all rounds.
    pub(crate) sync_checks: usize,
    pub(crate) async_checks: usize,
    pub(crate) async_lost: usize,
    /// How long before the end the oldest lost check was answered.
    pub(crate) lost_within: Duration,
}

impl Model {
    /// What must be in something that came about between then and `later`: what was answered then. A session whose end was
    /// asked for meanwhile may have ended.
    pub(crate) fn perhaps_with(mut self, later: &Self) -> Self {
        let ends = |session: &String| later.ending.contains(session) || later.ended.contains(session);
        self.ending.extend(self.open.extract_if(.., |session| ends(session)));
        self
    }
}

/// Clients that check, half of them for shells, which they also end, until the service is gone.
pub(crate) fn start(channel: &Channel, model: &Arc<Mutex<Model>>) -> Vec<JoinHandle<()>> {
    (0..CLIENTS)
        .map(|client| tokio::spawn(run(DecisionServiceClient::new(channel.clone()), client, Arc::clone(model))))
        .collect()
}

async fn run(mut decisions: DecisionServiceClient<Channel>, client: usize, model: Arc<Mutex<Model>>) {
    let connection_type = if client.is_multiple_of(2) { ConnectionType::Shell } else { ConnectionType::Preview };
    for number in 0.. {
        let email = format!("user-{}@example.com", number % 40);
        // Addresses of one network are denied.
        let ip = format!("{}.0.{client}.{}", if number % 4 == 3 { 203 } else { 10 }, number % 200);
        let endpoint = format!("{DEFAULT}/projects/p{}", number % 10);
        let Ok(answer) = decisions.check(check_of(&email, &ip, connection_type, &endpoint)).await else { return };
        let answer = answer.into_inner();
        let session = answer.session.clone();
        {
            let mut model = model.lock().unwrap();
            model.answered.insert(answer.decision_id, Answered { at: Instant::now(), connection_type });
            if connection_type == ConnectionType::Shell && !session.is_empty() {
                model.open.insert(session.clone());
            }
            if number % 3 != 0 || session.is_empty() || connection_type == ConnectionType::Preview {
                continue;
            }
            model.open.remove(&session);
            model.ending.insert(session.clone());
        }
        if decisions.end_session(EndSessionRequest { name: session.clone() }).await.is_err() {
            return;
        }
        let mut model = model.lock().unwrap();
        model.ending.remove(&session);
        model.ended.insert(session);
    }
}

/// Waits until at least so many checks of each kind were answered since the service started: a machine that is busy with
/// something else must not make the comparison an empty one.
pub(crate) async fn answered(model: &Mutex<Model>, of_each: usize) {
    let began = Instant::now();
    loop {
        let fewest = {
            let model = model.lock().unwrap();
            let is_shell = |answered: &&Answered| answered.connection_type == ConnectionType::Shell;
            let shells = model.answered.values().filter(is_shell).count();
            shells.min(model.answered.len() - shells)
        };
        if fewest >= of_each {
            return;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "{fewest} of {of_each} checks were answered in a minute");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Compares what a restarted service has with what was answered before `died`.
pub(crate) async fn verify(channel: Channel, model: &Mutex<Model>, died: Instant) {
    let mut audit = AuditServiceClient::new(channel);
    let (mut recorded, after) = (BTreeSet::new(), model.lock().unwrap().seen);
    let request = WatchEventsRequest {
        parent: "cluster".to_owned(),
        after_sequence: Some(after.min(newest(&mut audit).await)),
        ..WatchEventsRequest::default()
    };
    let mut events = audit.watch_events(request).await.unwrap().into_inner();
    let (mut next, last) = (after + 1, newest(&mut audit).await);
    while next <= last {
        let event = events.message().await.unwrap().unwrap();
        let Some(record) = event.record else { continue };
        assert_eq!(record.sequence, next, "dense");
        next += 1;
        if let Some(Content::Decision(decision)) = record.content {
            assert!(recorded.insert(decision.decision_id), "a decision was recorded twice");
        }
    }
    drop(events);
    let active = sessions(&mut audit, SessionState::Active).await;
    let mut model = model.lock().unwrap();
    let model = &mut *model;
    model.seen = last;
    for (id, Answered { at, connection_type }) in std::mem::take(&mut model.answered) {
        let is_missing = !recorded.contains(&id);
        if connection_type == ConnectionType::Shell {
            model.sync_checks += 1;
            assert!(!is_missing, "decision {id} was answered, and is not on the record");
        } else {
            model.async_checks += 1;
            if is_missing {
                model.async_lost += 1;
                model.lost_within = model.lost_within.max(died.saturating_duration_since(at));
            }
        }
    }
    for session in &model.open {
        assert!(active.contains(session), "session `{session}` was open and is not any more");
    }
    for session in &model.ended {
        assert!(!active.contains(session), "session `{session}` had ended and is active again");
    }
    // What was under way counts from now on as it turned out.
    for session in std::mem::take(&mut model.ending) {
        if active.contains(&session) { &mut model.open } else { &mut model.ended }.insert(session);
    }
}

/// The newest record.
async fn newest(audit: &mut AuditServiceClient<Channel>) -> i64 {
    let request = WatchEventsRequest { parent: "cluster".to_owned(), ..WatchEventsRequest::default() };
    let mut events = audit.watch_events(request).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap().through_sequence
}

async fn sessions(audit: &mut AuditServiceClient<Channel>, state: SessionState) -> BTreeSet<String> {
    let (mut names, mut token) = (BTreeSet::new(), String::new());
    loop {
        let request = ListSessionsRequest {
            parent: DEFAULT.to_owned(),
            page_size: 1_000,
            page_token: token,
            state: state.into(),
            ..ListSessionsRequest::default()
        };
        let page = audit.list_sessions(request).await.unwrap().into_inner();
        names.extend(page.sessions.into_iter().map(|session| session.name));
        token = page.next_page_token;
        if token.is_empty() {
            return names;
        }
    }
}

/// Verifies the log of a service that is dead, with nothing but its files.
pub(crate) fn verify_offline(data_dir: &Path) -> Verification {
    portcullis::server::verify_audit(data_dir, None, None, &mut |_, _| true).unwrap()
}

/// A deny rule for a part of the load, made once.
pub(crate) async fn prepare(channel: &Channel) {
    let mut firewall = portcullis::proto::v1::firewall_service_client::FirewallServiceClient::new(channel.clone());
    let request = portcullis::proto::v1::CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(crate::harness::rule(portcullis::proto::v1::Action::Deny, "203.0.0.0/16")),
        ..Default::default()
    };
    firewall.create_rule(request).await.unwrap();
}
