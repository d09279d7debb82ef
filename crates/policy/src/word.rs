//! The addresses of the two families as unsigned numbers, so that interval algebra and compiled tables are written
//! once.
//!
//! Invariant: words compare as the addresses of their family do.
//! Not here: text forms (see `address`) and anything that mixes families.

use std::fmt::Debug;
use std::hash::Hash;

/// An address of one family as an unsigned number: `u32` for IPv4, `u128` for IPv6.
pub trait Word: Copy + Ord + Hash + Debug + Send + Sync + 'static {
    /// The number of bits of an address: 32 or 128.
    const BITS: u8;
    /// The lowest address.
    const MIN: Self;
    /// The highest address.
    const MAX: Self;

    /// The address after this one; none after the highest.
    fn next(self) -> Option<Self>;
    /// The address before this one; none before the lowest.
    fn previous(self) -> Option<Self>;
    /// The last address of the block of `prefix_length` that starts at `self` (its host bits are zero).
    #[must_use]
    fn block_end(self, prefix_length: u8) -> Self;
    /// `self` with all bits after the first `prefix_length` cleared.
    #[must_use]
    fn network(self, prefix_length: u8) -> Self;
    /// The number of zero bits at the low end; `BITS` for zero.
    fn trailing_zeros(self) -> u8;
    /// The largest `n` for which 2ⁿ addresses fit in `self..=last`.
    fn span_exponent(self, last: Self) -> u8;
    /// The first 16 bits.
    fn top16(self) -> usize;
    /// The 8 bits that follow the first `offset` bits, `offset` being at most `BITS - 8`.
    fn octet_at(self, offset: u8) -> u8;
    /// `self` with the 8 bits that follow the first `offset` bits set to `octet`. They must be zero before.
    #[must_use]
    fn with_octet_at(self, offset: u8, octet: u8) -> Self;
    /// The first 24 bits.
    fn top24(self) -> usize;
}

macro_rules! word {
    ($type:ty, $bits:literal) => {
        impl Word for $type {
            const BITS: u8 = $bits;
            const MIN: Self = <$type>::MIN;
            const MAX: Self = <$type>::MAX;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }

            fn block_end(self, prefix_length: u8) -> Self {
                self | <$type>::MAX.checked_shr(u32::from(prefix_length)).unwrap_or(0)
            }

            fn network(self, prefix_length: u8) -> Self {
                self & !<$type>::MAX.checked_shr(u32::from(prefix_length)).unwrap_or(0)
            }

            #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
            fn trailing_zeros(self) -> u8 {
                <$type>::trailing_zeros(self) as u8
            }

            #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
            fn span_exponent(self, last: Self) -> u8 {
                match last.wrapping_sub(self).checked_add(1) {
                    Some(size) => size.checked_ilog2().unwrap_or(0) as u8,
                    None => $bits,
                }
            }

            fn top16(self) -> usize {
                (self >> ($bits - 16)) as usize
            }

            #[expect(clippy::cast_possible_truncation, reason = "the low 8 bits are what is meant")]
            fn octet_at(self, offset: u8) -> u8 {
                (self >> ($bits - 8 - u32::from(offset))) as u8
            }

            fn with_octet_at(self, offset: u8, octet: u8) -> Self {
                self | (<$type>::from(octet) << ($bits - 8 - u32::from(offset)))
            }

            fn top24(self) -> usize {
                (self >> ($bits - 24)) as usize
            }
        }
    };
}

word!(u32, 32);
word!(u128, 128);
