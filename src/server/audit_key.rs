//! The keys of the audit log: the one that signs its checkpoints, and those that signed before.
//!
//! `audit.pub` in the data directory has the verifier keys of the log, oldest first, one a line; the last one signs.
//!
//! Invariant: what is signed is never signed on by another key silently. Where the key that signed is gone, or another one
//! lies in its place, the start is refused, unless it was told that a new key begins.
//! Not here: what is signed (`audit::checkpoint`), recording the change (`engine`), verifying (`verify`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use sha2::{Digest, Sha256};

use crate::audit::note::{SignerKey, VerifierKey};
use crate::engine::audit::{AuditLog, NewestSigner, newest_signer};
use crate::store::directory::DataDirectory;
use crate::store::disk::{Disk, RealDisk, write_whole};

/// The key's file in the data directory, where no other is named.
const KEY_FILE: &str = "audit.key";

/// The public keys' file in the data directory, for people who get a copy of the log.
pub(super) const PUBLIC_KEY_FILE: &str = "audit.pub";

/// What is done about a key that is not the one that signed.
const HOW_TO_GO_ON: &str = "put the key that signed it back from where you keep it; if that is lost, start once with \
                            `--audit-key-new`, which goes on with another key and puts the change on the record";

/// What is done where not even the public key of the one that signed is known.
const HOW_WITHOUT_PUBLIC_KEY: &str = "put the key that signed it back from where you keep it; if that is lost, put its public key back in `audit.pub`, from a \
     backup or from whoever verifies the log (every start logs it), and start once with `--audit-key-new`, which goes on \
     with another key and puts the change on the record; if nobody has the public key, see the section \"Without a \
     backup\" of docs/operate.md";

/// The keys of a log.
pub(super) struct Keys {
    /// Signs from now on.
    pub(super) signer: SignerKey,
    /// Those that signed before, oldest first.
    pub(super) earlier: Vec<VerifierKey>,
    pub(super) unwritten: Unwritten,
}

/// What is to be written about the keys. A start that is refused writes nothing of it.
pub(super) struct Unwritten {
    /// The file of a key that was drawn now.
    made: Option<PathBuf>,
    data_dir: PathBuf,
    /// Where they are not what lies beside the log.
    public: Option<Vec<VerifierKey>>,
}

/// Loads the key, or draws one where nothing was ever signed. `is_new`: another key than before may sign from now on.
pub(super) fn load(
    disk: &Arc<dyn Disk>,
    directory: &DataDirectory,
    file: Option<&Path>,
    is_new: bool,
) -> anyhow::Result<Keys> {
    let data_dir = directory.path();
    let inside = data_dir.join(KEY_FILE);
    let path = file.unwrap_or(&inside);
    let known = known_public(data_dir)?;
    let (signer, made) = match read(path)? {
        Some(key) => (key, None),
        None if is_new || is_unsigned(disk, directory, &known)? => (draw(known.last())?, Some(path.to_owned())),
        None if known.is_empty() => bail!(
            "the audit log is signed, but its key `{}` is missing, and so is `{PUBLIC_KEY_FILE}`: {HOW_WITHOUT_PUBLIC_KEY}",
            path.display()
        ),
        None => bail!("the audit log is signed, but its key `{}` is missing: {HOW_TO_GO_ON}", path.display()),
    };
    if path.starts_with(data_dir) {
        tracing::warn!(
            path = %path.display(),
            "the key of the audit log is beside the log, so anybody who can change the log can sign it: move the key \
             with `--audit-key-file`"
        );
    }
    let mut keys: Vec<VerifierKey> = known.iter().filter(|key| *key != signer.verifier()).cloned().collect();
    keys.push(signer.verifier().clone());
    let newest = newest_signer(Arc::clone(disk), directory.audit(), &keys);
    let newest = newest.context("cannot read the checkpoints of the audit log")?;
    let last = match newest {
        NewestSigner::Known(number) => keys.get(number),
        // Without a checkpoint, the file tells who was to sign.
        NewestSigner::Nobody => known.last(),
        NewestSigner::Unknown => bail!(unknown_signer(path, data_dir, made.is_some())),
    };
    match last {
        Some(last) if last == signer.verifier() && is_new => tracing::warn!(
            "`--audit-key-new` had no effect, because the key signed already: leave it out, or a lost key would be replaced"
        ),
        Some(last) if last != signer.verifier() && !is_new => bail!(
            "the audit log is signed by `{last}`, but the key in `{}` is `{}`: {HOW_TO_GO_ON}",
            path.display(),
            signer.verifier()
        ),
        _ => {}
    }
    let unwritten = Unwritten { made, data_dir: data_dir.to_owned(), public: (keys != known).then(|| keys.clone()) };
    keys.pop();
    Ok(Keys { signer, earlier: keys, unwritten })
}

/// Why nothing is signed on where the newest checkpoint is by a key that is not known. `is_missing`: there is no key.
fn unknown_signer(path: &Path, data_dir: &Path, is_missing: bool) -> String {
    let (path, public) = (path.display(), data_dir.join(PUBLIC_KEY_FILE));
    let public = public.display();
    let known = if is_missing {
        format!("by no key in `{public}`, and the key `{path}` is missing")
    } else {
        format!("neither by the key in `{path}` nor by one in `{public}`")
    };
    format!("the newest checkpoint of the audit log is signed {known}: {HOW_WITHOUT_PUBLIC_KEY}")
}

impl Unwritten {
    /// Writes a key that was drawn. Called once everything else agrees, before the key signs.
    pub(super) fn write_key(&mut self, signer: &SignerKey) -> io::Result<()> {
        let Some(path) = self.made.take() else { return Ok(()) };
        write_whole(&RealDisk, &path, format!("{}\n", signer.to_secret_text()).as_bytes()).map_err(|error| {
            io::Error::other(format!("cannot write the key of the audit log `{}`: {error}", path.display()))
        })?;
        tracing::info!(path = %path.display(), "made a key for the audit log");
        Ok(())
    }

    /// Writes the public keys, once the present key has signed the newest checkpoint. Until then they stay as they are: a
    /// crash must not leave a key there that never signed. Keys that are only on the record, because the file was lost, are
    /// written as well.
    pub(super) fn write_public(
        self,
        disk: &Arc<dyn Disk>,
        directory: &DataDirectory,
        log: &AuditLog,
    ) -> anyhow::Result<()> {
        let (Self { data_dir, public, .. }, key) = (self, log.verifier());
        tracing::info!(%key, "the audit log is verified with this key");
        let Some(mut keys) = public else { return Ok(()) };
        let newest = newest_signer(Arc::clone(disk), directory.audit(), std::slice::from_ref(key));
        if newest.context("cannot read the checkpoints of the audit log")? == NewestSigner::Known(0) {
            let recorded = log.recorded_keys().context("cannot read the changes of the key of the audit log")?;
            keys.retain(|key| !recorded.contains(key));
            let last = keys.pop();
            keys.extend(recorded.into_iter().chain(last));
            return write_public(&data_dir, &keys);
        }
        tracing::warn!("the key of the audit log could not sign yet: the next start writes `{PUBLIC_KEY_FILE}`");
        Ok(())
    }
}

/// The public keys beside a log, oldest first; at least one.
pub(super) fn read_public(data_dir: &Path) -> anyhow::Result<Vec<VerifierKey>> {
    let path = data_dir.join(PUBLIC_KEY_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let keys: Result<Vec<VerifierKey>, _> = text.lines().map(str::parse).collect();
    let keys = keys.with_context(|| format!("`{}` holds something else than public keys", path.display()))?;
    if keys.is_empty() {
        bail!("`{}` holds no public key", path.display());
    }
    Ok(keys)
}

/// The same; none where there is no such file.
fn known_public(data_dir: &Path) -> anyhow::Result<Vec<VerifierKey>> {
    let path = data_dir.join(PUBLIC_KEY_FILE);
    if path.try_exists().with_context(|| format!("cannot look for `{}`", path.display()))? {
        let advice =
            || "restore it from a backup, or remove it: it is written again where the key in use signed the log";
        read_public(data_dir).with_context(advice)
    } else {
        Ok(Vec::new())
    }
}

fn write_public(data_dir: &Path, keys: &[VerifierKey]) -> anyhow::Result<()> {
    let mut text = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    text.push('\n');
    let written = write_whole(&RealDisk, &data_dir.join(PUBLIC_KEY_FILE), text.as_bytes());
    written.map(drop).context("cannot write the public key of the audit log")
}

fn read(path: &Path) -> anyhow::Result<Option<SignerKey>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let key = text.trim_end().parse();
            key.map(Some).with_context(|| format!("`{}` holds no key of the audit log", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the key of the audit log `{}`", path.display())),
    }
}

/// Whether nothing was ever signed here: there is no public key, and nothing of a log.
fn is_unsigned(disk: &Arc<dyn Disk>, directory: &DataDirectory, known: &[VerifierKey]) -> anyhow::Result<bool> {
    let audit = directory.audit();
    let names = disk.list(&audit).with_context(|| format!("cannot list `{}`", audit.display()))?;
    Ok(known.is_empty() && names.is_empty())
}

/// Secret numbers derived from the key: the same at every start with it. They do not reveal the key. They order the table of
/// sessions in memory and are stored nowhere. After a change of the key, a preview session that goes on is counted as a new
/// one once, and the old one ends by its idle time.
pub(super) fn derived(key: &SignerKey) -> [u64; 2] {
    let hash: [u8; 32] =
        Sha256::new_with_prefix("sessions by user").chain_update(key.to_secret_text()).finalize().into();
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    [number(hash.first_chunk()), number(hash.last_chunk())]
}

/// Draws a key. It keeps the name of the log where there was a key before.
fn draw(previous: Option<&VerifierKey>) -> anyhow::Result<SignerKey> {
    let (mut seed, mut name) = ([0; 32], [0; 4]);
    getrandom::fill(&mut seed).map_err(|error| anyhow!("no random numbers for a key: {error}"))?;
    getrandom::fill(&mut name).map_err(|error| anyhow!("no random numbers for a name: {error}"))?;
    let name = match previous {
        Some(previous) => previous.name().to_owned(),
        None => format!("portcullis-{:08x}/audit", u32::from_be_bytes(name)),
    };
    Ok(SignerKey::new(&name, &seed)?)
}
