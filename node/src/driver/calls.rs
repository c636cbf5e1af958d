//! What the control socket asks of the driver, and where the answers go.

use stork_wire::seal::GroupKey;
use stork_wire::text::{GroupName, Label};
use tokio::sync::oneshot;

use crate::store::Damage;

/// A question or order from the control socket.
#[derive(Debug)]
pub enum ControlCall {
    /// `stork status`.
    Status(Answer),
    /// `GET /metrics`.
    Metrics(Answer),
    /// `stork vm`.
    Vms(Answer),
    /// `stork release`.
    Releases(Answer),
    /// `stork peers`.
    Peers(Answer),
    /// `stork tree RELEASE|CONTENT`.
    Tree {
        /// `PACKAGE`, `PACKAGE=VERSION`, or the beginning of a hash.
        what: String,
        /// The answer.
        answer: Answer,
    },
    /// `stork why VM PACKAGE`.
    Why {
        /// The VM.
        vm: String,
        /// The package.
        package: String,
        /// The answer.
        answer: Answer,
    },
    /// `stork trust [VM|PACKAGE]`.
    Trust {
        /// A VM or a package; `None`: the charter.
        about: Option<String>,
        /// It is a package, also where a VM has the same name.
        package: bool,
        /// The answer.
        answer: Answer,
    },
    /// `stork permit list`.
    Permits(Answer),
    /// `stork permit add`.
    Permit {
        /// The permit's text.
        text: String,
        /// The answer.
        answer: Answer,
    },
    /// `stork events`.
    Events {
        /// Only later ones.
        after: u64,
        /// The answer.
        answer: Answer,
    },
    /// `stork rollback VM`.
    Rollback {
        /// The VM.
        vm: String,
        /// The generation; `None`: the one before.
        to: Option<u64>,
        /// Forget what was rolled back.
        undo: bool,
        /// The answer.
        answer: Answer,
    },
    /// `stork vm switch VM`.
    Switch {
        /// The VM.
        vm: String,
        /// Do not wait for the time that its file names.
        at_once: bool,
        /// The answer.
        answer: Answer,
    },
    /// `stork vm holders VM`.
    Holders {
        /// The VM.
        vm: String,
        /// The answer.
        answer: Answer,
    },
    /// `stork token create`.
    Token {
        /// What it should say.
        asked: AskedToken,
        /// The answer.
        answer: Answer,
    },
    /// `stork host list`.
    Hosts(Answer),
    /// `stork host grant`.
    HostGrant {
        /// What is to be changed.
        asked: super::AskedGrant,
        /// The answer.
        answer: Answer,
    },
    /// `stork group-key add`.
    GroupKey {
        /// The key.
        key: GroupKey,
        /// The answer.
        answer: Answer,
    },
    /// Read changed VM files now.
    Reload(Answer),
    /// `stork store verify` found this damaged.
    Damaged {
        /// What is no longer in the store.
        damaged: Vec<Damage>,
        /// The answer.
        answer: Answer,
    },
    /// `stork store gc`.
    Collect {
        /// Only say what would be removed.
        dry_run: bool,
        /// The answer.
        answer: Answer,
    },
}

/// What a token should say.
#[derive(Debug, Clone)]
pub struct AskedToken {
    /// The host's name, if it is fixed.
    pub name: Option<Label>,
    /// Its site.
    pub site: Label,
    /// Seconds that the token is good for.
    pub ttl_s: u64,
    /// The private groups that the host may take part in; `None`: all.
    pub groups: Option<Vec<GroupName>>,
    /// Labels for its certificate.
    pub labels: Vec<Label>,
}

/// Where an answer goes: JSON, or an error with its kind.
pub type Answer = oneshot::Sender<Result<serde_json::Value, CallError>>;

/// Why a call was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// No such release.
    #[error("no release `{0}` is known here")]
    NoRelease(String),
    /// Not possible here or now; the second text says what to do.
    #[error("{0}")]
    Refused(String, String),
}
