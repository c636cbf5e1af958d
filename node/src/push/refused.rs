//! Why a publisher's request is not fulfilled, and the word by which that is counted.

use stork_wire::frame::Refusal;

use crate::driver::CommitError;
use crate::store::StoreError;

/// A request that was not fulfilled.
pub(super) struct Refused {
    /// What the publisher's program is told.
    pub(super) code: Refusal,
    /// What the publisher is told.
    pub(super) why: String,
    /// The driver refused it, and has counted that.
    pub(super) counted: bool,
}

impl Refused {
    pub(super) fn new(code: Refusal, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), counted: false }
    }

    /// The word by which it is counted.
    pub(super) const fn word(&self) -> &'static str {
        match self.code {
            Refusal::Malformed => "malformed",
            Refusal::Trust => "trust",
            Refusal::HeadMoved => "head_moved",
            Refusal::NotHome => "not_home",
            Refusal::NotFound => "not_found",
            Refusal::Corrupt => "corrupt",
            Refusal::NoSpace => "no_space",
            Refusal::Busy => "busy",
            Refusal::Internal => "internal",
            Refusal::VersionTaken => "version_taken",
        }
    }
}

impl From<StoreError> for Refused {
    fn from(e: StoreError) -> Self {
        let code = match e {
            StoreError::NoSpace { .. } | StoreError::NoInodes { .. } => Refusal::NoSpace,
            StoreError::Corrupt(_) | StoreError::BadPiece { .. } | StoreError::WrongManifest(_) => {
                Refusal::Corrupt
            }
            StoreError::BadManifest { .. } | StoreError::PackUse { .. } => Refusal::Malformed,
            StoreError::NoPack(_) => Refusal::NotFound,
            _ => Refusal::Internal,
        };
        let why = match std::error::Error::source(&e) {
            Some(cause) => format!("{e}: {cause}"),
            None => e.to_string(),
        };
        Self { code, why, counted: false }
    }
}

impl From<CommitError> for Refused {
    fn from(e: CommitError) -> Self {
        let code = match &e {
            CommitError::Refused(_) => Refusal::Trust,
            CommitError::HeadMoved => Refusal::HeadMoved,
            CommitError::NotHome => Refusal::NotHome,
            CommitError::VersionTaken { .. } => Refusal::VersionTaken,
            CommitError::ContentMissing(_) => Refusal::NotFound,
            CommitError::Busy | CommitError::Restored => Refusal::Busy,
            CommitError::Disk => Refusal::Internal,
            CommitError::Unread => Refusal::Trust,
            CommitError::NotSealed(_) => Refusal::Trust,
            CommitError::Malformed(_) => Refusal::Malformed,
        };
        Self { code, why: e.to_string(), counted: true }
    }
}

pub(super) fn stopping<E>(_: E) -> Refused {
    Refused::new(Refusal::Busy, "the node is shutting down")
}

pub(super) fn malformed(text: impl Into<String>) -> Refused {
    Refused::new(Refusal::Malformed, text)
}
