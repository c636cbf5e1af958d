//! The package of the demonstration: made from files of this machine, or the operator's own, and
//! its later versions.

use std::collections::VecDeque;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::error::DemoError;

/// Where files are taken from, and how many bytes of each place at the most.
const PLACES: [(&str, u64); 3] =
    [("/usr/bin", 6 << 20), ("/usr/lib", 4 << 20), ("/usr/share", 3 << 20)];
/// Bytes below which the package is filled up with text of our own.
const TOTAL_MIN: u64 = 4 << 20;
/// Files of more bytes are left out, so that several fit.
const FILE_MAX: u64 = 1 << 20;
/// Files of one place, and entries that are looked at for them.
const FILES_MAX: usize = 150;
const SEEN_MAX: usize = 4_000;
/// Files that every further version changes.
const CHANGED: usize = 3;
/// Bytes that a third version adds: enough pieces that every host asks several others.
const ADDED_BYTES: usize = 2 << 20;
/// Where the demonstration's own files go.
const OWN: &str = "usr/share/stork-demo";

/// What is pushed as one version.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// Its number for people.
    pub(super) text: String,
    /// What is handed to the publisher.
    pub(super) source: PathBuf,
    /// The publisher must be told name, version and architecture.
    pub(super) unnamed: bool,
    /// A folder with the files that a VM must see.
    pub(super) tree: PathBuf,
}

/// Name and architecture of the package, and all its versions so far.
#[derive(Debug, Clone)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) arch: String,
    pub(super) versions: Vec<Version>,
    /// Does the first version's number stand for itself (`+demo2` is appended)?
    given: bool,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let what = format!("{what} {}", path.display());
    move |source| DemoError::Io { what, source }
}

/// The architecture that a VM's file has by default.
pub(super) const fn machine() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

impl Package {
    /// A package of files that this machine has.
    pub(super) fn of_this_machine(root: &Path) -> Result<Self, DemoError> {
        let tree = root.join("package-1");
        gather(&tree).map_err(failed("copy files of this machine to", &tree))?;
        let version = Version { text: "1.0".into(), source: tree.clone(), unnamed: true, tree };
        let (name, arch) = ("stork-demo".into(), machine().into());
        Ok(Self { name, arch, versions: vec![version], given: false })
    }

    /// The operator's own package. `said` is what it says of itself: name, version, architecture.
    pub(super) fn given(file: &Path, said: Option<(String, String, String)>, root: &Path) -> Self {
        let unnamed = said.is_none();
        let (name, text, arch) =
            said.unwrap_or_else(|| (name_of(file), "1.0".to_owned(), "all".to_owned()));
        // Filled from the first view: how a package unpacks is the publisher's business.
        let tree = root.join("package-1");
        let version = Version { text, source: file.to_owned(), unnamed, tree };
        Self { name, arch, versions: vec![version], given: true }
    }

    /// The first version's files as a VM shows them, where they are not known otherwise.
    pub(super) fn learn_first(&self, view: &Path) -> Result<(), DemoError> {
        match self.versions.first() {
            Some(v) if self.given => copy_tree(view, &v.tree).map_err(failed("copy", view)),
            _ => Ok(()),
        }
    }

    /// The text of the version with this number, from 1.
    pub(super) fn text_of(&self, number: usize) -> String {
        let first = self.versions.first().map_or("", |v| v.text.as_str());
        match (number, self.given) {
            (0 | 1, _) => first.to_owned(),
            (_, true) => format!("{first}+demo{number}"),
            (_, false) => format!("1.{}", number - 1),
        }
    }

    pub(super) fn latest(&self) -> Result<&Version, DemoError> {
        self.versions.last().ok_or_else(|| DemoError::Wrong("there is no version".into()))
    }

    /// A version more: a few files change a little, and from the third on something big is new.
    pub(super) fn next(&mut self, root: &Path) -> Result<&Version, DemoError> {
        let number = self.versions.len() + 1;
        let text = self.text_of(number);
        let tree = root.join(format!("package-{number}"));
        let before = &self.latest()?.tree;
        copy_tree(before, &tree).map_err(failed("copy", before))?;
        change(&tree, number, &text).map_err(failed("change files in", &tree))?;
        self.versions.push(Version { text, source: tree.clone(), unnamed: true, tree });
        self.latest()
    }
}

/// A package name from a file's name.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = name.split(".tar").next().unwrap_or_default();
    let good = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let clean: String = stem.chars().map(good).take(40).collect();
    let clean = clean.trim_matches('-');
    if clean.len() < 2 { "stork-demo".to_owned() } else { clean.to_owned() }
}

fn gather(tree: &Path) -> io::Result<()> {
    let mut total = 0;
    for (place, budget) in PLACES {
        total += gather_place(Path::new(place), budget, tree)?;
    }
    let own = tree.join(OWN);
    fs::create_dir_all(&own)?;
    let mut number = 0;
    while total < TOTAL_MIN {
        number += 1;
        let bytes = noise(number, 512 << 10);
        total += bytes.len() as u64;
        fs::write(own.join(format!("filling-{number}")), bytes)?;
    }
    fs::write(own.join("README"), "A package made by `stork demo` from files of this machine.\n")
}

/// Copies readable files of one place, in the order of their names, nearest first.
fn gather_place(place: &Path, budget: u64, tree: &Path) -> io::Result<u64> {
    let (mut total, mut files, mut seen) = (0, 0, 0);
    let mut folders = VecDeque::from([place.to_owned()]);
    while let Some(folder) = folders.pop_front() {
        // What may not be read is left out: the demonstration runs as anybody.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            seen += 1;
            if files >= FILES_MAX || seen > SEEN_MAX {
                return Ok(total);
            }
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                folders.push_back(path);
            } else if meta.is_file() && (1..=FILE_MAX.min(budget - total)).contains(&meta.len()) {
                let Ok(bytes) = fs::read(&path) else { continue };
                let to = tree.join(path.strip_prefix("/").unwrap_or(&path));
                write_file(&to, &bytes, meta.permissions().mode() & 0o755)?;
                total += bytes.len() as u64;
                files += 1;
            }
        }
    }
    Ok(total)
}

fn write_file(to: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(to, bytes)?;
    fs::set_permissions(to, Permissions::from_mode(mode | 0o644))
}

/// Copies files, folders and links; anything else is left out.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (meta, path) = (entry.path().symlink_metadata()?, to.join(entry.file_name()));
            if meta.is_dir() {
                fs::create_dir(&path)?;
                folders.push((entry.path(), path));
            } else if meta.is_symlink() {
                symlink(fs::read_link(entry.path())?, &path)?;
            } else if meta.is_file() {
                fs::copy(entry.path(), &path)?;
                fs::set_permissions(
                    &path,
                    Permissions::from_mode(meta.permissions().mode() | 0o600),
                )?;
                let times = FileTimes::new().set_modified(meta.modified()?);
                File::options().write(true).open(&path)?.set_times(times)?;
            }
        }
    }
    Ok(())
}

/// All regular files below a folder, in the order of their names.
pub(super) fn files_below(top: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut out, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                out.push(entry.path());
            }
        }
    }
    out.sort();
    Ok(out)
}

fn change(tree: &Path, number: usize, text: &str) -> io::Result<()> {
    let own = tree.join(OWN);
    let files: Vec<PathBuf> =
        files_below(tree)?.into_iter().filter(|f| !f.starts_with(&own)).collect();
    // Spread over the package, and others with every version.
    for i in 0..CHANGED.min(files.len()) {
        let at = (files.len() * i / CHANGED + number) % files.len();
        let Some(path) = files.get(at) else { continue };
        let mut file = File::options().append(true).open(path)?;
        writeln!(file, "# changed by stork demo in version {text}")?;
    }
    fs::create_dir_all(&own)?;
    fs::write(own.join(format!("news-{number}")), format!("This is version {text}.\n"))?;
    if number >= 3 {
        let seed = u64::try_from(number).unwrap_or(0) << 32;
        fs::write(own.join(format!("data-{number}")), noise(seed, ADDED_BYTES))?;
    }
    Ok(())
}

/// Bytes that nothing compresses, the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new_derive_key("stork 2026 demo filling v1");
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package of this machine has a useful size, a next version differs in a few files.
    #[test]
    fn versions() {
        let root = tempfile::tempdir().unwrap();
        let mut package = Package::of_this_machine(root.path()).unwrap();
        let size = |v: &Version| -> u64 {
            files_below(&v.tree).unwrap().iter().map(|f| f.metadata().unwrap().len()).sum()
        };
        let first = size(package.latest().unwrap());
        assert!((TOTAL_MIN..=16 << 20).contains(&first), "{first}");
        let second = size(package.next(root.path()).unwrap());
        assert!(second > first && second < first + 1_000);
        assert_eq!(package.next(root.path()).unwrap().text, "1.2");
        let file = Path::new("/x/My_App 2.tar.zst");
        let given = Package::given(file, None, root.path());
        assert_eq!(given.name, "my-app-2");
    }
}
