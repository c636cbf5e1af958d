//! A host that listens on all addresses tells others those that they can dial, in a network of its
//! own that the test makes as it needs it.

use stork_node::config::NodeConfig;
use stork_node::run::open_store;
use stork_tests::fleet::{Fleet, Host, Namespace};
use stork_tests::wait::wait_until;
use stork_wire::charter::{JoinToken, PeerRecord};
use stork_wire::codec::{List, decode};
use stork_wire::frame::PeerHint;

/// Addresses with a host's port, as records have them.
fn with_port(host: &Host, ips: &[&str]) -> Vec<String> {
    ips.iter().map(|ip| format!("{ip}:{}", host.port())).collect()
}

fn told(host: &Host) -> Vec<String> {
    let addrs = host.tell(&["status"])["addrs"].clone();
    serde_json::from_value(addrs).unwrap()
}

fn await_told(host: &Host, ips: &[&str]) {
    wait_until(&format!("{} to tell {ips:?}", host.name), || told(host) == with_port(host, ips));
}

/// The addresses in the signed records of other hosts that a stopped host has written down.
fn written(host: &Host, state: &str) -> Vec<Vec<String>> {
    let config = NodeConfig { state: host.dir.join("state"), ..NodeConfig::default() };
    let store = open_store(&config).unwrap();
    let bytes = store.get_state(state).unwrap().unwrap();
    let hints: List<PeerHint, 1_024> = decode(&bytes, 1 << 20).unwrap();
    let addrs = |h: &PeerHint| {
        let record: PeerRecord = h.record.claimed().unwrap();
        record.addrs.iter().map(ToString::to_string).collect()
    };
    hints.iter().map(addrs).collect()
}

/// Two hosts, the first on `[::]` and the second on `0.0.0.0`, in a network with one card.
fn two_hosts(namespace: Namespace) -> Fleet {
    let steps: [&[&str]; 7] = [
        &["link", "add", "card", "type", "veth", "peer", "name", "cable"],
        &["link", "set", "cable", "up"],
        &["link", "set", "card", "up"],
        &["addr", "add", "10.77.0.7/24", "dev", "card"],
        &["-6", "addr", "add", "fd77::7/64", "dev", "card", "nodad"],
        &["route", "add", "default", "dev", "card"],
        &["-6", "route", "add", "default", "dev", "card"],
    ];
    for step in steps {
        namespace.ip(step).unwrap();
    }
    let mut fleet = Fleet::charter_only(&["web"], Some(std::sync::Arc::new(namespace)));
    let mut first = fleet.stranger("host-1");
    first.listen_on("[::]");
    let (bundle, key) =
        (fleet.charter.join("charter.bundle"), fleet.charter.join("keys/admission"));
    let (bundle, key) = (bundle.to_str().unwrap(), key.to_str().unwrap());
    first.node_ok(&["init", "--charter", bundle, "--admission-key", key, "--name", "host-1"]);
    first.start();
    fleet.hosts.push(first);
    fleet.enlist().listen_on("0.0.0.0").start();
    fleet
}

/// Token and signed records hold addresses that others can dial and do, never `[::]` or `0.0.0.0`;
/// they follow the cards, and addresses that mean nothing elsewhere are left out. A host without
/// any says so, and makes no token.
#[test]
fn a_host_on_all_addresses_tells_those_that_others_can_dial() {
    let namespace = match Namespace::with_network() {
        Ok(namespace) => namespace,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let mut fleet = two_hosts(namespace);
    let both = ["10.77.0.7", "[fd77::7]"];
    assert_eq!(told(&fleet.hosts[0]), with_port(&fleet.hosts[0], &both));
    assert_eq!(told(&fleet.hosts[1]), with_port(&fleet.hosts[1], &both[..1]));
    let (token, _) = JoinToken::from_text(&fleet.token("host-3")).unwrap();
    let named: Vec<String> = token.addrs.iter().map(ToString::to_string).collect();
    assert_eq!(named, with_port(&fleet.hosts[0], &both));

    // Who was told nothing else but a record links to it: first the second host with the answer
    // to its join, then the first host with what it wrote down.
    wait_until("a link", || fleet.hosts[1].tell(&["status"])["links"] == 1);
    let peers = fleet.hosts[1].tell(&["peers"])["peers"].clone();
    assert_eq!(peers[0]["addr"], with_port(&fleet.hosts[0], &both)[0], "{peers}");
    fleet.hosts[1].stop();
    let anchors = written(&fleet.hosts[1], "anchors");
    assert_eq!(anchors, [with_port(&fleet.hosts[0], &both)]);
    fleet.hosts[1].start();

    // The IPv4 address changes, and that of IPv6 goes: what is left of it is of this link only.
    let namespace = fleet.namespace().unwrap();
    namespace.ip(&["addr", "del", "10.77.0.7/24", "dev", "card"]).unwrap();
    namespace.ip(&["addr", "add", "10.77.0.8/24", "dev", "card"]).unwrap();
    namespace.ip(&["route", "replace", "default", "dev", "card"]).unwrap();
    namespace.ip(&["-6", "addr", "del", "fd77::7/64", "dev", "card"]).unwrap();
    for host in &fleet.hosts {
        await_told(host, &["10.77.0.8"]);
    }
    let namespace = fleet.namespace().unwrap();
    namespace.ip(&["route", "del", "default"]).unwrap();
    await_told(&fleet.hosts[0], &[]);
    let out = fleet.hosts[0].stork(&["token", "create"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(7), "{error}");
    assert!(error.contains("does not know an address") && error.contains("--advertise"), "{error}");
}
