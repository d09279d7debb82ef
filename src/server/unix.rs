//! The Unix socket for sidecars.
//!
//! Invariant: a socket with a listener is never removed; one that a killed process left behind is replaced. Any other file
//! at the path stays.
//! Not here: connections (`connections`).

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::net::UnixListener;

/// A socket's file, removed when the service ends.
pub(super) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket's file could not be removed");
        }
    }
}

/// Listens at a path.
pub(super) fn bind(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        }
        bound => bound,
    };
    let advice = || format!("cannot listen at `{}`, choose another path with `--listen-unix`", path.display());
    Ok((listener.with_context(advice)?, SocketFile { path: path.to_owned() }))
}

/// Whether there is a socket at which nobody listens.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}
