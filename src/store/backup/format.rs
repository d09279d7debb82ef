//! The bytes of a backup's blocks; the module above has them as a table.
//!
//! Invariant: magic and version stay where they are in every later version.
//! Not here: the order of blocks (`pack`, `unpack`).

/// What a backup begins with.
pub(super) const MAGIC: [u8; 8] = *b"PCBACKU\xa7";

/// The version that is written, and the newest that is read.
pub const BACKUP_VERSION: u16 = 1;

/// Magic, version and reserved bytes.
pub(super) const PREFIX_BYTES: usize = 16;

/// Before a block's payload.
pub(super) const BLOCK_HEAD_BYTES: usize = 12;

/// The most bytes of a member in one block.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// What the backup is of.
    Header,
    /// A member begins.
    Member,
    /// Bytes of it.
    Bytes,
    /// It ends.
    MemberEnd,
    /// The backup ends.
    End,
}

/// What a backup is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of the lineage.
    pub lineage: u64,
    /// When it was taken, in microseconds since 1970.
    pub time_micros: i64,
    /// The newest record of the audit log.
    pub audit_sequence: u64,
    /// The newest record of the policy journal.
    pub policy_sequence: u64,
}

impl BlockKind {
    fn code(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Member => 2,
            Self::Bytes => 3,
            Self::MemberEnd => 4,
            Self::End => 5,
        }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::Header, Self::Member, Self::Bytes, Self::MemberEnd, Self::End]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

impl Summary {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { lineage, time_micros, audit_sequence, policy_sequence } = self;
        let mut bytes = lineage.to_le_bytes().to_vec();
        bytes.extend_from_slice(&time_micros.to_le_bytes());
        bytes.extend_from_slice(&audit_sequence.to_le_bytes());
        bytes.extend_from_slice(&policy_sequence.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let ([lineage, time, audit, policy], []) = bytes.as_chunks::<8>() else { return None };
        Some(Self {
            lineage: u64::from_le_bytes(*lineage),
            time_micros: i64::from_le_bytes(*time),
            audit_sequence: u64::from_le_bytes(*audit),
            policy_sequence: u64::from_le_bytes(*policy),
        })
    }
}

/// The first bytes of a backup.
pub(super) fn prefix() -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    let bytes = MAGIC.into_iter().chain(BACKUP_VERSION.to_le_bytes());
    prefix.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    prefix
}

/// Appends a block.
pub(super) fn append_block(out: &mut Vec<u8>, kind: BlockKind, payload: &[u8]) {
    let start = out.len();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&[kind.code(), 0, 0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(out.get(start..).unwrap_or_default()), payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Whether a name may be a member's: a file of the data directory or of one of its three directories of stores.
pub(super) fn is_member(name: &str) -> bool {
    let is_file = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.len() <= 100
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    match name.split_once('/') {
        None => matches!(name, "FORMAT" | "BEGUN" | "LINEAGE" | "audit.pub"),
        Some((directory, file)) => matches!(directory, "policy" | "audit" | "sessions") && is_file(file),
    }
}
