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
    /// Trees that turned toward a faster link.
    pub leads: u64,
    /// Comparisons of heads begun.
    pub syncs: u64,
    /// Comparisons that a sketch answered.
    pub sketches: u64,
    /// Sketches that were of no use: more differences than they hold, garbage, or no answer.
    pub sketches_failed: u64,
    /// Hosts without a link that were asked for their fingerprint.
    pub visits: u64,
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

    /// Hosts without a link with which heads are compared now.
    pub fn guests(&self) -> impl Iterator<Item = &NodeId> {
        self.guests.keys()
    }

    /// All hosts that are not known to be dead, with their records.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.roster.live(self.now)
    }

    /// The last record of a host, also of one that is lost or whose record has run out.
    pub fn last_record(&self, node: &NodeId) -> Option<&Arc<Peer>> {
        self.roster.last_record(node)
    }

    /// The last records of all hosts, also of those that are lost.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.roster.records()
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
