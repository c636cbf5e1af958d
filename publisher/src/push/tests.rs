//! Pushing to nodes over real sockets: the good way, and the ways in which it goes wrong.

use std::fs;

use stork_wire::feed::Entry;
use stork_wire::ids::{NodeId, ViewRoot};
use stork_wire::manifest::Manifest;
use stork_wire::sign::Envelope;
use tempfile::TempDir;

use super::fake::Fake;
use super::*;
use crate::charter::{InitOptions, RoleKeys, init};

pub(super) struct Shop {
    pub(super) dir: TempDir,
}

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

impl Shop {
    pub(super) fn new(homes: Vec<NodeId>, packages: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let options = InitOptions {
            dir: dir.path().join("c"),
            fleet: "acme".parse().unwrap(),
            groups: vec!["web".parse().unwrap(), "db".parse().unwrap()],
            publisher: "ops".parse().unwrap(),
            packages: packages.iter().map(|p| p.parse().unwrap()).collect(),
            provides: Vec::new(),
            homes,
            valid_days: 10,
            release_key: None,
            beacon_keys: Vec::new(),
            passphrase: Passphrase::None,
            roles: RoleKeys::default(),
        };
        init(&options, now()).unwrap();
        Self { dir }
    }

    /// Options to push a directory whose one library differs a little between versions.
    pub(super) fn options(&self, version: &str, to: &[&Fake]) -> PushOptions {
        let top = self.dir.path().join(version);
        // A file that is written again has another time, and so is another tree.
        if fs::create_dir(&top).is_ok() {
            let mut lib = noise(600_000, 1);
            lib[300_000] = version.bytes().fold(0, |a, b| a ^ b);
            fs::write(top.join("lib"), lib).unwrap();
        }
        PushOptions {
            package: top,
            read: ReadOptions {
                name: Some("tool".parse().unwrap()),
                version: Some(version.parse().unwrap()),
                arch: Some("all".parse().unwrap()),
                ..ReadOptions::default()
            },
            charter: self.dir.path().join("c"),
            key: None,
            passphrase: Passphrase::None,
            to: to.iter().map(|f| Target { addr: f.addr.clone(), node: Some(f.node) }).collect(),
            copies: None,
            origin: None,
            origin_credentials: None,
            groups: vec![],
            bundle: None,
            urgency: Urgency::Normal,
            expires_days: 180,
            base: BaseChoice::Auto,
            allow_lower: false,
            dry_run: false,
        }
    }

    pub(super) async fn push(&self, version: &str, to: &[&Fake]) -> Result<PushReport, PushError> {
        push(&self.options(version, to), &Progress::Silent).await
    }

    /// An entry that somebody else with the same key makes on the same feed.
    pub(super) async fn elsewhere(&self, version: &str, feed: &[Envelope]) -> Envelope {
        let other = Fake::start(77);
        other.state().feed = feed.to_vec();
        let mut options = self.options(version, &[&other]);
        options.read.name = Some("other".parse().unwrap());
        push(&options, &Progress::Silent).await.unwrap();
        let entry = other.state().feed.last().cloned().unwrap();
        other.stop();
        entry
    }
}

/// Two releases to two nodes: content everywhere, one entry after the other, the second with a
/// delta against the first that was fetched from the node. Doing it again changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn two_releases() {
    let (a, b) = (Fake::start(1), Fake::start(2));
    let shop = Shop::new(vec![b.node], &[]);
    let first = shop.push("1.0", &[&a, &b]).await.unwrap();
    assert_eq!((first.outcome, first.seq), (Outcome::Published, Some(1)));
    assert_eq!(first.groups, ["db", "web"]);
    assert_eq!(first.nodes[0].node, b.node, "the home comes first");
    assert!(first.nodes.iter().all(|n| n.committed && n.sent_bytes > 600_000));
    assert_eq!(first.delta_bytes, None);

    let second = shop.push("1.1", &[&a, &b]).await.unwrap();
    assert_eq!(second.seq, Some(2));
    assert!(second.delta_bytes.unwrap() < 20_000, "{second:?}");
    for fake in [&a, &b] {
        let state = fake.state();
        assert_eq!(state.documents, 8);
        let releases = state.releases();
        assert_eq!(releases.len(), 2);
        assert_eq!(releases[1].release, 2);
        assert_eq!(releases[1].delta.unwrap().base, releases[0].tree);
        assert_eq!(&*releases[1].origins, &[b.node, a.node]);
        let manifest = &state.manifests[&releases[1].manifest.id];
        let manifest = Manifest::from_bytes(manifest).unwrap();
        let mut packs = manifest.packing.packs.iter();
        assert!(packs.all(|p| state.packs.contains_key(&p.id)));
    }
    let again = shop.push("1.1", &[&a, &b]).await.unwrap();
    assert_eq!((again.outcome, again.seq), (Outcome::AlreadyPublished, Some(2)));
    assert!(again.lines()[0].contains("already published as entry 2"), "{again:?}");
    assert_eq!(b.state().feed.len(), 2);

    // Other bytes under the same version are refused before anything is sent, by a dry run too.
    fs::write(shop.dir.path().join("1.1/lib"), b"other").unwrap();
    let packs = b.state().packs.len();
    let mut options = shop.options("1.1", &[&a, &b]);
    for dry_run in [true, false] {
        options.dry_run = dry_run;
        let e = push(&options, &Progress::Silent).await.unwrap_err();
        assert!(matches!(e, PushError::VersionTaken { seq: 2, .. }) && e.exit() == 7, "{e}");
        assert!(e.help().contains("new version"), "{}", e.help());
    }
    let state = b.state();
    assert_eq!((state.feed.len(), state.packs.len()), (2, packs));
}

/// What runs out in a few days is announced again, for longer; what lasts is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn announced_again_before_it_runs_out() {
    let a = Fake::start(1);
    let shop = Shop::new(vec![a.node], &[]);
    let mut short = shop.options("1.0", &[&a]);
    short.expires_days = 10;
    assert_eq!(push(&short, &Progress::Silent).await.unwrap().seq, Some(1));
    let same = push(&short, &Progress::Silent).await.unwrap();
    assert_eq!((same.outcome, same.seq), (Outcome::AlreadyPublished, Some(1)));
    let longer = shop.push("1.0", &[&a]).await.unwrap();
    assert_eq!((longer.outcome, longer.seq), (Outcome::Published, Some(2)));
    let releases = a.state().releases();
    assert_eq!((releases[1].tree, releases[1].release), (releases[0].tree, 2));
}

/// Going backwards needs a word, and a dry run sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn backwards_and_dry() {
    let node = Fake::start(3);
    let shop = Shop::new(vec![], &[]);
    let mut options = shop.options("2.0", &[&node]);
    options.dry_run = true;
    let report = push(&options, &Progress::Silent).await.unwrap();
    assert_eq!((report.outcome, report.seq), (Outcome::DryRun, Some(1)));
    assert!(node.state().packs.is_empty() && node.state().documents == 0);
    shop.push("2.0", &[&node]).await.unwrap();
    let e = shop.push("1.9", &[&node]).await.unwrap_err();
    assert!(matches!(e, PushError::Lower { .. }) && e.exit() == 7, "{e}");
    let mut options = shop.options("1.9", &[&node]);
    options.allow_lower = true;
    assert_eq!(push(&options, &Progress::Silent).await.unwrap().seq, Some(2));
}

/// A connection that breaks inside a pack costs only what was not on the node's disk yet, and a
/// damaged beginning is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn resuming() {
    let node = Fake::start(4);
    let shop = Shop::new(vec![], &[]);
    node.state().cut_at = Some(400_000);
    let e = shop.push("1.0", &[&node]).await.unwrap_err();
    assert_eq!(e.exit(), 75, "{e}");
    assert!(node.state().feed.is_empty());
    node.state().received = 0;
    let report = shop.push("1.0", &[&node]).await.unwrap();
    assert_eq!(report.nodes[0].resumed_bytes, 400_000);
    assert!(node.state().received < 202_000, "{}", node.state().received);

    let node = Fake::start(5);
    node.state().cut_at = Some(100_000);
    shop.push("1.0", &[&node]).await.unwrap_err();
    node.state().partial.values_mut().for_each(|p| p[5] ^= 1);
    let report = shop.push("1.0", &[&node]).await.unwrap();
    assert_eq!((report.outcome, report.nodes[0].resumed_bytes), (Outcome::Published, 0));
}

/// When somebody else publishes in between, the entry is signed again behind theirs; after three
/// such tries the push gives up and says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_head_moves() {
    let node = Fake::start(6);
    let shop = Shop::new(vec![], &[]);
    let other = shop.elsewhere("5", &[]).await;
    node.state().heads_to_move = vec![other];
    let report = shop.push("1.0", &[&node]).await.unwrap();
    assert_eq!(report.seq, Some(2));
    assert_eq!(node.state().releases().len(), 2);

    let node = Fake::start(7);
    let mut feed = Vec::new();
    for version in ["5", "6", "7"] {
        feed.push(shop.elsewhere(version, &feed.clone()).await);
    }
    feed.reverse();
    node.state().heads_to_move = feed;
    let e = shop.push("1.0", &[&node]).await.unwrap_err();
    assert_eq!(e.exit(), 75, "{e}");
    assert_eq!(node.state().releases().len(), 3);
}

/// A node that hides a release, or shows a head that we did not sign, gets no signature.
#[tokio::test(flavor = "multi_thread")]
async fn lying_nodes() {
    let node = Fake::start(8);
    let shop = Shop::new(vec![], &[]);
    shop.push("1.0", &[&node]).await.unwrap();
    node.state().hide_live = 1;
    let e = shop.push("1.1", &[&node]).await.unwrap_err();
    assert!(matches!(e, PushError::Feed(crate::feed::FeedError::ViewRoot)) && e.exit() == 4, "{e}");
    node.state().hide_live = 0;

    let head = node.state().feed[0].clone();
    let mut entry: Entry = head.claimed().unwrap();
    entry.view_root = ViewRoot([0; 32]);
    let mut forged = Envelope::unsigned(&entry).unwrap();
    forged.signatures = head.signatures;
    node.state().feed = vec![forged];
    let e = shop.push("1.1", &[&node]).await.unwrap_err();
    assert!(matches!(e, PushError::Feed(crate::feed::FeedError::NotOurs { .. })), "{e}");

    node.state().refuse = Some(Refusal::Trust);
    let e = shop.push("1.1", &[&node]).await.unwrap_err();
    assert!(matches!(e, PushError::Refused { .. }) && e.exit() == 4, "{e}");
}

/// Another node at the address, nobody at all, and a target that is no home are told apart.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_places() {
    let (a, b) = (Fake::start(9), Fake::start(10));
    let shop = Shop::new(vec![], &[]);
    let mut options = shop.options("1.0", &[&a]);
    options.to[0].node = Some(b.node);
    let e = push(&options, &Progress::Silent).await.unwrap_err();
    assert!(matches!(e, PushError::WrongNode { .. }) && e.exit() == 4, "{e}");
    options.to[0].node = None;
    assert_eq!(push(&options, &Progress::Silent).await.unwrap_err().exit(), 2);
    let strict = Shop::new(vec![b.node], &[]);
    let e = strict.push("1.0", &[&a]).await.unwrap_err();
    assert!(matches!(&e, PushError::NoHome(_)) && e.exit() == 7, "{e}");
    let mut options = strict.options("1.0", &[&b]);
    options.to[0].node = None;
    let report = push(&options, &Progress::Silent).await.unwrap();
    assert_eq!(report.nodes[0].node, b.node, "the only home needs not be named");
}

/// A name that the charter does not grant, an unknown group and a foreign key are refused before
/// anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_charter_does_not_permit() {
    let node = Fake::start(11);
    let shop = Shop::new(vec![], &["lib*"]);
    let e = shop.push("1.0", &[&node]).await.unwrap_err();
    assert!(matches!(e, PushError::Feed(crate::feed::FeedError::Name { .. })), "{e}");
    let shop = Shop::new(vec![], &[]);
    let mut options = shop.options("1.0", &[&node]);
    options.groups = vec!["lab".into()];
    assert_eq!(push(&options, &Progress::Silent).await.unwrap_err().exit(), 5);
    let mut options = shop.options("1.0", &[&node]);
    options.key = Some(shop.dir.path().join("c/keys/root").to_string_lossy().into_owned());
    let e = push(&options, &Progress::Silent).await.unwrap_err();
    assert!(matches!(e, PushError::Feed(crate::feed::FeedError::NoReleaseKey(_))), "{e}");
    assert!(node.state().packs.is_empty());
}

/// A base that the node does not have any more costs the delta and not the release.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_base() {
    let node = Fake::start(12);
    let shop = Shop::new(vec![], &[]);
    shop.push("1.0", &[&node]).await.unwrap();
    node.state().manifests.clear();
    let report = shop.push("1.1", &[&node]).await.unwrap();
    assert_eq!(report.outcome, Outcome::Published);
    assert_eq!(report.delta_bytes, None);
    assert!(report.notes[0].contains("no delta"), "{:?}", report.notes);
    let mut options = shop.options("1.2", &[&node]);
    options.base = BaseChoice::File(shop.dir.path().join("1.1"));
    let report = push(&options, &Progress::Silent).await.unwrap();
    assert!(report.delta_bytes.unwrap() < 20_000);
}

/// One of three nodes is down: two copies are enough, unless three were asked for; the entry names
/// only the nodes that have the content.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_down() {
    let (a, b, c) = (Fake::start(13), Fake::start(14), Fake::start(15));
    let shop = Shop::new(vec![], &[]);
    let mut options = shop.options("1.0", &[&a, &b, &c]);
    b.stop();
    options.copies = Some(3);
    assert_eq!(push(&options, &Progress::Silent).await.unwrap_err().exit(), 75);
    options.copies = Some(4);
    assert_eq!(push(&options, &Progress::Silent).await.unwrap_err().exit(), 2);
    options.copies = None;
    let report = push(&options, &Progress::Silent).await.unwrap();
    assert_eq!(report.outcome, Outcome::Published);
    let nodes: Vec<_> = report.nodes.iter().map(|n| n.node).collect();
    assert_eq!(nodes, [a.node, c.node]);
    assert!(report.notes.iter().any(|n| n.contains("goes on without")), "{:?}", report.notes);
}

/// An origin has packs and manifest before the release is announced; if it does not take them,
/// nothing is announced. A second push of the same sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_gets_everything_first() {
    let node = Fake::start(16);
    let shop = Shop::new(vec![], &[]);
    let folder = shop.dir.path().join("origin");
    let mut options = shop.options("1.0", &[&node]);
    options.origin = Some(format!("file:{}", folder.display()).parse().unwrap());
    let e = push(&options, &Progress::Silent).await.unwrap_err();
    assert!(matches!(e, PushError::Origin(_)) && e.exit() == 78, "{e}");
    assert!(node.state().feed.is_empty());

    fs::create_dir(&folder).unwrap();
    let report = push(&options, &Progress::Silent).await.unwrap();
    let origin = report.origin.clone().unwrap();
    assert_eq!((origin.stored, origin.present), (2, 0), "{origin:?}");
    let id = report.manifest.unwrap();
    let place = folder.join(stork_origin::Key::manifest(id).as_str());
    assert_eq!(fs::read(place).unwrap(), *node.state().manifests.values().next().unwrap());
    assert!(report.lines().iter().any(|l| l.contains("origin    file:")), "{report:?}");

    let again = push(&options, &Progress::Silent).await.unwrap();
    assert_eq!((again.outcome, again.origin), (Outcome::AlreadyPublished, None));
    let other = Shop::new(vec![], &[]);
    let mut options = other.options("1.0", &[&Fake::start(17)]);
    options.origin = Some("https://packages.example.org/x".parse().unwrap());
    assert_eq!(push(&options, &Progress::Silent).await.unwrap_err().exit(), 2);
}
