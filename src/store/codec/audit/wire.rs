//! Decisions and tail records, written field by field without the generated messages, because every Check writes them.
//!
//! Invariant: the bytes are those that the generated messages would give: fields ascending, defaults left out.
//! Not here: reading them back, which the generated messages do.

use std::ops::Range;

use super::parts::{to_connection_type, to_level, to_reason};
use crate::audit::record::{DecisionId, DecisionRecord};
use crate::audit::rule_text::RuleText;
use crate::policy::address::Range as AddressRange;
use crate::policy::name::Id;
use crate::policy::rule::Source;

/// How a field's value is written (protocol buffers, wire types).
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const COUNTED: u32 = 2;

/// The fields before the content of every record.
pub(super) struct Head<'a> {
    pub(super) sequence: u64,
    pub(super) organization_sequence: u64,
    pub(super) person: u32,
    pub(super) time_micros: i64,
    pub(super) organization: &'a str,
}

/// Appends the bytes of the record of a decision.
pub(super) fn decision_entry(out: &mut Vec<u8>, head: &Head<'_>, decision: &DecisionRecord) {
    number(out, 1, head.sequence);
    number(out, 2, head.organization_sequence);
    number(out, 3, u64::from(head.person));
    fixed(out, 4, head.time_micros.to_le_bytes());
    text(out, 5, head.organization);
    message(out, 6, |out| decision_fields(out, decision));
}

fn decision_fields(out: &mut Vec<u8>, decision: &DecisionRecord) {
    let DecisionRecord {
        id: DecisionId { boot, number: decision_number },
        reason,
        connection_type,
        endpoint,
        rule,
        rule_text,
        level,
        session,
        session_opened,
        revision,
        cluster_revision,
        request_id,
        lease,
    } = decision;
    let enumerated = |value: i32| u64::try_from(value).unwrap_or_default();
    let other_boot = session.map(|session| session.boot).filter(|other| other != boot).unwrap_or_default();
    fixed(out, 1, boot.to_le_bytes());
    number(out, 2, *decision_number);
    number(out, 3, enumerated(to_reason(*reason).into()));
    number(out, 4, enumerated(to_connection_type(*connection_type).into()));
    text(out, 5, endpoint);
    text(out, 6, rule.as_ref().map_or("", Id::as_str));
    number(out, 7, enumerated(level.map(to_level).unwrap_or_default().into()));
    number(out, 8, session.map_or(0, |session| session.number));
    fixed(out, 9, other_boot.to_le_bytes());
    number(out, 10, u64::from(*session_opened));
    number(out, 11, *revision);
    number(out, 12, *cluster_revision);
    text(out, 13, request_id);
    number(out, 14, lease.map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)));
    if let Some(text) = rule_text {
        message(out, 15, |out| rule_text_fields(out, text));
    }
}

fn rule_text_fields(out: &mut Vec<u8>, RuleText { source, description }: &RuleText) {
    message(out, 1, |out| match source {
        Source::Range(range) => message(out, 1, |out| range_fields(out, *range)),
        Source::Group(id) => text(out, 2, id.as_str()),
    });
    text(out, 2, description);
}

/// One range, as `Ranges` packs it.
fn range_fields(out: &mut Vec<u8>, range: AddressRange) {
    match range {
        AddressRange::Any => number(out, 1, 1),
        AddressRange::V4(block) => {
            let [a, b, c, d] = block.first().to_be_bytes();
            bytes(out, 2, &[a, b, c, d, block.prefix_length()]);
        }
        AddressRange::V6(block) => message(out, 3, |out| {
            out.extend_from_slice(&block.first().to_be_bytes());
            out.push(block.prefix_length());
        }),
    }
}

/// Turns the bytes of a record into those of its tail record: the entry, an encoded opening where there is one, whether a
/// unit begins. Returns where the record's bytes are now.
pub(super) fn tail_record(out: &mut Vec<u8>, opening: Option<&[u8]>, begins_unit: bool) -> Range<usize> {
    let entry_bytes = out.len();
    if entry_bytes > 0 {
        insert_at(out, 0, |head| {
            key(head, 1, COUNTED);
            varint(head, entry_bytes as u64);
        });
    }
    let entry = out.len() - entry_bytes..out.len();
    if let Some(opening) = opening {
        // A message field that is set is written even if it is empty.
        key(out, 2, COUNTED);
        varint(out, opening.len() as u64);
        out.extend_from_slice(opening);
    }
    number(out, 3, u64::from(begins_unit));
    entry
}

/// Appends a field that is counted and written even if it is empty.
fn message(out: &mut Vec<u8>, field: u32, content: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, COUNTED);
    let start = out.len();
    content(out);
    count_from(out, start);
}

/// Inserts the number of the bytes from `start` on before them.
fn count_from(out: &mut Vec<u8>, start: usize) {
    let bytes = out.len() - start;
    insert_at(out, start, |head| varint(head, bytes as u64));
}

/// Inserts what `write` appends at an earlier offset. It is short, and nothing is allocated.
fn insert_at(out: &mut Vec<u8>, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let end = out.len();
    write(out);
    let inserted = out.len() - end;
    if let Some(moved) = out.get_mut(at..) {
        moved.rotate_right(inserted);
    }
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7F);
            return;
        }
        out.push(low | 0x80);
    }
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        key(out, field, VARINT);
        varint(out, value);
    }
}

fn fixed(out: &mut Vec<u8>, field: u32, value: [u8; 8]) {
    if value != [0; 8] {
        key(out, field, FIXED64);
        out.extend_from_slice(&value);
    }
}

fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    bytes(out, field, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        key(out, field, COUNTED);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}
