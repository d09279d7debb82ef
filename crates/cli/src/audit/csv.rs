//! Audit records as CSV (RFC 4180).
//!
//! Invariant: one record is one line with the same columns. No recorded text is a formula for a spreadsheet, or
//! controls a terminal.
//! Not here: exact texts and whole policy changes, which the JSON lines have.

use crate::record::Facts;
use crate::table;
use crate::times::rfc3339;
use portcullis_proto::v1;

/// The names of the columns.
const COLUMNS: [&str; 24] = [
    "sequence",
    "organization_sequence",
    "time",
    "type",
    "organization",
    "decision",
    "reason",
    "ip",
    "user_email",
    "connection_type",
    "endpoint",
    "rule",
    "node",
    "session",
    "revision",
    "cluster_revision",
    "decision_id",
    "request_id",
    "end_reason",
    "actor",
    "comment",
    "detail",
    "rule_source",
    "rule_description",
];

/// The first row.
pub(super) fn header() -> String {
    line(COLUMNS.map(str::to_owned))
}

/// The row of a record.
pub(super) fn row(record: &v1::AuditRecord) -> String {
    let facts = Facts::of(record);
    let organization_sequence = match record.organization_sequence {
        0 => String::new(),
        sequence => sequence.to_string(),
    };
    line([
        record.sequence.to_string(),
        organization_sequence,
        record.time.as_ref().map(rfc3339).unwrap_or_default(),
        table::word(record.r#type().as_str_name(), "AUDIT_TYPE_"),
        record.organization.clone(),
        facts.decision,
        facts.reason,
        facts.ip,
        facts.user_email,
        facts.connection_type,
        facts.endpoint,
        facts.rule,
        facts.node,
        facts.session,
        facts.revision,
        facts.cluster_revision,
        facts.decision_id,
        facts.request_id,
        facts.end_reason,
        facts.actor,
        facts.comment,
        facts.detail,
        facts.rule_source,
        facts.rule_description,
    ])
}

fn line(cells: [String; COLUMNS.len()]) -> String {
    cells.map(|text| cell(&text)).join(",") + "\r\n"
}

fn cell(text: &str) -> String {
    let text = table::clean(text);
    let formula = text.starts_with(['=', '+', '-', '@']);
    let text = if formula { format!("'{text}") } else { text };
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hazard: an email that a spreadsheet runs.
    #[test]
    fn cell_is_quoted_and_never_a_formula() {
        for (text, written) in [
            ("", ""),
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("two\r\nlines", "two\\r\\nlines"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@a", "'@a"),
            ("=A1,\"b\"", "\"'=A1,\"\"b\"\"\""),
            ("\t=1", "\\t=1"),
            ("::1", "::1"),
        ] {
            assert_eq!(cell(text), written, "{text:?}");
        }
    }
}
