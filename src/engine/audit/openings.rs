//! Openings in their two stored forms. The tail stores the commitment with each; a sealed unit stores it only for erased
//! ones.
//!
//! Invariant: an opening has the same commitment in both.
//! Not here: what an opening opens (`audit::commitment`).

use crate::audit::commitment::{Commitment, Opening, Salt};
use crate::policy::address::Address;
use crate::store::codec::audit::{Secret, TailOpening};
use crate::store::sealed::StoredOpening;

/// An opening as a sealed unit has it.
pub(super) fn to_stored(opening: &TailOpening) -> StoredOpening {
    match &opening.secret {
        None => StoredOpening::Erased { commitment: *opening.commitment.as_bytes() },
        Some(Secret { scope, opening }) => StoredOpening::Present {
            salt: *opening.salt().as_bytes(),
            email: opening.email().to_owned(),
            address: match opening.address() {
                None => Vec::new(),
                Some(Address::V4(word)) => word.to_be_bytes().to_vec(),
                Some(Address::V6(word)) => word.to_be_bytes().to_vec(),
            },
            scope: scope.clone(),
        },
    }
}

/// An opening of a sealed unit, with its commitment.
pub(super) fn to_tail(stored: StoredOpening) -> TailOpening {
    match stored {
        StoredOpening::Erased { commitment } => TailOpening { commitment: Commitment::new(commitment), secret: None },
        StoredOpening::Present { salt, email, address, scope } => {
            let address = match (<[u8; 4]>::try_from(&*address), <[u8; 16]>::try_from(&*address)) {
                (Ok(bytes), _) => Some(Address::V4(u32::from_be_bytes(bytes))),
                (_, Ok(bytes)) => Some(Address::V6(u128::from_be_bytes(bytes))),
                _ => None,
            };
            match Opening::new(Salt::new(salt), email, address) {
                Ok(opening) => {
                    TailOpening { commitment: opening.commitment(), secret: Some(Secret { scope, opening }) }
                }
                // Longer than anything that can be recorded.
                Err(_) => TailOpening { commitment: Commitment::new([0; Commitment::BYTES]), secret: None },
            }
        }
    }
}

/// An opening's commitment, computed from the opening where there is one, and whether it was erased.
pub(super) fn commitment(opening: &TailOpening) -> (Commitment, bool) {
    match &opening.secret {
        Some(Secret { opening, .. }) => (opening.commitment(), false),
        None => (opening.commitment, true),
    }
}
