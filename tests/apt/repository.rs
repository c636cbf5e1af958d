//! The backend `packages`: a Debian root installs, updates and goes back by its own apt, from a
//! view that is its only source and is never copied.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stork_tests::fleet::{Fleet, Namespace, Package, VmFile};

use super::run;

const SCRIPT: &str = include_str!("guest.sh");

/// A guest: a root in a mount namespace below that of the fleet.
pub(super) struct Guest {
    keeper: Child,
    root: PathBuf,
}

impl Guest {
    pub(super) fn start(namespace: &Namespace, base: PathBuf, views: &Path, lower: &Path) -> Self {
        let mut unshare = namespace.command("unshare");
        unshare.args(["-m", "--propagation", "slave", "sh", "-c", SCRIPT, "guest"]);
        unshare.arg(&base).arg(views).arg(lower);
        let mut keeper = unshare.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the guest's root");
        Self { keeper, root: base.join("root") }
    }

    /// Runs a command in the guest; what it printed.
    pub(super) fn run(&self, command: &str) -> String {
        let (said, ok) = self.attempt(command);
        assert!(ok, "{command}: {said}");
        said
    }

    pub(super) fn attempt(&self, command: &str) -> (String, bool) {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg("-t").arg(self.keeper.id().to_string()).args(["-m", "chroot"]);
        nsenter.arg(&self.root).args(["sh", "-c", &format!("{command} 2>&1")]);
        nsenter.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        let out = nsenter.output().unwrap();
        (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.success())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.keeper.kill().unwrap_or_default();
        drop(self.keeper.wait());
    }
}

/// A `.deb` with a program and what `more` puts beside it.
fn deb(dir: &Path, name: &str, version: &str, fields: &str, more: &[(&str, &str)]) -> PathBuf {
    let top = dir.join(format!("{name}-{version}"));
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b>\n{fields}\
         Description: a package of the test\n"
    );
    let program = format!("#!/bin/sh\necho {name} {version}\n");
    let bin = format!("usr/bin/{name}");
    let own = [("DEBIAN/control", control.as_str()), (bin.as_str(), program.as_str())];
    for (path, text) in own.iter().chain(more) {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let script = text.starts_with("#!");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(if script { 0o755 } else { 0o644 });
        fs::set_permissions(&path, mode).unwrap();
    }
    let file = dir.join(format!("{name}_{version}_all.deb"));
    let mut build = Command::new("dpkg-deb");
    run(build.args(["--root-owner-group", "-b"]).arg(&top).arg(&file)).unwrap();
    file
}

const POSTINST: &str = "#!/bin/sh\nset -e\necho \"$1 $2\" >> /var/lib/acme-base.log\n";

fn base(dir: &Path, version: &str) -> PathBuf {
    let text = format!("version = {version}\n");
    let more = [
        ("etc/acme.conf", text.as_str()),
        ("DEBIAN/conffiles", "/etc/acme.conf\n"),
        ("DEBIAN/postinst", POSTINST),
    ];
    deb(dir, "acme-base", version, "", &more)
}

/// Skips with a reason what is no Debian or cannot mount.
fn begin() -> Option<(Fleet, PathBuf)> {
    for tool in ["apt-get", "dpkg-deb", "nsenter"] {
        if stork_node::doctor::find_program(tool).is_none() {
            eprintln!("skipped: there is no {tool}");
            return None;
        }
    }
    let namespace = Namespace::or_skip()?;
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let dir = fleet.folder("debs");
    Some((fleet, dir))
}

/// The whole life of packages in a guest with the given root.
fn lives_by_apt(lower: &Path) {
    let Some((fleet, dir)) = begin() else { return };
    let host = &fleet.hosts[1];
    let target = host.target("vm/packages");
    host.write_vm("vm", &VmFile::usual(&["web"], &target).shown_as("packages"));
    fleet.push(&Package::deb(&base(&dir, "1.0")), &["web"]);
    let depends = "Depends: acme-base (>= 1.0)\n";
    fleet.push(&Package::deb(&deb(&dir, "acme-tool", "1:2.0", depends, &[])), &["web"]);
    host.await_vm("vm", &[("acme-base", "1.0"), ("acme-tool", "1:2.0")]);

    let views = target.parent().unwrap();
    let guest = Guest::start(fleet.namespace().unwrap(), fleet.folder("guest"), views, lower);
    let said = guest.run("apt-get -q update");
    assert!(!said.contains("W:") && !said.contains("E:"), "{said}");
    let said = guest.run("apt-get -q -y install acme-tool");
    assert!(said.contains("Setting up acme-base (1.0)"), "{said}");
    assert_eq!(guest.run("acme-tool"), "acme-tool 1:2.0\n");
    assert_eq!(guest.run("cat /etc/acme.conf"), "version = 1.0\n");
    assert_eq!(guest.run("cat /var/lib/acme-base.log"), "configure \n");
    assert_eq!(guest.run("find /var/cache/apt/archives -name '*.deb'"), "", "nothing is copied");
    assert_eq!(guest.run("dpkg --verify acme-base acme-tool"), "", "sums are right");

    // The guest's own change of a conffile stays, as its own dpkg decides.
    guest.run("echo mine > /etc/acme.conf");
    fleet.push(&Package::deb(&base(&dir, "1.1")), &["web"]);
    host.await_vm("vm", &[("acme-base", "1.1"), ("acme-tool", "1:2.0")]);
    guest.run("apt-get -q update");
    let said = guest.run("apt-get -q -y -o Dpkg::Options::=--force-confold upgrade");
    assert!(said.contains("Setting up acme-base (1.1)"), "{said}");
    assert_eq!(guest.run("acme-base"), "acme-base 1.1\n");
    assert_eq!(guest.run("cat /etc/acme.conf"), "mine\n");
    assert_eq!(guest.run("tail -n 1 /var/lib/acme-base.log"), "configure 1.0\n");

    // A rollback of the view is seen by apt, and goes back where the guest's root says so.
    drop(host.tell(&["rollback", "vm"]));
    host.await_vm("vm", &[("acme-base", "1.0"), ("acme-tool", "1:2.0")]);
    guest.run("apt-get -q update");
    let policy = guest.run("apt-cache policy acme-base");
    assert!(policy.contains(" 1.0 500") && !policy.contains("1.1 500"), "{policy}");
    let keep = "-o Dpkg::Options::=--force-confold";
    guest.run(&format!("apt-get -q -y --allow-downgrades {keep} install acme-base=1.0"));
    assert_eq!(guest.run("acme-base"), "acme-base 1.0\n");
    assert_eq!(guest.run("find /var/cache/apt/archives -name '*.deb'"), "");

    // Root of the guest writes nothing there.
    for order in ["touch", "rm -f", "chmod 777"] {
        let (said, ok) = guest.attempt(&format!("{order} /opt/stork/packages/Packages"));
        assert!(!ok && said.contains("Read-only"), "{order}: {said}");
    }
    host.verify_store();
}

/// With a copy of this machine's own root.
#[test]
fn a_guest_lives_by_its_own_apt() {
    if !Path::new("/etc/debian_version").exists() {
        return eprintln!("skipped: this is no Debian");
    }
    lives_by_apt(Path::new("/"));
}

/// With a root that debootstrap makes, from the archive: some minutes, and needs the network.
#[test]
fn a_root_of_debootstrap_lives_by_its_own_apt() {
    if std::env::var_os("STORK_LONG").is_none() {
        return eprintln!("skipped: STORK_LONG is not set");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", "bookworm"]).arg(&root);
    if run(&mut make).is_some() {
        lives_by_apt(&root);
    }
}

/// Two VMs of a host show one archive: it was written once, and both have its inode. A set that
/// nobody shows any more takes its archives along.
#[test]
fn an_archive_is_written_once() {
    use std::os::unix::fs::MetadataExt;
    let Some((fleet, dir)) = begin() else { return };
    let host = &fleet.hosts[1];
    let file = |vm: &str| VmFile::usual(&["web"], &host.target(vm)).shown_as("packages");
    host.write_vm("one", &file("one"));
    host.write_vm("two", &file("two").vm("depends = \"check\""));
    fleet.push(&Package::deb(&base(&dir, "1.0")), &["web"]);
    for vm in ["one", "two"] {
        host.await_vm(vm, &[("acme-base", "1.0")]);
    }
    let pool = "pool/acme-base_1.0_all.deb";
    let inode = |vm: &str| host.seen(vm).join(pool).metadata().unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
    let key = fs::read_to_string(host.seen("one").join("stork-host.asc")).unwrap();
    let entry = fs::read_to_string(host.seen("one").join("stork.sources")).unwrap();
    assert!(key.lines().filter(|l| l.len() == 64).all(|l| entry.contains(l)), "{entry}");
}

/// A package that says in its control file what was not announced is not shown, with the reason.
#[test]
fn a_folder_is_no_package_for_apt() {
    let Some((fleet, _)) = begin() else { return };
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).shown_as("packages"));
    fleet.push(&fleet.package("folder", "1", &[("x", b"x")]), &["web"]);
    stork_tests::wait::wait_until("the reason", || {
        host.tell(&["events"]).to_string().contains("neither from a .deb")
    });
}
