//! The backend `packages` with RPM packages: a root installs, updates and goes back by its own dnf,
//! and the reader of createrepo_c takes the metadata.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_tests::fleet::{Fleet, Namespace, Package, VmFile};

use super::repository::Guest;
use super::run;

/// A package with a program, two names of one file, and a configuration file.
fn rpm(dir: &Path, name: &str, version: &str, fields: &str) -> PathBuf {
    let (epoch, version) = version.split_once(':').unwrap_or(("0", version));
    let spec = format!(
        "Name: {name}\nVersion: {version}\nRelease: 1\nEpoch: {epoch}\nSummary: a <test> & more\n\
         License: MIT\nBuildArch: noarch\nAutoReqProv: no\n{fields}\n%description\nA test.\n\
         %install\nmkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc\n\
         printf '#!/bin/sh\\necho {name} {version}\\n' > %{{buildroot}}/usr/bin/{name}\n\
         ln %{{buildroot}}/usr/bin/{name} %{{buildroot}}/usr/bin/{name}-too\n\
         ln -s {name} %{{buildroot}}/usr/bin/{name}-link\n\
         echo version = {version} > %{{buildroot}}/etc/{name}.conf\n\
         %files\n%attr(755,root,root) /usr/bin/{name}*\n\
         %config(noreplace) %attr(644,root,root) /etc/{name}.conf\n"
    );
    let file = dir.join(format!("{name}-{version}.spec"));
    fs::write(&file, spec).unwrap();
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--define", &format!("_topdir {}", dir.display())]).arg(&file);
    run(&mut build).unwrap();
    dir.join(format!("RPMS/noarch/{name}-{version}-1.noarch.rpm"))
}

/// Skips with a reason what lacks a program or cannot mount.
fn begin() -> Option<(Fleet, PathBuf)> {
    for tool in ["rpmbuild", "rpm", "dnf", "mergerepo_c", "nsenter"] {
        if stork_node::doctor::find_program(tool).is_none() {
            eprintln!("skipped: there is no {tool}");
            return None;
        }
    }
    let namespace = Namespace::or_skip()?;
    let fleet = Fleet::inside(namespace, &["web"], 2);
    let dir = fleet.folder("rpms");
    Some((fleet, dir))
}

const DNF: &str = "dnf -q -y --disablerepo='*' --enablerepo=stork";

/// The whole life of packages in a guest.
#[test]
fn a_guest_lives_by_its_own_dnf() {
    let Some((fleet, dir)) = begin() else { return };
    let host = &fleet.hosts[1];
    let target = host.target("vm/packages");
    host.write_vm("vm", &VmFile::usual(&["web"], &target).shown_as("packages"));
    fleet.push(&Package::deb(&rpm(&dir, "acme-base", "1.0", "Provides: acme-api = 7")), &["web"]);
    let depends = "Requires: acme-base >= 1.0\nRequires: acme-api = 7";
    fleet.push(&Package::deb(&rpm(&dir, "acme-tool", "1:2.0", depends)), &["web"]);
    host.await_vm("vm", &[("acme-base", "1.0-1"), ("acme-tool", "1:2.0-1")]);

    let views = target.parent().unwrap();
    let (namespace, folder) = (fleet.namespace().unwrap(), fleet.folder("guest"));
    let guest = Guest::start(namespace, folder, views, Path::new("/"));
    let pool = "/opt/stork/packages/pool";
    let sums = guest.run(&format!("rpm -K --nosignature {pool}/*.rpm"));
    assert_eq!(sums.matches("digests OK").count(), 2, "{sums}");
    let merged = "mergerepo_c --repo file:///opt/stork/packages -o /tmp/merged";
    guest.run(merged);
    let read = guest.run("zcat /tmp/merged/repodata/*primary.xml.gz");
    for name in ["acme-base", "acme-tool"] {
        assert!(read.contains(&format!("<name>{name}</name>")), "{read}");
    }
    assert!(read.contains("<summary>a &lt;test&gt; &amp; more</summary>"), "{read}");

    guest.run("mkdir -p /etc/yum.repos.d");
    guest.run("cp /opt/stork/packages/stork.repo /etc/yum.repos.d/");
    guest.run(&format!("{DNF} install acme-tool"));
    assert_eq!(guest.run("acme-tool; acme-base-too"), "acme-tool 2.0\nacme-base 1.0\n");
    assert_eq!(guest.run("rpm -V acme-base acme-tool"), "", "sums and owners are right");
    let names = guest.run("stat -c %h /usr/bin/acme-base");
    assert_eq!(names, "2\n", "two names of one file");

    // The guest's own change of a configuration file stays, as its own rpm decides.
    guest.run("echo mine > /etc/acme-base.conf");
    let next = rpm(&dir, "acme-base", "1.1", "Provides: acme-api = 7");
    fleet.push(&Package::deb(&next), &["web"]);
    host.await_vm("vm", &[("acme-base", "1.1-1"), ("acme-tool", "1:2.0-1")]);
    guest.run(&format!("{DNF} --refresh upgrade"));
    assert_eq!(guest.run("acme-base; cat /etc/acme-base.conf"), "acme-base 1.1\nmine\n");

    // A rollback of the view is seen by dnf, and goes back where the guest's root says so.
    drop(host.tell(&["rollback", "vm"]));
    host.await_vm("vm", &[("acme-base", "1.0-1"), ("acme-tool", "1:2.0-1")]);
    guest.run(&format!("{DNF} --refresh downgrade acme-base"));
    assert_eq!(guest.run("acme-base"), "acme-base 1.0\n");
    assert_eq!(guest.run("find /var/cache/dnf -name '*.rpm'"), "", "nothing is copied");

    // What is not signed by this host's key is not taken.
    let broken = "cp -r /opt/stork/packages /tmp/other; cd /tmp/other; chmod -R u+w .; \
                  sed -i s/acme-base/acme-evil/ repodata/primary.xml repodata/repomd.xml; \
                  sed s,/opt/stork/packages,/tmp/other, stork.repo > /etc/yum.repos.d/stork.repo; \
                  echo '# changed' >> repodata/repomd.xml";
    guest.run(broken);
    let (said, ok) = guest.attempt(&format!("{DNF} --refresh makecache"));
    assert!(!ok && said.to_lowercase().contains("gpg"), "{ok} {said}");
    // dnf leaves a process for each set of keys.
    guest.run("for d in /var/cache/dnf/*/pubring; do gpgconf --homedir $d --kill all; done");
    host.verify_store();
}

/// Packages of both kinds in one view: each has its own index.
#[test]
fn both_kinds_in_one_view() {
    let Some((fleet, dir)) = begin() else { return };
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")).shown_as("packages"));
    fleet.push(&Package::deb(&rpm(&dir, "acme-base", "1.0", "")), &["web"]);
    host.await_vm("vm", &[("acme-base", "1.0-1")]);
    let tree = dir.join("deb/DEBIAN");
    fs::create_dir_all(&tree).unwrap();
    let control = "Package: acme-deb\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\n\
                   Description: x\n";
    fs::write(tree.join("control"), control).unwrap();
    let file = dir.join("acme-deb.deb");
    let mut build = Command::new("dpkg-deb");
    let built = build.args(["--root-owner-group", "-b"]).arg(dir.join("deb")).arg(&file);
    if run(built).is_none() {
        return;
    }
    fleet.push(&Package::deb(&file), &["web"]);
    host.await_vm("vm", &[("acme-base", "1.0-1"), ("acme-deb", "1")]);
    let view = host.seen("vm");
    let index = fs::read_to_string(view.join("Packages")).unwrap();
    let primary = fs::read_to_string(view.join("repodata/primary.xml")).unwrap();
    assert!(index.contains("Package: acme-deb\n") && !index.contains("acme-base"), "{index}");
    assert!(primary.contains("acme-base") && !primary.contains("acme-deb"), "{primary}");
    assert_eq!(fs::read_dir(view.join("pool")).unwrap().count(), 2);
}
