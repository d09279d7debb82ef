//! Tail records: what the journal holds until a unit is sealed.
//!
//! Invariant: erasing an opening changes no length, so that the journal's frames stay where they are.
//! Not here: the journal.

use std::ops::Range;

use prost::Message;

use super::super::error::{CodecError, Decoded};
use super::super::field;
use super::super::object::{address_bytes, address_from};
use super::wire;
use crate::audit::commitment::{Commitment, Opening, Salt};
use crate::proto::storage as stored;

/// The fields of a tail record and of an opening that are found without decoding.
const OPENING_FIELD: u32 = 2;
const SECRET_FIELD: u32 = 2;

/// A record as the journal holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct TailRecord {
    /// The record's bytes.
    pub body: Vec<u8>,
    /// The opening that it is the first to refer to.
    pub opening: Option<TailOpening>,
    /// Whether a unit begins with it.
    pub begins_unit: bool,
}

/// An opening of a unit that is not sealed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct TailOpening {
    /// What it opens.
    pub commitment: Commitment,
    /// What it is; none once it is erased.
    pub secret: Option<Secret>,
}

/// Personal data and what it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// The organization's id; empty where it belongs to none.
    pub scope: String,
    /// The data.
    pub opening: Opening,
}

/// The bytes of a record in the journal.
pub fn encode_tail(body: &[u8], opening: Option<&TailOpening>, begins_unit: bool) -> Vec<u8> {
    let mut bytes = body.to_vec();
    make_tail(&mut bytes, opening, begins_unit);
    bytes
}

/// Turns the bytes of a record into those of its tail record, in place. Returns where the record's bytes are now.
pub fn make_tail(bytes: &mut Vec<u8>, opening: Option<&TailOpening>, begins_unit: bool) -> Range<usize> {
    let opening = opening.map(|TailOpening { commitment, secret }| stored::AuditOpening {
        commitment: commitment.as_bytes().to_vec(),
        secret: secret.as_ref().map(encode_secret).unwrap_or_default(),
    });
    let opening = opening.map(|opening| opening.encode_to_vec());
    wire::tail_record(bytes, opening.as_deref(), begins_unit)
}

/// The record that the bytes are.
pub fn decode_tail(bytes: &[u8]) -> Result<TailRecord, CodecError> {
    let stored::AuditTailRecord { entry, opening, begins_unit } = stored::AuditTailRecord::decode(bytes)?;
    let opening = opening.map(|stored::AuditOpening { commitment, secret }| {
        let commitment = <[u8; Commitment::BYTES]>::try_from(&*commitment);
        let commitment = Commitment::new(commitment.map_err(|_| CodecError::Invalid("commitment"))?);
        let erased = secret.iter().all(|byte| *byte == 0);
        let secret = if erased { None } else { Some(decode_secret(&secret)?) };
        Ok::<_, CodecError>(TailOpening { commitment, secret })
    });
    Ok(TailRecord { body: entry, opening: opening.transpose()?, begins_unit })
}

/// Overwrites the opening in the bytes of a record with zeros. True if anything was changed.
pub fn erase_tail_opening(bytes: &mut [u8]) -> bool {
    let opening = field::find_mut(bytes, OPENING_FIELD);
    let Some(secret) = opening.and_then(|opening| field::find_mut(opening, SECRET_FIELD)) else { return false };
    let changed = secret.iter().any(|byte| *byte != 0);
    secret.fill(0);
    changed
}

fn encode_secret(Secret { scope, opening }: &Secret) -> Vec<u8> {
    let address = address_bytes(opening.address());
    let mut bytes = opening.salt().as_bytes().to_vec();
    bytes.extend_from_slice(scope.as_bytes());
    bytes.push(0);
    bytes.push(u8::try_from(address.len()).unwrap_or_default());
    bytes.extend_from_slice(&address);
    bytes.extend_from_slice(opening.email().as_bytes());
    bytes
}

fn decode_secret(bytes: &[u8]) -> Decoded<Secret> {
    let invalid = || CodecError::Invalid("opening");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| invalid());
    let (salt, rest) = bytes.split_first_chunk::<{ Salt::BYTES }>().ok_or_else(invalid)?;
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(invalid)?;
    let (scope, rest) = rest.split_at_checked(end).ok_or_else(invalid)?;
    let [_, length, rest @ ..] = rest else { return Err(invalid()) };
    let (address, email) = rest.split_at_checked(usize::from(*length)).ok_or_else(invalid)?;
    let opening = Opening::new(Salt::new(*salt), text(email)?, address_from(address)?).map_err(|_| invalid())?;
    Ok(Secret { scope: text(scope)?, opening })
}
