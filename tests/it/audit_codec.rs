//! The stored form of records: what is written is what the messages would give, and reads back to the same.
//!
//! Invariant: the bytes of a record are hashed, so there is one way to write each.
//! Not here: the files they are in.

use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::commitment::{Opening, Salt};
use portcullis::audit::filter::RecordFilter;
use portcullis::audit::merkle::{Hash, TreeHead};
use portcullis::audit::record::{
    Content, DecisionId, DecisionRecord, Entry, ErasedRecord, ErasedUnit, GapRecord, Person, Record, RecordType,
    Subject,
};
use portcullis::audit::rule_text::RuleText;
use portcullis::audit::session::{EndReason, Revocation, RevokeReason, SessionEnd, SessionId, SessionRecord};
use portcullis::audit::terms::{TermQuery, for_each_term};
use portcullis::policy::address::{Address, Range};
use portcullis::policy::decision::{Decision, Level, Reason};
use portcullis::policy::name::Id;
use portcullis::policy::rule::{ConnectionType, Source};
use portcullis::policy::time::Timestamp;
use portcullis::proto::storage;
use portcullis::store::codec::audit::{
    Secret, SessionSnapshot, ShardSessions, StoredSession, TailOpening, decode_entry, decode_session_snapshot,
    decode_tail, encode_entry, encode_session_snapshot, encode_tail, erase_tail_opening, peek,
};
use proptest::prelude::*;
use prost::Message;

use crate::campaign::rounds;

fn time() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_000_000_i64).prop_map(Timestamp::from_micros)
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof!["[a-c]", "[a-z0-9]{1,12}"].prop_map(|text| Id::parse(&text).unwrap())
}

fn reason() -> BoxedStrategy<Reason> {
    prop_oneof![
        Just(Reason::AllowRule),
        Just(Reason::DefaultAllow),
        Just(Reason::UnknownEndpoint),
        Just(Reason::OutsideCluster),
        Just(Reason::DenyRule),
        Just(Reason::OutsideOrganization),
        Just(Reason::OutsideEndpoint),
    ]
    .boxed()
}

fn connection_type() -> impl Strategy<Value = ConnectionType> {
    prop_oneof![Just(ConnectionType::Shell), Just(ConnectionType::Preview)]
}

fn level() -> BoxedStrategy<Option<Level>> {
    prop_oneof![
        Just(None),
        Just(Some(Level::Cluster)),
        Just(Some(Level::Organization)),
        Just(Some(Level::Project)),
        Just(Some(Level::Workspace)),
        Just(Some(Level::Endpoint)),
    ]
    .boxed()
}

/// The name of a node of `organization`, few enough that filters meet them.
fn endpoint(organization: String) -> BoxedStrategy<String> {
    (0..4_usize, "[ab]", "[ab]", "[ab]")
        .prop_map(move |(depth, project, workspace, endpoint)| {
            let parts =
                [format!("/projects/{project}"), format!("/workspaces/{workspace}"), format!("/endpoints/{endpoint}")];
            format!("organizations/{organization}{}", parts[..depth].concat())
        })
        .boxed()
}

fn rule_text() -> BoxedStrategy<Option<Arc<RuleText>>> {
    let ranges = ["any", "0.0.0.0/0", "198.51.100.0/24", "203.0.113.9", "::/0", "2001:db8::/32", "::1"];
    let range = proptest::sample::select(ranges.to_vec());
    let range = range.prop_map(|text| Source::Range(text.parse::<Range>().unwrap()));
    let source = prop_oneof![range, id().prop_map(Source::Group)];
    // From none to more than the longest length that one byte counts.
    let description = prop_oneof![Just(String::new()), "[ -~é]{1,200}", Just("\u{1F6AB}".repeat(1_024))];
    let text = (source, description)
        .prop_map(|(source, description)| Arc::new(RuleText { source, description: description.into() }));
    proptest::option::of(text).boxed()
}

fn session_id() -> impl Strategy<Value = SessionId> {
    (1..u64::MAX, 1..u64::MAX).prop_map(|(boot, number)| SessionId { boot, number })
}

fn decision(organization: String) -> BoxedStrategy<Content> {
    let ids = (any::<u64>(), any::<u64>(), proptest::option::of(session_id()), any::<bool>());
    let decided = (reason(), proptest::option::of(id()), rule_text(), level(), any::<u64>(), any::<u64>());
    let asked = (connection_type(), endpoint(organization), "[ -~]{0,12}", proptest::option::of(1..100_000_u64));
    (ids, decided, asked)
        .prop_map(|((boot, number, session, opened), decided, (connection_type, endpoint, request_id, lease))| {
            let (reason, rule, rule_text, level, revision, cluster_revision) = decided;
            Content::Decision(DecisionRecord {
                id: DecisionId { boot, number },
                reason,
                connection_type,
                endpoint: endpoint.into(),
                rule,
                rule_text,
                level,
                // A boot id is drawn at random and never 0.
                session: session.map(|session| if boot == 0 { SessionId { boot: 1, ..session } } else { session }),
                session_opened: opened,
                revision,
                cluster_revision,
                request_id: request_id.into(),
                lease: lease.map(Duration::from_millis),
            })
        })
        .boxed()
}

fn session(organization: String) -> BoxedStrategy<SessionRecord> {
    let shape = (session_id(), connection_type(), endpoint(organization), 1..1_000_u64, proptest::option::of(id()));
    let times = (time(), time(), proptest::option::of(time()), any::<u64>());
    let why = prop_oneof![reason().prop_map(RevokeReason::Denied), Just(RevokeReason::AddressErased)];
    let revoked = (time(), why, proptest::option::of(id()), rule_text(), level(), any::<u64>());
    let revocation = proptest::option::of(revoked);
    let end = proptest::option::of((
        time(),
        prop_oneof![
            Just(EndReason::Closed),
            Just(EndReason::Idle),
            Just(EndReason::Revoked),
            Just(EndReason::Abandoned)
        ],
    ));
    (shape, times, revocation, end)
        .prop_map(|(shape, times, revocation, end)| {
            let (id, connection_type, endpoint, request_count, rule) = shape;
            let (start_time, last_seen_time, lease_expire_time, revision) = times;
            let revocation = revocation.map(|(time, reason, rule, rule_text, level, revision)| Revocation {
                time,
                reason,
                rule,
                rule_text,
                level,
                revision,
            });
            let end = end.map(|(time, reason)| SessionEnd { time, reason });
            SessionRecord {
                id,
                connection_type,
                endpoint: endpoint.into(),
                start_time,
                last_seen_time,
                request_count,
                rule,
                revision,
                lease_expire_time,
                revocation,
                end,
            }
        })
        .boxed()
}

fn entry() -> BoxedStrategy<Entry> {
    (time(), "[ab]").prop_flat_map(|(time, organization)| {
        let content = prop_oneof![
            4 => decision(organization.clone()),
            1 => session(organization.clone()).prop_map(Content::SessionEnded),
            1 => session(organization.clone()).prop_map(Content::SessionRevoked),
            1 => (0..100_u64).prop_map(move |count| Content::Gap(GapRecord { from_time: time, to_time: time, count })),
            1 => proptest::collection::vec(0..9_u32, 0..4).prop_map(|slots| Content::Erased(ErasedRecord {
                opening_count: slots.len() as u64,
                units: vec![ErasedUnit { first_sequence: 1, slots }],
            })),
        ];
        content.prop_map(move |content| {
            let id = Id::parse(&organization).unwrap();
            let organization = if matches!(content, Content::Gap(_)) { None } else { Some(id) };
            Entry { time, organization, content }
        })
    })
    .boxed()
}

fn filter() -> BoxedStrategy<RecordFilter> {
    let all_types = [
        RecordType::Decision,
        RecordType::SessionEnded,
        RecordType::SessionRevoked,
        RecordType::Gap,
        RecordType::Erased,
    ];
    let types = proptest::sample::subsequence(all_types.to_vec(), 0..=5);
    let decision = proptest::option::of(prop_oneof![Just(Decision::Allow), Just(Decision::Deny)]);
    let organization = proptest::option::of("[ab]".prop_map(|text| Id::parse(&text).unwrap()));
    let endpoint = proptest::option::of("[ab]".prop_flat_map(endpoint));
    let rule = proptest::option::of(("[ab]".prop_map(|text| Id::parse(&text).unwrap()), id()));
    (types, decision, organization, endpoint, rule, proptest::option::of(connection_type()))
        .prop_map(|(types, decision, organization, endpoint, rule, connection_type)| RecordFilter {
            organization,
            types,
            connection_type,
            decision,
            endpoint,
            rule,
            ..RecordFilter::default()
        })
        .boxed()
}

fn terms(entry: &Entry, slot: Option<u32>) -> Vec<Vec<u8>> {
    let mut terms = Vec::new();
    for_each_term(entry, slot, &mut Vec::new(), &mut |term| terms.push(term.to_vec()));
    terms
}

fn has(terms: &[Vec<u8>], query: &TermQuery) -> bool {
    match query {
        TermQuery::Exact(wanted) => terms.contains(wanted),
        TermQuery::AnyOf(wanted) => wanted.iter().any(|wanted| terms.contains(wanted)),
        TermQuery::Subtree(node) => terms
            .iter()
            .any(|term| term.strip_prefix(node.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(200, 600)))]

    #[test]
    fn a_record_reads_back_and_is_written_as_its_message_is(
        entry in entry(), sequence in 1..u64::MAX, number in 0..u64::MAX, slot in proptest::option::of(0..70_000_u32),
    ) {
        let bytes = encode_entry(sequence, number, slot, &entry);
        let decoded = decode_entry(&bytes).unwrap();
        prop_assert_eq!((decoded.sequence, decoded.organization_sequence, decoded.slot), (sequence, number, slot));
        prop_assert_eq!(&decoded.entry, &entry);
        let message = storage::AuditEntry::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(message.encode_to_vec(), bytes.clone());
        let peeked = peek(&bytes).unwrap();
        prop_assert_eq!((peeked.sequence, peeked.slot), (sequence, slot));
        prop_assert_eq!(peeked.record_type, Some(entry.content.record_type()));
        // The field that ends a leaf is never part of a record.
        let mut with_commitments = bytes;
        with_commitments.extend([0xFA, 0x7F, 0x00]);
        prop_assert!(decode_entry(&with_commitments).is_err());
    }

    /// The hazard: a rule with a long description that revokes all sessions, and a snapshot that holds it for each.
    #[test]
    fn a_snapshot_reads_back_and_holds_each_text_of_a_rule_once(
        records in proptest::collection::vec(session("a".to_owned()), 0..20), copies in 1..5_usize,
    ) {
        let session = |record: &SessionRecord| StoredSession {
            organization: Id::parse("a").unwrap(),
            subject: Subject::Person(Person { email: "ada@example.com".into(), address: Address::V4(7) }),
            record: record.clone(),
        };
        let shard = |shard| ShardSessions { shard, sequence: 9, sessions: records.iter().map(session).collect() };
        let shards: Vec<ShardSessions> = (0..u32::try_from(copies).unwrap()).map(shard).collect();
        let signed = (copies % 2 == 0).then(|| TreeHead { size: 7, root: Hash::new([9; 32]) });
        let snapshot = SessionSnapshot { shards, signed };
        let bytes = encode_session_snapshot(&snapshot);
        prop_assert_eq!(decode_session_snapshot(&bytes).unwrap(), snapshot);
        let message = storage::SessionSnapshot::decode(bytes.as_slice()).unwrap();
        let texts = |record: &SessionRecord| record.revocation.as_ref().and_then(|revoked| revoked.rule_text.clone());
        let distinct: std::collections::HashSet<_> = records.iter().filter_map(texts).collect();
        prop_assert_eq!(message.rule_texts.len(), distinct.len());
    }

    #[test]
    fn an_opening_is_erased_in_place(body in proptest::collection::vec(any::<u8>(), 1..200), email in "[a-z@.]{4,60}", v4 in any::<u32>(), salt in any::<[u8; 16]>(), begins_unit in any::<bool>()) {
        let opening = Opening::new(Salt::new(salt), email.clone(), Some(Address::V4(v4))).unwrap();
        let commitment = opening.commitment();
        let tail = TailOpening { commitment, secret: Some(Secret { scope: "acme".to_owned(), opening }) };
        let mut bytes = encode_tail(&body, Some(&tail), begins_unit);
        let message = storage::AuditTailRecord::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(message.encode_to_vec(), bytes.clone());
        let decoded = decode_tail(&bytes).unwrap();
        prop_assert_eq!((&decoded.body, decoded.begins_unit, decoded.opening), (&body, begins_unit, Some(tail)));
        let length = bytes.len();
        prop_assert!(erase_tail_opening(&mut bytes));
        prop_assert!(!erase_tail_opening(&mut bytes), "a second time there is nothing to erase");
        prop_assert_eq!(bytes.len(), length);
        let erased = decode_tail(&bytes).unwrap();
        prop_assert_eq!((&erased.body, erased.opening), (&body, Some(TailOpening { commitment, secret: None })));
        prop_assert!(!bytes[body.len()..].windows(email.len()).any(|window| window == email.as_bytes()));
        let mut without = encode_tail(&body, None, begins_unit);
        prop_assert!(!erase_tail_opening(&mut without));
    }

    #[test]
    fn whatever_passes_a_filter_is_found_by_its_terms(entry in entry(), filter in filter()) {
        let person = Person { email: "ada@example.com".into(), address: Address::V4(1) };
        let record = Record { sequence: 1, organization_sequence: 1, subject: Subject::Person(person), entry };
        let terms = terms(&record.entry, Some(3));
        if filter.matches(&record) {
            for query in filter.term_queries() {
                prop_assert!(has(&terms, &query), "{:?} is not among the terms", query);
            }
        }
        // Nothing personal is in the index.
        prop_assert!(!terms.iter().any(|term| term.windows(3).any(|window| window == b"ada")));
    }
}
