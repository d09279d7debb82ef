//! The ports of the store, and the files behind them. The store handles bytes; the codec gives them meaning.
//!
//! **The journal is the truth.** Everything acknowledged is first in the [`Log`]. A start reads the policy from the newest
//! of the [`Snapshots`] and the journal after it. The [`StateStore`] holds a copy of the policy that is never read back as
//! policy, and the match counts of the rules. Snapshots and state store can be lost at any time: snapshots and copy are
//! rebuilt from the journal, and the counts start from zero.
//!
//! Invariant: nothing here reports a write as done before it would survive a power cut, except [`StateStore::apply`],
//! which promises that only together with [`StateStore::flush`].
//!
//! Not here: threads, clocks, retries, policy. Which adapters are used is decided where the server is put together.

pub mod advice;
pub mod backup;
pub mod clock_file;
pub mod codec;
pub mod directory;
pub mod disk;
mod error;
pub mod folder;
pub mod journal;
pub mod presence;
pub mod restoring;
pub mod sealed;
pub mod snapshots;
pub mod split;
pub mod state;

pub use error::{DirectoryError, JournalError, SnapshotError, StateError};

/// The most bytes that one value in a [`StateStore`] may have. Larger ones leak files in sled 0.34, so every adapter
/// refuses them and the codec splits what is larger.
pub const STATE_VALUE_BYTES_MAX: usize = 100 * 1024;

/// The most bytes that one key in a [`StateStore`] may have.
pub const STATE_KEY_BYTES_MAX: usize = 1024;

/// The records of a journal, oldest first, each with its sequence.
pub type Records<'a> = Box<dyn Iterator<Item = Result<(u64, Vec<u8>), JournalError>> + 'a>;

/// As [`Records`], to read without delaying the journal's writer.
pub type OwnedRecords = Box<dyn Iterator<Item = Result<(u64, Vec<u8>), JournalError>> + Send>;

/// Edits a record: gets its sequence and its bytes, which it may overwrite, and returns whether it did. It may be called
/// again for the same record, and then returns false if nothing is left to overwrite.
pub type Edit<'a> = dyn FnMut(u64, &mut [u8]) -> bool + 'a;

/// An append-only sequence of records: the truth. A replicated log needs to implement only this.
///
/// Sequences are dense. A log has one writer, which is why the methods that write take `&mut self`.
pub trait Log: Send {
    /// Appends `records` and returns the sequence of the first of them. They are durable when this returns. After a crash
    /// in the middle the log has all of them or none. Without records nothing is written, and the next sequence is
    /// returned.
    ///
    /// # Errors
    ///
    /// [`JournalError::TooLarge`] changes nothing. After any other error the log is *failed*: whether the records reached
    /// the disk is unknown, and every append is refused until [`Log::recover`] has settled that they did not. When the
    /// process stops before that, they may be there at the next start.
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, JournalError>;

    /// The sequence that the next record gets.
    fn next_sequence(&self) -> u64;

    /// The sequence of the oldest record kept; equal to [`Log::next_sequence`] when there is none.
    fn first_sequence(&self) -> u64;

    /// The records from `sequence` to the end. Memory is bounded by the largest single append.
    ///
    /// # Errors
    ///
    /// [`JournalError::OutOfRange`] where `sequence` is not in `first_sequence()..=next_sequence()`; an unreadable or
    /// damaged file, here or as the last item of the iterator.
    fn read_from(&self, sequence: u64) -> Result<Records<'_>, JournalError>;

    /// The same records as [`Log::read_from`] gives now, to read on another thread while the log grows. If records are
    /// truncated or overwritten meanwhile, reading may end with an error.
    fn records_from(&self, sequence: u64) -> Result<OwnedRecords, JournalError>;

    /// Makes a failed log writable again, so that nothing of the failed append is ever read back. No effect on one that is
    /// not failed.
    ///
    /// # Errors
    ///
    /// When the disk still refuses; the log stays failed and the call can be repeated.
    fn recover(&mut self) -> Result<(), JournalError>;
}

/// A log in segments, of which the oldest can be truncated.
pub trait Segments: Log {
    /// Ends the current segment: the next record begins a new one. [`Segments::truncate_before`] removes whole segments.
    /// No effect if the current one has no records, or there is none.
    ///
    /// # Errors
    ///
    /// As for [`Log::append`]: the log is failed until [`Log::recover`]. No record is in doubt.
    fn roll(&mut self) -> Result<(), JournalError>;

    /// Removes segments whose records are all before `sequence`. Some records before it may stay; none from `sequence` on
    /// is removed.
    fn truncate_before(&mut self, sequence: u64) -> Result<(), JournalError>;
}

/// A log whose acknowledged records can be overwritten, to erase personal data.
pub trait Redaction: Log {
    /// Lets `edit` overwrite the records from `from` on and returns how many it changed. Sequences and lengths stay.
    /// Records that are no longer kept are skipped.
    ///
    /// When this returns without an error, the log's files durably hold nothing of the old bytes, nor of a failed append.
    /// A crash in the middle leaves each record as it was or as `edit` made it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Failed`] where the log is failed: recover it before. After any other error any of the records may
    /// be changed, and a power cut may still undo that. Appends go on, and the call must be repeated.
    fn redact(&mut self, from: u64, edit: &mut Edit<'_>) -> Result<u64, JournalError>;

    /// As [`Redaction::redact`], but only for the part of the log that begins with `part`, so that appends need not wait
    /// for all of it. Begin with 0 and go on with what is returned, until that is none; appends may come in between.
    /// Together the calls do what one call of `redact` does to the records that were there at the first.
    fn redact_part(&mut self, part: u64, edit: &mut Edit<'_>) -> Result<Option<u64>, JournalError>;
}

/// The log that a server keeps on its own disk, with all operations.
pub trait Journal: Segments + Redaction {}

impl<J: Segments + Redaction> Journal for J {}

/// Full states written now and then, so that a start need not replay the whole journal.
pub trait Snapshots: Send {
    /// Writes the state as of `sequence` (that record and all before it are in it) and drops all but the newest two.
    /// The snapshot is durable when this returns.
    fn write(&self, sequence: u64, bytes: &[u8]) -> Result<(), SnapshotError>;

    /// The newest intact snapshot, with its sequence. Damaged ones are skipped with a warning, so the caller must check
    /// that the journal reaches back to the one it gets, or to the beginning if it gets none.
    fn newest_valid(&self) -> Result<Option<(u64, Vec<u8>)>, SnapshotError>;
}

/// An ordered map from bytes to bytes, which may be lost: it holds the mirror of the policy and match counts.
pub trait StateStore: Send + Sync {
    /// The value of `key`.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Makes all changes of `batch`, over all keyspaces, or none; later changes of a key win over earlier ones. Survives a
    /// crash of the process and, after [`StateStore::flush`], one of the machine.
    ///
    /// # Errors
    ///
    /// [`StateError::TooLarge`] changes nothing. After another error the store may hold a part of the batch, and may refuse
    /// further calls until it is opened again.
    fn apply(&self, batch: &Batch) -> Result<(), StateError>;

    /// At most `entries_max` entries (one at least) of `keyspace` in order of their keys, from `from` on, `from` included.
    fn scan(&self, keyspace: Keyspace, from: &[u8], entries_max: usize) -> Result<Page, StateError>;

    /// Returns when everything applied before is durable.
    fn flush(&self) -> Result<(), StateError>;
}

/// Opens the state store: at the start, and again after it failed.
pub trait StateStores: Send {
    /// The store, with what it held before, or empty where that is lost.
    ///
    /// # Errors
    ///
    /// When no store can be opened now; the call can be repeated.
    fn open(&self) -> Result<Box<dyn StateStore>, StateError>;
}

/// The parts of a [`StateStore`]: each has its own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// A copy of the policy: rules, groups, nodes.
    Policy,
    /// Match counts of rules.
    Counters,
    /// The high-water mark: the last record of the journal that the store includes.
    Meta,
}

/// Changes that a [`StateStore`] makes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where the key is.
    pub keyspace: Keyspace,
    /// The key.
    pub key: Vec<u8>,
    /// Its new value; none removes it, and is no error where it is not there.
    pub value: Option<Vec<u8>>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: set `key` to `value`.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change { keyspace, key: key.into(), value: Some(value.into()) });
    }

    /// Adds: remove `key`.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>) {
        self.changes.push(Change { keyspace, key: key.into(), value: None });
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in the order in which they were added.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Checks what no store accepts, before anything of the batch is applied.
    fn check(&self) -> Result<(), StateError> {
        for change in &self.changes {
            let value_bytes = change.value.as_ref().map_or(0, Vec::len);
            if change.key.len() > STATE_KEY_BYTES_MAX {
                return Err(StateError::TooLarge {
                    what: "key",
                    bytes: change.key.len(),
                    bytes_max: STATE_KEY_BYTES_MAX,
                });
            }
            if value_bytes > STATE_VALUE_BYTES_MAX {
                return Err(StateError::TooLarge {
                    what: "value",
                    bytes: value_bytes,
                    bytes_max: STATE_VALUE_BYTES_MAX,
                });
            }
        }
        Ok(())
    }
}

/// A part of a keyspace, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys with their values.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the next page starts; none when there is nothing after this one. A page may be shorter than asked for and
    /// still have a next one: it also ends at a few MiB.
    pub next: Option<Vec<u8>>,
}

/// The size at which a page of [`StateStore::scan`] ends, so that it never takes much memory.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Page {
    /// Takes from `entries` what fits a page.
    fn fill<E>(entries: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), E>>, entries_max: usize) -> Result<Self, E> {
        let mut page = Self::default();
        let mut bytes = 0;
        for entry in entries {
            let (key, value) = entry?;
            let full = page.entries.len() >= entries_max || bytes >= PAGE_BYTES_MAX;
            if full && !page.entries.is_empty() {
                page.next = Some(key);
                break;
            }
            bytes += key.len() + value.len();
            page.entries.push((key, value));
        }
        Ok(page)
    }
}
