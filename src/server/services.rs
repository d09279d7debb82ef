//! All services behind their layers, and the direct way of Checks.
//!
//! Invariant: Checks and administration have separate limits, so that administration never takes room from Checks.
//! Not here: connections (`http2`), what the services do (`api`).

use anyhow::Context;
use tonic::service::{LayerExt, Routes};
use tower::Layer;

use super::health::HealthServed;
use crate::api::admission::Admission;
use crate::api::direct::DirectCheck;
use crate::api::methods::{Limit, Service};
use crate::api::streams::StreamChecks;
use crate::api::transport::{Explain, ExplainLayer, UnbrokenLayer};
use crate::api::{ANSWER_BYTES_MAX, Api};
use crate::config::Config;
use crate::proto::DESCRIPTOR;
use crate::proto::v1::analysis_service_server::AnalysisServiceServer;
use crate::proto::v1::audit_service_server::AuditServiceServer;
use crate::proto::v1::decision_service_server::DecisionServiceServer;
use crate::proto::v1::firewall_service_server::FirewallServiceServer;
use crate::proto::v1::hierarchy_service_server::HierarchyServiceServer;
use crate::proto::v1::maintenance_service_server::MaintenanceServiceServer;

/// Calls of administration at a time: few, because each may hold a message of many megabytes.
const ADMINISTRATION_CALLS_MAX: usize = 256;

/// Checks on their direct way, and everything as tonic serves it, Checks among it.
pub(super) struct Services {
    pub(super) direct: DirectCheck,
    pub(super) routes: Explain<Routes>,
}

impl Services {
    pub(super) fn new(config: &Config, api: &Api, health: HealthServed) -> anyhow::Result<Self> {
        let reflection_v1 = reflection()
            .with_service_name(tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME)
            .build_v1()
            .context("the descriptors for reflection")?;
        let reflection_v1alpha = reflection()
            .with_service_name(tonic_reflection::pb::v1alpha::server_reflection_server::SERVICE_NAME)
            .build_v1alpha()
            .context("the descriptors for reflection")?;
        // Health and reflection are not limited: a busy service is still healthy.
        let checks = Admission::new(config.requests_in_flight_max, config.request_timeout);
        let calls_max = config.requests_in_flight_max.min(ADMINISTRATION_CALLS_MAX);
        let administration = Admission::new(calls_max, config.request_timeout);
        let admission = |service: Service| match service.limit() {
            Limit::Checks => checks.clone(),
            Limit::Administration => administration.clone(),
        };
        macro_rules! sized {
            ($server:ident) => {
                $server::new(api.clone())
                    .max_decoding_message_size(config.request_bytes_max)
                    .max_encoding_message_size(ANSWER_BYTES_MAX)
            };
        }
        let decisions = StreamChecks::before(sized!(DecisionServiceServer), api.clone(), config.request_bytes_max);
        let routes = Routes::new(health)
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha)
            .add_service(admission(Service::Decision).named_layer(decisions))
            .add_service((admission(Service::Firewall), UnbrokenLayer).named_layer(sized!(FirewallServiceServer)))
            .add_service(admission(Service::Hierarchy).named_layer(sized!(HierarchyServiceServer)))
            .add_service(admission(Service::Audit).named_layer(sized!(AuditServiceServer)))
            .add_service(admission(Service::Analysis).named_layer(sized!(AnalysisServiceServer)))
            .add_service(admission(Service::Maintenance).named_layer(sized!(MaintenanceServiceServer)))
            .prepare();
        let direct = DirectCheck::new(api.clone(), checks.clone(), config.request_bytes_max);
        Ok(Self { direct, routes: ExplainLayer::new(api.refusals()).layer(routes) })
    }
}

/// Reflection of the services that are served. The descriptors may have more of them.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
    Service::ALL.iter().fold(builder, |builder, service| builder.with_service_name(service.name()))
}
