//! `portcullis audit export`: all audit records as JSON lines or CSV.
//!
//! Invariant: records are written page by page, so that memory does not grow with the log. An export that fails says
//! how many records were written.
//! Not here: what a row holds (`csv`).

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use portcullis_client::answer;
use tonic::transport::Channel;

use super::csv;
use crate::context::Context;
use crate::error::UsageError;
use crate::exit::Exit;
use crate::filters::RecordFilterArgs;
use crate::names::ParentArgs;
use crate::output::{Output, Reader};
use crate::pages;
use crate::progress::Progress;
use portcullis_proto::v1::audit_service_client::AuditServiceClient;
use portcullis_proto::{to_json, v1};

const FORMS: &str = "Records are written newest first, without those that are made meanwhile. JSON lines \
                     have every field of a record. CSV has one line for each record. Control characters are \
                     escaped (`\\n`). A text that begins with `=`, `+`, `-` or `@` has a `'` before it, or a \
                     spreadsheet would run it as a formula.";

#[derive(Args, Debug)]
#[command(after_help = FORMS)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    parent: ParentArgs,
    /// How records are written
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Form,
    /// Write to this file, which is replaced if it exists [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    filters: RecordFilterArgs,
}

/// A format of an export as it is typed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One JSON object a line
    Jsonl,
    /// One row a record, below a row of headings
    Csv,
}

/// Where an export goes.
enum Target<'a> {
    File(BufWriter<File>),
    Output(&'a mut Output),
}

pub(super) async fn run(args: &ExportArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let asked = args.filters.records(&args.parent)?;
    context.note_if_any(args.filters.note(&asked.parent));
    let (client, output) = (context.client.audit(), &mut *context.output);
    if output.asked().is_some() {
        let message = "`--output` does not apply to an export: use `--format` alone";
        return Err(UsageError(message.to_owned()).into());
    }
    let mut target = match args.file.as_deref() {
        None | Some("-") => Target::Output(output),
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot create `{path}`"))?;
            Target::File(BufWriter::new(file))
        }
    };
    let progress = Progress::new("exporting {bar:40} {human_pos}/{human_len} records", 0);
    let mut written = 0;
    let result = write(client, asked, args.format, &mut target, &progress, &mut written).await;
    progress.finish();
    result.with_context(|| format!("the export is incomplete, it ends after {written} records"))?;
    if let (Target::File(_), Some(path)) = (target, &args.file) {
        output.note(&format!("wrote {written} records to `{path}`"));
    }
    Ok(Exit::Success)
}

async fn write(
    mut client: AuditServiceClient<Channel>,
    asked: v1::ListAuditRecordsRequest,
    format: Form,
    target: &mut Target<'_>,
    progress: &Progress,
    written: &mut usize,
) -> anyhow::Result<()> {
    let mut request = v1::ListAuditRecordsRequest { page_size: pages::PAGE_SIZE, ..asked };
    if format == Form::Csv && target.write(&csv::header())? == Reader::Gone {
        return Ok(());
    }
    let mut newest = None;
    loop {
        let page = answer(client.list_audit_records(request.clone()).await)?;
        let mut text = String::new();
        for record in &page.audit_records {
            match format {
                Form::Csv => text += &csv::row(record),
                Form::Jsonl => {
                    text += &serde_json::to_string(&to_json(record))?;
                    text.push('\n');
                }
            }
        }
        if target.write(&text)? == Reader::Gone {
            return Ok(());
        }
        *written += page.audit_records.len();
        if let Some(last) = page.audit_records.last() {
            let newest = *newest.get_or_insert_with(|| page.audit_records.first().map_or(0, |first| first.sequence));
            progress.set(newest - last.sequence, newest);
        }
        if page.next_page_token.is_empty() {
            return target.finish();
        }
        request.page_token = page.next_page_token;
    }
}

impl Target<'_> {
    fn write(&mut self, text: &str) -> anyhow::Result<Reader> {
        Ok(match self {
            Self::File(file) => {
                file.write_all(text.as_bytes()).context("cannot write the file")?;
                Reader::There
            }
            Self::Output(output) => output.part(text)?,
        })
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        if let Self::File(file) = self {
            file.flush().context("cannot write the file")?;
        }
        Ok(())
    }
}
