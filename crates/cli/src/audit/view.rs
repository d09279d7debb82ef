//! Audit records as a table.
//!
//! Invariant: one table holds records of every type; the last column has what only some types have.
//! Not here: CSV and lines (`csv`, `cli::events`), and the whole record, which only JSON has.

use crate::record::{Facts, Kind};
use crate::table;
use portcullis_proto::v1;

/// Records, one a line.
pub(super) fn records(records: &[v1::AuditRecord]) -> String {
    let headings = ["SEQUENCE", "TIME", "WHAT", "ADDRESS", "USER", "TYPE", "ENDPOINT", "WHY", "RULE OR NODE", "DETAIL"];
    table::grid(headings, records.iter().map(row))
}

fn row(record: &v1::AuditRecord) -> [String; 10] {
    let facts = Facts::of(record);
    let by = facts.by();
    let Facts {
        ip, user_email, connection_type, endpoint, reason, end_reason, actor, comment, detail, session, ..
    } = facts;
    let details: Vec<String> = [actor, detail, comment, session].into_iter().filter(|text| !text.is_empty()).collect();
    [
        record.sequence.to_string(),
        table::time(record.time.as_ref()),
        Kind::of(record).word().to_owned(),
        ip,
        user_email,
        connection_type,
        endpoint,
        if end_reason.is_empty() { reason } else { end_reason },
        by,
        details.join("  "),
    ]
}
