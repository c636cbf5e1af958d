//! Small packages come with their manifest in one answer, between real processes. That this is one
//! round trip, over many hosts, is counted in `transfer/sim_tests/small.rs`.

use stork_tests::fleet::{Fleet, VmFile, noise};

/// Three small packages, a change of one that comes as a delta, and a large one: the small ones
/// come in one answer each, the large one in pieces, and the VM shows all of them as they are.
#[test]
fn small_packages_come_in_one_answer() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    for name in ["a", "b", "c"] {
        let bytes = noise(name, 20_000);
        let one = fleet.package(name, "1", &[(name, bytes.as_slice())]);
        fleet.push(&one, &["web"]);
        host.await_whole(name, "1");
    }
    let pieces_before = fleet.hosts[0].counter("bytes_served", "pieces");
    let mut bytes = noise("a", 20_000);
    bytes.extend_from_slice(b"a little more");
    fleet.push(&fleet.package("a", "2", &[("a", bytes.as_slice())]), &["web"]);
    let release = host.await_whole("a", "2");
    assert_eq!(release["fetched_as"], "delta", "{release}");
    let large = fleet.package("d", "1", &[("d", noise("d", 200_000).as_slice())]);
    fleet.push(&large, &["web"]);
    host.await_vm("vm", &[("a", "2"), ("b", "1"), ("c", "1"), ("d", "1")]);

    // A machine that stands still for half a second lets a content go the long way.
    let (served, fetched) = (
        fleet.hosts[0].counter("small_contents", "served"),
        host.counter("small_contents", "fetched"),
    );
    println!("of four small contents {served} were served and {fetched} came in one answer");
    assert!((1..=4).contains(&fetched) && fetched <= served, "{served} served, {fetched} fetched");
    if fetched == 4 {
        assert_eq!(pieces_before, 0, "nothing of them came in pieces");
    }
    assert!(fleet.hosts[0].counter("bytes_served", "pieces") >= 200_000);
    host.verify_store();
    let target = host.target("vm");
    assert_eq!(std::fs::read(target.join("a")).unwrap(), bytes);
}
