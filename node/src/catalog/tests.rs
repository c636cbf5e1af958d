//! Which release a VM gets, and the reason that `stork why` gives for it.

use super::{Catalog, Fallen, Outcome, Scene, Shown, VmFile};
use crate::trust::{Fact, Trust, Verdict};
use crate::trust_fixture::{Fixture, NOW};

fn vm(extra: &str) -> VmFile {
    let text = format!(
        "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n{extra}\n\
         [view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n"
    );
    VmFile::parse("web-1", &text).unwrap()
}

const SUBSCRIBE: &str = "[[subscribe]]\npackage = \"hello*\"\n";
const TRUST: &str = "[[trust]]\nallow = \"acme\"\n";

fn world(versions: u64) -> (Fixture, Trust, Catalog) {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut c = Catalog::default();
    for i in f.feed(versions) {
        if let Verdict::Accepted { fact: Fact::Entry(e), .. } = t.judge(&i, NOW) {
            c.apply(e.get());
        }
    }
    assert_eq!(c.len() as u64, versions);
    (f, t, c)
}

fn chosen(extra: &str, shown: &Shown, now: u64) -> Option<String> {
    let (_, t, c) = world(12);
    let wish = c.wish(&vm(extra), shown, Scene::new(&t, now));
    wish.values().next().map(|w| w.known.release.version.to_string())
}

fn reason(extra: &str, shown: &Shown) -> Outcome {
    let (_, t, c) = world(12);
    let hello = "hello".parse().unwrap();
    let vm = vm(extra);
    let all = c.consider(&vm, &hello, shown, Scene::new(&t, NOW));
    all.iter().find(|c| c.known.release.version.as_str() == "12").unwrap().outcome.clone()
}

/// The newest by Debian's order that the subscription, the pin and trust allow.
#[test]
fn the_newest_that_is_allowed() {
    let none = Shown::default();
    let both = format!("{SUBSCRIBE}{TRUST}");
    assert_eq!(chosen(&both, &none, NOW).as_deref(), Some("12"));
    let old = format!("[[subscribe]]\npackage = \"hello\"\nversion = \">= 2, < 10\"\n{TRUST}");
    assert_eq!(chosen(&old, &none, NOW).as_deref(), Some("9"));
    let pinned = format!("{both}[[pin]]\npackage = \"hello\"\nversion = \"= 3\"\n");
    assert_eq!(chosen(&pinned, &none, NOW).as_deref(), Some("3"));
    assert_eq!(reason(&pinned, &none), Outcome::Pinned("= 3".into()));
    assert_eq!(chosen(TRUST, &none, NOW), None, "no subscription");
}

/// What no rule allows is denied, and the reason says which rule.
#[test]
fn trust_decides() {
    let none = Shown::default();
    assert_eq!(chosen(SUBSCRIBE, &none, NOW), None);
    assert_eq!(reason(SUBSCRIBE, &none), Outcome::Denied(None));
    let deny = format!("{SUBSCRIBE}[[trust]]\ndeny = \"acme\"\npackages = [\"hello\"]\n{TRUST}");
    assert_eq!(reason(&deny, &none), Outcome::Denied(Some(0)));
}

/// A hold keeps what is shown; an expired entry is kept but not installed anew; what was rolled
/// back is skipped.
#[test]
fn hold_expiry_and_skip() {
    let (_, _, c) = world(12);
    let hello = "hello".parse().unwrap();
    let hash = |v: &str| {
        c.of_package(&hello).iter().find(|k| k.release.version.as_str() == v).unwrap().hash
    };
    let both = format!("{SUBSCRIBE}{TRUST}");
    let held = format!("{both}[[hold]]\npackage = \"hello\"\nreason = \"INC-1\"\n");
    let mut shown = Shown::default();
    assert_eq!(chosen(&held, &shown, NOW), None);
    shown.releases.insert("hello".parse().unwrap(), hash("4"));
    assert_eq!(chosen(&held, &shown, NOW).as_deref(), Some("4"));
    assert_eq!(reason(&held, &shown), Outcome::Held("INC-1".into()));
    assert_eq!(chosen(&both, &shown, NOW + 5000).as_deref(), Some("4"), "expired but shown");
    assert_eq!(chosen(&both, &Shown::default(), NOW + 5000), None, "expired");
    shown.skipped.insert(hash("12"));
    assert_eq!(chosen(&both, &shown, NOW).as_deref(), Some("11"));
    assert_eq!(reason(&both, &shown), Outcome::Skipped);
}

/// Wrong files say what to do.
#[test]
fn wrong_files() {
    let parse = |text: &str| VmFile::parse("x", text).unwrap_err();
    let e = parse("[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"hardlink\"\ntarget = \"/x\"\n");
    assert!(e.help.contains("isolation"), "{e:?}");
    let e = parse("[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"tree\"\ntarget = \"x\"\n");
    assert!(e.message.contains("absolute"), "{e:?}");
    let e = parse("[vm]\ngroups = [\"../x\"]\n[view]\nbackend = \"tree\"\ntarget = \"/x\"\n");
    assert!(e.message.contains("line 2, column") && e.help.contains("a group"), "{e:?}");
    let e = parse("[vm]\ngroups = []\n");
    assert_eq!(e.help, "add the key `view`");
    let e =
        VmFile::parse("../x", "[vm]\ngroups = []\n[view]\nbackend = \"tree\"\ntarget = \"/x\"\n");
    assert!(e.unwrap_err().help.contains("rename the file"));
}

/// A pattern or name that no package can have, wherever it stands: refused with line, column, the
/// rule that it breaks, and what to write instead.
#[test]
fn what_no_package_can_be_called() {
    let parse = |lines: &str| {
        let rest = "[view]\nbackend = \"tree\"\ntarget = \"/x\"\n";
        let text = format!("[vm]\ngroups = [\"web\"]\n{lines}\n{rest}");
        VmFile::parse("x", &text).unwrap_err()
    };
    for bad in ["../x", "/etc/passwd", "", "a//b", "a/../*", ".x", "a b", "a\\u0007", "a\\n"] {
        let e = parse(&format!("[[subscribe]]\npackage = \"{bad}\""));
        assert!(e.message.contains("line 4, column 11"), "{bad}: {e:?}");
        assert!(e.message.contains("pattern `") && e.help.contains("a path is none"), "{e:?}");
        assert!(!e.message.contains('\u{7}'), "{e:?}");
        for lines in [
            format!("[[trust]]\nallow = \"*\"\npackages = [\"{bad}\"]"),
            format!("[[pin]]\npackage = \"{bad}\"\nversion = \"1\""),
            format!("[[hold]]\npackage = \"{bad}\""),
            format!("[[subscribe]]\npackage = \"x\"\ngroup = \"{bad}\""),
        ] {
            let e = parse(&lines);
            assert!(e.message.contains("line ") && !e.help.contains("examples"), "{bad}: {e:?}");
        }
    }
    let e = parse("[[subscribe]]\npackage = \"x\"\nversion = \">= a b\"");
    assert!(e.message.contains("line 5, column 11") && e.help.contains(">= 1.0"), "{e:?}");
}

/// T014: the newest release has expired. An older one that has not is no substitute: neither is
/// installed, and the reason names the newer one. What a VM shows stays.
#[test]
fn t014_an_expired_newest_release_is_not_replaced_by_an_older_one() {
    let f = Fixture::new();
    let mut t = f.trust();
    let mut c = Catalog::default();
    let feed = f.feed(2);
    let mut old: stork_wire::feed::Entry = feed[0].envelope.claimed().unwrap();
    old.expires = NOW + 5_000;
    let old = f.item(&old, &f.release_key);
    let mut new: stork_wire::feed::Entry = feed[1].envelope.claimed().unwrap();
    new.prev = Some(old.envelope.hash());
    for i in [&old, &f.item(&new, &f.release_key)] {
        let Verdict::Accepted { fact: Fact::Entry(e), .. } = t.judge(i, NOW) else {
            panic!("not accepted")
        };
        c.apply(e.get());
    }
    let (vm, hello) = (vm(&format!("{SUBSCRIBE}{TRUST}")), "hello".parse().unwrap());
    let later = NOW + 2_000;
    // Offered once more, the older entry is nothing new.
    assert_eq!(t.judge(&old, later), Verdict::Known);
    let none = Shown::default();
    assert!(c.wish(&vm, &none, Scene::new(&t, later)).is_empty());
    let all = c.consider(&vm, &hello, &none, Scene::new(&t, later));
    let why: Vec<_> = all.iter().map(|c| (c.known.seq, c.outcome.clone())).collect();
    let stale = Outcome::Stale("2".parse().unwrap());
    assert_eq!(why, [(1, stale.clone()), (2, Outcome::Expired)]);
    assert_eq!(stale.to_string(), "the newer 2 has expired, so nothing older is installed");
    for shown_seq in [1, 2] {
        let known = c.all().find(|k| k.seq == shown_seq).unwrap();
        let releases = [(hello.clone(), known.hash)].into();
        let shown = Shown { releases, ..Shown::default() };
        let wish = c.wish(&vm, &shown, Scene::new(&t, later));
        assert_eq!(wish.get(&hello).map(|w| w.known.seq), Some(shown_seq), "it stays");
    }
}

/// Behind a fork nothing is installed anew, also after a restart; where it is shown it stays, until
/// a new epoch says what stands. A recall that had come holds against new installation.
#[test]
fn t020_behind_a_fork_nothing_is_new() {
    let f = Fixture::new();
    let (_, t, mut c) = world(4);
    let entries: Vec<stork_wire::feed::Entry> =
        f.feed(4).iter().map(|i| i.envelope.claimed().unwrap()).collect();
    let at = stork_wire::ids::Position { epoch: 1, seq: 3 };
    let hash = stork_wire::ids::ItemHash([1; 32]);
    let freeze = crate::trust::Freeze {
        at,
        cause: crate::trust::Cause::Fork { proof: hash, entries: [hash; 2] },
    };
    let mut restarted = Catalog::default();
    entries.iter().take(2).for_each(|e| restarted.apply(e));
    entries.iter().skip(2).for_each(|e| restarted.apply_frozen(e, freeze));
    c.rebuild(f.publisher, entries.iter().take(2), Fallen::Frozen(freeze));
    let hello: stork_wire::text::PackageName = "hello".parse().unwrap();
    let vm = vm(&format!("{SUBSCRIBE}{TRUST}"));
    let shows = |c: &Catalog, seq: u64| {
        let known = c.all().find(|k| k.seq == seq).unwrap();
        Shown { releases: [(hello.clone(), known.hash)].into(), ..Shown::default() }
    };
    for c in [&c, &restarted] {
        assert_eq!(c.len(), 4);
        let seq_for = |shown: &Shown| {
            let wish = c.wish(&vm, shown, Scene::new(&t, NOW));
            wish.get(&hello).map(|w| w.known.seq)
        };
        assert_eq!(seq_for(&Shown::default()), Some(2), "the newest before the fork");
        assert_eq!(seq_for(&shows(c, 4)), Some(4), "what is shown stays");
        assert_eq!(seq_for(&shows(c, 3)), Some(3), "and nothing newer comes");
        let all = c.consider(&vm, &hello, &Shown::default(), Scene::new(&t, NOW));
        let last = all.iter().find(|c| c.known.seq == 4).unwrap();
        assert_eq!(last.outcome, Outcome::Frozen(freeze));
        let latest = c.latest(f.publisher, &hello, &"amd64".parse().unwrap());
        assert_eq!(latest.map(|k| k.seq), Some(2), "publishers build on what stands");
    }
    let shown = shows(&c, 4);
    c.rebuild(f.publisher, entries.iter().take(2), Fallen::Gone);
    assert_eq!(c.wish(&vm, &shown, Scene::new(&t, NOW)).get(&hello).map(|w| w.known.seq), Some(2));
    // A recall of release 1, behind the fork.
    let mut recall = entries[3].clone();
    recall.kind = stork_wire::feed::Kind::Recall(stork_wire::feed::Recall {
        package: hello.clone(),
        releases: stork_wire::codec::List::truncated([1]),
        reason: "bad".parse().unwrap(),
    });
    let mut c = Catalog::default();
    entries.iter().take(1).chain([&recall]).for_each(|e| c.apply(e));
    assert!(c.is_empty());
    c.rebuild(f.publisher, entries.iter().take(1), Fallen::Frozen(freeze));
    assert!(c.wish(&vm, &Shown::default(), Scene::new(&t, NOW)).is_empty());
    c.rebuild(f.publisher, entries.iter().take(1), Fallen::Gone);
    assert_eq!(c.wish(&vm, &Shown::default(), Scene::new(&t, NOW)).len(), 1);
}

/// A VM's rules name publishers as its own groups do: a group of somebody else may call another
/// publisher by the same name, and wins nothing.
#[test]
fn names_are_those_of_the_groups_of_the_vm() {
    use stork_wire::charter::GroupDoc;
    use stork_wire::codec::List;
    use stork_wire::ids::LogId;
    use stork_wire::item::ItemKind;
    use stork_wire::sign::SecretKey;

    let (f, mut t, c) = world(2);
    let vm = vm(&format!("{SUBSCRIBE}[[trust]]\nallow = \"trusted\"\n"));
    let hello = "hello".parse().unwrap();
    let outcome = |t: &Trust| {
        c.consider(&vm, &hello, &Shown::default(), Scene::new(t, NOW))[0].outcome.clone()
    };
    assert_eq!(outcome(&t), Outcome::Denied(None));
    // Groups are looked at in the order of their ids; one of these comes first.
    for n in 0..40 {
        let mut doc: GroupDoc = f.documents[1].envelope.claimed().unwrap();
        doc.name = format!("theirs-{n}").parse().unwrap();
        let mut grant = doc.publishers[0].clone();
        grant.name = "trusted".parse().unwrap();
        doc.publishers = List::truncated([grant]);
        let log = LogId::group(doc.group_id());
        let by = SecretKey::from_seed(&[3; 32]);
        let item = crate::trust_fixture::item(ItemKind::Group, log, 1, &doc, f.fleet, &by);
        assert!(matches!(t.judge(&item, NOW), Verdict::Accepted { .. }));
    }
    assert_eq!(t.charter().publisher_name(f.publisher), "trusted");
    assert_eq!(outcome(&t), Outcome::Denied(None));
}
