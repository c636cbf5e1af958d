//! The form `repository`: an apt repository of the releases, as a folder.
//!
//! Each archive is written once per host from the store's files (`debs/`, by manifest) and
//! hard-linked into the sets that show it, until no set does. Nothing is merged: what two packages
//! may not both have is judged by the guest's own dpkg. The index is signed by a key of this host,
//! made at first use; its public half is in the folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stork_wire::ids::{ContentId, ManifestId, TreeId, hex, unhex};
use stork_wire::manifest::{Manifest, TreeNode};
use zeroize::Zeroizing;

use super::super::merge::SetError;
use super::super::objects::Meta;
use super::super::sets::SetInfo;
use super::super::write::{self, Fault, NewFile};
use super::super::{Store, StoreError, lock};
use crate::apt::pgp::SigningKey;
use crate::apt::{
    Deb, DebError, EPOCH, Indexed, Names, Stanza, deb, packages, release, source_entry,
};

/// The folder of written archives.
pub(in super::super) const DEBS: &str = "debs";
const KEY_FILE: &str = "apt.key";
const KEY_HEADER: &str = "stork apt key v1";
/// Where guests have the folder of views, if nothing else is known.
const GUEST_PATH: &str = "/opt/stork/packages";

/// What is known of a written archive.
#[derive(Debug, Serialize, Deserialize)]
struct DebRow {
    len: u64,
    sha256: String,
}

impl DebRow {
    fn deb(&self) -> Option<Deb> {
        let sha256 = unhex(&self.sha256)?.try_into().ok()?;
        Some(Deb { len: self.len, sha256 })
    }
}

fn row_key(manifest: ManifestId) -> String {
    format!("deb:{}:{}", deb::FORMAT, hex(manifest.as_bytes()))
}

fn refused(package: &str, why: &dyn std::error::Error) -> SetError {
    SetError::NotForApt { package: package.to_owned(), why: why.to_string() }
}

/// The signing key of a state folder, if it was made; for whoever prints its public half.
pub fn repository_key(state: &Path) -> io::Result<Option<SigningKey>> {
    let path = state.join(KEY_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if std::fs::metadata(&path)?.mode() & 0o077 != 0 {
        return Err(io::Error::other("others than its owner may read this key"));
    }
    let mut lines = text.lines();
    let right = lines.next() == Some(KEY_HEADER);
    let seed = lines.next().and_then(|l| l.strip_prefix("seed ")).and_then(unhex);
    let seed = seed.map(Zeroizing::new);
    let seed = seed.and_then(|s| <[u8; 32]>::try_from(s.as_slice()).ok().map(Zeroizing::new));
    let host = lines.next().and_then(|l| l.strip_prefix("host "));
    match (right, seed, host) {
        (true, Some(seed), Some(host)) => Ok(Some(SigningKey::new(&seed, host))),
        _ => Err(io::Error::other("this is no key for repositories")),
    }
}

impl Store {
    fn deb_path(&self, manifest: ManifestId) -> PathBuf {
        let name = format!("{}-{}.deb", hex(manifest.as_bytes()), deb::FORMAT);
        self.dir.join(DEBS).join(name)
    }

    /// The signing key; made where there is none.
    fn signing_key(&self) -> Result<SigningKey, StoreError> {
        let path = self.dir.join(KEY_FILE);
        let fault = |e| self.fault(Fault::new("use the key", &path, e));
        if let Some(key) = repository_key(&self.dir).map_err(fault)? {
            return Ok(key);
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| fault(io::Error::other(e)))?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String = host.chars().filter(|c| !c.is_control()).take(64).collect();
        let text = format!("{KEY_HEADER}\nseed {}\nhost {host}\n", hex(seed.as_slice()));
        self.write_file(&self.dir, KEY_FILE, Zeroizing::new(text).as_bytes())?;
        Ok(SigningKey::new(&seed, &host))
    }

    /// A file that guests read, made durable with its bytes.
    fn shown_file(&self, dir: &Path, name: &str, bytes: &[u8], mtime: i64) -> Result<(), Fault> {
        let mut file = NewFile::create(dir)?;
        file.write(bytes)?;
        // Who does not run as root keeps its own files.
        drop(file.dress(&shown_meta(mtime), self.root)?);
        file.sync()?;
        file.replace(&dir.join(name))
    }

    fn repository_manifest(&self, label: &str, id: ManifestId) -> Result<Manifest, SetError> {
        let found = self.manifest_decoded(id)?;
        found.ok_or_else(|| SetError::Incomplete { package: label.to_owned() })
    }

    /// The archive of a release: written now, or before.
    fn archive(&self, label: &str, id: ManifestId) -> Result<(Manifest, Deb), SetError> {
        let manifest = self.repository_manifest(label, id)?;
        let path = self.deb_path(id);
        let row = self.get_state(&row_key(id))?;
        let row = row.and_then(|bytes| serde_json::from_slice::<DebRow>(&bytes).ok());
        if let Some(deb) = row.and_then(|row| row.deb())
            && path.metadata().is_ok_and(|m| m.len() == deb.len)
        {
            return Ok((manifest, deb));
        }
        self.check_free(manifest.tree.payload_len(), 1)?;
        let dir = self.dir.join(DEBS);
        let fault = |f| self.fault(f);
        let file = NewFile::create(&dir).map_err(fault)?;
        let paths = self.content_files(&manifest, label)?;
        let mut open = |content: ContentId| -> io::Result<Box<dyn io::Read>> {
            let path = paths.get(&content).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(File::open(path)?))
        };
        let written = deb::write_deb(&manifest, &mut open, &mut file.file());
        let made = written.map_err(|e| match e {
            DebError::Io(e) => self.fault(Fault::new("write the archive", &path, e)).into(),
            DebError::Damaged(content) => StoreError::DamagedContent(content).into(),
            e => refused(label, &e),
        })?;
        drop(file.dress(&shown_meta(EPOCH.into()), self.root).map_err(fault)?);
        file.sync().map_err(fault)?;
        file.replace(&path).map_err(fault)?;
        write::sync_dir(&dir).map_err(fault)?;
        let row = DebRow { len: made.len, sha256: hex(&made.sha256) };
        self.put_state(&row_key(id), &serde_json::to_vec(&row).unwrap_or_default())?;
        Ok((manifest, made))
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

    /// What the index says of the members, in the order of the archives' names.
    fn indexed(
        &self,
        members: &[(String, ManifestId, TreeId)],
    ) -> Result<BTreeMap<String, (ManifestId, Indexed)>, SetError> {
        let mut all = BTreeMap::new();
        for (label, id, _) in members {
            let (manifest, deb) = self.archive(label, *id)?;
            let stanza = Stanza::parse(&manifest.source.control).map_err(|e| refused(label, &e))?;
            // The announcement is what was judged; the driver compares all of it.
            let (package, version) = label.split_once(' ').unwrap_or((label, ""));
            stanza
                .check(package, version, stanza.get("Architecture"))
                .map_err(|e| refused(label, &e))?;
            let one = Indexed { stanza, deb };
            let name = one.file_name();
            if all.insert(name.clone(), (*id, one)).is_some() {
                let why = io::Error::other(format!("{name} is there twice"));
                return Err(refused(label, &why));
            }
        }
        Ok(all)
    }

    /// The small files of a repository: name and bytes.
    fn small_files(
        &self,
        all: &BTreeMap<String, (ManifestId, Indexed)>,
    ) -> Result<[(&'static str, String); 5], StoreError> {
        let key = self.signing_key()?;
        let all: Vec<Indexed> = all.values().map(|(_, one)| one.clone()).collect();
        let index = packages(&all);
        let text = release(&index);
        let (signed, public) = (key.clearsign(&text), key.certificate());
        let entry = source_entry(GUEST_PATH, &public);
        Ok([
            (Names::PACKAGES, index),
            (Names::RELEASE, text),
            (Names::IN_RELEASE, signed),
            (Names::KEY, public),
            (Names::SOURCES, entry),
        ])
    }

    /// Builds the folder.
    pub(super) fn make_repository(
        &self,
        members: &[(String, ManifestId, TreeId)],
        dest: &Path,
    ) -> Result<(), SetError> {
        let all = self.indexed(members)?;
        let pool = dest.join(Names::POOL);
        let make = || -> Result<(), Fault> {
            for dir in [dest, &pool] {
                let made = std::fs::DirBuilder::new().mode(0o755).create(dir);
                made.map_err(|e| Fault::new("make the folder", dir, e))?;
            }
            for (name, (id, _)) in &all {
                let (from, to) = (self.deb_path(*id), pool.join(name));
                std::fs::hard_link(&from, &to).map_err(|e| Fault::new("link", &to, e))?;
            }
            write::sync_dir(&pool)
        };
        let done = make().map_err(|f| SetError::from(self.fault(f))).and_then(|()| {
            for (name, text) in self.small_files(&all)? {
                self.shown_file(dest, name, text.as_bytes(), time_of(&text))
                    .map_err(|f| self.fault(f))?;
            }
            Ok(write::sync_dir(dest).map_err(|f| self.fault(f))?)
        });
        if done.is_err() {
            self.remove_folder(dest)?;
        }
        done
    }

    /// Are all files of a repository as they were written? Archives that are not are written anew
    /// the next time.
    pub(super) fn repository_whole(&self, set: &SetInfo) -> Result<bool, StoreError> {
        let mut right = true;
        for (_, id, _) in &set.members {
            let path = self.deb_path(*id);
            let row = self.get_state(&row_key(*id))?;
            let row = row.and_then(|bytes| serde_json::from_slice::<DebRow>(&bytes).ok());
            let now = File::open(&path).ok().and_then(|mut f| deb::describe(&mut f).ok());
            if now.is_none() || now != row.and_then(|row| row.deb()) {
                self.remove_state(&row_key(*id))?;
                write::remove_file(&path).map_err(|f| self.fault(f))?;
                right = false;
            }
        }
        if !right {
            return Ok(false);
        }
        let Ok(all) = self.indexed(&set.members) else { return Ok(false) };
        let same_file = |name: &String, id: &ManifestId| {
            let inode = |p: PathBuf| p.symlink_metadata().map(|m| m.ino()).ok();
            inode(set.path.join(Names::POOL).join(name)) == inode(self.deb_path(*id))
        };
        let linked = all.iter().all(|(name, (id, _))| same_file(name, id));
        let small = self.small_files(&all)?;
        let same = |(name, text): &(&str, String)| {
            std::fs::read(set.path.join(name)).is_ok_and(|bytes| bytes == text.as_bytes())
        };
        Ok(linked && small.iter().all(same))
    }

    /// Removes archives that no set shows; returns their bytes.
    pub(in super::super) fn sweep_debs(&self, dry_run: bool) -> Result<u64, StoreError> {
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
            self.remove_state(&format!("deb:{}:{manifest}", deb::FORMAT))?;
            write::remove_file(&path).map_err(|f| self.fault(f))?;
        }
        Ok(bytes)
    }
}

fn shown_meta(mtime: i64) -> Meta {
    Meta { mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

/// A time for a file that differs where its bytes do: apt takes a file of the same time and size
/// for the one that it has.
fn time_of(text: &str) -> i64 {
    let hash = blake3::hash(text.as_bytes());
    let [a, b, c, ..] = *hash.as_bytes();
    i64::from(EPOCH) - i64::from(u32::from_be_bytes([0, a, b, c]))
}
