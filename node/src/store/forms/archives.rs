//! Archives of packages, written again from the store's files: once per host, by manifest, and
//! hard-linked into the sets that show them, until no set does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stork_wire::ids::{ContentId, ManifestId, hex, unhex};
use stork_wire::manifest::{Manifest, SourceFormat, TreeNode};

use super::super::merge::SetError;
use super::super::objects::Meta;
use super::super::write::{self, Fault, NewFile};
use super::super::{Store, StoreError, lock};
use crate::apt::{DebError, EPOCH, Written, deb, describe};
use crate::rpm::{self, RpmError};

/// The folder of written archives, of all kinds.
pub(in super::super) const DEBS: &str = "debs";

/// What kind of archive a release becomes: that of which it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Deb,
    Rpm,
}

impl Kind {
    /// All others than RPM packages are refused when their `.deb` is written.
    pub(super) fn of(manifest: &Manifest) -> Self {
        if manifest.source.format == SourceFormat::Rpm { Self::Rpm } else { Self::Deb }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }

    const fn format(self) -> u32 {
        match self {
            Self::Deb => deb::FORMAT,
            Self::Rpm => rpm::FORMAT,
        }
    }

    fn row_key(self, manifest: &str) -> String {
        format!("{}:{}:{manifest}", self.word(), self.format())
    }

    fn file_name(self, manifest: ManifestId) -> String {
        format!("{}-{}.{}", hex(manifest.as_bytes()), self.format(), self.word())
    }
}

/// What is known of a written archive.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    len: u64,
    sha256: String,
}

impl Row {
    fn written(&self) -> Option<Written> {
        let sha256 = unhex(&self.sha256)?.try_into().ok()?;
        Some(Written { len: self.len, sha256 })
    }
}

/// How files that guests read look: root's, readable by all.
pub(super) const fn shown_meta(mtime: i64) -> Meta {
    Meta { mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

pub(super) fn refused(package: &str, why: &dyn std::error::Error) -> SetError {
    SetError::NotForRepository { package: package.to_owned(), why: why.to_string() }
}

impl Store {
    pub(super) fn archive_path(&self, kind: Kind, manifest: ManifestId) -> PathBuf {
        self.dir.join(DEBS).join(kind.file_name(manifest))
    }

    pub(super) fn released(&self, label: &str, id: ManifestId) -> Result<Manifest, SetError> {
        let found = self.manifest_decoded(id)?;
        found.ok_or_else(|| SetError::Incomplete { package: label.to_owned() })
    }

    fn archive_row(&self, kind: Kind, id: ManifestId) -> Result<Option<Written>, StoreError> {
        let row = self.get_state(&kind.row_key(&hex(id.as_bytes())))?;
        let row = row.and_then(|bytes| serde_json::from_slice::<Row>(&bytes).ok());
        Ok(row.and_then(|row| row.written()))
    }

    /// The archive of a release: written now, or before.
    pub(super) fn archive(
        &self,
        label: &str,
        id: ManifestId,
    ) -> Result<(Manifest, Written), SetError> {
        let manifest = self.released(label, id)?;
        let kind = Kind::of(&manifest);
        let path = self.archive_path(kind, id);
        if let Some(written) = self.archive_row(kind, id)?
            && path.metadata().is_ok_and(|m| m.len() == written.len)
        {
            return Ok((manifest, written));
        }
        self.check_free(manifest.tree.payload_len(), 1)?;
        let dir = self.dir.join(DEBS);
        let fault = |f| self.fault(f);
        let file = NewFile::create(&dir).map_err(fault)?;
        let made = self.write_archive(kind, (label, &manifest), &mut file.file(), &path)?;
        drop(file.dress(&shown_meta(EPOCH.into()), self.root).map_err(fault)?);
        file.sync().map_err(fault)?;
        file.replace(&path).map_err(fault)?;
        write::sync_dir(&dir).map_err(fault)?;
        let row = Row { len: made.len, sha256: hex(&made.sha256) };
        let key = kind.row_key(&hex(id.as_bytes()));
        self.put_state(&key, &serde_json::to_vec(&row).unwrap_or_default())?;
        Ok((manifest, made))
    }

    fn write_archive(
        &self,
        kind: Kind,
        (label, manifest): (&str, &Manifest),
        out: &mut (impl io::Read + io::Write + io::Seek),
        path: &Path,
    ) -> Result<Written, SetError> {
        let paths = self.content_files(manifest, label)?;
        let mut open = |content: ContentId| -> io::Result<Box<dyn io::Read>> {
            let path = paths.get(&content).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(File::open(path)?))
        };
        let disk = |e| SetError::from(self.fault(Fault::new("write the archive", path, e)));
        let damaged = |content| SetError::from(StoreError::DamagedContent(content));
        match kind {
            Kind::Deb => deb::write_deb(manifest, &mut open, out).map_err(|e| match e {
                DebError::Io(e) => disk(e),
                DebError::Damaged(content) => damaged(content),
                e => refused(label, &e),
            }),
            Kind::Rpm => rpm::write_rpm(manifest, &mut open, out).map_err(|e| match e {
                RpmError::Io(e) => disk(e),
                RpmError::Damaged(content) => damaged(content),
                e => refused(label, &e),
            }),
        }
    }

    /// Where the files of a manifest are.
    fn content_files(
        &self,
        manifest: &Manifest,
        label: &str,
    ) -> Result<BTreeMap<ContentId, PathBuf>, SetError> {
        let mut out = BTreeMap::new();
        for entry in &manifest.tree.entries {
            let TreeNode::File { content, size, .. } = &entry.node else { continue };
            if *size > 0 && !out.contains_key(content) {
                let path = self.content_path(*content);
                let path =
                    path.map_err(|_gone| SetError::Incomplete { package: label.to_owned() })?;
                out.insert(*content, path);
            }
        }
        Ok(out)
    }

    /// Is an archive as it was written? One that is not is removed, and written anew the next time.
    pub(super) fn archive_whole(&self, kind: Kind, id: ManifestId) -> Result<bool, StoreError> {
        let path = self.archive_path(kind, id);
        let now = File::open(&path).ok().and_then(|mut f| describe(&mut f).ok());
        if now.is_some() && now == self.archive_row(kind, id)? {
            return Ok(true);
        }
        self.remove_state(&kind.row_key(&hex(id.as_bytes())))?;
        write::remove_file(&path).map_err(|f| self.fault(f))?;
        Ok(false)
    }

    /// Removes archives that no set shows; returns their bytes.
    pub(in super::super) fn sweep_archives(&self, dry_run: bool) -> Result<u64, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let _one = lock(&self.building);
        let dir = self.dir.join(DEBS);
        let names = super::super::open::names(&dir).map_err(|f| self.fault(f))?;
        let mut bytes = 0;
        for name in names {
            let path = dir.join(&name);
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.nlink() > 1 {
                continue;
            }
            bytes += meta.len();
            if dry_run {
                continue;
            }
            let manifest = name.split_once('-').map_or("", |(id, _)| id);
            let kind = if name.ends_with(".rpm") { Kind::Rpm } else { Kind::Deb };
            self.remove_state(&kind.row_key(manifest))?;
            write::remove_file(&path).map_err(|f| self.fault(f))?;
        }
        Ok(bytes)
    }
}
