//! The form `repository`: the releases as a folder that apt and dnf install from.
//!
//! Releases that were published from a `.deb` are in its index for apt, those from an `.rpm` in its
//! metadata for dnf. Nothing is merged: what two packages may not both have is judged by the
//! guest's own dpkg or rpm. The index is signed by a key of this host, made at first use; its
//! public half is in the folder.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use stork_wire::ids::{ManifestId, TreeId, hex, unhex};
use zeroize::Zeroizing;

use super::super::merge::SetError;
use super::super::sets::SetInfo;
use super::super::write::{self, Fault, NewFile};
use super::super::{Store, StoreError};
use super::archives::{Kind, refused, shown_meta};
use crate::apt::pgp::SigningKey;
use crate::apt::{EPOCH, Indexed, Names, Stanza, packages, release, source_entry};
use crate::rpm::{self, header_of, metadata, repo_file};

const KEY_FILE: &str = "apt.key";
const KEY_HEADER: &str = "stork apt key v1";
/// Where guests have the folder of views, if nothing else is known.
const GUEST_PATH: &str = "/opt/stork/packages";
/// The folder of metadata for dnf.
const REPODATA: &str = "repodata";
/// An entry for `/etc/yum.repos.d`.
const REPO_FILE: &str = "stork.repo";

/// What the index says of one release.
enum Listed {
    Deb(Indexed),
    Rpm(Box<rpm::Indexed>),
}

impl Listed {
    const fn kind(&self) -> Kind {
        match self {
            Self::Deb(_) => Kind::Deb,
            Self::Rpm(_) => Kind::Rpm,
        }
    }
}

/// The members of a repository by the names of their archives.
type All = BTreeMap<String, (ManifestId, Listed)>;

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

    /// What the index says of the members, in the order of the archives' names.
    fn indexed(&self, members: &[(String, ManifestId, TreeId)]) -> Result<All, SetError> {
        let mut all = All::new();
        for (label, id, _) in members {
            let (manifest, written) = self.archive(label, *id)?;
            // The announcement is what was judged; the driver compares all of it.
            let (package, version) = label.split_once(' ').unwrap_or((label, ""));
            let (name, one) = match Kind::of(&manifest) {
                Kind::Deb => {
                    let stanza = Stanza::parse(&manifest.source.control);
                    let stanza = stanza.map_err(|e| refused(label, &e))?;
                    let checked = stanza.check(package, version, stanza.get("Architecture"));
                    checked.map_err(|e| refused(label, &e))?;
                    let one = Indexed { stanza, deb: written };
                    (one.file_name(), Listed::Deb(one))
                }
                Kind::Rpm => {
                    let header = header_of(&manifest).map_err(|e| refused(label, &e))?;
                    let checked = rpm::check_name(&header, package, version);
                    checked.map_err(|e| refused(label, &e))?;
                    let one = rpm::Indexed { header, rpm: written };
                    (one.file_name(), Listed::Rpm(Box::new(one)))
                }
            };
            if all.insert(name.clone(), (*id, one)).is_some() {
                let why = io::Error::other(format!("{name} is there twice"));
                return Err(refused(label, &why));
            }
        }
        Ok(all)
    }

    /// The small files of a repository, by their names in it: path and text.
    fn small_files(&self, all: &All) -> Result<Vec<(&'static str, String)>, SetError> {
        let key = self.signing_key()?;
        let (mut debs, mut rpms) = (Vec::new(), Vec::new());
        for (_, one) in all.values() {
            match one {
                Listed::Deb(one) => debs.push(one.clone()),
                Listed::Rpm(one) => rpms.push(rpm::Indexed::clone(one)),
            }
        }
        let index = packages(&debs);
        let text = release(&index);
        let (signed, public) = (key.clearsign(&text), key.certificate());
        let entry = source_entry(GUEST_PATH, &public);
        let mut out = vec![
            (Names::PACKAGES, index),
            (Names::RELEASE, text),
            (Names::IN_RELEASE, signed),
            (Names::KEY, public),
            (Names::SOURCES, entry),
        ];
        if !rpms.is_empty() {
            let parts = metadata(&rpms).map_err(|e| refused("the metadata", &e))?;
            let signed = parts.last().map_or_else(String::new, |(_, t)| key.detached(t.as_bytes()));
            out.extend(parts);
            out.push(("repodata/repomd.xml.asc", signed));
            out.push((REPO_FILE, repo_file(GUEST_PATH)));
        }
        Ok(out)
    }

    /// Builds the folder.
    pub(super) fn make_repository(
        &self,
        members: &[(String, ManifestId, TreeId)],
        dest: &Path,
    ) -> Result<(), SetError> {
        let all = self.indexed(members)?;
        let small = self.small_files(&all)?;
        let (pool, repodata) = (dest.join(Names::POOL), dest.join(REPODATA));
        let folders = [dest, &pool, &repodata];
        let has_rpms = small.iter().any(|(name, _)| name.starts_with(REPODATA));
        let folders = folders.get(..if has_rpms { 3 } else { 2 }).unwrap_or_default();
        let make = || -> Result<(), Fault> {
            for dir in folders {
                let made = std::fs::DirBuilder::new().mode(0o755).create(dir);
                made.map_err(|e| Fault::new("make the folder", dir, e))?;
            }
            for (name, (id, one)) in &all {
                let (from, to) = (self.archive_path(one.kind(), *id), pool.join(name));
                std::fs::hard_link(&from, &to).map_err(|e| Fault::new("link", &to, e))?;
            }
            for (name, text) in &small {
                let path = dest.join(name);
                let (dir, name) = (path.parent().unwrap_or(dest), path.file_name());
                let name = name.unwrap_or_default().to_string_lossy();
                self.shown_file(dir, &name, text.as_bytes(), time_of(text))?;
            }
            folders.iter().rev().try_for_each(|dir| write::sync_dir(dir))
        };
        let done = make().map_err(|f| SetError::from(self.fault(f)));
        if done.is_err() {
            self.remove_folder(dest)?;
        }
        done
    }

    /// Are all files of a repository as they were written? Archives that are not are written anew
    /// the next time.
    pub(super) fn repository_whole(&self, set: &SetInfo) -> Result<bool, StoreError> {
        let mut right = true;
        for (label, id, _) in &set.members {
            let Ok(manifest) = self.released(label, *id) else { return Ok(false) };
            right &= self.archive_whole(Kind::of(&manifest), *id)?;
        }
        if !right {
            return Ok(false);
        }
        let Ok(all) = self.indexed(&set.members) else { return Ok(false) };
        let same_file = |name: &String, (id, one): &(ManifestId, Listed)| {
            let inode = |p: PathBuf| p.symlink_metadata().map(|m| m.ino()).ok();
            let own = inode(self.archive_path(one.kind(), *id));
            inode(set.path.join(Names::POOL).join(name)) == own
        };
        let linked = all.iter().all(|(name, one)| same_file(name, one));
        let Ok(small) = self.small_files(&all) else { return Ok(false) };
        let same = |(name, text): &(&str, String)| {
            std::fs::read(set.path.join(name)).is_ok_and(|bytes| bytes == text.as_bytes())
        };
        Ok(linked && small.iter().all(same))
    }
}

/// A time for a file that differs where its bytes do: apt takes a file of the same time and size
/// for the one that it has.
fn time_of(text: &str) -> i64 {
    let hash = blake3::hash(text.as_bytes());
    let [a, b, c, ..] = *hash.as_bytes();
    i64::from(EPOCH) - i64::from(u32::from_be_bytes([0, a, b, c]))
}
