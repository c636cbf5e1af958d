//! Dependencies and bundles: claims that bring nothing into a VM against its rules.

use std::collections::BTreeMap;

use stork_wire::bundle::Bundle;
use stork_wire::codec::List;
use stork_wire::text::PackageName;

use super::depends::{self, DependsError, LINES_MAX, Offers, Rules, TRANSITIVE_MAX, parse};
use super::world::{ALL, World, vm};
use super::{KnownRelease, Outcome, Shown, VmFile};
use crate::trust_fixture::{Fixture, NOW};

const APP: &str = "[[subscribe]]\npackage = \"app\"\n[[trust]]\nallow = \"acme\"\n";

fn vms() -> [VmFile; 3] {
    ["show", "check", "pull"].map(|d| vm(&format!("depends = \"{d}\""), APP))
}

fn why(w: &World, vm: &VmFile, version: &str) -> Option<Outcome> {
    let plan = w.plan(vm, &Shown::default());
    let app = "app".parse().unwrap();
    let known = w.catalog.of_package(&app).iter().find(|k| k.release.version.as_str() == version);
    plan.withheld.get(&known.unwrap().hash).cloned()
}

/// Lines as Debian writes them, and what is none.
#[test]
fn lines_of_dependencies() {
    let all = parse("libc6 (>= 2.34) | libc6-compat").unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].name.as_str(), all[0].version.to_string()), ("libc6", ">= 2.34".into()));
    assert!(all[1].version.is_any());
    assert_eq!(parse("python3:any (<< 3.12)").unwrap()[0].name.as_str(), "python3");
    for bad in ["", "a (", "a ()", "a (>= )", "a b", "a |", "../x", &["a"; 9].join("|")] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

/// What a package needs changes nothing by default; a VM may refuse what is not met, and may bring
/// it in.
#[test]
fn shown_checked_or_pulled() {
    let mut w = World::plain(&["acme"]);
    w.needing(0, ("app", "1"), &["lib (>= 2)", "app"], &[]);
    let [show, check, pull] = vms();
    let none = Shown::default();
    let unsatisfiable = Outcome::Depends(DependsError::Unsatisfiable {
        entry: "lib (>= 2)".into(),
        by: "app".parse().unwrap(),
    });
    assert_eq!(w.wish(&show, &none), ["app 1"]);
    for vm in [&check, &pull] {
        assert!(w.wish(vm, &none).is_empty());
        assert_eq!(why(&w, vm, "1"), Some(unsatisfiable.clone()));
    }
    w.needing(0, ("lib", "2"), &["base"], &[]);
    w.announce(0, "base", "7");
    assert_eq!(w.wish(&show, &none), ["app 1"]);
    assert!(w.wish(&check, &none).is_empty(), "it is not subscribed");
    assert_eq!(w.wish(&pull, &none), ["app 1", "base 7", "lib 2"]);
    let plan = w.plan(&pull, &none);
    let lib: PackageName = "lib".parse().unwrap();
    assert_eq!(plan.wish[&lib].pulled_for.as_ref().map(PackageName::as_str), Some("app"));
    let both = vm("depends = \"check\"", ALL);
    assert_eq!(w.wish(&both, &none), ["app 1", "base 7", "lib 2"]);
}

/// T041: an update whose needs are not met waits. What is shown stays, nothing older comes in its
/// place, and no older release of what it needs is looked for.
#[test]
fn t041_unsatisfiable_and_no_older_release() {
    let mut w = World::plain(&["acme"]);
    w.announce(0, "lib", "1");
    w.needing(0, ("app", "1"), &["lib (= 1)"], &[]);
    let [_, _, pull] = vms();
    let none = Shown::default();
    let shown = w.show(&pull, &none);
    assert_eq!(shown.releases.len(), 2);
    w.announce(0, "lib", "2");
    // The VM already shows what fits; somebody new gets nothing older.
    let expected = Outcome::Depends(DependsError::Unsatisfiable {
        entry: "lib (= 1)".into(),
        by: "app".parse().unwrap(),
    });
    assert_eq!(why(&w, &pull, "1"), Some(expected));
    assert!(w.wish(&pull, &none).is_empty());
    w.needing(0, ("app", "2"), &["gone"], &[]);
    assert_eq!(w.wish(&pull, &none), [] as [&str; 0], "not app 1 either");
    assert!(w.wish(&pull, &shown).contains(&"app 1".to_owned()), "what is shown stays");
}

/// T042: where two packages provide what is needed and none has the name, nobody chooses by the
/// alphabet; one that has the name itself goes before all that provide it.
#[test]
fn t042_two_that_provide_one_name() {
    let mut w = World::plain(&["acme"]);
    w.needing(0, ("app", "1"), &["mta"], &[]);
    w.needing(0, ("exim", "1"), &[], &["mta"]);
    let [_, _, pull] = vms();
    let none = Shown::default();
    assert_eq!(w.wish(&pull, &none), ["app 1", "exim 1"]);
    w.needing(0, ("postfix", "1"), &[], &["mta"]);
    assert!(w.wish(&pull, &none).is_empty());
    let of = Box::new(("exim".parse().unwrap(), "postfix".parse().unwrap()));
    let (name, by) = ("mta".parse().unwrap(), "app".parse().unwrap());
    let ambiguous = Outcome::Depends(DependsError::Ambiguous { name, by, of });
    assert_eq!(why(&w, &pull, "1"), Some(ambiguous));
    // The operator chose one.
    let one = format!("{APP}[[subscribe]]\npackage = \"postfix\"\n");
    assert_eq!(w.wish(&vm("depends = \"pull\"", &one), &none), ["app 1", "postfix 1"]);
    w.announce(0, "mta", "1");
    assert_eq!(w.wish(&pull, &none), ["app 1", "mta 1"]);
}

/// T003: a name that the VM's rule does not let a package provide is not provided, although group
/// and publisher allow it; and what is brought in must pass the VM's own rules.
#[test]
fn t003_provided_names_and_packages_by_the_rules_of_the_vm() {
    let mut w = World::plain(&["acme", "other"]);
    w.needing(0, ("app", "1"), &["mta"], &[]);
    w.needing(0, ("exim", "1"), &[], &["mta"]);
    let none = Shown::default();
    let with = |tables: &str| {
        vm("depends = \"pull\"", &format!("[[subscribe]]\npackage = \"app\"\n{tables}"))
    };
    let narrow = with("[[trust]]\nallow = \"acme\"\nprovides = [\"editor\"]\n");
    assert!(w.wish(&narrow, &none).is_empty());
    let wide = with("[[trust]]\nallow = \"acme\"\nprovides = [\"mta\"]\n");
    assert_eq!(w.wish(&wide, &none), ["app 1", "exim 1"]);
    // Depends on everything: the VM trusts acme for this one package only.
    let only = with("[[trust]]\nallow = \"acme\"\npackages = [\"app\"]\n");
    assert!(w.wish(&only, &none).is_empty());
    // A publisher that the VM does not trust provides it: it does not count.
    let mut w = World::plain(&["acme", "other"]);
    w.needing(0, ("app", "1"), &["mta"], &[]);
    w.needing(1, ("evil", "1"), &[], &["mta"]);
    assert!(w.wish(&with("[[trust]]\nallow = \"acme\"\n"), &none).is_empty());
    // Held at nothing: what brings it in changes nothing about that.
    let mut w = World::plain(&["acme"]);
    w.needing(0, ("app", "1"), &["lib"], &[]);
    w.announce(0, "lib", "1");
    let held = with("[[trust]]\nallow = \"acme\"\n[[hold]]\npackage = \"lib\"\n");
    assert!(w.wish(&held, &none).is_empty());
}

/// Circles are no fault: Debian's libc6 and libgcc-s1 need each other. Each is looked at once.
#[test]
fn t040_circles_end() {
    let mut w = World::plain(&["acme"]);
    w.needing(0, ("app", "1"), &["a"], &[]);
    w.needing(0, ("a", "1"), &["b", "app"], &[]);
    w.needing(0, ("b", "1"), &["a"], &[]);
    let [_, _, pull] = vms();
    assert_eq!(w.wish(&pull, &Shown::default()), ["a 1", "app 1", "b 1"]);
    assert_eq!(w.plan(&pull, &Shown::default()).looked_at, 4);
}

/// A market in which every package needs the next ones, without end.
struct Endless {
    /// How many each needs.
    each: u64,
    bytes: u64,
}

fn made(n: u64, market: &Endless) -> KnownRelease {
    let f = Fixture::new();
    let mut release = f.release(&format!("p{n}"), "1", n + 1);
    let lines = (1..=market.each).map(|i| format!("p{}", n * market.each + i).parse().unwrap());
    release.depends = List::truncated(lines);
    release.unpacked_bytes = market.bytes;
    let hash = release.hash();
    KnownRelease {
        sealed: None,
        publisher: f.publisher,
        epoch: 1,
        seq: n + 1,
        document: 1,
        signed_at: NOW,
        expires: NOW + 1,
        hash,
        frozen: None,
        retired: false,
        withdrawn_at: None,
        release,
    }
}

impl Offers for Endless {
    fn offer(&self, package: &PackageName) -> Option<KnownRelease> {
        let n = package.as_str().strip_prefix('p')?.parse().ok()?;
        (n <= 100_000).then(|| made(n, self))
    }
    fn providers(&self, _: &PackageName) -> Vec<PackageName> {
        Vec::new()
    }
    fn provides(&self, _: &KnownRelease, _: &PackageName) -> bool {
        false
    }
}

/// T040: a chain of a hundred thousand packages, and a tree in which each needs 64 others, are
/// refused after a bounded number of steps (so many lines, and no more), as is what is too large.
/// The resolver asks nobody for content: it is pure.
#[test]
fn t040_dependencies_without_end() {
    for each in [1, 64] {
        let market = Endless { each, bytes: 1 };
        let given: BTreeMap<_, _> = [("p0".parse().unwrap(), made(0, &market))].into();
        let rules = Rules { pull: true, bytes_max: u64::MAX };
        let done = depends::resolve(&given, rules, &market);
        assert_eq!(done.failed.values().next(), Some(&DependsError::TooMany), "{each}");
        assert!(done.pulled.is_empty());
        assert!(done.looked_at <= TRANSITIVE_MAX + 1, "{} lines", done.looked_at);
    }
    let market = Endless { each: 1, bytes: 1 << 30 };
    let given: BTreeMap<_, _> = [("p0".parse().unwrap(), made(0, &market))].into();
    let done = depends::resolve(&given, Rules { pull: true, bytes_max: 3 << 30 }, &market);
    let (bytes, max) = (4 << 30, 3 << 30);
    assert_eq!(done.failed.values().next(), Some(&DependsError::TooLarge { bytes, max }));
    // Many packages, each with a chain of its own, share one bound.
    let market = Endless { each: 64, bytes: 1 };
    let given: BTreeMap<PackageName, KnownRelease> =
        (50_000..50_200).map(|n| (format!("p{n}").parse().unwrap(), made(n, &market))).collect();
    let done = depends::resolve(&given, Rules { pull: true, bytes_max: u64::MAX }, &market);
    assert_eq!(done.failed.len(), given.len());
    assert!(done.looked_at <= LINES_MAX + given.len());
}

fn bundled(w: &mut World, package: &str, version: &str, name: &str, members: &[&str]) {
    w.try_announce(0, package, version, |r| {
        let members = List::truncated(members.iter().map(|m| m.parse().unwrap()));
        r.bundle = Some(Box::new(Bundle { name: name.parse().unwrap(), members }));
    })
    .unwrap();
}

/// T038: members of a bundle come all or none. While one of four lacks, the old bundle stays; a
/// member that this VM does not want does not count.
#[test]
fn t038_a_bundle_comes_whole() {
    let mut w = World::plain(&["acme"]);
    let (all, none) = (["a", "b", "c", "d"], Shown::default());
    let everything = vm("", ALL);
    for p in &all[..3] {
        bundled(&mut w, p, "1", "one", &all);
    }
    assert!(w.wish(&everything, &none).is_empty(), "d lacks");
    bundled(&mut w, "d", "1", "one", &all);
    assert_eq!(w.wish(&everything, &none), ["a 1", "b 1", "c 1", "d 1"]);
    let shown = w.show(&everything, &none);
    for p in &all[..3] {
        bundled(&mut w, p, "2", "two", &all);
        assert_eq!(w.wish(&everything, &shown), ["a 1", "b 1", "c 1", "d 1"]);
    }
    let plan = w.plan(&everything, &shown);
    let lacks = "d".parse().unwrap();
    let why = Outcome::Bundle { name: "two".into(), lacks };
    assert_eq!(plan.withheld.values().collect::<Vec<_>>(), [&why, &why, &why]);
    bundled(&mut w, "d", "2", "two", &all);
    assert_eq!(w.wish(&everything, &shown), ["a 2", "b 2", "c 2", "d 2"]);
    let some = "[[subscribe]]\npackage = \"a\"\n[[subscribe]]\npackage = \"b\"\n\
                [[trust]]\nallow = \"acme\"\n";
    assert_eq!(w.wish(&vm("", some), &none), ["a 2", "b 2"]);
    // A hold of one member holds the others.
    let held = vm("", &format!("{ALL}[[hold]]\npackage = \"d\"\n"));
    assert_eq!(w.wish(&held, &shown), ["a 1", "b 1", "c 1", "d 1"]);
}

/// Members of a bundle are shown when all of them are whole on this host.
#[test]
fn t038_members_wait_for_each_other() {
    let mut w = World::plain(&["acme"]);
    for p in ["a", "b"] {
        bundled(&mut w, p, "1", "one", &["a", "b"]);
    }
    w.announce(0, "c", "1");
    let plan = w.plan(&vm("", ALL), &Shown::default());
    let waiting = |whole: &[&str]| -> Vec<String> {
        let ready = |k: &KnownRelease| whole.contains(&k.release.package.as_str());
        let all = super::bundle::waiting(&plan.wish, ready);
        all.iter().map(ToString::to_string).collect()
    };
    assert_eq!(waiting(&["a", "c"]), ["a", "b"]);
    assert_eq!(waiting(&["a", "b"]), [] as [&str; 0], "c is in no bundle");
}

/// Planning looks at each line of what a VM wants once, also with rules that follow delegations and
/// needs that are pulled in: a counted bound, whatever the machine.
#[test]
fn planning_looks_at_each_line_once() {
    let mut w = World::plain(&["acme", "audit"]);
    for n in 0..200 {
        let (package, needs) = (format!("p{n}"), format!("p{}", (n + 1) % 200));
        for version in 1..=10 {
            let who = usize::from(version > 8);
            w.needing(who, (&package, &version.to_string()), &[&needs], &[]);
        }
    }
    let rules = "[[subscribe]]\npackage = \"p*\"\n[[trust]]\nallow = \"acme\"\ndelegations = true\n\
                 [[trust]]\nallow = \"audit\"\n";
    for (depends, lines) in [("show", 0), ("check", 200), ("pull", 200)] {
        let vm = vm(&format!("depends = \"{depends}\""), rules);
        let shown = w.show(&vm, &Shown::default());
        let plan = w.plan(&vm, &shown);
        assert_eq!((plan.wish.len(), plan.looked_at), (200, lines), "{depends}");
    }
}
