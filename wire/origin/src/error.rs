//! What can go wrong with an origin: which origin, which object, why, and what to do.

use std::io;
use std::path::PathBuf;

use crate::key::Key;

/// What is the matter with an object or its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has no such object.
    Missing,
    /// It does not let us.
    Denied,
    /// It holds something else than what was promised, or less: it lies, or is damaged.
    Wrong,
    /// It does not answer, or says that it cannot.
    Down,
}

impl Why {
    /// A stable word for counters.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Wrong => "wrong",
            Self::Down => "down",
        }
    }
}

/// An origin that cannot be used, or not for this.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The file with credentials.
    #[error("{}: {why}", .path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What the system says.
        #[source]
        source: Option<io::Error>,
    },
    /// The origin cannot be set up: its folder is missing, a setting contradicts another.
    #[error("the origin {origin} cannot be used: {text}")]
    Setup {
        /// Which origin.
        origin: String,
        /// What is wrong.
        text: String,
    },
    /// A web server, which is only read.
    #[error("the origin {origin} is only read: content is put into a bucket or a folder")]
    ReadOnly {
        /// Which origin.
        origin: String,
    },
    /// Something about one object.
    #[error("the origin {origin}: {key}: {text}")]
    Object {
        /// Which origin.
        origin: String,
        /// Which object.
        key: Key,
        /// What is the matter, as a code.
        why: Why,
        /// The same for people.
        text: String,
    },
}

impl OriginError {
    /// What is the matter; what concerns no single object counts as denied.
    #[must_use]
    pub const fn why(&self) -> Why {
        match self {
            Self::Object { why, .. } => *why,
            _ => Why::Denied,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Credentials { path, .. } => {
                let path = path.display();
                format!("lines such as AWS_ACCESS_KEY_ID=…, for its owner only: chmod 600 {path}")
            }
            Self::Setup { .. } => {
                "check the address, and AWS_ENDPOINT_URL, AWS_REGION and their like".into()
            }
            Self::ReadOnly { .. } => "name the bucket or folder behind it: s3://… or file:…".into(),
            Self::Object { why: Why::Missing, .. } => {
                "push the release again with this --origin, or check the address".into()
            }
            Self::Object { why: Why::Denied, .. } => {
                "check the credentials, what they permit, and the clock".into()
            }
            Self::Object { why: Why::Wrong, .. } => {
                "delete that object, see who writes to the origin, and push the release again"
                    .into()
            }
            Self::Object { why: Why::Down, .. } => {
                "check that the origin answers, then run the same command again: it goes on where \
                 it stopped"
                    .into()
            }
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Credentials { .. } | Self::Setup { .. } => 78,
            Self::ReadOnly { .. } => 2,
            Self::Object { why, .. } => match why {
                Why::Missing => 5,
                Why::Denied => 77,
                Why::Wrong => 1,
                Why::Down => 75,
            },
        }
    }
}
