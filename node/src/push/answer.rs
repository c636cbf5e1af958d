//! Answers of the push service: replies with bytes after them, and refusals with their codes.

use quinn::SendStream;
use stork_wire::codec::encode;
use stork_wire::frame::{PushReply, Refusal};
use stork_wire::text::Line;

use crate::driver::CommitError;
use crate::net::write_raw;
use crate::store::StoreError;

/// A request that was not fulfilled.
pub(super) struct Refused(pub(super) Refusal, pub(super) String);

pub(super) type Outcome = Result<Answer, Refused>;

/// A reply, with raw bytes after it.
pub(super) struct Answer {
    pub(super) reply: PushReply,
    pub(super) bytes: Vec<u8>,
}

impl From<PushReply> for Answer {
    fn from(reply: PushReply) -> Self {
        Self { reply, bytes: Vec::new() }
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
        let text = match std::error::Error::source(&e) {
            Some(cause) => format!("{e}: {cause}"),
            None => e.to_string(),
        };
        Self(code, text)
    }
}

impl From<CommitError> for Refused {
    fn from(e: CommitError) -> Self {
        let code = match &e {
            CommitError::Refused(_) => Refusal::Trust,
            CommitError::HeadMoved => Refusal::HeadMoved,
            CommitError::NotHome => Refusal::NotHome,
            CommitError::ContentMissing(_) => Refusal::NotFound,
            CommitError::Busy => Refusal::Busy,
            CommitError::Disk => Refusal::Internal,
            CommitError::Malformed(_) => Refusal::Malformed,
        };
        Self(code, e.to_string())
    }
}

pub(super) fn stopping<E>(_: E) -> Refused {
    Refused(Refusal::Busy, "the node is shutting down".to_owned())
}

pub(super) fn malformed(text: impl Into<String>) -> Refused {
    Refused(Refusal::Malformed, text.into())
}

/// Sends an answer; a refusal says why.
pub(super) async fn respond(send: &mut SendStream, outcome: Outcome) {
    let Answer { reply, bytes } = outcome.unwrap_or_else(|Refused(code, text)| {
        let text: String = text.chars().filter(|c| !c.is_control()).take(400).collect();
        let message = text.parse::<Line>().or_else(|_e| "refused".parse());
        // Both texts are short and clean, so that one of them parses.
        message.map_or(PushReply::Taken, |message| PushReply::Refused { code, message }).into()
    });
    // A publisher that went away meanwhile asks again; every request may be repeated.
    if write_raw(send, &encode(&reply)).await.is_ok() && send.write_all(&bytes).await.is_ok() {
        drop(send.finish());
    }
}
