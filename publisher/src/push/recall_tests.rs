//! Recalls over real sockets: what is withdrawn, what is left, and what is refused.

use stork_wire::withdrawal::{Level, Withdrawal};

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
        root: None,
        to: to.iter().map(|f| Target { addr: f.addr.clone(), node: Some(f.node) }).collect(),
        dry_run: false,
    }
}

async fn recall(shop: &Shop, versions: &[&str], to: &[&Fake]) -> Result<RecallReport, PushError> {
    super::recall(&options(shop, versions, to), &Progress::Silent).await
}

/// The newest of three is withdrawn on both nodes, and the one before it is left. The feed goes on
/// beside it; what is withdrawn cannot be withdrawn twice.
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
    assert_eq!((would.outcome, a.state().narrowing.len()), ("dry_run", 0));

    let did = recall(&shop, &["1.2"], &[&a, &b]).await.unwrap();
    assert_eq!((did.outcome, &did.recalled), ("recalled", &would.recalled));
    let one = &did.recalled[0];
    assert_eq!((&*one.version, one.release, one.seq), ("1.2", 3, 3));
    assert_eq!(one.left.as_deref(), Some("1.1"));
    assert!(did.lines()[1].contains("VMs go back to 1.1"), "{:?}", did.lines());
    assert!(did.nodes.iter().all(|n| n.committed), "{:?}", did.nodes);
    for fake in [&a, &b] {
        let state = fake.state();
        let body: Withdrawal = state.narrowing[0].envelope.claimed().unwrap();
        assert_eq!((body.log(), body.reason.as_str()), (did.log, "it does not start"));
        assert_eq!(state.recalled(), [state.releases()[2].hash()]);
        assert_eq!(state.feed.len(), 3, "the feed itself does not change");
    }
    let e = recall(&shop, &["1.2"], &[&a, &b]).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("recalled already")), (5, true), "{e}");
    assert!(e.help().contains("`stork release`"), "{}", e.help());
    assert_eq!(shop.push("1.3", &[&a, &b]).await.unwrap().seq, Some(4));
    assert_eq!(a.state().releases().last().unwrap().release, 4);
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
    assert_eq!((did.recalled.len(), a.state().recalled().len()), (34, 35));
    assert!(did.lines()[1].contains("VMs lose the package"), "{:?}", did.lines());
}

/// By their hashes releases are withdrawn without a question to any node: by the root, and by a
/// release key, whatever has become of it. Another key is told so before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn by_hash() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &["tool"]);
    shop.push("1.0", &[&a]).await.unwrap();
    let hash = a.state().releases()[0].hash();
    a.state().refuse = Some(Refusal::Trust);
    let e = recall(&shop, &["1.0"], &[&a]).await.unwrap_err();
    assert_eq!(e.exit(), 4, "who is not welcome cannot look: {e}");
    a.state().refuse = None;
    let options = |root: bool, keys: &[&str]| HashesOptions {
        package: "tool".parse().unwrap(),
        releases: vec![hash, hash],
        root,
        sending: Sending {
            charter: shop.dir.path().join("c"),
            keys: keys
                .iter()
                .map(|k| format!("{}/c/keys/{k}", shop.dir.path().display()))
                .collect(),
            passphrase: Passphrase::None,
            reason: "stolen".parse().unwrap(),
            to: options(&shop, &[], &[&a]).to,
            dry_run: false,
        },
    };
    for (root, keys, level) in [
        (true, &[][..], Level::Root),
        (true, &["publisher"], Level::Root),
        (false, &[], Level::Release),
    ] {
        let before = a.state().narrowing.len();
        let did = recall_hashes(&options(root, keys)).await.unwrap();
        assert_eq!((did.outcome, did.nodes.len()), ("sent", 1));
        let item = a.state().narrowing[before].clone();
        let body: Withdrawal = item.envelope.claimed().unwrap();
        assert_eq!((body.by, body.log()), (level, did.log));
        assert!(a.state().recalled().iter().all(|h| *h == hash));
    }
    let e = recall_hashes(&options(true, &["release"])).await.unwrap_err();
    assert!(matches!(e, PushError::NotSigner { .. }), "{e}");
    let mut other = options(false, &[]);
    other.package = "kernel".parse().unwrap();
    assert_eq!(recall_hashes(&other).await.unwrap_err().exit(), 4);
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
    assert_eq!(a.state().narrowing.len(), 0);
}

/// The root recalls by version as well: the release key asks what there is, and signs nothing. A
/// key that is not of the root is refused before anybody is asked.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_recalls_by_version() {
    let a = Fake::start(1);
    let shop = Shop::new(vec![a.node], &[]);
    for version in ["1.0", "1.1"] {
        shop.push(version, &[&a]).await.unwrap();
    }
    let mut by_root = options(&shop, &["1.1"], &[&a]);
    let keys = shop.dir.path().join("c/keys");
    by_root.root = Some(vec![keys.join("release").to_string_lossy().into_owned()]);
    let e = super::recall(&by_root, &Progress::Silent).await.unwrap_err();
    assert!(a.state().narrowing.is_empty(), "{e}");
    by_root.root = Some(Vec::new());
    let did = super::recall(&by_root, &Progress::Silent).await.unwrap();
    assert_eq!((did.outcome, did.recalled[0].version.as_str()), ("recalled", "1.1"));
    let state = a.state();
    let item = &state.narrowing[0];
    let body: Withdrawal = item.envelope.claimed().unwrap();
    assert_eq!((body.by, body.log()), (Level::Root, did.log));
    assert_eq!(state.recalled(), [state.releases()[1].hash()]);
    let root = crate::keys::read_public(&keys.join("publisher.pub")).unwrap().0;
    let fleet = crate::charter::open(&shop.dir.path().join("c")).unwrap().0.fleet;
    assert!(item.envelope.verify::<Withdrawal>(fleet, &[root], 1).is_ok());
}
