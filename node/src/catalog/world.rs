//! A small fleet for tests: several publishers in one group, whose feeds are written by hand.

use stork_wire::charter::{GroupDoc, PublisherDoc, PublisherGrant, ReleaseKey, Role};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Recall, Release, view_root};
use stork_wire::ids::{FleetId, GroupId, ItemHash, LogId, PublisherId, ReleaseHash};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::SecretKey;

use super::{Catalog, Considered, Plan, Scene, Shown, VmFile};
use crate::trust::{Fact, Refusal, Trust, Verdict};
use crate::trust_fixture::{Fixture, NOW, item, key, root_doc};

/// One publisher's pen.
struct Pen {
    id: PublisherId,
    key: SecretKey,
    seq: u64,
    prev: Option<ItemHash>,
    live: Vec<(String, u64, ReleaseHash)>,
}

/// The fleet, as one host knows it.
pub(super) struct World {
    pub(super) fleet: FleetId,
    pub(super) group: GroupId,
    pub(super) trust: Trust,
    pub(super) catalog: Catalog,
    pub(super) now: u64,
    pens: Vec<Pen>,
    pub(super) documents: Vec<Item>,
}

fn publisher(n: u8, name: &str) -> PublisherDoc {
    PublisherDoc {
        version: 1,
        number: 1,
        prev: None,
        name: name.parse().unwrap(),
        issued: NOW - 100,
        expires: NOW + 1_000_000,
        root: Role::single(key(50 + n).public()),
        epoch: 1,
        survivor: None,
        release_keys: List::truncated([ReleaseKey {
            key: key(80 + n).public(),
            packages: List::truncated(["*".parse().unwrap()]),
            not_after: NOW + 1_000_000,
            valid_through: None,
        }]),
        beacon_keys: List::empty(),
        homes: List::empty(),
        delegations: List::empty(),
        compacts: None,
    }
}

impl World {
    /// Publishers of these names, all in the group `web`, of which the grant is what `grant` makes
    /// of one for everything (`false`: none). `edit` may change their documents; it is asked from
    /// the last one on, and told the ids of those that come after.
    pub(super) fn new(
        names: &[&str],
        edit: impl Fn(usize, &mut PublisherDoc, &[PublisherId]),
        grant: impl Fn(usize, &mut PublisherGrant) -> bool,
    ) -> Self {
        let root = root_doc();
        let fleet = root.fleet_id();
        let mut docs: Vec<PublisherDoc> = Vec::new();
        let mut ids: Vec<PublisherId> = Vec::new();
        for (i, name) in names.iter().enumerate().rev() {
            let mut doc = publisher(u8::try_from(i).unwrap(), name);
            edit(i, &mut doc, &ids);
            ids.insert(0, doc.publisher_id());
            docs.insert(0, doc);
        }
        let mut grants: Vec<PublisherGrant> = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let mut one = PublisherGrant {
                publisher: *id,
                name: names[i].parse().unwrap(),
                packages: List::truncated(["*".parse().unwrap()]),
                provides: List::truncated(["*".parse().unwrap()]),
                release_bytes_max: 0,
            };
            if grant(i, &mut one) {
                grants.push(one);
            }
        }
        grants.sort_by_key(|g| g.publisher);
        let group = GroupDoc {
            version: 1,
            number: 1,
            prev: None,
            name: "web".parse().unwrap(),
            issued: NOW - 100,
            expires: NOW + 1_000_000,
            authority: Role::single(key(3).public()),
            publishers: List::new(grants).unwrap(),
            veto: List::empty(),
            lifts: List::empty(),
            private: None,
            beacon_s: None,
        };
        let group_id = group.group_id();
        let mut documents = vec![
            item(ItemKind::Root, LogId::root(fleet), 1, &root, fleet, &key(1)),
            item(ItemKind::Group, LogId::group(group_id), 1, &group, fleet, &key(3)),
        ];
        let mut pens = Vec::new();
        for (i, (doc, id)) in docs.iter().zip(&ids).enumerate() {
            let n = u8::try_from(i).unwrap();
            let log = LogId::publisher(*id);
            documents.push(item(ItemKind::Publisher, log, 1, doc, fleet, &key(50 + n)));
            let key = key(80 + n);
            pens.push(Pen { id: *id, key, seq: 0, prev: None, live: Vec::new() });
        }
        let (trust, catalog) = (Trust::new(fleet), Catalog::default());
        let mut world = Self { fleet, group: group_id, trust, catalog, now: NOW, pens, documents };
        for item in world.documents.clone() {
            assert!(matches!(world.trust.judge(&item, NOW), Verdict::Accepted { .. }));
        }
        world
    }

    /// Publishers that may all do everything.
    pub(super) fn plain(names: &[&str]) -> Self {
        Self::new(names, |_, _, _| {}, |_, _| true)
    }

    pub(super) fn id(&self, who: usize) -> PublisherId {
        self.pens[who].id
    }

    fn give(&mut self, who: usize, kind: Kind) -> Result<(), Refusal> {
        let pen = &mut self.pens[who];
        let mut live = pen.live.clone();
        match &kind {
            Kind::Release(r) => live.push((r.package.to_string(), r.release, r.hash())),
            Kind::Sealed(s) => live.push(("sealed".to_owned(), 0, s.hash())),
            Kind::Recall(r) => {
                live.retain(|(p, n, _)| *p != r.package.as_str() || !r.releases.contains(n));
            }
            Kind::Retire(_) => {}
        }
        let entry = Entry {
            version: 1,
            publisher: pen.id,
            epoch: 1,
            seq: pen.seq + 1,
            prev: pen.prev,
            document: 1,
            signed_at: self.now,
            expires: self.now + 100_000,
            view_root: view_root(live.iter().map(|(_, _, h)| *h)),
            kind,
            via: None,
        };
        let log = LogId::feed(pen.id);
        let item = item(ItemKind::Entry, log, entry.seq, &entry, self.fleet, &pen.key);
        match self.trust.judge(&item, self.now) {
            Verdict::Accepted { fact: Fact::Entry(e), .. } => self.catalog.apply(e.get()),
            Verdict::Refused(why) => return Err(why),
            other => panic!("{other:?}"),
        }
        (pen.seq, pen.prev, pen.live) = (entry.seq, Some(item.envelope.hash()), live);
        Ok(())
    }

    /// Announces a release; its content is of its version alone, so that publishers agree on it.
    pub(super) fn try_announce(
        &mut self,
        who: usize,
        package: &str,
        version: &str,
        change: impl FnOnce(&mut Release),
    ) -> Result<(), Refusal> {
        let counter = self.pens[who].seq + 1;
        let mut release = Fixture::new().release(package, version, counter);
        release.groups = List::truncated([self.group]);
        change(&mut release);
        self.give(who, Kind::Release(Box::new(release)))
    }

    pub(super) fn announce(&mut self, who: usize, package: &str, version: &str) {
        self.try_announce(who, package, version, |_| {}).unwrap();
    }

    /// Announces one with these lines of dependencies and provided names.
    pub(super) fn needing(
        &mut self,
        who: usize,
        (package, version): (&str, &str),
        depends: &[&str],
        provides: &[&str],
    ) {
        self.try_announce(who, package, version, |r| {
            r.depends = List::truncated(depends.iter().map(|d| d.parse().unwrap()));
            r.provides = List::truncated(provides.iter().map(|p| p.parse().unwrap()));
        })
        .unwrap();
    }

    pub(super) fn recall(&mut self, who: usize, package: &str, releases: &[u64]) {
        let kind = Kind::Recall(Recall {
            package: package.parse().unwrap(),
            releases: List::truncated(releases.iter().copied()),
            reason: "bad".parse().unwrap(),
        });
        self.give(who, kind).unwrap();
    }

    pub(super) fn scene(&self) -> Scene<'_> {
        Scene::new(&self.trust, self.now)
    }

    pub(super) fn plan(&self, vm: &VmFile, shown: &Shown) -> Plan {
        self.catalog.plan(vm, shown, self.scene())
    }

    /// The versions that a VM should show, by package.
    pub(super) fn wish(&self, vm: &VmFile, shown: &Shown) -> Vec<String> {
        let plan = self.plan(vm, shown);
        let one = |r: &Release| format!("{} {}", r.package, r.version);
        plan.wish.values().map(|c| one(&c.known.release)).collect()
    }

    pub(super) fn consider<'a>(
        &'a self,
        vm: &VmFile,
        package: &str,
        shown: &Shown,
    ) -> Vec<Considered<'a>> {
        self.catalog.consider(vm, &package.parse().unwrap(), shown, self.scene())
    }

    /// What a VM shows after it was switched to all that it should show.
    pub(super) fn show(&self, vm: &VmFile, before: &Shown) -> Shown {
        let plan = self.plan(vm, before);
        let mut shown = Shown { skipped: before.skipped.clone(), ..Shown::default() };
        for (package, choice) in plan.wish {
            let k = choice.known;
            shown.releases.insert(package.clone(), k.hash);
            shown.installed.insert(package, (k.publisher, k.release.release));
        }
        shown
    }

    /// The same where what is shown was withdrawn meanwhile.
    pub(super) fn standing(&self, shown: &Shown) -> Shown {
        let mut shown = shown.clone();
        shown.releases.retain(|_, h| self.catalog.by_hash(*h).is_some());
        shown
    }
}

/// A VM of the group `web`: lines of `[vm]`, then tables.
pub(super) fn vm(head: &str, tables: &str) -> VmFile {
    let text = format!(
        "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n{head}\n{tables}\n\
         [view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n"
    );
    VmFile::parse("web-1", &text).unwrap()
}

/// Everything, from acme.
pub(super) const ALL: &str = "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"acme\"\n";
