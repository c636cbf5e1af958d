//! The directory of a publisher: the charter's bundle, and `publisher.toml`, which says who of the
//! charter's publishers works here and with which key.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stork_origin::Address;
use stork_wire::ids::{FleetId, GroupId, PublisherId};

use super::{Charter, CharterError};
use crate::bundle::{BUNDLE_LEN_MAX, read_bundle};

/// The bundle's name inside the directory.
pub const BUNDLE_FILE: &str = "charter.bundle";
/// The profile's name inside the directory.
pub const PROFILE_FILE: &str = "publisher.toml";
const PROFILE_LEN_MAX: u64 = 64 * 1024;

/// Who publishes from this directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The fleet.
    pub fleet: FleetId,
    /// The publisher.
    pub publisher: PublisherId,
    /// The release key: a file relative to the directory, or `ssh-agent:…`.
    pub release_key: Option<String>,
    /// The object store that gets every content as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Address>,
    /// A file with credentials for it, relative to the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_credentials: Option<PathBuf>,
    /// Groups to publish to when none is named.
    #[serde(default, rename = "group")]
    pub groups: Vec<GroupName>,
}

/// A group by id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupName {
    /// Its id.
    pub id: GroupId,
    /// Its name, for people.
    pub name: String,
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, CharterError> {
    let failed = |source| CharterError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(failed(std::io::Error::other("it is too long")));
    }
    Ok(bytes)
}

/// Reads and checks a charter: a bundle, or a directory with one.
pub fn read_file(path: &Path) -> Result<Charter, CharterError> {
    let path: PathBuf = if path.is_dir() { path.join(BUNDLE_FILE) } else { path.into() };
    let bytes = read_bounded(&path, BUNDLE_LEN_MAX as u64)?;
    let items = read_bundle(&bytes);
    let items = items.map_err(|source| CharterError::Bundle { path, source })?;
    Charter::from_items(&items)
}

/// Reads a publisher's directory and checks that profile and charter belong together.
pub fn open(dir: &Path) -> Result<(Charter, Profile), CharterError> {
    let path = dir.join(PROFILE_FILE);
    let wrong = |why: String| CharterError::Profile { path: path.clone(), why };
    let bytes = read_bounded(&path, PROFILE_LEN_MAX)?;
    let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    let mut profile: Profile = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let charter = read_file(dir)?;
    if charter.fleet != profile.fleet {
        return Err(wrong("the bundle is of another fleet".into()));
    }
    if !charter.publishers.contains_key(&profile.publisher) {
        return Err(wrong("the bundle has no such publisher".into()));
    }
    if let Some(group) = profile.groups.iter().find(|g| !charter.groups.contains_key(&g.id)) {
        return Err(wrong(format!("the bundle has no group `{}`", group.name)));
    }
    if let Some(key) = profile.release_key.take() {
        let is_file = !key.starts_with("ssh-agent:");
        let key = if is_file { dir.join(&key).to_string_lossy().into_owned() } else { key };
        profile.release_key = Some(key);
    }
    Ok((charter, profile))
}
