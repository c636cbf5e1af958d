//! What passed every rule, as the rest of the node sees it.

use stork_wire::deny::Denial;
use stork_wire::feed::Entry;
use stork_wire::grant::HostGrant;
use stork_wire::ids::PublisherId;
use stork_wire::item::{Cut, ItemKind};
use stork_wire::withdrawal::Withdrawal;

use super::{Death, Turn};

/// A fact that passed every rule; only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<T>(pub(super) T);

impl<T> Accepted<T> {
    /// The accepted value.
    pub const fn get(&self) -> &T {
        &self.0
    }
}

/// What an accepted item says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A charter document took effect.
    Charter(ItemKind),
    /// A feed has a new entry.
    Entry(Box<Accepted<Entry>>),
    /// A feed is frozen by a proof, or goes on in a new epoch by a document.
    Turn(Box<Turn>),
    /// A publisher has spoken of its feed's head.
    Beacon(PublisherId),
    /// Something must not be installed, or a host not connect.
    Deny(Box<Denial>),
    /// A release key has ended itself.
    Suicide(Box<Death>),
    /// A publisher takes releases back, or halts, or goes on.
    Withdrawal(Box<Withdrawal>),
    /// What a host may take part in from now on.
    Grant(Box<HostGrant>),
}

impl Fact {
    /// What the journal must drop together with the item that says this.
    #[must_use]
    pub fn cuts(&self) -> &[Cut] {
        match self {
            Self::Turn(turn) => &turn.cuts,
            Self::Suicide(death) => &death.cuts,
            _ => &[],
        }
    }
}
