//! Reading the file of a backup, piece by piece as it comes.
//!
//! Invariant: a member is handed out as whole only once its digest was compared, the backup only once that of the file
//! was. Memory is bounded by one block.
//! Not here: where the members go.

use sha2::{Digest, Sha256};

use super::error::BackupError;
use super::format::{
    BACKUP_VERSION, BLOCK_HEAD_BYTES, BlockKind, MAGIC, PIECE_BYTES, PREFIX_BYTES, Summary, is_member,
};

/// Takes the members of a backup.
pub trait Members {
    /// A member begins; its name is below the data directory.
    fn begin(&mut self, name: &str) -> Result<(), BackupError>;

    /// Bytes of it.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), BackupError>;

    /// It is whole.
    fn end(&mut self) -> Result<(), BackupError>;
}

/// Members that nobody wants, of a backup that is only to be checked.
impl Members for () {
    fn begin(&mut self, _: &str) -> Result<(), BackupError> {
        Ok(())
    }

    fn bytes(&mut self, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), BackupError> {
        Ok(())
    }
}

/// Reads a backup that is pushed into it.
#[derive(Debug)]
pub struct Unpacker<M> {
    members: M,
    /// What has come; the bytes before `start` are taken.
    pending: Vec<u8>,
    start: usize,
    /// How many bytes were taken.
    offset: u64,
    digest: Sha256,
    summary: Option<Summary>,
    member: Option<Member>,
    count: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Prefix,
    Blocks,
    Ended,
}

/// The member that is being read.
#[derive(Debug)]
struct Member {
    bytes: u64,
    digest: Sha256,
}

impl<M: Members> Unpacker<M> {
    /// A reader at the beginning of a backup.
    pub fn new(members: M) -> Self {
        Self {
            members,
            pending: Vec::new(),
            start: 0,
            offset: 0,
            digest: Sha256::new(),
            summary: None,
            member: None,
            count: 0,
            state: State::Prefix,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.pending.extend_from_slice(bytes);
        while self.take_one()? {}
        self.pending.drain(..self.start);
        self.start = 0;
        Ok(())
    }

    /// What the backup is of, and whoever took its members, once it is whole; and its size in bytes.
    pub fn finish(self) -> Result<(Summary, u64, M), BackupError> {
        match self.summary {
            Some(summary) if self.state == State::Ended => Ok((summary, self.offset, self.members)),
            _ => Err(BackupError::CutOff { bytes: self.offset + self.rest().len() as u64 }),
        }
    }

    fn rest(&self) -> &[u8] {
        self.pending.get(self.start..).unwrap_or_default()
    }

    /// Takes the prefix or a block; false where it has not come whole yet.
    fn take_one(&mut self) -> Result<bool, BackupError> {
        match self.state {
            State::Prefix => self.take_prefix(),
            State::Blocks => self.take_block(),
            State::Ended if self.rest().is_empty() => Ok(false),
            State::Ended => Err(self.damaged("there is more behind its end")),
        }
    }

    fn take_prefix(&mut self) -> Result<bool, BackupError> {
        let shown = self.rest().len().min(MAGIC.len());
        if self.rest().get(..shown) != MAGIC.get(..shown) {
            return Err(BackupError::Foreign);
        }
        let Some(prefix) = self.rest().first_chunk::<PREFIX_BYTES>() else { return Ok(false) };
        let [_, _, _, _, _, _, _, _, low, high, rest @ ..] = *prefix;
        let version = u16::from_le_bytes([low, high]);
        if version > BACKUP_VERSION {
            return Err(BackupError::Newer { version });
        }
        if version == 0 || rest != [0; 6] {
            return Err(self.damaged("its prefix does not match"));
        }
        self.state = State::Blocks;
        self.consume(PREFIX_BYTES);
        Ok(true)
    }

    fn take_block(&mut self) -> Result<bool, BackupError> {
        let Some(head) = self.rest().first_chunk::<BLOCK_HEAD_BYTES>() else { return Ok(false) };
        let [code, reserved @ .., l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let kind = BlockKind::of(code).filter(|_| reserved == [0; 3] && length <= PIECE_BYTES);
        let Some(kind) = kind else { return Err(self.damaged("a block's head does not match")) };
        let end = BLOCK_HEAD_BYTES + length;
        let Some(payload) = self.rest().get(BLOCK_HEAD_BYTES..end) else { return Ok(false) };
        let covered = crc32c::crc32c(head.get(..BLOCK_HEAD_BYTES - 4).unwrap_or_default());
        if crc32c::crc32c_append(covered, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(self.damaged("a block's checksum does not match"));
        }
        let payload = payload.to_vec();
        self.block(kind, &payload)?;
        self.consume(end);
        Ok(true)
    }

    fn block(&mut self, kind: BlockKind, payload: &[u8]) -> Result<(), BackupError> {
        if (kind == BlockKind::Header) == self.summary.is_some() {
            return Err(self.damaged("its blocks are out of order"));
        }
        match (kind, self.member.take()) {
            (BlockKind::Header, None) => {
                self.summary = Some(Summary::decode(payload).ok_or_else(|| self.damaged("its header does not match"))?);
            }
            (BlockKind::Member, None) => {
                let name = std::str::from_utf8(payload).ok().filter(|name| is_member(name));
                let name = name.ok_or_else(|| self.damaged("it has a member with a name that no store has"))?;
                self.members.begin(name)?;
                self.count += 1;
                self.member = Some(Member { bytes: 0, digest: Sha256::new() });
            }
            (BlockKind::Bytes, Some(mut member)) => {
                member.bytes += payload.len() as u64;
                member.digest.update(payload);
                self.members.bytes(payload)?;
                self.member = Some(member);
            }
            (BlockKind::MemberEnd, Some(member)) => {
                let mut expected = member.bytes.to_le_bytes().to_vec();
                expected.extend_from_slice(&member.digest.finalize());
                if payload != expected {
                    return Err(self.damaged("a member is not what was packed"));
                }
                self.members.end()?;
            }
            (BlockKind::End, None) => {
                let mut expected = self.count.to_le_bytes().to_vec();
                expected.extend_from_slice(&self.digest.clone().finalize());
                if payload != expected {
                    return Err(self.damaged("the whole is not what was packed"));
                }
                self.state = State::Ended;
            }
            _ => return Err(self.damaged("its blocks are out of order")),
        }
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        let taken = self.pending.get(self.start..self.start + count).unwrap_or_default();
        self.digest.update(taken);
        self.offset += count as u64;
        self.start += count;
    }

    fn damaged(&self, detail: &str) -> BackupError {
        BackupError::Damaged { offset: self.offset, detail: detail.to_owned() }
    }
}
