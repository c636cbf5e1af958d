//! Private groups: the group's document names a key, and the key lies in a file beside the charter.
//!
//! Who publishes to the group seals with it, and one host with the grant is given it; the others
//! ask that one. A new key is made when a host must not read any more what comes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use stork_wire::ids::GroupKeyId;
use stork_wire::limits::GROUP_KEYS_MAX;
use stork_wire::seal::{GroupKey, Keyring};
use zeroize::Zeroizing;

use super::edit::group_id;
use super::files::read_bounded;
use super::{Change, Changed, CharterError, Outcome, read_file};
use crate::keys::KeyError;

/// The folder of a charter's directory that holds keys of private groups.
const FOLDER: &str = "group-keys";
/// Bytes of one key file at the most.
const FILE_LEN_MAX: u64 = 4_096;

/// What becomes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// It is private; one that is keeps its key.
    Private,
    /// It is private, with a new key.
    NewKey,
    /// It is for everybody again: releases that come are not sealed.
    Public,
}

/// The keys that lie in a charter's directory; files that are no keys are named in the error.
pub(super) fn read_keys(dir: &Path) -> Result<Keyring, CharterError> {
    let (mut ring, folder) = (Keyring::default(), dir.join(FOLDER));
    let failed = |source| CharterError::Read { path: folder.clone(), source };
    let files = match fs::read_dir(&folder) {
        Ok(files) => files,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ring),
        Err(e) => return Err(failed(e)),
    };
    for file in files.take(2 * GROUP_KEYS_MAX) {
        let path = file.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "key") {
            ring.add(read_key(&path)?);
        }
    }
    Ok(ring)
}

fn read_key(path: &Path) -> Result<GroupKey, CharterError> {
    let failed = |source| CharterError::Read { path: path.into(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(CharterError::GroupKeyExposed { path: path.into(), mode: mode & 0o777 });
    }
    let bytes = Zeroizing::new(read_bounded(path, FILE_LEN_MAX)?);
    let text = core::str::from_utf8(&bytes).unwrap_or_default();
    GroupKey::from_text(text).ok_or_else(|| CharterError::NotAGroupKey(path.into()))
}

fn write_key(dir: &Path, group: &str, key: &GroupKey) -> Result<PathBuf, CharterError> {
    let folder = dir.join(FOLDER);
    let path = folder.join(format!("{}-{}.key", group.replace('/', "."), key.id().short()));
    let failed = |source| CharterError::Write { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let file = file.as_mut().map_err(|e| failed(io::Error::from(e.kind())))?;
    file.write_all(key.to_text().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    // Documents will name the key: it must not be lost where they are not.
    fs::File::open(&folder).and_then(|f| f.sync_all()).map_err(failed)?;
    Ok(path)
}

/// Makes a group private, gives it a new key, or opens it. The file of a key that was made is told.
pub fn privacy(
    change: &Change,
    group: &str,
    what: Privacy,
) -> Result<(Changed, Option<PathBuf>), CharterError> {
    let charter = read_file(&change.dir)?;
    let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
    let same = match what {
        Privacy::Private => doc.private.is_some(),
        Privacy::Public => doc.private.is_none(),
        Privacy::NewKey => false,
    };
    if same {
        return Ok((Changed::nothing(), None));
    }
    let mut made = None;
    doc.private = None;
    if what != Privacy::Public {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).map_err(|e| KeyError::Random(e.to_string()))?;
        let key = GroupKey::from_bytes(*bytes);
        doc.private = Some(key.id());
        // On disk before a document names it: nobody must seal with a key that is lost.
        made = (!change.dry_run).then(|| write_key(&change.dir, group, &key)).transpose()?;
    }
    let changed = change.make_group(&charter, doc)?;
    if changed.outcome == Outcome::AlreadySo {
        made = None;
    }
    Ok((changed, made))
}

/// What the newest documents and the files beside them say of a group's key.
pub(crate) fn sealing_key<'a>(
    keys: &'a Keyring,
    id: GroupKeyId,
    group: &str,
) -> Result<&'a GroupKey, crate::feed::FeedError> {
    keys.get(&id).ok_or_else(|| crate::feed::FeedError::NoGroupKey(group.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter::{InitOptions, Life, init, open};
    use tempfile::TempDir;

    const NOW: u64 = 1_800_000_000;

    /// T112: a group becomes private, gets another key, and is public again; the keys are files
    /// that only their owner reads, and documents name their hashes.
    #[test]
    fn t112_a_group_becomes_private() {
        let dir = TempDir::new().unwrap();
        let options = InitOptions {
            groups: vec!["web".parse().unwrap()],
            ..crate::charter::tests::options(&dir)
        };
        init(&options, NOW).unwrap();
        let change = crate::charter::tests::change(options.dir, Life::days(NOW, 10));
        let named = || read_file(&change.dir).unwrap().groups.into_values().next().unwrap().private;
        let (changed, file) = privacy(&change, "web", Privacy::Private).unwrap();
        assert_eq!(changed.outcome, Outcome::Made);
        let file = file.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let first = named().unwrap();
        assert_eq!(read_key(&file).unwrap().id(), first);
        assert!(open(&change.dir).unwrap().0.keys.get(&first).is_some());
        let again = privacy(&change, "web", Privacy::Private).unwrap();
        assert_eq!((again.0.outcome, again.1), (Outcome::AlreadySo, None));
        privacy(&change, "web", Privacy::NewKey).unwrap();
        assert_ne!(named(), Some(first));
        assert_eq!(open(&change.dir).unwrap().0.keys.len(), 2, "the old one is kept");
        privacy(&change, "web", Privacy::Public).unwrap();
        assert_eq!(named(), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(&change.dir).is_err(), "a key that others read is not used");
    }
}
