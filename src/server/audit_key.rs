//! The key that signs the checkpoints of the audit log.
//!
//! Invariant: a key is never replaced: where there is one it is used, or the start is refused.
//! Not here: what is signed (`audit::checkpoint`).

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};
use sha2::{Digest, Sha256};

use crate::audit::note::{SignerKey, VerifierKey};
use crate::store::disk::{RealDisk, write_whole};

/// The key's file in the data directory, where no other is named.
const KEY_FILE: &str = "audit.key";

/// The public key's file in the data directory, for people who get a copy of the log.
pub(super) const PUBLIC_KEY_FILE: &str = "audit.pub";

/// Loads the key, or makes one, and writes the public key beside the log.
pub(super) fn load(data_dir: &Path, file: Option<&Path>) -> anyhow::Result<SignerKey> {
    let inside = data_dir.join(KEY_FILE);
    let path = file.unwrap_or(&inside);
    let key = match fs::read_to_string(path) {
        Ok(text) => {
            text.trim_end().parse().with_context(|| format!("`{}` holds no key of the audit log", path.display()))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the key of the audit log `{}`", path.display()));
        }
    };
    if path.starts_with(data_dir) {
        tracing::warn!(
            path = %path.display(),
            "the key of the audit log is beside the log, so anybody who can change the log can sign it: move the key \
             with `--audit-key-file`"
        );
    }
    let public = format!("{}\n", key.verifier());
    if fs::read_to_string(data_dir.join(PUBLIC_KEY_FILE)).ok().as_ref() != Some(&public) {
        write_whole(&RealDisk, &data_dir.join(PUBLIC_KEY_FILE), public.as_bytes())
            .context("cannot write the public key of the audit log")?;
    }
    tracing::info!(key = %key.verifier(), "the audit log is verified with this key");
    Ok(key)
}

/// The public key beside a log.
pub(super) fn read_public(data_dir: &Path) -> anyhow::Result<VerifierKey> {
    let path = data_dir.join(PUBLIC_KEY_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    text.trim_end().parse().with_context(|| format!("`{}` holds no public key", path.display()))
}

/// Secret numbers derived from the key: the same at every start. They do not reveal the key.
pub(super) fn derived(key: &SignerKey) -> [u64; 2] {
    let hash: [u8; 32] =
        Sha256::new_with_prefix("sessions by user").chain_update(key.to_secret_text()).finalize().into();
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    [number(hash.first_chunk()), number(hash.last_chunk())]
}

fn make(path: &Path) -> anyhow::Result<SignerKey> {
    let (mut seed, mut name) = ([0; 32], [0; 4]);
    getrandom::fill(&mut seed).map_err(|error| anyhow!("no random numbers for a key: {error}"))?;
    getrandom::fill(&mut name).map_err(|error| anyhow!("no random numbers for a name: {error}"))?;
    let name = format!("portcullis-{:08x}/audit", u32::from_be_bytes(name));
    let key = SignerKey::new(&name, &seed)?;
    write_whole(&RealDisk, path, format!("{}\n", key.to_secret_text()).as_bytes())
        .with_context(|| format!("cannot write the key of the audit log `{}`", path.display()))?;
    tracing::info!(path = %path.display(), "made a key for the audit log");
    Ok(key)
}
