//! Bits that flip on the disk of a host that does not run.

use std::fs;

use stork_node::run::open_store;
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, LabNode};
use stork_tests::wait::wait_until;
use stork_wire::item::{Item, ItemKind};
use tokio::runtime::Runtime;

fn entries(node: &LabNode) -> Vec<Item> {
    let store = open_store(&node.config).unwrap();
    let mut out = Vec::new();
    let keep = |i: stork_node::store::JournalItem| {
        if i.item.kind == ItemKind::Entry {
            out.push(i.item);
        }
    };
    store.all_items(keep).unwrap();
    out
}

fn knows(runtime: &Runtime, node: &LabNode, version: &str) -> bool {
    let all = runtime.block_on(async { node.client().get("/v1/releases").await.unwrap() });
    all["releases"].as_array().unwrap().iter().any(|r| r["version"] == version)
}

/// T093: a bit flips in the body of an entry in the journal of a host that does not run. It starts,
/// does not believe that entry, gets the true one from another host, and hears what comes after it.
#[test]
fn t093_a_flipped_bit_in_the_journal() {
    let runtime = runtime();
    let mut lab = runtime.block_on(async {
        let lab = Lab::new(2).await.unwrap();
        lab.settle().await.unwrap();
        for version in ["1", "2"] {
            let package = lab.dir.path().join(version);
            fs::create_dir(&package).unwrap();
            fs::write(package.join("file"), version).unwrap();
            lab.publish(&package, "app", version).await.unwrap();
        }
        lab
    });
    wait_until("the second release", || knows(&runtime, &lab.nodes[1], "2"));
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    let before = entries(&lab.nodes[1]);
    assert_eq!(before.len(), 2);
    let body = &before[1].envelope.body;
    let path = lab.nodes[1].config.state.join("state.redb");
    let mut bytes = fs::read(&path).unwrap();
    let places = bytes.windows(body.len()).enumerate();
    let places: Vec<usize> = places.filter(|(_, w)| *w == &**body).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the entry is not in the file");
    for at in places {
        bytes[at + body.len() / 2] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    assert_ne!(entries(&lab.nodes[1]), before);
    runtime.block_on(lab.nodes[1].start()).unwrap();
    wait_until("the release again", || knows(&runtime, &lab.nodes[1], "2"));
    let package = lab.dir.path().join("1");
    runtime.block_on(lab.publish(&package, "app", "3")).unwrap();
    wait_until("the next release", || knows(&runtime, &lab.nodes[1], "3"));
    runtime.block_on(lab.nodes[1].stop()).unwrap();
    assert_eq!(entries(&lab.nodes[1])[..2], before);
}
