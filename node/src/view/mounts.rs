//! What is mounted where: read from the kernel each time, never remembered.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use stork_wire::text::Label;

use super::Ground;
use crate::store::SetId;

/// One line of `mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) id: u64,
    pub(super) parent: u64,
    device: String,
    root: PathBuf,
    pub(super) point: PathBuf,
    /// The kind of file system.
    kind: String,
    /// What whoever mounted it called it: for mounts that are no part of the store's disk, this is
    /// where they say what they show.
    source: String,
}

impl Mount {
    /// Is it the overlay of that name?
    pub(super) fn is_overlay_of(&self, source: &str) -> bool {
        self.kind == "overlay" && self.source == source
    }

    /// Is that device the one that it shows?
    pub(super) fn is_on(&self, device: u64) -> bool {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        self.device == format!("{major}:{minor}")
    }
}

/// A mount of ours on a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// The set that it shows; `None` where the mount is not of our store, or of a set moved away.
    pub(super) set: Option<SetId>,
    /// The generation, where the mount names one.
    pub(super) generation: Option<u64>,
    /// It is a file system of its own, whose source names the set and begins with this tag;
    /// otherwise a part of the store.
    pub(super) tag: Option<String>,
    /// It is of our store.
    pub(super) ours: bool,
}

/// What only this store, and who sees such a mount, can know: the names of mounts are believed in
/// the namespaces of guests as well, whose root can mount an overlay under any name. Each VM, and
/// each set that VMs share, has a tag of its own.
fn tag(ground: &Ground<'_>, of: &str) -> String {
    let hash = blake3::keyed_hash(ground.secret(), of.as_bytes());
    hash.to_hex().chars().take(TAG_LEN).collect()
}

/// The tag of mounts that are one VM's own.
pub(super) fn tag_of_vm(ground: &Ground<'_>, vm: &Label) -> String {
    tag(ground, &format!("vm {vm}"))
}

/// The tag of mounts that all VMs share which show a set.
pub(super) fn tag_of_set(ground: &Ground<'_>, set: SetId) -> String {
    tag(ground, &format!("set {set}"))
}

/// What a mount that is no bind of the set's folder is called.
pub(super) fn source(tag: &str, set: SetId, generation: Option<u64>) -> String {
    let number = generation.map_or_else(String::new, |n| format!(":{n}"));
    format!("{SOURCE}{tag}:{set}{number}")
}

const SOURCE: &str = "stork:";
/// Hexadecimal digits of a tag.
const TAG_LEN: usize = 32;

/// Reads what [`source`] wrote. Only overlays have such names.
fn named(mount: &Mount) -> Option<Layer> {
    let name = mount.source.strip_prefix(SOURCE).filter(|_| mount.kind == "overlay")?;
    let (tag, name) = name.split_once(':').filter(|(tag, _)| tag.len() == TAG_LEN)?;
    let (set, generation) = match name.split_once(':') {
        Some((set, number)) => (set.parse().ok()?, Some(number.parse().ok()?)),
        None => (name.parse().ok()?, None),
    };
    Some(Layer { set: Some(set), generation, tag: Some(tag.to_owned()), ours: true })
}

/// Undoes the octal escapes of `mountinfo`: space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                out.extend_from_slice(part.get(3..).unwrap_or_default().as_bytes());
            }
            None => {
                out.push(b'\\');
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse(line: &str) -> Option<Mount> {
    let (line, rest) = line.split_once(" - ")?;
    let (mut words, mut rest) = (line.split(' '), rest.split(' '));
    Some(Mount {
        id: words.next()?.parse().ok()?,
        parent: words.next()?.parse().ok()?,
        device: words.next()?.to_owned(),
        root: unescape(words.next()?).into(),
        point: unescape(words.next()?).into(),
        kind: rest.next()?.to_owned(),
        source: unescape(rest.next()?),
    })
}

pub(super) fn read(path: &Path) -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string(path)?.lines().filter_map(parse).collect())
}

/// The mounts of this thread's mount namespace.
pub(super) fn here() -> io::Result<Vec<Mount>> {
    read(Path::new("/proc/thread-self/mountinfo"))
}

/// The mounts at a path, the topmost first.
fn stack<'a>(mounts: &'a [Mount], point: &Path) -> Vec<&'a Mount> {
    let mut at: Vec<&Mount> = mounts.iter().filter(|m| m.point == point).collect();
    let mut out = Vec::with_capacity(at.len());
    let is_parent = |at: &[&Mount], id: u64| at.iter().any(|m| m.parent == id && m.id != id);
    while let Some(top) = at.iter().position(|m| !is_parent(&at, m.id)) {
        out.push(at.remove(top));
    }
    out
}

/// Where the store's sets are, in the words of `mountinfo`.
#[derive(Debug)]
pub(super) struct Home {
    device: String,
    store: PathBuf,
}

impl Home {
    /// Finds the mount that the store's folder is on.
    pub(super) fn of(store: &Path, mounts: &[Mount]) -> Option<Self> {
        let longest = mounts
            .iter()
            .filter(|m| store.starts_with(&m.point))
            .max_by_key(|m| m.point.components().count())?;
        let mount = stack(mounts, &longest.point).into_iter().next()?;
        let rest = store.strip_prefix(&mount.point).ok()?;
        Some(Self { device: mount.device.clone(), store: mount.root.join(rest) })
    }

    pub(super) fn layer(&self, mount: &Mount) -> Layer {
        if let Some(layer) = named(mount) {
            return layer;
        }
        // A folder that was removed while it is mounted is shown with this ending.
        let root = mount.root.to_string_lossy();
        let root = Path::new(root.strip_suffix("//deleted").unwrap_or(&root)).to_owned();
        let inside = root.strip_prefix(&self.store).ok().filter(|_| mount.device == self.device);
        let set = inside
            .and_then(|p| p.strip_prefix("sets").ok())
            .and_then(Path::to_str)
            .and_then(|name| name.parse().ok());
        Layer { set, generation: None, tag: None, ours: inside.is_some() }
    }

    /// What is mounted at a target, the topmost first.
    pub(super) fn layers(&self, mounts: &[Mount], target: &Path) -> Vec<Layer> {
        stack(mounts, target).into_iter().map(|m| self.layer(m)).collect()
    }

    /// Is such a mount seen by any process of this host?
    fn anywhere(&self, wanted: impl Fn(&Layer) -> bool) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else { return true };
        let mut seen = BTreeSet::new();
        for process in processes.flatten() {
            let path = process.path();
            // Processes that ended meanwhile, and threads of the kernel, have no namespace.
            let Ok(namespace) = fs::read_link(path.join("ns/mnt")) else { continue };
            if !seen.insert(namespace) {
                continue;
            }
            let mounts = read(&path.join("mountinfo")).unwrap_or_default();
            if mounts.iter().any(|m| wanted(&self.layer(m))) {
                return true;
            }
        }
        false
    }
}

/// Is the set mounted anywhere on this host, in any namespace, as a part of the store or by a name
/// with this tag? Where that can't be told, it is.
pub(super) fn shown_anywhere(ground: &Ground<'_>, set: SetId) -> bool {
    let home = here().ok().and_then(|m| Home::of(ground.dir(), &m));
    let Some(home) = home else { return true };
    let tag = tag_of_set(ground, set);
    let ours = |l: &Layer| l.tag.as_ref().is_none_or(|t| *t == tag);
    home.anywhere(|l| l.set == Some(set) && ours(l))
}

/// The same for one generation of a VM.
pub(super) fn generation_anywhere(
    ground: &Ground<'_>,
    vm: &Label,
    set: SetId,
    number: u64,
) -> bool {
    let home = here().ok().and_then(|m| Home::of(ground.dir(), &m));
    let Some(home) = home else { return true };
    let tag = tag_of_vm(ground, vm);
    home.anywhere(|l| {
        l.set == Some(set) && l.generation == Some(number) && l.tag.as_deref() == Some(&tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    /// Stacked mounts are told top from bottom by their parents, and escapes are undone.
    #[test]
    fn reads_mountinfo() {
        let text = format!(
            "30 1 8:1 / / rw - ext4 /dev/a rw\n\
             40 30 8:1 /var/lib/stork/sets/{ID} /vm/a\\040b ro - ext4 /dev/a rw\n\
             41 40 8:1 /var/lib/stork/quarantine/set-x /vm/a\\040b ro - ext4 /dev/a rw\n\
             42 30 9:9 /var/lib/stork/sets/{ID} /other ro - ext4 /dev/b rw\n"
        );
        let mounts: Vec<_> = text.lines().filter_map(parse).collect();
        let home = Home::of(Path::new("/var/lib/stork"), &mounts).unwrap();
        let layers = home.layers(&mounts, Path::new("/vm/a b"));
        let (set, generation) = (ID.parse().ok(), None);
        let quarantined = Layer { set: None, generation, tag: None, ours: true };
        assert_eq!(layers, [quarantined, Layer { set, generation, tag: None, ours: true }]);
        // The same path on another disk is not ours.
        let other = home.layers(&mounts, Path::new("/other"));
        assert_eq!(other, [Layer { set: None, generation, tag: None, ours: false }]);
        assert!(home.layers(&mounts, Path::new("/nothing")).is_empty());
    }

    /// A store on a file system of its own is found by the root of that mount.
    #[test]
    fn store_on_its_own_disk() {
        let text = format!(
            "30 1 8:1 / / rw - ext4 /dev/a rw\n\
             31 30 8:2 /s /data rw - ext4 /dev/b rw\n\
             40 30 8:2 /s/stork/sets/{ID}//deleted /vm ro - ext4 /dev/b rw\n"
        );
        let mounts: Vec<_> = text.lines().filter_map(parse).collect();
        let home = Home::of(Path::new("/data/stork"), &mounts).unwrap();
        let layers = home.layers(&mounts, Path::new("/vm"));
        assert_eq!(
            layers,
            [Layer { set: ID.parse().ok(), generation: None, tag: None, ours: true }]
        );
    }

    /// A mount that is no part of the store's disk is told by its name, if it is an overlay.
    #[test]
    fn named_mounts() {
        let set: SetId = ID.parse().unwrap();
        let tag = "0123456789abcdef".repeat(2);
        let [plain, numbered] = [None, Some(7)].map(|n| source(&tag, set, n));
        let text = format!(
            "30 1 8:1 / / rw - ext4 /dev/a rw\n\
             40 30 0:50 / /vm/a ro shared:3 - overlay {plain} ro,lowerdir=x\n\
             41 30 0:51 / /vm/b rw - overlay {numbered} rw\n\
             42 30 0:52 / /vm/c rw - tmpfs {numbered} rw\n\
             43 30 0:52 / /vm/d rw - overlay {plain}:x rw\n"
        );
        let mounts: Vec<_> = text.lines().filter_map(parse).collect();
        let home = Home::of(Path::new("/var/lib/stork"), &mounts).unwrap();
        let seen = |at: &str| home.layers(&mounts, Path::new(at)).remove(0);
        let tag = Some(tag);
        let shows = |generation| Layer { set: Some(set), generation, tag: tag.clone(), ours: true };
        assert_eq!((seen("/vm/a"), seen("/vm/b")), (shows(None), shows(Some(7))));
        let foreign = Layer { set: None, generation: None, tag: None, ours: false };
        assert_eq!((seen("/vm/c"), seen("/vm/d")), (foreign.clone(), foreign));
    }
}
