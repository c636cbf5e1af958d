//! What a backend that mounts knows of the store: its folder, and nothing of its database.
//!
//! So the same code works in the process that has the database and in the view helper, which has
//! not. Every step is beneath the folder and follows no link: whoever may write there, a daemon
//! that was taken over for instance, could otherwise lead a mount to any place of the host.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use stork_wire::ids::ManifestId;
use stork_wire::limits::MANIFEST_LEN_MAX;
use stork_wire::manifest::{Manifest, Tree};
use stork_wire::text::Label;

use super::{ViewError, idmap};
use crate::store::{SetId, Store};

/// Bytes of a merged tree's file at the most: several manifests' worth.
const TREE_LEN_MAX: u64 = 4 * MANIFEST_LEN_MAX;

/// What makes the names of mounts ours; see [`super::mounts::tag_of_vm`].
pub(super) type Secret = [u8; 32];

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    dir: PathBuf,
    root: OwnedFd,
    secret: Secret,
    store: Option<&'a Store>,
}

/// The secret of this store, drawn where there is none yet.
pub(super) fn secret_of(store: &Store) -> Result<Secret, ViewError> {
    const SECRET: &str = "views:secret";
    let known = store.get_state(SECRET)?.and_then(|bytes| Secret::try_from(bytes).ok());
    if let Some(secret) = known {
        return Ok(secret);
    }
    let mut new = Secret::default();
    getrandom::fill(&mut new)
        .map_err(|e| ViewError::io("draw a secret for", store.dir(), io::Error::from(e)))?;
    store.put_state(SECRET, &new)?;
    Ok(new)
}

/// The kernel's own link to what a descriptor leads to: never another file, whatever happens to
/// names meanwhile.
pub(super) fn link(fd: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd())
}

impl<'a> Ground<'a> {
    /// In the process that has the store open.
    pub(super) fn of(store: &'a Store) -> Result<Self, ViewError> {
        let ground = Self::bare(store.dir(), secret_of(store)?)?;
        Ok(Self { store: Some(store), ..ground })
    }

    /// In another process: a folder, by its real path.
    pub(super) fn bare(dir: &Path, secret: Secret) -> Result<Self, ViewError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, dir, flags, Mode::empty());
        let root = root.map_err(|e| ViewError::io("open the folder", dir, e))?;
        Ok(Self { dir: dir.to_owned(), root, secret, store: None })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Whose the files of the store are, where no file has an owner of its own.
    pub(super) fn owner(&self) -> Result<idmap::Owner, ViewError> {
        idmap::owner_of(&self.root).map_err(|e| ViewError::io("look at", &self.dir, e))
    }

    /// The store itself, where this process has it.
    pub(super) fn store(&self) -> Result<&'a Store, ViewError> {
        let none = || io::Error::other("the view helper makes no hard links");
        self.store.ok_or_else(|| ViewError::io("use the database of", &self.dir, none()))
    }

    /// Opens what is beneath the folder, by way of real folders only.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
    }

    fn set_path(id: SetId) -> PathBuf {
        Path::new("sets").join(id.to_string())
    }

    /// A set: the folder or the file that it is. It may be gone.
    pub(super) fn set(&self, id: SetId) -> Result<OwnedFd, ViewError> {
        match self.open(&Self::set_path(id), OFlags::PATH) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT) => Err(ViewError::NoSet(id)),
            Err(e) => Err(ViewError::io("open", self.dir.join(Self::set_path(id)), e)),
        }
    }

    /// Its file, where it is an image.
    pub(super) fn image(&self, id: SetId) -> Result<OwnedFd, ViewError> {
        let opened = self.open(&Self::set_path(id), OFlags::RDONLY | OFlags::NONBLOCK);
        opened.map_err(|e| ViewError::io("open", self.dir.join(Self::set_path(id)), e))
    }

    /// The folder of all objects.
    pub(super) fn objects(&self) -> Result<OwnedFd, ViewError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = self.open(Path::new("objects"), flags);
        opened.map_err(|e| ViewError::io("open", self.dir.join("objects"), e))
    }

    /// Where the folder of a VM's small files is.
    pub(super) fn vm_path(&self, vm: &Label) -> PathBuf {
        self.dir.join("vms").join(vm.as_str().replace('/', "%2F"))
    }

    /// The folder of a VM's small files. Whoever has the store makes it.
    pub(super) fn vm_folder(&self, vm: &Label) -> Result<OwnedFd, ViewError> {
        if let Some(store) = self.store {
            store.vm_dir(vm)?;
        }
        let path = self.vm_path(vm);
        let rest = path.strip_prefix(&self.dir).unwrap_or(&path);
        let opened = self.open(rest, OFlags::RDONLY | OFlags::DIRECTORY);
        opened.map_err(|e| ViewError::io("open the folder", &path, e))
    }

    /// The bytes of a file; none where there is no such file.
    fn read(&self, path: &Path, max: u64) -> Result<Option<Vec<u8>>, ViewError> {
        let fail = |e: io::Error| ViewError::io("read", self.dir.join(path), e);
        let file = match self.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(fail(e.into())),
        };
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > max {
            return Err(fail(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(Some(bytes))
    }

    fn read_as<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, ViewError> {
        let fail = |e| ViewError::io("decode", self.dir.join(path), io::Error::other(e));
        let bytes = self.read(path, TREE_LEN_MAX)?;
        bytes.map(|b| postcard::from_bytes(&b)).transpose().map_err(fail)
    }

    /// The merged tree of a set.
    pub(super) fn set_tree(&self, id: SetId) -> Result<Tree, ViewError> {
        let path = Path::new("sets").join(format!("{id}.tree"));
        self.read_as(&path)?.ok_or(ViewError::NoSet(id))
    }

    /// A manifest, if it is here whole.
    pub(super) fn manifest(&self, id: ManifestId) -> Result<Option<Manifest>, ViewError> {
        let name = stork_wire::ids::hex(id.as_bytes());
        let (folder, rest) = name.split_at(2);
        let path = Path::new("manifests").join(folder).join(rest);
        let bytes = self.read(&path, MANIFEST_LEN_MAX)?;
        let bytes = bytes.filter(|bytes| ManifestId::of(bytes) == id);
        let fail = |e| ViewError::io("decode", self.dir.join(&path), io::Error::other(e));
        bytes.map(|b| Manifest::from_bytes(&b)).transpose().map_err(fail)
    }
}
