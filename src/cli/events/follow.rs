//! Following the log over streams that break.
//!
//! Invariant: every record is printed once, however often the stream breaks: the next stream begins behind the last
//! sequence that was printed, and what comes again all the same is passed over.
//! Not here: how a record looks (`line`).

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use portcullis_client::CallError;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::line::Lines;
use crate::cli::context::Context;
use crate::cli::error::shown;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, Reader};
use crate::proto::v1;
use crate::proto::v1::audit_service_client::AuditServiceClient;

/// The first wait before another attempt; it doubles from one to the next.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// The longest wait: a server that restarts is found again soon, one that is gone is not asked all the time.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A stream that says nothing for this long, not even a checkpoint, is taken for broken: the network may have lost the
/// server without a word.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// No record is that large; a message that is must not end the stream for good.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The key of `google.rpc.ErrorInfo` that tells the first record that is still kept.
const FIRST_SEQUENCE: &str = "first_sequence";

/// Where the following is.
struct Follower<'a> {
    client: AuditServiceClient<Channel>,
    request: v1::WatchEventsRequest,
    lines: Lines,
    output: &'a mut Output,
    wait: Duration,
    connected: bool,
}

/// How a stream ended.
enum End {
    /// Nobody reads any more.
    ReaderGone,
    /// It broke, and the next one may go on.
    Broken(String),
}

/// Prints the events until it is interrupted, nobody reads them any more, or they cannot be had.
pub(super) async fn run(
    request: v1::WatchEventsRequest,
    lines: Lines,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let client = context.client.audit().max_decoding_message_size(MESSAGE_BYTES_MAX);
    let output = &mut *context.output;
    let mut follower = Follower { client, request, lines, output, wait: WAIT_MIN, connected: false };
    tokio::select! {
        ended = follower.follow() => ended?,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen to signals")?,
    }
    Ok(Exit::Success)
}

impl Follower<'_> {
    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            let cause = match self.stream().await? {
                End::ReaderGone => return Ok(()),
                End::Broken(cause) => cause,
            };
            let from = match self.request.after_sequence {
                Some(sequence) => format!("behind sequence {sequence}"),
                None => "from now on, for nothing had come yet: what happens in between is not shown".to_owned(),
            };
            self.output.note(&format!("note: {cause}; trying again in {:?}, {from}", self.wait));
            tokio::time::sleep(self.wait).await;
            self.wait = (self.wait * 2).min(WAIT_MAX);
        }
    }

    /// Prints what one stream brings.
    async fn stream(&mut self) -> anyhow::Result<End> {
        let mut events = match self.client.watch_events(self.request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.broken(status.into()),
        };
        self.connected = true;
        loop {
            let message = match next(&mut events).await {
                Ok(message) => message,
                Err(status) => return self.broken(status.into()),
            };
            self.wait = WAIT_MIN;
            let after = self.request.after_sequence;
            let sequence = message.record.as_ref().map_or(0, |record| record.sequence);
            if let Some(record) = message.record
                && after.is_none_or(|after| record.sequence > after)
                && self.output.part(&self.lines.line(&record)?)? == Reader::Gone
            {
                return Ok(End::ReaderGone);
            }
            let through = message.through_sequence.max(sequence);
            self.request.after_sequence = Some(after.map_or(through, |after| after.max(through)));
        }
    }

    /// Whether another stream may go on where this one ended; if not, where somebody could.
    fn broken(&self, error: CallError) -> anyhow::Result<End> {
        let told = shown(&error);
        if is_transient(&error, self.connected) {
            return Ok(End::Broken(told));
        }
        Err(match (first_kept(&error), self.request.after_sequence) {
            (Some(first), _) => anyhow!(
                "{told}; the first event that is still kept is {first}: begin there with `--after-sequence {}`",
                first.saturating_sub(1)
            ),
            (None, Some(sequence)) if self.connected => {
                anyhow!("{told}; everything up to {sequence} was printed: go on with `--after-sequence {sequence}`")
            }
            (None, _) => error.into(),
        })
    }
}

/// The next message. A stream of events never ends with OK while the server lives.
async fn next(events: &mut Streaming<v1::WatchEventsResponse>) -> Result<v1::WatchEventsResponse, Status> {
    match tokio::time::timeout(SILENCE_MAX, events.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::unavailable("the server ended the stream")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::unavailable(format!("the server said nothing for {SILENCE_MAX:?}"))),
    }
}

/// Whether the same request may succeed later. Before the first answer a server that is not there is rather a mistyped
/// address.
fn is_transient(error: &CallError, connected: bool) -> bool {
    match error.refusal().map(|refusal| refusal.code) {
        Some(Code::Unavailable) => true,
        Some(Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled) | None => connected,
        Some(_) => false,
    }
}

/// The first sequence that the log still has, where the error is that an older one was asked for.
fn first_kept(error: &CallError) -> Option<i64> {
    let refusal = error.refusal().filter(|refusal| refusal.code == Code::OutOfRange)?;
    refusal.metadata.get(FIRST_SEQUENCE)?.parse().ok()
}
