//! systemd-nspawn runs a container from the very text that `stork vm attach` prints: it sees every
//! switch, and its root changes nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use stork_node::doctor::find_program;
use stork_tests::fleet::{Fleet, Namespace, VmFile, binary};

use super::CHANGES;

/// A container whose root is an overlay over this machine's: `$1` an empty folder, `$2` its
/// settings, `$3` what runs in it.
const SCRIPT: &str = r#"
set -eu
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
rm -f "$1/root/etc/machine-id"
mkdir -p /run/systemd/nspawn
# The files of the overlay need no other owners: its root only runs a shell.
sed 's/^.Files.$/&\nPrivateUsersOwnership=off/' "$2" > /run/systemd/nspawn/vm.nspawn
exec systemd-nspawn --quiet --register=no --keep-unit --link-journal=no -M vm -D "$1/root" \
  --as-pid2 sh -c "$3"
"#;

/// What a container said while its view went from the first to the third version, and what the
/// store then says; none where something is missing. Without `users` of its own its root is that
/// of the host, against the advice in the printed text.
fn container(backend: &str, users: bool) -> Option<(Vec<String>, Value)> {
    if find_program("systemd-nspawn").is_none() {
        eprintln!("skipped: there is no systemd-nspawn");
        return None;
    }
    let namespace = Namespace::or_skip()?;
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    let file = VmFile::usual(&["web"], &host.target("vm/packages")).shown_as(backend);
    host.write_vm("vm", &file);
    let push = |version: &str| {
        let text = format!("{version}\n");
        fleet.push(&fleet.package("a", version, &[("share/a/version", text.as_bytes())]), &["web"]);
        host.await_vm("vm", &[("a", version)]);
    };
    push("1");
    let vms = fleet.folder("files");
    fs::write(vms.join("vm.toml"), file.text()).unwrap();
    let mut attach = Command::new(binary("stork"));
    attach.args(["vm", "attach", "vm", "--format", "nspawn", "--vms"]).arg(&vms);
    let text = attach.env_remove("STORK_CONFIG").output().unwrap();
    assert!(text.status.success(), "{}", String::from_utf8_lossy(&text.stderr));
    let settings = fleet.folder("settings").join("vm.nspawn");
    let text = String::from_utf8(text.stdout).unwrap();
    let without = text.replace("[Exec]\nPrivateUsers=pick\n", "");
    assert_ne!(text, without, "the advice is in the text");
    fs::write(&settings, if users { text } else { without }).unwrap();

    // One that destroys its view sees no further version.
    let looks = if users || backend == "composefs" { 600 } else { 10 };
    let mut run = fleet.namespace().unwrap().command("unshare");
    run.args(["-m", "--propagation", "slave", "sh", "-c", SCRIPT, "container"]);
    run.arg(fleet.folder("container"))
        .arg(&settings)
        .arg(format!("M=/opt/stork LOOKS={looks}\n{CHANGES}"));
    run.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap().trim_end().to_owned();
        match line.as_str() {
            "SAW 1 1" => push("2"),
            "SAW 2 2" => push("3"),
            _ => {}
        }
        said.push(line);
    }
    assert!(child.wait().unwrap().success(), "{said:#?}");
    assert!(!Path::new(&fleet.folder("container").join("root")).exists(), "nothing is left");
    let verified = host.stork(&["store", "verify", "--json"]);
    Some((said, serde_json::from_slice(&verified.stdout).unwrap()))
}

fn is_damaged(store: &Value) -> bool {
    store["damaged"].as_array().is_some_and(|d| !d.is_empty())
}

fn sees_all(said: &[String]) {
    for word in ["SAW 1 1", "SAW 2 2", "SAW 3 3", "DONE"] {
        assert!(said.iter().any(|l| l == word), "{word}: {said:#?}");
    }
}

/// T100: a `tree` view in a container with users of its own, as the printed settings want it.
#[test]
fn t100_a_container_of_a_tree_reads_only() {
    let Some((said, store)) = container("tree", true) else { return };
    sees_all(&said);
    let done = said.iter().filter(|l| l.contains("CHANGED") || l.contains("REMOUNTED")).count();
    assert_eq!(done, 0, "{said:#?}");
    assert!(!is_damaged(&store), "{store}");
}

/// T100: a `composefs` view in a container whose root is the host's: it remounts, and still writes
/// nothing into the view. What it may write to is the folder above, which is its own.
#[test]
fn t100_a_container_of_a_composefs_reads_only() {
    let Some((said, store)) = container("composefs", false) else { return };
    sees_all(&said);
    let changed = said.iter().filter(|l| l.contains("CHANGED"));
    let changed: Vec<&String> = changed.filter(|l| *l != "CHANGED touch /opt/stork/new").collect();
    assert!(changed.is_empty(), "{changed:#?}");
    assert!(!is_damaged(&store), "{store}");
}

/// The control that must fail: a `tree` view in such a container. Its root makes the mount writable
/// and writes into what all VMs share, which the store then notices. So the printed settings give
/// a container users of its own.
#[test]
fn control_a_privileged_container_damages_a_tree() {
    let Some((said, store)) = container("tree", false) else { return };
    assert!(said.iter().any(|l| l == "REMOUNTED the view"), "{said:#?}");
    assert!(said.iter().any(|l| l.starts_with("CHANGED sh")), "{said:#?}");
    assert!(is_damaged(&store), "{store}");
}
