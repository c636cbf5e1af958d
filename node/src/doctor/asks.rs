//! What the files of the VMs ask for, and whether this host has it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;
use stork_wire::text::Label;

use super::unit::Unit;
use super::{Finding, disk};
use crate::catalog::{Backend, VmFile};
use crate::config::BadVmFile;

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ask {
    /// Its name, or the file where it has none.
    pub vm: String,
    /// The backend that its file names; empty for a file that cannot be used.
    pub backend: String,
    /// It will work here.
    pub ok: bool,
    /// What is in the way, or what to know.
    pub why: String,
    /// What to do.
    pub help: String,
}

/// What a backend needs of the host, by the names of findings.
const fn needs(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Tree | Backend::Packages | Backend::Sysext | Backend::Image => &["mount"],
        Backend::Composefs => &["mount", "overlay_data_only", "erofs_file"],
        Backend::Overlay => &["mount", "overlay"],
        Backend::Virtiofs => &["mount", "virtiofsd"],
        Backend::Hardlink => &[],
    }
}

/// What to use where a backend does not work.
#[must_use]
pub const fn next_best(backend: Backend) -> &'static str {
    match backend {
        Backend::Tree => {
            "run the daemon as root or with the drop-in deploy/systemd/helpers.conf, or `backend = \
             \"hardlink\"` with `isolation = \"none\"`"
        }
        Backend::Overlay => "`backend = \"tree\"`, with what the VM changes kept elsewhere",
        Backend::Hardlink => "`backend = \"tree\"`, as root",
        Backend::Virtiofs => {
            "install virtiofsd, or `backend = \"image\"`, which needs no program on the host"
        }
        Backend::Composefs => "`backend = \"tree\"`, which shares files and memory just as well",
        Backend::Packages | Backend::Sysext | Backend::Image => {
            "run the daemon with the drop-in deploy/systemd/helpers.conf"
        }
    }
}

/// Does a mount at the target reach guests that run? So it does where the mount that the target is
/// on is shared.
fn reaches_guests(target: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    let point = |l: &str| l.split(' ').nth(4).map(str::to_owned);
    let above = text.lines().filter(|l| point(l).is_some_and(|p| target.starts_with(p)));
    let nearest = above.max_by_key(|l| point(l).map_or(0, |p| p.len()));
    nearest.is_some_and(|l| l.split(" - ").next().is_some_and(|l| l.contains(" shared:")))
}

fn same_disk(a: &Path, b: &Path) -> bool {
    let device = |p: &Path| disk::nearest(p).metadata().ok().map(|m| m.dev());
    device(a) == device(b)
}

/// Judges one VM.
pub(super) fn ask(vm: &VmFile, state: &Path, findings: &[Finding]) -> Ask {
    let mut out = Ask {
        vm: vm.name.to_string(),
        backend: vm.backend.name().to_owned(),
        ok: true,
        why: String::new(),
        help: String::new(),
    };
    let missing = needs(vm.backend).iter();
    let missing = missing.filter_map(|n| findings.iter().find(|f| f.name == *n && !f.ok)).next();
    if let Some(f) = missing {
        out.ok = false;
        out.why = format!("{}: {}", f.what, f.evidence);
        out.help = next_best(vm.backend).to_owned();
    } else if vm.backend == Backend::Hardlink && !same_disk(&vm.target, state) {
        out.ok = false;
        out.why = format!("{} is not on the file system of the store", vm.target.display());
        out.help = "choose a target there: hard links cannot leave a file system".to_owned();
    } else if !needs(vm.backend).is_empty() && !reaches_guests(&vm.target) {
        out.why = "the target lies on a mount that is not shared: a container that runs sees a \
                   switch when it is started again"
            .to_owned();
        out.help = "mount --make-rshared on the mount of its folder".to_owned();
    }
    out
}

/// A file that cannot be used.
pub(super) fn bad(file: &BadVmFile) -> Ask {
    Ask {
        vm: file.path.display().to_string(),
        backend: String::new(),
        ok: false,
        why: file.error.message.clone(),
        help: file.error.help.clone(),
    }
}

/// Says where the unit stands in the way of what root could do.
pub(super) fn settle_unit(asks: &mut [Ask], vms: &BTreeMap<Label, VmFile>, unit: &Unit) {
    let Unit::Locked(path) = unit else { return };
    let mounted = |ask: &Ask| {
        let vm = vms.values().find(|vm| vm.name.as_str() == ask.vm);
        vm.is_some_and(|vm| needs(vm.backend).contains(&"mount"))
    };
    for ask in asks.iter_mut().filter(|a| mounted(a)) {
        ask.ok = false;
        ask.why = format!("{} gives the daemon no right to mount", path.display());
        ask.help = "install the view helper (stork-views and stork-hooks of deploy/systemd, and \
                    the drop-in deploy/systemd/helpers.conf), then `systemctl daemon-reload && \
                    systemctl enable --now stork-views.socket stork-hooks.socket && systemctl \
                    restart stork-node`"
            .to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(backend: &str, target: &str) -> VmFile {
        let text = format!(
            "[vm]\ngroups = []\n[view]\nbackend = \"{backend}\"\ntarget = \"{target}\"\n\
             isolation = \"none\"\n"
        );
        VmFile::parse("web-1", &text).unwrap()
    }

    fn mount(ok: bool) -> Finding {
        let evidence = "seen".to_owned();
        Finding { name: "mount", what: "mounts", ok, vital: false, evidence, instead: "" }
    }

    /// What is missing is named with the next best; the unit's drop-in is named by its file.
    #[test]
    fn what_is_missing_is_named() {
        let state = Path::new("/var/lib/stork");
        let tree = vm("tree", "/srv/views/web-1/packages");
        let refused = ask(&tree, state, &[mount(false)]);
        assert!(!refused.ok && refused.why == "mounts: seen", "{refused:?}");
        assert!(refused.help.contains("hardlink"));
        let mut asks = [ask(&tree, state, &[mount(true)])];
        assert!(asks[0].ok);
        let vms = BTreeMap::from([(tree.name.clone(), tree)]);
        settle_unit(&mut asks, &vms, &Unit::Mounts("/u".into()));
        assert!(asks[0].ok);
        settle_unit(&mut asks, &vms, &Unit::Locked("/u".into()));
        assert!(!asks[0].ok && asks[0].help.contains("deploy/systemd/helpers.conf"));
        let elsewhere = ask(&vm("hardlink", "/proc/x"), state, &[]);
        assert!(!elsewhere.ok && elsewhere.why.contains("file system"), "{elsewhere:?}");
    }
}
