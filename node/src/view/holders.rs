//! Who still uses what a VM was shown before: processes that have an old file open or mapped, stand
//! in an old folder, or see an old mount in a namespace of their own.
//!
//! Files are told by their inodes: those of the sets of earlier generations that the current one
//! does not have. An overlay keeps the numbers of its lower layer (`xino=auto`), on a device of its
//! own that has no disk. All is bounded: a guest may have many processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stork_wire::codec::List;

use super::mounts::{self, Home};
use super::{Ground, ViewError, ViewSpec, Views};
use crate::store::SetId;

/// Processes that are listed; the others are counted.
const LISTED_MAX: usize = 200;
/// Open files of one process that are looked at.
const FILES_MAX: usize = 4_096;
/// Bytes of the list of one process's mappings.
const MAPS_LEN_MAX: u64 = 4 * 1024 * 1024;

/// One process, and the first thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its program, as it calls itself.
    pub program: String,
    /// `file` (open), `map`, `program`, `folder` (its own or its root), or `mount`.
    pub holds: String,
    /// The path as that process sees it.
    pub path: String,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holders {
    /// The first of them, by number.
    pub processes: Vec<Holder>,
    /// How many more there are.
    pub more: u64,
}

/// Sets of one VM that are looked for at the most: generations that a VM keeps.
const SETS_MAX: usize = 1_024;

/// What is looked for: the sets of earlier generations, the current one, and of the earlier ones
/// those that no VM shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    old: List<SetId, SETS_MAX>,
    now: SetId,
    mounted: List<SetId, SETS_MAX>,
}

/// What is old.
struct Old {
    inodes: BTreeSet<u64>,
    device: u64,
    sets: BTreeSet<SetId>,
    home: Option<Home>,
}

/// The inodes of all that a set shows.
fn inodes(ground: &Ground<'_>, set: SetId) -> Result<BTreeSet<u64>, ViewError> {
    let tree = match ground.set_tree(set) {
        Ok(tree) => tree,
        Err(ViewError::NoSet(_)) => return Ok(BTreeSet::new()),
        Err(e) => return Err(e),
    };
    let path = ground.dir().join("sets").join(set.to_string());
    let all = tree.entries.iter().map(|e| path.join(e.path.as_str()));
    let found = all.chain([path.clone()]).filter_map(|p| p.symlink_metadata().ok());
    Ok(found.map(|m| m.ino()).collect())
}

impl Old {
    fn is(&self, device: u64, inode: u64) -> bool {
        let ours = device == self.device || rustix::fs::major(device) == 0;
        ours && self.inodes.contains(&inode)
    }

    /// A link of `/proc` to a file or folder.
    fn link(&self, path: &Path) -> Option<String> {
        // The link leads to the thing itself, whatever its name is in that process's namespace.
        let meta = fs::metadata(path).ok()?;
        self.is(meta.dev(), meta.ino()).then(|| named(path))
    }

    fn mapped(&self, process: &Path) -> Option<String> {
        let file = fs::File::open(process.join("maps")).ok()?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAPS_LEN_MAX), &mut text)
            .ok()?;
        text.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(3);
            let (major, minor) = words.next()?.split_once(':')?;
            let hex = |t| u32::from_str_radix(t, 16).ok();
            let device = rustix::fs::makedev(hex(major)?, hex(minor)?);
            let inode = words.next()?.parse().ok()?;
            self.is(device, inode).then(|| words.collect::<Vec<_>>().join(" "))
        })
    }

    /// The first thing of ours that a process holds.
    fn held(&self, process: &Path) -> Option<(&'static str, String)> {
        for (name, word) in [("exe", "program"), ("cwd", "folder"), ("root", "folder")] {
            if let Some(path) = self.link(&process.join(name)) {
                return Some((word, path));
            }
        }
        if let Some(path) = self.mapped(process) {
            return Some(("map", path));
        }
        let open = fs::read_dir(process.join("fd")).ok()?;
        let mut open = open.flatten().take(FILES_MAX);
        open.find_map(|fd| self.link(&fd.path())).map(|path| ("file", path))
    }

    /// An old mount in the namespace of a process.
    fn mount(&self, process: &Path) -> Option<String> {
        let home = self.home.as_ref()?;
        let mounts = mounts::read(&process.join("mountinfo")).ok()?;
        let old = |set: Option<SetId>| set.is_some_and(|s| self.sets.contains(&s));
        let found = mounts.iter().find(|m| old(home.layer(m).set))?;
        Some(found.point.display().to_string())
    }
}

fn named(link: &Path) -> String {
    fs::read_link(link).map_or_else(|_e| String::new(), |p| p.display().to_string())
}

impl Views {
    /// Processes of this host that still use what the VM was shown in earlier generations, as far
    /// as those are kept. Guests' processes are found where the host sees them: those of a hardware
    /// VM are not.
    pub fn holders(&self, spec: &ViewSpec) -> Result<Holders, ViewError> {
        let Some(current) = self.current(&spec.vm)? else { return Ok(Holders::default()) };
        let mut sets: BTreeSet<SetId> = self.generations(&spec.vm)?.iter().map(|g| g.set).collect();
        sets.remove(&current.set);
        // A set that another VM shows now is not old there: mounts are told for the sets that no
        // VM has as its current one.
        let others = self.current_sets()?;
        let asked = Asked {
            mounted: List::truncated(sets.difference(&others).copied()),
            old: List::truncated(sets),
            now: current.set,
        };
        self.look_for_holders(spec, asked)
    }
}

/// Looks at all processes.
pub(super) fn find(ground: &Ground<'_>, asked: &Asked) -> Result<Holders, ViewError> {
    let mut old = BTreeSet::new();
    for set in asked.old.iter() {
        old.append(&mut inodes(ground, *set)?);
    }
    let now = inodes(ground, asked.now)?;
    let device = ground.dir().metadata().map(|m| m.dev());
    let device = device.map_err(|e| ViewError::io("look at", ground.dir(), e))?;
    let old = Old {
        inodes: old.difference(&now).copied().collect(),
        device,
        sets: asked.mounted.iter().copied().collect(),
        home: mounts::here().ok().and_then(|m| Home::of(ground.dir(), &m)),
    };
    Ok(look(&old))
}

fn look(old: &Old) -> Holders {
    let mut out = Holders::default();
    let mut namespaces: BTreeMap<_, Option<String>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let process = Path::new("/proc").join(pid.to_string());
        let mut held = old.held(&process);
        if held.is_none()
            && let Ok(namespace) = fs::read_link(process.join("ns/mnt"))
            && !namespaces.contains_key(&namespace)
        {
            // Only the first process of a namespace is told for its mounts.
            let found = old.mount(&process);
            held = found.clone().map(|path| ("mount", path));
            namespaces.insert(namespace, found);
        }
        let Some((holds, path)) = held else { continue };
        if out.processes.len() >= LISTED_MAX {
            out.more += 1;
            continue;
        }
        let program = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let (program, holds) = (program.trim().to_owned(), holds.to_owned());
        out.processes.push(Holder { pid, program, holds, path });
    }
    out
}
