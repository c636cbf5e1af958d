//! Why an item is refused: one word for each attack, for counters, logs and people.

use stork_wire::ids::Position;
use stork_wire::sign::VerifyError;

use super::Freeze;

/// Why an item is refused. Nothing has changed, and nothing is passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no canonical body (attacks A25, A27).
    #[error("malformed: {0}")]
    Malformed(String),
    /// The claimed log or number is not the one inside the signed body.
    #[error("the item claims another log or number than its signed body")]
    WrongLog,
    /// The signing key may not sign this (attacks A1, A18).
    #[error("signed by a key that may not sign this")]
    UnauthorisedKey,
    /// A key that may sign is named, but the signature is forged.
    #[error("the signature is wrong")]
    BadSignature,
    /// Too few distinct keys signed (attack A20).
    #[error("{0}")]
    ThresholdNotMet(String),
    /// The name lies outside of what key or group permits (attack A19).
    #[error("{0}")]
    OutOfScope(String),
    /// Older than what is known: a replay (attack A3).
    #[error("entry {seq} is older than the head {head}")]
    Replay {
        /// Offered.
        seq: u64,
        /// Known.
        head: u64,
    },
    /// Two valid bodies for one number (attack A21).
    #[error("two different signed items have the number {0}")]
    Equivocation(u64),
    /// The predecessor named is not the one that is known.
    #[error("item {0} does not follow the item before it")]
    BrokenChain(u64),
    /// An entry that lies behind a fork (attack A21).
    #[error("{0}")]
    Frozen(Freeze),
    /// An entry of an epoch that has ended before it.
    #[error("epoch {} has ended before number {}", .0.epoch, .0.seq)]
    Closed(Position),
    /// A document takes the epoch back (attack A3).
    #[error("epoch {got} is lower than {have}")]
    Rollback {
        /// Offered.
        got: u32,
        /// In force.
        have: u32,
    },
    /// Another epoch than the publisher document's, or none that may follow it.
    #[error("epoch {got}, the publisher document says {want}")]
    WrongEpoch {
        /// Offered.
        got: u32,
        /// In force.
        want: u32,
    },
    /// A publisher document takes from a release key what it might sign, without a new epoch: what
    /// it signed until then would be good at some hosts and not at others.
    #[error("release key {0} may do less than before, which needs a new epoch")]
    Narrowed(String),
    /// Signed further in the future than clocks differ (attack A6).
    #[error("signed {0} s in the future")]
    FutureDated(u64),
    /// A beacon for a head that the feed never had (attack A5): an alarm.
    #[error("the beacon names entry {0}, which the feed never had like that")]
    UnknownHead(Position),
    /// A beacon whose counter does not rise: a replay.
    #[error("the beacon's counter {got} does not rise above {have}")]
    CounterNotRising {
        /// Offered.
        got: u64,
        /// Known.
        have: u64,
    },
    /// More beacons of one publisher than are passed on.
    #[error("more beacons of this publisher than are passed on")]
    TooOften,
    /// The view root does not commit to the live releases (attack A8).
    #[error("the view root does not fit the live releases")]
    ViewRootMismatch,
    /// The release counter does not rise (attack A4).
    #[error("release {got} of {package} does not rise above {have}")]
    ReleaseNotRising {
        /// The package.
        package: String,
        /// Offered.
        got: u64,
        /// Known.
        have: u64,
    },
    /// Signed by a release key that has ended itself, for an epoch that is open.
    #[error("release key {0} has ended itself")]
    RevokedKey(String),
    /// An entry by a delegated key beyond the time or feed that the key is for.
    #[error("{0}")]
    Delegated(String),
    /// A denial by a key that may not deny, or not any more.
    #[error("{0}")]
    NotVeto(String),
    /// Over a quota of the group (attack A10).
    #[error("{got} bytes exceed the group's limit of {limit}")]
    OverQuota {
        /// Announced.
        got: u64,
        /// Allowed.
        limit: u64,
    },
    /// A document that had run out before it came.
    #[error("it had run out when it came")]
    Expired,
    /// A group's name is taken, or changes.
    #[error("the group name `{0}` is taken or changed")]
    NameTaken(String),
    /// Of a kind that only a later version knows.
    #[error("an item of a later version")]
    LaterKind,
    /// More logs than a node keeps.
    #[error("more logs than a node keeps")]
    TooMany,
}

impl Refusal {
    /// All stable words, so that each has a metric before it has happened.
    pub const CODES: &[&str] = &[
        "malformed",
        "wrong_log",
        "unauthorised_key",
        "bad_signature",
        "threshold_not_met",
        "out_of_scope",
        "replay",
        "equivocation",
        "broken_chain",
        "frozen",
        "closed_epoch",
        "rollback",
        "wrong_epoch",
        "narrowed",
        "future_dated",
        "beacon_unknown_head",
        "beacon_not_rising",
        "beacon_too_often",
        "view_root_mismatch",
        "release_not_rising",
        "revoked_key",
        "delegated_key",
        "not_veto",
        "over_quota",
        "expired",
        "name_taken",
        "later_kind",
        "too_many",
    ];

    /// The stable word for counters and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::WrongLog => "wrong_log",
            Self::UnauthorisedKey => "unauthorised_key",
            Self::BadSignature => "bad_signature",
            Self::ThresholdNotMet(_) => "threshold_not_met",
            Self::OutOfScope(_) => "out_of_scope",
            Self::Replay { .. } => "replay",
            Self::Equivocation(_) => "equivocation",
            Self::BrokenChain(_) => "broken_chain",
            Self::Frozen(_) => "frozen",
            Self::Closed(_) => "closed_epoch",
            Self::Rollback { .. } => "rollback",
            Self::WrongEpoch { .. } => "wrong_epoch",
            Self::Narrowed(_) => "narrowed",
            Self::FutureDated(_) => "future_dated",
            Self::UnknownHead(_) => "beacon_unknown_head",
            Self::CounterNotRising { .. } => "beacon_not_rising",
            Self::TooOften => "beacon_too_often",
            Self::ViewRootMismatch => "view_root_mismatch",
            Self::ReleaseNotRising { .. } => "release_not_rising",
            Self::RevokedKey(_) => "revoked_key",
            Self::Delegated(_) => "delegated_key",
            Self::NotVeto(_) => "not_veto",
            Self::OverQuota { .. } => "over_quota",
            Self::Expired => "expired",
            Self::NameTaken(_) => "name_taken",
            Self::LaterKind => "later_kind",
            Self::TooMany => "too_many",
        }
    }

    /// Does the fact prove that the peer who sent it is at fault? Honest nodes check before they
    /// forward, so only what any honest node must have refused does.
    #[must_use]
    pub const fn blames_sender(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_) | Self::WrongLog | Self::BadSignature | Self::ThresholdNotMet(_)
        )
    }
}

impl From<VerifyError> for Refusal {
    fn from(e: VerifyError) -> Self {
        match e {
            VerifyError::UnknownKey => Self::UnauthorisedKey,
            VerifyError::BadSignature => Self::BadSignature,
            VerifyError::ThresholdNotMet { .. } => Self::ThresholdNotMet(e.to_string()),
            VerifyError::Decode(_) | VerifyError::Invalid(_) | VerifyError::SignatureOrder => {
                Self::Malformed(e.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    /// The list of words is the list of words: both are read from this file.
    #[test]
    fn no_code_is_forgotten() {
        let text = include_str!("refusal.rs");
        let words = text.lines().filter_map(|l| l.split("=> \"").nth(1)?.split('"').next());
        let words: Vec<&str> = words.collect();
        assert_eq!(words, super::Refusal::CODES);
    }
}
