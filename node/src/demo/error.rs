//! Why the demonstration stops.

use std::io;

use crate::control::ClientError;

/// Why the demonstration stops.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// A file or process of this machine.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A process that should do one thing failed.
    #[error("`{command}` failed: {said}")]
    Child {
        /// The command.
        command: String,
        /// Its exit code.
        code: u8,
        /// The end of its standard error.
        said: String,
    },
    /// A node does not answer.
    #[error("{host} gives no answer")]
    Control {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// A node ended by itself.
    #[error("{0} has ended by itself")]
    Ended(String),
    /// Something did not happen in time.
    #[error("{0} did not happen in {1} s")]
    Late(String, u64),
    /// The hostile host of the demonstration could not do its work.
    #[error("the hostile host: {0}")]
    Insider(String),
    /// Anything else.
    #[error("{0}")]
    Wrong(String),
}

impl DemoError {
    /// What to do about it.
    pub(super) const fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check free space and permissions, or set TMPDIR to another folder",
            Self::Late(..) => "is this machine very busy? try again, or read the nodes' logs",
            Self::Child { .. } => "for --package, check the file with `stork-publish inspect FILE`",
            _ => "read the nodes' logs",
        }
    }

    /// The exit code: where a process of ours failed, that process knows best.
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Child { code, .. } => *code,
            _ => 1,
        }
    }
}
