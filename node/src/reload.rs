//! Judging the journal again, at every start: rules and charter as the items say, and nothing
//! believed because it is on disk.
//!
//! Documents come first, one after the other. Then their keys are known, and the signatures of
//! entries are checked ahead by all cores ([`crate::ahead`]), while the rules go through the
//! entries in order. What is handed over says only that a signature is good, and can be made by
//! `wire::sign` alone; whose signatures count, and all else, the rules decide as ever.

use std::collections::BTreeMap;

use stork_wire::feed::Entry;
use stork_wire::ids::{FleetId, KeyId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Claimed, ReadyKey};

use crate::ahead;
use crate::join::read_group_keys;
use crate::store::{Store, StoreError};
use crate::trust::{Aside, Fact, Trust, Verdict};

/// Keys that are made ready, each some 300 bytes; signatures by others are checked by the rules.
const KEYS_MAX: usize = 32_768;

/// The order in which stored items are judged, so that nothing has to wait: documents, then what
/// narrows, then the proofs that freeze feeds, then entries, epoch after epoch, then beacons of
/// their heads.
pub(crate) fn order(item: &Item) -> (u8, u32, ItemKind, u64) {
    let epoch = || item.envelope.claimed::<Entry>().map_or(0, |e| e.epoch);
    match item.kind {
        ItemKind::Root | ItemKind::Group | ItemKind::Publisher => (0, 0, item.kind, item.seq),
        ItemKind::Deny | ItemKind::Suicide | ItemKind::Withdrawal | ItemKind::Grant => {
            (1, 0, item.kind, item.seq)
        }
        ItemKind::Proof => (2, 0, item.kind, item.seq),
        ItemKind::Entry => (3, epoch(), item.kind, item.seq),
        ItemKind::Beacon => (4, 0, item.kind, item.seq),
        ItemKind::Later(_) => (5, 0, item.kind, item.seq),
    }
}

/// Judges one item; says whether it is refused.
fn judge(
    trust: &mut Trust,
    item: &Item,
    read: Option<Claimed<Entry>>,
    each: &mut impl FnMut(&Fact),
) -> bool {
    if item.kind == ItemKind::Beacon {
        trust.restore_beacon(item);
        return false;
    }
    let verdict = match read {
        Some(read) => trust.judge_read(item, read, u64::MAX),
        None => trust.judge(item, u64::MAX),
    };
    match verdict {
        Verdict::Accepted { fact, .. } => each(&fact),
        // The proof of an epoch that has ended.
        Verdict::Known => {}
        _ => return true,
    }
    false
}

/// The release keys of all publishers, by their ids.
fn keys_of(trust: &Trust) -> BTreeMap<KeyId, ReadyKey> {
    let docs = trust.charter().publishers().map(|(_, publisher)| publisher.doc());
    let keys = docs.flat_map(|doc| doc.release_keys.iter().map(|k| ReadyKey::new(k.key)));
    keys.take(KEYS_MAX).map(|key| (key.id(), key)).collect()
}

/// The trust rules with everything that the journal holds, as at every start.
pub(crate) fn load_trust(
    store: &Store,
    fleet: FleetId,
    mut each: impl FnMut(&Fact),
) -> Result<Trust, StoreError> {
    let mut trust = Trust::new(fleet);
    for key in read_group_keys(store)? {
        trust.add_group_key(key);
    }
    let mut waiting: Vec<Item> = Vec::new();
    store.all_items(|j| waiting.push(j.item))?;
    // Entries are read for their epochs: by all cores too.
    let mut keyed = Vec::with_capacity(waiting.len());
    ahead::in_order(&waiting, order, |_, key| keyed.push(key));
    let mut keyed: Vec<_> = keyed.into_iter().zip(waiting).collect();
    keyed.sort_by_key(|(key, _)| *key);
    let mut waiting: Vec<Item> = keyed.into_iter().map(|(_, item)| item).collect();
    let is_document =
        |i: &Item| matches!(i.kind, ItemKind::Root | ItemKind::Group | ItemKind::Publisher);
    let rest = waiting.split_off(waiting.partition_point(is_document));
    let mut documents = waiting;
    // A publisher to whom another one delegates waits for that one's document.
    let mut left = usize::MAX;
    while documents.len() < left {
        left = documents.len();
        documents.retain(|item| judge(&mut trust, item, None, &mut each));
    }
    let warn = |item: &Item| {
        let (log, seq) = (item.log.short(), item.seq);
        tracing::warn!(%log, seq, "a stored item is not accepted");
    };
    documents.iter().for_each(warn);
    let keys = keys_of(&trust);
    let read = |item: &Item| {
        let of = |id| keys.get(&id);
        let entry = item.kind == ItemKind::Entry;
        entry.then(|| item.envelope.read_ahead::<Entry>(fleet, of).ok()).flatten()
    };
    ahead::in_order(&rest, read, |item, read| {
        if judge(&mut trust, item, read, &mut each) {
            warn(item);
        }
    });
    Ok(trust)
}

/// Entries behind the fork of a feed that is still frozen, and those of a feed that began anew,
/// which VMs may show.
pub(crate) fn load_aside(
    store: &Store,
    trust: &Trust,
    mut each: impl FnMut(&Entry, Aside),
) -> Result<(), StoreError> {
    for item in store.items_aside()? {
        let Some(entry) = trust.read_entry(&item) else { continue };
        if let Some(aside) = trust.kept_aside(&entry) {
            each(&entry, aside);
        }
    }
    Ok(())
}
