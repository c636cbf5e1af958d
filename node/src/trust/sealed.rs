//! Releases for private groups: what can be judged without reading them, and who can read them.
//!
//! A sealed release is judged in its feed like any other, but for what only its own words say:
//! names and sizes. These are judged by each host that has the group's key, when it reads it, by
//! the same rules; what breaks them is not shown there, and the chain goes on, since it must be
//! the same for hosts that cannot read. In the feed's live set it stands under a name that says
//! nothing ([`Sealed::cover`]), with a number made of its place.

use stork_wire::charter::HostCert;
use stork_wire::feed::{Entry, Kind};
use stork_wire::ids::{GroupId, GroupKeyId, Position, PublisherId};
use stork_wire::item::Item;
use stork_wire::seal::{GroupKey, Keyring, Sealed};
use stork_wire::text::{Arch, PackageName};

use super::feed::check_scope;
use super::{Charter, Refusal, Trust};

/// Bits of a cover number that hold the entry's number; the epoch stands above them.
const SEQ_BITS: u32 = 40;

/// The counter under which a sealed release stands in its feed: above all that packages reach.
#[must_use]
pub fn cover_number(at: Position) -> u64 {
    u64::from(at.epoch).wrapping_shl(SEQ_BITS) | (at.seq & ((1 << SEQ_BITS) - 1))
}

/// Under which name, machine and counter a feed keeps a sealed release.
pub(super) fn cover(at: Position) -> Option<(PackageName, Arch, u64)> {
    Some((Sealed::cover()?, "all".parse().ok()?, cover_number(at)))
}

/// Has any version of the group's document named the publisher, or one who delegates to it?
pub(super) fn check_group(
    charter: &Charter,
    publisher: PublisherId,
    id: GroupId,
) -> Result<(), Refusal> {
    let out = |what: String| Refusal::OutOfScope(what);
    let Some(group) = charter.group(id) else {
        return Err(out(format!("the group {} is not known", id.short())));
    };
    let delegated = || charter.delegations.ever_from(publisher).any(|p| group.ever_named(p));
    if group.ever_named(publisher) || delegated() {
        return Ok(());
    }
    let name = &group.doc().name;
    Err(out(format!("group `{name}` has no publisher {}", publisher.short())))
}

impl Trust {
    /// Gives the rules a key to read with. False where it was there, or there is no room.
    pub fn add_group_key(&mut self, key: GroupKey) -> bool {
        self.charter.keys.add(key)
    }
    /// The keys to read with.
    #[must_use]
    pub const fn group_keys(&self) -> &Keyring {
        &self.charter.keys
    }

    /// An accepted entry as this host can read it: where it is sealed, the key is here, and what
    /// it says is within the rights of who signed it, with its release.
    #[must_use]
    pub fn read_entry(&self, item: &Item) -> Option<Entry> {
        let mut entry: Entry = item.envelope.claimed().ok()?;
        if entry.sealed().is_some() {
            // What cannot be read stands all the same.
            self.read_sealed(item, &mut entry).unwrap_or_default();
        }
        Some(entry)
    }

    /// Reads a sealed release, or says why it is not shown here.
    pub fn read_sealed(&self, item: &Item, entry: &mut Entry) -> Result<(), Refusal> {
        let id = entry.publisher;
        let publisher = self.charter.publisher(id).ok_or(Refusal::UnauthorisedKey)?;
        let Kind::Sealed(sealed) = &mut entry.kind else { return Ok(()) };
        let unread = |e: stork_wire::seal::SealError| Refusal::OutOfScope(e.to_string());
        let release = sealed.read(id, &self.charter.keys).map_err(unread)?;
        let mut read = entry.clone();
        if let Kind::Sealed(sealed) = &mut read.kind {
            sealed.set_opened(release);
        }
        check_scope(&self.charter, publisher, &self.signers(item), &read)?;
        if let Some(via) = &read.via {
            self.charter.vouched(publisher, via, &read)?.check_scope(&read)?;
        }
        *entry = read;
        Ok(())
    }
}

impl Charter {
    /// The group whose documents name this key, now or before.
    #[must_use]
    pub fn group_of_key(&self, key: &GroupKeyId) -> Option<GroupId> {
        self.groups().find(|g| g.keys().any(|k| k == key)).map(super::GroupState::id)
    }

    /// Keys of private groups, also earlier ones, that a host with this certificate may have.
    #[must_use]
    pub fn keys_for(&self, cert: &HostCert) -> Vec<GroupKeyId> {
        let granted = self.groups().filter(|g| cert.grants(&g.id()));
        granted.flat_map(|g| g.keys().copied().collect::<Vec<_>>()).collect()
    }

    /// Of these groups, those that a host with this certificate may say that it wants.
    #[must_use]
    pub fn granted(&self, cert: &HostCert, groups: &[GroupId]) -> Vec<GroupId> {
        let private = |id: &GroupId| self.group(*id).is_some_and(|g| g.doc().private.is_some());
        groups.iter().filter(|g| cert.grants(g) || !private(g)).copied().collect()
    }
}
