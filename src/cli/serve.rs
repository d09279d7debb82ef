//! `portcullis serve`: reads the configuration, starts the runtime and runs the server until a signal ends it.
//!
//! Invariant: nothing is opened or bound before the whole configuration is valid.
//! Not here: what a setting means (`config`), and what a server consists of (`server`).

use std::fs;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ServeArgs};
use crate::{server, telemetry};
use portcullis_cli::{Exit, Output};

pub(super) fn run(args: &ServeArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let file = match &args.config {
        None => None,
        Some(path) => Some(
            fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration file `{}`", path.display()))?,
        ),
    };
    let config = Config::resolve(args, file.as_deref())?;
    if args.check_config {
        output.text(&config.to_toml())?;
        return Ok(Exit::Success);
    }
    let logs = telemetry::init(&config.log).context("cannot start the log")?;
    // An error that ends the service, too, is not to wait for the reader of standard error. The last lines are written when
    // the output ends, after that error.
    output.redirect_notes(logs);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the server")?;
    runtime.block_on(async {
        let shutdown = stop_signal().context("cannot install the signal handlers")?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on `{}`, choose another address with `--listen`", config.listen))?;
        server::run(config, listener, shutdown).await?;
        Ok(Exit::Success)
    })
}

/// Completes when SIGTERM or SIGINT arrives. The handlers are installed before this returns, so that a signal during the
/// start is not lost.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
    })
}
