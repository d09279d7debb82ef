//! Making the file of a backup.
//!
//! Invariant: memory is bounded by one piece, however large a member is.
//! Not here: what is in it (`stage`).

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{BackupError, io_error};
use super::format::{self, BlockKind, PIECE_BYTES, append_block};
use super::{Content, Member, Staged};

/// Why packing ended early: the backup cannot be read, or whoever takes the bytes takes no more.
#[derive(Debug)]
pub enum Interrupted<E = Infallible> {
    /// A file cannot be read.
    Failed(BackupError),
    /// The taker has ended.
    Taker(E),
}

impl<E> From<BackupError> for Interrupted<E> {
    fn from(error: BackupError) -> Self {
        Self::Failed(error)
    }
}

/// Hands out the bytes of the file, in pieces of about 256 KiB.
pub fn pack<E>(staged: &Staged, take: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), Interrupted<E>> {
    let mut out = Out { bytes: format::prefix().to_vec(), digest: Sha256::new(), take };
    append_block(&mut out.bytes, BlockKind::Header, &staged.summary.encode());
    for member in &staged.members {
        put_member(&mut out, member)?;
    }
    let Out { bytes, mut digest, take } = out;
    digest.update(&bytes);
    let mut end = (staged.members.len() as u64).to_le_bytes().to_vec();
    end.extend_from_slice(&digest.finalize());
    let mut bytes = bytes;
    append_block(&mut bytes, BlockKind::End, &end);
    take(bytes).map_err(Interrupted::Taker)
}

/// What is packed and not handed out yet.
struct Out<'a, E> {
    bytes: Vec<u8>,
    /// Of all that was handed out.
    digest: Sha256,
    take: &'a mut dyn FnMut(Vec<u8>) -> Result<(), E>,
}

impl<E> Out<'_, E> {
    fn put(&mut self, kind: BlockKind, payload: &[u8]) -> Result<(), Interrupted<E>> {
        append_block(&mut self.bytes, kind, payload);
        if self.bytes.len() >= PIECE_BYTES {
            let bytes = std::mem::take(&mut self.bytes);
            self.digest.update(&bytes);
            (self.take)(bytes).map_err(Interrupted::Taker)?;
        }
        Ok(())
    }
}

fn put_member<E>(out: &mut Out<'_, E>, member: &Member) -> Result<(), Interrupted<E>> {
    out.put(BlockKind::Member, member.name.as_bytes())?;
    let mut digest = Sha256::new();
    let length = match &member.content {
        Content::Text(text) => {
            for piece in text.chunks(PIECE_BYTES) {
                digest.update(piece);
                out.put(BlockKind::Bytes, piece)?;
            }
            text.len() as u64
        }
        Content::File { path, bytes } => {
            let file = File::open(path).map_err(|error| io_error("open", path, error))?;
            let mut offset = 0;
            while offset < *bytes {
                let piece = read(&file, path, offset, *bytes)?;
                digest.update(&piece);
                out.put(BlockKind::Bytes, &piece)?;
                offset += piece.len() as u64;
            }
            *bytes
        }
    };
    let mut end = length.to_le_bytes().to_vec();
    end.extend_from_slice(&digest.finalize());
    out.put(BlockKind::MemberEnd, &end)
}

fn read(file: &File, path: &Path, offset: u64, end: u64) -> Result<Vec<u8>, BackupError> {
    let left = usize::try_from(end - offset).unwrap_or(PIECE_BYTES);
    let mut piece = vec![0; left.min(PIECE_BYTES)];
    file.read_exact_at(&mut piece, offset).map_err(|error| io_error("read", path, error))?;
    Ok(piece)
}
