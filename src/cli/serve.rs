//! `portcullis serve`: reads the configuration, starts the runtime and runs the server until a signal ends it.
//!
//! Invariant: nothing is opened or bound before the whole configuration is valid.
//! Not here: what a setting means (`config`), what a server consists of (`server`), and a process that hangs (`signals`).

use std::fs;

use anyhow::Context;
use tokio::net::TcpListener;

use super::signals::Signals;
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
        config.warnings().iter().for_each(|warning| output.note(&format!("warning: {warning}")));
        return Ok(Exit::Success);
    }
    let logs = telemetry::init(&config.log).context("cannot start the log")?;
    // An error that ends the service, too, is not to wait for the reader of standard error. The last lines are written when
    // the output ends, after that error.
    output.redirect_notes(logs);
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the server")?;
    let signals = Signals::start(config.drain_timeout, runtime.handle().clone());
    let mut signals = signals.context("cannot install the signal handlers")?;
    let shutdown = signals.told();
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on `{}`, choose another address with `--listen`", config.listen))?;
        server::run(config, listener, shutdown).await
    });
    // Dropping it would wait for calls that hang.
    runtime.shutdown_background();
    ended.and_then(|()| signals.check()).map(|()| Exit::Success)
}
