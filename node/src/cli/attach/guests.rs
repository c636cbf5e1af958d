//! What the guest itself needs: its mount, and the source of its packages.

use super::hardware::TAG;
use super::{Refused, Scene};
use crate::apt::source_entry;
use crate::catalog::Backend;

/// Options of the mount: `nofail`, because a guest must start without its view as well.
const OPTIONS: &str = "ro,nosuid,nodev,nofail";

/// What is mounted, where, and as what.
fn mount(s: &Scene) -> (String, String, &'static str) {
    match s.image() {
        Some(_) => (format!("/dev/disk/by-id/virtio-{TAG}"), s.place(), "erofs"),
        None => (TAG.to_owned(), s.at.clone(), "virtiofs"),
    }
}

pub(super) fn fstab(s: &Scene) -> String {
    let (what, place, kind) = mount(s);
    format!("{what} {place} {kind} {OPTIONS} 0 0\n")
}

/// The entry for `packages` views, with the key.
fn source(s: &Scene) -> Result<Option<String>, Refused> {
    if s.backend != Backend::Packages {
        return Ok(None);
    }
    let key = s.key.as_ref().ok_or_else(|| Refused {
        what: "the key that signs this host's repositories is not here, or may not be read".into(),
        help: "run it as root; the daemon makes the key with the first set of a `packages` VM",
    })?;
    Ok(Some(source_entry(&format!("{}/{}", s.at, s.view), key)))
}

pub(super) fn cloud_init(s: &Scene) -> Result<String, Refused> {
    let (what, place, kind) = mount(s);
    let mut out = format!(
        "#cloud-config\n# The view of the VM {vm}, at {at}/{view}\n\
         mounts:\n  - [{what}, {place}, {kind}, \"{OPTIONS}\", \"0\", \"0\"]\n",
        vm = s.vm,
        at = s.at,
        view = s.view
    );
    if let Some(entry) = source(s)? {
        out.push_str(
            "write_files:\n  - path: /etc/apt/sources.list.d/stork.sources\n    \
             permissions: \"0644\"\n    content: |\n",
        );
        for line in entry.lines() {
            out.push_str("      ");
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}
