//! A node that knows no host any more finds its fleet by the names of its settings.

use std::net::{Ipv4Addr, SocketAddr};

use stork_node::config::NodeConfig;
use stork_node::run::open_store;
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, wait_for};
use stork_tests::wait::patience;
use stork_wire::codec::{List, encode};
use stork_wire::frame::PeerHint;

/// Takes from a node that is stopped whom it knows.
async fn forget_hosts(config: &NodeConfig) {
    // Tasks of the node end after it.
    let open = || async { open_store(config).ok() };
    let store = wait_for("the store", patience(), open).await.unwrap();
    let nobody: List<PeerHint, 1_024> = List::empty();
    for row in ["peers", "anchors"] {
        store.put_state(row, &encode(&nobody)).unwrap();
    }
}

/// The first host has moved to another port, and the second knows nobody. Names that lead nowhere
/// are told of by their words, again and again; when the file names a host by `localhost`, all of
/// whose addresses are tried, the two are linked.
#[test]
fn a_lost_host_finds_its_fleet_by_name() {
    runtime().block_on(async {
        let mut lab = Lab::new(2).await.unwrap();
        lab.settle().await.unwrap();
        let SocketAddr::V4(first) = lab.nodes[0].addr else { panic!("an IPv4 address") };
        assert_eq!(*first.ip(), Ipv4Addr::LOCALHOST);
        let seeds = lab.dir.path().join("seeds");
        for node in &mut lab.nodes {
            node.stop().await.unwrap();
            forget_hosts(&node.config).await;
        }
        lab.nodes[0].start().await.unwrap();
        let own = lab.nodes[1].addr;
        let other = lab.nodes[1].id;
        let bad =
            ["nowhere.invalid:7749".to_owned(), format!("{other}@localhost:{}", first.port())];
        let all = bad.iter().cloned().chain([format!("localhost:{}", own.port())]);
        lab.nodes[1].config.bootstrap = all.map(|s| s.parse().unwrap()).collect();
        lab.nodes[1].config.bootstrap_file = Some(seeds.clone());
        lab.nodes[1].start().await.unwrap();
        let node = &lab.nodes[1];
        for what in [bad[0].as_str(), "that is this host itself", "seeds cannot be read"] {
            let event = || node.event_ms("bootstrap_failed", what);
            wait_for(what, patience(), event).await.unwrap();
        }
        let status = node.client().get("/v1/status").await.unwrap();
        assert_eq!(status["links"], 0, "who answers must be who was named");

        std::fs::write(&seeds, format!("# the first\nlocalhost:{}\n", first.port())).unwrap();
        for node in &lab.nodes {
            wait_for("a link", patience(), || async {
                let status = node.client().get("/v1/status").await.ok()?;
                (status["links"].as_u64()? == 1).then_some(())
            })
            .await
            .unwrap();
        }
        lab.stop().await.unwrap();
    });
}
