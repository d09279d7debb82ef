//! Checkpoints: the log's size and root as the text of a signed note (C2SP tlog-checkpoint).
//!
//! ```text
//! portcullis.example/audit                        which log
//! 20852163                                        how many records
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root over them
//! …                                               extension lines, of which this service writes none
//! ```
//!
//! Invariant: one checkpoint, one text: what parses prints as the same bytes. A checkpoint of no records has the empty
//! root.
//! Not here: signature lines and keys (`note`); when a checkpoint is made and where it goes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use super::merkle::{Hash, TreeHead, empty_root};
use super::note::{NoteError, NoteVerifyError, SignedNote, SignerKey, VerifierKey};

/// What a log was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    extensions: Vec<String>,
}

/// Why a text is not a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The text is truncated, or has empty lines.
    #[error("a checkpoint is at least three lines, none of them empty and each ended by a newline: copy it whole")]
    Lines,
    /// The origin would not be one line of a note.
    #[error("the origin is empty or has control characters: give a name such as `example.com/audit`")]
    Origin,
    /// The second line is no size.
    #[error("`{0}` is no tree size: it is a decimal number without sign or leading zeros, below 2⁶⁴")]
    Size(String),
    /// The third line is no root.
    #[error("`{0}` is no root hash: it is 32 bytes in base64")]
    Root(String),
    /// No log has this root.
    #[error("the root of a log without records is {expected}, not {0}: do not trust the checkpoint", expected = empty_root())]
    EmptyRoot(Hash),
}

/// Why a note is not a checkpoint of a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Nobody to be trusted signed it.
    #[error(transparent)]
    Verify(#[from] NoteVerifyError),
    /// A trusted note that is not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint of another log.
    #[error("the checkpoint is of `{found}`, not of `{expected}`: give one of this log")]
    OtherLog {
        /// Whose it is.
        found: String,
        /// Whose was wanted.
        expected: String,
    },
}

impl Checkpoint {
    /// The checkpoint of the log `origin`. Its signer's name should be the same.
    pub fn new(origin: &str, head: TreeHead) -> Result<Self, CheckpointError> {
        if origin.is_empty() || origin.contains(|c: char| c < ' ') {
            return Err(CheckpointError::Origin);
        }
        if head.size == 0 && head.root != empty_root() {
            return Err(CheckpointError::EmptyRoot(head.root));
        }
        Ok(Self { origin: origin.to_owned(), head, extensions: Vec::new() })
    }

    /// Reads the checkpoint of the log `origin` from a signed note, trusting the `known` keys only.
    pub fn open(note: &[u8], known: &[VerifierKey], origin: &str) -> Result<Self, OpenError> {
        let checkpoint: Self = SignedNote::parse(note)?.verify(known)?.parse()?;
        if checkpoint.origin == origin {
            Ok(checkpoint)
        } else {
            Err(OpenError::OtherLog { found: checkpoint.origin, expected: origin.to_owned() })
        }
    }

    /// The checkpoint as a note. Print it to store it or send it.
    pub fn sign(&self, signer: &SignerKey) -> Result<SignedNote, NoteError> {
        SignedNote::sign(self.to_string(), signer)
    }

    /// Which log this is of.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How large the log was, and its root.
    pub fn head(&self) -> TreeHead {
        self.head
    }

    /// Lines behind the root, whose meaning is not known here.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n').collect();
        let [origin, size, root, extensions @ ..] = lines.as_slice() else { return Err(CheckpointError::Lines) };
        if lines.iter().any(|line| line.is_empty() || line.contains(|c: char| c < ' ')) {
            return Err(CheckpointError::Lines);
        }
        let mut checkpoint = Self::new(origin, TreeHead { size: parse_size(size)?, root: parse_root(root)? })?;
        checkpoint.extensions = extensions.iter().map(|&line| line.to_owned()).collect();
        Ok(checkpoint)
    }
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, head: TreeHead { size, root }, extensions } = self;
        writeln!(f, "{origin}\n{size}\n{}", BASE64.encode(root.as_bytes()))?;
        extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn parse_size(text: &str) -> Result<u64, CheckpointError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or_else(|| CheckpointError::Size(text.chars().take(64).collect()))
}

fn parse_root(text: &str) -> Result<Hash, CheckpointError> {
    let decoded = BASE64.decode(text).ok();
    let root = decoded.and_then(|bytes| Hash::try_from(bytes.as_slice()).ok());
    root.ok_or_else(|| CheckpointError::Root(text.chars().take(64).collect()))
}
