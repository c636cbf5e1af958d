//! Releases that their publisher has withdrawn for good.

use stork_wire::codec::List;
use stork_wire::feed::{Kind, Recall, view_root};

use super::{Catalog, Outcome, Scene, Shown, VmFile};
use crate::trust::{Fact, Trust, Verdict};
use crate::trust_fixture::{Fixture, NOW};

fn vm(version: &str) -> VmFile {
    let text = format!(
        "[vm]\narch = \"amd64\"\ngroups = [\"web\"]\n\
         [[subscribe]]\npackage = \"hello\"\nversion = \"{version}\"\n\
         [[trust]]\nallow = \"acme\"\n\
         [view]\nbackend = \"tree\"\ntarget = \"/srv/vm\"\n"
    );
    VmFile::parse("web-1", &text).unwrap()
}

/// Three releases, of which the third says that the first is not secure, and its recall.
fn world(recalled: bool) -> (Trust, Catalog) {
    let f = Fixture::new();
    let (mut t, mut c) = (f.trust(), Catalog::default());
    let (mut live, mut prev) = (Vec::new(), None);
    let mut give = |entry: &stork_wire::feed::Entry| {
        let item = f.item(entry, &f.release_key);
        let hash = item.envelope.hash();
        let Verdict::Accepted { fact: Fact::Entry(e), .. } = t.judge(&item, NOW) else {
            panic!("entry {}", entry.seq)
        };
        c.apply(e.get());
        hash
    };
    for n in 1..=3 {
        let mut release = f.release("hello", &n.to_string(), n);
        release.min_secure_release = if n == 3 { 2 } else { 0 };
        let hash = release.hash();
        prev = Some(give(&f.entry(n, prev, &live, release)));
        live.push(hash);
    }
    if recalled {
        let mut entry = f.entry(4, prev, &[], f.release("hello", "4", 4));
        entry.view_root = view_root(live[..2].iter().copied());
        entry.kind = Kind::Recall(Recall {
            package: "hello".parse().unwrap(),
            releases: List::truncated([3]),
            reason: "it does not start".parse().unwrap(),
        });
        give(&entry);
    }
    (t, c)
}

/// T018: a release below the floor that a later one announced is refused, also where nothing of
/// the package was ever installed and the VM's file allows nothing else; whoever shows it already
/// does not keep it. The floor stays when the release that announced it is recalled.
#[test]
fn t018_below_the_floor_nothing_is_installed() {
    for recalled in [false, true] {
        let (t, c) = world(recalled);
        let hello = "hello".parse().unwrap();
        let wish = |version: &str, shown: &Shown| {
            let wish = c.wish(&vm(version), shown, Scene::new(&t, NOW));
            wish.values().next().map(|w| w.known.release.version.to_string())
        };
        let first = c.of_package(&hello).iter().find(|k| k.release.release == 1).unwrap();
        let mut shows_it = Shown::default();
        shows_it.releases.insert("hello".parse().unwrap(), first.hash);
        for shown in [Shown::default(), shows_it] {
            assert_eq!(wish("= 1", &shown), None);
            let only_first = vm("= 1");
            let all = c.consider(&only_first, &hello, &shown, Scene::new(&t, NOW));
            let first = all.iter().find(|k| k.known.release.release == 1).unwrap();
            assert_eq!(first.outcome, Outcome::BelowFloor(2));
            // At the floor and above is good.
            assert_eq!(wish("<= 2", &shown).as_deref(), Some("2"));
            let newest = if recalled { "2" } else { "3" };
            assert_eq!(wish(">= 1", &shown).as_deref(), Some(newest));
        }
    }
}
