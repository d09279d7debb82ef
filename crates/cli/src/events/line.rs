//! One audit record as one line: for people with colours, for programs as JSON.
//!
//! Invariant: one record is one line, whatever text it contains; no text in it controls the terminal.
//! Not here: which records (`follow`), and tables of them (`cli::audit`).

use crate::color::{Colors, Look};
use crate::output::{Format, Output};
use crate::record::{Facts, Kind};
use crate::table;
use portcullis_proto::{to_json, v1};

/// How records are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    format: Format,
    colors: Colors,
}

impl Lines {
    pub(super) fn of(output: &Output, colors: Colors) -> Self {
        Self { format: output.format(), colors }
    }

    /// The line of a record, with its line feed.
    pub(super) fn line(self, record: &v1::AuditRecord) -> serde_json::Result<String> {
        let line = match self.format {
            Format::Json => serde_json::to_string(&to_json(record))?,
            Format::Table => self.for_people(record),
        };
        Ok(line + "\n")
    }

    fn for_people(self, record: &v1::AuditRecord) -> String {
        let (kind, facts) = (Kind::of(record), Facts::of(record));
        let word = self.colors.paint(look(kind), &format!("{:7}", kind.word()));
        let why = if facts.end_reason.is_empty() { &facts.reason } else { &facts.end_reason };
        let columns = match kind {
            Kind::Allow | Kind::Deny | Kind::Ended | Kind::Revoked => {
                let by = match kind {
                    Kind::Revoked | Kind::Ended => format!("{} {}", facts.by(), facts.session).trim_start().to_owned(),
                    _ => facts.by(),
                };
                let texts = [&facts.ip, &facts.user_email, &facts.connection_type, &facts.endpoint, why, &by];
                texts.map(|text| cell(text)).join("  ")
            }
            _ => {
                let texts = [&facts.actor, &facts.detail, &facts.comment];
                let given: Vec<String> =
                    texts.into_iter().filter(|text| !text.is_empty()).map(|text| cell(text)).collect();
                given.join("  ")
            }
        };
        let time = self.colors.paint(Look::Faint, &table::time(record.time.as_ref()));
        let sequence = self.colors.paint(Look::Faint, &format!("#{}", record.sequence));
        format!("{time}  {word}  {columns}  {sequence}")
    }
}

/// A field of a line; `-` if it is empty, so that the other fields keep their positions.
fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { table::clean(text) }
}

fn look(kind: Kind) -> Look {
    match kind {
        Kind::Allow => Look::Green,
        Kind::Deny | Kind::Gap | Kind::Restored => Look::Red,
        Kind::Revoked | Kind::Clock | Kind::Key => Look::Yellow,
        Kind::Changed => Look::Magenta,
        Kind::Ended | Kind::Pruned | Kind::Erased | Kind::Other => Look::Cyan,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::ColorWhen;

    /// The hazard: a line feed in what a user gave forges a record.
    #[test]
    fn record_is_one_line_and_cannot_steer_the_terminal() {
        let decision = v1::DecisionRecord {
            decision: v1::Decision::Deny.into(),
            reason: v1::Reason::DenyRule.into(),
            user_email: "a\n2026-01-01T00:00:00Z  ALLOW\u{1b}[2J".to_owned(),
            ..Default::default()
        };
        let record = v1::AuditRecord {
            sequence: 7,
            r#type: v1::AuditType::Decision.into(),
            content: Some(v1::audit_record::Content::Decision(decision)),
            ..Default::default()
        };
        for (format, color) in
            [(Format::Table, ColorWhen::Always), (Format::Table, ColorWhen::Never), (Format::Json, ColorWhen::Never)]
        {
            let output = Output::standard(Some(format));
            let line = Lines::of(&output, Colors::of(color, &output)).line(&record).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(!line.contains("\u{1b}[2J"), "{line}");
            assert_eq!(line.contains("\u{1b}[1;31mDENY   \u{1b}[0m"), color == ColorWhen::Always, "{line}");
        }
    }
}
