//! Unsatisfiable dependencies (A16): a package needs what nobody has, so that a VM falls back to an
//! older release that a thief knows how to break.
//!
//! Who can: a publisher, or its stolen key. What must hold: a typed failure that names the line;
//! what is shown stays, and no older release of the package or of what it needs is tried.

use stork_tests::wait::wait_until;
use stork_wire::codec::List;

use crate::stage::{Stage, VICTIM};

/// `need` 2 needs what is nowhere; `need` 3 needs a `dep` that is older than the newest one.
#[test]
fn t041_needs_that_nothing_meets() {
    let mut stage = Stage::new();
    for (name, version) in [("dep", "1"), ("dep", "2"), ("need", "1")] {
        stage.publish(name, version);
    }
    let wants = "[[subscribe]]\npackage = \"need\"";
    let vms = [("checks", "check"), ("pulls", "pull")];
    for (vm, depends) in vms {
        stage.write_vm(VICTIM, vm, &format!("depends = \"{depends}\""), wants);
        stage.await_shows(VICTIM, vm, &[("need", "1")]);
    }
    let mut feed = stage.feed();
    for (version, entry) in [("2", "nowhere (>= 9)"), ("3", "dep (<= 1)")] {
        let item = feed.announce(|r| {
            r.version = version.parse().unwrap();
            r.depends = List::truncated([entry.parse().unwrap()]);
        });
        stage.spreads(&[item]);
        let late = format!("late-{version}");
        stage.write_vm(VICTIM, &late, "depends = \"pull\"", wants);
        for vm in ["checks", "pulls", &late] {
            let says = format!("needs `{entry}`, and nothing that this VM may have is that");
            wait_until("the failure", || stage.why(VICTIM, vm, "need").contains(&says));
            let shown = stage.shows(VICTIM, vm);
            let old = shown.get("need").map(String::as_str);
            assert_eq!(old, (vm != late).then_some("1"), "{vm} shows {shown:?}");
            assert!(!shown.contains_key("dep"), "{vm} shows {shown:?}");
        }
    }
    stage.publish("need", "4");
    for vm in ["checks", "pulls", "late-2", "late-3"] {
        stage.await_shows(VICTIM, vm, &[("need", "4")]);
    }
    stage.good_news("2");
}
