//! The openings of personal data that a unit's records refer to.
//!
//! ```text
//! header         64   magic "PCAUDPI" 0xA7; count is that of the slots; its own bytes: key of the email index (16)
//! blocks              of 256 slots each: for every slot that is not erased its salt (16); then packed (see `bytes`), for
//!                     each slot: 0 and the commitment (32), or 1, the address's length (1) and octets, the scope and the
//!                     email, each behind its length (varint); crc32c (4)
//! email index         for each slot with an email: the first 4 bytes of SHA-256(key ‖ email), the slot (4); ascending;
//!                     crc32c (4)
//! block table         for each block: its bytes (4), its salts (4); crc32c (4)
//! footer         16   bytes of email index (4) and block table (4), crc32c (4), magic at the end (4) "PCPE"
//! ```
//!
//! Invariant: after an erasure nothing of what was erased is in the file, nor in any other that this module wrote.
//! Not here: what is erased and on which record; commitments are the caller's.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::super::disk::Disk;
use super::bytes::{put_counted, put_packed, take, take_bytes, take_counted, unpack};
use super::error::SealedError;
use super::file::{CHECKSUM_BYTES, HEADER_BYTES, Header, OWN_BYTES, Part, Seed, UnitFile};
use crate::locks::IgnorePoison;

const OPENINGS_MAGIC: [u8; 8] = *b"PCAUDPI\xa7";
const END_MAGIC: [u8; 4] = *b"PCPE";
const FOOTER_BYTES: usize = 16;
const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
pub(super) const COMMITMENT_BYTES: usize = 32;
const BLOCK_SLOTS: usize = 256;
const COMPRESSION_LEVEL: i32 = 6;

/// An opening as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredOpening {
    /// It is there.
    Present {
        /// What hides it.
        salt: [u8; SALT_BYTES],
        /// The email of a user, or the name of an actor.
        email: String,
        /// The user's address in 4 or 16 bytes; empty for an actor.
        address: Vec<u8>,
        /// The organization's id; empty where it belongs to none.
        scope: String,
    },
    /// It was erased.
    Erased {
        /// What it opened.
        commitment: [u8; COMMITMENT_BYTES],
    },
}

impl std::fmt::Debug for StoredOpening {
    /// Without personal data, which must not get into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Present { .. } => "Present",
            Self::Erased { .. } => "Erased",
        })
    }
}

type Block = Arc<Vec<StoredOpening>>;

/// Hash of the email and slot, ascending.
type EmailIndex = Vec<([u8; 4], u32)>;

/// The openings of a unit, open for reading.
#[derive(Debug)]
pub struct Openings {
    file: UnitFile,
    seed: Seed,
    key: [u8; KEY_BYTES],
    count: usize,
    /// Of each block: offset, bytes with checksum, salts.
    blocks: Vec<(u64, usize, usize)>,
    /// Where the index of emails is.
    email_index: (u64, usize),
    /// What was read so far.
    emails: Mutex<Option<Arc<EmailIndex>>>,
    read: Mutex<HashMap<usize, Block>>,
}

impl Openings {
    /// Opens the openings of the unit that begins with `first_sequence`.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, first_sequence: u64) -> Result<Self, SealedError> {
        let file = UnitFile::open(disk, path, first_sequence)?;
        let (Header { count, own, .. }, seed) = file.read_header(OPENINGS_MAGIC)?;
        let damaged = || file.damaged(file.bytes, "its end does not match");
        let footer_offset = file.bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(damaged)?;
        let footer = file.read(footer_offset, FOOTER_BYTES)?;
        let footer = footer.strip_suffix(&END_MAGIC).and_then(|sealed| seed.open(sealed, Part::Footer, 0));
        let mut footer = footer.ok_or_else(damaged)?;
        let mut size = || take(&mut footer).map(u32::from_le_bytes).ok_or_else(damaged);
        let (index_bytes, table_bytes) = (size()? as usize, size()? as usize);
        let table_offset = footer_offset.checked_sub(table_bytes as u64).ok_or_else(damaged)?;
        let index_offset = table_offset.checked_sub(index_bytes as u64).ok_or_else(damaged)?;
        let detail = "the table of its blocks does not match";
        let table = file.read_part(seed, (table_offset, table_bytes), (Part::BlockTable, 0), detail)?;
        let (mut blocks, mut offset) = (Vec::new(), HEADER_BYTES as u64);
        for [a, b, c, d, e, f, g, h] in table.as_chunks::<8>().0 {
            let bytes = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            blocks.push((offset, bytes, u32::from_le_bytes([*e, *f, *g, *h]) as usize));
            offset += bytes as u64;
        }
        let count = count as usize;
        if offset != index_offset || blocks.len() != count.div_ceil(BLOCK_SLOTS) {
            return Err(file.damaged(table_offset, detail));
        }
        let key = own.first_chunk().copied().unwrap_or_default();
        let email_index = (index_offset, index_bytes);
        Ok(Self { file, seed, key, count, blocks, email_index, emails: Mutex::default(), read: Mutex::default() })
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An opening; none where there is no such slot.
    pub fn get(&self, slot: u32) -> Result<Option<StoredOpening>, SealedError> {
        let slot = slot as usize;
        if slot >= self.count {
            return Ok(None);
        }
        Ok(self.block(slot / BLOCK_SLOTS)?.get(slot % BLOCK_SLOTS).cloned())
    }

    /// The slots of an email, in a scope or in all.
    pub fn slots_of_email(&self, scope: Option<&str>, email: &str) -> Result<Vec<u32>, SealedError> {
        let hash = email_hash(&self.key, email);
        let emails = self.emails()?;
        let first = emails.partition_point(|(found, _)| *found < hash);
        let mut slots = Vec::new();
        for (_, slot) in emails.iter().skip(first).take_while(|(found, _)| *found == hash) {
            if let Some(StoredOpening::Present { email: found, scope: of, .. }) = self.get(*slot)?
                && found == email
                && scope.is_none_or(|scope| scope == of)
            {
                slots.push(*slot);
            }
        }
        slots.sort_unstable();
        Ok(slots)
    }

    /// The slots in a scope, or in all, whose address is in one of the ranges. A range is its first and last address:
    /// octets in network order, as many as the family has.
    pub fn slots_in_range(&self, scope: Option<&str>, ranges: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u32>, SealedError> {
        let mut slots = Vec::new();
        for number in 0..self.blocks.len() {
            for (index, opening) in self.block(number)?.iter().enumerate() {
                let StoredOpening::Present { address, scope: of, .. } = opening else { continue };
                let inside = |(first, last): &(Vec<u8>, Vec<u8>)| {
                    address.len() == first.len() && first <= address && address <= last
                };
                if scope.is_none_or(|scope| scope == of) && ranges.iter().any(inside) {
                    slots.push(u32::try_from(number * BLOCK_SLOTS + index).unwrap_or(u32::MAX));
                }
            }
        }
        Ok(slots)
    }

    /// Reads everything, and says where something is not as it was written.
    pub fn verify_bytes(&self) -> Result<(), SealedError> {
        let mut expected = EmailIndex::new();
        for number in 0..self.blocks.len() {
            for (index, opening) in self.read_block(number)?.iter().enumerate() {
                if let StoredOpening::Present { email, .. } = opening {
                    let slot = u32::try_from(number * BLOCK_SLOTS + index).unwrap_or(u32::MAX);
                    expected.push((email_hash(&self.key, email), slot));
                }
            }
        }
        expected.sort_unstable();
        // An index that leaves somebody out can have a matching checksum, too, so compare the content.
        if self.read_emails()? == expected {
            return Ok(());
        }
        Err(self.file.damaged(self.email_index.0, "the index of its emails does not fit them"))
    }

    /// All openings, by slot.
    pub(super) fn read_all(&self) -> Result<Vec<StoredOpening>, SealedError> {
        let mut openings = Vec::with_capacity(self.count);
        for number in 0..self.blocks.len() {
            openings.extend(self.read_block(number)?);
        }
        Ok(openings)
    }

    fn emails(&self) -> Result<Arc<EmailIndex>, SealedError> {
        let mut read = self.emails.lock().ignore_poison();
        if let Some(emails) = &*read {
            return Ok(Arc::clone(emails));
        }
        let emails = Arc::new(self.read_emails()?);
        *read = Some(Arc::clone(&emails));
        Ok(emails)
    }

    fn read_emails(&self) -> Result<EmailIndex, SealedError> {
        let detail = "the index of its emails does not match";
        let index = self.file.read_part(self.seed, self.email_index, (Part::EmailIndex, 0), detail)?;
        let emails = index.as_chunks::<8>().0.iter();
        Ok(emails.map(|[a, b, c, d, slot @ ..]| ([*a, *b, *c, *d], u32::from_le_bytes(*slot))).collect())
    }

    fn block(&self, number: usize) -> Result<Block, SealedError> {
        if let Some(block) = self.read.lock().ignore_poison().get(&number) {
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(self.read_block(number)?);
        self.read.lock().ignore_poison().insert(number, Arc::clone(&block));
        Ok(block)
    }

    fn read_block(&self, number: usize) -> Result<Vec<StoredOpening>, SealedError> {
        let detail = "personal data does not match";
        let Some((offset, bytes, salts)) = self.blocks.get(number).copied() else { return Ok(Vec::new()) };
        let block = self.file.read_part(self.seed, (offset, bytes), (Part::Names, number), detail)?;
        let expected = self.count.saturating_sub(number * BLOCK_SLOTS).min(BLOCK_SLOTS);
        let openings = decode_block(&block, salts).filter(|openings| openings.len() == expected);
        openings.ok_or_else(|| self.file.damaged(offset, detail))
    }
}

/// The bytes of the file of a unit's openings.
pub(super) fn encode_openings(first_sequence: u64, openings: &[StoredOpening]) -> std::io::Result<Vec<u8>> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    let mut own = [0; OWN_BYTES];
    own.iter_mut().zip(key).for_each(|(to, from)| *to = from);
    let count = u32::try_from(openings.len()).unwrap_or(u32::MAX);
    let (mut file, seed) = Header { magic: OPENINGS_MAGIC, count, first_sequence, own }.encode();
    let (mut table, mut emails) = (Vec::new(), Vec::new());
    for (number, block) in openings.chunks(BLOCK_SLOTS).enumerate() {
        let start = file.len();
        let salts = encode_block(&mut file, block)?;
        seed.seal(&mut file, start, Part::Names, number);
        let bytes = u32::try_from(file.len() - start).unwrap_or(u32::MAX);
        table.extend([bytes, salts].iter().flat_map(|number| number.to_le_bytes()));
    }
    for (slot, opening) in (0_u32..).zip(openings) {
        if let StoredOpening::Present { email, .. } = opening {
            emails.push((email_hash(&key, email), slot));
        }
    }
    emails.sort_unstable();
    let mut index = Vec::new();
    for (hash, slot) in emails {
        index.extend(hash);
        index.extend(slot.to_le_bytes());
    }
    let mut sizes = Vec::new();
    for (part, bytes) in [(Part::EmailIndex, index), (Part::BlockTable, table)] {
        let start = file.len();
        file.extend(bytes);
        seed.seal(&mut file, start, part, 0);
        sizes.push(u32::try_from(file.len() - start).unwrap_or(u32::MAX));
    }
    let start = file.len();
    for bytes in sizes {
        file.extend(bytes.to_le_bytes());
    }
    seed.seal(&mut file, start, Part::Footer, 0);
    file.extend(END_MAGIC);
    Ok(file)
}

/// Appends a block; how many salts it has.
fn encode_block(file: &mut Vec<u8>, block: &[StoredOpening]) -> std::io::Result<u32> {
    let (mut salts, mut content) = (0, Vec::new());
    for opening in block {
        match opening {
            StoredOpening::Erased { commitment } => {
                content.push(0);
                content.extend(commitment);
            }
            StoredOpening::Present { salt, email, address, scope } => {
                salts += 1;
                file.extend(salt);
                content.push(1);
                content.push(u8::try_from(address.len()).unwrap_or_default());
                content.extend(address);
                put_counted(&mut content, scope.as_bytes());
                put_counted(&mut content, email.as_bytes());
            }
        }
    }
    put_packed(file, &content, COMPRESSION_LEVEL)?;
    Ok(salts)
}

fn decode_block(mut block: &[u8], salts: usize) -> Option<Vec<StoredOpening>> {
    let salts = take_bytes(&mut block, salts.checked_mul(SALT_BYTES)?)?;
    let mut salts = salts.as_chunks::<SALT_BYTES>().0.iter();
    let content = unpack(block)?;
    let mut content = content.as_slice();
    let mut openings = Vec::new();
    while !content.is_empty() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        openings.push(match take(&mut content)? {
            [0] => StoredOpening::Erased { commitment: take(&mut content)? },
            [1] => {
                let [length] = take(&mut content)?;
                let address = take_bytes(&mut content, usize::from(length))?.to_vec();
                let scope = text(take_counted(&mut content)?)?;
                StoredOpening::Present {
                    salt: *salts.next()?,
                    email: text(take_counted(&mut content)?)?,
                    address,
                    scope,
                }
            }
            _ => return None,
        });
    }
    Some(openings)
}

fn email_hash(key: &[u8; KEY_BYTES], email: &str) -> [u8; 4] {
    let hash: [u8; 32] = Sha256::new_with_prefix(key).chain_update(email).finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}

const _: () = assert!(CHECKSUM_BYTES == 4 && FOOTER_BYTES == 8 + CHECKSUM_BYTES + END_MAGIC.len());
