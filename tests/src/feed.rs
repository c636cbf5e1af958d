//! Entries of a publisher's feed by hand: the next one, and every way in which it can be wrong.

use std::net::SocketAddr;
use std::path::Path;

use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Recall, Release, view_root};
use stork_wire::frame::{PushReply, PushRequest};
use stork_wire::ids::{FleetId, LogId, NodeId, ReleaseHash};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Body, Envelope, SecretKey, signed_bytes};

use crate::fleet::Fleet;
use crate::hostile::{place, runtime};
use crate::raw_push::{Publisher, now};

/// Where a feed stands, and the key that continues it.
#[derive(Debug)]
pub struct Feed {
    /// The publisher.
    pub publisher: Publisher,
    /// The newest entry as it was signed.
    pub head: Envelope,
    /// The same, read.
    pub entry: Entry,
    /// Releases that are not withdrawn.
    pub live: Vec<ReleaseHash>,
}

impl Feed {
    /// Asks the first host of a fleet.
    #[must_use]
    pub fn read(fleet: &Fleet) -> Self {
        Self::read_of(fleet, &fleet.charter)
    }

    /// The same for the publisher of another folder.
    #[must_use]
    pub fn read_of(fleet: &Fleet, charter: &Path) -> Self {
        Self::read_at(charter, place(fleet.hosts.first().unwrap()))
    }

    /// The same as any host knows it.
    #[must_use]
    pub fn read_at(charter: &Path, (node, addr): (NodeId, SocketAddr)) -> Self {
        let publisher = Publisher::open(charter).unwrap();
        let reply = runtime().block_on(async {
            let session = publisher.connect(node, addr).await.unwrap();
            session.ask(&PushRequest::Head, &[]).await.unwrap().0
        });
        let PushReply::Head { entry: Some(head), live } = reply else {
            panic!("no head: {reply:?}")
        };
        let entry = head.claimed().unwrap();
        Self { publisher, head: *head, entry, live: live.to_vec() }
    }

    /// The release of the newest entry.
    #[must_use]
    pub fn release(&self) -> Release {
        match &self.entry.kind {
            Kind::Release(r) => Release::clone(r),
            _ => panic!("the newest entry is no release"),
        }
    }

    /// The next entry, which announces this release.
    #[must_use]
    pub fn next(&self, mut release: Release) -> Entry {
        let seq = self.entry.seq + 1;
        release.release = seq;
        Entry {
            seq,
            prev: Some(self.head.hash()),
            signed_at: now(),
            expires: now() + 86_400,
            view_root: view_root(self.live.iter().copied().chain([release.hash()])),
            kind: Kind::Release(Box::new(release)),
            via: None,
            ..self.entry.clone()
        }
    }

    /// The next entry as it should be, but for what `change` does to its release.
    #[must_use]
    pub fn next_with(&self, change: impl FnOnce(&mut Release)) -> Entry {
        let mut release = self.release();
        release.version = "99".parse().unwrap();
        change(&mut release);
        self.next(release)
    }

    /// Goes on by the release that `change` makes of the newest one, and returns its item.
    #[must_use]
    pub fn announce(&mut self, change: impl FnOnce(&mut Release)) -> Item {
        let mut release = self.release();
        change(&mut release);
        self.entry = self.next(release);
        self.live.push(self.release().hash());
        self.head = self.sign(&self.entry);
        self.item(self.head.clone(), self.entry.seq)
    }

    /// Goes on by a recall of what never was, and returns its item: an entry that changes nothing.
    #[must_use]
    pub fn go_on(&mut self) -> Item {
        let recall = Recall {
            package: "app".parse().unwrap(),
            releases: List::truncated([u64::MAX]),
            reason: "test".parse().unwrap(),
        };
        self.entry = Entry {
            seq: self.entry.seq + 1,
            prev: Some(self.head.hash()),
            signed_at: now(),
            expires: now() + 86_400,
            view_root: view_root(self.live.iter().copied()),
            kind: Kind::Recall(recall),
            via: None,
            ..self.entry.clone()
        };
        self.head = self.sign(&self.entry);
        self.item(self.head.clone(), self.entry.seq)
    }

    /// An entry signed with the release key.
    #[must_use]
    pub fn sign(&self, entry: &Entry) -> Envelope {
        Envelope::sign(entry, self.publisher.fleet, &self.publisher.key).unwrap()
    }

    /// An entry signed with any key for any fleet.
    #[must_use]
    pub fn sign_as(entry: &Entry, fleet: FleetId, key: &SecretKey) -> Envelope {
        Envelope::sign(entry, fleet, key).unwrap()
    }

    /// An entry signed as if it were another kind of body.
    #[must_use]
    pub fn sign_in_context(&self, entry: &Entry, context: &str) -> Envelope {
        let mut envelope = Envelope::unsigned(entry).unwrap();
        let message = signed_bytes(context, self.publisher.fleet, &envelope.body);
        let key = &self.publisher.key;
        envelope.add(key.public(), key.sign(&message)).unwrap();
        envelope
    }

    /// Any bytes, properly signed as an entry.
    #[must_use]
    pub fn sign_bytes(&self, bytes: Vec<u8>) -> Envelope {
        let body = stork_wire::codec::Blob::new(bytes).unwrap();
        let signatures = List::empty();
        let mut envelope = Envelope { body, signatures };
        let message = signed_bytes(Entry::CONTEXT, self.publisher.fleet, &envelope.body);
        let key = &self.publisher.key;
        envelope.add(key.public(), key.sign(&message)).unwrap();
        envelope
    }

    /// The item that carries an entry, under the number that the entry has.
    #[must_use]
    pub fn item(&self, envelope: Envelope, seq: u64) -> Item {
        let epoch = envelope.claimed::<Entry>().map_or(1, |e| e.epoch);
        let log = LogId::feed_epoch(self.publisher.id, epoch);
        Item { kind: ItemKind::Entry, log, seq, envelope }
    }

    /// Asks the first host of a fleet to commit, as a publisher that was let in.
    #[must_use]
    pub fn commit(&self, fleet: &Fleet, envelope: Envelope) -> PushReply {
        self.ask(fleet, &PushRequest::Commit(envelope), &[])
    }

    /// Any request to the first host of a fleet, as a publisher that was let in.
    #[must_use]
    pub fn ask(&self, fleet: &Fleet, request: &PushRequest, bytes: &[u8]) -> PushReply {
        ask(&self.publisher, fleet, request, bytes)
    }
}

/// Any request of a publisher to the first host of a fleet.
#[must_use]
pub fn ask(by: &Publisher, fleet: &Fleet, request: &PushRequest, bytes: &[u8]) -> PushReply {
    let (node, addr) = place(fleet.hosts.first().unwrap());
    runtime().block_on(async {
        let session = by.connect(node, addr).await.unwrap();
        let reply = session.ask(request, bytes).await.unwrap().0;
        session.close().await;
        reply
    })
}
