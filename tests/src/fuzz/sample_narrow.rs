//! Valid items that narrow, and what a delegated key signs, for the fuzz targets.

use stork_wire::charter::{HostScope, PublisherDoc, Survivor};
use stork_wire::delegated::Delegated;
use stork_wire::deny::{Content, Denial, Denied};
use stork_wire::feed::{Kind, view_root};
use stork_wire::grant::HostGrant;
use stork_wire::ids::{NodeId, Position};
use stork_wire::item::{Item, ItemKind};
use stork_wire::retire::Retire;
use stork_wire::seal::Sealed;
use stork_wire::sign::Envelope;
use stork_wire::suicide::Suicide;
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::samples::{Fleet, NOW, group_key, key, list, release};

impl Fleet {
    /// An entry whose release is sealed.
    #[must_use]
    pub fn sealed(&self) -> Item {
        let release = release(self.group, 1);
        let sealed = Sealed::seal(&release, self.publisher, &group_key(), [3; 16]).unwrap();
        let mut entry = self.entry(1, None, &[release]);
        entry.view_root = view_root([sealed.hash()]);
        entry.kind = Kind::Sealed(Box::new(sealed));
        self.signed(&entry)
    }

    /// What follows a feed of two releases: the second is retired, and then the feed begins anew.
    #[must_use]
    pub fn anew(&self) -> [Item; 2] {
        let feed = self.feed(2);
        let (at, last) = (Position { epoch: 1, seq: 2 }, feed.last().map(Item::hash));
        let mut entry = self.entry(4, last, &[]);
        entry.kind = Kind::Retire(Retire { releases: list([at]) });
        let retire = self.signed(&entry);
        let first = &self.documents[2];
        let mut doc: PublisherDoc = first.envelope.claimed().unwrap();
        (doc.number, doc.prev, doc.epoch) = (2, Some(first.hash()), 2);
        let hash = retire.hash();
        doc.compacts = Some(Survivor { at: Position { epoch: 1, seq: 4 }, hash });
        let envelope = Envelope::sign(&doc, self.fleet, &key(4)).unwrap();
        [retire, Item { seq: 2, envelope, ..first.clone() }]
    }

    /// The release key lets key 8 release `hello` for an hour.
    #[must_use]
    pub fn certificate(&self) -> Envelope {
        let cert = Delegated {
            version: 1,
            publisher: self.publisher,
            epoch: 1,
            key: key(8).public(),
            packages: list(["hello".parse().unwrap()]),
            from: NOW,
            until: NOW + 3_600,
        };
        Envelope::sign(&cert, self.fleet, &key(5)).unwrap()
    }

    /// The feed's first entry, by that key.
    #[must_use]
    pub fn delegated(&self) -> Item {
        let mut entry = self.entry(1, None, &[release(self.group, 1)]);
        entry.via = Some(Box::new(self.certificate()));
        let envelope = Envelope::sign(&entry, self.fleet, &key(8)).unwrap();
        Item { envelope, ..self.signed(&entry) }
    }

    /// What a host may take part in.
    #[must_use]
    pub fn grant(&self) -> Item {
        let groups = Some(list([self.group]));
        let scope = HostScope { labels: list(["edge".parse().unwrap()]), groups };
        let (node, signer) = (NodeId(key(7).public().0), key(2).public());
        let grant = HostGrant { version: 1, node, signer, scope, signed_at: NOW };
        grant.item(Envelope::sign(&grant, self.fleet, &key(2)).unwrap())
    }

    /// A denial by the group's veto key, one of a host, the end of the release key, a recall and a
    /// halt.
    #[must_use]
    pub fn narrowing(&self) -> Vec<Item> {
        let reason: stork_wire::text::Line = "a hole".parse().unwrap();
        let what = Content::Releases {
            publisher: self.publisher,
            package: "*".parse().unwrap(),
            from: 1,
            to: 2,
        };
        let content = Denied::Content { group: self.group, signer: key(6).public(), what };
        let host = Denied::Host(NodeId(key(7).public().0));
        let mut out = Vec::new();
        for (what, by) in [(content, 6), (host, 2)] {
            let denial = Denial { version: 1, what, signed_at: NOW, reason: reason.clone() };
            out.push(denial.item(Envelope::sign(&denial, self.fleet, &key(by)).unwrap()));
        }
        let gone = list([release(self.group, 1).hash()]);
        let recall = What::Recall { package: "hello".parse().unwrap(), releases: gone };
        let halt = What::Halt { package: None, halted: true };
        for (what, by, signer) in [(recall, Level::Release, 5), (halt, Level::Root, 4)] {
            let (publisher, reason) = (self.publisher, reason.clone());
            let (version, epoch, document, signed_at) = (1, 1, 1, NOW);
            let w = Withdrawal { version, publisher, epoch, document, by, signed_at, what, reason };
            out.push(w.item(Envelope::sign(&w, self.fleet, &key(signer)).unwrap()));
        }
        let end = Suicide { version: 1, key: key(5).public(), signed_at: NOW, reason };
        out.push(end.item(Envelope::sign(&end, self.fleet, &key(5)).unwrap()));
        out
    }
}

/// The tag of such a body among all kinds.
pub(super) const fn narrowing_tag(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::Deny => 10,
        ItemKind::Suicide => 11,
        _ => 12,
    }
}
