//! The IPv6 addresses that stand for IPv4 addresses: those of translators (NAT64, RFC 6052) and of 6to4 (RFC 3056).
//!
//! Decisions know nothing of them: such an address is plain IPv6 (design.md §2.1).
//!
//! Invariant: twins of ascending IPv4 addresses ascend, so that an interval of the one is searched for in the other.
//! Not here: which rules they matter to (`translated`).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

use crate::address::{Block, Range, RangeError};
use crate::intervals::IntervalSet;

/// The prefix lengths that RFC 6052 §2.2 knows.
const PREFIX_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The octet after the first 64 bits, which RFC 6052 §2.2 keeps zero.
const RESERVED_OCTET: u128 = 0xFF << 56;

/// The IPv6 prefix of a translator, below which it puts IPv4 addresses (NAT64; RFC 6052).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nat64Prefix {
    first: u128,
    length: u8,
}

/// Why a text is not the prefix of a translator, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Nat64PrefixError {
    /// The text is not a range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The range is not one of IPv6 addresses.
    #[error("`{0}` is not an IPv6 prefix: write one such as `64:ff9b:1::/96`")]
    Family(Range),
    /// Translators have no prefix of this length.
    #[error("`{0}` has no prefix length of a translator: write /32, /40, /48, /56, /64 or /96 (RFC 6052)")]
    Length(Range),
    /// The reserved octet is in use.
    #[error("`{0}` has bits 64 to 71 set, which translators keep zero: correct the prefix (RFC 6052)")]
    Reserved(Range),
}

impl Nat64Prefix {
    /// `64:ff9b::/96`, the prefix that every translator can use (RFC 6052 §2.1).
    pub const WELL_KNOWN: Self = Self { first: 0x0064_FF9B << 96, length: 96 };

    /// The IPv6 address that stands for an IPv4 address.
    fn embed(self, v4: u32) -> u128 {
        if self.length == 96 {
            return self.first | u128::from(v4);
        }
        // The IPv4 address goes around the reserved octet: this is its place among the other 120 bits.
        let placed = u128::from(v4) << (120 - 32 - self.length);
        let (before, after) = (placed >> 56, placed & ((1 << 56) - 1));
        self.first | (before << 64) | after
    }
}

impl FromStr for Nat64Prefix {
    type Err = Nat64PrefixError;

    fn from_str(text: &str) -> Result<Self, Nat64PrefixError> {
        let range: Range = text.parse()?;
        let Range::V6(block) = range else { return Err(Nat64PrefixError::Family(range)) };
        let (first, length) = (block.first(), block.prefix_length());
        if !PREFIX_LENGTHS.contains(&length) {
            return Err(Nat64PrefixError::Length(range));
        }
        if first & RESERVED_OCTET != 0 {
            return Err(Nat64PrefixError::Reserved(range));
        }
        Ok(Self { first, length })
    }
}

impl fmt::Display for Nat64Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from_bits(self.first), self.length)
    }
}

/// A way in which IPv6 addresses stand for IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Translation {
    /// A translator's prefix: one IPv6 address for each IPv4 address.
    Nat64(Nat64Prefix),
    /// `2002::/16`: a network of /48 for each IPv4 address.
    SixToFour,
}

impl Translation {
    /// The well-known translations and those by the given prefixes, each once.
    pub(super) fn all(prefixes: &[Nat64Prefix]) -> Vec<Self> {
        let mut prefixes = [&[Nat64Prefix::WELL_KNOWN], prefixes].concat();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes.into_iter().map(Self::Nat64).chain([Self::SixToFour]).collect()
    }

    /// The first and the last address that stand for an IPv4 address.
    pub(super) fn twins(self, v4: u32) -> (u128, u128) {
        match self {
            Self::Nat64(prefix) => (prefix.embed(v4), prefix.embed(v4)),
            Self::SixToFour => {
                let first = (0x2002 << 112) | (u128::from(v4) << 80);
                (first, first | ((1 << 80) - 1))
            }
        }
    }

    /// The IPv4 addresses that some address from `first` to `last` stands for: the lowest and the highest.
    pub(super) fn originals(self, first: u128, last: u128) -> Option<(u32, u32)> {
        // The count of IPv4 addresses of which this holds; it holds from the lowest one on.
        let count = |holds: &dyn Fn(u32) -> bool| {
            let (mut low, mut high) = (0_u64, 1_u64 << 32);
            while low < high {
                let middle = u64::midpoint(low, high);
                if holds(u32::try_from(middle).unwrap_or(u32::MAX)) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        let lowest = count(&|v4| self.twins(v4).1 < first);
        let highest = count(&|v4| self.twins(v4).0 <= last).checked_sub(1)?;
        let (lowest, highest) = (u32::try_from(lowest).ok()?, u32::try_from(highest).ok()?);
        (lowest <= highest).then_some((lowest, highest))
    }

    /// Adds to a set what a rule has to name for the twins of the IPv4 addresses from `first` to `last`, of which those
    /// within `bounds` count. Calls must ascend.
    ///
    /// Below a prefix shorter than /96, the twins of a block of IPv4 addresses lie apart: then it is the smallest block
    /// that contains them.
    pub(super) fn add_twins(self, (first, last): (u32, u32), bounds: (u128, u128), set: &mut IntervalSet<u128>) {
        match self {
            Self::Nat64(prefix) if prefix.length != 96 => {
                let mut interval = IntervalSet::default();
                interval.push(first, last);
                for block in interval.blocks() {
                    let (twin, end) = self.block(block);
                    set.push(twin, end);
                }
            }
            Self::Nat64(_) | Self::SixToFour => {
                set.push(self.twins(first).0.max(bounds.0), self.twins(last).1.min(bounds.1));
            }
        }
    }

    /// The first and the last address of the smallest block with the twins of a block.
    fn block(self, v4: Block<u32>) -> (u128, u128) {
        let (first, last) = (self.twins(v4.first()).0, self.twins(v4.last()).1);
        let free_bits = u128::BITS - (first ^ last).leading_zeros();
        (first, first | 1_u128.checked_shl(free_bits).map_or(u128::MAX, |size| size - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Nat64Prefix {
        text.parse().unwrap()
    }

    fn twin(prefix: &str, v4: [u8; 4]) -> String {
        Ipv6Addr::from_bits(self::prefix(prefix).embed(u32::from_be_bytes(v4))).to_string()
    }

    /// The examples of RFC 6052 §2.4.
    #[test]
    fn addresses_are_embedded_as_the_rfc_shows() {
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
            ("64:ff9b::/96", "64:ff9b::c000:221"),
        ] {
            assert_eq!(twin(prefix, [192, 0, 2, 33]), expected, "{prefix}");
        }
        let (first, last) = Translation::SixToFour.twins(0xC000_0221);
        assert_eq!(Ipv6Addr::from_bits(first).to_string(), "2002:c000:221::");
        assert_eq!(Ipv6Addr::from_bits(last).to_string(), "2002:c000:221:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn originals_are_found_by_their_twins() {
        let mut translations = Translation::all(&[prefix("2001:db8::/32"), prefix("2001:db8:122:344::/64")]);
        translations.push(Translation::Nat64(prefix("2001:db8:100::/40")));
        assert_eq!(translations.len(), 5);
        for translation in translations {
            for v4 in [0, 1, 0x7F00_0001, 0x7FFF_FFFF, 0x8000_0000, 0xC000_0221, u32::MAX - 1, u32::MAX] {
                let (first, last) = translation.twins(v4);
                assert_eq!(translation.originals(first, last), Some((v4, v4)), "{translation:?} {v4:x}");
                let above = v4.checked_add(1).map(|next| (next, u32::MAX));
                assert_eq!(translation.originals(last + 1, u128::MAX), above, "{translation:?} {v4:x}");
                let below = v4.checked_sub(1).map(|previous| (0, previous));
                assert_eq!(translation.originals(0, first - 1), below, "{translation:?} {v4:x}");
            }
        }
    }

    #[test]
    fn twins_of_a_block_are_named_by_the_smallest_block_with_them() {
        let named = |translation: Translation, first: u32, last: u32| {
            let mut set = IntervalSet::default();
            translation.add_twins((first, last), (0, u128::MAX), &mut set);
            set.blocks().map(|block| Range::V6(block).to_string()).collect::<Vec<_>>()
        };
        let nat64 = |text| Translation::Nat64(prefix(text));
        assert_eq!(named(nat64("64:ff9b::/96"), 0xCB00_7100, 0xCB00_71FF), ["64:ff9b::cb00:7100/120"]);
        assert_eq!(named(Translation::SixToFour, 0xCB00_7100, 0xCB00_71FF), ["2002:cb00:7100::/40"]);
        assert_eq!(named(nat64("2001:db8::/32"), 0xCB00_7100, 0xCB00_71FF), ["2001:db8:cb00:7100::/56"]);
        assert_eq!(named(nat64("2001:db8::/32"), 0xCB00_7107, 0xCB00_7107), ["2001:db8:cb00:7107::"]);
        assert_eq!(named(nat64("2001:db8:0:1::/64"), 0xCB00_7100, 0xCB00_71FF), ["2001:db8:0:1:cb:71::/96"]);
    }

    #[test]
    fn what_is_no_prefix_of_a_translator_is_refused() {
        assert_eq!(prefix("64:ff9b:0::/96"), Nat64Prefix::WELL_KNOWN);
        assert_eq!(prefix("64:ff9b:1::/48").to_string(), "64:ff9b:1::/48");
        for (text, expected) in [
            ("192.0.2.0/24", "`192.0.2.0/24` is not an IPv6 prefix"),
            ("any", "`any` is not an IPv6 prefix"),
            ("64:ff9b::", "`64:ff9b::` has no prefix length of a translator"),
            ("64:ff9b::/95", "`64:ff9b::/95` has no prefix length of a translator"),
            ("64:ff9b::1/96", "has host bits set"),
            ("2001:db8:0:0:100::/96", "`2001:db8:0:0:100::/96` has bits 64 to 71 set"),
            ("", "is empty"),
        ] {
            let error = text.parse::<Nat64Prefix>().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
