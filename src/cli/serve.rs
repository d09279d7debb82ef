//! `portcullis serve`: reads the configuration, starts the runtime and runs the server until a signal ends it.
//!
//! Invariant: nothing is opened or bound before the whole configuration is valid. After a signal the process ends within
//! `drain_timeout` and ten seconds, whatever hangs.
//! Not here: what a setting means (`config`), and what a server consists of (`server`).

use std::fs;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::{Config, ServeArgs};
use crate::{server, telemetry};
use portcullis_cli::{Exit, Output};

/// How long all may take after a signal and `drain_timeout`. The server gives up what hangs half a second earlier.
const END_TIMEOUT: Duration = Duration::from_millis(9_500);

/// How long the log gets for its last line.
const LAST_LINE_PAUSE: Duration = Duration::from_millis(300);

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
    let drain = config.drain_timeout;
    let shutdown = stop_signal(drain).context("cannot install the signal handlers")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the server")?;
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on `{}`, choose another address with `--listen`", config.listen))?;
        server::run(config, listener, shutdown).await
    });
    // Dropping it would wait for calls that hang.
    runtime.shutdown_background();
    ended.map(|()| Exit::Success)
}

/// Completes when SIGTERM or SIGINT arrives. The handlers are installed before this returns, so that a signal during the
/// start is not lost.
///
/// It has a thread and a runtime of its own, so that it works whatever the server's threads wait for. If the process has
/// not ended by itself within the bound, that thread ends it.
fn stop_signal(drain: Duration) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (tell, told) = oneshot::channel();
    let watch = async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
        // Nobody waits for it where the server has ended already.
        let _ = tell.send(());
        tokio::time::sleep(drain + END_TIMEOUT).await;
        tracing::error!("the process did not end in time, because its threads hang: it is ended now");
        // For the last line of the log.
        tokio::time::sleep(LAST_LINE_PAUSE).await;
        std::process::exit(1);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(async {
        // An error means that the thread has ended. Without it no signal would end the service any more.
        if told.await.is_err() {
            tracing::error!("the thread `signals` ended, and the service with it");
        }
    })
}
