//! Denials, halts and the end of a key, over real sockets.

use std::path::PathBuf;

use stork_wire::deny::{Denial, Denied};
use stork_wire::ids::TreeId;
use stork_wire::item::ItemKind;
use stork_wire::suicide::Suicide;
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::fake::Fake;
use super::tests::Shop;
use super::*;
use crate::charter::{Change, Life, VetoChange, veto};
use crate::keys::{generate, write_key};

fn sending(shop: &Shop, keys: &[PathBuf], to: &[&Fake]) -> Sending {
    Sending {
        charter: shop.dir.path().join("c"),
        keys: keys.iter().map(|k| k.to_string_lossy().into_owned()).collect(),
        passphrase: Passphrase::None,
        reason: "it is evil".parse().unwrap(),
        to: to.iter().map(|f| Target { addr: f.addr.clone(), node: Some(f.node) }).collect(),
        dry_run: false,
    }
}

fn key(shop: &Shop, name: &str) -> PathBuf {
    shop.dir.path().join("c/keys").join(name)
}

/// A veto key of the group `web`, which is good for an hour.
fn team(shop: &Shop) -> PathBuf {
    let file = shop.dir.path().join("veto");
    write_key(&file, &generate().unwrap(), "veto", None).unwrap();
    let change = Change {
        dir: shop.dir.path().join("c"),
        keys: Vec::new(),
        passphrase: Passphrase::None,
        out: None,
        dry_run: false,
        life: Life::days(now(), 10),
    };
    let add = vec![shop.dir.path().join("veto.pub")];
    veto(&change, "web", &VetoChange { add, remove: Vec::new(), not_after: now() + 3_600 })
        .unwrap();
    file
}

fn evil(what: &str, sending: Sending) -> DenyOptions {
    DenyOptions { what: Ok((what.to_owned(), DenyWhat::Tree(TreeId([7; 32])))), sending }
}

/// A denial goes to every node that answers, after the charter; a node that is down costs a note,
/// and a key that may not deny is told so before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial() {
    let (a, b) = (Fake::start(1), Fake::start(2));
    let shop = Shop::new(Vec::new(), &[]);
    let file = team(&shop);
    let how = sending(&shop, std::slice::from_ref(&file), &[&a, &b]);
    let dry = Sending { dry_run: true, ..how.clone() };
    assert_eq!(deny(&evil("web", dry)).await.unwrap().outcome, "dry_run");
    assert_eq!(a.state().narrowing.len(), 0);
    b.state().refuse = Some(Refusal::Busy);
    let did = deny(&evil("web", how.clone())).await.unwrap();
    assert_eq!((did.outcome, did.nodes.len(), did.notes.len()), ("sent", 1, 1));
    let item = a.state().narrowing[0].clone();
    let body: Denial = item.envelope.claimed().unwrap();
    assert_eq!((item.kind, item.log, body.signed_at), (ItemKind::Deny, did.log, did.signed_at));
    assert!(a.state().documents > 2, "the charter went in front");

    let e = deny(&evil("db", how.clone())).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("group `db`")), (4, true), "{e}");
    let e = deny(&evil("none", how.clone())).await.unwrap_err();
    assert_eq!(e.exit(), 5, "{e}");
    let host = DenyOptions { what: Err(a.node), sending: how };
    let e = deny(&host).await.unwrap_err();
    assert!(e.to_string().contains("admission"), "{e}");
    let how = sending(&shop, &[key(&shop, "admission")], &[&a]);
    deny(&DenyOptions { what: Err(b.node), sending: how }).await.unwrap();
    let body: Denial = a.state().narrowing[1].envelope.claimed().unwrap();
    assert_eq!(body.what, Denied::Host(b.node));
}

/// A halt by the release key and one by the root, and the end of each; a key that may not.
#[tokio::test(flavor = "multi_thread")]
async fn halts() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &["tool"]);
    let halt_of = |package: Option<&str>, halted, root| HaltOptions {
        package: package.map(|p| p.parse().unwrap()),
        halted,
        root,
        sending: sending(&shop, &[], &[&a]),
    };
    halt(&halt_of(Some("tool"), true, false)).await.unwrap();
    halt(&halt_of(None, true, true)).await.unwrap();
    let did = halt(&halt_of(Some("tool"), false, false)).await.unwrap();
    assert!(did.lines().join("\n").contains("resume --root"), "{:?}", did.lines());
    let items = a.state().narrowing.clone();
    let bodies = items.iter().map(|i| i.envelope.claimed::<Withdrawal>().unwrap());
    let said: Vec<_> = bodies.map(|w| (w.by, w.what)).collect();
    let tool = || Some("tool".parse().unwrap());
    assert_eq!(said[0], (Level::Release, What::Halt { package: tool(), halted: true }));
    assert_eq!(said[1], (Level::Root, What::Halt { package: None, halted: true }));
    assert_eq!(said[2], (Level::Release, What::Halt { package: tool(), halted: false }));
    let e = halt(&halt_of(Some("kernel"), true, false)).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("kernel")), (4, true), "{e}");
    let mut wrong = halt_of(None, true, true);
    wrong.sending.keys = vec![key(&shop, "root").to_string_lossy().into_owned()];
    let e = halt(&wrong).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("the publisher's root")), (4, true), "{e}");
}

/// A release key ends itself; another key does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends() {
    let a = Fake::start(1);
    let shop = Shop::new(Vec::new(), &[]);
    let end = |name: &str| SuicideOptions { sending: sending(&shop, &[key(&shop, name)], &[&a]) };
    let e = suicide(&end("root")).await.unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("the release keys")), (4, true), "{e}");
    let did = suicide(&end("release")).await.unwrap();
    let body: Suicide = a.state().narrowing[0].envelope.claimed().unwrap();
    assert_eq!(a.state().narrowing[0].log, did.log);
    assert_eq!(body.reason.as_str(), "it is evil");
    assert!(did.lines().join("\n").contains("charter revoke"), "{:?}", did.lines());
}
