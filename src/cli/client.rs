//! The connection to a server, and the runtime that a call needs.
//!
//! Invariant: this is the only place that builds a channel; a server that cannot be reached is named, with what to do.
//! Not here: what is asked.

use std::time::Duration;

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::Exit;
use super::error::{CallError, UsageError};

/// Where a server is when nobody says otherwise: where `portcullis serve` listens by default.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// Long enough for a connection across the world, short enough for somebody who mistyped the address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs what asks the server. The connection is made with the first call, so that whatever is wrong before is said
/// without it.
pub(super) fn call<F>(server: &str, ask: impl FnOnce(Channel) -> F) -> anyhow::Result<Exit>
where
    F: Future<Output = anyhow::Result<Exit>>,
{
    let endpoint = endpoint(server)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the client")?;
    let result = runtime.block_on(async { ask(endpoint.connect_lazy()).await });
    result.map_err(|error| match error.downcast_ref() {
        Some(CallError::Unreachable { .. }) => error.context(format!("cannot connect to `{server}`")),
        _ => error,
    })
}

/// What a call answered with, without its metadata.
pub(super) fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, CallError> {
    Ok(result?.into_inner())
}

fn endpoint(server: &str) -> Result<Endpoint, UsageError> {
    let malformed =
        || UsageError(format!("`{server}` is no address of a server: write it as `{DEFAULT_SERVER}` or `HOST:PORT`"));
    if let Some(path) = server.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return Endpoint::from_shared(format!("unix:{path}"))
            .map(|endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT))
            .map_err(|_| UsageError(format!("`{server}` is no path of a socket: write it as `unix:PATH`")));
    }
    let uri = match server.split_once("://") {
        Some(("http", _)) => server.to_owned(),
        Some(("https", rest)) => {
            let message = format!("`{server}` asks for TLS, which this version does not have: write `http://{rest}`");
            return Err(UsageError(message));
        }
        Some(_) => return Err(malformed()),
        None => format!("http://{server}"),
    };
    let uri: http::Uri = uri.parse().map_err(|_| malformed())?;
    if uri.host().is_none_or(str::is_empty) || uri.path() != "/" || uri.query().is_some() {
        return Err(malformed());
    }
    Ok(Endpoint::from(uri).connect_timeout(CONNECT_TIMEOUT))
}
