//! What personal data and records hash to, bytes included: an independent verifier has to get the same.

use std::collections::BTreeSet;

use portcullis::audit::commitment::{Commitment, CommitmentError, Opening, Salt, leaf, record_hash, split_leaf};
use portcullis::audit::merkle::leaf_hash;
use portcullis::policy::address::Address;
use proptest::prelude::*;

const SALT: Salt = Salt::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

fn opening(email: &str, address: Option<&str>) -> Opening {
    Opening::new(SALT, email, address.map(|address| address.parse().unwrap())).unwrap()
}

/// Computed with Python's `hashlib` from the layout that the module documents.
#[test]
fn commitments_are_as_documented() {
    let expected = [
        (
            opening("alice@example.com", Some("203.0.113.7")),
            "75cdd705404afe5dbc97855077ea1a6bc9fae0890d3970f56a2066744584d9bc",
        ),
        (
            opening("zoë@example.com", Some("2001:db8::7")),
            "04a2be3af83a771c582f54b523f25f0cf0082380542ba1dd622f3c365fbaf8c7",
        ),
        (opening("", None), "c1a6e04ac3dce2850699634ad515c744e9b9f637d94277ef18cc186d17413688"),
    ];
    for (opening, commitment) in expected {
        assert_eq!(opening.commitment().to_string(), commitment);
        assert_eq!(opening.commitment().verify(&opening), Ok(()));
    }
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let mapped = opening("alice@example.com", Some("::ffff:203.0.113.7"));
    assert_eq!(mapped.commitment(), opening("alice@example.com", Some("203.0.113.7")).commitment());
}

#[test]
fn a_commitment_is_opened_by_nothing_else() {
    let commitment = opening("alice@example.com", Some("203.0.113.7")).commitment();
    let others = [
        opening("alicf@example.com", Some("203.0.113.7")),
        opening("alice@example.com", Some("203.0.113.6")),
        opening("alice@example.com", None),
        opening("", Some("203.0.113.7")),
        Opening::new(Salt::new([0; 16]), "alice@example.com", "203.0.113.7".parse().ok()).unwrap(),
    ];
    for other in others {
        let error = CommitmentError::DoesNotOpen { computed: other.commitment(), expected: commitment };
        assert_eq!(commitment.verify(&other), Err(error));
    }
}

#[test]
fn personal_data_is_not_printed() {
    let printed = format!("{:?}", opening("alice@example.com", Some("203.0.113.7")));
    assert!(!printed.contains("alice") && !printed.contains("203") && !printed.contains("15"), "{printed}");
}

/// A stored body: field 1 is 1, field 2 is `cluster`.
const BODY: &[u8] = b"\x08\x01\x12\x07cluster";

#[test]
fn a_leaf_is_the_body_with_its_commitments_in_the_last_field() {
    let [alice, zoe] = [[0xA1; 32], [0xB2; 32]].map(Commitment::new);
    assert_eq!(leaf(BODY, &[]), [BODY, b"\xFA\x7F\x00"].concat());
    assert_eq!(leaf(BODY, &[alice]), [BODY, b"\xFA\x7F\x20", &[0xA1; 32]].concat());
    assert_eq!(leaf(BODY, &[alice, zoe]), [BODY, b"\xFA\x7F\x40", &[0xA1; 32], &[0xB2; 32]].concat());
    assert_eq!(leaf(BODY, &[alice; 4]), [BODY, b"\xFA\x7F\x80\x01", &[0xA1; 128]].concat());
    for commitments in [&[][..], &[alice], &[alice, zoe], &[alice; 4]] {
        assert_eq!(split_leaf(&leaf(BODY, commitments)), Some((BODY, commitments.to_vec())));
    }
    for no_leaf in
        [BODY.to_vec(), Vec::new(), leaf(BODY, &[alice])[1..].to_vec(), [leaf(BODY, &[]), vec![8, 1]].concat()]
    {
        assert_eq!(split_leaf(&no_leaf), None, "{no_leaf:?}");
    }
}

/// Computed with Python's `hashlib` from the layout that the module documents.
#[test]
fn record_hashes_are_as_documented() {
    let [alice, zoe, nobody] = [
        opening("alice@example.com", Some("203.0.113.7")),
        opening("zoë@example.com", Some("2001:db8::7")),
        opening("", None),
    ]
    .map(|opening| opening.commitment());
    let expected: [(&[Commitment], &str); 4] = [
        (&[], "e5d2c87a6234a6f1d403362137143b487b986658644e492614e4351185d31d5b"),
        (&[alice], "cad3e03ed0ae0fc71ead6850b5ddb9715979980fb0f0b64d7784f7386f1a1b05"),
        (&[alice, zoe], "e8c231d620f6208b843bdc9a4c03a6d77c970dea30bfb4380f1ad0bcbe643b5d"),
        (&[alice, zoe, nobody, alice], "7cedc7a3b19a01f29b51f819f3a73dd44b1659630c0cc255b74c6a16c52cbdb8"),
    ];
    for (commitments, hash) in expected {
        assert_eq!(record_hash(BODY, commitments).to_string(), hash);
    }
}

/// The fields of a protobuf message: number and wire type as a key, and where the field ends.
fn fields(message: &[u8]) -> Option<Vec<(u64, usize)>> {
    fn varint(message: &[u8], at: &mut usize) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *message.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    let (mut found, mut at) = (Vec::new(), 0);
    while at < message.len() {
        let key = varint(message, &mut at)?;
        match key % 8 {
            0 => drop(varint(message, &mut at)?),
            1 => at += 8,
            2 => {
                let length = usize::try_from(varint(message, &mut at)?).ok()?;
                at = at.checked_add(length)?;
            }
            5 => at += 4,
            _ => return None,
        }
        found.push((key, at));
    }
    (at == message.len()).then_some(found)
}

proptest! {
    /// No salt, length or boundary trick makes two people one.
    #[test]
    fn different_openings_have_different_commitments(
        openings in prop::collection::vec(("[ab]{0,3}", prop::option::of(0_u32..3), any::<bool>()), 2..12),
    ) {
        let mut different = BTreeSet::new();
        let mut commitments = BTreeSet::new();
        for (email, word, wide) in openings {
            let address = word.map(|word| if wide { Address::V6(u128::from(word)) } else { Address::V4(word) });
            different.insert((email.clone(), address));
            commitments.insert(Opening::new(SALT, email, address).unwrap().commitment());
        }
        prop_assert_eq!(different.len(), commitments.len());
    }

    /// As field 2047 is the last of a well-formed message, a leaf can be taken apart in one way only.
    #[test]
    fn a_leaf_says_what_is_body_and_what_is_commitment(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5),
        commitments in prop::collection::vec(any::<[u8; 32]>().prop_map(Commitment::new), 0..9),
    ) {
        let field = |text: &Vec<u8>| [&[0x0A, u8::try_from(text.len()).unwrap()], text.as_slice()].concat();
        let body: Vec<u8> = texts.iter().flat_map(field).collect();
        let leaf = leaf(&body, &commitments);
        prop_assert_eq!(leaf_hash(&[&leaf]), record_hash(&body, &commitments));
        let fields = fields(&leaf).unwrap();
        let (before, last) = (fields.iter().rev().nth(1).map_or(0, |field| field.1), fields.last().unwrap());
        prop_assert_eq!(before, body.len());
        prop_assert_eq!(last.0, 2047 << 3 | 2);
        let content: Vec<u8> = commitments.iter().flat_map(|commitment| *commitment.as_bytes()).collect();
        prop_assert!(leaf.ends_with(&content));
    }
}
