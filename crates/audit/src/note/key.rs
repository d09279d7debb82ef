//! The keys of signed notes, and their text forms, which are those of Go's `sumdb/note`.
//!
//! * A verifier key is `NAME+ID+BASE64(0x01 ‖ public key)`.
//! * A signer key is `PRIVATE+KEY+NAME+ID+BASE64(0x01 ‖ seed)`: the 32 bytes that RFC 8032 derives the key from.
//! * ID is 8 lowercase hexadecimal digits: the first 4 bytes of SHA-256(NAME ‖ 0x0A ‖ 0x01 ‖ public key).
//!
//! Invariant: a key that exists has a valid name, an id that fits it, and a public key that not everybody can sign for.
//! Not here: notes, files, randomness.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{SECRET_KEY_LENGTH, Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The signature type Ed25519 of the specification.
const ED25519: u8 = 0x01;

/// What a signer key's text begins with.
const SIGNER_PREFIX: &str = "PRIVATE+KEY+";

/// Tells the keys of one name apart; no protection by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

/// What verifies signatures: a name, and the public key that it stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: KeyId,
    public: VerifyingKey,
}

/// What signs: the secret half. Its text form is a secret too.
#[derive(Clone)]
pub struct SignerKey {
    secret: SigningKey,
    verifier: VerifierKey,
}

/// Why a text is no key. Never quotes a text that may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The name cannot stand in a signature line.
    #[error("`{0}` is no key name: give one without spaces, control characters and `+`, such as `example.com/audit`")]
    Name(String),
    /// Not the three parts of a verifier key.
    #[error("a verifier key is `NAME+ID+KEY`: copy it whole")]
    VerifierShape,
    /// Not the five parts of a signer key.
    #[error("a signer key is `PRIVATE+KEY+NAME+ID+KEY`: copy it whole")]
    SignerShape,
    /// The id is no id.
    #[error("the key id is not 8 lowercase hexadecimal digits: copy the key unchanged")]
    Id,
    /// The last part is not base64.
    #[error("the last part of the key is not base64: copy the key unchanged")]
    Base64,
    /// The key is of a kind that is not supported.
    #[error("the key has algorithm {0}: give an Ed25519 key (algorithm 1)")]
    Algorithm(u8),
    /// The key has the wrong length.
    #[error("the key has {0} bytes instead of 32 behind its algorithm: copy it whole")]
    Length(usize),
    /// The bytes are no public key.
    #[error("the public key is no point of the curve: copy the key unchanged")]
    NotAPoint,
    /// A key under which signatures hold for any text.
    #[error("the public key is weak, anybody can sign for it: make another key")]
    Weak,
    /// Name, id and key do not belong together.
    #[error("the key id is {given}, but name and key make it {computed}: copy the key unchanged")]
    IdMismatch {
        /// What was given.
        given: KeyId,
        /// What fits.
        computed: KeyId,
    },
}

impl KeyId {
    pub(super) const fn new(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// Its bytes, as they stand before a signature.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let plain = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = u32::from_str_radix(text, 16).ok().filter(|_| plain).ok_or(KeyError::Id)?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl VerifierKey {
    /// The key of that name and 32-byte public key.
    pub fn new(name: &str, public: &[u8; 32]) -> Result<Self, KeyError> {
        Self::named(name, VerifyingKey::from_bytes(public).map_err(|_| KeyError::NotAPoint)?)
    }

    fn named(name: &str, public: VerifyingKey) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name(name.chars().take(64).collect()));
        }
        if public.is_weak() {
            return Err(KeyError::Weak);
        }
        let hashed = Sha256::new_with_prefix(name).chain_update([b'\n', ED25519]).chain_update(public).finalize();
        let [first, second, third, fourth, ..]: [u8; 32] = hashed.into();
        Ok(Self { name: name.to_owned(), id: KeyId([first, second, third, fourth]), public })
    }

    /// Its name: the log's or witness's identity.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether `signature` is this key's over `text`.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.public.verify_strict(text, &signature).is_ok())
    }
}

impl SignerKey {
    /// The key of that name and secret seed, which has to be random.
    pub fn new(name: &str, seed: &[u8; SECRET_KEY_LENGTH]) -> Result<Self, KeyError> {
        let secret = SigningKey::from_bytes(seed);
        let verifier = VerifierKey::named(name, secret.verifying_key())?;
        Ok(Self { secret, verifier })
    }

    /// The half that others get.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The text form. Everybody who has it can sign in this name.
    pub fn to_secret_text(&self) -> String {
        let VerifierKey { name, id, public: _ } = &self.verifier;
        format!("{SIGNER_PREFIX}{name}+{id}+{}", encode(self.secret.as_bytes()))
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.secret.sign(text).to_bytes()
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, rest) = text.split_once('+').ok_or(KeyError::VerifierShape)?;
        let (id, key) = rest.split_once('+').ok_or(KeyError::VerifierShape)?;
        let given = id.parse()?;
        let key = Self::new(name, &decode(key)?)?;
        check_id(given, key.id)?;
        Ok(key)
    }
}

impl FromStr for SignerKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix(SIGNER_PREFIX).ok_or(KeyError::SignerShape)?;
        let (name, rest) = rest.split_once('+').ok_or(KeyError::SignerShape)?;
        let (id, seed) = rest.split_once('+').ok_or(KeyError::SignerShape)?;
        let given = id.parse()?;
        let key = Self::new(name, &decode(seed)?)?;
        check_id(given, key.verifier.id)?;
        Ok(key)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, self.id, encode(self.public.as_bytes()))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SignerKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerKey").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

/// Whether a name can stand in a signature line and in a key.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c < ' ' || c == '+')
}

fn check_id(given: KeyId, computed: KeyId) -> Result<(), KeyError> {
    if given == computed { Ok(()) } else { Err(KeyError::IdMismatch { given, computed }) }
}

/// The last part of a key's text.
fn encode(key: &[u8; 32]) -> String {
    BASE64.encode([[ED25519].as_slice(), key].concat())
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let decoded = BASE64.decode(text).map_err(|_| KeyError::Base64)?;
    match decoded.split_first() {
        Some((&ED25519, key)) => key.try_into().map_err(|_| KeyError::Length(key.len())),
        Some((&algorithm, _)) => Err(KeyError::Algorithm(algorithm)),
        None => Err(KeyError::Length(0)),
    }
}
