//! Cells: in a fleet that is larger than a roster, a few hosts of each site tell the others what
//! their site subscribes to.
//!
//! A cell is a site. Within it everybody knows everybody, with the groups that each wants. The
//! first hosts of the site, by rendezvous hashing, sum these up in their own signed records, and
//! records with such a sum travel through the whole fleet (protocol.md §3b, CellAd). So whoever
//! has a content knows which sites want it, and whom to ask there, without a question.
//!
//! Any host may say that it speaks for its site, and say what is wrong. Then its site is asked in
//! vain or, if all its contacts leave a group out, not pushed to: it asks itself then, as every
//! host does for what it lacks.

use std::collections::BTreeSet;
use std::sync::Arc;

use stork_wire::charter::{Cell, ShortGroup};
use stork_wire::codec::List;
use stork_wire::ids::{GroupId, NodeId};
use stork_wire::limits::CELL_GROUPS_MAX;
use stork_wire::text::Label;
use stork_wire::tick::Tick;

use super::Overlay;
use super::io::{Action, Peer};
use super::relays::weight;
use super::rng::cut;

/// Hosts of a site that speak for it (protocol.md §3b: 4).
pub(super) const CONTACTS: usize = 4;
/// Their order is that of a bucket that no log has.
const BUCKET: u64 = 64;
/// A sum that changed is signed at most this often, and one that is nearly right not sooner than
/// that (protocol.md §3b: 30 s, 10 min).
const CHANGED_MS: u64 = 30_000;
/// Nor before a host has heard of the others of its site: a fleet that starts would sign at every
/// step.
pub(super) const FIRST_MS: u64 = 60_000;
const NEARLY_MS: u64 = 600_000;

/// Another site, as those say who speak for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: Label,
    /// Hosts that speak for it.
    pub contacts: Vec<NodeId>,
    /// Hosts that it has, as the one says who knows most.
    pub hosts: u32,
    /// What they say that it subscribes to.
    cells: Vec<Cell>,
}

impl Site {
    /// May a host of the site want this group?
    #[must_use]
    pub fn may_want(&self, group: &GroupId) -> bool {
        self.cells.iter().any(|c| c.may_want(group))
    }
}

impl Overlay {
    /// Signs a new sum, if this host speaks for its site and the old one is wrong.
    pub(super) fn cell_due(&mut self, now: Tick, actions: &mut Vec<Action>) {
        let Some(local) = self.local.as_ref().filter(|_| now >= self.cell_at) else { return };
        let cell = self.speaks(now).then(|| self.cell(now, local));
        let old = local.cell.as_ref();
        if old == cell.as_ref() {
            return;
        }
        let nearly = match (old, &cell) {
            (Some(a), Some(b)) => {
                let same = a.groups == b.groups && a.more == b.more;
                same && a.hosts.abs_diff(b.hosts) <= b.hosts / 8
            }
            _ => false,
        };
        if nearly && now.since(self.cell_at) < NEARLY_MS {
            return;
        }
        self.cell_at = now.after_ms(CHANGED_MS);
        actions.push(Action::Summarise(cell));
    }

    /// Is this host one of its site's first, in a large fleet of several sites?
    fn speaks(&self, now: Tick) -> bool {
        let apart = self.links.values().any(|l| l.peer.site != self.site);
        if !apart || !self.fleet_is_large() {
            return false;
        }
        let mine = weight(cut(self.me.as_bytes()), BUCKET);
        let ahead =
            |p: &&Arc<Peer>| p.site == self.site && weight(cut(p.node.as_bytes()), BUCKET) < mine;
        self.roster.not_lost(now).filter(ahead).take(CONTACTS).count() < CONTACTS
    }

    /// In a large fleet the hosts of this site that speak for it, as far as they are known; this
    /// one may be among them.
    #[must_use]
    pub fn speakers(&self) -> Vec<NodeId> {
        let Some(local) = self.local.as_ref().filter(|_| self.fleet_is_large()) else {
            return Vec::new();
        };
        let here = self.roster.not_lost(self.now).filter(|p| p.site == self.site);
        let speak = here.chain([local]).filter(|p| p.cell.is_some());
        speak.map(|p| p.node).collect()
    }

    fn cell(&self, now: Tick, local: &Arc<Peer>) -> Cell {
        let here = self.roster.not_lost(now).filter(|p| p.site == self.site);
        let (mut hosts, mut groups) = (0u32, BTreeSet::new());
        for peer in here.chain([local]) {
            hosts = hosts.saturating_add(1);
            groups.extend(peer.groups.iter().map(ShortGroup::of));
        }
        let more = groups.len() > CELL_GROUPS_MAX;
        Cell { hosts, groups: List::truncated(groups), more }
    }

    /// The other sites of a large fleet. In one that fits into the roster there are none: there
    /// [`Overlay::interested`] knows all hosts.
    #[must_use]
    pub fn sites(&self) -> Vec<Site> {
        let mut sites: Vec<Site> = Vec::new();
        for peer in self.roster.not_lost(self.now).filter(|p| p.site != self.site) {
            let Some(cell) = &peer.cell else { continue };
            let at = sites.binary_search_by(|s| s.name.cmp(&peer.site)).unwrap_or_else(|at| {
                let (contacts, cells) = (Vec::new(), Vec::new());
                sites.insert(at, Site { name: peer.site.clone(), contacts, hosts: 0, cells });
                at
            });
            let Some(site) = sites.get_mut(at) else { continue };
            site.contacts.push(peer.node);
            site.hosts = site.hosts.max(cell.hosts);
            site.cells.push(cell.clone());
        }
        sites
    }
}
