//! Looking into the views themselves: are the files right, and what do they take on the disk?

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::package::files_below;

/// Files of views that were compared already: hard links of one inode are the same file.
#[derive(Debug, Default)]
pub(super) struct Compared(BTreeSet<(u64, u64, PathBuf)>);

impl Compared {
    /// Says how a view differs from the files that were published; `None` if it does not.
    pub(super) fn difference(&mut self, view: &Path, tree: &Path) -> io::Result<Option<String>> {
        let relative = |top: &Path| -> io::Result<Vec<PathBuf>> {
            let all = files_below(top)?;
            Ok(all.iter().filter_map(|f| f.strip_prefix(top).ok()).map(Path::to_owned).collect())
        };
        let (have, want) = (relative(view)?, relative(tree)?);
        if have != want {
            let (have, want) = (have.len(), want.len());
            return Ok(Some(format!("{have} files, {want} were published, or other names")));
        }
        for name in want {
            let (ours, theirs) = (view.join(&name), tree.join(&name));
            let meta = fs::symlink_metadata(&ours)?;
            if self.0.contains(&(meta.dev(), meta.ino(), theirs.clone())) {
                continue;
            }
            if !same(&ours, &theirs)? {
                return Ok(Some(format!("{} differs", name.display())));
            }
            self.0.insert((meta.dev(), meta.ino(), theirs));
        }
        Ok(None)
    }
}

fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let mut rest = BufReader::new(b);
    let mut chunk = [0; 16 * 1024];
    let mut first = BufReader::new(a);
    loop {
        let n = first.read(&mut chunk)?;
        let got = chunk.get(..n).unwrap_or_default();
        if got.is_empty() {
            return Ok(true);
        }
        let mut other = vec![0; n];
        rest.read_exact(&mut other)?;
        if got != other {
            return Ok(false);
        }
    }
}

/// Bytes on the disk that exist for this view alone: folders, links, and files with one name.
pub(super) fn own_disk_bytes(view: &Path) -> io::Result<u64> {
    let own = |m: &fs::Metadata| {
        if m.is_dir() || m.nlink() == 1 { m.blocks().saturating_mul(512) } else { 0 }
    };
    let mut sum = own(&fs::symlink_metadata(view)?);
    let mut folders = vec![view.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            sum += own(&meta);
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A changed, a missing and a foreign file are seen; hard links cost only their folder.
    #[test]
    fn views_are_compared_and_weighed() {
        let root = tempfile::tempdir().unwrap();
        let (view, tree) = (root.path().join("view"), root.path().join("tree"));
        for top in [&view, &tree] {
            fs::create_dir_all(top.join("d")).unwrap();
            fs::write(top.join("d/a"), vec![7; 100_000]).unwrap();
        }
        let differs = || Compared::default().difference(&view, &tree).unwrap().is_some();
        assert!(!differs());
        let alone = own_disk_bytes(&view).unwrap();
        fs::hard_link(view.join("d/a"), root.path().join("b")).unwrap();
        assert!(own_disk_bytes(&view).unwrap() + 100_000 <= alone);
        fs::write(tree.join("d/a"), vec![8; 100_000]).unwrap();
        assert!(differs());
        fs::remove_file(view.join("d/a")).unwrap();
        assert!(differs());
    }
}
