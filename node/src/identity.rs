//! Who this node is: its key, bound to this machine, and its certificate.
//!
//! `node.key` holds the seed of the Ed25519 key and a hash of the machine's id. A disk image that
//! was cloned with its state folder would give two hosts one key; the second one is refused at
//! start until it is re-keyed (design §4 "Hosts").

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use stork_wire::ids::{NodeId, hex, unhex};
use stork_wire::sign::SecretKey;
use zeroize::Zeroizing;

const HEADER: &str = "stork node key v1";

/// The node's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot use the key {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no node key.
    #[error("{0}: this is no node key")]
    Malformed(PathBuf),
    /// Others may read the key.
    #[error("{0}: others than its owner may read this key")]
    Exposed(PathBuf),
    /// The key was made on another machine.
    #[error("{0}: this key was made on another machine: was the disk cloned?")]
    Cloned(PathBuf),
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
}

impl IdentityError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the folder's owner and permissions, and the free space",
            Self::Malformed(_) => "restore it from a backup, or remove it and join again",
            Self::Exposed(_) => "chmod 600 the file; if others may have read it, join again",
            Self::Cloned(_) => {
                "give this machine an id of its own (`systemd-machine-id-setup`), then a key: \
                 `stork-node rekey` with a new token; content and views stay"
            }
            Self::Random => "check /dev/urandom",
        }
    }

    /// The exit code (design §11).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exposed(_) => 77,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Cloned(_) => 78,
            Self::Io { .. } | Self::Malformed(_) | Self::Random => 1,
        }
    }
}

/// The file that names this machine, as systemd and dbus keep it.
fn machine_hash() -> String {
    let id = fs::read("/etc/machine-id").or_else(|_e| fs::read("/var/lib/dbus/machine-id"));
    let id = id.unwrap_or_default();
    let trimmed = id.trim_ascii();
    if trimmed.is_empty() {
        return "none".to_owned();
    }
    // The machine id itself is confidential (machine-id(5)): only a keyed hash is kept.
    hex(&blake3::derive_key("stork 2026 machine id v1", trimmed))
}

/// Fills a seed with random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_e| IdentityError::Random)?;
    Ok(bytes)
}

/// The node's key; made where there is none.
pub fn open_or_create(state: &Path) -> Result<SecretKey, IdentityError> {
    let path = state.join("node.key");
    match read(&path) {
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(&path)
        }
        other => other,
    }
}

fn read(path: &Path) -> Result<SecretKey, IdentityError> {
    let at = |source| IdentityError::Io { path: path.to_owned(), source };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(at)?);
    if fs::metadata(path).map_err(at)?.mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed(path.to_owned()));
    }
    let malformed = || IdentityError::Malformed(path.to_owned());
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(malformed());
    }
    let seed = lines.next().and_then(|l| l.strip_prefix("seed ")).and_then(unhex);
    let seed = seed.map(Zeroizing::new);
    let seed = seed.and_then(|s| <[u8; 32]>::try_from(s.as_slice()).ok().map(Zeroizing::new));
    let seed = seed.ok_or_else(malformed)?;
    let machine = lines.next().and_then(|l| l.strip_prefix("machine ")).ok_or_else(malformed)?;
    if machine != machine_hash() {
        return Err(IdentityError::Cloned(path.to_owned()));
    }
    Ok(SecretKey::from_seed(&seed))
}

fn create(path: &Path) -> Result<SecretKey, IdentityError> {
    let key = fresh()?;
    write_seed(path, &key.seed())?;
    Ok(key)
}

/// A new key, which is nowhere yet.
pub fn fresh() -> Result<SecretKey, IdentityError> {
    Ok(SecretKey::from_seed(&Zeroizing::new(random::<32>()?)))
}

/// Puts a key in the place of the node's own. An admission key of another machine goes: it came
/// with the cloned folder.
pub fn replace(state: &Path, key: &SecretKey) -> Result<(), IdentityError> {
    if matches!(admission_key(state), Err(IdentityError::Cloned(_))) {
        forget_admission_key(state)?;
    }
    write_seed(&state.join("node.key"), &key.seed())
}

/// Takes the admission key away. Says whether there was one.
pub fn forget_admission_key(state: &Path) -> Result<bool, IdentityError> {
    let path = state.join("admission.key");
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(IdentityError::Io { path, source }),
    }
    let sync = fs::File::open(state).and_then(|d| d.sync_all());
    sync.map(|()| true).map_err(|source| IdentityError::Io { path, source })
}

/// Keeps the admission key beside the node's own, on a host that admits others.
pub fn keep_admission_key(state: &Path, key: &SecretKey) -> Result<(), IdentityError> {
    write_seed(&state.join("admission.key"), &key.seed())
}

/// The admission key, on a host that has it.
pub fn admission_key(state: &Path) -> Result<Option<SecretKey>, IdentityError> {
    match read(&state.join("admission.key")) {
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn write_seed(path: &Path, seed: &[u8; 32]) -> Result<(), IdentityError> {
    let at = |source| IdentityError::Io { path: path.to_owned(), source };
    let text =
        Zeroizing::new(format!("{HEADER}\nseed {}\nmachine {}\n", hex(seed), machine_hash()));
    // Written under another name first, so that the name means a whole key, the old one or this.
    let temp = path.with_extension("key.new");
    drop(fs::remove_file(&temp));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp).map_err(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at)?;
    fs::rename(&temp, path).map_err(at)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(at)?;
    }
    Ok(())
}

/// The node id of a key.
#[must_use]
pub fn node_id(key: &SecretKey) -> NodeId {
    NodeId(key.public().0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// T111 and the cloned image: the key is kept, 0600, and refused when exposed or moved.
    #[test]
    fn t111_the_key_is_kept_and_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let first = open_or_create(dir.path()).unwrap();
        assert_eq!(open_or_create(dir.path()).unwrap().public(), first.public());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open_or_create(dir.path()), Err(IdentityError::Exposed(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let (head, _) = text.split_once("machine ").unwrap();
        fs::write(&path, format!("{head}machine {}\n", "0".repeat(64))).unwrap();
        assert!(matches!(open_or_create(dir.path()), Err(IdentityError::Cloned(_))));
        fs::write(&path, "x").unwrap();
        assert!(matches!(open_or_create(dir.path()), Err(IdentityError::Malformed(_))));
    }
}
