//! Signed notes: a text and who signed it, as other people's tools read and verify them (C2SP signed-note, Ed25519).
//!
//! Invariant: a note's text leaves this module only after a signature by a known key was found valid and none by a
//! known key invalid; signatures by unknown keys are ignored.
//! Not here: what the text of a log's note says (`checkpoint`), where keys are kept and new ones drawn.

mod key;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

pub use key::{KeyError, KeyId, SignerKey, VerifierKey};

/// The most bytes that a note may have.
pub const NOTE_BYTES_MAX: usize = 1024 * 1024;

/// The most signatures that a note may have.
pub const NOTE_SIGNATURES_MAX: usize = 100;

/// What a signature line begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "— ";

/// A text with signatures, of which nothing is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// Ends with a newline.
    text: String,
    /// At least one.
    signatures: Vec<Signature>,
}

/// What a signature line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    id: KeyId,
    /// At least one byte; 64 with Ed25519.
    bytes: Vec<u8>,
}

/// Why bytes are no signed note, or a text cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// Too large to be a note.
    #[error("the note has {0} bytes: {NOTE_BYTES_MAX} at most, check that it is the right file")]
    TooLong(usize),
    /// Not a text.
    #[error("the note is not valid UTF-8 at byte {0}: copy it unchanged")]
    NotUtf8(usize),
    /// Control characters could hide what is signed.
    #[error("the note has a control character at byte {0}: copy it unchanged, with lines ended by a newline only")]
    ControlCharacter(usize),
    /// The text is not a sequence of lines.
    #[error("the text does not end with a newline: add one before it is signed")]
    TextUnterminated,
    /// There is no blank line with signatures behind it.
    #[error("the note has no signatures behind a blank line: copy it whole")]
    NoSignatures,
    /// The last line is cut off.
    #[error("the note does not end with a newline: copy it whole")]
    Unterminated,
    /// More signatures than anybody should verify.
    #[error("the note has more than {NOTE_SIGNATURES_MAX} signatures: remove those of keys that you do not know")]
    TooManySignatures,
    /// A line behind the text that is no signature.
    #[error("signature {0} is not `— NAME BASE64`: copy the line unchanged")]
    MalformedSignature(usize),
}

/// Why a note is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteVerifyError {
    /// No known key has signed.
    #[error("the note is not signed by any known key: give the key of one that signed it ({0})")]
    NoKnownSignature(String),
    /// A known key did not sign this text.
    #[error("the signature by `{name}+{id}` is invalid: the text was changed or the signature is forged")]
    InvalidSignature {
        /// Name of the key.
        name: String,
        /// Id of the key.
        id: KeyId,
    },
    /// Two different known keys claim the same signature.
    #[error("two different keys are known as `{name}+{id}`: remove one")]
    AmbiguousKey {
        /// Name of the keys.
        name: String,
        /// Id of the keys.
        id: KeyId,
    },
}

impl Signature {
    /// Name of the key that claims to have signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key that claims to have signed.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl SignedNote {
    /// Signs a text of whole lines.
    pub fn sign(text: impl Into<String>, signer: &SignerKey) -> Result<Self, NoteError> {
        let text = text.into();
        check_characters(text.as_bytes())?;
        if !text.ends_with('\n') {
            return Err(NoteError::TextUnterminated);
        }
        let signatures = vec![signature_by(signer, &text)];
        Self { text, signatures }.within_limits()
    }

    /// The same note, signed by another key too. A signature that the key gave before is replaced.
    pub fn cosign(mut self, signer: &SignerKey) -> Result<Self, NoteError> {
        let added = signature_by(signer, &self.text);
        self.signatures.retain(|signature| signature.name != added.name || signature.id != added.id);
        self.signatures.push(added);
        self.within_limits()
    }

    /// The note, when others would accept it back.
    fn within_limits(self) -> Result<Self, NoteError> {
        match self.to_string().len() {
            _ if self.signatures.len() > NOTE_SIGNATURES_MAX => Err(NoteError::TooManySignatures),
            length if length > NOTE_BYTES_MAX => Err(NoteError::TooLong(length)),
            _ => Ok(self),
        }
    }

    /// Reads a note; whether to trust it is for [`SignedNote::verify`] to say.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let note = check_characters(bytes)?;
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::NoSignatures)?;
        if lines.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Unterminated)?;
        let mut signatures = Vec::new();
        for (index, line) in lines.split('\n').enumerate() {
            if index == NOTE_SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(parse_signature(line).ok_or(NoteError::MalformedSignature(index + 1))?);
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// The text, when at least one of the `known` keys has signed it and no signature by any of them is invalid.
    pub fn verify(&self, known: &[VerifierKey]) -> Result<&str, NoteVerifyError> {
        let mut verified = false;
        for Signature { name, id, bytes } in &self.signatures {
            let mut keys = known.iter().filter(|key| key.name() == name && key.id() == *id);
            let Some(key) = keys.next() else { continue };
            if keys.any(|other| other != key) {
                return Err(NoteVerifyError::AmbiguousKey { name: name.clone(), id: *id });
            }
            if !key.verify(self.text.as_bytes(), bytes) {
                return Err(NoteVerifyError::InvalidSignature { name: name.clone(), id: *id });
            }
            verified = true;
        }
        if verified { Ok(&self.text) } else { Err(NoteVerifyError::NoKnownSignature(self.names())) }
    }

    /// Who claims to have signed.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The first few keys that claim to have signed, for a message.
    fn names(&self) -> String {
        let shown = self.signatures.iter().take(3).map(|Signature { name, id, bytes: _ }| {
            let name: String = name.chars().take(64).collect();
            format!("`{name}+{id}`")
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        Self::parse(note.as_bytes())
    }
}

impl fmt::Display for SignedNote {
    /// The note as it is stored and sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|Signature { name, id, bytes }| {
            let signature = [id.as_bytes(), bytes.as_slice()].concat();
            writeln!(f, "{SIGNATURE_PREFIX}{name} {}", BASE64.encode(signature))
        })
    }
}

fn signature_by(signer: &SignerKey, text: &str) -> Signature {
    let key = signer.verifier();
    Signature { name: key.name().to_owned(), id: key.id(), bytes: signer.sign(text.as_bytes()).to_vec() }
}

/// The bytes as text, when they are one that a note may consist of.
fn check_characters(bytes: &[u8]) -> Result<&str, NoteError> {
    if bytes.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLong(bytes.len()));
    }
    if let Some(at) = bytes.iter().position(|&byte| byte < b' ' && byte != b'\n') {
        return Err(NoteError::ControlCharacter(at));
    }
    std::str::from_utf8(bytes).map_err(|error| NoteError::NotUtf8(error.valid_up_to()))
}

/// A line `— NAME BASE64(id ‖ signature)`.
fn parse_signature(line: &str) -> Option<Signature> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    let decoded = BASE64.decode(encoded).ok()?;
    let (id, bytes) = decoded.split_first_chunk()?;
    let well_formed = key::is_name(name) && !bytes.is_empty();
    well_formed.then(|| Signature { name: name.to_owned(), id: KeyId::new(*id), bytes: bytes.to_vec() })
}
