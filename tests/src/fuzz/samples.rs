//! Valid inputs for every target, all made from fixed seeds: one small fleet, and one of each kind
//! of message.

use stork_wire::beacon::{Beacon, BeaconHead};
use stork_wire::bundle::Bundle;
use stork_wire::charter::{
    Authority, Cell, Delegation, GroupDoc, HostCert, HostScope, JoinToken, Lift, PastKey,
    PeerRecord, PublisherDoc, PublisherGrant, PushCert, ReleaseKey, Role, RootDoc, ShortGroup,
    VetoKey,
};
use stork_wire::codec::{List, encode};
use stork_wire::feed::{DeltaOffer, Entry, Kind, Recall, Release, Urgency, view_root};
use stork_wire::frame::PeerHint;
use stork_wire::ids::{FleetId, GroupId, ItemHash, LogId, NodeId, PublisherId, TreeId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::manifest::Manifest;
use stork_wire::permit::{DowngradePermit, PermitText};
use stork_wire::proof::Proof;
use stork_wire::seal::GroupKey;
use stork_wire::sign::{Body, Envelope, SecretKey};

pub(super) use super::sample_files::{manifests, node_tomls, vm_tomls};
pub(super) use super::sample_frames::{bulks, frames, push_replies, push_requests};
use super::sample_narrow::narrowing_tag;

/// The fleet for which bodies are signed that need not belong to a real charter.
pub(super) const FLEET: FleetId = FleetId([0xf1; 32]);
/// When everything was signed.
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(super) fn list<T, const N: usize>(items: impl IntoIterator<Item = T>) -> List<T, N> {
    List::truncated(items)
}

/// A charter with one group and one publisher, and its signed items.
#[derive(Debug)]
pub struct Fleet {
    /// Its id.
    pub fleet: FleetId,
    /// The group.
    pub group: GroupId,
    /// The publisher.
    pub publisher: PublisherId,
    /// Root, group and publisher documents.
    pub documents: Vec<Item>,
}

fn item<T: Body>(kind: ItemKind, log: LogId, seq: u64, body: &T, by: (FleetId, u8)) -> Item {
    Item { kind, log, seq, envelope: Envelope::sign(body, by.0, &key(by.1)).unwrap() }
}

fn root() -> RootDoc {
    RootDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "fleet".parse().unwrap(),
        issued: NOW - 100,
        expires: NOW + 1_000_000,
        root: Role::single(key(1).public()),
        admission: Role::single(key(2).public()),
        authorities: list([Authority {
            names: "*".parse().unwrap(),
            role: Role::single(key(3).public()),
        }]),
        admission_before: list([PastKey { key: key(8).public(), until: NOW + 1_000 }]),
    }
}

fn publisher() -> PublisherDoc {
    PublisherDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "acme".parse().unwrap(),
        issued: NOW - 100,
        expires: NOW + 1_000_000,
        root: Role::single(key(4).public()),
        epoch: 1,
        survivor: None,
        release_keys: list([ReleaseKey {
            key: key(5).public(),
            packages: list(["hello*".parse().unwrap()]),
            not_after: NOW + 1_000_000,
            valid_through: None,
        }]),
        beacon_keys: List::empty(),
        homes: List::empty(),
        delegations: list([Delegation {
            to: PublisherId([3; 32]),
            packages: list(["h*".parse().unwrap()]),
            terminating: true,
            depth: 1,
        }]),
        compacts: None,
    }
}

/// The key of the private group.
#[must_use]
pub(super) fn group_key() -> GroupKey {
    GroupKey::from_bytes([7; 32])
}

fn group(publisher: PublisherId) -> GroupDoc {
    GroupDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "web".parse().unwrap(),
        issued: NOW - 100,
        expires: NOW + 1_000_000,
        authority: Role::single(key(3).public()),
        publishers: list([PublisherGrant {
            publisher,
            name: "acme".parse().unwrap(),
            packages: list(["hello*".parse().unwrap()]),
            provides: List::empty(),
            release_bytes_max: 0,
        }]),
        veto: list([VetoKey { key: key(6).public(), not_after: NOW + 1_000_000 }]),
        lifts: list([
            Lift::Denial { log: LogId([5; 32]), through: NOW - 1_000 },
            Lift::AllBy(key(8).public()),
        ]),
        private: Some(group_key().id()),
        beacon_s: Some(900),
    }
}

impl Fleet {
    /// The fleet.
    #[must_use]
    pub fn new() -> Self {
        let (root, publisher) = (root(), publisher());
        let (fleet, publisher_id) = (root.fleet_id(), publisher.publisher_id());
        let group = group(publisher_id);
        let group_id = group.group_id();
        let documents = vec![
            item(ItemKind::Root, LogId::root(fleet), 1, &root, (fleet, 1)),
            item(ItemKind::Group, LogId::group(group_id), 1, &group, (fleet, 3)),
            item(ItemKind::Publisher, LogId::publisher(publisher_id), 1, &publisher, (fleet, 4)),
        ];
        Self { fleet, group: group_id, publisher: publisher_id, documents }
    }

    /// An item of a kind that only a later version knows.
    #[must_use]
    pub fn later(&self) -> Item {
        let envelope = self.documents[0].envelope.clone();
        Item { kind: ItemKind::of(10), log: LogId([6; 32]), seq: 1, envelope }
    }

    /// An entry of the feed: a release, or a recall of the first one.
    #[must_use]
    pub fn entry(&self, seq: u64, prev: Option<ItemHash>, live: &[Release]) -> Entry {
        let kind = live.last().map_or_else(
            || {
                Kind::Recall(Recall {
                    package: "hello".parse().unwrap(),
                    releases: list([1]),
                    reason: "a hole".parse().unwrap(),
                })
            },
            |release| Kind::Release(Box::new(release.clone())),
        );
        Entry {
            version: 1,
            publisher: self.publisher,
            epoch: 1,
            seq,
            prev,
            document: 1,
            signed_at: NOW,
            expires: NOW + 100_000,
            view_root: view_root(live.iter().map(Release::hash)),
            kind,
            via: None,
        }
    }

    /// An entry as an item.
    #[must_use]
    pub fn signed(&self, entry: &Entry) -> Item {
        let log = LogId::feed_epoch(self.publisher, entry.epoch);
        item(ItemKind::Entry, log, entry.seq, entry, (self.fleet, 5))
    }

    /// The feed: so many releases of one package, and a recall of the first one.
    #[must_use]
    pub fn feed(&self, releases: u64) -> Vec<Item> {
        let mut out: Vec<Item> = Vec::new();
        let mut live = Vec::new();
        for seq in 1..=releases {
            live.push(release(self.group, seq));
            let prev = out.last().map(Item::hash);
            out.push(self.signed(&self.entry(seq, prev, &live)));
        }
        let mut recall = self.entry(releases + 1, out.last().map(Item::hash), &[]);
        recall.view_root = view_root(live.iter().skip(1).map(Release::hash));
        out.push(self.signed(&recall));
        out
    }

    /// Two entries with one number.
    #[must_use]
    pub fn proof(&self) -> Proof {
        let one = |n| self.signed(&self.entry(1, None, &[release(self.group, n)])).envelope;
        Proof::of(&one(1), &one(2)).unwrap()
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn release(group: GroupId, n: u64) -> Release {
    Release {
        package: "hello".parse().unwrap(),
        version: format!("1.{n}").parse().unwrap(),
        arch: "all".parse().unwrap(),
        release: n,
        min_secure_release: 0,
        groups: list([group]),
        tree: TreeId([3; 32]),
        manifest: Manifest::reference(b"a manifest"),
        full_bytes: 100,
        delta: (n > 1).then_some(DeltaOffer { base: TreeId([2; 32]), bytes: 7 }),
        unpacked_bytes: 100,
        files: 1,
        depends: list(["libc6 (>= 2.36)".parse().unwrap()]),
        provides: List::empty(),
        urgency: Urgency::Normal,
        origins: list([NodeId([9; 32])]),
        bundle: Some(Box::new(Bundle {
            name: "stack".parse().unwrap(),
            members: list(["hello".parse().unwrap(), "world".parse().unwrap()]),
        })),
    }
}

fn cert() -> HostCert {
    let node = NodeId(key(7).public().0);
    let site: stork_wire::text::Label = "default".parse().unwrap();
    let (issued, expires) = (NOW - 10, NOW + 3_600);
    HostCert {
        version: 1,
        node,
        name: "host-7".parse().unwrap(),
        site,
        issued,
        expires,
        scope: Some(Box::new(scope())),
    }
}

fn record() -> PeerRecord {
    let HostCert { node, site, issued, expires, .. } = cert();
    let addrs = list(["127.0.0.1:7749".parse().unwrap(), "[::1]:7749".parse().unwrap()]);
    let groups = list([GroupId([1; 32]), GroupId([2; 32])]);
    let some = [ShortGroup::of(&GroupId([2; 32]))];
    let cell = Some(Cell { hosts: 40, groups: List::truncated(some), more: false });
    PeerRecord {
        version: 1,
        node,
        incarnation: 3,
        addrs,
        site,
        groups,
        cell,
        admits: true,
        issued,
        expires,
    }
}

/// Certificate and record of a host.
pub(super) fn hint() -> PeerHint {
    let cert = Envelope::sign(&cert(), FLEET, &key(2)).unwrap();
    let record = Envelope::sign(&record(), FLEET, &key(7)).unwrap();
    PeerHint { cert, record }
}

fn join_token() -> JoinToken {
    JoinToken {
        version: 1,
        fleet: FLEET,
        id: [2; 16],
        admitter: NodeId(key(7).public().0),
        addrs: list(["127.0.0.1:7749".parse().unwrap()]),
        name: Some("host-8".parse().unwrap()),
        site: "default".parse().unwrap(),
        issued: NOW,
        expires: NOW + 600,
        scope: Some(Box::new(scope())),
    }
}

/// Labels, and groups that are granted.
fn scope() -> HostScope {
    let groups = Some(list([GroupId([1; 32]), GroupId([2; 32])]));
    HostScope { labels: list(["edge".parse().unwrap()]), groups }
}

pub(super) fn push_cert() -> Envelope {
    let (tls_key, publisher) = (key(8).public(), PublisherId([4; 32]));
    let cert = PushCert { version: 1, tls_key, publisher, issued: NOW, expires: NOW + 600 };
    Envelope::sign(&cert, FLEET, &key(3)).unwrap()
}

pub(super) fn token_envelope() -> Envelope {
    Envelope::sign(&join_token(), FLEET, &key(2)).unwrap()
}

/// Beacons of a feed with an entry and of one without.
fn beacons() -> [(Beacon, Envelope); 2] {
    let head = BeaconHead { seq: 3, hash: ItemHash([6; 32]) };
    [Some(head), None].map(|head| {
        let publisher = PublisherId([4; 32]);
        let (counter, time, expires) = (NOW, NOW, NOW + 3_600);
        let beacon = Beacon { version: 1, publisher, epoch: 1, head, counter, time, expires };
        let envelope = Envelope::sign(&beacon, FLEET, &key(3)).unwrap();
        (beacon, envelope)
    })
}

pub(super) fn permit() -> Envelope {
    let permit = DowngradePermit {
        version: 1,
        vm: "db".parse().unwrap(),
        package: "hello".parse().unwrap(),
        publisher: PublisherId([4; 32]),
        release: 3,
        issued: NOW,
        until: NOW + 3_600,
    };
    Envelope::sign(&permit, FLEET, &key(3)).unwrap()
}

/// One envelope of each kind of body.
fn all_envelopes() -> Vec<(u8, Envelope)> {
    let fleet = Fleet::new();
    let proof = Envelope::unsigned(&fleet.proof()).unwrap();
    let mut out: Vec<(u8, Envelope)> =
        (0..3).zip(fleet.documents.clone()).map(|(k, i)| (k, i.envelope)).collect();
    out.extend(fleet.feed(2).into_iter().map(|i| (3, i.envelope)));
    out.push((3, fleet.sealed().envelope));
    let [retire, document] = fleet.anew();
    out.extend([(3, retire.envelope), (2, document.envelope)]);
    let hint = hint();
    out.extend([(4, proof), (5, hint.cert), (6, hint.record), (7, push_cert())]);
    out.push((8, token_envelope()));
    out.extend(beacons().map(|(_, e)| (9, e)));
    out.extend(fleet.narrowing().into_iter().map(|i| (narrowing_tag(i.kind), i.envelope)));
    out.push((13, permit()));
    out.push((15, fleet.grant().envelope));
    out.extend([(3, fleet.delegated().envelope), (14, fleet.certificate())]);
    out
}

pub(super) fn envelopes() -> Vec<Vec<u8>> {
    let mut all: Vec<Envelope> = all_envelopes().into_iter().map(|(_, e)| e).collect();
    let mut three = Envelope::unsigned(&root()).unwrap();
    for k in 1..=3 {
        let message = stork_wire::sign::signed_bytes(RootDoc::CONTEXT, FLEET, &three.body);
        three.add(key(k).public(), key(k).sign(&message)).unwrap();
    }
    all.push(three);
    all.iter().map(encode).collect()
}

pub(super) fn items() -> Vec<Vec<u8>> {
    let fleet = Fleet::new();
    let proof = fleet.proof().item();
    let later = fleet.later();
    let known =
        fleet.documents.iter().cloned().chain(fleet.feed(2)).chain([fleet.sealed()]).chain(proof);
    let beacons = beacons().map(|(b, e)| b.item(e));
    let known = known.chain(fleet.anew()).chain([fleet.grant()]);
    known.chain(beacons).chain(fleet.narrowing()).chain([later]).map(|i| encode(&i)).collect()
}

pub(super) fn bodies() -> Vec<Vec<u8>> {
    let tagged = |(kind, e): (u8, Envelope)| [&[kind], &*e.body].concat();
    all_envelopes().into_iter().map(tagged).collect()
}

pub(super) fn tokens() -> Vec<Vec<u8>> {
    let permit = PermitText(permit()).to_string();
    vec![JoinToken::to_text(&token_envelope()).into_bytes(), permit.into_bytes()]
}
