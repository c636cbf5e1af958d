//! An operator's mistakes: files, folders, ports and commands. Each is refused with an exit code of
//! its class and a line that says what to do; a daemon that runs goes on with what it had.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use stork_tests::fleet::{Fleet, Host, VmFile, binary};
use stork_tests::wait::wait_until;

use crate::check::{fails, has_event};

fn node(args: &[&str]) -> Output {
    Command::new(binary("stork-node")).args(args).output().unwrap()
}

/// Runs a host's daemon, which must end by itself, with other settings after its own.
fn run(host: &Host, changed: &[&str]) -> Output {
    let mut args: Vec<&str> = changed.to_vec();
    args.push("run");
    let state = host.dir.join("state");
    let (vms, socket) = (host.dir.join("vms"), host.dir.join("sock"));
    let mut command = Command::new("timeout");
    command.arg("20").arg(binary("stork-node"));
    let given = |name: &str| changed.contains(&name);
    for (name, path) in [("--state", &state), ("--vms", &vms), ("--socket", &socket)] {
        if !given(name) {
            command.arg(name).arg(path);
        }
    }
    if !given("--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(["--min-free-bytes", "1000000"]).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `node.toml` and VM files with a misspelt key, a wrong type, broken syntax or a rule that is
/// broken: the message has file, line and a hint, `check-config` exits with 78, and a daemon that
/// runs keeps the last good file in force.
#[test]
fn bad_configuration_names_file_line_and_remedy() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let file = fleet.folder("etc").join("node.toml");
    let faults = [
        ("state = \"/x\"\nlisen = \"[::]:1\"\n", "line 2", "did you mean `listen`?"),
        ("min_free_bytes = \"many\"\n", "line 1", "help: "),
        ("listen = [\n", "line", "help: "),
        ("listen = \"nowhere\"\n", "line 1", "help: "),
        ("log = \"loud\"\n", "line 1", "help: "),
    ];
    for (toml, line, hint) in faults {
        fs::write(&file, toml).unwrap();
        for command in ["check-config", "run"] {
            let out = node(&["--config", text(&file), command]);
            fails(&out, 78, line);
            let error = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(error.contains(text(&file)) && error.contains(hint), "{error}");
        }
    }
    fails(&node(&["--config", "/nowhere/node.toml", "run"]), 78, "/nowhere/node.toml");

    let good = VmFile::usual(&["web"], &host.target("vm"));
    host.write_vm("vm", &good);
    fleet.push(&fleet.package("app", "1", &[("app", b"1")]), &["web"]);
    host.await_vm("vm", &[("app", "1")]);
    let text = good.text();
    let faults = [
        (text.replace("target =", "traget ="), "line", "did you mean `target`?"),
        (text.replace("groups = [\"web\"]", "groups = 7"), "line 2", "help: "),
        (text.replace("\"hardlink\"", "\"softlink\""), "line", "help: "),
        (text.replace("isolation = \"none\"\n", ""), "shares files", "isolation = "),
        (
            text.replace("package = \"*\"", "package = \"no name\""),
            "pattern `no name`",
            "a path is none",
        ),
        (text.replace("package = \"*\"", "package = \"../x\""), "column 11", "a path is none"),
        (format!("{text}\n[[[["), "line", "help: "),
    ];
    for (n, (bad, says, hint)) in (1u64..).zip(faults) {
        host.write_vm_text("vm", &bad);
        let out = host.node(&["check-config"]);
        fails(&out, 78, says);
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(error.contains("vms/vm.toml") && error.contains(hint), "{error}");
        drop(host.tell(&["reload"]));
        wait_until("the daemon to see it", || host.counter("vm_files", "bad") >= n);
        assert!(has_event(host, "vm_file_bad", "vm.toml"));
        let status = host.tell(&["status"]);
        assert!(status["bad_vm_files"][0]["message"].as_str().unwrap().contains(says), "{status}");
        assert_eq!(host.vm_shows("vm")["app"], "1", "{error}");
    }
    fleet.push(&fleet.package("app", "2", &[("app", b"2")]), &["web"]);
    host.await_vm("vm", &[("app", "2")]);
    host.write_vm("vm", &good);
    drop(host.tell(&["reload"]));
    assert_eq!(host.tell(&["status"])["bad_vm_files"], serde_json::json!([]));
    assert!(host.node(&["check-config"]).status.success());
}

/// A port in use, a folder that cannot be written, a folder or socket that another daemon uses, a
/// host that has not joined: each with its exit code, and the daemon that was there first goes on.
#[test]
fn a_daemon_that_cannot_start_says_why() {
    let mut fleet = Fleet::new(&["web"], 1);
    fleet.enlist();
    let (first, second) = (&fleet.hosts[0], &fleet.hosts[1]);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    fails(&run(second, &["--listen", &addr]), 78, &format!("cannot listen on {addr}"));
    fails(&run(second, &["--listen", "203.0.113.1:7749"]), 78, "cannot listen on 203.0.113.1");

    let used = first.dir.join("state");
    fails(&run(second, &["--state", text(&used)]), 75, "another stork-node uses this folder");
    let socket = first.dir.join("sock");
    fails(&run(second, &["--socket", text(&socket)]), 75, "another stork-node answers");
    fails(&run(second, &["--socket", "/proc/nowhere/sock"]), 77, "/proc/nowhere/sock");
    fails(&run(second, &["--state", "/proc/stork"]), 77, "cannot be written");
    let file = fleet.folder("x").join("file");
    fs::write(&file, "").unwrap();
    fails(&run(second, &["--state", text(&file)]), 77, "cannot be written");
    let new = fleet.folder("new").join("state");
    fails(&run(second, &["--state", text(&new)]), 78, "has not joined a fleet");
    // Joining and `id` say the same of such folders.
    let token = fleet.token("host-3");
    for command in [vec!["join", &token], vec!["id"]] {
        let mut args = vec!["--state", "/proc/stork"];
        args.extend(command);
        fails(&node(&args), 77, "/proc/stork");
    }
    fails(&node(&["--state", text(&used), "join", &token]), 75, "another stork-node uses");
    assert!(first.ask(&["status"]).is_some(), "the first daemon goes on");
}

/// A read-only disk, which only root can make: the daemon says so and exits with 77.
#[test]
fn a_read_only_disk_is_no_place_for_state() {
    let namespace = match stork_tests::fleet::Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let mut fleet = Fleet::inside(namespace, &["web"], 1);
    fleet.enlist();
    let host = fleet.hosts.last().unwrap();
    let namespace = fleet.namespace().unwrap();
    let state = host.dir.join("state");
    let mount = |args: &[&str]| {
        let done = namespace.command("mount").args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    mount(&["--bind", text(&state), text(&state)]);
    mount(&["-o", "remount,bind,ro", text(&state)]);
    fails(&host.node(&["run"]), 77, "cannot be written");
}

/// A newer format, a key that others can read, a key of another machine, a key that is none, and a
/// damaged database: the daemon refuses to start, names the file, and touches nothing.
#[test]
fn t111_t120_state_that_must_not_be_used() {
    let mut fleet = Fleet::new(&["web"], 1);
    fleet.enlist();
    let host = &fleet.hosts[1];
    let at = |name: &str| host.dir.join("state").join(name);
    let check = |name: &str, bytes: &[u8], code: i32, says: &str| {
        let old = fs::read(at(name)).unwrap();
        fs::write(at(name), bytes).unwrap();
        fails(&run(host, &[]), code, says);
        assert_eq!(fs::read(at(name)).unwrap(), bytes, "{name} was touched");
        fs::write(at(name), old).unwrap();
    };
    check("format", b"99\n", 78, "has format 99, and this stork knows formats up to");
    check("format", b"x\n", 1, "is damaged");
    let key = fs::read_to_string(at("node.key")).unwrap();
    let (head, _) = key.split_once("machine ").unwrap();
    let cloned = format!("{head}machine {}\n", "0".repeat(64));
    check("node.key", cloned.as_bytes(), 78, "was the disk cloned?");
    check("node.key", b"nonsense", 1, "this is no node key");
    check("state.redb", &[7; 4_096], 1, "is damaged");
    let mode = |m| fs::set_permissions(at("node.key"), fs::Permissions::from_mode(m)).unwrap();
    mode(0o644);
    fails(&run(host, &[]), 77, "others than its owner may read this key");
    fails(&node(&["--state", text(&host.dir.join("state")), "id"]), 77, "others than its owner");
    mode(0o600);
    let open = fleet.folder("open");
    fs::write(open.join("x"), "").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    fails(&run(host, &["--state", text(&open)]), 77, "so that others can enter it");
    fleet.hosts[1].start();
}

/// `stork` without a daemon, about things that are not there, with words that mean nothing, and for
/// what this host does not do.
#[test]
fn stork_says_by_its_exit_code_what_went_wrong() {
    let mut fleet = Fleet::new(&["web"], 1);
    fleet.enlist().start();
    let (host, other) = (&fleet.hosts[0], &fleet.hosts[1]);
    let nobody = fleet.stranger("nobody");
    fails(&nobody.stork(&["status"]), 75, "no stork-node answers");
    fails(&host.stork(&["vm", "nobody"]), 5, "there is no VM `nobody`");
    fails(&host.stork(&["release", "nothing"]), 5, "no release `nothing` is known here");
    fails(&host.stork(&["why", "nobody", "nothing"]), 5, "there is no VM `nobody`");
    fails(&host.stork(&["rollback", "nobody"]), 5, "there is no VM `nobody`");
    fails(&other.stork(&["token", "create"]), 7, "does not admit others");
    let usage = |args: &[&str]| {
        let out = host.stork(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {out:?}");
    };
    usage(&["frobnicate"]);
    usage(&["rollback", "vm", "--to", "many"]);
    usage(&["token", "create", "--name", "../x"]);
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    drop(host.tell(&["reload"]));
    fails(&host.stork(&["rollback", "vm"]), 7, "");
}

/// Files that are not there, given to each of the programs that reads them.
#[test]
fn missing_files_are_not_found() {
    let dir = Fleet::charter_only(&["web"], None);
    let nothing = dir.folder("empty").join("nothing");
    let (state, nothing) = (dir.folder("state"), text(&nothing));
    let key = dir.charter.join("keys/admission");
    let init = |charter: &str, key: &str| {
        node(&["--state", text(&state), "init", "--charter", charter, "--admission-key", key])
    };
    fails(&init(nothing, text(&key)), 5, "nothing");
    fails(&init(text(&dir.charter.join("charter.bundle")), nothing), 5, "nothing");
    fails(&init(text(&key), text(&key)), 78, "charter");
    let mut pack = Command::new(binary("stork-publish"));
    fails(&pack.args(["pack", nothing, "--out", nothing]).output().unwrap(), 5, "nothing");
    let mut demo = Command::new(binary("stork"));
    demo.args(["demo", "--package", nothing]).env("TMPDIR", dir.folder("demo"));
    let out = demo.output().unwrap();
    // After the help it says where the logs are.
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(5), "{error}");
    assert!(error.contains("nothing`: No such file") && error.contains("help: "), "{error}");
}

/// A first host with a key that admits nobody, or a charter that does not hold: each says so, and
/// the wrong key is not left in the state folder.
#[test]
fn a_first_host_with_the_wrong_key_or_charter() {
    let dir = Fleet::charter_only(&["web"], None);
    let state = dir.folder("state");
    let init = |charter: &Path, key: &str| {
        let key = dir.charter.join("keys").join(key);
        let key = ["--admission-key", text(&key), "--name", "host-1"];
        node(&[&["--state", text(&state), "init", "--charter", text(charter)], &key[..]].concat())
    };
    let bundle = dir.charter.join("charter.bundle");
    fails(&init(&bundle, "release"), 4, "this key does not admit hosts");
    assert!(!state.join("admission.key").exists(), "another key was kept");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[200] ^= 1;
    let bad = dir.folder("bad").join("charter.bundle");
    fs::write(&bad, bytes).unwrap();
    fails(&init(&bad, "admission"), 4, "this charter does not hold");
    let out = init(&bundle, "admission");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Completion and manual page of all three programs go to standard output and name the program.
#[test]
fn every_program_describes_itself() {
    for name in ["stork", "stork-node", "stork-publish"] {
        for (args, says) in [(vec!["completion", "bash"], "complete -F"), (vec!["man"], ".TH ")] {
            let out = Command::new(binary(name)).args(&args).output().unwrap();
            let page = String::from_utf8(out.stdout).unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{name} {args:?}");
            assert!(page.contains(says) && page.contains(name), "{name} {args:?}: {page}");
        }
    }
}
