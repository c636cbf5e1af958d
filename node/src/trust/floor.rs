//! The time floor: what this host knows to be past, whatever its clock says (attack A6).
//!
//! A clock that is set back must not make valid again what had run out. So the newest time that
//! the host is sure of is kept on disk, and counts where the clock says less. What may raise it is
//! narrow, since a floor that is too high makes everything run out: times in documents that a
//! threshold signed, and the own clock, as long as that is near to a time that was signed.

use stork_wire::beacon::Beacon;
use stork_wire::charter::{GroupDoc, PublisherDoc, RootDoc, UnixSeconds};
use stork_wire::feed::Entry;
use stork_wire::item::{Item, ItemKind};

use super::{Fact, Trust};

/// The own clock is believed up to so many seconds beyond the newest time that somebody signed.
const NEAR_S: u64 = 86_400;

/// The newest times in accepted items.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// In charter documents, which a threshold signed.
    pub(super) threshold: UnixSeconds,
    /// In anything that was signed.
    pub(super) any: UnixSeconds,
}

impl Times {
    /// Looks at an item that was accepted.
    pub(super) fn note(&mut self, item: &Item, fact: &Fact) {
        let e = &item.envelope;
        let document = match item.kind {
            ItemKind::Root => e.claimed::<RootDoc>().map_or(0, |d| d.issued),
            ItemKind::Group => e.claimed::<GroupDoc>().map_or(0, |d| d.issued),
            ItemKind::Publisher => e.claimed::<PublisherDoc>().map_or(0, |d| d.issued),
            // What narrows is signed by one key, and often in a hurry.
            _ => 0,
        };
        let other = match fact {
            Fact::Entry(entry) => signed_at(entry.get()),
            Fact::Beacon(_) => e.claimed::<Beacon>().map_or(0, |b| b.time),
            _ => 0,
        };
        self.threshold = self.threshold.max(document);
        self.any = self.any.max(document).max(other);
    }
}

const fn signed_at(entry: &Entry) -> UnixSeconds {
    entry.signed_at
}

impl Trust {
    /// Raises the floor to what accepted items prove, and to the own clock where that is near.
    /// Returns whether it rose.
    pub fn raise_floor(&self, floor: &mut Floor, clock: UnixSeconds) -> bool {
        floor.raise(self.times.threshold, self.times.any, clock)
    }
}

/// The floor itself, as it is kept on disk: seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floor(pub UnixSeconds);

impl Floor {
    /// See [`Trust::raise_floor`]; `proved` is the newest time that a threshold signed, `seen` the
    /// newest that anybody did.
    fn raise(&mut self, proved: UnixSeconds, seen: UnixSeconds, clock: UnixSeconds) -> bool {
        let before = *self;
        self.0 = self.0.max(proved);
        if clock <= self.0.max(seen).saturating_add(NEAR_S) {
            self.0 = self.0.max(clock);
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const T: u64 = 1_800_000_000;

    /// A clock that goes on raises the floor, one that leaps does not, unless what others signed
    /// says the same; one that is set back changes nothing.
    #[test]
    fn what_raises_the_floor() {
        let mut floor = Floor(0);
        assert!(floor.raise(T, T, T + 10), "near to a document");
        assert_eq!(floor, Floor(T + 10));
        assert!(floor.raise(T, T, T + 10 + DAY), "it goes on");
        assert!(!floor.raise(T, T, T + 400 * DAY), "it leaps");
        assert!(!floor.raise(T, T, T - 365 * DAY), "it is set back");
        assert_eq!(floor, Floor(T + 10 + DAY));
        assert!(floor.raise(T, T + 30 * DAY, T + 30 * DAY + 60), "others say the same");
        assert_eq!(floor, Floor(T + 30 * DAY + 60));
        assert!(floor.raise(T + 40 * DAY, T + 40 * DAY, 0), "a threshold needs no clock");
    }
}
