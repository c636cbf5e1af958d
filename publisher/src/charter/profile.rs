//! The directory of a publisher: the charter's bundle, and `publisher.toml`, which says who of the
//! charter's publishers works here and with which key.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stork_origin::Address;
use stork_wire::ids::{FleetId, GroupId, PublisherId};
use stork_wire::item::Item;

use super::files::{read_bounded, save_bundle, write_new};
use super::{Charter, CharterError};
use crate::bundle::{BUNDLE_LEN_MAX, read_bundle};
use crate::keys::is_file_spec;

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
    /// The release key: a file relative to the directory, `ssh-agent:…` or `exec:…`.
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

/// Reads a bundle, or that of a directory, and believes nothing of it.
pub(super) fn read_items(path: &Path) -> Result<Vec<Item>, CharterError> {
    let path: PathBuf = if path.is_dir() { path.join(BUNDLE_FILE) } else { path.into() };
    let bytes = read_bounded(&path, BUNDLE_LEN_MAX as u64)?;
    let items = read_bundle(&bytes);
    items.map_err(|source| CharterError::Bundle { path, source })
}

/// Reads and checks a charter: a bundle, or a directory with one.
pub fn read_file(path: &Path) -> Result<Charter, CharterError> {
    Charter::from_items(&read_items(path)?)
}

/// Writes a profile into a directory that has none.
pub(super) fn save_profile(dir: &Path, profile: &Profile) -> Result<(), CharterError> {
    let path = dir.join(PROFILE_FILE);
    let text = toml::to_string(profile)
        .map_err(|e| CharterError::Profile { path: path.clone(), why: e.to_string() })?;
    write_new(&path, text.as_bytes())
}

/// Makes a directory with a bundle the one from which a publisher of that charter works: with the
/// groups that grant it something.
pub fn write_profile(
    dir: &Path,
    publisher: &str,
    release_key: Option<String>,
) -> Result<Profile, CharterError> {
    let charter = read_file(dir)?;
    let publisher = charter.publisher_named(publisher)?;
    let grants = charter
        .groups
        .iter()
        .filter(|(_, d)| d.publishers.iter().any(|g| g.publisher == publisher));
    let groups = grants.map(|(id, d)| GroupName { id: *id, name: d.name.to_string() }).collect();
    let profile = Profile {
        fleet: charter.fleet,
        publisher,
        release_key,
        origin: None,
        origin_credentials: None,
        groups,
    };
    save_profile(dir, &profile)?;
    Ok(profile)
}

/// Writes what a build job needs beside its key, which is named here: the bundle, and a profile.
/// What the profile says of an origin stays; its credentials are the job's own.
pub(crate) fn write_job(
    dir: &Path,
    charter: &Charter,
    profile: &Profile,
    key: &str,
) -> Result<(), CharterError> {
    let (release_key, origin_credentials) = (Some(key.to_owned()), None);
    let profile = Profile { release_key, origin_credentials, ..profile.clone() };
    save_profile(dir, &profile)?;
    save_bundle(&dir.join(BUNDLE_FILE), charter)
}

/// Reads a publisher's directory and checks that profile and charter belong together.
pub fn open(dir: &Path) -> Result<(Charter, Profile), CharterError> {
    let path = dir.join(PROFILE_FILE);
    let wrong = |why: String| CharterError::Profile { path: path.clone(), why };
    let bytes = read_bounded(&path, PROFILE_LEN_MAX)?;
    let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    let mut profile: Profile = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let mut charter = read_file(dir)?;
    charter.keys = super::private::read_keys(dir)?;
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
        let key =
            if is_file_spec(&key) { dir.join(&key).to_string_lossy().into_owned() } else { key };
        profile.release_key = Some(key);
    }
    Ok((charter, profile))
}
