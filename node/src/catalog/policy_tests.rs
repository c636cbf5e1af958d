//! A VM's own policy: who must agree, what stale feeds mean, delegates, privileges, and going back.

use stork_wire::beacon::{Beacon, BeaconHead};
use stork_wire::charter::{Delegation, GroupDoc, PublisherDoc};
use stork_wire::codec::List;
use stork_wire::ids::{LogId, PublisherId};
use stork_wire::item::ItemKind;
use stork_wire::permit::DowngradePermit;
use stork_wire::sign::Envelope;

use super::world::{ALL, World, vm};
use super::{Outcome, Privilege, Privileges, Scene, Shown, VmFile};
use crate::trust::{Permits, Refusal, Verdict};
use crate::trust_fixture::{NOW, item, key};

fn outcomes(w: &World, vm: &VmFile, package: &str, shown: &Shown) -> Vec<(String, Outcome)> {
    let all = w.consider(vm, package, shown);
    all.into_iter().map(|c| (c.known.release.version.to_string(), c.outcome)).collect()
}

fn outcome(w: &World, vm: &VmFile, package: &str, version: &str, shown: &Shown) -> Outcome {
    let all = outcomes(w, vm, package, shown);
    all.into_iter().find(|(v, _)| v == version).unwrap().1
}

/// Two of three publishers must announce the same content: one alone changes nothing, another
/// content or another version under the same name is no agreement, and what two had agreed on
/// falls when one of them recalls it.
#[test]
fn so_many_publishers_must_agree() {
    let mut w = World::plain(&["acme", "audit", "distro"]);
    let rule = "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"acme\"\n\
                publishers = { need = 2, of = [\"acme\", \"audit\", \"distro\"] }\n";
    let (vm, none) = (vm("", rule), Shown::default());
    w.announce(0, "hello", "1");
    assert!(w.wish(&vm, &none).is_empty(), "one alone");
    assert_eq!(outcome(&w, &vm, "hello", "1", &none), Outcome::NotAttested { have: 1, need: 2 });
    // The old content under a new version, as a stolen key would have it, is not the same.
    w.announce(1, "hello", "1");
    assert_eq!(w.wish(&vm, &none), ["hello 1"]);
    w.try_announce(0, "hello", "2", |r| r.tree = stork_wire::ids::TreeId::of(b"1")).unwrap();
    assert_eq!(w.wish(&vm, &none), ["hello 1"], "nobody else says that this is 2");
    // Another content of the same version neither.
    w.try_announce(2, "hello", "2", |r| r.tree = stork_wire::ids::TreeId::of(b"x")).unwrap();
    assert_eq!(w.wish(&vm, &none), ["hello 1"]);
    let shown = w.show(&vm, &none);
    w.recall(1, "hello", &[1]);
    assert!(w.wish(&vm, &shown).is_empty(), "one took its word back");
}

/// The same publisher, once by name and once by id, is one; and whom the rule does not name does
/// not count.
#[test]
fn nobody_counts_twice() {
    let mut w = World::new(&["acme", "other", "third"], |_, _, _| {}, |_, _| true);
    let id = w.id(0);
    let rule = format!(
        "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"*\"\n\
         publishers = {{ need = 2, of = [\"acme\", \"{id}\", \"audit\"] }}\n"
    );
    let vm = vm("", &rule);
    w.announce(0, "hello", "1");
    // This one the rule does not name.
    w.announce(2, "hello", "1");
    assert!(w.wish(&vm, &Shown::default()).is_empty());
    let want = Outcome::NotAttested { have: 1, need: 2 };
    assert!(outcomes(&w, &vm, "hello", &Shown::default()).iter().all(|(_, o)| *o == want));
}

fn with_beacons() -> World {
    World::new(
        &["acme", "audit"],
        |i, doc, _| {
            if i == 0 {
                doc.beacon_keys = List::truncated([key(6).public()]);
            }
        },
        |_, _| true,
    )
}

/// A beacon of the first publisher's head, made now, that speaks for so many seconds.
fn give_beacon(w: &mut World, life: u64) {
    let head = w.trust.feed(w.id(0)).unwrap().head().unwrap();
    let beacon = Beacon {
        version: 1,
        publisher: w.id(0),
        epoch: 1,
        head: Some(BeaconHead { seq: head.0, hash: head.1 }),
        counter: NOW,
        time: NOW,
        expires: NOW + life,
    };
    let beacon = beacon.item(Envelope::sign(&beacon, w.fleet, &key(6)).unwrap());
    assert!(matches!(w.trust.judge(&beacon, NOW), Verdict::Accepted { .. }));
}

/// What a stale feed means is the VM's choice: served, nothing new, or nothing at all; a rule may
/// say otherwise than the file, and a feed without beacons is not stale.
#[test]
fn stale_feeds_by_policy() {
    let mut w = with_beacons();
    w.announce(0, "hello", "1");
    w.announce(1, "other", "1");
    let rules = "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"*\"\n";
    let none = Shown::default();
    let serve = vm("", rules);
    assert_eq!(w.wish(&serve, &none), ["hello 1", "other 1"]);
    let shown = w.show(&serve, &none);
    w.announce(0, "hello", "2");
    let no_new = vm("freshness = \"no_new\"", rules);
    assert_eq!(w.wish(&no_new, &none), ["other 1"]);
    assert_eq!(w.wish(&no_new, &shown), ["hello 1", "other 1"], "what is shown stays");
    assert_eq!(outcome(&w, &no_new, "hello", "2", &shown), Outcome::NotFresh { hide: false });
    let hide = vm("freshness = \"hide\"", rules);
    assert_eq!(w.wish(&hide, &shown), ["other 1"]);
    assert_eq!(outcome(&w, &hide, "hello", "1", &shown), Outcome::NotFresh { hide: true });
    let by_rule =
        "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"*\"\nfreshness = \"serve\"\n";
    assert_eq!(w.wish(&vm("freshness = \"hide\"", by_rule), &none), ["hello 2", "other 1"]);
    // A beacon makes it fresh.
    give_beacon(&mut w, 600);
    assert_eq!(w.wish(&hide, &none), ["hello 2", "other 1"]);
}

/// A group asks for fresher beacons than they say themselves: to its VMs a feed is stale when the
/// newest is older, and one without beacons is. `stork why` names the group's document. What such a
/// feed means is still the VM's choice.
#[test]
fn a_group_asks_for_fresher_beacons() {
    let mut w = with_beacons();
    let old = w.documents[1].clone();
    let mut doc: GroupDoc = old.envelope.claimed().unwrap();
    (doc.number, doc.prev, doc.beacon_s) = (2, Some(old.envelope.hash()), Some(900));
    let doc = item(ItemKind::Group, LogId::group(w.group), 2, &doc, w.fleet, &key(3));
    assert!(matches!(w.trust.judge(&doc, NOW), Verdict::Accepted { .. }));
    w.announce(0, "hello", "1");
    w.announce(1, "other", "1");
    give_beacon(&mut w, 86_400);
    let none = Shown::default();
    let rules = "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"*\"\n";
    let (serve, no_new) = (vm("", rules), vm("freshness = \"no_new\"", rules));
    w.now = NOW + 899;
    assert_eq!(w.wish(&no_new, &none), ["hello 1"], "the other has no beacons");
    w.now = NOW + 900;
    assert_eq!(w.wish(&no_new, &none), [] as [&str; 0]);
    assert_eq!(w.wish(&serve, &none), ["hello 1", "other 1"]);
    for package in ["hello", "other"] {
        let c = w.consider(&no_new, package, &none).remove(0);
        assert_eq!(c.outcome, Outcome::NotFresh { hide: false });
        let because = c.because(&no_new, w.scene());
        assert_eq!(because.rule.unwrap().0, "[vm]");
        let document = because.document.unwrap();
        assert_eq!((document.kind, &*document.name, &*document.number), ("group", "web", "2"));
    }
}

/// Files that need a privilege come only where the VM's file grants it, which is known before
/// anything is fetched or built; no older release comes in its place, and what is shown stays.
#[test]
fn privileges_are_refused_before_the_build() {
    let mut w = World::plain(&["acme"]);
    w.announce(0, "hello", "1");
    let vm_without = vm("", ALL);
    let shown = w.show(&vm_without, &Shown::default());
    w.announce(0, "hello", "2");
    let hello = "hello".parse().unwrap();
    let manifest = w.catalog.of_package(&hello)[1].release.manifest.id;
    let what = Privilege { path: "bin/su".into(), what: "setuid" };
    let privileges: Privileges = [(manifest, what.clone())].into();
    let scene = Scene { privileges: &privileges, ..w.scene() };
    let versions = |vm: &VmFile, shown: &Shown| -> Vec<String> {
        let wish = w.catalog.wish(vm, shown, scene);
        wish.values().map(|c| c.known.release.version.to_string()).collect()
    };
    assert!(versions(&vm_without, &Shown::default()).is_empty());
    assert_eq!(versions(&vm_without, &shown), ["1"]);
    let none = Shown::default();
    let all = w.catalog.consider(&vm_without, &hello, &none, scene);
    let why: Vec<Outcome> = all.iter().map(|c| c.outcome.clone()).collect();
    assert_eq!(why, [Outcome::Blocked("2".parse().unwrap()), Outcome::Privileged(what)]);
    let text = "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n[[subscribe]]\npackage = \"*\"\n\
                [[trust]]\nallow = \"acme\"\n[view]\nbackend = \"tree\"\ntarget = \"/v\"\n\
                privileged = [\"hello\"]\n";
    let granted = VmFile::parse("web-1", text).unwrap();
    assert_eq!(versions(&granted, &Shown::default()), ["2"]);
}

/// T017: a release with a lower counter than the one that is shown does not come, although its
/// version is higher or the VM's file asks for it; what is shown stays. It comes with a permit for
/// just that release, or where what was shown is recalled, and then only the newest that stands.
#[test]
fn t017_no_way_back_without_a_permit() {
    let mut w = World::plain(&["acme"]);
    w.announce(0, "hello", "3.0");
    w.announce(0, "hello", "1.0");
    w.announce(0, "hello", "2.0");
    let pinned = vm("", &format!("{ALL}[[pin]]\npackage = \"hello\"\nversion = \"= 2.0\"\n"));
    let free = vm("", ALL);
    let shown = w.show(&pinned, &Shown::default());
    assert_eq!(w.wish(&pinned, &Shown::default()), ["hello 2.0"]);
    // The version that is higher has the lower counter.
    assert_eq!(w.wish(&free, &shown), ["hello 2.0"]);
    assert_eq!(outcome(&w, &free, "hello", "3.0", &shown), Outcome::Downgrade(3));
    // The file asks for an older one.
    let back = vm("", &format!("{ALL}[[pin]]\npackage = \"hello\"\nversion = \"= 1.0\"\n"));
    assert_eq!(w.wish(&back, &shown), ["hello 2.0"], "what is shown stays");
    assert_eq!(outcome(&w, &back, "hello", "2.0", &shown), Outcome::Kept);
    // A permit for another release does not help; the right one does.
    let permit = |release: u64| {
        let permit = DowngradePermit {
            version: 1,
            vm: "web-1".parse().unwrap(),
            package: "hello".parse().unwrap(),
            publisher: w.id(0),
            release,
            issued: NOW,
            until: NOW + 60,
        };
        let mut permits = Permits::none();
        let signed = Envelope::sign(&permit, w.fleet, &key(9)).unwrap();
        permits.add(&signed, w.fleet, &[key(9).public()], NOW).unwrap();
        permits
    };
    let versions = |permits: &Permits, now: u64| -> Vec<String> {
        let scene = Scene { permits, now, ..w.scene() };
        let wish = w.catalog.wish(&back, &shown, scene);
        wish.values().map(|c| c.known.release.version.to_string()).collect()
    };
    assert_eq!(versions(&permit(1), NOW), ["2.0"]);
    assert_eq!(versions(&permit(2), NOW), ["1.0"]);
    assert_eq!(versions(&permit(2), NOW + 60), ["2.0"], "it ran out");

    // What is shown is recalled: the newest that stands comes, and none before it.
    w.recall(0, "hello", &[3]);
    let gone = w.standing(&shown);
    assert!(gone.releases.is_empty());
    assert_eq!(w.wish(&free, &gone), ["hello 1.0"], "counter 2, not 3.0 with counter 1");
    assert_eq!(outcome(&w, &free, "hello", "3.0", &gone), Outcome::Downgrade(3));
    // The newest that stands counts, also where it may not come.
    let hello = "hello".parse().unwrap();
    let second = w.catalog.of_package(&hello).iter().find(|k| k.release.release == 2).unwrap();
    let what = Privilege { path: "x".into(), what: "setuid" };
    let privileges: Privileges = [(second.release.manifest.id, what)].into();
    let scene = Scene { privileges: &privileges, ..w.scene() };
    assert!(w.catalog.wish(&free, &gone, scene).is_empty(), "nothing older in its place");
}

/// The record of what is shown tells two publishers of one content apart.
#[test]
fn going_back_is_of_one_publisher() {
    let mut w = World::plain(&["acme", "audit"]);
    for v in ["1", "2"] {
        w.announce(0, "hello", v);
    }
    w.announce(1, "hello", "1");
    let both = "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"acme\"\n\
                [[trust]]\nallow = \"audit\"\n";
    let shown = w.show(&vm("", both), &Shown::default());
    let only_audit = "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"audit\"\n";
    assert_eq!(w.wish(&vm("", only_audit), &shown), ["hello 1"], "the operator chose another");
}

fn to(id: PublisherId, packages: &str, terminating: bool) -> Delegation {
    let packages = List::truncated([packages.parse().unwrap()]);
    Delegation { to: id, packages, terminating, depth: 1 }
}

/// acme, which the group lets release `hello*`, delegates `hello-*` to ci, which no group names.
fn delegated(terminating: bool) -> World {
    World::new(
        &["acme", "ci", "late"],
        |i, doc, later| {
            if i == 0 {
                let all = [to(later[0], "hello-*", terminating), to(later[1], "*", false)];
                doc.delegations = List::truncated(all);
            }
        },
        |i, grant| {
            grant.packages =
                List::truncated(["hello".parse().unwrap(), "hello-*".parse().unwrap()]);
            i == 0
        },
    )
}

/// A delegate may release what its delegator may and the pattern names, and nothing else; a VM has
/// it only where its rule says so, and the publisher that it trusts comes before its delegates.
#[test]
fn delegates_have_the_rights_of_their_delegator() {
    let mut w = delegated(false);
    w.try_announce(1, "hello-x", "5", |_| {}).unwrap();
    let refused = w.try_announce(1, "hello", "5", |_| {}).unwrap_err();
    assert!(matches!(refused, Refusal::OutOfScope(_)), "the pattern does not name it: {refused:?}");
    // `late` was given everything, of which its delegator has only this much.
    let refused = w.try_announce(2, "world", "1", |_| {}).unwrap_err();
    assert!(matches!(refused, Refusal::OutOfScope(_)), "the delegator may not: {refused:?}");
    w.try_announce(2, "hello-x", "9", |_| {}).unwrap();

    let none = Shown::default();
    let plain = vm("", ALL);
    assert_eq!(outcome(&w, &plain, "hello-x", "5", &none), Outcome::Denied(None));
    let any = vm("", "[[subscribe]]\npackage = \"*\"\n[[trust]]\nallow = \"*\"\n");
    assert!(w.wish(&any, &none).is_empty(), "no group of the VM names it");
    let follows = vm("", &format!("{ALL}delegations = true\n"));
    assert_eq!(
        w.wish(&follows, &none),
        ["hello-x 5"],
        "the first delegate, not the newest version"
    );
    let all = w.consider(&follows, "hello-x", &none);
    assert_eq!((all[0].decision.place, all[0].decision.via.clone()), (1, vec![w.id(0)]));
    w.announce(0, "hello-x", "1");
    assert_eq!(w.wish(&follows, &none), ["hello-x 1"], "acme itself comes first");
}

/// T044 with feeds: a terminating delegation hides later ones that have the name.
#[test]
fn t044_a_terminating_delegation_hides_later_ones() {
    let mut w = delegated(true);
    let refused_by_nobody = w.try_announce(2, "hello-x", "9", |_| {});
    assert!(refused_by_nobody.is_ok(), "what is in a feed is judged by what was ever given");
    let follows = vm("", &format!("{ALL}delegations = true\n"));
    let none = Shown::default();
    assert!(w.wish(&follows, &none).is_empty());
    let why = outcome(&w, &follows, "hello-x", "9", &none);
    assert_eq!(why, Outcome::NotGranted("web".into()));
    w.try_announce(1, "hello-x", "5", |_| {}).unwrap();
    assert_eq!(w.wish(&follows, &none), ["hello-x 5"]);
}

/// T016: a delegation that was taken back is gone at once, breaks no feed, and does not come back
/// with the older document, which is known and no news.
#[test]
fn t016_a_removed_delegation_does_not_come_back() {
    let mut w = delegated(false);
    w.try_announce(1, "hello-x", "5", |_| {}).unwrap();
    let follows = vm("", &format!("{ALL}delegations = true\n"));
    let none = Shown::default();
    assert_eq!(w.wish(&follows, &none), ["hello-x 5"]);
    let old = w.documents[2].clone();
    let mut doc: PublisherDoc = old.envelope.claimed().unwrap();
    (doc.number, doc.prev) = (2, Some(old.envelope.hash()));
    doc.delegations = List::empty();
    let new = item(ItemKind::Publisher, LogId::publisher(w.id(0)), 2, &doc, w.fleet, &key(50));
    assert!(matches!(w.trust.judge(&new, NOW), Verdict::Accepted { .. }));
    assert!(w.wish(&follows, &none).is_empty());
    assert_eq!(outcome(&w, &follows, "hello-x", "5", &none), Outcome::NotGranted("web".into()));
    assert_eq!(w.trust.judge(&old, NOW), Verdict::Known);
    assert!(w.wish(&follows, &none).is_empty());
    // The same number with it inside again is a fork of the document.
    doc.delegations = List::truncated([to(w.id(1), "hello-*", false)]);
    let other = item(ItemKind::Publisher, LogId::publisher(w.id(0)), 2, &doc, w.fleet, &key(50));
    assert_eq!(w.trust.judge(&other, NOW), Verdict::Refused(Refusal::Equivocation(2)));
    // The feed goes on: what was ever given is enough for its chain.
    w.try_announce(1, "hello-x", "6", |_| {}).unwrap();
    assert!(w.wish(&follows, &none).is_empty());
}
