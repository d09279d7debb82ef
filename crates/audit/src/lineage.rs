//! The lineage of a data directory: which history its sequences, revisions and tokens belong to (design.md §2.11).
//!
//! Invariant: it is drawn at random when a directory is begun and whenever a backup is restored, so two histories that
//! have parted never share one.
//! Not here: where it is kept (`store::directory`), and what bears it (`api`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// See the module. Its text is 16 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lineage(u64);

/// The bits of a lineage that ids begin with.
const ID_BITS: u64 = 0xFFFF << 48;

/// A text is no lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a lineage is 16 hexadecimal digits in lower case")]
pub struct LineageError;

impl Lineage {
    /// The lineage with this number, which must have been drawn at random.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Whether ids of both begin alike, so that they do not show which history they belong to.
    pub const fn has_ids_like(self, other: Self) -> bool {
        (self.0 ^ other.0) & ID_BITS == 0
    }

    /// The number of a start of the service, with which all decision ids and session ids of that start begin. It has the
    /// first 16 bits of the lineage, so that an id shows which history it belongs to, and 48 of a random number: a million
    /// starts are alike in one of five hundred cases. It is never 0.
    pub const fn boot(self, random: u64) -> u64 {
        let boot = (self.0 & ID_BITS) | (random & !ID_BITS);
        if boot == 0 { 1 } else { boot }
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Lineage {
    type Err = LineageError;

    fn from_str(text: &str) -> Result<Self, LineageError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(LineageError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| LineageError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_start_begins_as_the_lineage_does() {
        let lineage = Lineage::new(0x00ab_cdef_0123_4567);
        assert_eq!(format!("{:016x}", lineage.boot(u64::MAX)), "00abffffffffffff");
        assert_eq!(format!("{:016x}", lineage.boot(1 << 63)), "00ab000000000000");
        assert!(lineage.has_ids_like(Lineage::new(0x00ab_0000_0000_0000)));
        assert!(!lineage.has_ids_like(Lineage::new(0x00ac_cdef_0123_4567)));
        assert_eq!(Lineage::new(7).boot(0), 1, "0 stands for none in what is stored");
    }

    #[test]
    fn a_lineage_is_its_text_and_nothing_else_is_one() {
        let lineage = Lineage::new(0x00ab_cdef_0123_4567);
        assert_eq!(lineage.to_string(), "00abcdef01234567");
        assert_eq!(lineage.to_string().parse(), Ok(lineage));
        for text in ["", "0", "00ABCDEF01234567", "+0abcdef01234567", "00abcdef012345670", "00abcdef0123456g"] {
            assert_eq!(text.parse::<Lineage>(), Err(LineageError), "{text}");
        }
    }
}
