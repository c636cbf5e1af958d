//! Retiring and carrying over, over real sockets: what goes, what stays, and what is refused.

use std::path::Path;

use stork_wire::charter::{PublisherDoc, Survivor};
use stork_wire::feed::{Entry, Kind};
use stork_wire::ids::Position;

use super::fake::Fake;
use super::tests::Shop;
use super::*;
use crate::charter::{Change, EpochOptions, Life, new_epoch};

fn targets(to: &[&Fake]) -> Vec<Target> {
    to.iter().map(|f| Target { addr: f.addr.clone(), node: Some(f.node) }).collect()
}

fn options(shop: &Shop, keep: Option<usize>, versions: &[&str], to: &[&Fake]) -> RetireOptions {
    RetireOptions {
        package: (!versions.is_empty()).then(|| "tool".parse().unwrap()),
        versions: versions.iter().map(|v| v.parse().unwrap()).collect(),
        keep,
        arch: None,
        charter: shop.dir.path().join("c"),
        key: None,
        passphrase: Passphrase::None,
        to: targets(to),
        dry_run: false,
    }
}

fn versions(report: &RetireReport) -> Vec<&str> {
    report.retired.iter().map(|r| r.version.as_str()).collect()
}

/// All but the two newest go, by version and not by time; the feed goes on, and its counters rise
/// above what was retired.
#[tokio::test(flavor = "multi_thread")]
async fn all_but_the_newest_go() {
    let (a, b) = (Fake::start(1), Fake::start(2));
    let shop = Shop::new(vec![a.node], &[]);
    for version in ["1.0", "1.1", "2.0"] {
        shop.push(version, &[&a, &b]).await.unwrap();
    }
    let mut lower = shop.options("1.2", &[&a, &b]);
    lower.allow_lower = true;
    push(&lower, &Progress::Silent).await.unwrap();

    let mut dry = options(&shop, Some(2), &[], &[&a, &b]);
    dry.dry_run = true;
    let would = retire(&dry, &Progress::Silent).await.unwrap();
    assert_eq!((would.outcome, versions(&would)), ("dry_run", vec!["1.0", "1.1"]));
    assert_eq!((a.state().feed.len(), would.live), (4, 4));

    let did = retire(&options(&shop, Some(2), &[], &[&a, &b]), &Progress::Silent).await.unwrap();
    assert_eq!((did.outcome, versions(&did), did.live), ("retired", vec!["1.0", "1.1"], 2));
    assert!(did.lines()[0].contains("retired 2 releases; 2 of 4096 are live"), "{:?}", did.lines());
    assert!(did.nodes.iter().all(|n| n.committed), "{:?}", did.nodes);
    for fake in [&a, &b] {
        let state = fake.state();
        let entry: Entry = state.feed[4].claimed().unwrap();
        let Kind::Retire(r) = &entry.kind else { panic!("{:?}", entry.kind) };
        assert_eq!(r.releases[..], [1, 2].map(|seq| Position { epoch: 1, seq }));
        assert_eq!(state.releases().iter().map(|r| r.release).collect::<Vec<_>>(), [3, 4]);
    }
    let again = retire(&options(&shop, Some(2), &[], &[&a]), &Progress::Silent).await.unwrap();
    assert_eq!((again.outcome, a.state().feed.len()), ("nothing", 5));
    let next = shop.push("2.1", &[&a, &b]).await.unwrap();
    assert_eq!(next.seq, Some(6));
    assert_eq!(a.state().releases().last().unwrap().release, 6);
}

/// By version: what is not live is named, and that the newest goes is said. A key for other
/// packages retires nothing.
#[tokio::test(flavor = "multi_thread")]
async fn named_versions_go() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &["tool"]);
    for version in ["1.0", "1.1"] {
        shop.push(version, &[&a]).await.unwrap();
    }
    let e = retire(&options(&shop, None, &["1.1", "9"], &[&a]), &Progress::Silent).await;
    let e = e.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("tool 9")), (5, true), "{e}");
    let did = retire(&options(&shop, None, &["1.1"], &[&a]), &Progress::Silent).await.unwrap();
    assert_eq!(versions(&did), ["1.1"]);
    assert!(did.lines()[1].ends_with("it was the newest"), "{:?}", did.lines());
    let e = retire(&options(&shop, None, &["1.1"], &[&a]), &Progress::Silent).await.unwrap_err();
    assert_eq!(e.exit(), 5, "{e}");
}

/// A node that hides live releases is not believed: something would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hides_releases() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &[]);
    for version in ["1.0", "1.1"] {
        shop.push(version, &[&a]).await.unwrap();
    }
    a.state().hide_live = 1;
    let e = retire(&options(&shop, Some(1), &[], &[&a]), &Progress::Silent).await.unwrap_err();
    assert_eq!(e.exit(), 4, "{e}");
    assert_eq!(a.state().feed.len(), 2);
}

/// The publisher's root says that the feed begins anew.
fn begin_anew(charter: &Path, at: Survivor) -> PublisherDoc {
    let change = Change {
        dir: charter.to_path_buf(),
        keys: Vec::new(),
        passphrase: Passphrase::None,
        out: None,
        dry_run: false,
        life: Life::days(now(), 10),
    };
    let epoch = EpochOptions::anew(at);
    new_epoch(&change, &epoch).unwrap().1
}

fn recall_of(shop: &Shop, version: &str, from: &Fake) -> RecallOptions {
    RecallOptions {
        package: "tool".parse().unwrap(),
        versions: vec![version.parse().unwrap()],
        arch: None,
        reason: "a hole".parse().unwrap(),
        charter: shop.dir.path().join("c"),
        key: None,
        passphrase: Passphrase::None,
        root: None,
        to: targets(&[from]),
        dry_run: false,
    }
}

/// A feed begins anew: what was live is announced again, in its order, above its own counters and
/// with the end that it had; stopped half-way, it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_live_is_carried_over() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &[]);
    for version in ["1.0", "1.1", "1.2"] {
        shop.push(version, &[&a]).await.unwrap();
    }
    retire(&options(&shop, None, &["1.0"], &[&a]), &Progress::Silent).await.unwrap();
    let charter = shop.dir.path().join("c");
    let reach = CarryOptions {
        charter: charter.clone(),
        key: None,
        passphrase: Passphrase::None,
        to: targets(&[&a]),
    };
    let e = carry(&reach, &Progress::Silent).await.unwrap_err();
    assert_eq!(e.exit(), 5, "nothing was gathered: {e}");
    // What was recalled is left.
    shop.push("1.3", &[&a]).await.unwrap();
    recall(&recall_of(&shop, "1.3", &a), &Progress::Silent).await.unwrap();
    let (at, count) = gather(&reach, &Progress::Silent).await.unwrap().unwrap();
    assert_eq!((at.at, count), (Position { epoch: 1, seq: 5 }, 2));
    let e = gather(&reach, &Progress::Silent).await.unwrap_err();
    assert!(e.to_string().contains(CARRY_FILE), "an earlier one is not overwritten: {e}");
    let e = carry(&reach, &Progress::Silent).await.unwrap_err();
    assert!(e.to_string().contains("no document begins this feed anew"), "{e}");

    let doc = begin_anew(&charter, at);
    assert_eq!((doc.epoch, doc.survivor, doc.compacts), (2, None, Some(at)));
    let before: Vec<Entry> = a.state().feed[1..3].iter().map(|e| e.claimed().unwrap()).collect();
    a.state().feed.clear();
    let kept = std::fs::read(charter.join(CARRY_FILE)).unwrap();
    let did = carry(&reach, &Progress::Silent).await.unwrap();
    assert_eq!((did.epoch, did.carried, did.present, did.expired), (2, 2, 0, 0));
    assert!(!charter.join(CARRY_FILE).exists());
    let after: Vec<Entry> = a.state().feed.iter().map(|e| e.claimed().unwrap()).collect();
    for (n, (old, new)) in before.iter().zip(&after).enumerate() {
        let (old_release, new_release) = (old.release().unwrap(), new.release().unwrap());
        assert_eq!(new.position(), Position { epoch: 2, seq: n as u64 + 1 });
        assert_eq!((new.expires, new.prev.is_none()), (old.expires, n == 0));
        assert!(new_release.release > 5, "{}", new_release.release);
        assert_eq!(new_release.version, old_release.version);
        assert_eq!(new_release.manifest, old_release.manifest);
    }
    // Stopped after all of it, before the file was gone.
    std::fs::write(charter.join(CARRY_FILE), &kept).unwrap();
    let did = carry(&reach, &Progress::Silent).await.unwrap();
    assert_eq!((did.carried, did.present, a.state().feed.len()), (0, 2, 2));
    // And half-way.
    std::fs::write(charter.join(CARRY_FILE), &kept).unwrap();
    a.state().feed.pop();
    let did = carry(&reach, &Progress::Silent).await.unwrap();
    assert_eq!((did.carried, did.present, a.state().feed.len()), (1, 1, 2));
    std::fs::write(charter.join(CARRY_FILE), kept.split_last().unwrap().1).unwrap();
    let e = carry(&reach, &Progress::Silent).await.unwrap_err();
    assert!(e.to_string().contains("no list of carried entries"), "{e}");
    // Later releases go on above.
    shop.push("1.4", &[&a]).await.unwrap();
    assert!(a.state().releases().last().unwrap().release > 7);
}
