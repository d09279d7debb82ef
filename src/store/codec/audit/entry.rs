//! A record's bytes.
//!
//! Invariant: decoding what was encoded gives the same record, with times to the microsecond.
//! Not here: changes of policy (`policy_change`) and sessions (`session`), which are parts of records.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::super::error::{CodecError, Decoded};
use super::super::field;
use super::super::object::required;
use super::parts::{
    from_clock_cause, from_connection_type, from_level, from_reason, from_rule_text, optional_id, to_clock_cause,
};
use super::{policy_change, session, wire};
use crate::audit::commitment::COMMITMENTS_FIELD;
use crate::audit::lineage::Lineage;
use crate::audit::merkle::Hash;
use crate::audit::record::{
    ClockChangedRecord, Content, DecisionId, DecisionRecord, Entry, ErasedRecord, ErasedUnit, GapRecord,
    KeyChangedRecord, PrunedRecord, RecordType, RestoredRecord,
};
use crate::audit::session::SessionId;
use crate::policy::name::Id;
use crate::policy::time::Timestamp;

use crate::proto::storage as stored;
use stored::audit_entry::Content as StoredContent;

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEntry {
    /// Its sequence in the log.
    pub sequence: u64,
    /// Its sequence among the records of its organization; 0 where it belongs to none.
    pub organization_sequence: u64,
    /// The opening of whom it is about, by its number in the unit.
    pub slot: Option<u32>,
    /// What it says.
    pub entry: Entry,
}

/// The fields of a record that are read without decoding all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Its sequence in the log.
    pub sequence: u64,
    /// The opening of whom it is about.
    pub slot: Option<u32>,
    /// What kind it is; none where this version does not know it.
    pub record_type: Option<RecordType>,
}

/// The bytes of a record.
pub fn encode_entry(sequence: u64, organization_sequence: u64, slot: Option<u32>, entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    append_entry(&mut out, sequence, organization_sequence, slot, entry);
    out
}

/// Appends the bytes of a record to `out`.
pub fn append_entry(out: &mut Vec<u8>, sequence: u64, organization_sequence: u64, slot: Option<u32>, entry: &Entry) {
    let Entry { time, organization, content } = entry;
    let content = match content {
        // Nearly all records are decisions, so they are encoded without the generated message.
        Content::Decision(decision) => {
            let head = wire::Head {
                sequence,
                organization_sequence,
                person: slot.map_or(0, |slot| slot + 1),
                time_micros: time.micros(),
                organization: organization.as_ref().map_or("", Id::as_str),
            };
            return wire::decision_entry(out, &head, decision);
        }
        Content::SessionEnded(record) => StoredContent::SessionEnded(session::to_session(record)),
        Content::SessionRevoked(record) => StoredContent::SessionRevoked(session::to_session(record)),
        Content::PolicyChanged(change) => StoredContent::PolicyChanged(policy_change::to_change(change)),
        Content::Gap(GapRecord { from_time, to_time, count }) => StoredContent::Gap(stored::AuditGap {
            from_micros: from_time.micros(),
            to_micros: to_time.micros(),
            count: *count,
        }),
        Content::Pruned(PrunedRecord { to_sequence, root }) => {
            StoredContent::Pruned(stored::AuditPruned { to_sequence: *to_sequence, root: root.as_bytes().to_vec() })
        }
        Content::Erased(erased) => StoredContent::Erased(to_erased(erased)),
        Content::ClockChanged(ClockChangedRecord { from_time, to_time, cause }) => {
            StoredContent::ClockChanged(stored::AuditClockChanged {
                from_micros: from_time.micros(),
                to_micros: to_time.micros(),
                cause: to_clock_cause(*cause).into(),
            })
        }
        Content::KeyChanged(KeyChangedRecord { previous_key, key, signed_size }) => {
            StoredContent::KeyChanged(stored::AuditKeyChanged {
                previous_key: previous_key.to_string(),
                key: key.to_string(),
                signed_size: *signed_size,
            })
        }
        Content::Restored(RestoredRecord { previous_lineage, lineage }) => {
            StoredContent::Restored(stored::AuditRestored {
                previous_lineage: previous_lineage.number(),
                lineage: lineage.number(),
            })
        }
    };
    let entry = stored::AuditEntry {
        sequence,
        organization_sequence,
        person: slot.map_or(0, |slot| slot + 1),
        time_micros: time.micros(),
        organization: organization.as_ref().map(ToString::to_string).unwrap_or_default(),
        content: Some(content),
    };
    out.extend_from_slice(&entry.encode_to_vec());
}

/// The record that the bytes are.
pub fn decode_entry(bytes: &[u8]) -> Result<StoredEntry, CodecError> {
    check_fields(bytes)?;
    let stored::AuditEntry { sequence, organization_sequence, person, time_micros, organization, content } =
        stored::AuditEntry::decode(bytes)?;
    let content = match required(content, "content")? {
        StoredContent::Decision(decision) => Content::Decision(from_decision(decision)?),
        StoredContent::SessionEnded(record) => Content::SessionEnded(session::from_session(record)?),
        StoredContent::SessionRevoked(record) => Content::SessionRevoked(session::from_session(record)?),
        StoredContent::PolicyChanged(change) => Content::PolicyChanged(policy_change::from_change(change)?),
        StoredContent::Gap(stored::AuditGap { from_micros, to_micros, count }) => Content::Gap(GapRecord {
            from_time: Timestamp::from_micros(from_micros),
            to_time: Timestamp::from_micros(to_micros),
            count,
        }),
        StoredContent::Pruned(stored::AuditPruned { to_sequence, root }) => {
            let root = Hash::try_from(&*root).map_err(|_| CodecError::Invalid("root"))?;
            Content::Pruned(PrunedRecord { to_sequence, root })
        }
        StoredContent::Erased(erased) => Content::Erased(from_erased(erased)),
        StoredContent::ClockChanged(changed @ stored::AuditClockChanged { from_micros, to_micros, .. }) => {
            Content::ClockChanged(ClockChangedRecord {
                from_time: Timestamp::from_micros(from_micros),
                to_time: Timestamp::from_micros(to_micros),
                cause: from_clock_cause(changed.cause()).ok_or(CodecError::Invalid("cause"))?,
            })
        }
        StoredContent::KeyChanged(stored::AuditKeyChanged { previous_key, key, signed_size }) => {
            Content::KeyChanged(KeyChangedRecord { previous_key: previous_key.into(), key: key.into(), signed_size })
        }
        StoredContent::Restored(stored::AuditRestored { previous_lineage, lineage }) => {
            Content::Restored(RestoredRecord {
                previous_lineage: Lineage::new(previous_lineage),
                lineage: Lineage::new(lineage),
            })
        }
    };
    let organization = optional_id(&organization)?;
    let entry = Entry { time: Timestamp::from_micros(time_micros), organization, content };
    Ok(StoredEntry { sequence, organization_sequence, slot: person.checked_sub(1), entry })
}

/// Reads only the sequence, the slot and the kind of a record.
pub fn peek(bytes: &[u8]) -> Result<Peek, CodecError> {
    let mut found = Peek { sequence: 0, slot: None, record_type: None };
    field::for_each(bytes, |number, value| match (number, value) {
        (1, Some(value)) => found.sequence = value,
        (3, Some(value)) => found.slot = u32::try_from(value).ok().and_then(|person| person.checked_sub(1)),
        (6, None) => found.record_type = Some(RecordType::Decision),
        (7, None) => found.record_type = Some(RecordType::SessionEnded),
        (8, None) => found.record_type = Some(RecordType::SessionRevoked),
        (9, None) => found.record_type = Some(RecordType::PolicyChanged),
        (10, None) => found.record_type = Some(RecordType::Gap),
        (11, None) => found.record_type = Some(RecordType::Pruned),
        (12, None) => found.record_type = Some(RecordType::Erased),
        (13, None) => found.record_type = Some(RecordType::ClockChanged),
        (14, None) => found.record_type = Some(RecordType::KeyChanged),
        (15, None) => found.record_type = Some(RecordType::Restored),
        _ => {}
    })?;
    Ok(found)
}

/// A leaf ends with a field that no record has. Otherwise a record's bytes could pass for a commitment.
fn check_fields(bytes: &[u8]) -> Decoded<()> {
    let mut reserved = false;
    field::for_each(bytes, |number, _| reserved |= number == COMMITMENTS_FIELD)?;
    if reserved { Err(CodecError::Invalid("field 2047")) } else { Ok(()) }
}

fn from_decision(decision: stored::AuditDecision) -> Decoded<DecisionRecord> {
    let (reason, connection_type, level) = (decision.reason(), decision.connection_type(), decision.level());
    let stored::AuditDecision {
        boot,
        number,
        reason: _,
        connection_type: _,
        endpoint,
        rule,
        level: _,
        session_number,
        session_boot,
        session_opened,
        revision,
        cluster_revision,
        request_id,
        lease_millis,
        rule_text,
    } = decision;
    let session_boot = if session_boot == 0 { boot } else { session_boot };
    Ok(DecisionRecord {
        id: DecisionId { boot, number },
        reason: required(from_reason(reason), "reason")?,
        connection_type: required(from_connection_type(connection_type), "connection type")?,
        endpoint: endpoint.into(),
        rule: optional_id(&rule)?,
        rule_text: rule_text.map(from_rule_text).transpose()?.map(Arc::new),
        level: from_level(level),
        session: (session_number != 0).then_some(SessionId { boot: session_boot, number: session_number }),
        session_opened,
        revision,
        cluster_revision,
        request_id: request_id.into(),
        lease: (lease_millis != 0).then(|| Duration::from_millis(lease_millis)),
    })
}

fn to_erased(ErasedRecord { opening_count, units }: &ErasedRecord) -> stored::AuditErased {
    let unit = |ErasedUnit { first_sequence, slots }: &ErasedUnit| stored::AuditErasedUnit {
        first_sequence: *first_sequence,
        slots: slots.clone(),
    };
    stored::AuditErased { opening_count: *opening_count, units: units.iter().map(unit).collect() }
}

fn from_erased(stored::AuditErased { opening_count, units }: stored::AuditErased) -> ErasedRecord {
    let unit = |stored::AuditErasedUnit { first_sequence, slots }| ErasedUnit { first_sequence, slots };
    ErasedRecord { opening_count, units: units.into_iter().map(unit).collect() }
}
