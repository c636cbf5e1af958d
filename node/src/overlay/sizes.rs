//! How full every bounded set of the overlay is, and its bound (attack G13, test T072).
//!
//! A set without a bound must not compile: `Overlay::sizes` and `sizes_of_links` take the machine
//! and its links apart field by field, and `Overlay::caps` must name a bound for every size.

use stork_wire::frame::LinkClass;
use stork_wire::limits::LOGS_MAX;

use super::links::{Link, PRUNED_MAX, REFUSED_MAX, SERVED_MAX};
use super::{
    Overlay, contacts, early, fetch, flight, forward, missing, promote, sketch, sync, tree, visits,
};

macro_rules! sizes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How full the bounded sets are, or how full they may be.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Sizes {
            $($(#[$doc])* pub $name: usize,)*
        }

        impl Sizes {
            /// All of them by name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, usize)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

sizes! {
    /// Near links.
    near,
    /// Far links.
    far,
    /// Passive view.
    passive,
    /// Graveyard.
    graveyard,
    /// Anchors.
    anchors,
    /// Dials under way.
    dialling,
    /// Hosts to which a reserved slot was given lately.
    reserved,
    /// Hosts that are shut out.
    bans,
    /// Records of hosts.
    roster,
    /// Hosts of which a record was flooded.
    seen,
    /// Logs.
    logs,
    /// Trees.
    trees,
    /// Items that sync brought before the tree.
    held,
    /// Items that were asked for when a tree lost its parent.
    hoped,
    /// Announced items that did not arrive yet.
    missing,
    /// Items that the driver judges.
    flights,
    /// Good items that wait for those before them.
    early,
    /// Hosts without a link of which it is remembered what was refused.
    former,
    /// Logs of which items are being fetched.
    wants,
    /// Pieces that neighbours were asked for.
    pieces,
    /// Hosts because of which something is wanted.
    owners,
    /// Comparisons of heads under way.
    sessions,
    /// Hosts without a link that compare heads.
    guests,
    /// Forks that were reported.
    forks,
    /// Rivals that were asked for.
    rivals,
    /// Cells of the sketch that are kept.
    cells,
    /// Refused items that are remembered, of the link with most.
    link_refused,
    /// Pruned logs that are remembered, of the link with most.
    link_pruned,
    /// Items whose sends are counted, of the link with most.
    link_served,
    /// Announcements that wait, of the link with most.
    link_ihave,
    /// Records that wait, of the link with most.
    link_records,
}

impl Overlay {
    /// How full everything is.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let (all, links) = (self.common_sizes(), self.links.values().chain(self.guests.values()));
        let of_links = sizes_of_links(links);
        Sizes {
            link_refused: of_links.link_refused,
            link_pruned: of_links.link_pruned,
            link_served: of_links.link_served,
            link_ihave: of_links.link_ihave,
            link_records: of_links.link_records,
            ..all
        }
    }

    /// The same without what each link holds, which is most of what it costs to look.
    #[must_use]
    pub fn common_sizes(&self) -> Sizes {
        let Self {
            config: _,
            me: _,
            site: _,
            rng: _,
            now: _,
            local: _,
            links: _, // Of each: [`Self::sizes`].
            quiet: _,
            affinity: _,
            contacts,
            dialling,
            promotion: _,
            reserved,
            bans,
            roster,
            cell_at: _,
            shuffles: _, // One question at the most.
            carries: _,  // A mask.
            closed: _,
            saved: _,
            save_at: _,
            trees,
            missing,
            flights,
            early,
            flush_at: _,
            heads,
            sessions,
            guests,
            visit: _,
            watched: _,
            former,
            fetches,
            forks,
            rivals,
            random_sync_at: _,
            house_at: _,
            counters: _,
        } = self;
        let (wants, pieces, owners) = fetches.sizes();
        Sizes {
            near: self.count(LinkClass::Near).all,
            far: self.count(LinkClass::Far).all,
            passive: contacts.passive.len(),
            graveyard: contacts.graveyard.len(),
            anchors: contacts.anchors.len(),
            dialling: dialling.len(),
            reserved: reserved.len(),
            bans: bans.len(),
            roster: roster.len(),
            seen: roster.seen.len(),
            logs: heads.len(),
            trees: trees.len(),
            held: trees.held.len(),
            hoped: trees.hoped.len(),
            missing: missing.len(),
            flights: flights.len(),
            early: early.len(),
            former: former.len(),
            wants,
            pieces,
            owners,
            sessions: sessions.len(),
            guests: guests.len(),
            forks: forks.len(),
            rivals: rivals.len(),
            cells: heads.cells_kept(),
            ..Sizes::default()
        }
    }

    /// How full everything may be.
    #[must_use]
    pub fn caps(&self) -> Sizes {
        Sizes {
            near: self.cap(LinkClass::Near),
            far: self.cap(LinkClass::Far),
            passive: contacts::PASSIVE_MAX,
            graveyard: contacts::GRAVEYARD_MAX,
            anchors: contacts::ANCHORS_MAX,
            dialling: promote::DIALS_MAX,
            reserved: self.reserved.max(),
            bans: self.bans.max(),
            roster: self.config.roster,
            seen: self.roster.seen.max(),
            logs: LOGS_MAX,
            trees: tree::TREES_MAX,
            held: self.trees.held.max(),
            hoped: self.trees.hoped.max(),
            missing: missing::MISSING_MAX,
            flights: flight::FLIGHTS_MAX,
            early: early::EARLY_MAX,
            former: self.former.max(),
            wants: fetch::WANTS_MAX,
            pieces: fetch::PARALLEL_MAX,
            owners: self.cap(LinkClass::Near) + self.cap(LinkClass::Far) + visits::GUESTS_MAX,
            sessions: sync::SESSIONS_MAX,
            guests: visits::GUESTS_MAX,
            forks: self.forks.max(),
            rivals: self.rivals.max(),
            cells: sketch::CELLS_MAX,
            link_refused: REFUSED_MAX,
            link_pruned: PRUNED_MAX,
            link_served: SERVED_MAX,
            link_ihave: forward::IHAVE_BATCH,
            link_records: self.records_max(),
        }
    }

    /// Name, size and bound of everything: for `stork status` and the tests.
    pub fn gauges(&self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let (sizes, caps) = (self.sizes(), self.caps());
        let caps: Vec<usize> = caps.named().map(|(_, cap)| cap).collect();
        let sizes: Vec<_> = sizes.named().collect();
        sizes.into_iter().zip(caps).map(|((name, size), cap)| (name, size, cap))
    }
}

/// The largest sets of any link. What is no set has no size; the rest of a link is fixed.
fn sizes_of_links<'a>(links: impl Iterator<Item = &'a Link>) -> Sizes {
    let mut most = Sizes::default();
    for link in links {
        let Link {
            peer: _,
            class: _,
            dialled: _,
            slot: _,
            since: _,
            heard: _,
            sent: _,
            pinged: _,
            asked: _,
            our_turn: _,
            ping: _,
            doubted: _,
            rtt_ms: _,
            rtt_known: _,
            disagreed: _,
            compared: _,
            differs: _,
            still: _,
            carries: _,
            sync_after: _,
            synced: _,
            sync_fails: _,
            heads_sent: _,
            heads_out: _,
            heads_rate: _,
            sketch_rate: _,
            short_rate: _,
            sketch_failed: _,
            sketch_asked: _,
            read_rate: _,
            barren: _,
            fetch_after: _,
            refused,
            invalid: _,
            ihave,
            records,
            pruned,
            served,
            missing: _, // A share of `missing`, and of `flights`.
            flights: _,
            broken: _,
            deaf_until: _,
            no_lead_until: _,
            shuffle_rate: _,
            strange_rate: _,
        } = link;
        most.link_refused = most.link_refused.max(refused.len());
        most.link_pruned = most.link_pruned.max(pruned.len());
        most.link_served = most.link_served.max(served.len());
        most.link_ihave = most.link_ihave.max(ihave.len());
        most.link_records = most.link_records.max(records.len());
    }
    most
}
