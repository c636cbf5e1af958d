//! When a feed is fresh: to everybody, and to VMs of a group that asks for more.

use stork_wire::charter::UnixSeconds;
use stork_wire::ids::PublisherId;

use super::{Expired, PublisherState, Trust};

/// Is what is known of a feed all that there is?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A valid beacon speaks until then.
    Fresh {
        /// When it runs out.
        until: UnixSeconds,
    },
    /// No valid beacon: the host may be cut off, or the publisher's nodes are silent.
    Stale {
        /// When the last one ran out; `None`: there has been none.
        since: Option<UnixSeconds>,
    },
    /// The publisher has no beacon keys: its entries' own expiry must do.
    Unwatched,
    /// A document on which the feed rests has run out: nothing that it permits can be fresh.
    Expired {
        /// Which.
        document: Expired,
        /// When.
        since: UnixSeconds,
    },
}

impl Trust {
    /// Is this feed fresh at this time?
    #[must_use]
    pub fn freshness(&self, publisher: PublisherId, now: UnixSeconds) -> Freshness {
        let Some(doc) = self.charter.publisher(publisher).map(PublisherState::doc) else {
            return Freshness::Stale { since: None };
        };
        if let Some((document, since)) = self.charter.expired(publisher, now) {
            return Freshness::Expired { document, since };
        }
        if doc.beacon_keys.is_empty() {
            return Freshness::Unwatched;
        }
        match self.beacon(publisher).map(|b| b.expires) {
            Some(until) if until > now => Freshness::Fresh { until },
            since => Freshness::Stale { since },
        }
    }

    /// Is it fresh to VMs of a group that lets beacons speak for so many seconds at the most?
    /// Without beacons a feed is not fresh to a group that asks for them.
    #[must_use]
    pub fn freshness_within(
        &self,
        publisher: PublisherId,
        beacon_s: Option<u32>,
        now: UnixSeconds,
    ) -> Freshness {
        let state = self.freshness(publisher, now);
        let Some(most) = beacon_s else { return state };
        let end = self.beacon(publisher).map(|b| b.time.saturating_add(most.into()));
        match state {
            Freshness::Unwatched => Freshness::Stale { since: None },
            Freshness::Fresh { until } => match end.map_or(until, |end| until.min(end)) {
                until if until > now => Freshness::Fresh { until },
                since => Freshness::Stale { since: Some(since) },
            },
            Freshness::Stale { since: Some(since) } => {
                Freshness::Stale { since: Some(end.map_or(since, |end| since.min(end))) }
            }
            other => other,
        }
    }

    /// How long the groups that name a publisher let its beacons speak, where they say so.
    pub fn beacon_rules(&self, publisher: PublisherId) -> impl Iterator<Item = u32> {
        let asking = self.charter.groups().filter(|g| g.doc().beacon_s.is_some());
        asking.filter(move |g| g.grant(publisher).is_some()).filter_map(|g| g.doc().beacon_s)
    }
}
