//! `portcullis events`: the newest audit records, and new ones as they are made.
//!
//! Invariant: records are printed in the order of their sequences, each once.
//! Not here: reconnecting (`follow`), and older records (`portcullis audit list`).

mod follow;
mod line;

use clap::Args;

use super::color::{ColorArgs, Colors};
use super::context::Context;
use super::exit::Exit;
use super::filters::{AuditType, audit_types, connection_type, note_of_types};
use super::names::{Parent, ParentArgs};
use super::output::Reader;
use super::pages;
use super::words::ConnectionType;
use line::Lines;
use portcullis_proto::v1;

/// How many of the newest records are printed by default.
const NEWEST_DEFAULT: u32 = 20;

const FORMS: &str = "On a terminal, or with `--output table`, an event is a line of text. In a pipe, or with \
                     `--output json`, it is one JSON object on one line. When the stream breaks, \
                     `--follow` reconnects and continues after the last event that was printed. Where the service \
                     was restored from a backup meanwhile, it stops and says so.";

#[derive(Args, Debug)]
#[command(after_help = FORMS)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    parent: ParentArgs,
    /// Print new events as they are made, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Start after this sequence; 0 starts with the first event. Refused where retention has removed what comes next: the
    /// error names the first that is kept
    #[arg(long, value_name = "SEQUENCE", requires = "follow", value_parser = clap::value_parser!(i64).range(0..))]
    after_sequence: Option<i64>,
    /// Refuse to go on where the service was restored from a backup since the sequence was seen: the lineage that it had
    /// then, as `portcullis audit checkpoint --output json` tells it
    #[arg(long, value_name = "LINEAGE", requires = "after_sequence", value_parser = lineage)]
    lineage: Option<String>,
    /// Print at most so many of the newest [default: 20]
    #[arg(long, value_name = "COUNT", conflicts_with = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    color: ColorArgs,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_enum, value_name = "TYPE", help_heading = "Filters")]
    types: Vec<AuditType>,
    /// Only events about this connection type
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Filters")]
    connection_type: Option<ConnectionType>,
}

pub(super) async fn run(args: EventsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let lines = Lines::of(context.output, Colors::of(args.color.color, context.output));
    let parent = args.parent.parent()?.name;
    context.note_if_any(note_of_types(&args.types, &parent));
    if !args.follow {
        return newest(&args, lines, context).await;
    }
    let connection_types = args.connection_type.map(|given| connection_type(Some(given)));
    let request = v1::WatchEventsRequest {
        parent: args.parent.whole("events are followed")?,
        after_sequence: args.after_sequence,
        types: audit_types(&args.types),
        connection_types: connection_types.into_iter().collect(),
        lineage: args.lineage.clone().unwrap_or_default(),
    };
    follow::run(request, lines, context).await
}

/// A lineage as it is typed.
fn lineage(text: &str) -> Result<String, String> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 16 && text.bytes().all(is_digit) {
        return Ok(text.to_owned());
    }
    Err("a lineage is 16 hexadecimal digits in lower case".to_owned())
}

/// Prints the newest records, the oldest of them first, as `tail` does.
async fn newest(args: &EventsArgs, lines: Lines, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Parent { name, node } = args.parent.parent()?;
    let first = v1::ListAuditRecordsRequest {
        parent: name,
        endpoint: node.unwrap_or_default(),
        connection_type: connection_type(args.connection_type),
        types: audit_types(&args.types),
        ..Default::default()
    };
    let mut client = context.client.audit();
    let list = pages::first(args.limit.unwrap_or(NEWEST_DEFAULT), async |page_size, page_token| {
        client.list_audit_records(v1::ListAuditRecordsRequest { page_size, page_token, ..first.clone() }).await
    });
    let (list, _more) = list.await?;
    for record in list.audit_records.iter().rev() {
        if context.output.part(&lines.line(record)?)? == Reader::Gone {
            break;
        }
    }
    Ok(Exit::Success)
}
