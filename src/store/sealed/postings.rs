//! Lists of record indexes: how the records that have a term are stored.
//!
//! A list's first byte says how the rest is coded; the smallest coding is taken. The number of indexes is known from
//! the dictionary, the number of records from the header.
//!
//! ```text
//! 0000 kkkk   the gaps between the indexes, in Rice's code with k low bits
//! 0001 kkkk   the same of the indexes that are not in the list
//! 0010 0000   runs: varints, the indexes left out and then one less than the indexes that follow, in turn
//! 0011 0000   a bitmap, a bit a record, the lowest bit of the first byte is record 0
//! ```
//!
//! A gap is the number of indexes left out since the last one.
//!
//! Invariant: what is decoded lies within the unit and has the number of indexes that the dictionary tells.
//!
//! Not here: which terms there are; where lists lie; checksums.

use super::bits::{BitReader, BitWriter};
use super::bytes::{put_varint, take_varint};
use super::index_set::IndexSet;

const CODE_GAPS: u8 = 0x00;
const CODE_GAPS_OF_OTHERS: u8 = 0x10;
const CODE_RUNS: u8 = 0x20;
const CODE_BITMAP: u8 = 0x30;

/// An index has 16 bits; more low bits than 15 never pay.
const LOW_BITS_MAX: u32 = 15;

/// The list of `indexes`, which are strictly ascending and below `records`.
pub(super) fn encode(indexes: &[u16], records: usize) -> Vec<u8> {
    let mut smallest = gaps(CODE_GAPS, indexes.iter().copied(), indexes.len());
    let mut offer = |coding: Vec<u8>| {
        if coding.len() < smallest.len() {
            smallest = coding;
        }
    };
    offer(runs(indexes));
    // For a short list, codings that describe all records are never smaller.
    if indexes.len() > records / 16 {
        offer(others(indexes, records));
        offer(bitmap(indexes, records));
    }
    smallest
}

fn gaps(code: u8, indexes: impl Iterator<Item = u16>, count: usize) -> Vec<u8> {
    let mut gaps = Vec::with_capacity(count);
    let mut next = 0;
    for index in indexes {
        gaps.push(u32::from(index) - next);
        next = u32::from(index) + 1;
    }
    // The best number of low bits is next to the logarithm of the mean gap.
    let mean = gaps.iter().sum::<u32>() / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let near = mean.checked_ilog2().unwrap_or(0);
    let candidates = near.saturating_sub(2)..=(near + 1).min(LOW_BITS_MAX);
    let cost =
        |low_bits: &u32| gaps.iter().map(|gap| u64::from(gap >> low_bits) + 1 + u64::from(*low_bits)).sum::<u64>();
    let low_bits = candidates.min_by_key(cost).unwrap_or(0);
    let mut bits = BitWriter::default();
    bits.put(u64::from(code) | u64::from(low_bits), 8);
    for gap in gaps {
        bits.put_rice(gap.into(), low_bits);
    }
    bits.finish()
}

fn others(indexes: &[u16], records: usize) -> Vec<u8> {
    let mut listed = indexes.iter().copied().peekable();
    let others = (0..records).filter_map(|index| u16::try_from(index).ok());
    let others = others.filter(move |index| listed.next_if_eq(index).is_none());
    gaps(CODE_GAPS_OF_OTHERS, others, records - indexes.len().min(records))
}

fn runs(indexes: &[u16]) -> Vec<u8> {
    let mut list = vec![CODE_RUNS];
    let mut end = 0;
    for run in indexes.chunk_by(|index, next| index.checked_add(1) == Some(*next)) {
        let start = run.first().copied().map_or(0, usize::from);
        put_varint(&mut list, start - end);
        put_varint(&mut list, run.len() - 1);
        end = start + run.len();
    }
    list
}

fn bitmap(indexes: &[u16], records: usize) -> Vec<u8> {
    let mut list = vec![0; 1 + records.div_ceil(8)];
    if let Some((code, bytes)) = list.split_first_mut() {
        *code = CODE_BITMAP;
        for index in indexes {
            if let Some(byte) = bytes.get_mut(usize::from(index / 8)) {
                *byte |= 1 << (index % 8);
            }
        }
    }
    list
}

/// Adds the `count` indexes of `list` to `set`; none where it is not a list of as many indexes below `records`. Then some
/// may have been added all the same.
pub(super) fn decode(list: &[u8], count: usize, records: usize, set: &mut IndexSet) -> Option<()> {
    let (code, coded) = list.split_first()?;
    let low_bits = u32::from(code & 0x0F);
    match code & 0xF0 {
        CODE_GAPS => {
            let mut next = 0;
            for index in Gaps::new(coded, low_bits, count) {
                next = u64::from(index?) + 1;
                set.insert(index?);
            }
            (next <= records as u64).then_some(())
        }
        CODE_GAPS_OF_OTHERS => {
            let mut start = 0;
            for other in Gaps::new(coded, low_bits, records.checked_sub(count)?) {
                let other = usize::from(other?);
                set.insert_range(start, other);
                start = other + 1;
            }
            set.insert_range(start, records);
            (start <= records).then_some(())
        }
        CODE_RUNS => decode_runs(coded, count, records, set),
        CODE_BITMAP => {
            let ones = coded.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
            set.insert_bits(coded);
            (ones == count && coded.len() == records.div_ceil(8)).then_some(())
        }
        _ => None,
    }
}

fn decode_runs(mut coded: &[u8], count: usize, records: usize, set: &mut IndexSet) -> Option<()> {
    let (mut end, mut found) = (0_usize, 0);
    while !coded.is_empty() {
        let start = end.checked_add(take_varint(&mut coded)?)?;
        end = start.checked_add(take_varint(&mut coded)?)?.checked_add(1)?;
        set.insert_range(start, end);
        found += end - start;
    }
    (found == count && end <= records).then_some(())
}

/// The indexes that the gaps give; none where they end early or go beyond the largest index.
struct Gaps<'a> {
    bits: BitReader<'a>,
    low_bits: u32,
    left: usize,
    next: u64,
}

impl<'a> Gaps<'a> {
    fn new(coded: &'a [u8], low_bits: u32, count: usize) -> Self {
        Self { bits: BitReader::new(coded), low_bits, left: count, next: 0 }
    }
}

impl Iterator for Gaps<'_> {
    type Item = Option<u16>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let index = self.bits.take_rice(self.low_bits).map(|gap| self.next + gap);
        let index = index.and_then(|index| u16::try_from(index).ok());
        self.next = u64::from(index.unwrap_or_default()) + 1;
        Some(index)
    }
}
