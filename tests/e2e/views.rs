//! Views: read-only mounts that other namespaces follow without a gap, hooks, and rollback.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Namespace, Package, VmFile, binary};
use stork_tests::wait::wait_until;

/// What the kernel says of a write to a read-only mount.
const EROFS: i32 = 30;

fn package(fleet: &Fleet, name: &str, version: &str) -> Package {
    let path = format!("share/{name}/version");
    fleet.package(name, version, &[(&path, format!("{version}\n").as_bytes())])
}

/// A process in a mount namespace of its own, as a guest has one, that reads the same file all the
/// time and writes down what it sees whenever that changes.
struct Guest {
    child: Child,
    seen: PathBuf,
}

const WATCH: &str = r#"
last=
while :; do
    if read -r now < "$1"; then :; else now=missing; fi
    if [ "$now" != "$last" ]; then echo "$now"; last=$now; fi
done"#;

impl Guest {
    fn start(namespace: &Namespace, file: &Path, seen: PathBuf) -> Self {
        let mut command = namespace.command("unshare");
        command.args(["-m", "--propagation", "slave", "sh", "-c", WATCH, "guest"]).arg(file);
        command.stdout(fs::File::create(&seen).unwrap()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), seen }
    }

    fn saw(&self) -> Vec<String> {
        fs::read_to_string(&self.seen).unwrap().lines().map(str::to_owned).collect()
    }

    fn await_sight(&self, text: &str) {
        wait_until(&format!("the guest to see {text}"), || {
            self.saw().last().is_some_and(|l| l == text)
        });
    }

    /// What the guest's own mounts show at a path.
    fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// A mounted view shows two packages merged, nobody can write to it, and a guest in a mount
/// namespace of its own sees every switch, and never a moment without the file. What the guest has
/// open stays readable.
#[test]
fn guests_follow_a_mounted_view_without_a_gap() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
    fleet.push(&package(&fleet, "a", "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    for file in ["share/a/version", "new"] {
        let error = fs::write(host.seen("vm").join(file), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EROFS), "{file}: {error}");
    }

    let watched = host.target("vm").join("share/a/version");
    let seen = fleet.folder("guest").join("seen");
    let guest = Guest::start(fleet.namespace().unwrap(), &watched, seen);
    guest.await_sight("1");
    let open = fs::File::open(guest.path(&watched)).unwrap();
    for version in ["2", "3", "4", "5"] {
        fleet.push(&package(&fleet, "a", version), &["web"]);
        guest.await_sight(version);
    }
    fleet.push(&package(&fleet, "b", "1"), &["web"]);
    host.await_vm("vm", &[("a", "5"), ("b", "1")]);
    let b = guest.path(&host.target("vm").join("share/b/version"));
    wait_until("the guest to see the second package", || b.exists());
    for (name, version) in [("a", "5\n"), ("b", "1\n")] {
        let path = guest.path(&host.target("vm").join(format!("share/{name}/version")));
        assert_eq!(fs::read_to_string(path).unwrap(), version);
    }
    let error = fs::write(guest.path(&watched), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(EROFS), "the guest: {error}");
    assert_eq!(std::io::read_to_string(open).unwrap(), "1\n", "an open file stays readable");
    assert_eq!(guest.saw(), ["1", "2", "3", "4", "5"], "each version once, and never nothing");
}

/// A guest reads on while its node is killed by `kill -9`, is away, and comes back: it never misses
/// the file, also not at the next switch. The number beside the view goes along.
#[test]
fn a_guest_reads_on_while_its_node_is_killed() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let target = fleet.hosts[1].target("vm");
    fleet.hosts[1].write_vm("vm", &VmFile::usual(&["web"], &target).mounted());
    fleet.push(&package(&fleet, "a", "1"), &["web"]);
    fleet.hosts[1].await_vm("vm", &[("a", "1")]);
    let watched = target.join("share/a/version");
    let seen = fleet.folder("guest").join("seen");
    let guest = Guest::start(fleet.namespace().unwrap(), &watched, seen);
    guest.await_sight("1");
    let number = target.with_file_name("vm.generation");
    assert_eq!(fs::read_to_string(guest.path(&number)).unwrap(), "1\n");
    for version in ["2", "3"] {
        fleet.hosts[1].kill9();
        assert_eq!(
            fs::read_to_string(guest.path(&watched)).unwrap(),
            guest.saw().pop().unwrap() + "\n"
        );
        fleet.hosts[1].start();
        fleet.push(&package(&fleet, "a", version), &["web"]);
        guest.await_sight(version);
    }
    fleet.hosts[1].await_vm("vm", &[("a", "3")]);
    assert_eq!(guest.saw(), ["1", "2", "3"], "each version once, and never nothing");
    assert_eq!(fs::read_to_string(guest.path(&number)).unwrap(), "3\n");
}

/// The daemon is upgraded, which is an end and the start of another file, while a guest reads on:
/// it has its file all the time, and then sees what the new daemon shows.
#[test]
fn a_guest_reads_on_while_its_node_is_upgraded() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let target = fleet.hosts[1].target("vm");
    fleet.hosts[1].write_vm("vm", &VmFile::usual(&["web"], &target).mounted());
    fleet.push(&package(&fleet, "a", "1"), &["web"]);
    fleet.hosts[1].await_vm("vm", &[("a", "1")]);
    let watched = target.join("share/a/version");
    let seen = fleet.folder("guest").join("seen");
    let guest = Guest::start(fleet.namespace().unwrap(), &watched, seen);
    guest.await_sight("1");
    let open = fs::File::open(guest.path(&watched)).unwrap();
    fleet.hosts[1].stop();
    let new = fleet.folder("new").join("stork-node");
    fs::copy(binary("stork-node"), &new).unwrap();
    let words = ["sh", "-c", "shift; exec \"$0\" \"$@\"", new.to_str().unwrap()];
    fleet.hosts[1].start_by(&words).start();
    let runs = fs::read_link(format!("/proc/{}/exe", fleet.hosts[1].pid())).unwrap();
    assert_eq!(runs.file_name(), new.file_name());
    assert!(runs.ends_with("new/stork-node"), "{}", runs.display());
    fleet.hosts[1].await_vm("vm", &[("a", "1")]);
    fleet.push(&package(&fleet, "a", "2"), &["web"]);
    guest.await_sight("2");
    assert_eq!(std::io::read_to_string(open).unwrap(), "1\n", "an open file stays readable");
    assert_eq!(guest.saw(), ["1", "2"], "each version once, and never nothing");
}

/// Sockets on which a process listens, of streams: the paths of Unix ones, and `tcp`.
fn listens(pid: u32) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let own: Vec<String> = links
        .filter_map(|l| Some(l.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap();
    let mut out = Vec::new();
    for line in table("unix").lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let accepts = words[3] == "00010000";
        if accepts && own.iter().any(|inode| inode == words[6]) {
            out.push(words.get(7).copied().unwrap_or_default().to_owned());
        }
    }
    for line in [table("tcp"), table("tcp6")].iter().flat_map(|t| t.lines().skip(1)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[3] == "0A" && own.iter().any(|inode| inode == words[9]) {
            out.push("tcp".to_owned());
        }
    }
    out
}

/// T101, T102, T103, T104: a guest cannot claim to be another one, ask for another's content,
/// flood or widen anything, since there is nobody to ask. Nothing that it is shown is more than
/// files, folders and links, and the one socket on which the daemon answers is root's, beside no
/// view.
#[test]
fn t101_t102_t103_t104_a_guest_has_nobody_to_ask() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    for vm in ["vm", "other"] {
        host.write_vm(vm, &VmFile::usual(&["web"], &host.target(vm)).mounted());
    }
    fleet.push(&package(&fleet, "a", "1"), &["web"]);
    for vm in ["vm", "other"] {
        host.await_vm(vm, &[("a", "1")]);
        let mut folders = vec![host.seen(vm)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                let plain = kind.is_file() || kind.is_dir() || kind.is_symlink();
                assert!(plain, "{}: {kind:?}", entry.path().display());
                folders.extend(kind.is_dir().then(|| entry.path()));
            }
        }
    }
    let all = listens(host.pid());
    let [socket] = &all[..] else { panic!("one socket is expected: {all:?}") };
    let socket = Path::new(socket);
    assert!(["vm", "other"].iter().all(|vm| !socket.starts_with(host.target(vm))));
    let mode = fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}: nobody else may connect");
}

/// A mounted view is still there when its node is stopped, and a node that starts again keeps it.
#[test]
fn a_mounted_view_outlives_its_node() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let mut fleet = Fleet::inside(namespace, &["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
    let one = package(&fleet, "a", "1");
    fleet.push(&one, &["web"]);
    fleet.hosts[1].await_vm("vm", &[("a", "1")]);
    fleet.hosts[1].stop();
    compare_with_folder(&fleet.hosts[1].seen("vm"), &one.file);
    let two = package(&fleet, "a", "2");
    fleet.push(&two, &["web"]);
    fleet.hosts[1].start().await_vm("vm", &[("a", "2")]);
    compare_with_folder(&fleet.hosts[1].seen("vm"), &two.file);
}

/// A hook that writes down its environment and what it sees, and fails for bad versions.
fn hook(fleet: &Fleet) -> (PathBuf, PathBuf) {
    let folder = fleet.folder("hook");
    let (hook, log) = (folder.join("hook"), folder.join("log"));
    let script = format!(
        "#!/bin/sh\nread v < $STORK_TARGET/share/a/version\n\
         echo \"$STORK_VM $STORK_TARGET $STORK_GENERATION $STORK_SET $v\" >> {}\n\
         case $v in *bad*) echo 'it does not work'; exit 3;; esac\n",
        log.display()
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    (hook, log)
}

/// A hook runs after the switch, is told VM, target, generation and set, and sees the new version.
/// Where it fails, the VM is shown the version before, also after a restart, until a newer one
/// comes.
#[test]
fn a_failing_hook_takes_the_switch_back() {
    let mut fleet = Fleet::new(&["web"], 2);
    let (hook, log) = hook(&fleet);
    let host = &fleet.hosts[1];
    let target = host.target("vm");
    host.write_vm("vm", &VmFile::usual(&["web"], &target).hook(&hook, "rollback"));
    fleet.push(&package(&fleet, "a", "1"), &["web"]);
    host.await_vm("vm", &[("a", "1")]);
    let set = host.tell(&["vm", "vm"])["generations"][0]["set"].as_str().unwrap().to_owned();
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(said, format!("vm {} 1 {set} 1\n", target.display()));

    fleet.push(&package(&fleet, "a", "2-bad"), &["web"]);
    wait_until("the switch to be taken back", || host.counter("switches", "rolled_back") == 1);
    host.await_vm("vm", &[("a", "1")]);
    assert_eq!(fs::read_to_string(target.join("share/a/version")).unwrap(), "1\n");
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!(vm["hook"], "exit 3: it does not work", "{vm}");
    let why = host.tell(&["why", "vm", "a"]).to_string();
    assert!(why.contains("it was rolled back on this VM"), "{why}");
    let seen: Vec<String> = fs::read_to_string(&log).unwrap().lines().map(last_word).collect();
    assert_eq!(seen, ["1", "2-bad", "1"], "the hook ran for each switch");

    fleet.hosts[1].restart().await_vm("vm", &[("a", "1")]);
    fleet.push(&package(&fleet, "a", "3"), &["web"]);
    fleet.hosts[1].await_vm("vm", &[("a", "3")]);
    let seen = fs::read_to_string(&log).unwrap();
    assert_eq!(seen.matches("2-bad").count(), 1, "what failed was not tried again: {seen}");
}

fn last_word(line: &str) -> String {
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// With `on_failure = "report"` the new version stays, and `stork vm` says what the hook said.
#[test]
fn a_failing_hook_may_only_report() {
    let fleet = Fleet::new(&["web"], 2);
    let (hook, _) = hook(&fleet);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).hook(&hook, "report"));
    for version in ["1", "2-bad"] {
        fleet.push(&package(&fleet, "a", version), &["web"]);
        host.await_vm("vm", &[("a", version)]);
    }
    let vm = host.tell(&["vm", "vm"]);
    assert_eq!(vm["hook"], "exit 3: it does not work", "{vm}");
    assert_eq!(host.counter("switches", "rolled_back"), 0);
}

/// `stork rollback` shows the version before, which stays after a restart; `--undo` goes forward
/// again; `--to` shows any generation that is kept; a newer release ends a rollback by itself.
#[test]
fn rollback_and_undo() {
    let mut fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    for version in ["1", "2", "3"] {
        fleet.push(&package(&fleet, "a", version), &["web"]);
        host.await_vm("vm", &[("a", version)]);
    }
    let done = host.tell(&["rollback", "vm"]);
    assert_eq!((&done["from"], &done["to"]), (&3.into(), &2.into()), "{done}");
    host.await_vm("vm", &[("a", "2")]);
    let two = fs::read_to_string(host.target("vm").join("share/a/version")).unwrap();
    assert_eq!(two, "2\n");
    fleet.hosts[1].restart().await_vm("vm", &[("a", "2")]);
    let host = &fleet.hosts[1];
    let why = host.tell(&["why", "vm", "a"]).to_string();
    assert!(why.contains("it was rolled back on this VM"), "{why}");
    let undone = host.tell(&["rollback", "vm", "--undo"]);
    assert_eq!(undone["undone"], 1, "{undone}");
    host.await_vm("vm", &[("a", "3")]);
    let done = host.tell(&["rollback", "vm", "--to", "1"]);
    assert_eq!(done["to"], 1, "{done}");
    host.await_vm("vm", &[("a", "1")]);
    fleet.push(&package(&fleet, "a", "4"), &["web"]);
    host.await_vm("vm", &[("a", "4")]);
    let missing = host.stork(&["rollback", "vm", "--to", "99"]);
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && error.contains("no earlier generation 99"), "{error}");
}
