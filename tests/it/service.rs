//! The service as a whole: health, reflection, overload, the drain, and calls that a later version serves.
//!
//! Invariant: what the service says of itself is true: it says SERVING only while it serves, it lists only what it
//! has, and a stop ends everything that is open.
//! Not here: what it keeps over a restart (`restart`), errors of the transport (`malformed_transport`).

use std::time::Duration;

use portcullis::config::Config;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{CheckRequest, GetAddressGroupRequest, ReplaceRangesRequest};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::clock::until;
use crate::harness::{Service, assert_error};

const ORGANIZATION: &str = "organizations/default";
const GROUP: &str = "organizations/default/addressGroups/office";

/// The names that health is told of.
const PARTS: [&str; 7] = [
    "",
    "portcullis.v1.AnalysisService",
    "portcullis.v1.AuditService",
    "portcullis.v1.DecisionService",
    "portcullis.v1.FirewallService",
    "portcullis.v1.HierarchyService",
    "portcullis.v1.MaintenanceService",
];

/// Longer than anything here takes, and shorter than the drain's ten seconds.
const SOON: Duration = Duration::from_secs(5);

fn check() -> CheckRequest {
    CheckRequest {
        ip: "192.0.2.1".to_owned(),
        connection_type: 1,
        endpoint: ORGANIZATION.to_owned(),
        ..CheckRequest::default()
    }
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn start(change: impl FnOnce(&mut Config)) -> (Service, tempfile::TempDir) {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    change(&mut config);
    (Service::with_config(config).await, temporary)
}

/// A call that stays open, in a service with room for one: a group is created, and a replacement of its ranges is begun
/// and not ended.
async fn open_call(
    service: &Service,
) -> (tokio::sync::mpsc::Sender<ReplaceRangesRequest>, tokio::task::JoinHandle<Result<(), Status>>) {
    let request = portcullis::proto::v1::CreateAddressGroupRequest {
        parent: ORGANIZATION.to_owned(),
        address_group_id: "office".to_owned(),
        ..Default::default()
    };
    service.firewall().create_address_group(request).await.unwrap();
    until("the call is let in", async || {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut firewall = service.firewall();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let call = tokio::spawn(async move { firewall.replace_ranges(stream).await.map(drop) });
        let ranges = vec!["any".to_owned()];
        sender.send(ReplaceRangesRequest { name: GROUP.to_owned(), ranges, ..Default::default() }).await.unwrap();
        // The one that asks may have had the place when the call came: then the call is refused, and begun again.
        while !call.is_finished() {
            if !has_room(service).await && !call.is_finished() {
                return Some((sender, call));
            }
        }
        None
    })
    .await
}

/// Whether one more call is let in.
async fn has_room(service: &Service) -> bool {
    let request = GetAddressGroupRequest { name: GROUP.to_owned() };
    match service.firewall().get_address_group(request).await {
        Ok(_) => true,
        Err(refused) => {
            assert_error::<()>(Err(refused), Code::Unavailable, "OVERLOADED");
            false
        }
    }
}

#[tokio::test]
async fn health_is_told_of_the_whole_and_of_every_part_and_of_nothing_else() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel.clone());
    for name in PARTS {
        assert_eq!(health.check(named(name)).await.unwrap().into_inner().status(), ServingStatus::Serving, "{name}");
    }
    for name in ["portcullis", "portcullis.v1.NoService", "portcullis.v1.decisionservice", " "] {
        assert_error(health.check(named(name)).await, Code::NotFound, "NOT_FOUND");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_watch_sees_the_end_and_holds_up_no_stop() {
    let service = Service::start().await;
    let mut health = HealthClient::new(service.channel.clone());
    let mut watches = Vec::new();
    for name in PARTS.iter().cycle().take(32) {
        let mut watch = health.watch(named(name)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(watch);
    }
    let begun = Instant::now();
    let stop = tokio::spawn(service.stop());
    for mut watch in watches {
        let seen = timeout(SOON, watch.message()).await.unwrap().unwrap();
        assert_eq!(seen.expect("told before the end").status(), ServingStatus::NotServing);
        let end = timeout(SOON, watch.message()).await.unwrap();
        assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    }
    timeout(SOON, stop).await.unwrap().unwrap();
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn until_the_policy_is_read_nothing_is_decided_and_health_says_so() {
    let temporary = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let config = Config::for_data_dir(temporary.path().join("data"));
    let server = tokio::spawn(portcullis::server::run(config, listener, async {
        let _ = stopped.await;
    }));
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut watch = HealthClient::new(channel.clone()).watch(named("")).await.unwrap().into_inner();
    // How much of the start is seen depends on who is faster; an answer is a decision or says that it is starting.
    loop {
        let answer = DecisionServiceClient::new(channel.clone()).check(check()).await;
        if answer.is_ok() {
            break;
        }
        assert_error(answer, Code::Unavailable, "STARTING");
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&ServingStatus::Serving) {
        seen.push(timeout(SOON, watch.message()).await.unwrap().unwrap().unwrap().status());
    }
    assert!(
        seen == [ServingStatus::Serving] || seen == [ServingStatus::NotServing, ServingStatus::Serving],
        "{seen:?}"
    );
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_nothing_else_in_both_versions() {
    let service = Service::start().await;
    let served = [
        "grpc.health.v1.Health",
        "portcullis.v1.AnalysisService",
        "portcullis.v1.AuditService",
        "portcullis.v1.DecisionService",
        "portcullis.v1.FirewallService",
        "portcullis.v1.HierarchyService",
        "portcullis.v1.MaintenanceService",
    ];
    let symbol = "portcullis.v1.CheckRequest".to_owned();
    let of_v1 = |message| v1::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        of_v1(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        of_v1(v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.clone())),
    ];
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(service.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.retain(|name| !name.starts_with("grpc.reflection."));
    names.sort();
    assert_eq!(names, served);
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(answer, v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_)), "{answer:?}");

    let of_v1alpha = |message| v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        of_v1alpha(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
        of_v1alpha(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol)),
    ];
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(service.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.retain(|name| !name.starts_with("grpc.reflection."));
    names.sort();
    assert_eq!(names, served);
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(
        matches!(answer, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)),
        "{answer:?}"
    );
    service.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_at_once_and_keep_out_no_check() {
    let (service, _temporary) = start(|config| config.requests_in_flight_max = 1).await;
    let (sender, call) = open_call(&service).await;
    let mut health = HealthClient::new(service.channel.clone());
    for _ in 0..3 {
        let begun = Instant::now();
        service.decisions().check(check()).await.unwrap();
        let request = GetAddressGroupRequest { name: GROUP.to_owned() };
        assert_error(service.firewall().get_address_group(request).await, Code::Unavailable, "OVERLOADED");
        assert!(begun.elapsed() < Duration::from_secs(2), "refused, not kept waiting");
        assert_eq!(health.check(named("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    drop(sender);
    call.await.unwrap().unwrap();
    // Every place is given back, also by calls that are refused, fail, or are given up.
    for round in 0..20 {
        let malformed = CheckRequest { ip: String::new(), ..check() };
        assert_error(service.decisions().check(malformed).await, Code::InvalidArgument, "INVALID_FIELD");
        if round % 4 == 0 {
            let mut firewall = service.firewall();
            let given_up = timeout(
                Duration::from_millis(20),
                firewall.replace_ranges(tokio_stream::pending::<ReplaceRangesRequest>()),
            );
            assert!(given_up.await.is_err());
            until("its place is given back", async || has_room(&service).await.then_some(())).await;
        }
        service.decisions().check(check()).await.unwrap();
    }
    service.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_calls_under_way_and_takes_no_new_ones() {
    let (service, _temporary) = start(|config| {
        config.drain_timeout = Duration::from_mins(1);
        config.requests_in_flight_max = 1;
    })
    .await;
    let address = service.address();
    let (sender, call) = open_call(&service).await;
    let stop = tokio::spawn(service.stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!stop.is_finished(), "the call is under way");
    let late = Channel::from_shared(format!("http://{address}")).unwrap().connect_timeout(Duration::from_millis(200));
    let late = async { DecisionServiceClient::new(late.connect().await.ok()?).check(check()).await.ok() };
    assert!(timeout(Duration::from_millis(500), late).await.ok().flatten().is_none());
    drop(sender);
    timeout(SOON, call).await.unwrap().unwrap().expect("a call that was let in is finished");
    timeout(SOON, stop).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_is_cut_off() {
    let (service, _temporary) = start(|config| {
        config.drain_timeout = Duration::from_millis(300);
        config.requests_in_flight_max = 1;
    })
    .await;
    let data_dir = service.data_dir().to_owned();
    let (sender, call) = open_call(&service).await;
    timeout(SOON, service.stop()).await.expect("the drain has an end");
    let cut_off = timeout(SOON, call).await.expect("the call is cut off, not left hanging").unwrap();
    assert!(cut_off.is_err(), "{cut_off:?}");
    drop(sender);
    // Nothing of the old service is left: the next one takes the directory.
    let service = Service::with_config(Config::for_data_dir(data_dir)).await;
    let request = GetAddressGroupRequest { name: GROUP.to_owned() };
    assert_eq!(service.firewall().get_address_group(request).await.unwrap().into_inner().range_count, 0);
    service.stop().await;
}
