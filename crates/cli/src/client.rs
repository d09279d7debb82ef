//! Runs a command that asks a server: makes the runtime and the client for it.
//!
//! Invariant: an error about an unreachable server names its address.
//! Not here: the client itself (`portcullis-client`), and what is asked.

use anyhow::Context;
use portcullis_client::{CallError, Client, ServerAddress};

use super::error::UsageError;
use super::exit::Exit;

/// Runs `ask`. The connection is made with its first call, so that wrong usage is reported without a server.
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
