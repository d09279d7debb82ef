//! Finding fields in the bytes of a message without decoding it.
//!
//! Invariant: bytes that are no message are an error or hold nothing, never a panic.
//! Not here: what the fields mean.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::error::Decoded;

/// Visits the fields of a message: their numbers, and the values of varints.
pub(super) fn for_each(mut bytes: &[u8], mut found: impl FnMut(u32, Option<u64>)) -> Decoded<()> {
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes)?;
        if wire_type == WireType::Varint {
            found(number, Some(decode_varint(&mut bytes)?));
        } else {
            skip_field(wire_type, number, &mut bytes, DecodeContext::default())?;
            found(number, None);
        }
    }
    Ok(())
}

/// The content of the first field with a number that is a text, bytes or a message, to be overwritten.
pub(super) fn find_mut(bytes: &mut [u8], wanted: u32) -> Option<&mut [u8]> {
    let mut rest = &*bytes;
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if number == wanted && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let start = bytes.len() - rest.len();
            return bytes.get_mut(start..start.checked_add(length)?);
        }
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
    }
    None
}
