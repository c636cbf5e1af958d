//! Recalls over real sockets: what is withdrawn, what is left, and what is refused.

use stork_wire::feed::{Entry, Kind};

use super::fake::Fake;
use super::tests::Shop;
use super::*;

fn options(shop: &Shop, versions: &[&str], to: &[&Fake]) -> RecallOptions {
    RecallOptions {
        package: "tool".parse().unwrap(),
        versions: versions.iter().map(|v| v.parse().unwrap()).collect(),
        arch: None,
        reason: "it does not start".parse().unwrap(),
        charter: shop.dir.path().join("c"),
        key: None,
        passphrase: Passphrase::None,
        to: to.iter().map(|f| Target { addr: f.addr.clone(), node: Some(f.node) }).collect(),
        dry_run: false,
    }
}

async fn recall(shop: &Shop, versions: &[&str], to: &[&Fake]) -> Result<RecallReport, PushError> {
    super::recall(&options(shop, versions, to), &Progress::Silent).await
}

/// The newest of three is withdrawn on both nodes, and the one before it is left. The feed goes on
/// after it; what is withdrawn cannot be withdrawn twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_goes() {
    let (a, b) = (Fake::start(1), Fake::start(2));
    let shop = Shop::new(vec![a.node], &[]);
    for version in ["1.0", "1.1", "1.2"] {
        shop.push(version, &[&a, &b]).await.unwrap();
    }
    let mut dry = options(&shop, &["1.2"], &[&a, &b]);
    dry.dry_run = true;
    let would = super::recall(&dry, &Progress::Silent).await.unwrap();
    assert_eq!((would.outcome, would.seq, a.state().feed.len()), ("dry_run", 4, 3));

    let did = recall(&shop, &["1.2"], &[&a, &b]).await.unwrap();
    assert_eq!((did.outcome, did.seq, &did.recalled), ("recalled", 4, &would.recalled));
    let one = &did.recalled[0];
    assert_eq!((&*one.version, one.release, one.seq), ("1.2", 3, 3));
    assert_eq!(one.left.as_deref(), Some("1.1"));
    assert!(did.lines()[1].contains("VMs go back to 1.1"), "{:?}", did.lines());
    assert!(did.nodes.iter().all(|n| n.committed), "{:?}", did.nodes);
    for fake in [&a, &b] {
        let state = fake.state();
        let entry: Entry = state.feed[3].claimed().unwrap();
        let Kind::Recall(recall) = entry.kind else { panic!("{:?}", entry.kind) };
        assert_eq!((&*recall.releases, recall.reason.as_str()), (&[3][..], "it does not start"));
        assert_eq!(state.releases().len(), 2);
    }
    let e = recall(&shop, &["1.2"], &[&a, &b]).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("recalled already")), (5, true), "{e}");
    assert!(e.help().contains("`stork release`"), "{}", e.help());
    assert_eq!(shop.push("1.3", &[&a, &b]).await.unwrap().seq, Some(5));
    assert_eq!(a.state().releases().last().unwrap().release, 5);
}

/// More releases than one answer holds are all found, and all of them can go: then nothing is left,
/// and the report says so.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_many_go() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &[]);
    let versions: Vec<String> = (0..35).map(|i| format!("1.{i}")).collect();
    for version in &versions {
        shop.push(version, &[&a]).await.unwrap();
    }
    let all: Vec<&str> = versions.iter().map(String::as_str).collect();
    let oldest = recall(&shop, &all[..1], &[&a]).await.unwrap();
    assert_eq!(oldest.recalled[0].left.as_deref(), Some("1.34"));
    let did = recall(&shop, &all[1..], &[&a]).await.unwrap();
    assert_eq!((did.recalled.len(), a.state().releases().len()), (34, 0));
    assert!(did.lines()[1].contains("VMs lose the package"), "{:?}", did.lines());
}

/// Somebody else publishes in between: the recall follows what is there then.
#[tokio::test(flavor = "multi_thread")]
async fn the_head_moves_on() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &[]);
    shop.push("1.0", &[&a]).await.unwrap();
    let feed = a.state().feed.clone();
    let other = shop.elsewhere("2.0", &feed).await;
    a.state().heads_to_move.push(other);
    let did = recall(&shop, &["1.0"], &[&a]).await.unwrap();
    assert_eq!((did.seq, a.state().releases().len()), (3, 1));
}

/// A name that the key may not use, a version that never was, a node that shows releases in another
/// order or hides some: nothing is signed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &["tool"]);
    for version in ["1.0", "1.1"] {
        shop.push(version, &[&a]).await.unwrap();
    }
    let mut other = options(&shop, &["1.0"], &[&a]);
    other.package = "kernel".parse().unwrap();
    let e = super::recall(&other, &Progress::Silent).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("kernel")), (4, true), "{e}");
    let e = recall(&shop, &["1.0", "9"], &[&a]).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("tool 9")), (5, true), "{e}");
    let mut arm = options(&shop, &["1.0"], &[&a]);
    arm.arch = Some("arm64".parse().unwrap());
    let e = super::recall(&arm, &Progress::Silent).await.unwrap_err();
    assert!(e.to_string().contains("tool 1.0 (arm64)"), "{e}");
    a.state().shuffles = true;
    let e = recall(&shop, &["1.0"], &[&a]).await.unwrap_err();
    assert!(matches!(e, PushError::Protocol { .. }), "{e}");
    a.state().shuffles = false;
    a.state().hide_live = 1;
    let e = recall(&shop, &["1.0"], &[&a]).await.unwrap_err();
    assert_eq!(e.exit(), 4, "{e}");
    assert_eq!(a.state().feed.len(), 2);
}
