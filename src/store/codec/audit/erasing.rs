//! The mark that erasures are under way: what a start needs to finish them.
//!
//! Invariant: what was encoded decodes to the same. A mark of an earlier build decodes to what it says.
//! Not here: the file, and when it goes (`engine::audit`).

use prost::Message;

use super::super::error::CodecError;
use super::parts::optional_id;
use crate::audit::record::Actor;
use crate::policy::name::Id;
use crate::proto::storage as stored;

/// An erasure that is under way.
#[derive(Clone, PartialEq, Eq)]
pub struct UnfinishedErasure {
    /// Where to erase; none: everywhere.
    pub organization: Option<Id>,
    /// Whom: an email, or the name of an actor.
    pub name: String,
    /// Whether the name is also erased where it is an actor's.
    pub including_actor: bool,
    /// Who asked for it.
    pub asked_by: Actor,
    /// The first ERASED record behind this sequence is this erasure's. `u64::MAX` where that is not known: then it counts
    /// as not recorded.
    pub after_sequence: u64,
    /// Its first ERASED record, where that is known to be durable.
    pub recorded: Option<u64>,
}

/// What a mark says.
#[derive(Clone, PartialEq, Eq)]
pub enum ErasureMark {
    /// These erasures are under way.
    Erasures(Vec<UnfinishedErasure>),
    /// The mark of an earlier build for a user, whom it does not name: what the ERASED records list is to be erased.
    Recorded,
}

impl ErasureMark {
    /// Whether somebody of this email or name may have to be erased.
    pub fn names(&self, name: &str) -> bool {
        matches!(self, Self::Erasures(erasures) if erasures.iter().any(|erasure| erasure.name == name))
    }
}

impl std::fmt::Debug for UnfinishedErasure {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { including_actor, after_sequence, recorded, .. } = self;
        let mut text = f.debug_struct("UnfinishedErasure");
        text.field("including_actor", including_actor).field("after_sequence", after_sequence);
        text.field("recorded", recorded).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ErasureMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Erasures(erasures) => f.debug_tuple("Erasures").field(erasures).finish(),
            Self::Recorded => f.write_str("Recorded"),
        }
    }
}

/// The bytes of a mark.
pub fn encode_erasure_mark<'a>(erasures: impl IntoIterator<Item = &'a UnfinishedErasure>) -> Vec<u8> {
    let erasure = |erasure: &UnfinishedErasure| {
        let UnfinishedErasure { organization, name, including_actor, asked_by, after_sequence, recorded } = erasure;
        stored::UnfinishedErasure {
            organization: organization.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: name.clone(),
            asked_by: asked_by.name.to_string(),
            including_actor: *including_actor,
            after_sequence: *after_sequence,
            recorded_sequence: recorded.unwrap_or(0),
        }
    };
    let erasures = erasures.into_iter().map(erasure).collect();
    stored::ErasureMark { erasures, ..stored::ErasureMark::default() }.encode_to_vec()
}

/// The mark that the bytes are.
pub fn decode_erasure_mark(bytes: &[u8]) -> Result<ErasureMark, CodecError> {
    if bytes.is_empty() {
        return Ok(ErasureMark::Recorded);
    }
    let stored::ErasureMark { organization, name, asked_by, erasures } = stored::ErasureMark::decode(bytes)?;
    let of_earlier_build = stored::UnfinishedErasure {
        organization,
        name,
        asked_by,
        including_actor: true,
        after_sequence: u64::MAX,
        recorded_sequence: 0,
    };
    let of_earlier_build = Some(of_earlier_build).filter(|erasure| !erasure.name.is_empty());
    let erasures = of_earlier_build.into_iter().chain(erasures).map(|erasure| {
        let stored::UnfinishedErasure {
            organization,
            name,
            asked_by,
            including_actor,
            after_sequence,
            recorded_sequence,
        } = erasure;
        let (organization, asked_by) = (optional_id(&organization)?, Actor { name: asked_by.into() });
        let recorded = Some(recorded_sequence).filter(|sequence| *sequence > 0);
        Ok(UnfinishedErasure { organization, name, including_actor, asked_by, after_sequence, recorded })
    });
    erasures.collect::<Result<_, _>>().map(ErasureMark::Erasures)
}
