//! A disk that is full before a fetch, one that fills up in the middle of it, and one that has no
//! room for news.

use std::fs;
use std::path::PathBuf;

use stork_tests::compare::compare_with_folder;
use stork_tests::fleet::{Fleet, Host, Namespace, VmFile, noise};
use stork_tests::wait::wait_until;

use crate::check::{await_counter, has_event, pid_of};

const MIB: usize = 1 << 20;

/// A fleet whose second host has its state on a small disk of its own, and shows a first release.
struct Small {
    fleet: Fleet,
    /// The disk as this test sees it.
    disk: PathBuf,
}

impl Small {
    fn new(size: &str) -> Option<Self> {
        Self::with(&format!("size={size}"))
    }

    fn with(options: &str) -> Option<Self> {
        let namespace = Namespace::or_skip()?;
        let mut fleet = Fleet::inside(namespace, &["web"], 1);
        let state = fleet.stranger("host-2").dir.join("state");
        fs::create_dir(&state).unwrap();
        let namespace = fleet.namespace().unwrap();
        let mut mount = namespace.command("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("{options},mode=700"), "tmpfs"]).arg(&state);
        assert!(mount.status().unwrap().success());
        let disk = namespace.see(&state);
        fleet.enlist().start();
        let small = Self { fleet, disk };
        let host = small.host();
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).mounted());
        small.push("1", 10_000);
        host.await_vm("vm", &[("app", "1")]);
        Some(small)
    }

    fn host(&self) -> &Host {
        &self.fleet.hosts[1]
    }

    fn push(&self, version: &str, len: usize) -> PathBuf {
        let bytes = noise(version, len);
        let package = self.fleet.package("app", version, &[("app.bin", &bytes)]);
        self.fleet.push(&package, &["web"]);
        package.file
    }

    fn grow(&self, options: &str) {
        let state = self.host().dir.join("state");
        let mut mount = self.fleet.namespace().unwrap().command("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(state);
        assert!(mount.status().unwrap().success());
    }

    /// Somebody else takes all the room that is left, with this file.
    fn fill(&self) -> PathBuf {
        let fill = self.disk.join("somebody-else");
        let free = rustix::fs::statvfs(&self.disk).unwrap();
        let free = usize::try_from(free.f_bavail * free.f_frsize).unwrap();
        let filled = fs::write(&fill, noise("fill", free + MIB));
        assert!(filled.is_err(), "the disk is full");
        fill
    }

    /// The host answers, its store can write, and its VM shows the first release.
    fn unharmed(&self) {
        let host = self.host();
        let status = host.tell(&["status"]);
        assert_eq!(status["store"]["ok"], true, "{status}");
        assert_eq!(host.vm_shows("vm")["app"], "1");
        let seen = fs::read(host.seen("vm").join("app.bin")).unwrap();
        assert_eq!(seen, noise("1", 10_000));
        assert_eq!(status["links"], 1, "{status}");
    }

    fn completes(&self, version: &str, file: &std::path::Path) {
        self.host().await_vm("vm", &[("app", version)]);
        compare_with_folder(&self.host().seen("vm"), file);
        self.host().verify_store();
    }
}

/// A release larger than the free space is refused before a byte is fetched, with a counter and an
/// error that says how much is needed; the VM keeps its view and the host answers. When the disk
/// has grown, it is fetched without anybody doing anything.
#[test]
fn t088_a_release_that_does_not_fit_is_refused_and_comes_later() {
    let Some(small) = Small::new("40M") else { return };
    let host = small.host();
    let file = small.push("2", 32 * MIB);
    await_counter(host, "fetches_refused", "no_space", 1);
    assert!(has_event(host, "content_failed", "no space: "));
    let release = host.release("app", "2").unwrap();
    assert!(release["state"].as_str().unwrap().contains("must stay free"), "{release}");
    assert_eq!(release["fetched_bytes"], 0, "{release}");
    small.unharmed();
    small.grow("size=300M");
    small.completes("2", &file);
}

/// A release with more files than the disk has inodes left is refused before a byte is fetched, and
/// the error says how many are needed; a smaller one of the same publisher comes meanwhile. With
/// more inodes it comes by itself.
#[test]
fn t089_a_release_with_too_many_files_is_refused_and_comes_later() {
    let Some(small) = Small::with("size=200M,nr_inodes=10800") else { return };
    let host = small.host();
    let names: Vec<String> = (0..1_000).map(|i| format!("file-{i}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), n.as_bytes())).collect();
    let many = small.fleet.package("many", "1", &files);
    small.fleet.push(&many, &["web"]);
    await_counter(host, "fetches_refused", "no_inodes", 1);
    assert!(has_event(host, "content_failed", "no inodes: 1001 are needed"));
    assert_eq!(host.release("many", "1").unwrap()["fetched_bytes"], 0);
    small.unharmed();
    let file = small.push("2", 10_000);
    host.await_vm("vm", &[("app", "2")]);
    small.grow("nr_inodes=40000");
    host.await_vm("vm", &[("app", "2"), ("many", "1")]);
    assert!(file.is_dir());
    host.verify_store();
}

/// A publisher or a group that would bring more than its quota is refused before a byte is fetched,
/// and only with that release: a smaller one of it comes, and with a larger quota all of it.
#[test]
fn t089_a_publisher_or_group_over_its_quota_is_refused_alone() {
    let mut fleet = Fleet::new(&["web"], 3);
    let whose = [(1, "publishers", "acme", "publisher acme"), (2, "groups", "web", "group web")];
    let limit = |fleet: &mut Fleet, bytes: usize| {
        for (host, table, name, _) in whose {
            fleet.hosts[host].configure(&format!("[quota]\n{table} = {{ {name} = {bytes} }}\n"));
            fleet.hosts[host].restart();
        }
    };
    limit(&mut fleet, MIB);
    let push = |fleet: &Fleet, name: &str, version: &str, len: usize| {
        let bytes = noise(name, len);
        fleet.push(&fleet.package(name, version, &[(name, &bytes)]), &["web"]);
    };
    let all = |fleet: &Fleet, packages: &[(&str, &str)]| {
        fleet.hosts[1..].iter().for_each(|h| h.await_vm("vm", packages));
    };
    for host in &fleet.hosts[1..] {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    push(&fleet, "small", "1", 10_000);
    all(&fleet, &[("small", "1")]);
    push(&fleet, "large", "1", 2 * MIB);
    for (host, _, _, called) in whose {
        let host = &fleet.hosts[host];
        await_counter(host, "fetches_refused", "over_quota", 1);
        let release = host.release("large", "1").unwrap();
        let state = release["state"].as_str().unwrap();
        assert!(state.contains(&format!("over the quota of {called}: ")), "{release}");
        assert_eq!(release["fetched_bytes"], 0);
    }
    push(&fleet, "small", "2", 20_000);
    all(&fleet, &[("small", "2")]);
    limit(&mut fleet, 4 * MIB);
    all(&fleet, &[("large", "1"), ("small", "2")]);
}

/// A VM that would take more than its quota, in bytes or in files, is refused what does not fit,
/// with a word of its own, before its packs are fetched: it keeps and gets what fits, and another
/// VM gets all of it. With a larger quota it comes.
#[test]
fn t089_a_vm_over_its_quota_is_refused_alone() {
    let mut fleet = Fleet::new(&["web"], 2);
    let quota = |bytes: usize, files: usize| {
        format!("[quota.vms]\nsmall = {{ bytes = {bytes}, files = {files} }}\n")
    };
    fleet.hosts[1].configure(&quota(MIB, 50));
    fleet.hosts[1].restart();
    let host = &fleet.hosts[1];
    host.write_vm("small", &VmFile::usual(&["web"], &host.target("small")));
    let push = |name: &str, version: &str, len: usize| {
        let bytes = noise(name, len);
        fleet.push(&fleet.package(name, version, &[(name, &bytes)]), &["web"]);
    };
    push("app", "1", 10_000);
    host.await_vm("small", &[("app", "1")]);
    push("large", "1", 2 * MIB);
    let names: Vec<String> = (0..100).map(|i| format!("file-{i}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), n.as_bytes())).collect();
    fleet.push(&fleet.package("many", "1", &files), &["web"]);
    wait_until("both to be refused", || {
        has_event(host, "vm_over_quota", "small: large 1: over the quota of this VM: ")
            && has_event(host, "vm_over_quota", "small: many 1: over the quota of this VM: ")
    });
    for package in ["large", "many"] {
        let fetched = host.release(package, "1").unwrap()["fetched_bytes"].as_u64();
        assert_eq!(fetched.unwrap_or(0), 0, "{package}");
        let why = host.tell(&["why", "small", package]).to_string();
        assert!(why.contains("over the quota of this VM") && why.contains("[quota]"), "{why}");
    }
    push("app", "2", 20_000);
    host.await_vm("small", &[("app", "2")]);
    // Another VM wants the same: it gets all, and the first one does not show it by the way.
    host.write_vm("other", &VmFile::usual(&["web"], &host.target("other")));
    host.await_vm("other", &[("app", "2"), ("large", "1"), ("many", "1")]);
    assert_eq!(host.vm_shows("small").len(), 1);
    fleet.hosts[1].configure(&quota(4 * MIB, 500));
    fleet.hosts[1].restart();
    fleet.hosts[1].await_vm("small", &[("app", "2"), ("large", "1"), ("many", "1")]);
}

/// A view that keeps a copy of its own (`image`) takes the room of its packages twice, and so it
/// counts: for the VM, and for the publisher. A VM with as much room whose view shares all files
/// gets the same release.
#[test]
fn t089_copies_that_views_keep_count() {
    let Some(namespace) = Namespace::or_skip() else { return };
    let mut fleet = Fleet::inside(namespace, &["web"], 3);
    let room = 3 * MIB / 2;
    let vms = |bytes: usize| {
        let vm = |name| format!("{name} = {{ bytes = {bytes} }}\n");
        format!("[quota.vms]\n{}{}", vm("shares"), vm("copies"))
    };
    fleet.hosts[1].configure(&vms(room));
    fleet.hosts[2].configure(&format!("[quota]\npublishers = {{ acme = {room} }}\n"));
    for host in &mut fleet.hosts[1..] {
        host.restart();
    }
    let (host, other) = (&fleet.hosts[1], &fleet.hosts[2]);
    let file = |host: &Host, vm: &str| VmFile::usual(&["web"], &host.target(vm));
    host.write_vm("shares", &file(host, "shares").mounted());
    for host in [host, other] {
        host.write_vm("copies", &file(host, "copies").shown_as("image"));
    }
    let push = |name: &str, len: usize| {
        fleet.push(&fleet.package(name, "1", &[(name, &noise(name, len))]), &["web"]);
    };
    push("app", MIB);
    host.await_vm("shares", &[("app", "1")]);
    let refused = "copies: app 1: over the quota of this VM: 2097152 bytes (twice";
    wait_until("it to be refused", || has_event(host, "vm_over_quota", refused));
    let why = host.tell(&["why", "copies", "app"]).to_string();
    assert!(why.contains("its view keeps a copy") && why.contains("[quota]"), "{why}");
    await_counter(other, "fetches_refused", "over_quota", 1);
    let state = other.release("app", "1").unwrap()["state"].to_string();
    let said = "over the quota of publisher acme: 2097152 bytes with this";
    assert!(state.contains(said) && state.contains("copies that views keep"), "{state}");
    push("small", MIB / 4);
    for host in [host, other] {
        host.await_vm("copies", &[("small", "1")]);
    }
    let copied = |host: &Host| host.tell(&["store", "stat"])["copy_bytes"].as_u64().unwrap();
    assert!((MIB as u64 / 4..MIB as u64).contains(&copied(host)), "{}", copied(host));
    fleet.hosts[1].configure(&vms(4 * MIB));
    fleet.hosts[1].restart();
    fleet.hosts[1].await_vm("copies", &[("app", "1"), ("small", "1")]);
}

fn signal(host: &Host, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid_of(host)).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Somebody else fills the disk while a release comes: what was fetched is kept or given up, the VM
/// keeps its view, and the host answers and is not harmed. With room again it goes on by itself.
#[test]
fn t088_a_disk_that_fills_up_in_the_middle_of_a_fetch() {
    let Some(small) = Small::new("60M") else { return };
    let host = small.host();
    let origin = &small.fleet.hosts[0];
    // The origin stands still once the fetch has begun, so that the disk is full before the rest.
    let file = small.push("2", 12 * MIB);
    wait_until("the fetch to begin", || has_event(host, "fetch_begun", "app 2"));
    signal(origin, rustix::process::Signal::STOP);
    let fill = small.fill();
    signal(origin, rustix::process::Signal::CONT);
    wait_until("the release to fail", || {
        let state = host.release("app", "2").unwrap()["state"].clone();
        state.as_str().unwrap().starts_with("failed: no space")
    });
    await_counter(host, "fetches_refused", "no_space", 1);
    assert_eq!(host.counter("peers_blamed", "false_have"), 0, "nobody else is to blame");
    small.unharmed();
    fs::remove_file(&fill).unwrap();
    small.completes("2", &file);
}

/// News come while there is no room for a transaction. For the documented wait they stay in memory;
/// then the host is as if it had not heard of them, takes none, and says so. With room again it
/// gets them by itself, all of them and in their order, and knows them after a restart too. Before,
/// its rules and heads stayed ahead of its disk: it never had the first of them again, and wrote
/// later ones behind the gap.
#[test]
fn t088_news_without_room_are_taken_back_and_come_later() {
    let Some(mut small) = Small::new("60M") else { return };
    let fill = small.fill();
    small.push("2", 10_000);
    let host = small.host();
    await_counter(host, "journal", "waits", 1);
    assert_eq!(host.tell(&["status"])["journal"]["state"], "waits");
    await_counter(host, "journal", "failed", 1);
    assert!(has_event(host, "journal_failed", "no space"));
    let file = small.push("3", 10_000);
    let host = small.host();
    let status = host.tell(&["status"]);
    assert_eq!(status["journal"]["ok"], false, "{status}");
    assert_eq!(status["journal"]["state"], "closed", "{status}");
    assert_eq!(status["journal"]["unwritten"], 0, "{status}");
    assert!(host.release("app", "2").is_none() && host.release("app", "3").is_none());
    small.unharmed();
    fs::remove_file(&fill).unwrap();
    small.completes("3", &file);
    let known = |host: &Host| ["1", "2", "3"].map(|v| host.release("app", v).is_some());
    let host = small.host();
    assert_eq!(known(host), [true; 3]);
    assert_eq!(host.tell(&["status"])["journal"]["ok"], true);
    assert!(has_event(host, "journal_open", "takes items again"));
    small.fleet.hosts[1].restart();
    let host = small.host();
    host.await_vm("vm", &[("app", "3")]);
    assert_eq!(known(host), [true; 3], "all of them were written");
}

/// Room that comes back within the wait is enough: nothing is taken back or fetched again.
#[test]
fn t088_news_wait_a_moment_for_room() {
    let Some(small) = Small::new("60M") else { return };
    let host = small.host();
    let fill = small.fill();
    let file = small.push("2", 10_000);
    await_counter(host, "journal", "waits", 1);
    assert!(host.release("app", "2").is_none(), "what is not on disk is not shown");
    fs::remove_file(&fill).unwrap();
    small.completes("2", &file);
    assert_eq!(host.counter("journal", "failed"), 0);
    assert_eq!(host.tell(&["status"])["journal"]["ok"], true);
}
