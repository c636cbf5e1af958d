//! What this host can do for its VMs, with the evidence for each answer: `stork doctor`, and what
//! the daemon says when it starts.
//!
//! Everything is tried or read anew and nothing is kept: files without a name in the state folder,
//! mounts in a mount namespace of its own. Nothing depends on the daemon.

mod asks;
mod disk;
mod programs;
mod system;
mod unit;

use serde::Serialize;

pub use asks::{Ask, next_best};
pub use programs::find_program;

use crate::config::{NodeConfig, VmFolder};
use crate::view::probe::{self, Probe};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A short name, stable for programs.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// It is there.
    pub ok: bool,
    /// The host is not fit without it, whatever its VMs ask for.
    pub vital: bool,
    /// What was seen.
    pub evidence: String,
    /// What is used instead, or what to do, where it is not there.
    pub instead: &'static str,
}

/// All answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the host can do.
    pub findings: Vec<Finding>,
    /// What the files of its VMs ask for.
    pub vms: Vec<Ask>,
}

impl Report {
    /// Does every VM get what its file asks for, on a host that is fit?
    #[must_use]
    pub fn all_well(&self) -> bool {
        self.findings.iter().all(|f| f.ok || !f.vital) && self.vms.iter().all(|v| v.ok)
    }
}

/// One line of the list below: name, what it is, vital or not, the way out, and the probe.
type Line = (&'static str, &'static str, bool, &'static str, Probe);

fn finding((name, what, vital, instead, probe): Line) -> Finding {
    let ok = probe.is_ok();
    let (Ok(evidence) | Err(evidence)) = probe;
    Finding { name, what, ok, vital, evidence, instead: if ok { "" } else { instead } }
}

/// Looks at the host and at the files of its VMs.
#[must_use]
pub fn look(config: &NodeConfig) -> Report {
    let findings: Vec<Finding> = lines(config).into_iter().map(finding).collect();
    let mut folder = VmFolder::new(config.vms.clone());
    folder.reread();
    let vms = folder.vms();
    let mut asks: Vec<Ask> =
        vms.values().map(|vm| asks::ask(vm, &config.state, &findings)).collect();
    asks.extend(folder.bad().iter().map(asks::bad));
    let unit = unit::find(std::path::Path::new("/"));
    asks::settle_unit(&mut asks, &vms, &unit);
    Report { findings, vms: asks }
}

fn lines(config: &NodeConfig) -> Vec<Line> {
    [mounts(config), room(config), kernel(), tools()].concat()
}

/// Who mounts.
fn view_helper(config: &NodeConfig) -> Probe {
    let Some(folder) = &config.sandbox.helpers else {
        return Ok("a child of the daemon, where a view is to be mounted".to_owned());
    };
    let socket = folder.join("views");
    let path = socket.display();
    if socket.exists() {
        Ok(format!("systemd starts it: {path} is there"))
    } else {
        Err(format!("nothing listens at {path}"))
    }
}

fn mounts(config: &NodeConfig) -> Vec<Line> {
    let (mut mounts, helper) = (probe::probe(), view_helper(config));
    if mounts.api.is_err() && config.sandbox.helpers.is_some() {
        // This process may not even try, and need not.
        mounts = probe::Probes::of(&helper);
    }
    vec![
        (
            "view_helper",
            "a process without network that mounts",
            false,
            "systemctl enable --now stork-views.socket stork-hooks.socket",
            helper,
        ),
        (
            "mount",
            "mounts by the new calls",
            false,
            "backend \"hardlink\"; or the drop-in deploy/systemd/helpers.conf",
            mounts.api,
        ),
        (
            "mount_beneath",
            "a switch without a gap (Linux 6.5)",
            false,
            "old mounts stay below the new ones until a restart of the guest",
            mounts.beneath,
        ),
        (
            "mount_idmapped",
            "idmapped mounts (Linux 5.12)",
            false,
            "user-namespaced guests see files of `nobody`",
            system::since((5, 12)),
        ),
        ("overlay", "overlayfs without references", false, "backend \"tree\"", mounts.overlay),
        (
            "overlay_data_only",
            "overlayfs over data-only layers (Linux 6.5)",
            false,
            "backend \"overlay\" or \"tree\" instead of \"composefs\"",
            mounts.data_only,
        ),
        ("erofs", "EROFS", false, "backend \"tree\" instead of \"composefs\"", mounts.erofs),
        (
            "erofs_file",
            "EROFS from a file (Linux 6.12)",
            false,
            "backend \"tree\" instead of \"composefs\"",
            system::since((6, 12)),
        ),
        ("loop", "loop devices", false, "file-backed EROFS", system::exists("/dev/loop-control")),
    ]
}

fn room(config: &NodeConfig) -> Vec<Line> {
    let disk = disk::look(&config.state, config.min_free_bytes);
    vec![
        (
            "reflink",
            "copies that share blocks",
            false,
            "a second copy takes its room",
            disk.reflink,
        ),
        ("links", "links to one file", true, "put `state` on ext4, xfs or btrfs", disk.links),
        ("fs_verity", "fs-verity", false, "`stork store verify` finds what changed", disk.verity),
        (
            "space",
            "room for content",
            true,
            "free some, `stork store gc`, or lower `min_free_bytes` in node.toml",
            disk.space,
        ),
        (
            "inodes",
            "room for files",
            true,
            "remove small files, or make a new file system",
            disk.inodes,
        ),
    ]
}

fn kernel() -> Vec<Line> {
    vec![
        (
            "user_namespaces",
            "user namespaces",
            false,
            "guests without user namespaces only",
            system::user_namespaces(),
        ),
        (
            "landlock",
            "Landlock",
            false,
            "the daemon's files are closed by systemd alone",
            system::landlock(),
        ),
        ("seccomp", "seccomp", true, "a kernel with CONFIG_SECCOMP_FILTER", system::seccomp()),
        (
            "clock",
            "the clock",
            true,
            "set it, and keep it by NTP: certificates and freshness depend on it",
            system::clock(),
        ),
    ]
}

fn tools() -> Vec<Line> {
    vec![
        (
            "virtiofsd",
            "virtiofsd",
            false,
            "apt install virtiofsd (Debian 12: qemu-system-common); or backend \"image\"",
            programs::virtiofsd(),
        ),
        ("qemu", "QEMU", false, "hardware VMs run elsewhere", programs::qemu()),
        (
            "createrepo_c",
            "createrepo_c",
            false,
            "not needed: stork-node writes the metadata itself",
            programs::named(&["createrepo_c"]),
        ),
        (
            "apt",
            "apt and dpkg",
            false,
            "`packages` views work all the same: only guests need them",
            programs::named(&["apt-get", "dpkg-deb"]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host without VMs: every line has evidence, what is missing has a way out, and nothing of
    /// the state folder is touched.
    #[test]
    fn each_answer_has_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let (state, vms) = (folder.path().join("state"), folder.path().join("vms"));
        let config = NodeConfig { state, vms, min_free_bytes: 0, ..NodeConfig::default() };
        let report = look(&config);
        for f in &report.findings {
            assert!(!f.evidence.is_empty(), "{f:?}");
            assert_eq!(f.ok, f.instead.is_empty(), "{f:?}");
        }
        assert!(report.vms.is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let full = NodeConfig { min_free_bytes: u64::MAX, ..config };
        let report = look(&full);
        assert!(!report.all_well());
        let space = report.findings.iter().find(|f| f.name == "space").unwrap();
        assert!(!space.ok && space.instead.contains("min_free_bytes"), "{space:?}");
    }
}
