//! Decisions and tail records written field by field, without the generated messages in between: they are written for
//! every Check.
//!
//! Invariant: the bytes are those that the generated messages would give: fields ascending, defaults left out.
//! Not here: reading them back, which the generated messages do.

use super::entry::{to_connection_type, to_level, to_reason};
use crate::audit::record::{DecisionId, DecisionRecord};
use crate::policy::name::Id;

/// How a field's value is written (protocol buffers, wire types).
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const COUNTED: u32 = 2;

/// What stands before the content of every record.
pub(super) struct Head<'a> {
    pub(super) sequence: u64,
    pub(super) organization_sequence: u64,
    pub(super) person: u32,
    pub(super) time_micros: i64,
    pub(super) organization: &'a str,
}

/// The bytes of the record of a decision.
pub(super) fn decision_entry(head: &Head<'_>, decision: &DecisionRecord) -> Vec<u8> {
    let decision = decision_bytes(decision);
    let mut out = Vec::with_capacity(decision.len() + head.organization.len() + 48);
    number(&mut out, 1, head.sequence);
    number(&mut out, 2, head.organization_sequence);
    number(&mut out, 3, u64::from(head.person));
    fixed(&mut out, 4, head.time_micros.to_le_bytes());
    text(&mut out, 5, head.organization);
    bytes(&mut out, 6, &decision);
    out
}

fn decision_bytes(decision: &DecisionRecord) -> Vec<u8> {
    let DecisionRecord {
        id: DecisionId { boot, number: decision_number },
        reason,
        connection_type,
        endpoint,
        rule,
        level,
        session,
        session_opened,
        revision,
        cluster_revision,
        request_id,
        lease,
    } = decision;
    let enumerated = |value: i32| u64::try_from(value).unwrap_or_default();
    let mut out = Vec::with_capacity(endpoint.len() + request_id.len() + 64);
    fixed(&mut out, 1, boot.to_le_bytes());
    number(&mut out, 2, *decision_number);
    number(&mut out, 3, enumerated(to_reason(*reason).into()));
    number(&mut out, 4, enumerated(to_connection_type(*connection_type).into()));
    text(&mut out, 5, endpoint);
    text(&mut out, 6, rule.as_ref().map_or("", Id::as_str));
    number(&mut out, 7, enumerated(to_level(*level).into()));
    number(&mut out, 8, session.map_or(0, |session| session.number));
    fixed(
        &mut out,
        9,
        session.map(|session| session.boot).filter(|other| other != boot).unwrap_or_default().to_le_bytes(),
    );
    number(&mut out, 10, u64::from(*session_opened));
    number(&mut out, 11, *revision);
    number(&mut out, 12, *cluster_revision);
    text(&mut out, 13, request_id);
    number(&mut out, 14, lease.map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)));
    out
}

/// The bytes of a tail record: the entry, an encoded opening where there is one, whether a unit begins.
pub(super) fn tail_record(entry: &[u8], opening: Option<&[u8]>, begins_unit: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.len() + opening.map_or(0, <[u8]>::len) + 16);
    bytes(&mut out, 1, entry);
    if let Some(opening) = opening {
        // A message that is there is written even where it is empty.
        key(&mut out, 2, COUNTED);
        varint(&mut out, opening.len() as u64);
        out.extend_from_slice(opening);
    }
    number(&mut out, 3, u64::from(begins_unit));
    out
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
