//! The counts that are kept with a sealed unit, and those that are kept of removed units.
//!
//! Invariant: these and the records of the tail give every count of the log.
//! Not here: the records.

use prost::Message;

use super::super::error::{CodecError, Decoded};
use super::super::object::{from_identity, id, to_identity};
use crate::policy::change::ChangeIdentity;
use crate::policy::name::Id;
use crate::proto::storage as stored;

/// Counts at the end of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitSummary {
    /// The last sequence of each organization that has records in the unit.
    pub organizations: Vec<(Id, u64)>,
    /// The last record of the policy journal that the unit has a record of; 0 where it has none.
    pub policy_sequence: u64,
    /// The change in that record; none where an earlier version wrote the unit.
    pub policy_change: Option<ChangeIdentity>,
}

/// What is kept of units that were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The last record that was removed; 0 where none was.
    pub to_sequence: u64,
    /// Counts up to it, of all organizations.
    pub summary: UnitSummary,
}

/// The bytes of a summary.
pub fn encode_unit_summary(summary: &UnitSummary) -> Vec<u8> {
    let UnitSummary { organizations, policy_sequence, policy_change } = summary;
    let (organizations, policy_sequence) = (to_counts(organizations), *policy_sequence);
    let policy_change = policy_change.as_ref().map(to_identity);
    stored::AuditUnit { organizations, policy_sequence, policy_change }.encode_to_vec()
}

/// The summary that the bytes are.
pub fn decode_unit_summary(bytes: &[u8]) -> Result<UnitSummary, CodecError> {
    let stored::AuditUnit { organizations, policy_sequence, policy_change } = stored::AuditUnit::decode(bytes)?;
    let policy_change = policy_change.map(from_identity).transpose()?;
    Ok(UnitSummary { organizations: from_counts(organizations)?, policy_sequence, policy_change })
}

/// The bytes of a base.
pub fn encode_base(Base { to_sequence, summary }: &Base) -> Vec<u8> {
    let UnitSummary { organizations, policy_sequence, policy_change } = summary;
    let (to_sequence, organizations, policy_sequence) = (*to_sequence, to_counts(organizations), *policy_sequence);
    let policy_change = policy_change.as_ref().map(to_identity);
    stored::AuditBase { to_sequence, organizations, policy_sequence, policy_change }.encode_to_vec()
}

/// The base that the bytes are.
pub fn decode_base(bytes: &[u8]) -> Result<Base, CodecError> {
    let stored::AuditBase { to_sequence, organizations, policy_sequence, policy_change } =
        stored::AuditBase::decode(bytes)?;
    let policy_change = policy_change.map(from_identity).transpose()?;
    let summary = UnitSummary { organizations: from_counts(organizations)?, policy_sequence, policy_change };
    Ok(Base { to_sequence, summary })
}

fn to_counts(organizations: &[(Id, u64)]) -> Vec<stored::AuditOrganizationCount> {
    let count = |(organization, count): &(Id, u64)| stored::AuditOrganizationCount {
        organization: organization.to_string(),
        count: *count,
    };
    organizations.iter().map(count).collect()
}

fn from_counts(counts: Vec<stored::AuditOrganizationCount>) -> Decoded<Vec<(Id, u64)>> {
    let count = |stored::AuditOrganizationCount { organization, count }| Ok((id(&organization)?, count));
    counts.into_iter().map(count).collect()
}
