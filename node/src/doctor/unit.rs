//! The systemd unit of the daemon: does it leave the right to mount?

use std::path::{Path, PathBuf};

const NAME: &str = "stork-node.service";
/// Where units are, the strongest first (systemd.unit(5)).
const FOLDERS: &[&str] = &[
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    /// No unit is installed: the daemon is started in another way.
    None,
    /// It has no capability to mount.
    Locked(PathBuf),
    /// It may mount, or calls who may.
    Mounts(PathBuf),
}

/// Looks for the unit and its drop-ins below a root.
pub(super) fn find(root: &Path) -> Unit {
    let files = FOLDERS.iter().map(|f| root.join(f).join(NAME));
    let Some(unit) = files.into_iter().find(|f| f.is_file()) else { return Unit::None };
    let folders = FOLDERS.iter().map(|f| root.join(f).join(format!("{NAME}.d")));
    let drops = folders.filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten();
    let drops = drops.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf"));
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let may_mount = |text: &str| {
        // By itself, or by a helper that it calls.
        let rights = |l: &str| l.starts_with("CapabilityBoundingSet=") && l.contains("SYS_ADMIN");
        let calls = |l: &str| l.starts_with("Environment=") && l.contains("STORK_HELPERS=/");
        text.lines().map(str::trim_start).any(|l| rights(l) || calls(l))
    };
    let mounts = [unit.clone()].into_iter().chain(drops).any(|path| may_mount(&text(&path)));
    if mounts { Unit::Mounts(unit) } else { Unit::Locked(unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit alone may not mount, with the drop-in it may.
    #[test]
    fn the_units_of_this_repository() {
        let root = tempfile::tempdir().unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
        assert_eq!(find(root.path()), Unit::None);
        let at = root.path().join("etc/systemd/system");
        std::fs::create_dir_all(at.join("stork-node.service.d")).unwrap();
        std::fs::copy(deploy.join(NAME), at.join(NAME)).unwrap();
        assert_eq!(find(root.path()), Unit::Locked(at.join(NAME)));
        for name in ["tree.conf", "helpers.conf"] {
            let drop = at.join("stork-node.service.d").join(name);
            std::fs::copy(deploy.join(name), &drop).unwrap();
            assert_eq!(find(root.path()), Unit::Mounts(at.join(NAME)), "{name}");
            std::fs::remove_file(drop).unwrap();
        }
    }
}
