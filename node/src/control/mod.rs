//! The control socket: HTTP with JSON on a Unix socket, for the `stork` command and other tools.
//!
//! Every answer is made by the driver; here are only routes, status codes and the socket itself.
//! The socket is 0660, so that root and the group `stork` may use it (design §11).

mod bodies;
mod client;
mod routes;
mod verify;

pub use bodies::{GcBody, HostGrantBody, PermitBody, RollbackBody, SwitchBody, TokenBody};
pub use client::{Client, ClientError, path_segment};
pub use routes::{metrics_router, router};

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("{0}: another stork-node answers on this socket")]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot make the socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl SocketError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::InUse(_) => "stop the other daemon, or give this one another --socket",
            Self::Io { .. } => "check the folder of --socket: it must exist and be writable",
        }
    }
}

/// Makes the socket; one that a dead daemon left behind is replaced.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let at = |source| SocketError::Io { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(at)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(at)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(at)?;
    Ok(listener)
}
