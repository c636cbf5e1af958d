//! A fleet with thousands of publishers, as large users have: their documents, and some releases
//! of each, made by hand, since thousands of commands and pushes would be the whole measurement.

use std::path::Path;

use anyhow::{Context, Result};
use stork_node::store::{JournalItem, Store};
use stork_publisher::charter::read_file;
use stork_publisher::keys::{Passphrase, read_secret};
use stork_wire::charter::{GroupDoc, PublisherGrant};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Release, Urgency, view_root};
use stork_wire::ids::{FleetId, GroupId, LogId, PublisherId, TreeId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::manifest::Manifest;
use stork_wire::sign::SecretKey;

use crate::forge::{item, now, publisher_doc};

/// Publishers of one group: as many as its document holds.
const PER_GROUP: usize = 64;

/// So many publishers of a charter's fleet, with their groups and `each` entries of every one. They
/// are more than a bundle holds, and travel as all news do.
pub fn crowd(charter: &Path, count: usize, each: u64) -> Result<Vec<Item>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let old = read_file(charter)?;
    let authority = read_secret(&charter.join("keys/authority"), &Passphrase::Ask)?;
    let (_, first) = old.groups.first_key_value().context("a charter without a group")?;
    let (mut items, mut entries) = (Vec::new(), Vec::new());
    let mut made = 0;
    while made < count {
        let size = PER_GROUP.min(count - made);
        let mut members = Vec::new();
        for i in made..made + size {
            let name = format!("publisher-{i}");
            let (root, release) = (secret(i, 1), secret(i, 2));
            let doc = publisher_doc(&name, &root, &release, old.root.expires);
            let id = doc.publisher_id();
            let log = LogId::publisher(id);
            items.push(item(ItemKind::Publisher, log, 1, &doc, (old.fleet, &root)));
            members.push((id, name, release));
        }
        members.sort_by_key(|(id, ..)| *id);
        let grant = first.publishers.first().context("a group without a publisher")?;
        let grants = members.iter().map(|(publisher, name, _)| {
            Ok(PublisherGrant { publisher: *publisher, name: name.parse()?, ..grant.clone() })
        });
        let doc = GroupDoc {
            number: 1,
            prev: None,
            name: format!("crowd-{}", made / PER_GROUP).parse()?,
            publishers: List::truncated(grants.collect::<Result<Vec<_>>>()?),
            ..first.clone()
        };
        let group = doc.group_id();
        let log = LogId::group(group);
        items.push(item(ItemKind::Group, log, 1, &doc, (old.fleet, &authority)));
        for (id, _, key) in &members {
            entries.extend(feed(old.fleet, (*id, group), key, each)?);
        }
        made += size;
    }
    items.extend(entries);
    Ok(items)
}

/// Puts items into the journal of a node that does not run.
pub fn store_items(store: &Store, items: &[Item]) -> Result<()> {
    let journal = |i: &Item| JournalItem { item: i.clone(), hash: i.hash(), cuts: Vec::new() };
    for some in items.chunks(1_000) {
        store.commit_items(&some.iter().map(journal).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn secret(i: usize, what: u8) -> SecretKey {
    let seed = blake3::Hasher::new_derive_key("stork tests crowd")
        .update(&i.to_le_bytes())
        .update(&[what])
        .finalize();
    SecretKey::from_seed(seed.as_bytes())
}

/// A feed of so many releases of one package.
fn feed(
    fleet: FleetId,
    (publisher, group): (PublisherId, GroupId),
    key: &SecretKey,
    each: u64,
) -> Result<Vec<Item>> {
    let (mut items, mut live) = (Vec::<Item>::new(), Vec::new());
    for seq in 1..=each {
        let release = release(group, seq)?;
        live.push(release.hash());
        let entry = Entry {
            version: 1,
            publisher,
            epoch: 1,
            seq,
            prev: items.last().map(|i| i.envelope.hash()),
            document: 1,
            signed_at: now(),
            expires: now() + 30 * 86_400,
            view_root: view_root(live.iter().copied()),
            kind: Kind::Release(Box::new(release)),
            via: None,
        };
        let log = LogId::feed(publisher);
        items.push(item(ItemKind::Entry, log, seq, &entry, (fleet, key)));
    }
    Ok(items)
}

fn release(group: GroupId, number: u64) -> Result<Release> {
    Ok(Release {
        package: "hello".parse()?,
        version: number.to_string().parse()?,
        arch: "all".parse()?,
        release: number,
        min_secure_release: 0,
        groups: List::truncated([group]),
        tree: TreeId([3; 32]),
        manifest: Manifest::reference(b"a manifest"),
        full_bytes: 100,
        delta: None,
        unpacked_bytes: 100,
        files: 1,
        depends: List::empty(),
        provides: List::empty(),
        urgency: Urgency::Normal,
        origins: List::empty(),
        bundle: None,
    })
}
