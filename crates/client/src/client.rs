//! The connection to a server, and the calls that go through it.
//!
//! Invariant: this is the only place that builds a channel.
//! Not here: what is asked.

use portcullis_proto::v1::analysis_service_client::AnalysisServiceClient;
use portcullis_proto::v1::audit_service_client::AuditServiceClient;
use portcullis_proto::v1::decision_service_client::DecisionServiceClient;
use portcullis_proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis_proto::v1::hierarchy_service_client::HierarchyServiceClient;
use portcullis_proto::v1::maintenance_service_client::MaintenanceServiceClient;
use portcullis_proto::v1::{CheckRequest, CheckResponse};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::address::ServerAddress;
use crate::error::CallError;

/// A client of one server. Clones share the connection, and calls on it go on at the same time.
///
/// Each service has the client that tonic generates for it. [`answer`] turns its results into ours.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// A client that connects with its first call, and again after the connection broke.
    ///
    /// It must be made inside of a Tokio runtime, which drives the connection.
    pub fn connect_lazy(address: &ServerAddress) -> Self {
        Self { channel: address.endpoint().connect_lazy() }
    }

    /// Decides one connection. Only an answer with `DECISION_ALLOW` lets it through; every error is a denial.
    pub async fn check(&self, request: CheckRequest) -> Result<CheckResponse, CallError> {
        answer(self.decisions().check(request).await)
    }

    /// Decides connections, and ends their sessions.
    pub fn decisions(&self) -> DecisionServiceClient<Channel> {
        DecisionServiceClient::new(self.channel.clone())
    }

    /// Manages rules and address groups.
    pub fn firewall(&self) -> FirewallServiceClient<Channel> {
        FirewallServiceClient::new(self.channel.clone())
    }

    /// Manages the cluster, organizations, projects, workspaces and endpoints, and their access.
    pub fn hierarchy(&self) -> HierarchyServiceClient<Channel> {
        HierarchyServiceClient::new(self.channel.clone())
    }

    /// Explains decisions, previews changes, and manages whole policies and their revisions.
    pub fn analysis(&self) -> AnalysisServiceClient<Channel> {
        AnalysisServiceClient::new(self.channel.clone())
    }

    /// Lists sessions, and reads and verifies the audit log.
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    /// Takes backups.
    pub fn maintenance(&self) -> MaintenanceServiceClient<Channel> {
        MaintenanceServiceClient::new(self.channel.clone())
    }

    /// The connection itself, for services that are not ours, such as `grpc.health.v1`.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// What a call answered with, without its metadata.
pub fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, CallError> {
    Ok(result?.into_inner())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn check(address: &str) -> CallError {
        let client = Client::connect_lazy(&address.parse().unwrap());
        client.check(CheckRequest::default()).await.unwrap_err()
    }

    /// The hazard: an error that is taken for an answer.
    #[tokio::test]
    async fn server_that_is_not_there_or_goes_away_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hang_up = tokio::spawn(async move { drop(listener.accept().await) });
        let error = check(&address).await;
        assert!(matches!(error, CallError::Broken { .. }), "{error:?}");
        hang_up.await.unwrap();
        for address in [address.as_str(), "unix:/nowhere/portcullis.sock"] {
            let error = check(address).await;
            assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
        }
    }
}
