//! Checkpoints and signed notes: published ones, forged ones, arbitrary bytes.

use portcullis::audit::checkpoint::{Checkpoint, CheckpointError, OpenError};
use portcullis::audit::merkle::{Hash, TreeHead, empty_root};
use portcullis::audit::note::{
    KeyError, NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, NoteError, NoteVerifyError, SignedNote, SignerKey, VerifierKey,
};
use proptest::prelude::*;

use crate::campaign::rounds;

/// The keys and the note of the tests of Go's `golang.org/x/mod/sumdb/note`.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const PETER_SIGNED: &str =
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCH_SIGNED: &str =
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

/// The key of Go's checksum database, and one of its signed tree heads, to which a witness added a signature.
const SUMDB: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const SUMDB_NOTE: &str = "go.sum database tree\n15067302\ngJyioq6dwR9n+NjEWORfYmH+ubeYm3kH42BBQ0bTpYI=\n\n\
    — sum.golang.org Az3grp1rvWOs5NKlr/xR4GLN/CDyzzakmt1o61uSxYKpK1SerqOP2ClbX/peKUZjYnyomH5Xz7GZG3TpB7OeKn4E2ww=\n\
    — test.example.com qTGhC/xIPQ0AXKHK6Y+9ypRfuvMZWPjRXM8NiOg5M1WREn07VQXyuIXM3NRNav3ieVFLUqDRK77PWDmL6w8w84UqeAw=\n";

/// The example of the tlog-checkpoint specification.
const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn verifier(key: &str) -> VerifierKey {
    key.parse().unwrap()
}

fn signer(name: &str, seed: u8) -> SignerKey {
    SignerKey::new(name, &[seed; 32]).unwrap()
}

fn note(text: &str, signatures: &[&str]) -> Result<SignedNote, NoteError> {
    SignedNote::parse(format!("{text}\n{}", signatures.concat()).as_bytes())
}

#[test]
fn the_note_of_go_verifies_and_is_signed_alike() {
    let read = note(TEXT, &[PETER_SIGNED]).unwrap();
    assert_eq!(read.verify(&[verifier(PETER)]), Ok(TEXT));
    let secret: SignerKey = PETER_SECRET.parse().unwrap();
    assert_eq!(secret.verifier(), &verifier(PETER));
    assert_eq!(secret.to_secret_text(), PETER_SECRET);
    assert_eq!(secret.verifier().to_string(), PETER);
    let signed = SignedNote::sign(TEXT, &secret).unwrap();
    assert_eq!(signed.to_string(), format!("{TEXT}\n{PETER_SIGNED}"));
    assert_eq!(signed, read);
}

#[test]
fn a_tree_head_of_the_go_checksum_database_opens() {
    let checkpoint = Checkpoint::open(SUMDB_NOTE.as_bytes(), &[verifier(SUMDB)], "go.sum database tree").unwrap();
    assert_eq!(checkpoint.origin(), "go.sum database tree");
    assert_eq!(checkpoint.head().size, 15_067_302);
    assert_eq!(checkpoint.to_string(), SUMDB_NOTE.split_once("\n\n").unwrap().0.to_owned() + "\n");
    assert_eq!(SUMDB_NOTE.parse::<SignedNote>().unwrap().to_string(), SUMDB_NOTE);
    let larger = SUMDB_NOTE.replace("15067302", "15067303");
    let opened = Checkpoint::open(larger.as_bytes(), &[verifier(SUMDB)], "go.sum database tree");
    assert!(matches!(opened, Err(OpenError::Verify(NoteVerifyError::InvalidSignature { .. }))), "{opened:?}");
}

#[test]
fn unknown_signatures_are_ignored_and_known_ones_must_hold() {
    let both = note(TEXT, &[PETER_SIGNED, ENOCH_SIGNED]).unwrap();
    for known in [&[verifier(PETER)][..], &[verifier(ENOCH)], &[verifier(ENOCH), verifier(PETER), verifier(ENOCH)]] {
        assert_eq!(both.verify(known), Ok(TEXT));
    }
    let names = "`PeterNeumann+c74f20a3`, `EnochRoot+af0cfe78`".to_owned();
    let unsigned = Err(NoteVerifyError::NoKnownSignature(names));
    assert_eq!(both.verify(&[]), unsigned);
    assert_eq!(both.verify(&[verifier(SUMDB)]), unsigned);
    // Same name, other key: another id, so it is unknown.
    assert_eq!(both.verify(&[signer("PeterNeumann", 1).verifier().clone()]), unsigned);

    let forged = PETER_SIGNED.replace("ZJkuBS9", "ZJkuBS8");
    for signatures in [[forged.as_str(), ENOCH_SIGNED], [ENOCH_SIGNED, &forged], [PETER_SIGNED, &forged]] {
        let verified = note(TEXT, &signatures).unwrap();
        let verified = verified.verify(&[verifier(PETER), verifier(ENOCH)]);
        assert!(matches!(verified, Err(NoteVerifyError::InvalidSignature { .. })), "{verified:?}");
    }
    assert_eq!(note(TEXT, &[&forged, ENOCH_SIGNED]).unwrap().verify(&[verifier(ENOCH)]), Ok(TEXT));
    // A signature of the wrong length by a known key.
    let short = note(TEXT, &["— PeterNeumann x08gowA=\n"]).unwrap();
    assert!(matches!(short.verify(&[verifier(PETER)]), Err(NoteVerifyError::InvalidSignature { .. })));
}

#[test]
fn a_note_is_signed_by_several() {
    let signed = SignedNote::sign(TEXT, &signer("one", 1)).unwrap().cosign(&signer("two", 2)).unwrap();
    let replaced = signed.clone().cosign(&signer("one", 1)).unwrap();
    for note in [&signed, &replaced] {
        assert_eq!(note.signatures().len(), 2);
        assert_eq!(&note.to_string().parse::<SignedNote>().unwrap(), note);
        for key in [signer("one", 1), signer("two", 2)] {
            assert_eq!(note.verify(&[key.verifier().clone()]), Ok(TEXT));
        }
    }
    assert_eq!(signed.signatures()[0].name(), "one");
    assert_eq!(replaced.signatures()[0].name(), "two");
}

#[test]
fn what_is_no_note_is_refused() {
    let refused: [(&[u8], NoteError); 16] = [
        (b"", NoteError::NoSignatures),
        (b"\n", NoteError::NoSignatures),
        (b"\n\n", NoteError::NoSignatures),
        (b"text\n", NoteError::NoSignatures),
        (b"text\n\n", NoteError::NoSignatures),
        ("text\n— name AAAAAAE=\n".as_bytes(), NoteError::NoSignatures),
        ("text\n\n— name AAAAAAE=".as_bytes(), NoteError::Unterminated),
        ("te\0xt\n\n— name AAAAAAE=\n".as_bytes(), NoteError::ControlCharacter(2)),
        ("text\r\n\r\n— name AAAAAAE=\r\n".as_bytes(), NoteError::ControlCharacter(4)),
        (b"te\xFFxt\n\n", NoteError::NotUtf8(2)),
        ("text\n\n— name AAAAAAE=\nmore\n".as_bytes(), NoteError::MalformedSignature(2)),
        ("text\n\n- name AAAAAAE=\n".as_bytes(), NoteError::MalformedSignature(1)),
        ("text\n\n— na+me AAAAAAE=\n".as_bytes(), NoteError::MalformedSignature(1)),
        ("text\n\n— na\u{a0}me AAAAAAE=\n".as_bytes(), NoteError::MalformedSignature(1)),
        ("text\n\n— name more AAAAAAE=\n".as_bytes(), NoteError::MalformedSignature(1)),
        ("text\n\n—  AAAAAAE=\n".as_bytes(), NoteError::MalformedSignature(1)),
    ];
    for (bytes, error) in refused {
        assert_eq!(SignedNote::parse(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
    }
    // An id without a signature; padding left out, added, or with bits set in it.
    for base64 in ["AAAAAA==", "AAAAAAE", "AAAAAAE==", "AAAAAAF=", "AAAA AAE=", "", "!"] {
        assert_eq!(note("text\n", &[&format!("— name {base64}\n")]), Err(NoteError::MalformedSignature(1)), "{base64}");
    }
    assert!(note("text\n", &["— name AAAAAAE=\n"]).is_ok());
    assert!(note("te\n\nxt\n\n", &["— name AAAAAAE=\n"]).is_ok());

    let many = "— name AAAAAAE=\n".repeat(NOTE_SIGNATURES_MAX);
    assert!(note("text\n", &[&many]).is_ok());
    assert_eq!(note("text\n", &[&many, "— name AAAAAAE=\n"]), Err(NoteError::TooManySignatures));
    let long = "long\n".repeat(NOTE_BYTES_MAX / 5 + 1);
    assert_eq!(SignedNote::parse(long.as_bytes()), Err(NoteError::TooLong(long.len())));
}

#[test]
fn what_cannot_be_read_back_is_not_signed() {
    let key = signer("name", 1);
    assert_eq!(SignedNote::sign("no newline", &key), Err(NoteError::TextUnterminated));
    assert_eq!(SignedNote::sign("", &key), Err(NoteError::TextUnterminated));
    assert_eq!(SignedNote::sign("tab\t\n", &key), Err(NoteError::ControlCharacter(3)));
    let long = "x".repeat(NOTE_BYTES_MAX - 1) + "\n";
    assert!(matches!(SignedNote::sign(long, &key), Err(NoteError::TooLong(_))));
    let mut crowded = SignedNote::sign(TEXT, &key).unwrap();
    for number in 1..NOTE_SIGNATURES_MAX {
        crowded = crowded.cosign(&signer(&format!("name{number}"), 1)).unwrap();
    }
    assert_eq!(crowded.cosign(&signer("one-more", 1)), Err(NoteError::TooManySignatures));
}

#[test]
fn damaged_keys_are_refused() {
    for (key, is_refused) in [
        (PETER, (|key: &str| key.parse::<VerifierKey>().is_err()) as fn(&str) -> bool),
        (PETER_SECRET, |key: &str| key.parse::<SignerKey>().is_err()),
    ] {
        assert!(!is_refused(key));
        for begin in 0..key.len() {
            for end in begin..key.len() {
                assert!(is_refused(key.get(begin..end).unwrap()));
            }
            assert!(begin == 0 || is_refused(key.get(begin..).unwrap()));
            let mut changed = key.as_bytes().to_vec();
            changed[begin] += 1;
            assert!(is_refused(std::str::from_utf8(&changed).unwrap()), "{begin}");
        }
    }
    let refused = |key: &str| key.parse::<VerifierKey>().unwrap_err();
    // From Go's tests: the wrong length and an unknown algorithm, with ids that fit.
    let long = "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==";
    assert!(matches!(refused(long), KeyError::Base64 | KeyError::Length(_)));
    let other = "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert_eq!(refused(other), KeyError::Algorithm(0x65));
    assert_eq!(refused("name+00000000+AQ=="), KeyError::Length(0));
    assert_eq!(refused("name+00000000+"), KeyError::Length(0));
    assert_eq!(refused(&PETER.replace("c74f20a3", "C74F20A3")), KeyError::Id);
    assert!(matches!(refused(&PETER.replace("PeterNeumann", "Peter")), KeyError::IdMismatch { .. }));
    assert_eq!(refused("na me+00000000+AQ=="), KeyError::Length(0));
    assert_eq!(SignerKey::new("na me", &[1; 32]).unwrap_err(), KeyError::Name("na me".to_owned()));
    // The neutral point: signatures by it hold for every text.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    assert_eq!(VerifierKey::new("name", &neutral), Err(KeyError::Weak));
    assert_eq!(VerifierKey::new("name", &[2; 32]), Err(KeyError::NotAPoint));
}

#[test]
fn a_secret_key_is_not_printed() {
    let secret: SignerKey = PETER_SECRET.parse().unwrap();
    let printed = format!("{secret:?}");
    assert!(printed.contains(PETER) && !printed.contains("AYEKFALVFGy"), "{printed}");
}

#[test]
fn the_example_of_the_specification_is_read() {
    let checkpoint: Checkpoint = EXAMPLE.parse().unwrap();
    assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.head().size, 20_852_163);
    let root = "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62";
    assert_eq!(checkpoint.head().root.to_string(), root);
    assert!(checkpoint.extensions().is_empty());
    assert_eq!(checkpoint.to_string(), EXAMPLE);
    let extended = format!("{EXAMPLE}an extension\nanother\n");
    let checkpoint: Checkpoint = extended.parse().unwrap();
    assert_eq!(checkpoint.extensions(), ["an extension", "another"]);
    assert_eq!(checkpoint.to_string(), extended);
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let refused = |text: &str| text.parse::<Checkpoint>().unwrap_err();
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for text in ["", "\n", "log\n1\n", EXAMPLE.trim_end(), &format!("log\n1\n{root}\n\n"), &format!("\n1\n{root}\n")] {
        assert_eq!(refused(text), CheckpointError::Lines, "{text:?}");
    }
    assert_eq!(refused(&format!("log\n1\n{root}\nmore\n\nmore\n")), CheckpointError::Lines);
    assert_eq!(refused(&format!("log\n1\r\n{root}\n")), CheckpointError::Lines);
    for size in ["01", "+1", "-1", "1.0", " 1", "1 ", "0x1", "١", "18446744073709551616", "00"] {
        assert_eq!(refused(&format!("log\n{size}\n{root}\n")), CheckpointError::Size(size.to_owned()));
    }
    let unpadded = root.trim_end_matches('=');
    for root in [unpadded, root.trim_start_matches("CsUY"), &root.replace("I=", "J="), &root.replace('/', "_"), "root"]
    {
        assert_eq!(refused(&format!("log\n1\n{root}\n")), CheckpointError::Root(root.to_owned()));
    }
    assert!(matches!(refused(&format!("log\n0\n{root}\n")), CheckpointError::EmptyRoot(_)));
    let head = TreeHead { size: 0, root: empty_root() };
    assert_eq!(Checkpoint::new("log", head).unwrap().head(), head);
    assert_eq!(Checkpoint::new("", head), Err(CheckpointError::Origin));
    assert_eq!(Checkpoint::new("log\n7", head), Err(CheckpointError::Origin));
}

#[test]
fn a_checkpoint_opens_for_its_key_and_its_log_only() {
    let key = signer("portcullis.example/audit", 7);
    let known = [key.verifier().clone()];
    let head = TreeHead { size: 70_000, root: Hash::new([9; 32]) };
    let checkpoint = Checkpoint::new("portcullis.example/audit", head).unwrap();
    let signed = checkpoint.sign(&key).unwrap().to_string();
    assert_eq!(Checkpoint::open(signed.as_bytes(), &known, "portcullis.example/audit"), Ok(checkpoint));

    let other = Checkpoint::open(signed.as_bytes(), &known, "portcullis.example/other");
    assert!(matches!(other, Err(OpenError::OtherLog { .. })));
    let strangers = [signer("portcullis.example/audit", 8).verifier().clone()];
    let other = Checkpoint::open(signed.as_bytes(), &strangers, "portcullis.example/audit");
    assert!(matches!(other, Err(OpenError::Verify(NoteVerifyError::NoKnownSignature(_)))));
    let letter = SignedNote::sign(TEXT, &key).unwrap().to_string();
    let other = Checkpoint::open(letter.as_bytes(), &known, "portcullis.example/audit");
    assert!(matches!(other, Err(OpenError::Checkpoint(CheckpointError::Lines))));
    assert!(matches!(Checkpoint::open(b"x", &known, "x"), Err(OpenError::Note(NoteError::NoSignatures))));
}

/// Bytes that are nearly a note, so that parsing gets far.
fn nearly_a_note() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"\n"[..]),
        Just(&b"\n\n"[..]),
        Just("— ".as_bytes()),
        Just(&b"name"[..]),
        Just(&b" "[..]),
        Just(&b"+"[..]),
        Just(&b"AAAAAAE="[..]),
        Just(&b"log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"[..]),
        Just(&b"\xE2\x80"[..]),
        Just(&b"PRIVATE+KEY+"[..]),
        Just(&b"00000000"[..]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), nearly_a_note()],
    ) {
        if let Ok(note) = SignedNote::parse(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes.clone());
            let verified = matches!(note.verify(&[verifier(PETER)]), Err(NoteVerifyError::NoKnownSignature(_)));
            prop_assert!(verified);
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text.as_ref());
        }
        if let Ok(key) = text.parse::<VerifierKey>() {
            prop_assert_eq!(key.to_string(), text.as_ref());
        }
        prop_assert!(text.parse::<SignerKey>().is_err());
    }
}

proptest! {
    // Signing and verifying are slow where the crates behind them are not optimized.
    #![proptest_config(ProptestConfig::with_cases(rounds(16, 32)))]

    #[test]
    fn a_note_with_any_bit_flipped_is_not_this_checkpoint(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = SUMDB_NOTE.as_bytes().to_vec();
        // Up to the end of the log's own signature: the witness's is by a key that is not known.
        let end = SUMDB_NOTE.find("— test").unwrap();
        bytes[at.index(end)] ^= 1 << bit;
        prop_assert!(Checkpoint::open(&bytes, &[verifier(SUMDB)], "go.sum database tree").is_err());
    }

    #[test]
    fn what_is_signed_is_read_back(text in "([^\\x00-\\x1f]{0,12}\n){1,6}", seed in any::<[u8; 32]>()) {
        let key = SignerKey::new("example.com/audit", &seed).unwrap();
        let signed = SignedNote::sign(text.clone(), &key).unwrap();
        let read: SignedNote = signed.to_string().parse().unwrap();
        prop_assert_eq!(read.verify(&[key.verifier().clone()]), Ok(text.as_str()));
        let same: SignerKey = key.to_secret_text().parse().unwrap();
        prop_assert_eq!(same.verifier(), key.verifier());
        prop_assert_eq!(&key.verifier().to_string().parse::<VerifierKey>().unwrap(), key.verifier());
    }

    #[test]
    fn checkpoints_are_read_back(size in 1_u64.., root in any::<[u8; 32]>()) {
        let checkpoint = Checkpoint::new("example.com/audit", TreeHead { size, root: Hash::new(root) }).unwrap();
        prop_assert_eq!(checkpoint.to_string().parse::<Checkpoint>(), Ok(checkpoint));
    }
}
