//! The publishers' side: one feed for each group, with really signed entries, and the real rules.
//! After the feeds come the logs of what narrows (`narrow`), one for each withdrawal.
//!
//! Each distinct item is judged once by one [`Trust`] for the whole process: ten thousand nodes do
//! not pay for ten thousand checks of one signature. What remains for each node is the order of the
//! items, which the simulated driver keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use stork_node::overlay::Refusal;
use stork_node::trust::{Trust, Verdict};
use stork_wire::charter::{
    Authority, BODY_VERSION, GroupDoc, PublisherDoc, PublisherGrant, ReleaseKey, Role, RootDoc,
};
use stork_wire::codec::{List, encode};
use stork_wire::feed::{Entry, Kind, ManifestRef, Release, Urgency, view_root};
use stork_wire::ids::{
    FleetId, GroupId, ItemHash, LogId, ManifestId, PieceHash, PublisherId, ReleaseHash, TreeId,
};
use stork_wire::item::{Head, Item, ItemKind};
use stork_wire::proof::Proof;
use stork_wire::sign::{Body, Envelope, SecretKey};

use super::rng::mix2;

/// Calendar time at the start of every simulation.
pub(crate) const UNIX_START: u64 = 1_800_000_000;
const FAR: u64 = UNIX_START + 100_000_000;

/// One published item.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) item: Arc<Item>,
    pub(crate) hash: ItemHash,
    /// Its place among all messages.
    pub(crate) message: u32,
    /// Calendar time at which it was signed.
    pub(crate) signed_at: u64,
    /// Part of a fingerprint that it makes as a head.
    pub(crate) print: u128,
}

/// Two entries of one feed with one number, and what they prove. The feed has ended.
#[derive(Debug)]
pub(crate) struct Fork {
    pub(crate) at: u64,
    pub(crate) rival: Published,
    pub(crate) proof: Published,
}

/// One feed, as its publisher knows it.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) log: LogId,
    /// The node that its publisher prefers.
    pub(crate) home: u32,
    pub(crate) items: Vec<Published>,
    pub(super) publisher: PublisherId,
    pub(super) group: GroupId,
    pub(super) key: Arc<SecretKey>,
    pub(super) live: Vec<ReleaseHash>,
}

/// All feeds, and the one judge.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) all: Vec<Feed>,
    pub(super) by_log: BTreeMap<LogId, u32>,
    /// Feeds whose publishers signed two entries with one number.
    pub(crate) forks: BTreeMap<u32, Fork>,
    pub(super) fleet: FleetId,
    pub(super) judge: Trust,
    forged: BTreeMap<[u8; 32], Refusal>,
    pub(super) messages: u32,
    /// The charter.
    pub(super) documents: Vec<Item>,
}

pub(super) fn key(seed: u64, n: u64) -> SecretKey {
    let mut bytes = [0; 32];
    for (i, slot) in bytes.iter_mut().enumerate() {
        *slot = mix2(seed, n * 32 + i as u64).to_le_bytes()[0];
    }
    SecretKey::from_seed(&bytes)
}

pub(super) fn signed<T: Body>(
    kind: ItemKind,
    log: LogId,
    seq: u64,
    (body, fleet, key): (&T, FleetId, &SecretKey),
) -> Result<Item> {
    let envelope = Envelope::sign(body, fleet, key).map_err(|e| anyhow!("not signed: {e}"))?;
    Ok(Item { kind, log, seq, envelope })
}

impl Feeds {
    /// A charter with so many groups, each with a publisher of its own at one of these nodes.
    pub(crate) fn new(homes: &[u32], seed: u64) -> Result<Self> {
        let (root_key, authority) = (key(seed, 0), key(seed, 1));
        let root = RootDoc {
            version: BODY_VERSION,
            number: 1,
            prev: None,
            name: "fleet".parse()?,
            issued: UNIX_START - 1_000,
            expires: FAR,
            root: Role::single(root_key.public()),
            admission: Role::single(key(seed, 2).public()),
            authorities: List::truncated([Authority {
                names: "*".parse()?,
                role: Role::single(authority.public()),
            }]),
            admission_before: List::empty(),
        };
        let fleet = root.fleet_id();
        let by_log = BTreeMap::new();
        let (judge, forged, forks) = (Trust::new(fleet), BTreeMap::new(), BTreeMap::new());
        let all = Vec::new();
        let mut feeds =
            Self { all, by_log, forks, fleet, judge, forged, messages: 0, documents: Vec::new() };
        let log = LogId::root(fleet);
        feeds.accept(&signed(ItemKind::Root, log, 1, (&root, fleet, &root_key))?)?;
        for (n, home) in homes.iter().enumerate() {
            feeds.add(n as u64, *home, seed, &authority)?;
        }
        Ok(feeds)
    }

    fn add(&mut self, n: u64, home: u32, seed: u64, authority: &SecretKey) -> Result<()> {
        let (root, release) = (key(seed, 10 + 2 * n), key(seed, 11 + 2 * n));
        let doc = PublisherDoc {
            version: BODY_VERSION,
            number: 1,
            prev: None,
            name: format!("publisher-{n}").parse()?,
            issued: UNIX_START - 1_000,
            expires: FAR,
            root: Role::single(root.public()),
            epoch: 1,
            survivor: None,
            release_keys: List::truncated([ReleaseKey {
                key: release.public(),
                packages: List::truncated(["*".parse()?]),
                not_after: FAR,
                valid_through: None,
            }]),
            beacon_keys: List::empty(),
            homes: List::empty(),
            delegations: List::empty(),
            compacts: None,
        };
        let publisher = doc.publisher_id();
        let grant = PublisherGrant {
            publisher,
            name: doc.name.clone(),
            packages: List::truncated(["*".parse()?]),
            provides: List::empty(),
            release_bytes_max: 0,
        };
        let group = GroupDoc {
            version: BODY_VERSION,
            number: 1,
            prev: None,
            name: format!("group-{n}").parse()?,
            issued: UNIX_START - 1_000,
            expires: FAR,
            authority: Role::single(authority.public()),
            publishers: List::truncated([grant]),
            veto: List::empty(),
            lifts: List::empty(),
            private: None,
            beacon_s: None,
        };
        let (id, fleet) = (group.group_id(), self.fleet);
        let log = LogId::group(id);
        self.accept(&signed(ItemKind::Group, log, 1, (&group, fleet, authority))?)?;
        let log = LogId::publisher(publisher);
        self.accept(&signed(ItemKind::Publisher, log, 1, (&doc, fleet, &root))?)?;
        let log = LogId::feed(publisher);
        self.by_log.insert(log, u32::try_from(self.all.len())?);
        let (items, live, key) = (Vec::new(), Vec::new(), Arc::new(release));
        self.all.push(Feed { log, home, items, publisher, group: id, key, live });
        Ok(())
    }

    /// A log of what narrows, beside a feed and by the same publisher.
    pub(super) fn beside(&mut self, feed: u32, home: u32, item: Published) -> Result<u32> {
        let of = self.all.get(feed as usize).context("no such feed")?;
        let (publisher, group, key) = (of.publisher, of.group, Arc::clone(&of.key));
        let number = u32::try_from(self.all.len())?;
        let log = item.item.log;
        self.by_log.insert(log, number);
        let (items, live) = (vec![item], Vec::new());
        self.all.push(Feed { log, home, items, publisher, group, key, live });
        Ok(number)
    }

    fn accept(&mut self, item: &Item) -> Result<()> {
        if item.kind < ItemKind::Entry {
            self.documents.push(item.clone());
        }
        self.accept_at(item, UNIX_START)
    }

    /// The rules must accept an item at this time.
    pub(super) fn accept_at(&mut self, item: &Item, now_unix: u64) -> Result<()> {
        match self.judge.judge(item, now_unix) {
            Verdict::Accepted { .. } => Ok(()),
            other => Err(anyhow!("a document of the simulation is {other:?}")),
        }
    }

    /// Signs the next entry of a feed. The rules must accept it.
    pub(crate) fn publish(&mut self, feed: u32, now_unix: u64) -> Result<u64> {
        let fleet = self.fleet;
        let f = self.all.get_mut(feed as usize).context("no such feed")?;
        let seq = f.items.len() as u64 + 1;
        let release = release(f.group, seq)?;
        let item = f.entry(seq, release.clone(), now_unix, fleet)?;
        f.live.push(release.hash());
        f.items.push(Published::of(item.clone(), self.messages, now_unix));
        self.messages += 1;
        match self.judge.judge(&item, now_unix) {
            Verdict::Accepted { .. } => Ok(seq),
            other => Err(anyhow!("an entry of the simulation is {other:?}")),
        }
    }

    /// Signs another entry with the number of the newest one, and ends the feed by that. The rules
    /// must accept the two as a proof.
    pub(crate) fn equivocate(&mut self, feed: u32, now_unix: u64) -> Result<()> {
        let fleet = self.fleet;
        let f = self.all.get_mut(feed as usize).context("no such feed")?;
        let last = f.items.pop().context("no entry yet")?;
        let seq = last.item.seq;
        let newest = f.live.pop();
        let rival = f.entry(seq, release(f.group, seq + 1_000_000)?, now_unix, fleet)?;
        f.live.extend(newest);
        let proof = Proof::of(&last.item.envelope, &rival.envelope).context("no fork")?;
        let message = last.message;
        f.items.push(last);
        let proof = proof.item().context("a proof that is too long")?;
        self.accept(&proof)?;
        let rival = Published::of(rival, message, now_unix);
        let proof = Published::of(proof, message, now_unix);
        self.forks.insert(feed, Fork { at: seq, rival, proof });
        Ok(())
    }

    /// The number of a log's feed.
    pub(crate) fn find(&self, log: &LogId) -> Option<u32> {
        self.by_log.get(log).copied()
    }

    /// Items of a feed so far.
    pub(crate) fn len(&self, feed: u32) -> u64 {
        self.all.get(feed as usize).map_or(0, |f| f.items.len() as u64)
    }

    /// One published item.
    pub(crate) fn item(&self, feed: u32, seq: u64) -> Option<&Published> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.all.get(feed as usize)?.items.get(at)
    }

    /// The head that a node has which stored so many items.
    pub(crate) fn head(&self, feed: u32, stored: u64) -> Option<Head> {
        let log = self.all.get(feed as usize)?.log;
        self.item(feed, stored).map(|p| Head::of(log, stored, p.hash))
    }

    /// Is this what the publisher signed under that number?
    pub(crate) fn genuine(&self, item: &Item) -> Option<(u32, &Published)> {
        let feed = self.find(&item.log)?;
        let published = self.item(feed, item.seq)?;
        (*published.item == *item).then_some((feed, published))
    }

    /// What the rules say of an item that no publisher made.
    pub(crate) fn judge_forged(&mut self, item: &Item, now_unix: u64) -> Option<Refusal> {
        let key = *blake3::hash(&encode(item)).as_bytes();
        if let Some(known) = self.forged.get(&key) {
            return Some(*known);
        }
        let why = match self.judge.judge(item, now_unix) {
            Verdict::Accepted { .. } => return None,
            Verdict::Known => Refusal::Duplicate,
            Verdict::Pending { .. } => Refusal::Pending,
            Verdict::Refused(r) if r.blames_sender() => Refusal::Invalid,
            Verdict::Refused(_) | Verdict::Rival { .. } | Verdict::Behind { .. } => {
                Refusal::Unknown
            }
        };
        self.forged.insert(key, why);
        Some(why)
    }

    /// The newest entry of a feed with another body under the old signature.
    pub(crate) fn forge(&self, feed: u32) -> Option<Item> {
        let last = self.all.get(feed as usize)?.items.last()?;
        let mut forged = Item::clone(&last.item);
        let mut body = forged.envelope.body.to_vec();
        let at = body.len().checked_sub(20)?;
        *body.get_mut(at)? ^= 1;
        forged.envelope.body = stork_wire::codec::Blob::new(body).ok()?;
        Some(forged)
    }
}

impl Published {
    pub(super) fn of(item: Item, message: u32, signed_at: u64) -> Self {
        let hash = item.hash();
        let print = Head::of(item.log, item.seq, hash).fingerprint();
        Self { item: Arc::new(item), hash, message, signed_at, print }
    }
}

impl Feed {
    /// The entry that would come after the live releases.
    fn entry(&self, seq: u64, release: Release, now_unix: u64, fleet: FleetId) -> Result<Item> {
        let before = usize::try_from(seq.saturating_sub(2))?;
        let live = self.live.iter().copied().chain([release.hash()]);
        let entry = Entry {
            version: BODY_VERSION,
            publisher: self.publisher,
            epoch: 1,
            seq,
            prev: self.items.get(before).filter(|_| seq > 1).map(|p| p.hash),
            document: 1,
            signed_at: now_unix,
            expires: FAR,
            view_root: view_root(live),
            kind: Kind::Release(Box::new(release)),
            via: None,
        };
        signed(ItemKind::Entry, self.log, seq, (&entry, fleet, self.key.as_ref()))
    }
}

pub(super) fn release(group: GroupId, n: u64) -> Result<Release> {
    let name = n.to_le_bytes();
    Ok(Release {
        package: "hello".parse()?,
        version: format!("1.0-{n}").parse()?,
        arch: "amd64".parse()?,
        release: n,
        min_secure_release: 0,
        groups: List::truncated([group]),
        tree: TreeId::of(&name),
        manifest: ManifestRef {
            id: ManifestId::of(&name),
            size: 1_000,
            pieces: PieceHash([0; 32]),
        },
        full_bytes: 100_000,
        delta: None,
        unpacked_bytes: 400_000,
        files: 12,
        depends: List::truncated(["libc6 (>= 2.36)".parse()?]),
        provides: List::empty(),
        urgency: Urgency::Normal,
        origins: List::empty(),
        bundle: None,
    })
}
