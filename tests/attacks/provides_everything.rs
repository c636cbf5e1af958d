//! Provides everything (A17): a package says that it is many others, to be brought in for each of
//! them.
//!
//! Who can: a publisher, or its stolen key. What must hold: a provided name needs a grant of the
//! group, a package with the name itself goes first, and two that provide one name are an error,
//! never a choice.

use std::path::Path;
use std::process::Command;

use stork_tests::fleet::binary;
use stork_tests::wait::wait_until;
use stork_wire::codec::List;

use crate::stage::{OTHER, Stage, VICTIM};

/// A charter whose group lets `acme` release some names, and provide `mail` beside them.
fn narrow(charter: &Path) {
    std::fs::remove_dir_all(charter).unwrap();
    let run = |args: &[&str]| {
        let out = Command::new(binary("stork-publish")).args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let dir = charter.to_str().unwrap();
    let init = ["charter", "init", "--fleet", "lab", "--publisher", "acme", "--group", "first"];
    run(&[&init[..], &["--provides", "mail", "--no-passphrase", "--dir", dir]].concat());
    let mut add = vec!["charter", "add-group", "web", "--publisher", "acme", "--charter", dir];
    for package in ["app*", "need*", "zz*"] {
        add.extend(["--packages", package]);
    }
    add.extend(["--provides", "mail"]);
    run(&add);
    std::fs::remove_file(charter.join("publisher.toml")).unwrap();
    let profile = ["charter", "profile", "acme", "--release-key", "keys/release"];
    run(&[&profile[..], &["--charter", dir]].concat());
}

/// `zzz` provides `libc` without a grant: refused. `zzy` and `zzz` both provide `mail`, which they
/// may: a VM that needs `mail` gets neither.
#[test]
fn t003_t042_a_package_that_is_everything() {
    let mut stage = Stage::prepared(narrow);
    stage.publish("need", "1");
    let wants = "[[subscribe]]\npackage = \"need\"";
    stage.write_vm(VICTIM, "pulls", "depends = \"pull\"", wants);
    stage.await_shows(VICTIM, "pulls", &[("need", "1")]);
    let mut feed = stage.feed();
    let named = |names: &[&str]| List::truncated(names.iter().map(|n| n.parse().unwrap()));
    let all = feed.next_with(|r| {
        r.package = "zzz".parse().unwrap();
        r.provides = named(&["libc", "mail", "need"]);
    });
    stage.refuses("out_of_scope", &feed.item(feed.sign(&all), all.seq));

    let mut items = Vec::new();
    for name in ["zzz", "zzy"] {
        items.push(feed.announce(|r| {
            (r.package, r.version) = (name.parse().unwrap(), "1".parse().unwrap());
            r.provides = named(&["mail"]);
        }));
    }
    items.push(feed.announce(|r| {
        (r.package, r.version) = ("need".parse().unwrap(), "2".parse().unwrap());
        (r.provides, r.depends) = (List::empty(), List::truncated(["mail".parse().unwrap()]));
    }));
    stage.spreads(&items);
    let says = "needs `mail`, which zzy and zzz provide";
    wait_until("the two to be seen", || stage.why(VICTIM, "pulls", "need").contains(says));
    stage.await_shows(VICTIM, "pulls", &[("need", "1")]);
    assert_eq!(stage.counter(OTHER, "items_refused", "out_of_scope"), 0);
    stage.publish("need", "3");
    stage.await_shows(VICTIM, "pulls", &[("need", "3")]);
    stage.good_news("2");
}
