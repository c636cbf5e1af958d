//! Programs that some views need.

use std::path::{Path, PathBuf};

use crate::view::probe::Probe;

/// Folders that no `PATH` has.
const BESIDE: &[&str] = &["/usr/libexec", "/usr/lib/qemu", "/usr/libexec/qemu-kvm"];

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Where a program is: in `PATH`, in the folders of root, or where helpers lie.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let folders = std::env::split_paths(&path).chain(more.iter().chain(BESIDE).map(PathBuf::from));
    folders.filter(|f| f.is_absolute()).map(|f| f.join(name)).find(|p| is_program(p))
}

/// Are all of them here?
pub(super) fn named(names: &[&str]) -> Probe {
    let mut found = Vec::new();
    for name in names {
        let path = find_program(name).ok_or_else(|| format!("there is no {name}"))?;
        found.push(path.display().to_string());
    }
    Ok(found.join(", "))
}

pub(super) fn virtiofsd() -> Probe {
    let path = find_program("virtiofsd").ok_or("there is no virtiofsd")?;
    let old = path.starts_with("/usr/lib/qemu");
    let note = if old { " (the C one of QEMU before 8)" } else { "" };
    Ok(format!("{}{note}", path.display()))
}

pub(super) fn qemu() -> Probe {
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    let kvm = if Path::new("/dev/kvm").exists() { "with" } else { "without" };
    named(&[&name]).map(|path| format!("{path}, {kvm} /dev/kvm"))
}
