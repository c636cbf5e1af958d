//! Retiring releases, and beginning a feed anew: what makes room, and takes nothing from a VM.

use stork_wire::charter::{PublisherDoc, Survivor};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Release, view_root};
use stork_wire::ids::{ItemHash, LogId, Position, ReleaseHash};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::LIVE_RELEASES_MAX;
use stork_wire::retire::Retire;
use stork_wire::seal::{GroupKey, Sealed};

use super::epoch_tests::document;
use super::fork_tests::{Host, at, proof, twin};
use super::tests::{Fixture, NOW, item, key, refused};
use super::{Aside, Fact, Refusal, Trust, Verdict};
use crate::catalog::{Catalog, Fallen, Outcome, Scene, Shown, VmFile};

/// Signs one entry after the other, with the root of what is live.
struct Pen<'a> {
    f: &'a Fixture,
    epoch: u32,
    seq: u64,
    last: Option<ItemHash>,
    live: Vec<(Position, ReleaseHash)>,
    /// Signs without the root, which takes long for many entries that nobody judges.
    hurries: bool,
}

impl<'a> Pen<'a> {
    const fn new(f: &'a Fixture) -> Self {
        Self { f, epoch: 1, seq: 0, last: None, live: Vec::new(), hurries: false }
    }

    fn sign(&mut self, kind: Kind) -> Item {
        self.seq += 1;
        let place = at(self.epoch, self.seq);
        let mut entry = self.f.entry(self.seq, self.last, &[], self.f.release("hello", "1", 1));
        (entry.epoch, entry.kind) = (self.epoch, kind);
        entry.document = u64::from(self.epoch);
        if let Kind::Retire(r) = &entry.kind {
            self.live.retain(|(at, _)| !r.releases.contains(at));
        }
        self.live.extend(entry.release_hash().map(|h| (place, h)));
        if !self.hurries {
            entry.view_root = view_root(self.live.iter().map(|(_, h)| *h));
        }
        let log = LogId::feed_epoch(self.f.publisher, self.epoch);
        let item = item(ItemKind::Entry, log, self.seq, &entry, self.f.fleet, &self.f.release_key);
        self.last = Some(item.envelope.hash());
        item
    }

    fn release(&mut self, release: Release) -> Item {
        self.sign(Kind::Release(Box::new(release)))
    }

    fn retire(&mut self, places: &[Position]) -> Item {
        self.sign(Kind::Retire(Retire { releases: List::truncated(places.iter().copied()) }))
    }

    /// The feed begins anew.
    fn anew(&mut self) {
        (self.epoch, self.seq, self.last) = (self.epoch + 1, 0, None);
        self.live.clear();
    }
}

fn take(t: &mut Trust, c: &mut Catalog, item: &Item) {
    match t.judge(item, NOW) {
        Verdict::Accepted { fact: Fact::Entry(e), .. } => c.apply(e.get()),
        other => panic!("{other:?}"),
    }
}

fn live(t: &Trust, f: &Fixture) -> usize {
    t.feed(f.publisher).map_or(0, |s| s.live().count())
}

fn vm() -> VmFile {
    let text = "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n[[subscribe]]\npackage = \"hello*\"\n\
                [[trust]]\nallow = \"acme\"\n[view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n";
    VmFile::parse("web-1", text).unwrap()
}

/// A full feed refuses the next release; with old ones retired it goes on, and what was retired
/// counts no more for what is installed, but stays where it is shown, until nobody shows it.
#[test]
fn a_full_feed_goes_on_when_old_releases_are_retired() {
    let f = Fixture::new();
    let (mut t, mut c, mut pen) = (f.trust(), Catalog::default(), Pen::new(&f));
    let release = |n: u64| f.release("hello", &n.to_string(), n);
    pen.hurries = true;
    let many: Vec<Item> = (1..=LIVE_RELEASES_MAX as u64).map(|n| pen.release(release(n))).collect();
    pen.hurries = false;
    t.replay(f.publisher, &many);
    many.iter().for_each(|i| c.apply(&i.envelope.claimed::<Entry>().unwrap()));
    let next = LIVE_RELEASES_MAX as u64 + 1;
    let mut full = Pen { live: pen.live.clone(), ..Pen::new(&f) };
    (full.seq, full.last) = (pen.seq, pen.last);
    assert_eq!(refused(t.judge(&full.release(release(next)), NOW)), Refusal::TooMany);
    let places: Vec<Position> = (1..=3).map(|n| at(1, n)).collect();
    take(&mut t, &mut c, &pen.retire(&places));
    take(&mut t, &mut c, &pen.release(release(next + 1)));
    assert_eq!(live(&t, &f), LIVE_RELEASES_MAX - 2);
    // Twice is no harm.
    take(&mut t, &mut c, &pen.retire(&places));

    let hello: stork_wire::text::PackageName = "hello".parse().unwrap();
    let scene = Scene::new(&t, NOW);
    let outcome = |c: &Catalog, shown: &Shown, n: u64| {
        let all = c.consider(&vm(), &hello, shown, scene);
        all.iter().find(|c| c.known.seq == n).map(|c| c.outcome.clone())
    };
    assert_eq!(outcome(&c, &Shown::default(), 2), Some(Outcome::Retired));
    let second = c.all().find(|k| k.seq == 2).unwrap().hash;
    let shown = Shown { releases: [(hello.clone(), second)].into(), ..Shown::default() };
    assert_eq!(outcome(&c, &shown, 2), Some(Outcome::Older), "a newer one comes in its place");
    let mut pinned = vm();
    pinned.pins.extend([(hello.clone(), pin("= 2"))]);
    let wish =
        |c: &Catalog, shown: &Shown| c.wish(&pinned, shown, scene).get(&hello).map(|w| w.known.seq);
    assert_eq!(wish(&c, &shown), Some(2), "it stays where it is shown");
    assert_eq!(wish(&c, &Shown::default()), None, "and comes nowhere anew");
    let before = c.len();
    c.forget_retired(|k| k.hash == second);
    assert_eq!((before - c.len(), wish(&c, &shown)), (2, Some(2)));
    c.forget_retired(|_| false);
    assert_eq!(before - c.len(), 3);
}

fn pin(version: &str) -> crate::catalog::VmPin {
    let mut text = vm_text(version);
    text.pins.remove(&"hello".parse().unwrap()).unwrap()
}

fn vm_text(version: &str) -> VmFile {
    let text = format!(
        "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n[[pin]]\npackage = \"hello\"\n\
         version = \"{version}\"\n[view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n"
    );
    VmFile::parse("web-1", &text).unwrap()
}

/// A key retires only what it may release; of sealed releases it may retire all, since it may
/// release any. What is not retired stays in the view root: an entry that says less is refused.
#[test]
fn only_what_the_key_may_release_is_retired() {
    let f = Fixture::new();
    let mut doc: PublisherDoc = f.documents[2].envelope.claimed().unwrap();
    let [hello] = &doc.release_keys[..] else { panic!("one key") };
    // A second key, for other packages of the same publisher.
    let mut other = hello.clone();
    other.key = key(8).public();
    other.packages = List::truncated(["hello-*".parse().unwrap()]);
    let mut keys = vec![hello.clone(), other];
    keys.sort_by_key(|k| k.key);
    doc.release_keys = List::new(keys).unwrap();
    (doc.number, doc.prev) = (2, Some(f.documents[2].envelope.hash()));
    let mut t = f.trust();
    let verdict = t.judge(&document(&f, &doc, &key(4)), NOW);
    assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
    let (mut c, mut pen) = (Catalog::default(), Pen::new(&f));
    take(&mut t, &mut c, &pen.release(f.release("hello", "1", 1)));
    let sealed = Sealed::seal(
        &f.release("hello", "2", 2),
        f.publisher,
        &GroupKey::from_bytes([7; 32]),
        [1; 16],
    );
    take(&mut t, &mut c, &pen.sign(Kind::Sealed(Box::new(sealed.unwrap()))));
    let by = |item: &Item, k: &stork_wire::sign::SecretKey| {
        let entry: Entry = item.envelope.claimed().unwrap();
        f.item(&entry, k)
    };
    let (seq, last, live_before) = (pen.seq, pen.last, pen.live.clone());
    let first = pen.retire(&[at(1, 1)]);
    assert_eq!(refused(t.judge(&by(&first, &key(8)), NOW)).code(), "out_of_scope");
    // It says that nothing was retired.
    let mut entry: Entry = first.envelope.claimed().unwrap();
    entry.view_root = view_root(live_before.iter().map(|(_, h)| *h));
    let lie = f.item(&entry, &f.release_key);
    assert_eq!(refused(t.judge(&lie, NOW)), Refusal::ViewRootMismatch);
    (pen.seq, pen.last, pen.live) = (seq, last, live_before);
    let second = by(&pen.retire(&[at(1, 2)]), &key(8));
    pen.last = Some(second.envelope.hash());
    assert!(matches!(t.judge(&second, NOW), Verdict::Accepted { .. }));
    assert_eq!(live(&t, &f), 1);
}

/// The document that begins the next epoch with an empty feed, and carries over what was live at
/// this entry.
fn compacting(f: &Fixture, before: &Item, last: &Item) -> Item {
    let mut doc: PublisherDoc = before.envelope.claimed().unwrap();
    doc.number += 1;
    doc.prev = Some(before.envelope.hash());
    let entry: Entry = last.envelope.claimed().unwrap();
    doc.epoch += 1;
    doc.survivor = None;
    doc.compacts = Some(Survivor { at: entry.position(), hash: last.envelope.hash() });
    document(f, &doc, &key(4))
}

/// A feed begins anew: hosts that saw it all, that were behind, newcomers and restarted hosts end
/// with the same heads, and with the new entries alone. What was announced before stays aside, for
/// VMs that show it; what a host has from another branch does not.
#[test]
fn a_feed_begins_anew() {
    let f = Fixture::new();
    let mut pen = Pen::new(&f);
    let old: Vec<Item> =
        (1..=5).map(|n| pen.release(f.release("hello", &n.to_string(), n))).collect();
    let doc = compacting(&f, &f.documents[2], &old[3]);
    pen.anew();
    let new: Vec<Item> =
        (4..=5).map(|n: u64| pen.release(f.release("hello", &n.to_string(), n + 10))).collect();
    let junk = twin(&f, &old[2]);
    let sides: [(&str, Vec<&Item>, usize); 4] = [
        ("saw all", old.iter().chain([&doc]).chain(&new).collect(), 4),
        ("behind", [&old[0], &old[1], &doc].into_iter().chain(&new).collect(), 2),
        ("newcomer", new.iter().rev().chain([&doc]).collect(), 0),
        ("other branch", [&old[0], &old[1], &junk, &doc].into_iter().chain(&new).collect(), 3),
    ];
    let mut heads = None;
    for (who, items, aside) in sides {
        let mut host = Host::new(&f);
        items.into_iter().for_each(|i| host.give(i));
        for host in [host.restarted(&f), host] {
            assert_eq!(host.newest(&f), Some((at(2, 2), new[1].envelope.hash())), "{who}");
            assert_eq!(host.aside.len(), aside, "{who}");
            assert!(host.journal.iter().all(|i| i.log != LogId::feed(f.publisher)), "{who}");
            assert_eq!(live(&host.trust, &f), 2, "{who}");
            assert_eq!(*heads.get_or_insert_with(|| host.trust.heads()), host.trust.heads());
            for item in &host.aside {
                let entry: Entry = item.envelope.claimed().unwrap();
                assert_eq!(host.trust.kept_aside(&entry), Some(Aside::Retired), "{who}");
            }
            let entry: Entry = old[4].envelope.claimed().unwrap();
            assert_eq!(host.trust.kept_aside(&entry), None, "after what is carried over");
        }
    }
}

/// A fork is no reason to lose what stood before it: the owner begins anew after the last entry
/// that is good. What lies behind the fork is not kept.
#[test]
fn a_forked_feed_begins_anew() {
    let f = Fixture::new();
    let feed = f.feed(4);
    let rival = twin(&f, &feed[2]);
    let doc = compacting(&f, &f.documents[2], &feed[1]);
    let mut host = Host::new(&f);
    feed.iter().chain([&proof(&feed[2], &rival), &doc]).for_each(|i| host.give(i));
    assert_eq!((host.newest(&f), host.trust.frozen(f.publisher)), (None, None));
    let entries = host.aside.iter().map(|i| i.envelope.claimed::<Entry>().unwrap());
    let kept: Vec<u64> =
        entries.filter(|e| host.trust.kept_aside(e).is_some()).map(|e| e.seq).collect();
    assert_eq!(kept, [1, 2]);

    // In the catalog the same: what was good is retired, what was frozen is gone.
    let mut c = Catalog::default();
    let all: Vec<Entry> = feed.iter().map(|i| i.envelope.claimed().unwrap()).collect();
    let hash = ItemHash([1; 32]);
    let cause = super::Cause::Fork { proof: hash, entries: [hash; 2] };
    let freeze = super::Freeze { at: at(1, 3), cause };
    all.iter().take(2).for_each(|e| c.apply(e));
    all.iter().skip(2).for_each(|e| c.apply_frozen(e, freeze));
    c.rebuild(f.publisher, std::iter::empty(), Fallen::Retired(at(1, 2)));
    let left: Vec<(u64, bool)> = c.all().map(|k| (k.seq, k.retired)).collect();
    assert_eq!(left, [(1, true), (2, true)]);
    let mut restarted = Catalog::default();
    all.iter().take(2).for_each(|e| restarted.apply_retired(e));
    let left: Vec<(u64, bool)> = restarted.all().map(|k| (k.seq, k.retired)).collect();
    assert_eq!(left, [(1, true), (2, true)]);
    assert!(restarted.latest(f.publisher, &"hello".parse().unwrap(), &arch()).is_none());
}

fn arch() -> stork_wire::text::Arch {
    "amd64".parse().unwrap()
}
