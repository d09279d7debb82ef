//! Commitments: how personal data is in the log without being in it, and what a record's leaf is.
//!
//! A user is an email and an address; an actor, who made a change, is a name and no address. Both are *committed to* by
//!
//! ```text
//! C = SHA-256( salt     16 random bytes
//!            ‖ length   of the email or name in bytes, 32 bits, most significant byte first; 0 where there is none
//!            ‖ email    or name, UTF-8, as it was given
//!            ‖ family   one byte: 0 an actor, 4 a user from an IPv4 address, 6 from an IPv6 address
//!            ‖ octets   none, 4 or 16, in network order; an IPv4-mapped address is its IPv4 address )
//! ```
//!
//! So the commitment binds the kind as well: the opening of an actor cannot be passed off as that of a user, and erasing a
//! user can leave what they did as an administrator.
//!
//! The record's stored body has no personal data. Its leaf is the body with all of its commitments in one last field,
//! number 2047, of type `bytes`:
//!
//! ```text
//! leaf = body ‖ 0xFA 0x7F ‖ length ‖ C₁ ‖ … ‖ Cₙ          leaf hash = SHA-256(0x00 ‖ leaf)
//! ```
//!
//! where 0xFA 0x7F is the tag of that field (2047 · 8 + 2 as a varint) and length is 32 · n as a varint: 0x20 for the
//! usual one commitment, 0x00 for a record about nobody. So a leaf is itself a protobuf message, and ends with that
//! field always: from a leaf it is certain what is body and what is commitment.
//!
//! Invariant: different openings have different preimages, different (body, commitments) have different leaves as long
//! as the body is a well-formed message; a decoder of bodies checks that, and field 2047 is reserved in it.
//! Not here: drawing salts, which records share an opening, storing and erasing openings.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::merkle::{Hash, leaf_hash};
use super::record::{Actor, Identity, Person};
use portcullis_policy::address::Address;

/// The number of the field that ends every leaf: the largest whose tag takes two bytes.
pub const COMMITMENTS_FIELD: u32 = 2047;

/// That field's tag, as it stands in a leaf.
const COMMITMENTS_TAG: [u8; 2] = [0xFA, 0x7F];

/// The length of one commitment, as it stands after the tag.
const COMMITMENT_BYTES: u8 = 32;

/// What hides who an opening is about. Random, and used for one opening only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; Salt::BYTES]);

/// What a record holds instead of personal data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commitment([u8; Commitment::BYTES]);

/// What opens a commitment: the personal data itself. Once it is gone, nobody can tell whom the commitment was about.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    salt: Salt,
    email: String,
    /// None of an actor.
    address: Option<Address>,
}

/// Why there is no opening, or it does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommitmentError {
    /// The length does not fit its field.
    #[error("the email has {0} bytes: give one of less than 4 GiB")]
    EmailTooLong(usize),
    /// The opening is of another commitment.
    #[error("the opening makes commitment {computed} instead of {expected}: the personal data was changed")]
    DoesNotOpen {
        /// What the opening makes.
        computed: Commitment,
        /// What is in the record.
        expected: Commitment,
    },
}

impl Salt {
    /// Length of a salt.
    pub const BYTES: usize = 16;

    /// A salt of bytes that were drawn at random.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be stored with what it hides and erased with it.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl Commitment {
    /// Length of a commitment.
    pub const BYTES: usize = Hash::BYTES;

    /// A commitment that was computed before.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Checks that `opening` is what this commits to.
    pub fn verify(self, opening: &Opening) -> Result<(), CommitmentError> {
        let computed = opening.commitment();
        if computed == self { Ok(()) } else { Err(CommitmentError::DoesNotOpen { computed, expected: self }) }
    }
}

impl Opening {
    /// The opening of a user with an address, or of an actor, who has none. An empty email means that none was given.
    pub fn new(salt: Salt, email: impl Into<String>, address: Option<Address>) -> Result<Self, CommitmentError> {
        let email = email.into();
        match u32::try_from(email.len()) {
            Ok(_) => Ok(Self { salt, email, address }),
            Err(_) => Err(CommitmentError::EmailTooLong(email.len())),
        }
    }

    /// What hides it.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// Email of the user, or name of the actor; empty where none was given.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// Where the user came from; none of an actor.
    pub fn address(&self) -> Option<Address> {
        self.address
    }

    /// Whom it is about.
    pub fn identity(&self) -> Identity {
        let name = self.email.as_str().into();
        match self.address {
            Some(address) => Identity::Person(Person { email: name, address }),
            None => Identity::Actor(Actor { name }),
        }
    }

    /// What stands in the record for it.
    pub fn commitment(&self) -> Commitment {
        // `new` has found that the length fits.
        let length = u32::try_from(self.email.len()).unwrap_or(u32::MAX);
        let hasher = Sha256::new_with_prefix(self.salt.0).chain_update(length.to_be_bytes()).chain_update(&self.email);
        let hasher = match self.address {
            None => hasher.chain_update([0]),
            Some(Address::V4(word)) => hasher.chain_update([4]).chain_update(word.to_be_bytes()),
            Some(Address::V6(word)) => hasher.chain_update([6]).chain_update(word.to_be_bytes()),
        };
        Commitment(hasher.finalize().into())
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Salt {
    /// Without the salt: with it, an email could be guessed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl fmt::Debug for Opening {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

/// The leaf of a record: its body as stored, and its commitments in the order of the record.
pub fn leaf(body: &[u8], commitments: &[Commitment]) -> Vec<u8> {
    let field = commitments_field(commitments);
    [body, &field].concat()
}

/// What a leaf is made of: the record's body, and its commitments in the order of the record. None where the bytes are no
/// leaf.
pub fn split_leaf(leaf: &[u8]) -> Option<(&[u8], Vec<Commitment>)> {
    let mut rest = leaf;
    loop {
        let body = leaf.get(..leaf.len() - rest.len())?;
        let key = take_varint(&mut rest)?;
        // The wire types of protocol buffers: varint, 8 bytes, counted bytes, 4 bytes.
        let length = match key & 7 {
            0 => take_varint(&mut rest).map(|_| 0)?,
            1 => 8,
            2 => take_varint(&mut rest)?,
            5 => 4,
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        if key == u64::from(COMMITMENTS_FIELD) << 3 | 2 {
            let (commitments, odd) = content.as_chunks::<{ Commitment::BYTES }>();
            let is_last = odd.is_empty() && rest.is_empty();
            return is_last.then(|| (body, commitments.iter().copied().map(Commitment::new).collect()));
        }
    }
}

/// The leaf's hash, which the tree takes.
pub fn record_hash(body: &[u8], commitments: &[Commitment]) -> Hash {
    match commitments {
        // Nearly every record is about one person.
        [commitment] => leaf_hash(&[body, &COMMITMENTS_TAG, &[COMMITMENT_BYTES], commitment.as_bytes()]),
        commitments => leaf_hash(&[body, &commitments_field(commitments)]),
    }
}

/// Takes a varint off the front.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if *first < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The last field of a leaf: tag, length, commitments.
fn commitments_field(commitments: &[Commitment]) -> Vec<u8> {
    let mut field = Vec::with_capacity(COMMITMENTS_TAG.len() + 2 + commitments.len() * Commitment::BYTES);
    field.extend(COMMITMENTS_TAG);
    let mut length = commitments.len() * Commitment::BYTES;
    while length > 0x7F {
        let [low, ..] = length.to_le_bytes();
        field.push(low | 0x80);
        length >>= 7;
    }
    let [low, ..] = length.to_le_bytes();
    field.push(low);
    field.extend(commitments.iter().flat_map(|commitment| commitment.0));
    field
}
