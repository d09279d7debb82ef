//! What a rule was stays in the records of what it denied and revoked, whatever becomes of the rule.
//!
//! Invariant: range or group and description are those of the moment of the record, in every list, stream and restart.
//! Not here: how the command line shows them (`cli_audit`), the stored bytes (`audit_codec`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::Engine;
use portcullis::policy::name::Id;
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{self as policy, RulePatch};
use portcullis::proto::v1::audit_record::Content;
use portcullis::proto::v1::rule::Source;
use portcullis::proto::v1::{
    Action, AddressGroup, AuditType, BatchCheckRequest, ConnectionType, CreateAddressGroupRequest, CreateRuleRequest,
    DecisionRecord, DeleteAddressGroupRequest, DeleteRuleRequest, EndSessionRequest, EraseUserRequest, FirewallEvent,
    GetOverviewRequest, ListAuditRecordsRequest, ListFirewallEventsRequest, ListSessionsRequest, Reason, Rule, Session,
    SessionState, UpdateRuleRequest, WatchEventsRequest,
};
use prost::Message;

use crate::audit_api::{check_of, verify};
use crate::audit_engine::{self, key, small_units};
use crate::audit_watch::signed_size;
use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";

/// The rule, the source and the description that a denial names.
type Named = [String; 3];

fn named(rule: &str, source: &str, description: &str) -> Named {
    let rule = if rule.is_empty() { String::new() } else { format!("{DEFAULT}/rules/{rule}") };
    [rule, source.to_owned(), description.to_owned()]
}

async fn create_rule(service: &Service, id: &str, given: Rule) {
    let request = CreateRuleRequest {
        parent: DEFAULT.to_owned(),
        rule: Some(given),
        rule_id: id.to_owned(),
        ..CreateRuleRequest::default()
    };
    service.firewall().create_rule(request).await.unwrap();
}

async fn delete_rule(service: &Service, id: &str) {
    let request = DeleteRuleRequest { name: format!("{DEFAULT}/rules/{id}"), ..DeleteRuleRequest::default() };
    service.firewall().delete_rule(request).await.unwrap();
}

fn described(action: Action, range: &str, description: &str) -> Rule {
    Rule { description: description.to_owned(), ..rule(action, range) }
}

/// A rule and a group that deny, an update of the rule between two denials, denials and allowed connections by other
/// ways; then rules and group are gone. Returns what the denials must name, newest first.
async fn fill(service: &Service) -> Vec<Named> {
    let group = AddressGroup { ranges: vec!["203.0.113.0/24".to_owned()], ..AddressGroup::default() };
    let request = CreateAddressGroupRequest {
        parent: DEFAULT.to_owned(),
        address_group: Some(group),
        address_group_id: "listed".to_owned(),
        ..CreateAddressGroupRequest::default()
    };
    service.firewall().create_address_group(request).await.unwrap();
    let group = format!("{DEFAULT}/addressGroups/listed");
    create_rule(service, "bad", described(Action::Deny, "198.51.100.0/24", "known attackers")).await;
    let by_group =
        Rule { source: Some(Source::AddressGroup(group.clone())), ..described(Action::Deny, "any", "the list") };
    create_rule(service, "listed", by_group).await;
    create_rule(service, "plain", rule(Action::Deny, "2001:db8::/32")).await;
    create_rule(service, "office", described(Action::Allow, "192.0.2.0/24", "our office")).await;
    service.add_node(DEFAULT, "web", Some(crate::harness::allow_list(&["192.0.2.1"]))).await;
    let web = format!("{DEFAULT}/projects/web");
    let check = async |ip: &str, connection_type, endpoint: &str| {
        let request = check_of("eve@example.com", ip, connection_type, endpoint);
        service.decisions().check(request).await.unwrap().into_inner()
    };
    check("198.51.100.7", ConnectionType::Shell, DEFAULT).await;
    let updated =
        Rule { name: format!("{DEFAULT}/rules/bad"), ..described(Action::Deny, "198.51.100.4/30", "now only these") };
    let request = UpdateRuleRequest { rule: Some(updated), ..UpdateRuleRequest::default() };
    service.firewall().update_rule(request).await.unwrap();
    check("198.51.100.7", ConnectionType::Preview, DEFAULT).await;
    check("203.0.113.9", ConnectionType::Shell, DEFAULT).await;
    check("2001:db8::7", ConnectionType::Shell, DEFAULT).await;
    check("192.0.2.9", ConnectionType::Shell, &web).await;
    check("192.0.2.1", ConnectionType::Shell, &web).await;
    for id in ["bad", "listed", "plain"] {
        delete_rule(service, id).await;
    }
    let request = DeleteAddressGroupRequest { name: group.clone(), ..DeleteAddressGroupRequest::default() };
    service.firewall().delete_address_group(request).await.unwrap();
    vec![
        named("", "", ""),
        named("plain", "2001:db8::/32", ""),
        named("listed", &group, "the list"),
        named("bad", "198.51.100.4/30", "now only these"),
        named("bad", "198.51.100.0/24", "known attackers"),
    ]
}

fn of_event(event: FirewallEvent) -> Named {
    [event.rule, event.rule_source, event.rule_description]
}

fn of_decision(decision: DecisionRecord) -> Named {
    [decision.rule, decision.rule_source, decision.rule_description]
}

/// What each way of reading the log says of the denials, newest first.
async fn denials(service: &Service) -> [Vec<Named>; 4] {
    let mut audit = service.audit();
    let request = ListFirewallEventsRequest { parent: DEFAULT.to_owned(), ..ListFirewallEventsRequest::default() };
    let events = audit.list_firewall_events(request).await.unwrap().into_inner().firewall_events;
    let request = ListAuditRecordsRequest {
        parent: DEFAULT.to_owned(),
        types: vec![AuditType::Decision.into()],
        decision: portcullis::proto::v1::Decision::Deny.into(),
        ..ListAuditRecordsRequest::default()
    };
    let records = audit.list_audit_records(request).await.unwrap().into_inner().audit_records;
    let decision = |content| match content {
        Some(Content::Decision(decision)) => of_decision(decision),
        other => panic!("{other:?}"),
    };
    let overview = audit.get_overview(GetOverviewRequest { parent: DEFAULT.to_owned() }).await.unwrap().into_inner();
    let request = WatchEventsRequest {
        parent: DEFAULT.to_owned(),
        after_sequence: Some(0),
        types: vec![AuditType::Decision.into()],
        ..WatchEventsRequest::default()
    };
    let mut stream = audit.watch_events(request).await.unwrap().into_inner();
    let mut watched = Vec::new();
    while watched.len() < records.len() {
        let Some(record) = stream.message().await.unwrap().unwrap().record else { continue };
        let Some(Content::Decision(record)) = record.content else { panic!("{record:?}") };
        match record.reason() {
            Reason::AllowRule | Reason::DefaultAllow => {
                assert_eq!((record.rule_source.as_str(), record.rule_description.as_str()), ("", ""), "{record:?}");
            }
            _ => watched.insert(0, of_decision(record)),
        }
    }
    [
        events.into_iter().map(of_event).collect(),
        records.into_iter().map(|record| decision(record.content)).collect(),
        overview.firewall_events.into_iter().map(of_event).collect(),
        watched,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_names_its_rule_as_it_was_after_a_change_a_deletion_a_restart_and_an_erasure() {
    let temporary = tempfile::tempdir().unwrap();
    let config = || Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config()).await;
    let expected = fill(&service).await;
    for shown in denials(&service).await {
        assert_eq!(shown, expected);
    }
    service.stop().await;
    let service = Service::with_config(config()).await;
    for shown in denials(&service).await {
        assert_eq!(shown, expected);
    }
    let request = EraseUserRequest {
        parent: DEFAULT.to_owned(),
        user_email: "eve@example.com".to_owned(),
        ..EraseUserRequest::default()
    };
    let erased = service.audit().erase_user(request).await.unwrap().into_inner();
    assert!(erased.opening_count > Some(0));
    for shown in denials(&service).await {
        assert_eq!(shown, expected, "what a rule was is policy and stays");
    }
    signed_size(&service.channel, erased.sequence.unsigned_abs()).await;
    let verified = verify(&service, "").await;
    assert!(verified.intact, "{verified:?}");
    service.stop().await;
}

/// Every session, over pages as large as they may be; and the largest of these.
async fn sessions(service: &Service, state: SessionState) -> (Vec<Session>, usize) {
    let (mut sessions, mut largest, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListSessionsRequest {
            parent: DEFAULT.to_owned(),
            page_size: 1_000,
            page_token,
            state: state.into(),
            ..ListSessionsRequest::default()
        };
        let page = service.audit().list_sessions(request).await.unwrap().into_inner();
        largest = largest.max(page.encoded_len());
        sessions.extend(page.sessions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (sessions, largest);
        }
    }
}

fn revoked_by(session: Session) -> Named {
    [session.revoke_rule, session.revoke_rule_source, session.revoke_rule_description]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_names_the_rule_as_it_was_while_it_is_active_and_when_it_has_ended() {
    let temporary = tempfile::tempdir().unwrap();
    let config = || Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config()).await;
    let mut names = Vec::new();
    for ip in ["198.51.100.1", "198.51.100.2", "192.0.2.1"] {
        names.push(service.check(ip, DEFAULT).await.session);
    }
    create_rule(&service, "bad", described(Action::Deny, "198.51.100.0/24", "known attackers")).await;
    let request = WatchEventsRequest {
        parent: DEFAULT.to_owned(),
        after_sequence: Some(0),
        types: vec![AuditType::SessionRevoked.into()],
        ..WatchEventsRequest::default()
    };
    let mut stream = service.audit().watch_events(request).await.unwrap().into_inner();
    let expected = named("bad", "198.51.100.0/24", "known attackers");
    let mut revoked = 0;
    while revoked < 2 {
        let Some(record) = stream.message().await.unwrap().unwrap().record else { continue };
        let Some(Content::Session(session)) = record.content else { panic!("{record:?}") };
        assert_eq!(revoked_by(session), expected);
        revoked += 1;
    }
    drop(stream);
    delete_rule(&service, "bad").await;
    let ended = service.decisions().end_session(EndSessionRequest { name: names[0].clone() }).await.unwrap();
    assert_eq!(revoked_by(ended.into_inner()), expected);
    service.stop().await;

    // The active ones now come from what was saved, and from the log where that is gone.
    for restart in 0..2 {
        if restart == 1 {
            for entry in std::fs::read_dir(temporary.path().join("data/sessions")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "zst") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
        let service = Service::with_config(config()).await;
        let (active, _) = sessions(&service, SessionState::Active).await;
        let of = |name: &str| active.iter().find(|session| session.name == name).unwrap().clone();
        assert_eq!(revoked_by(of(&names[1])), expected);
        assert_eq!(revoked_by(of(&names[2])), named("", "", ""));
        let (ended, _) = sessions(&service, SessionState::Ended).await;
        assert_eq!(ended.into_iter().map(revoked_by).collect::<Vec<_>>(), std::slice::from_ref(&expected));
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_sessions_fits_an_answer_whatever_the_rule_says_that_revoked_them() {
    const COUNT: usize = 1_000;
    let service = Service::start().await;
    let checks = (0..COUNT).map(|number| {
        let ip = format!("198.51.{}.{}", number / 250, number % 250);
        check_of("", &ip, ConnectionType::Shell, DEFAULT)
    });
    let request = BatchCheckRequest { requests: checks.collect() };
    let answers = service.decisions().batch_check(request).await.unwrap().into_inner().responses;
    let long = "\u{1F6AB}".repeat(1_024);
    create_rule(&service, "all", described(Action::Deny, "any", &long)).await;
    crate::clock::until("all are revoked", async || {
        let (active, largest) = sessions(&service, SessionState::Active).await;
        assert!(active.len() == COUNT && largest <= 4 << 20, "{} {largest}", active.len());
        active.iter().all(|session| session.revoke_rule_description == long).then_some(())
    })
    .await;
    let mut ends = tokio::task::JoinSet::new();
    for answer in answers {
        let mut decisions = service.decisions();
        ends.spawn(async move { decisions.end_session(EndSessionRequest { name: answer.session }).await.unwrap() });
    }
    ends.join_all().await;
    let (ended, largest) = sessions(&service, SessionState::Ended).await;
    let mut names: Vec<&str> = ended.iter().map(|session| session.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() == COUNT && ended.len() == COUNT && largest <= 4 << 20, "{} {largest}", ended.len());
    assert!(ended.iter().all(|session| session.revoke_rule_description == long));
    service.stop().await;
}

/// The hazard: somebody who is denied again and again fills the memory with what an administrator wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_denials_by_a_rule_with_a_long_description_ends_units_early() {
    let directory = tempfile::tempdir().unwrap();
    let long = "\u{1F6AB}".repeat(1_024);
    let mut options = small_units();
    options.audit.unit_age_max = Duration::from_hours(1);
    let engine = audit_engine::open(directory.path(), key(1), options.clone());
    let flood = async |engine: &Engine, count: usize| {
        for _ in 0..count {
            let answer = audit_engine::check(engine, "", "192.0.2.1", policy::ConnectionType::Preview, DEFAULT).await;
            assert_eq!(answer.unwrap().reason, portcullis::policy::decision::Reason::DenyRule);
        }
        audit_engine::settle(engine).await;
    };
    let patch = RulePatch {
        action: Some(policy::Action::Deny),
        source: Some(policy::Source::Range("any".parse().unwrap())),
        description: Some(long.as_str().into()),
        ..RulePatch::default()
    };
    audit_engine::change(&engine, Mutation::CreateRule { id: Id::parse("all").ok(), position: None, patch }).await;
    // One unit ends, another is begun; after a restart it goes on with what it has.
    flood(&engine, 12_000).await;
    engine.close();
    let engine = audit_engine::open(directory.path(), key(1), options);
    flood(&engine, 12_000).await;
    crate::clock::until("two units are sealed", async || {
        (audit_engine::sealed_units(directory.path()) >= 2).then_some(())
    })
    .await;
    let files = audit_engine::sealed_files(&directory.path().join("audit"));
    for first in files.list().unwrap() {
        let records = files.open(first).unwrap().count();
        let bytes = records * long.len();
        // The limit, and what comes until the tile is full: a frame at most and a tile.
        assert!(bytes < (32 + 8 + 2) << 20, "{records} records");
        assert!(files.bytes(first).unwrap() < bytes as u64 / 50, "what repeats is compressed");
    }
    assert_eq!(engine.audit().verify(None, &mut |_, _| true).unwrap().faults, []);
    engine.close();
}
