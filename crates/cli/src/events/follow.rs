//! Follows the log, and reconnects when the stream breaks.
//!
//! Invariant: every record is printed once, however often the stream breaks. The next stream begins after the last
//! printed sequence, and records up to it are skipped. What follows is of the same lineage, or the command ends.
//! Not here: how a record looks (`line`).

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use portcullis_client::CallError;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::line::Lines;
use crate::context::Context;
use crate::error::of_call;
use crate::exit::Exit;
use crate::output::{Output, Reader};
use portcullis_proto::v1;
use portcullis_proto::v1::audit_service_client::AuditServiceClient;

/// The first wait before another attempt; it doubles from one to the next.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// The longest wait: short enough to notice a restart, long enough not to load a server that is down.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A stream without a message for this long, not even a checkpoint, counts as broken: the network may have dropped the
/// connection without a reset.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// The largest message that is accepted. No record is that large.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The key in `google.rpc.ErrorInfo` of the first record that is still kept.
const FIRST_SEQUENCE: &str = "first_sequence";

/// The reason of an error that says that the service has another history.
const LINEAGE_CHANGED: &str = "LINEAGE_CHANGED";

/// The state of following.
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
    /// The pipe that results go to was closed.
    ReaderGone,
    /// It broke, and another may continue.
    Broken(String),
}

/// Prints events until it is interrupted, the pipe is closed, or an error is permanent.
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
                Some(sequence) => format!("after sequence {sequence}"),
                None => "with new events only: those in between are not shown".to_owned(),
            };
            self.output.note(&format!("note: {cause}; trying again in {:?}, {from}", self.wait));
            tokio::time::sleep(self.wait).await;
            self.wait = (self.wait * 2).min(WAIT_MAX);
        }
    }

    /// Prints the records of one stream.
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
            // From now on with the sequence, so that a log that was restored meanwhile is not continued in its middle.
            self.request.lineage = message.lineage;
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

    /// Whether another stream may continue after this error. If not, the error says with which sequence to continue.
    fn broken(&self, error: CallError) -> anyhow::Result<End> {
        let text = of_call(&error);
        if is_transient(&error, self.connected) {
            return Ok(End::Broken(text));
        }
        if error.refusal().is_some_and(|refusal| refusal.reason == LINEAGE_CHANGED) {
            return Err(self.lineage_changed());
        }
        let v1::WatchEventsRequest { after_sequence, lineage, .. } = &self.request;
        let lineage = if lineage.is_empty() { String::new() } else { format!(" --lineage {lineage}") };
        Err(match (first_kept(&error), *after_sequence) {
            // What the server says of it, in the words of the command.
            (Some(first), _) => anyhow!(
                "events before sequence {first} have been removed by retention: start with the first that is kept by \
                 `--after-sequence {}{lineage}`, or without it for new events",
                first.saturating_sub(1)
            ),
            (None, Some(sequence)) if self.connected => {
                anyhow!(
                    "{text}; everything up to {sequence} was printed: continue with `--after-sequence {sequence}{lineage}`"
                )
            }
            (None, _) => error.into(),
        })
    }

    /// The service has another history than the events before.
    fn lineage_changed(&self) -> anyhow::Error {
        let v1::WatchEventsRequest { after_sequence, lineage, .. } = &self.request;
        let seen = match after_sequence {
            Some(sequence) if self.connected => {
                format!("; everything up to {sequence} of lineage {lineage} was printed")
            }
            _ => String::new(),
        };
        anyhow!(
            "the service was restored from a backup, or is another one: events of lineage {lineage} that came after the \
             backup are lost, and their sequences are given out again{seen}; start again without `--after-sequence` and \
             `--lineage` for new events, or with `--after-sequence 0` for all that no \
             retention has removed"
        )
    }
}

/// The next message. A stream of events never ends with OK while the server lives.
async fn next(events: &mut Streaming<v1::WatchEventsResponse>) -> Result<v1::WatchEventsResponse, Status> {
    match tokio::time::timeout(SILENCE_MAX, events.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::unavailable("the server ended the stream")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::unavailable(format!("no message from the server for {SILENCE_MAX:?}"))),
    }
}

/// Whether the same request may succeed later. Before the first answer, an unreachable server is more likely a mistyped
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
