//! What runs a command that asks a server: the runtime, and the client that it is given.
//!
//! Invariant: a server that cannot be reached is named.
//! Not here: the client itself (`portcullis-client`), and what is asked.

use anyhow::Context;
use portcullis_client::{CallError, Client, ServerAddress};

use super::error::UsageError;
use super::exit::Exit;

/// Runs what asks the server. The connection is made with the first call, so that whatever is wrong before is said
/// without it.
pub(super) fn call(server: &str, ask: impl AsyncFnOnce(Client) -> anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    let address: ServerAddress =
        server.parse().map_err(|error: portcullis_client::AddressError| UsageError(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the client")?;
    let result = runtime.block_on(async { ask(Client::connect_lazy(&address)).await });
    result.map_err(|error| match error.downcast_ref() {
        Some(CallError::Unreachable { .. }) => error.context(format!("cannot connect to `{server}`")),
        _ => error,
    })
}
