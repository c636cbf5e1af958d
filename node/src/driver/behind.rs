//! Which releases behind a fork a publisher may still recall: see `push/behind.rs`.

use std::collections::BTreeSet;

use stork_wire::codec::List;
use stork_wire::feed::Entry;
use stork_wire::frame::RELEASES_AT_ONCE;
use stork_wire::ids::{LogId, PublisherId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::Envelope;
use stork_wire::text::PackageName;

use super::Driver;

impl Driver {
    /// Those of the entries that announce a release of the package which was not recalled yet, each
    /// release once, no more than one answer holds.
    pub(super) fn releases_behind(
        &self,
        publisher: PublisherId,
        package: &PackageName,
        entries: Vec<Envelope>,
    ) -> List<Envelope, RELEASES_AT_ONCE> {
        let charter = self.trust.charter();
        let mut seen = BTreeSet::new();
        let mut stands = |envelope: &Envelope| {
            let Ok(claimed) = envelope.claimed::<Entry>() else { return false };
            let log = LogId::feed_epoch(publisher, claimed.epoch);
            let (kind, seq, envelope) = (ItemKind::Entry, claimed.seq, envelope.clone());
            let entry = self.trust.read_entry(&Item { kind, log, seq, envelope });
            let Some(entry) = entry.filter(|e| e.publisher == publisher) else { return false };
            let (Some(release), Some(hash)) = (entry.release(), entry.release_hash()) else {
                return false;
            };
            let cover = entry.sealed().and_then(|_| stork_wire::seal::Sealed::cover());
            let name = cover.as_ref().unwrap_or(&release.package);
            release.package == *package
                && charter.recalled(publisher, entry.epoch, name, hash).is_none()
                && seen.insert(hash)
        };
        List::truncated(entries.into_iter().filter(|e| stands(e)))
    }
}
