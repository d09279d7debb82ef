//! The two messages of a Check, read and written without copies.
//!
//! Invariant: reading and writing agree with the generated messages. Messages with unknown fields, fields of another type
//! or text that is not UTF-8 are not read. Fields are written in ascending order, without defaults.
//! Not here: what the fields mean (`decision`).

use std::cell::RefCell;

use prost::Message;
use prost::bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::api::convert::decision::{node_name, to_decision, to_reason};
use crate::api::decision::Asked;
use crate::api::to_i64;
use crate::engine::question::Answer;
use crate::policy::name::NodePath;

/// The request in the bytes; none where they are unusual.
pub(in crate::api) fn read(mut bytes: &[u8]) -> Option<Asked<'_>> {
    let mut asked = Asked::default();
    while !bytes.is_empty() {
        let field = decode_key(&mut bytes).ok()?;
        match field {
            (1, WireType::LengthDelimited) => asked.ip = text(&mut bytes)?,
            (2, WireType::Varint) => asked.connection_type = enumerated(decode_varint(&mut bytes).ok()?),
            (3, WireType::LengthDelimited) => asked.endpoint = text(&mut bytes)?,
            (4, WireType::LengthDelimited) => asked.user_email = text(&mut bytes)?,
            (5, WireType::Varint) => asked.min_revision = decode_varint(&mut bytes).ok()?.cast_signed(),
            (6, WireType::Varint) => asked.min_cluster_revision = decode_varint(&mut bytes).ok()?.cast_signed(),
            // Only one: a second would have to be merged into the first.
            (7, WireType::LengthDelimited) if asked.session_lease.is_none() => {
                asked.session_lease = Some(prost_types::Duration::decode(counted(&mut bytes)?).ok()?);
            }
            (8, WireType::LengthDelimited) => asked.request_id = text(&mut bytes)?,
            _ => return None,
        }
    }
    Some(asked)
}

/// Enums are read as 32 bits; higher bits are ignored.
#[expect(clippy::cast_possible_truncation, reason = "which is what protocol buffers say of enums")]
fn enumerated(value: u64) -> i32 {
    value as i32
}

fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(counted(bytes)?).ok()
}

/// Bytes of a usual answer, and of the buffer that some tens of answers share.
const ANSWER_BYTES: usize = 256;
const BUFFER_BYTES: usize = 16 * 1_024;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// An answer's message, after `prefix_bytes` zeros.
pub(in crate::api) fn written(prefix_bytes: usize, answer: &Answer, target: &NodePath<'_>) -> BytesMut {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < ANSWER_BYTES {
            buffer.reserve(BUFFER_BYTES);
        }
        buffer.clear();
        buffer.put_bytes(0, prefix_bytes);
        write(buffer, answer, target);
        buffer.split()
    })
}

fn write(out: &mut impl BufMut, answer: &Answer, target: &NodePath<'_>) {
    let Answer { reason, rule, level, session, revision, cluster_revision, decision_id, sequence } = answer;
    let organization = target.organization;
    number(out, 1, i32::from(to_decision(reason.decision())).into());
    number(out, 2, i32::from(to_reason(*reason)).into());
    joined(out, 3, &[reason.message()]);
    if let Some(rule) = rule {
        joined(out, 4, &["organizations/", organization, "/rules/", rule.as_str()]);
    }
    joined(out, 5, &[level.map_or("", |level| node_name(level, target))]);
    if let Some(session) = session {
        let mut digits = Digits::new();
        let id = digits.of(session.boot, session.number);
        joined(out, 6, &["organizations/", organization, "/sessions/", id]);
    }
    number(out, 7, to_i64(*revision));
    number(out, 8, to_i64(*cluster_revision));
    joined(out, 9, &[Digits::new().of(decision_id.boot, decision_id.number)]);
    number(out, 11, to_i64(*sequence));
}

/// A number that is not negative.
fn number(out: &mut impl BufMut, field: u32, value: i64) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value.cast_unsigned(), out);
    }
}

fn joined(out: &mut impl BufMut, field: u32, parts: &[&str]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > 0 {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(length as u64, out);
        for part in parts {
            out.put_slice(part.as_bytes());
        }
    }
}

/// An id in hexadecimal digits: sixteen for the start of the server, a dash, a number.
struct Digits([u8; Self::LENGTH_MAX]);

impl Digits {
    const LENGTH_MAX: usize = 33;
    /// The position of the dash.
    const DASH: usize = 16;

    fn new() -> Self {
        Self([0; Self::LENGTH_MAX])
    }

    fn of(&mut self, boot: u64, number: u64) -> &str {
        let length = usize::try_from(u64::BITS - number.leading_zeros()).unwrap_or(0).div_ceil(4).max(1);
        let (head, tail) = self.0.split_at_mut(Self::DASH);
        digits(head, boot);
        let end = Self::DASH + 1 + length;
        if let [dash, tail @ ..] = tail {
            *dash = b'-';
            digits(tail.get_mut(..length).unwrap_or_default(), number);
        }
        self.0.get(..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// Fills `out` with a number's last digits.
fn digits(out: &mut [u8], mut number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in out.iter_mut().rev() {
        let [low, ..] = number.to_le_bytes();
        *digit = DIGITS.get(usize::from(low & 0xF)).copied().unwrap_or_default();
        number >>= 4;
    }
}
