//! Numbers, lengths and compression as they stand in the files of sealed units.
//!
//! *Varint*: seven bits a byte, the low ones first, the highest bit set in all bytes but the last. *Packed*: a varint
//! of twice the content's bytes, plus one where a zstd frame follows instead of the content itself.
//!
//! Invariant: taking from bytes never panics and never allocates more than [`CONTENT_BYTES_MAX`]; what does not fit is
//! answered with none.
//!
//! Not here: checksums, which are verified before anything is parsed (`file`).

use std::io;

/// The most bytes that anything compressed may have before compression.
pub(super) const CONTENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Takes `N` bytes off the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// Takes `count` bytes off the front.
pub(super) fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Appends `value` as a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value;
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

/// Takes a varint of at most 35 bits off the front.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let [byte] = take(bytes)?;
        value |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes a varint and as many bytes as it says off the front.
pub(super) fn take_counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = take_varint(bytes)?;
    take_bytes(bytes, count)
}

/// Appends `content`, after a varint of its bytes.
pub(super) fn put_counted(out: &mut Vec<u8>, content: &[u8]) {
    put_varint(out, content.len());
    out.extend_from_slice(content);
}

/// Appends `content`, compressed where that is smaller.
pub(super) fn put_packed(out: &mut Vec<u8>, content: &[u8], level: i32) -> io::Result<()> {
    let compressed = zstd::bulk::compress(content, level)?;
    let smaller = compressed.len() < content.len();
    put_varint(out, content.len() << 1 | usize::from(smaller));
    out.extend_from_slice(if smaller { &compressed } else { content });
    Ok(())
}

/// The content of what [`put_packed`] appended; all of `packed` is it.
pub(super) fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let word = take_varint(&mut packed)?;
    let (content_bytes, is_compressed) = (word >> 1, word & 1 == 1);
    if is_compressed {
        return decompress(packed, content_bytes);
    }
    (packed.len() == content_bytes).then(|| packed.to_vec())
}

/// The content of a zstd frame, which has `content_bytes`.
pub(super) fn decompress(frame: &[u8], content_bytes: usize) -> Option<Vec<u8>> {
    if content_bytes > CONTENT_BYTES_MAX {
        return None;
    }
    let content = zstd::bulk::decompress(frame, content_bytes).ok()?;
    (content.len() == content_bytes).then_some(content)
}
