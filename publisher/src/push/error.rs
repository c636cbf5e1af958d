//! Why a push did not happen, with the exit code that scripts rely on.

use std::io;

use stork_origin::OriginError;
use stork_wire::frame::Refusal;

use crate::charter::CharterError;
use crate::feed::FeedError;
use crate::keys::{KeyError, SignError};
use crate::out;
use crate::pack::PackError;
use crate::source::SourceError;

/// A push that did not happen. Unless it says otherwise, nothing was announced.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The package cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The charter cannot be used.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// The feed must not be continued like this.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The entry or certificate cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The origin cannot be used, or does not take the content.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A value of the command line does not fit the charter.
    #[error("{0}")]
    Usage(String),
    /// A group that the charter does not have.
    #[error("the charter has no group `{0}`")]
    NoGroup(String),
    /// A key that may not say this.
    #[error("key {key} is none of {role}")]
    NotSigner {
        /// Its fingerprint.
        key: String,
        /// Whose keys may.
        role: String,
    },
    /// None of the targets is a home of the feed.
    #[error("none of the targets takes entries of this feed; its homes are {}", .0.join(", "))]
    NoHome(Vec<String>),
    /// A file of ours cannot be read.
    #[error("cannot read what is to be sent")]
    Local(#[source] io::Error),
    /// The node cannot be reached.
    #[error("cannot connect to {target}: {why}")]
    Connect {
        /// Which node.
        target: String,
        /// What happened.
        why: String,
    },
    /// Somebody else answers at the node's address.
    #[error("who answers at {target} is not the node that was named")]
    WrongNode {
        /// Which address.
        target: String,
    },
    /// The node does not answer in time.
    #[error("{target} does not answer ({what})")]
    Timeout {
        /// Which node.
        target: String,
        /// To what.
        what: &'static str,
    },
    /// The connection broke.
    #[error("the connection to {target} broke: {why}")]
    Lost {
        /// Which node.
        target: String,
        /// What happened.
        why: String,
    },
    /// The node answers something else than what was asked.
    #[error("{target} answers nonsense: {why}")]
    Protocol {
        /// Which node.
        target: String,
        /// What it answers.
        why: String,
    },
    /// The node refuses.
    #[error("{target} refuses: {message}")]
    Refused {
        /// Which node.
        target: String,
        /// Why, as a code.
        code: Refusal,
        /// Why, for people.
        message: String,
    },
    /// The version stands for another content already.
    #[error("{what} is published already, as entry {seq}, with another content")]
    VersionTaken {
        /// Package, version and architecture.
        what: String,
        /// The entry that published it.
        seq: u64,
    },
    /// It is not among the releases that are live.
    #[error("{0} is not published, or was recalled already")]
    NotLive(String),
    /// No live releases were written down.
    #[error("there is nothing to carry over: {0} is not there")]
    NothingToCarry(String),
    /// A list of live releases waits from before.
    #[error("{0} has live releases that wait to be carried over")]
    Carries(String),
    /// A list that is none.
    #[error("{0} is no list of carried entries")]
    NoCarriedList(String),
    /// The feed has not begun anew.
    #[error("no document begins this feed anew, and {0} lists what it would carry over")]
    NotAnew(String),
    /// The version goes backwards.
    #[error("version {new} is lower than {latest}, which is published")]
    Lower {
        /// The package's.
        new: String,
        /// What is published.
        latest: String,
    },
}

impl PushError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Source(e) => e.help(),
            Self::Pack(e) => e.help().into(),
            Self::Key(e) => e.help(),
            Self::Charter(e) => e.help(),
            Self::Feed(e) => e.help().into(),
            Self::Origin(e) => e.help(),
            Self::Sign(SignError::Body(_)) => {
                "if it is too long, shorten the package's Depends or name fewer groups".into()
            }
            Self::Sign(e) => e.help(),
            Self::Usage(_) => "see `stork-publish push --help`".into(),
            Self::NotSigner { .. } => {
                "see who may: stork-publish charter show DIR; name another by --key".into()
            }
            Self::NoGroup(_) => "list them: stork-publish charter show DIR".into(),
            Self::NoHome(_) => "add --to NODEID@HOST:PORT of one of these nodes".into(),
            Self::Local(_) => "check the disk, then try again".into(),
            Self::Connect { .. } | Self::Lost { .. } | Self::Timeout { .. } => {
                "check that the node runs and that UDP reaches it, then run the same command \
                 again: it goes on where it stopped"
                    .into()
            }
            Self::WrongNode { .. } => {
                "compare the node id with `stork status` on that host; do not go on if you did \
                 not re-key it"
                    .into()
            }
            Self::Protocol { .. } => "update stork on both sides to the same version".into(),
            Self::Refused { code, .. } => refusal_help(*code).into(),
            Self::NotLive(_) => {
                "see what is there: `stork release` on any host; what lies behind a fork only \
                 hosts of that branch know: name one of them with --to"
                    .into()
            }
            Self::NothingToCarry(_) => {
                "`stork-publish charter compact` writes it, and carries over itself unless it is \
                 stopped"
                    .into()
            }
            Self::Carries(_) => {
                "`stork-publish carry` goes on with it; where it says that the feed has not begun \
                 anew, remove the file and run this again"
                    .into()
            }
            Self::NoCarriedList(_) => {
                "put back the file as `stork-publish charter compact` wrote it; if no epoch has \
                 begun since, remove it and run that again"
                    .into()
            }
            Self::NotAnew(_) => {
                "remove the file, and run `stork-publish charter compact` again".into()
            }
            Self::Lower { .. } => "to go back on purpose, add --allow-lower".into(),
            Self::VersionTaken { .. } => refusal_help(Refusal::VersionTaken).into(),
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Source(e) => e.exit(),
            Self::Pack(e) => e.exit(),
            Self::Local(e) => out::file_exit(e),
            Self::Protocol { .. } => 1,
            Self::Key(e) => e.exit(),
            Self::Charter(e) => e.exit(),
            Self::Feed(e) => e.exit(),
            Self::Origin(e) => e.exit(),
            Self::Sign(e) => e.exit(),
            Self::Usage(_) => 2,
            Self::NotSigner { .. } => 4,
            Self::NoGroup(_) | Self::NotLive(_) | Self::NothingToCarry(_) => 5,
            Self::Carries(_) | Self::NoCarriedList(_) | Self::NotAnew(_) => 1,
            Self::NoHome(_) | Self::Lower { .. } | Self::VersionTaken { .. } => 7,
            Self::Connect { .. } | Self::Lost { .. } => 75,
            Self::WrongNode { .. } => 4,
            Self::Timeout { .. } => 6,
            Self::Refused { code, .. } => refusal_exit(*code),
        }
    }

    /// Shows this error on stderr.
    pub fn show(&self) {
        out::error(self, &self.help());
    }
}

const fn refusal_exit(code: Refusal) -> u8 {
    match code {
        Refusal::Trust => 4,
        Refusal::NotFound => 5,
        Refusal::HeadMoved | Refusal::Busy => 75,
        Refusal::NotHome | Refusal::VersionTaken => 7,
        Refusal::Malformed | Refusal::Corrupt | Refusal::NoSpace | Refusal::Internal => 1,
    }
}

const fn refusal_help(code: Refusal) -> &'static str {
    match code {
        Refusal::Trust => {
            "check that the node has this charter, that the release key is still in it, and that \
             the node has the key of a private group (`stork group-key add`)"
        }
        Refusal::HeadMoved => "somebody else published meanwhile: look, then push again",
        Refusal::NotHome => "push to a home of this feed: stork-publish charter show DIR",
        Refusal::NotFound => "push the package again from its file",
        Refusal::NoSpace => "make room on that node: stork store stat, stork store gc",
        Refusal::Busy => "wait a little, then run the same command again",
        Refusal::Corrupt => "run the same command again; if it stays, check this host's memory",
        Refusal::Malformed => "update stork on both sides to the same version",
        Refusal::VersionTaken => {
            "give what changed a new version; files with other times or modes are another content \
             too, so build it again with SOURCE_DATE_EPOCH, or push the file of the first time"
        }
        Refusal::Internal => "look at that node's log: journalctl -u stork-node",
    }
}
