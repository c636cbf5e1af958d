//! The form `sysext`: the folder of the merged tree with the file by which systemd takes it for a
//! system extension (os-release(5), systemd-sysext(8)).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use stork_wire::manifest::Tree;

use super::super::Store;
use super::super::merge::SetError;
use super::super::objects::Meta;
use super::super::sets::SetInfo;
use super::super::write::{self, Fault, NewFile};
use crate::apt::EPOCH;

/// The extension's name: the target's last part, and the ending of its release file.
pub const SYSEXT_NAME: &str = "stork";
/// It fits every system: which packages a VM shows is decided by its own file.
const RELEASE: &str = "ID=_any\nARCHITECTURE=_any\n";
const FOLDER: &str = "usr/lib/extension-release.d";

fn release_file(set: &Path) -> PathBuf {
    set.join(FOLDER).join(format!("extension-release.{SYSEXT_NAME}"))
}

impl Store {
    /// Builds the folder.
    pub(super) fn make_sysext(&self, tree: &Tree, dest: &Path) -> Result<(), SetError> {
        let outside = tree.entries.iter().map(|e| e.path.as_str());
        let outside = outside.filter(|p| !["usr", "opt"].contains(&first(p)));
        if let Some(path) = outside.filter(|p| p.contains('/')).min() {
            tracing::warn!(path, "systemd-sysext shows only /usr and /opt: the rest is not seen");
        }
        if tree.entries.iter().any(|e| e.path.as_str() == "usr/lib/os-release") {
            let (path, why) = ("usr/lib/os-release".to_owned(), "an extension must not have it");
            let set = "the extension".to_owned();
            return Err(SetError::Conflict { path, a: set, b: "the system".to_owned(), why });
        }
        self.link_tree(tree, dest)?;
        let done = self.write_release(dest);
        if done.is_err() {
            self.remove_folder(dest)?;
        }
        Ok(done.map_err(|f| self.fault(f))?)
    }

    fn write_release(&self, dest: &Path) -> Result<(), Fault> {
        let mut dir = dest.to_owned();
        let mut made = vec![dir.clone()];
        for part in FOLDER.split('/') {
            dir.push(part);
            match DirBuilder::new().mode(0o755).create(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Fault::new("make the folder", &dir, e));
                }
                _ => made.push(dir.clone()),
            }
        }
        let mut file = NewFile::create(&dir)?;
        file.write(RELEASE.as_bytes())?;
        let meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime: EPOCH.into(), xattrs: Vec::new() };
        drop(file.dress(&meta, self.root)?);
        file.sync()?;
        file.replace(&release_file(dest))?;
        made.iter().rev().try_for_each(|dir| write::sync_dir(dir))
    }

    /// Is the file as it was written?
    pub(super) fn sysext_whole(set: &SetInfo) -> bool {
        std::fs::read(release_file(&set.path)).is_ok_and(|bytes| bytes == RELEASE.as_bytes())
    }
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}
