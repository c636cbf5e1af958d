//! A key that was stolen goes on after its epoch has ended: it signs entries of that epoch, and a
//! neighbour hands them to hosts that know no better (A7, and the mirror of the TUF list that
//! serves what was revoked).

use std::process::Command;

use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, VmFile, binary, report};
use stork_tests::wait::wait_until;

use crate::check::has_event;

/// A publisher's owner ends an epoch after entry 3. A host has another entry 2 by the same key,
/// which nobody knew of: it is the neighbour of a newcomer, and the only one. The newcomer takes
/// that entry, and shows nothing of it, since the end of the epoch is not here. When a host with
/// the true entries comes, both leave the false branch by themselves and go on in the new epoch.
#[test]
fn t026_a_neighbour_with_a_false_branch_of_an_ended_epoch() {
    let mut fleet = Fleet::new(&["web"], 2);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let package = |fleet: &Fleet, v: &str| fleet.package("app", v, &[("app", v.as_bytes())]);
    fleet.push(&package(&fleet, "1"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "1")]));
    fleet.enlist();

    fleet.hosts[1].stop();
    fleet.push(&package(&fleet, "2"), &["web"]);
    fleet.push(&package(&fleet, "3"), &["web"]);
    let last = Feed::read(&fleet).head.hash().to_string();
    fleet.hosts[0].stop();
    fleet.hosts[1].start();
    let out = fleet.push_command(1, &package(&fleet, "9"), &["web"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fleet.hosts[1].await_vm("vm", &[("app", "9")]);

    // The owner's word reaches the host of the other branch, and changes nothing there yet.
    let liar = format!("{}@{}", fleet.hosts[1].id(), fleet.hosts[1].addr());
    let mut epoch = Command::new(binary("stork-publish"));
    epoch.args(["charter", "new-epoch", "--after", "3", "--hash", &last, "--json", "--charter"]);
    drop(report(&epoch.arg(&fleet.charter).arg("--to").arg(&liar).output().unwrap()));
    fleet.hosts[1].await_vm("vm", &[("app", "9")]);

    let newcomer = &mut fleet.hosts[2];
    newcomer.write_vm("vm", &VmFile::usual(&["web"], &newcomer.target("vm")));
    newcomer.start();
    wait_until("the false entry", || newcomer.release("app", "9").is_some());
    let why = || newcomer.tell(&["why", "vm", "app"]);
    wait_until("the reason", || why().to_string().contains("epoch 1 ended with entry 3"));
    assert!(newcomer.vm_shows("vm").is_empty(), "{}", why());

    fleet.hosts[0].start();
    for host in &fleet.hosts {
        host.await_vm("vm", &[("app", "3")]);
        assert!(host.release("app", "9").is_none(), "{}: it is withdrawn", host.name);
    }
    for host in &fleet.hosts[1..] {
        assert!(has_event(host, "branch_left", "what came after entry 1"), "{}", host.name);
        assert_eq!(host.counter("feeds", "branch_left"), 1, "{}: once", host.name);
    }
    fleet.push(&package(&fleet, "4"), &["web"]);
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "4")]));
}
