//! A tonic server that does nothing: it reads every message and answers with a constant, on tonic's and tokio's defaults.
//!
//! Invariant: its answer is as long as one of Portcullis.
//! Not here: Portcullis (`servers`).

use portcullis::proto::v1::decision_service_server::{DecisionService, DecisionServiceServer};
use portcullis::proto::v1::{self, CheckRequest, CheckResponse};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

struct Nothing;

fn constant() -> CheckResponse {
    CheckResponse {
        decision: v1::Decision::Allow.into(),
        reason: v1::Reason::DefaultAllow.into(),
        session: "organizations/default/sessions/5ae673e1b4a935de-a1".to_owned(),
        revision: 2,
        cluster_revision: 1,
        decision_id: "5d0b1ad9c3e2f011-1f".to_owned(),
        ..CheckResponse::default()
    }
}

#[tonic::async_trait]
impl DecisionService for Nothing {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(constant()))
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let responses = request.into_inner().requests.iter().map(|_| constant()).collect();
        Ok(Response::new(v1::BatchCheckResponse { responses }))
    }

    type StreamCheckStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<CheckResponse, Status>> + Send>>;

    async fn stream_check(
        &self,
        request: Request<Streaming<CheckRequest>>,
    ) -> Result<Response<Self::StreamCheckStream>, Status> {
        let answer = |request: Result<CheckRequest, Status>| {
            std::hint::black_box(request?);
            Ok(constant())
        };
        Ok(Response::new(Box::pin(request.into_inner().map(answer))))
    }

    async fn end_session(&self, _: Request<v1::EndSessionRequest>) -> Result<Response<v1::Session>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew_sessions(
        &self,
        _: Request<v1::RenewSessionsRequest>,
    ) -> Result<Response<v1::RenewSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Serves until killed.
pub(crate) async fn serve(listener: TcpListener) {
    // As tonic's `serve` does by default; a listener of one's own is otherwise left as it is, which delays answers by
    // tens of milliseconds.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder().add_service(DecisionServiceServer::new(Nothing));
    server.serve_with_incoming(incoming).await.unwrap();
}
