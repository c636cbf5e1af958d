//! A disk that forgets: what a log of calls leaves behind if the power fails at any moment.
//!
//! Each call is taken apart into steps on inodes and names. A step on a file is safe once the file
//! was made durable, a step on a name once its folder was (a rename: either of its folders). At a
//! power cut every safe step has happened, and of the others any part: none, all, names without
//! bytes, bytes without names, all but one, or a random choice with writes that are torn. That is
//! less than any file system in use promises: ext4, xfs and btrfs keep names in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::content::{Content, File, Ino, Node, ROOT, Step, apply};
use super::trace::Call;

/// A disk writes parts of this size whole or not at all.
const SECTOR: usize = 512;

/// What becomes of the steps that are not safe.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Lost,
    Kept,
    NamesOnly,
    BytesOnly,
    AllBut(usize),
    Random(u64),
}

/// A disk, and all that was done to it.
#[derive(Debug, Default)]
pub(super) struct Disk {
    root: String,
    marks: String,
    nodes: Vec<Node>,
    before: Content,
    now: Content,
    steps: Vec<(Step, usize)>,
    copied: BTreeMap<Ino, usize>,
    /// The numbers of inodes as the process saw them, which it may have written down.
    real: BTreeMap<Ino, u64>,
}

impl Disk {
    /// The folder as it stands, all of it durable. Lines that are appended to `marks` are what the
    /// process tells the world.
    pub(super) fn of(root: &Path, marks: &Path) -> Self {
        let text = |p: &Path| p.to_str().unwrap().to_owned();
        let mut disk = Self { root: text(root), marks: text(marks), ..Self::default() };
        disk.nodes.push(Node::Dir);
        disk.now.names.insert(ROOT, BTreeMap::new());
        disk.now.files.insert(ROOT, File { mode: 0o700, ..File::default() });
        disk.load(root, ROOT, &mut BTreeMap::new());
        disk.before = disk.now.clone();
        disk
    }

    fn load(&mut self, path: &Path, dir: Ino, known: &mut BTreeMap<u64, Ino>) {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = entry.file_name().into_string().unwrap();
            let old = known.get(&meta.ino()).copied();
            let ino = old.unwrap_or_else(|| {
                let node = match meta.file_type() {
                    t if t.is_dir() => Node::Dir,
                    t if t.is_symlink() => {
                        Node::Link(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
                    }
                    _ => Node::File,
                };
                let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                let mtime = Some(meta.mtime());
                self.add(node, File { bytes, mode: meta.mode() & 0o7777, mtime })
            });
            known.insert(meta.ino(), ino);
            self.now.names.get_mut(&dir).unwrap().insert(name, ino);
            if meta.is_dir() {
                self.load(&path, ino, known);
            }
        }
    }

    fn add(&mut self, node: Node, file: File) -> Ino {
        let ino = self.nodes.len();
        if matches!(node, Node::Dir) {
            self.now.names.insert(ino, BTreeMap::new());
            self.before.names.insert(ino, BTreeMap::new());
        }
        self.nodes.push(node);
        self.before.files.insert(ino, File { mode: file.mode, ..File::default() });
        self.now.files.insert(ino, file);
        ino
    }

    /// The inode of a path beneath the root that was there a moment ago.
    fn find(&self, path: &str) -> Option<Ino> {
        let beneath = path.strip_prefix(&self.root)?;
        let parts = beneath.split('/').filter(|p| !p.is_empty() && *p != ".");
        parts.into_iter().try_fold(ROOT, |at, part| self.now.names.get(&at)?.get(part).copied())
    }

    fn place(&self, path: &str) -> Option<(Ino, String)> {
        let (dir, name) = path.trim_end_matches('/').rsplit_once('/')?;
        Some((self.find(dir)?, name.to_owned()))
    }

    fn step(&mut self, step: Step) {
        apply(&mut self.now, &step, usize::MAX);
        self.steps.push((step, usize::MAX));
    }

    fn make(&mut self, path: &str, node: Node, mode: u32) {
        let Some((dir, name)) = self.place(path) else { return };
        let ino = self.add(node, File { mode, ..File::default() });
        self.step(Step::Name { dir, name, ino });
    }

    fn sync(&mut self, path: &str, data_only: bool) {
        let Some(ino) = self.find(path) else { return };
        self.steps.push((Step::Sync, 0));
        let end = self.steps.len();
        for (step, safe) in &mut self.steps {
            if step.touches(ino, data_only) {
                *safe = (*safe).min(end);
            }
        }
    }

    /// Takes in one call.
    pub(super) fn take(&mut self, call: &Call) {
        match call.name.as_str() {
            "mkdir" => self.make(&call.path(None, 0), Node::Dir, 0o755),
            "mkdirat" => self.make(&call.path(Some(0), 1), Node::Dir, 0o755),
            "symlink" => self.make(&call.path(None, 1), Node::Link(call.target(0)), 0o777),
            "symlinkat" => self.make(&call.path(Some(1), 2), Node::Link(call.target(0)), 0o777),
            "link" => self.link(&call.path(None, 0), &call.path(None, 1)),
            "linkat" => self.link(&call.path(Some(0), 1), &call.path(Some(2), 3)),
            "unlink" | "rmdir" => self.remove(&call.path(None, 0)),
            "unlinkat" => self.remove(&call.path(Some(0), 1)),
            "rename" => self.rename(&call.path(None, 0), &call.path(None, 1), false),
            "renameat" => self.rename(&call.path(Some(0), 1), &call.path(Some(2), 3), false),
            "renameat2" => {
                let exchange = call.has(4, "RENAME_EXCHANGE");
                self.rename(&call.path(Some(0), 1), &call.path(Some(2), 3), exchange);
            }
            "fsync" => self.sync(&call.fd(0), false),
            "fdatasync" => self.sync(&call.fd(0), true),
            "mknodat" => panic!("{call:?}"),
            _ => self.take_bytes(call),
        }
    }

    fn take_bytes(&mut self, call: &Call) {
        let of_path = match call.name.as_str() {
            "statx" | "openat" | "fchmodat" => call.path(Some(0), 1),
            "chmod" => call.path(None, 0),
            "utimensat" if !call.bytes(1).is_empty() => call.path(Some(0), 1),
            "copy_file_range" => call.fd(2),
            _ => call.fd(0),
        };
        if call.name == "write" && of_path == self.marks {
            let told = String::from_utf8(call.bytes(1)).unwrap();
            return self.steps.push((Step::Told(told), 0));
        }
        if call.name == "openat" && call.has(2, "O_CREAT") && self.find(&of_path).is_none() {
            return self.make(&of_path, Node::File, u32::try_from(call.number(3)).unwrap());
        }
        let Some(ino) = self.find(&of_path) else { return };
        let len = self.now.files[&ino].bytes.len();
        match call.name.as_str() {
            "statx" => self.real.extend(call.told_ino().map(|real| (ino, real))),
            "openat" if call.has(2, "O_TRUNC") => self.step(Step::Len { ino, len: 0 }),
            "write" => self.step(Step::Write { ino, at: len, bytes: call.bytes(1) }),
            "pwrite64" => {
                let (at, bytes) = (call.number(3), call.bytes(1));
                self.step(Step::Write { ino, at, bytes });
            }
            "ftruncate" => self.step(Step::Len { ino, len: call.number(1) }),
            "fallocate" => {
                let len = len.max(call.number(2) + call.number(3));
                self.step(Step::Len { ino, len });
            }
            // A copy begins at the beginning, since what is copied here has no holes.
            "copy_file_range" | "sendfile" if call.result > 0 => {
                let from = if call.name == "sendfile" { call.fd(1) } else { call.fd(0) };
                let at = *self.copied.get(&ino).unwrap_or(&0);
                let from = self.find(&from).unwrap();
                let bytes = self.now.files[&from].bytes[at..at + call.result].to_vec();
                self.copied.insert(ino, at + call.result);
                self.step(Step::Write { ino, at, bytes });
            }
            "chmod" => self.mode(ino, call.number(1)),
            "fchmod" => self.mode(ino, call.number(1)),
            "fchmodat" => self.mode(ino, call.number(2)),
            "utimensat" => {
                let mtime = call.mtime(2).unwrap();
                self.step(Step::Time { ino, mtime });
            }
            _ => {}
        }
    }

    fn mode(&mut self, ino: Ino, mode: usize) {
        self.step(Step::Mode { ino, mode: u32::try_from(mode).unwrap() });
    }

    fn link(&mut self, from: &str, to: &str) {
        let Some((dir, name)) = self.place(to) else { return };
        let ino = self.find(from).unwrap();
        self.step(Step::Name { dir, name, ino });
    }

    fn remove(&mut self, path: &str) {
        let Some((dir, name)) = self.place(path) else { return };
        self.step(Step::Remove { dir, name });
    }

    fn rename(&mut self, from: &str, to: &str, exchange: bool) {
        let (Some(source), Some(to_place)) = (self.place(from), self.place(to)) else { return };
        let ino = self.find(from).unwrap();
        let back = self.find(to).filter(|_| exchange);
        self.step(Step::Rename { from: source, to: to_place, ino, back });
    }

    /// How many moments there are at which the power may fail.
    pub(super) fn moments(&self) -> usize {
        self.steps.len() + 1
    }

    /// What the world was told before a moment.
    pub(super) fn told(&self, moment: usize) -> Vec<&str> {
        let told = self.steps[..moment].iter().filter_map(|(s, _)| match s {
            Step::Told(text) => Some(text.trim()),
            _ => None,
        });
        told.collect()
    }

    /// The steps before a moment, for whoever wonders.
    pub(super) fn print_before(&self, moment: usize) {
        for (i, (step, safe)) in self.steps[..moment].iter().enumerate().skip(moment.max(40) - 40) {
            let text: String = format!("{step:?}").chars().take(160).collect();
            println!("{i} {} {text}", if *safe <= moment { "safe" } else { "OPEN" });
        }
    }

    /// The steps that are not safe at a moment.
    fn open_steps(&self, moment: usize) -> Vec<usize> {
        let steps = self.steps[..moment].iter().enumerate();
        steps.filter(|(_, (_, safe))| *safe > moment).map(|(i, _)| i).collect()
    }

    /// What may become of the steps that are not safe at a moment: `random` random choices, and of
    /// the newest steps each is lost once alone.
    pub(super) fn fates(&self, moment: usize, random: u64) -> Vec<Fate> {
        let open = self.open_steps(moment);
        let mut out = vec![Fate::Lost];
        if !open.is_empty() {
            out.extend([Fate::Kept, Fate::NamesOnly, Fate::BytesOnly]);
            out.extend(open.iter().rev().take(6).map(|i| Fate::AllBut(*i)));
            out.extend((0..random).map(Fate::Random));
        }
        out
    }

    fn after(&self, moment: usize, fate: Fate) -> Content {
        let mut content = self.before.clone();
        for (i, (step, safe)) in self.steps[..moment].iter().enumerate() {
            let kept = *safe <= moment
                || match fate {
                    Fate::Lost => false,
                    Fate::Kept => true,
                    Fate::NamesOnly => step.is_name(),
                    Fate::BytesOnly => !step.is_name(),
                    Fate::AllBut(lost) => i != lost,
                    Fate::Random(seed) => match chance(seed, moment, i) % 4 {
                        0 | 1 => true,
                        2 => false,
                        _ => {
                            let sectors = usize::from(chance(seed, i, moment).to_le_bytes()[0] % 8);
                            let torn = sectors * SECTOR;
                            apply(&mut content, step, torn);
                            false
                        }
                    },
                };
            if kept {
                apply(&mut content, step, usize::MAX);
            }
        }
        content
    }

    /// Writes the disk into an empty folder, as it is after a power cut. Returns a number that is
    /// the same for the same disk.
    pub(super) fn crash(&self, moment: usize, fate: Fate, known: &mut BTreeSet<u64>) -> Crash {
        use std::hash::{Hash, Hasher};
        let content = self.after(moment, fate);
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        (&content.names, self.told(moment)).hash(&mut hasher);
        let reached: BTreeSet<Ino> =
            content.names.values().flat_map(|d| d.values()).copied().collect();
        reached.iter().for_each(|ino| content.files[ino].hash(&mut hasher));
        Crash { new: known.insert(hasher.finish()), content }
    }

    /// Writes the disk into an empty folder. The folders of views are known by their inodes, whose
    /// numbers are others here: in the record of that name they are changed.
    pub(super) fn write(&self, crash: &Crash, to: &Path, record: &str) {
        let mut written = BTreeMap::new();
        self.write_dir(&crash.content, ROOT, to, &mut written);
        let number = |path: &std::path::PathBuf| path.symlink_metadata().unwrap().ino();
        let new: BTreeMap<u64, u64> = written
            .iter()
            .filter_map(|(ino, path)| Some((*self.real.get(ino)?, number(path))))
            .collect();
        for path in written.values().filter(|p| p.file_name().is_some_and(|n| n == record)) {
            let text = fs::read_to_string(path).unwrap();
            let Ok(mut value) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
            for tree in value["trees"].as_array_mut().unwrap() {
                let old = tree[0].as_u64().unwrap();
                // One that is not on this disk has a number that nothing has.
                tree[0] = new.get(&old).copied().unwrap_or(u64::MAX).into();
            }
            fs::write(path, value.to_string()).unwrap();
        }
    }

    fn write_dir(
        &self,
        content: &Content,
        dir: Ino,
        to: &Path,
        written: &mut BTreeMap<Ino, std::path::PathBuf>,
    ) {
        for (name, ino) in content.names.get(&dir).into_iter().flatten() {
            let path = to.join(name);
            if let Some(first) = written.get(ino).filter(|p| p.is_file()) {
                fs::hard_link(first, &path).unwrap();
                continue;
            }
            let file = &content.files[ino];
            match &self.nodes[*ino] {
                Node::Link(target) => symlink(target, &path).unwrap(),
                Node::File => {
                    fs::write(&path, &file.bytes).unwrap();
                    written.insert(*ino, path.clone());
                }
                Node::Dir => {
                    fs::create_dir(&path).unwrap();
                    written.insert(*ino, path.clone());
                    self.write_dir(content, *ino, &path, written);
                }
            }
            if !matches!(self.nodes[*ino], Node::Link(_)) {
                let open = fs::File::open(&path).unwrap();
                open.set_permissions(fs::Permissions::from_mode(file.mode)).unwrap();
                if let Some(mtime) = file.mtime {
                    let mtime = Duration::from_secs(u64::try_from(mtime).unwrap());
                    open.set_modified(UNIX_EPOCH + mtime).unwrap();
                }
            }
        }
    }
}

/// A disk after a power cut.
pub(super) struct Crash {
    /// No disk like it was seen before.
    pub(super) new: bool,
    content: Content,
}

fn chance(seed: u64, a: usize, b: usize) -> u64 {
    let hash = blake3::hash(format!("{seed} {a} {b}").as_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
}
