//! The folder of VM files, reread when a file changes; a broken file keeps its last good version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stork_wire::text::Label;

use crate::catalog::{FileError, VmFile};

/// Bytes of a VM file at the most: larger ones are a mistake.
const FILE_LEN_MAX: u64 = 256 * 1024;
/// VM files that a host reads.
const FILES_MAX: usize = 4_096;

/// A VM file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVmFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub error: FileError,
}

/// Enough of a file's state to see that it changed.
type Stamp = (SystemTime, u64);

/// The files of the folder as last read.
#[derive(Debug, Default)]
pub struct VmFolder {
    path: PathBuf,
    stamps: BTreeMap<PathBuf, Stamp>,
    good: BTreeMap<PathBuf, VmFile>,
    bad: BTreeMap<PathBuf, FileError>,
}

impl VmFolder {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// The VMs in force, by name. Two files with one name: the first by path counts.
    #[must_use]
    pub fn vms(&self) -> BTreeMap<Label, VmFile> {
        let mut out: BTreeMap<Label, VmFile> = BTreeMap::new();
        for vm in self.good.values() {
            out.entry(vm.name.clone()).or_insert_with(|| vm.clone());
        }
        out
    }

    /// The file in force of a VM, with its path.
    #[must_use]
    pub fn find(&self, vm: &Label) -> Option<(&Path, &VmFile)> {
        let found = self.good.iter().find(|(_, file)| file.name == *vm);
        found.map(|(path, file)| (path.as_path(), file))
    }

    /// The files that cannot be used.
    #[must_use]
    pub fn bad(&self) -> Vec<BadVmFile> {
        let all = self.bad.iter();
        all.map(|(path, e)| BadVmFile { path: path.clone(), error: e.clone() }).collect()
    }

    /// Reads what changed; true if anything did. A folder that is not there has no VMs.
    pub fn reread(&mut self) -> bool {
        let now = list(&self.path);
        if now == self.stamps {
            return false;
        }
        self.good.retain(|p, _| now.contains_key(p));
        self.bad.retain(|p, _| now.contains_key(p));
        for (path, stamp) in &now {
            if self.stamps.get(path) == Some(stamp) {
                continue;
            }
            match read(path, stamp.1) {
                Ok(vm) => {
                    self.bad.remove(path);
                    self.good.insert(path.clone(), vm);
                }
                Err(e) => {
                    self.bad.insert(path.clone(), e);
                }
            }
        }
        self.stamps = now;
        self.find_twins();
        true
    }

    fn find_twins(&mut self) {
        let mut names: BTreeMap<Label, PathBuf> = BTreeMap::new();
        for (path, vm) in &self.good {
            if let Some(first) = names.get(&vm.name) {
                let message = format!("the VM `{}` is also in {}", vm.name, first.display());
                let help = "give it another name, or remove one of the files".to_owned();
                self.bad.insert(path.clone(), FileError { message, help });
            } else {
                names.insert(vm.name.clone(), path.clone());
            }
        }
    }
}

fn list(folder: &Path) -> BTreeMap<PathBuf, Stamp> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    let mut out = BTreeMap::new();
    for entry in entries.flatten().take(FILES_MAX) {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        if let Ok(meta) = std::fs::metadata(&path) {
            let when = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            out.insert(path, (when, meta.len()));
        }
    }
    out
}

fn read(path: &Path, len: u64) -> Result<VmFile, FileError> {
    if len > FILE_LEN_MAX {
        return Err(FileError {
            message: format!("{len} bytes are too many for a VM file"),
            help: "a VM file has a few dozen lines".into(),
        });
    }
    let text = std::fs::read_to_string(path).map_err(|e| FileError {
        message: format!("cannot be read: {e}"),
        help: "check its permissions".into(),
    })?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let file = VmFile::parse(&stem, &text)?;
    Ok(VmFile { path: path.to_owned(), ..file })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[vm]\ngroups = [\"web\"]\n[[subscribe]]\npackage = \"*\"\n\
        [[trust]]\nallow = \"acme\"\n[view]\nbackend = \"tree\"\ntarget = \"/srv/a\"\n";

    /// A file that breaks keeps its last good version in force, and says line and remedy.
    #[test]
    fn a_broken_file_keeps_its_last_good_version() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web-1.toml");
        std::fs::write(&file, GOOD).unwrap();
        let mut folder = VmFolder::new(dir.path().into());
        assert!(folder.reread());
        assert!(!folder.reread());
        assert_eq!(folder.vms().keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["web-1"]);
        std::fs::write(&file, GOOD.replace("target =", "traget =")).unwrap();
        assert!(folder.reread());
        assert_eq!(folder.vms().len(), 1, "the last good version stays");
        let bad = folder.bad();
        assert!(bad[0].error.message.contains("line 9"), "{}", bad[0].error.message);
        assert_eq!(bad[0].error.help, "did you mean `target`?");
        std::fs::remove_file(&file).unwrap();
        assert!(folder.reread());
        assert!(folder.vms().is_empty() && folder.bad().is_empty());
    }
}
