//! Read-only views of the overlay, for status, metrics and tests.

use std::sync::Arc;

use stork_wire::frame::LinkClass;
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Head;

use super::Overlay;
use super::io::Peer;
use super::links::Dialled;

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Items that came as pushes.
    pub pushes_in: u64,
    /// Items that went out as pushes.
    pub pushes_out: u64,
    /// Pushes of items that were here already.
    pub duplicates: u64,
    /// Items handed to the driver.
    pub delivered: u64,
    /// Grafts sent.
    pub grafts: u64,
    /// Prunes sent.
    pub prunes: u64,
    /// Comparisons of heads begun.
    pub syncs: u64,
    /// Things that were not taken because a bound was reached.
    pub dropped: u64,
    /// Answers to questions that were not asked.
    pub unsolicited: u64,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The host.
    pub peer: Arc<Peer>,
    /// The class.
    pub class: LinkClass,
    /// Did this node dial?
    pub outbound: bool,
    /// Smoothed round trip, in milliseconds.
    pub rtt_ms: u64,
    /// Milliseconds since the link came up.
    pub age_ms: u64,
}

/// How full the bounded sets are (attack G13: every map has a gauge).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Near links.
    pub near: usize,
    /// Far links.
    pub far: usize,
    /// Passive view.
    pub passive: usize,
    /// Graveyard.
    pub graveyard: usize,
    /// Anchors.
    pub anchors: usize,
    /// Dials under way.
    pub dialling: usize,
    /// Records of hosts.
    pub roster: usize,
    /// Logs.
    pub logs: usize,
    /// Trees.
    pub trees: usize,
    /// Announced items that did not arrive yet.
    pub missing: usize,
    /// Items that the driver judges.
    pub flights: usize,
    /// Logs of which items are being fetched.
    pub wants: usize,
    /// Pieces that neighbours were asked for.
    pub pieces: usize,
    /// Comparisons of heads under way.
    pub sessions: usize,
}

/// The tree of one log, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeView {
    /// Where its items come from.
    pub parent: Option<NodeId>,
    /// Where items go to at once.
    pub eager: Vec<NodeId>,
    /// Where only their numbers go to.
    pub lazy: Vec<NodeId>,
}

impl Overlay {
    /// The links.
    pub fn links(&self) -> impl Iterator<Item = LinkView> {
        self.links.values().map(|l| LinkView {
            peer: Arc::clone(&l.peer),
            class: l.class,
            outbound: l.dialled == Dialled::Here,
            rtt_ms: l.rtt_ms,
            age_ms: self.now.since(l.since),
        })
    }

    /// All hosts that are not known to be dead, with their records.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.roster.live(self.now)
    }

    /// Hosts in the passive view and in the graveyard (invariant I1).
    pub fn contacts(&self) -> impl Iterator<Item = &NodeId> {
        self.contacts.passive.keys().chain(self.contacts.graveyard.keys())
    }

    /// Counts since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How full everything is.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let (wants, pieces) = self.fetches.sizes();
        Sizes {
            near: self.count(LinkClass::Near).all,
            far: self.count(LinkClass::Far).all,
            passive: self.contacts.passive.len(),
            graveyard: self.contacts.graveyard.len(),
            anchors: self.contacts.anchors.len(),
            dialling: self.dialling.len(),
            roster: self.roster.len(),
            logs: self.heads.len(),
            trees: self.trees.len(),
            missing: self.missing.len(),
            flights: self.flights.len(),
            wants,
            pieces,
            sessions: self.sessions.len(),
        }
    }

    /// The tree of a log; `None` where none was needed yet.
    #[must_use]
    pub fn tree(&self, log: &LogId) -> Option<TreeView> {
        let (mask, slot) = self.trees.get(log)?;
        let parent = self.links.iter().find(|(_, l)| Some(l.slot) == slot).map(|(n, _)| *n);
        let all = self.links.iter();
        let (eager, lazy): (Vec<_>, Vec<_>) = all.partition(|(_, l)| l.bit() & mask != 0);
        let nodes = |v: Vec<(&NodeId, _)>| v.into_iter().map(|(n, _)| *n).collect();
        Some(TreeView { parent, eager: nodes(eager), lazy: nodes(lazy) })
    }

    /// The head of a log.
    #[must_use]
    pub fn head(&self, log: &LogId) -> Option<Head> {
        self.heads.get(log).copied()
    }

    /// The sum of all heads' fingerprints.
    #[must_use]
    pub const fn fingerprint(&self) -> u128 {
        self.heads.fingerprint()
    }
}
