//! The mark that an actor is being erased: what a start needs to carry the erasure out again.
//!
//! Invariant: what was encoded decodes to the same; an empty mark, that of a user's erasure, is no actor's.
//! Not here: the file, and when it goes (`engine::audit`).

use prost::Message;

use super::super::error::CodecError;
use super::parts::optional_id;
use crate::audit::record::Actor;
use crate::policy::name::Id;
use crate::proto::storage as stored;

/// An erasure of an actor that is under way.
#[derive(Clone, PartialEq, Eq)]
pub struct ActorErasure {
    /// Where to erase; none: everywhere.
    pub organization: Option<Id>,
    /// Whom, as a user and as an actor.
    pub name: String,
    /// Who asked for it.
    pub asked_by: Actor,
}

/// The bytes of a mark.
pub fn encode_actor_erasure(ActorErasure { organization, name, asked_by }: &ActorErasure) -> Vec<u8> {
    stored::ActorErasure {
        organization: organization.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: name.clone(),
        asked_by: asked_by.name.to_string(),
    }
    .encode_to_vec()
}

/// The mark that the bytes are; none where they are empty.
pub fn decode_actor_erasure(bytes: &[u8]) -> Result<Option<ActorErasure>, CodecError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let stored::ActorErasure { organization, name, asked_by } = stored::ActorErasure::decode(bytes)?;
    let asked_by = Actor { name: asked_by.into() };
    Ok(Some(ActorErasure { organization: optional_id(&organization)?, name, asked_by }))
}
