//! What is on a disk, and the steps that change it.

use std::collections::BTreeMap;

pub(super) type Ino = usize;
pub(super) const ROOT: Ino = 0;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Dir,
    File,
    Link(String),
}

#[derive(Debug)]
pub(super) enum Step {
    Name {
        dir: Ino,
        name: String,
        ino: Ino,
    },
    Remove {
        dir: Ino,
        name: String,
    },
    Rename {
        from: (Ino, String),
        to: (Ino, String),
        ino: Ino,
        back: Option<Ino>,
    },
    Write {
        ino: Ino,
        at: usize,
        bytes: Vec<u8>,
    },
    Len {
        ino: Ino,
        len: usize,
    },
    Mode {
        ino: Ino,
        mode: u32,
    },
    Time {
        ino: Ino,
        mtime: i64,
    },
    /// Something was made durable.
    Sync,
    /// The process told the world something.
    Told(String),
}

impl Step {
    pub(super) const fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Remove { .. } | Self::Rename { .. })
    }
    pub(super) fn touches(&self, ino: Ino, data_only: bool) -> bool {
        match self {
            Self::Write { ino: i, .. } | Self::Len { ino: i, .. } => *i == ino,
            Self::Mode { ino: i, .. } | Self::Time { ino: i, .. } => *i == ino && !data_only,
            Self::Name { dir, .. } | Self::Remove { dir, .. } => *dir == ino,
            Self::Rename { from, to, .. } => from.0 == ino || to.0 == ino,
            Self::Sync | Self::Told(_) => false,
        }
    }
}

#[derive(Debug, Clone, Default, Hash)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: Option<i64>,
}

/// All that is on a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) names: BTreeMap<Ino, BTreeMap<String, Ino>>,
    pub(super) files: BTreeMap<Ino, File>,
}

/// Does a step; of a write at most the first `torn` bytes.
pub(super) fn apply(content: &mut Content, step: &Step, torn: usize) {
    let whole = torn == usize::MAX;
    let set = |content: &mut Content, (dir, name): &(Ino, String), ino: Ino| {
        content.names.entry(*dir).or_default().insert(name.clone(), ino);
    };
    match step {
        Step::Write { ino, at, bytes } => {
            let Some(file) = content.files.get_mut(ino) else { return };
            let bytes = &bytes[..bytes.len().min(torn)];
            if bytes.is_empty() {
                return;
            }
            let end = at + bytes.len();
            if file.bytes.len() < end {
                file.bytes.resize(end, 0);
            }
            file.bytes[*at..end].copy_from_slice(bytes);
            file.mtime = None;
        }
        _ if !whole => {}
        Step::Name { dir, name, ino } => set(content, &(*dir, name.clone()), *ino),
        Step::Remove { dir, name } => drop(content.names.entry(*dir).or_default().remove(name)),
        Step::Rename { from, to, ino, back } => {
            let names = content.names.entry(from.0).or_default();
            if names.get(&from.1) == Some(ino) {
                names.remove(&from.1);
            }
            set(content, to, *ino);
            if let Some(back) = back {
                set(content, from, *back);
            }
        }
        Step::Len { ino, len } => {
            if let Some(file) = content.files.get_mut(ino) {
                file.bytes.resize(*len, 0);
            }
        }
        Step::Mode { ino, mode } => {
            if let Some(file) = content.files.get_mut(ino) {
                file.mode = *mode;
            }
        }
        Step::Time { ino, mtime } => {
            if let Some(file) = content.files.get_mut(ino) {
                file.mtime = Some(*mtime);
            }
        }
        Step::Sync | Step::Told(_) => {}
    }
}
