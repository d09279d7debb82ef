//! Addresses and ranges: which texts are accepted, what they mean, and their canonical form (design.md §2.1).
//!
//! Invariant: an IPv4-mapped IPv6 address is the IPv4 address, and never a value of its own. Two texts with the same
//! meaning give equal values, which are written alike.
//! Not here: sets of ranges (`ranges`), lookups (`table`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use super::word::Word;

/// An IPv4 or IPv6 address. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IPv4 address as a number, most significant octet first.
    V4(u32),
    /// An IPv6 address that is not IPv4-mapped.
    V6(u128),
}

/// A range of addresses: all of both families, or one CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    /// All of IPv4 and IPv6.
    Any,
    /// An IPv4 block.
    V4(Block<u32>),
    /// An IPv6 block.
    V6(Block<u128>),
}

/// A CIDR block of one family; its host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block<W> {
    first: W,
    prefix_length: u8,
}

/// Why a text is not an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The text is empty.
    #[error("is empty: give an IPv4 or IPv6 address")]
    Empty,
    /// The text is not an address. Holds it, and advice.
    #[error("`{0}` is not an address: {1}")]
    Malformed(String, &'static str),
}

/// Why a text is not a range, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangeError {
    /// The text is empty.
    #[error("is empty: give an address, a range in CIDR notation, or `any`")]
    Empty,
    /// The part before the slash is not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The part after the slash is not a prefix length of the family. Holds the text and the greatest length.
    #[error("`{0}` has no valid prefix length: write a number from 0 to {1} after the slash")]
    PrefixLength(String, u8),
    /// Host bits are set, so the text could mean a range or an address.
    #[error("`{input}` has host bits set: write `{network}` for the whole range or `{address}` for the one address")]
    HostBits {
        /// The text.
        input: String,
        /// The range that it may mean.
        network: Range,
        /// The address that it may mean.
        address: Address,
    },
    /// A range that begins as the IPv4-mapped addresses do, and contains more than those.
    #[error("`{0}` is an IPv4-mapped range shorter than /96: write the IPv4 range, or a plain IPv6 range")]
    ShortMapped(String),
}

impl<W: Word> Block<W> {
    /// The block with this first address and prefix length; none when host bits are set or the length is too large.
    pub fn new(first: W, prefix_length: u8) -> Option<Self> {
        (prefix_length <= W::BITS && first.network(prefix_length) == first).then_some(Self { first, prefix_length })
    }

    /// The lowest address.
    pub fn first(self) -> W {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> W {
        self.first.block_end(self.prefix_length)
    }

    /// The number of leading bits that all its addresses share.
    pub fn prefix_length(self) -> u8 {
        self.prefix_length
    }
}

impl Address {
    /// The address with this IPv6 number; an IPv4 address when it is IPv4-mapped.
    fn from_v6(word: u128) -> Self {
        match Ipv6Addr::from_bits(word).to_ipv4_mapped() {
            Some(v4) => Self::V4(v4.to_bits()),
            None => Self::V6(word),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::from_v6(v6.to_bits()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(ip.into()),
            Err(_) if text.is_empty() => Err(AddressError::Empty),
            Err(_) => Err(AddressError::Malformed(shorten(text), advice(text))),
        }
    }
}

impl Range {
    /// Whether the address lies in the range. An IPv6 range never contains an IPv4 address.
    pub fn contains(self, address: Address) -> bool {
        match (self, address) {
            (Self::Any, _) => true,
            (Self::V4(block), Address::V4(word)) => block.first() <= word && word <= block.last(),
            (Self::V6(block), Address::V6(word)) => block.first() <= word && word <= block.last(),
            (Self::V4(_), Address::V6(_)) | (Self::V6(_), Address::V4(_)) => false,
        }
    }

    /// Whether every address of another range lies in the range.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::V4(wide), Self::V4(block)) => wide.first() <= block.first() && block.last() <= wide.last(),
            (Self::V6(wide), Self::V6(block)) => wide.first() <= block.first() && block.last() <= wide.last(),
            (Self::V4(_) | Self::V6(_), _) => false,
        }
    }
}

impl From<Address> for Range {
    fn from(address: Address) -> Self {
        match address {
            Address::V4(first) => Self::V4(Block { first, prefix_length: 32 }),
            Address::V6(first) => Self::V6(Block { first, prefix_length: 128 }),
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if text.is_empty() {
            return Err(RangeError::Empty);
        }
        if text.eq_ignore_ascii_case("any") {
            return Ok(Self::Any);
        }
        let Some((head, tail)) = text.split_once('/') else {
            return Ok(text.parse::<Address>()?.into());
        };
        let ip = match head.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) if head.is_empty() => return Err(AddressError::Malformed(shorten(text), advice(head)).into()),
            Err(_) => return Err(AddressError::Malformed(shorten(head), advice(head)).into()),
        };
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let invalid_length = || RangeError::PrefixLength(shorten(text), bits);
        let length = prefix_length(tail).ok_or_else(invalid_length)?;
        let net = IpNet::new(ip, length).map_err(|_| invalid_length())?;
        if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) && length < MAPPED_PREFIX_LENGTH {
            return Err(RangeError::ShortMapped(shorten(text)));
        }
        if net.network() != ip {
            let (network, address) = (net.trunc().into(), ip.into());
            return Err(RangeError::HostBits { input: shorten(text), network, address });
        }
        Ok(net.into())
    }
}

impl From<IpNet> for Range {
    /// The range of a network. Host bits are ignored. An IPv4-mapped network of /96 or longer is the IPv4 network.
    fn from(net: IpNet) -> Self {
        match net.trunc() {
            IpNet::V4(net) => Self::V4(Block { first: net.addr().to_bits(), prefix_length: net.prefix_len() }),
            IpNet::V6(net) => match (net.addr().to_ipv4_mapped(), net.prefix_len().checked_sub(MAPPED_PREFIX_LENGTH)) {
                (Some(v4), Some(prefix_length)) => Self::V4(Block { first: v4.to_bits(), prefix_length }),
                _ => Self::V6(Block { first: net.addr().to_bits(), prefix_length: net.prefix_len() }),
            },
        }
    }
}

/// The length of the prefix that all IPv4-mapped addresses share (RFC 4291 §2.5.5.2).
const MAPPED_PREFIX_LENGTH: u8 = 96;

/// Parses a decimal number without a sign or leading zeros.
fn prefix_length(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse::<u8>().ok().filter(|_| plain)
}

/// What is most likely wrong with a text that should have been an address.
fn advice(text: &str) -> &'static str {
    if text.trim() != text || text.contains(char::is_whitespace) {
        "remove the spaces"
    } else if text.contains('/') {
        "leave out the prefix length"
    } else if text.contains(['[', ']']) {
        "write it without brackets and without a port"
    } else if text.contains('%') {
        "leave out the zone after `%`"
    } else if text.contains('.') && text.contains(':') && !text.starts_with(':') {
        "leave out the port"
    } else if text.split('.').any(|octet| octet.len() > 1 && octet.starts_with('0')) && text.contains('.') {
        "write octets without leading zeros"
    } else {
        "give an IPv4 address such as `203.0.113.7` or an IPv6 address such as `2001:db8::7`"
    }
}

/// Keeps an error message readable when the input is very long.
fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    let mut shown: String = text.chars().take(CHARACTERS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(word) => Ipv4Addr::from_bits(word).fmt(f),
            Self::V6(word) => Ipv6Addr::from_bits(word).fmt(f),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any => f.write_str("any"),
            Self::V4(block) if block.prefix_length == <u32 as Word>::BITS => Address::V4(block.first).fmt(f),
            Self::V6(block) if block.prefix_length == <u128 as Word>::BITS => Address::V6(block.first).fmt(f),
            Self::V4(block) => write!(f, "{}/{}", Address::V4(block.first), block.prefix_length),
            Self::V6(block) => write!(f, "{}/{}", Ipv6Addr::from_bits(block.first), block.prefix_length),
        }
    }
}
