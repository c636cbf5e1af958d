//! When the charter's documents run out, and what that means for a feed.
//!
//! A document that has run out still says who may do what (a fleet must not stop because a renewal
//! was forgotten), but nothing that rests on it is fresh any more: whoever keeps documents back
//! would else go unnoticed for ever. Only the newest version counts: that an earlier one has run
//! out says nothing (TUF 1.0.34, §5.3.10 likewise looks at the last of a chain only).

use stork_wire::charter::UnixSeconds;
use stork_wire::ids::PublisherId;

use super::{Charter, PublisherState};

/// Which document has run out, so that a feed is not fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The fleet's root document.
    Root,
    /// Those of all groups that name the publisher.
    Groups,
    /// The publisher's own.
    Publisher,
}

/// A document of the charter, as people know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When it runs out.
    pub expires: UnixSeconds,
    /// `root`, `group` or `publisher`.
    pub kind: &'static str,
    /// The name of the fleet, group or publisher.
    pub name: String,
}

impl Charter {
    /// The newest documents that will have run out at this time.
    pub fn due(&self, by: UnixSeconds) -> impl Iterator<Item = Due> + '_ {
        let due = move |kind, expires, name: &dyn ToString| {
            (expires <= by).then(|| Due { expires, kind, name: name.to_string() })
        };
        let root = self.root().and_then(move |r| due("root", r.expires, &r.name));
        let groups =
            self.groups().filter_map(move |g| due("group", g.doc().expires, &g.doc().name));
        let publishers = self.publishers().filter_map(move |(id, p)| {
            due("publisher", p.doc().expires, &self.publisher_name(*id))
        });
        root.into_iter().chain(groups).chain(publishers)
    }

    /// What has run out of all that a publisher's feed rests on, and when.
    pub(super) fn expired(
        &self,
        publisher: PublisherId,
        now: UnixSeconds,
    ) -> Option<(Expired, UnixSeconds)> {
        let root = self.root().map(|r| (Expired::Root, r.expires));
        let own = self.publisher(publisher).map(PublisherState::doc);
        let own = own.map(|d| (Expired::Publisher, d.expires));
        let ran_out = |(_, expires): &(Expired, UnixSeconds)| *expires <= now;
        root.into_iter().chain(own).find(ran_out).or_else(|| {
            // Asked of thousands of feeds at once: whom a group names is looked up only where one
            // has run out.
            self.groups().find(|g| g.doc().expires <= now)?;
            // A group whose document is in force is enough.
            let naming = self.groups().filter(|g| g.grant(publisher).is_some());
            let last = naming.map(|g| g.doc().expires).max()?;
            Some((Expired::Groups, last)).filter(ran_out)
        })
    }
}
