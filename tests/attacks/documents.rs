//! Charter documents that must not be believed, on a real host and its disk.

use serde_json::Value;
use stork_node::run::open_store;
use stork_publisher::keys::{Passphrase, read_secret};
use stork_tests::hostile::{Peer, Talk, has, runtime};
use stork_tests::lab::{Lab, LabNode};
use stork_tests::wait::wait_until;
use stork_wire::charter::{Role, RootDoc};
use stork_wire::codec::List;
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Envelope, SecretKey};
use tokio::runtime::Runtime;

fn counter(runtime: &Runtime, node: &LabNode, name: &str, reason: &str) -> u64 {
    let status: Value = runtime.block_on(async { node.client().get("/v1/status").await.unwrap() });
    let fits = |c: &&Value| c["name"] == name && c["reason"] == reason;
    let all = status["counters"].as_array().unwrap();
    all.iter().find(fits).map_or(0, |c| c["count"].as_u64().unwrap())
}

/// A new insider with a link to the second node.
fn insider(runtime: &Runtime, lab: &Lab, name: &str) -> (Peer, Talk) {
    let body = serde_json::json!({ "name": name, "site": "default", "ttl_s": 600 });
    let first = lab.nodes[0].client();
    let token = runtime.block_on(first.post("/v1/tokens", &body)).unwrap();
    let peer = Peer::enlist_by(token["token"].as_str().unwrap(), &lab.charter, name);
    let second = &lab.nodes[1];
    let talk = peer.dial_at((second.id, second.addr), has(Vec::new()));
    (peer, talk)
}

/// All root documents that are on a node's disk, while it does not run.
fn roots_on_disk(node: &LabNode) -> Vec<Item> {
    let store = open_store(&node.config).unwrap();
    let mut out = Vec::new();
    store
        .all_items(|i| {
            if i.item.kind == ItemKind::Root {
                out.push(i.item);
            }
        })
        .unwrap();
    out
}

/// T012: root documents by the old keys alone, by new ones alone, and with a forged signature, from
/// an insider. Each is refused and counted; none is on the disk of the host, which starts again
/// with the root document that it had. From there it takes the true next one.
#[test]
fn t012_a_refused_root_is_not_on_disk() {
    let runtime = runtime();
    let mut lab = runtime.block_on(async {
        let lab = Lab::new(2).await.unwrap();
        lab.settle().await.unwrap();
        lab
    });
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    let before = roots_on_disk(&lab.nodes[1]);
    let [first] = &before[..] else { panic!("{} root documents", before.len()) };
    runtime.block_on(lab.nodes[1].start()).unwrap();
    let doc: RootDoc = first.envelope.claimed().unwrap();
    let fleet = doc.fleet_id();
    let own = read_secret(&lab.charter.join("keys/root"), &Passphrase::None).unwrap();
    let thief = SecretKey::from_seed(&[77; 32]);
    let mut next = RootDoc { number: 2, prev: Some(first.envelope.hash()), ..doc };
    let item = |envelope| Item { kind: ItemKind::Root, log: LogId::root(fleet), seq: 2, envelope };
    let good = Envelope::sign(&next, fleet, &own).unwrap();
    let mut forged = good.clone();
    let mut signature = good.signatures[0].clone();
    signature.signature.0[33] ^= 1;
    forged.signatures = List::truncated([signature]);
    next.root = Role::single(thief.public());
    let bad = [
        ("unauthorised_key", Envelope::sign(&next, fleet, &own).unwrap()),
        ("unauthorised_key", Envelope::sign(&next, fleet, &thief).unwrap()),
        ("bad_signature", forged),
    ];
    for (n, (code, envelope)) in bad.into_iter().enumerate() {
        let (_peer, talk) = insider(&runtime, &lab, &format!("insider-{n}"));
        let node = &lab.nodes[1];
        let count = counter(&runtime, node, "items_refused", code);
        talk.push(&item(envelope));
        wait_until(code, || counter(&runtime, node, "items_refused", code) > count);
    }
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    assert_eq!(roots_on_disk(&lab.nodes[1]), before);
    runtime.block_on(lab.nodes[1].start()).unwrap();
    let (_peer, talk) = insider(&runtime, &lab, "messenger");
    talk.push(&item(good.clone()));
    let node = &lab.nodes[1];
    wait_until("the true one", || counter(&runtime, node, "items_committed", "root") == 1);
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    assert_eq!(roots_on_disk(&lab.nodes[1]), [first.clone(), item(good)]);
}
