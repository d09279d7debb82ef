//! Sessions as they are stored: in records, in snapshots of the active ones, in renewals.
//!
//! Invariant: a snapshot decodes to the sessions it was made of, with times to the microsecond.
//! Not here: which sessions are active (`engine::sessions`).

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use super::super::error::{CodecError, Decoded};
use super::super::object::{address_bytes, address_from, id, required};
use super::parts::{
    from_connection_type, from_level, from_revoke_reason, from_rule_text, optional_id, to_connection_type, to_level,
    to_revoke_reason, to_rule_text,
};
use crate::audit::merkle::{Hash, TreeHead};
use crate::audit::record::{Person, Subject};
use crate::audit::rule_text::RuleText;
use crate::audit::session::{EndReason, Revocation, SessionEnd, SessionId, SessionRecord};
use crate::policy::name::{Id, NodePath};
use crate::policy::time::Timestamp;
use crate::proto::same_variants;
use crate::proto::storage as stored;
use stored::audit_session::{self, End};

/// An active session and its user.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSession {
    /// The organization that it belongs to: the one in its endpoint's name.
    pub organization: Id,
    /// The user.
    pub subject: Subject,
    /// The session.
    pub record: SessionRecord,
}

/// The active sessions of one shard of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSessions {
    /// Which shard.
    pub shard: u32,
    /// The last record that they include.
    pub sequence: u64,
    /// The sessions.
    pub sessions: Vec<StoredSession>,
}

/// What is saved of the sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionSnapshot {
    /// The active sessions.
    pub shards: Vec<ShardSessions>,
    /// The head of the newest checkpoint of the audit log that was on the disk then; none where there was none.
    pub signed: Option<TreeHead>,
}

/// A renewal of leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When.
    pub time: Timestamp,
    /// Until when the leases now run.
    pub lease_expire_time: Timestamp,
    /// The last record of the log then. Corrections of the clock after it concern the times, too.
    pub as_of: u64,
    /// Of these sessions.
    pub sessions: Vec<SessionId>,
}

/// The bytes of a snapshot.
pub fn encode_session_snapshot(SessionSnapshot { shards, signed }: &SessionSnapshot) -> Vec<u8> {
    // One rule may have revoked all sessions, so each text is written once.
    let mut texts = Texts::default();
    let mut session = |StoredSession { organization: _, subject, record }: &StoredSession| {
        let person = match subject {
            Subject::Person(person) => Some(person),
            Subject::Nobody | Subject::Actor(_) | Subject::Erased => None,
        };
        stored::StoredSession {
            session: Some(without_text(record)),
            user_email: person.map(|person| person.email.to_string()).unwrap_or_default(),
            address: person.map(|person| address_bytes(Some(person.address))).unwrap_or_default(),
            erased: matches!(subject, Subject::Erased),
            revoke_rule_text: texts.number(record.revocation.as_ref().and_then(|revoked| revoked.rule_text.as_ref())),
        }
    };
    let shard = |ShardSessions { shard, sequence, sessions }: &ShardSessions| stored::SessionShard {
        shard: *shard,
        sequence: *sequence,
        sessions: sessions.iter().map(&mut session).collect(),
    };
    let shards = shards.iter().map(shard).collect();
    let (signed_size, signed_root) =
        signed.map_or((0, Vec::new()), |TreeHead { size, root }| (size, root.as_bytes().to_vec()));
    stored::SessionSnapshot { shards, rule_texts: texts.stored, signed_size, signed_root }.encode_to_vec()
}

/// The sessions that a snapshot holds.
pub fn decode_session_snapshot(bytes: &[u8]) -> Result<SessionSnapshot, CodecError> {
    let stored::SessionSnapshot { shards, rule_texts, signed_size, signed_root } =
        stored::SessionSnapshot::decode(bytes)?;
    let root = || Hash::try_from(signed_root.as_slice()).map_err(|_| CodecError::Invalid("signed root"));
    let signed = if signed_size == 0 { None } else { Some(TreeHead { size: signed_size, root: root()? }) };
    let texts = rule_texts.into_iter().map(|text| Ok(Arc::new(from_rule_text(text)?)));
    let texts = texts.collect::<Decoded<Vec<_>>>()?;
    let shard = |stored::SessionShard { shard, sequence, sessions }| {
        let session = |session| from_stored_session(session, &texts);
        let sessions = sessions.into_iter().map(session).collect::<Decoded<_>>()?;
        Ok(ShardSessions { shard, sequence, sessions })
    };
    let shards = shards.into_iter().map(shard).collect::<Decoded<_>>()?;
    Ok(SessionSnapshot { shards, signed })
}

/// The texts of rules that a snapshot holds, each once.
#[derive(Default)]
struct Texts {
    stored: Vec<stored::AuditRuleText>,
    numbers: HashMap<Arc<RuleText>, u32>,
    /// The last one and its number: sessions that one rule revoked lie together, and comparing pointers is cheaper.
    last: Option<(Arc<RuleText>, u32)>,
}

impl Texts {
    /// The number of a text, from 1 on; 0 where there is none.
    fn number(&mut self, text: Option<&Arc<RuleText>>) -> u32 {
        let Some(text) = text else { return 0 };
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, text)) {
            return *number;
        }
        let number = *self.numbers.entry(Arc::clone(text)).or_insert_with(|| {
            self.stored.push(to_rule_text(text));
            u32::try_from(self.stored.len()).unwrap_or_default()
        });
        self.last = Some((Arc::clone(text), number));
        number
    }
}

fn from_stored_session(session: stored::StoredSession, texts: &[Arc<RuleText>]) -> Decoded<StoredSession> {
    let stored::StoredSession { session, user_email, address, erased, revoke_rule_text } = session;
    let mut record = from_session(required(session, "session")?)?;
    if let (Some(index), Some(revocation)) = (revoke_rule_text.checked_sub(1), &mut record.revocation) {
        revocation.rule_text = Some(Arc::clone(required(texts.get(index as usize), "rule text")?));
    }
    let path = NodePath::parse(&record.endpoint).map_err(|_| CodecError::Invalid("endpoint"))?;
    let organization = id(path.organization)?;
    let subject = if erased {
        Subject::Erased
    } else {
        let address = required(address_from(&address)?, "address")?;
        Subject::Person(Person { email: user_email.into(), address })
    };
    Ok(StoredSession { organization, subject, record })
}

/// The bytes of a renewal.
pub fn encode_renewal(renewal: &Renewal) -> Vec<u8> {
    let Renewal { time, lease_expire_time, as_of, sessions } = renewal;
    stored::SessionRenewal {
        lease_expire_micros: lease_expire_time.micros(),
        time_micros: time.micros(),
        as_of_sequence: *as_of,
        sessions: sessions.iter().flat_map(|SessionId { boot, number }| [*boot, *number]).collect(),
    }
    .encode_to_vec()
}

/// The renewal that the bytes are.
pub fn decode_renewal(bytes: &[u8]) -> Result<Renewal, CodecError> {
    let stored::SessionRenewal { lease_expire_micros, time_micros, sessions, as_of_sequence } =
        stored::SessionRenewal::decode(bytes)?;
    let (pairs, odd) = sessions.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(CodecError::Invalid("session ids"));
    }
    Ok(Renewal {
        time: Timestamp::from_micros(time_micros),
        lease_expire_time: Timestamp::from_micros(lease_expire_micros),
        as_of: as_of_sequence,
        sessions: pairs.iter().map(|[boot, number]| SessionId { boot: *boot, number: *number }).collect(),
    })
}

pub(super) fn to_session(record: &SessionRecord) -> stored::AuditSession {
    let text = record.revocation.as_ref().and_then(|revoked| revoked.rule_text.as_deref());
    stored::AuditSession { revoke_rule_text: text.map(to_rule_text), ..without_text(record) }
}

/// A session but for what the rule was that revoked it.
fn without_text(record: &SessionRecord) -> stored::AuditSession {
    let SessionRecord {
        id: SessionId { boot, number },
        connection_type,
        endpoint,
        start_time,
        last_seen_time,
        request_count,
        rule,
        revision,
        lease_expire_time,
        revocation,
        end,
    } = record;
    let name = |id: &Id| id.to_string();
    let revoked = revocation.as_ref();
    stored::AuditSession {
        boot: *boot,
        number: *number,
        connection_type: to_connection_type(*connection_type).into(),
        endpoint: endpoint.to_string(),
        start_micros: start_time.micros(),
        last_seen_micros: last_seen_time.micros(),
        request_count: *request_count,
        rule: rule.as_ref().map(name).unwrap_or_default(),
        revision: *revision,
        lease_expire_micros: lease_expire_time.map(Timestamp::micros),
        end: end.map_or(End::Unspecified, |end| to_end(end.reason)).into(),
        end_micros: end.map(|end| end.time.micros()).unwrap_or_default(),
        revoke_reason: revoked
            .map_or(stored::AuditReason::Unspecified, |revoked| to_revoke_reason(revoked.reason))
            .into(),
        revoke_micros: revoked.map(|revoked| revoked.time.micros()).unwrap_or_default(),
        revoke_rule: revoked.and_then(|revoked| revoked.rule.as_ref()).map(name).unwrap_or_default(),
        revoke_level: revoked.and_then(|revoked| revoked.level).map(to_level).unwrap_or_default().into(),
        revoke_revision: revoked.map(|revoked| revoked.revision).unwrap_or_default(),
        revoke_rule_text: None,
    }
}

pub(super) fn from_session(session: stored::AuditSession) -> Decoded<SessionRecord> {
    let (connection_type, end, reason, level) =
        (session.connection_type(), session.end(), session.revoke_reason(), session.revoke_level());
    let stored::AuditSession {
        boot,
        number,
        connection_type: _,
        endpoint,
        start_micros,
        last_seen_micros,
        request_count,
        rule,
        revision,
        lease_expire_micros,
        end: _,
        end_micros,
        revoke_reason: _,
        revoke_micros,
        revoke_rule,
        revoke_level: _,
        revoke_revision,
        revoke_rule_text,
    } = session;
    let revocation = match from_revoke_reason(reason) {
        None => None,
        Some(reason) => Some(Revocation {
            time: Timestamp::from_micros(revoke_micros),
            reason,
            rule: optional_id(&revoke_rule)?,
            rule_text: revoke_rule_text.map(from_rule_text).transpose()?.map(Arc::new),
            level: from_level(level),
            revision: revoke_revision,
        }),
    };
    let end = from_end(end).map(|reason| SessionEnd { time: Timestamp::from_micros(end_micros), reason });
    Ok(SessionRecord {
        id: SessionId { boot, number },
        connection_type: required(from_connection_type(connection_type), "connection type")?,
        endpoint: Arc::from(endpoint),
        start_time: Timestamp::from_micros(start_micros),
        last_seen_time: Timestamp::from_micros(last_seen_micros),
        request_count,
        rule: optional_id(&rule)?,
        revision,
        lease_expire_time: lease_expire_micros.map(Timestamp::from_micros),
        revocation,
        end,
    })
}

same_variants!(
    to_end, from_end: EndReason => audit_session::End { Closed LeaseExpired Idle MaxAge Revoked Abandoned }
);
