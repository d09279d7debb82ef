//! What the files of a data directory are at one moment, while a service writes them.
//!
//! Files that are replaced or removed are held by hard links in a directory of their own, which costs no space and no open
//! files. Files that grow count up to where they were.
//!
//! The order makes the copy consistent. What refers to records is noted before the records: sessions and checkpoints
//! before the audit log, the audit log before the policy journal. So the audit log never names a change of policy that
//! the copy lacks. It may lack the record of a change that it has, as after a crash: the first start records it.
//!
//! Invariant: nothing here changes a file of a store.
//! Not here: keeping the set of the audit log's files from changing meanwhile (`engine::audit`).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::error::{BackupError, io_error};
use super::format::{Summary, is_member};
use super::{BackupFiles, Content, Member, Staged};
use crate::locks::IgnorePoison;
use crate::store::disk::{RealDisk, UNFINISHED_SUFFIX};
use crate::store::journal::{Stream, segment_sequence, whole_frames};

/// The directory of the links, in the data directory.
const STAGING: &str = "backup";

/// How often a directory is listed again whose files went while they were linked.
const ATTEMPTS_MAX: usize = 20;

/// The files in a data directory.
#[derive(Debug)]
pub struct DirectoryFiles {
    directory: PathBuf,
    left: Left,
    /// How many backups were begun.
    begun: AtomicU64,
}

/// The directory with the links; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Links {
    directory: PathBuf,
    count: usize,
    left: Left,
}

/// Directories of links that could not be removed.
type Left = Arc<Mutex<Vec<PathBuf>>>;

impl Drop for Links {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            tracing::warn!(
                %error,
                path = %self.directory.display(),
                "cannot remove what was held for a backup: the next backup, or the next start, tries again"
            );
            self.left.lock().ignore_poison().push(std::mem::take(&mut self.directory));
        }
    }
}

/// Removes a directory of links, and the one around it if that was the last.
fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(around) = directory.parent() {
        // Another one may be in it.
        drop(fs::remove_dir(around));
    }
    Ok(())
}

impl DirectoryFiles {
    /// Those in `directory`. Removes what a backup left there that the end of the process interrupted.
    ///
    /// # Errors
    ///
    /// If that cannot be removed: erased data might stay in it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, BackupError> {
        let directory = directory.into();
        let staging = directory.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", staging, error)),
            _ => Ok(Self { directory, left: Left::default(), begun: AtomicU64::new(0) }),
        }
    }

    /// A new directory for links. Each backup has its own, so that one which cannot be removed is not in the way.
    fn links(&self) -> Result<Links, BackupError> {
        self.left.lock().ignore_poison().retain(|left| remove(left).is_err());
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(STAGING).join(number.to_string());
        // Also the one around it, which whoever removes another one may be removing.
        let created = DirBuilder::new().mode(0o700).recursive(true).create(&directory);
        created.map_err(|error| io_error("create directory", &directory, error))?;
        Ok(Links { directory, count: 0, left: Arc::clone(&self.left) })
    }
}

/// Whether the audit log has a file of this name, besides its journal, its checkpoints and its marks. The mark
/// of use says how a process ended, which is no part of a backup, and neither is a stray file.
fn is_of_audit(name: &str) -> bool {
    let is_number = |text: &str| text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = name.strip_prefix("tree-").or_else(|| name.strip_suffix(".seg")).or_else(|| name.strip_suffix(".pii"));
    name == "base" || number.is_some_and(is_number)
}

impl BackupFiles for DirectoryFiles {
    fn stage(&self, time_micros: i64) -> Result<Arc<Staged>, BackupError> {
        let mut staging = Staging { directory: &self.directory, links: self.links()?, members: Vec::new() };
        let is_journal = |name: &str| segment_sequence(name).is_some();
        // An erasure under way has its mark before its record, and keeps it until nothing is left to erase. The mark stays
        // as it is meanwhile, as do the other files of the audit log that are no journal.
        staging.files("audit", &|name| name == "erasing")?;
        staging.journal("sessions", Stream::Sessions, false)?;
        staging.files("sessions", &|name| !is_journal(name))?;
        staging.files("audit", &|name| name == "checkpoints")?;
        staging.files("audit", &is_of_audit)?;
        let audit_next = staging.journal("audit", Stream::Audit, true)?;
        staging.files("policy", &|name| !is_journal(name))?;
        let policy_next = staging.journal("policy", Stream::Policy, false)?;
        for name in ["FORMAT", "BEGUN", "LINEAGE", "audit.pub"] {
            staging.text(name)?;
        }
        let Staging { links, members, .. } = staging;
        let lineage = lineage(&members)
            .ok_or_else(|| io_error("read", self.directory.join("LINEAGE"), io::Error::other("it holds no lineage")))?;
        let summary = Summary {
            lineage,
            time_micros,
            audit_sequence: audit_next.saturating_sub(1),
            policy_sequence: policy_next.saturating_sub(1),
        };
        Ok(Arc::new(Staged { summary, members, _links: links }))
    }
}

/// A stage under way.
struct Staging<'a> {
    directory: &'a Path,
    links: Links,
    members: Vec<Member>,
}

impl Staging<'_> {
    /// Notes the whole files of a directory that are wanted.
    fn files(&mut self, directory: &str, wanted: &dyn Fn(&str) -> bool) -> Result<(), BackupError> {
        let mut members = self.link_all(directory, wanted)?;
        self.members.append(&mut members);
        Ok(())
    }

    /// Notes the segments of a journal, of which the last counts up to its last whole frame. Returns the sequence of the
    /// next record; 0 where there are no segments.
    fn journal(&mut self, directory: &str, stream: Stream, keeps_room: bool) -> Result<u64, BackupError> {
        let mut segments = self.link_all(directory, &|name| segment_sequence(name).is_some())?;
        segments.sort_by(|one, other| one.name.cmp(&other.name));
        let mut next_sequence = 0;
        if let Some(Member { name, content: Content::File { path, bytes } }) = segments.last_mut() {
            // An error names the file itself: the link is gone when somebody looks.
            let frames = whole_frames(&RealDisk, path, stream, keeps_room);
            let frames = frames.map_err(|error| error.of_file(&self.directory.join(&*name)))?;
            (next_sequence, *bytes) = (frames.next_sequence, frames.valid_bytes);
        }
        self.members.append(&mut segments);
        Ok(next_sequence)
    }

    /// Links the wanted files of a directory. Where one goes between listing and linking, the directory is listed again.
    fn link_all(&mut self, directory: &str, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Member>, BackupError> {
        let path = self.directory.join(directory);
        for _ in 0..ATTEMPTS_MAX {
            let names = Self::wanted(&path, directory, wanted)?;
            let mut linked = Vec::with_capacity(names.len());
            for name in names {
                let file = self.directory.join(&name);
                linked.extend(self.link(&file, name)?);
            }
            // Complete only if nothing came or went meanwhile.
            let now: BTreeSet<String> = Self::wanted(&path, directory, wanted)?.into_iter().collect();
            if now.len() == linked.len() && linked.iter().all(|member| now.contains(&member.name)) {
                return Ok(linked);
            }
        }
        Err(BackupError::Unsteady { path })
    }

    /// The names of the wanted files as members.
    fn wanted(path: &Path, directory: &str, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>, BackupError> {
        let names = list(path).map_err(|error| io_error("list", path, error))?;
        let whole = names.into_iter().filter(|name| wanted(name) && !name.ends_with(UNFINISHED_SUFFIX));
        Ok(whole.map(|name| format!("{directory}/{name}")).filter(|name| is_member(name)).collect())
    }

    /// Links a file; none where there is none any more.
    fn link(&mut self, path: &Path, name: String) -> Result<Option<Member>, BackupError> {
        let link = self.links.directory.join(self.links.count.to_string());
        self.links.count += 1;
        match fs::hard_link(path, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("link", path, error)),
        }
        let bytes = fs::metadata(&link).map_err(|error| io_error("read the size of", path, error))?.len();
        Ok(Some(Member { name, content: Content::File { path: link, bytes } }))
    }

    /// Notes a small file of the data directory itself, if it exists.
    fn text(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.directory.join(name);
        match fs::read(&path) {
            Ok(bytes) => self.members.push(Member { name: name.to_owned(), content: Content::Text(bytes) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", path, error)),
        }
        Ok(())
    }
}

fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in directory.read_dir()? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn lineage(members: &[Member]) -> Option<u64> {
    let text = members.iter().find_map(|member| match &member.content {
        Content::Text(text) if member.name == "LINEAGE" => Some(text),
        _ => None,
    })?;
    u64::from_str_radix(std::str::from_utf8(text).ok()?.trim_end(), 16).ok()
}
