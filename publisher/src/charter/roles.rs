//! Roles by name, and what is changed about one: keys added or taken away, another threshold.

use core::fmt;
use core::str::FromStr;
use std::path::{Path, PathBuf};

use stork_wire::charter::{PastKey, Role};
use stork_wire::codec::List;
use stork_wire::ids::PublicKey;

use super::CharterError;
use crate::keys::{fingerprint, read_public};

/// A role of a charter, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleName {
    /// `root`: who signs root documents.
    Root,
    /// `admission`: who admits hosts.
    Admission,
    /// `authority`: who founds groups.
    Authority,
    /// `group:NAME`: who signs the documents of a group.
    Group(String),
    /// `publisher` or `publisher:NAME`: who signs the documents of a publisher.
    Publisher(Option<String>),
}

impl FromStr for RoleName {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            None if s == "root" => Ok(Self::Root),
            None if s == "admission" => Ok(Self::Admission),
            None if s == "authority" => Ok(Self::Authority),
            None if s == "publisher" => Ok(Self::Publisher(None)),
            Some(("group", name)) if !name.is_empty() => Ok(Self::Group(name.into())),
            Some(("publisher", name)) if !name.is_empty() => Ok(Self::Publisher(Some(name.into()))),
            _ => Err(format!(
                "`{s}` is no role: root, admission, authority, group:NAME, publisher or \
                 publisher:NAME is expected"
            )),
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Admission => f.write_str("admission"),
            Self::Authority => f.write_str("authority"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Publisher(None) => f.write_str("publisher"),
            Self::Publisher(Some(name)) => write!(f, "publisher:{name}"),
        }
    }
}

/// What is changed about a role.
#[derive(Debug, Clone, Default)]
pub struct RoleChange {
    /// Public keys to add.
    pub add: Vec<PathBuf>,
    /// Keys to take away: a file, a fingerprint, a key id, or a public key.
    pub remove: Vec<String>,
    /// Another threshold.
    pub threshold: Option<u8>,
    /// Admission only: what the keys that are taken away have signed is void at once.
    pub stolen: bool,
}

/// A key as somebody typed it.
#[derive(Debug)]
pub(super) enum Called<'a> {
    /// By the file with its public half.
    File(PublicKey),
    /// By its fingerprint, its key id (ten digits of it are enough, as tables show them) or itself.
    Text(&'a str),
}

impl<'a> Called<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, CharterError> {
        let path = Path::new(text);
        if path.is_file() { Ok(Self::File(read_public(path)?.0)) } else { Ok(Self::Text(text)) }
    }

    pub(super) fn is(&self, key: &PublicKey) -> bool {
        match self {
            Self::File(k) => k == key,
            Self::Text(name) => {
                let id = key.key_id().to_string();
                *name == fingerprint(key)
                    || *name == key.to_string()
                    || (name.len() >= 10 && id.starts_with(name))
            }
        }
    }
}

impl RoleChange {
    /// Earlier admission keys that turned out to be stolen, and the change without them.
    pub(super) fn split_earlier(
        &self,
        earlier: &[PastKey],
    ) -> Result<(Vec<PublicKey>, Self), CharterError> {
        let mut doomed = Vec::new();
        let mut rest = self.clone();
        if self.stolen {
            rest.remove.clear();
            for name in &self.remove {
                let called = Called::read(name)?;
                match earlier.iter().find(|p| called.is(&p.key)) {
                    Some(past) => doomed.push(past.key),
                    None => rest.remove.push(name.clone()),
                }
            }
        }
        Ok((doomed, rest))
    }

    /// The role after the change.
    pub(super) fn apply(&self, name: &RoleName, old: &Role) -> Result<Role, CharterError> {
        let mut keys = old.keys.to_vec();
        for key in &self.remove {
            let called = Called::read(key)?;
            if !old.keys.iter().any(|k| called.is(k)) {
                return Err(CharterError::NoSuch(format!("key `{key}` in the role {name}")));
            }
            keys.retain(|k| !called.is(k));
        }
        for file in &self.add {
            keys.push(read_public(file)?.0);
        }
        keys.sort_unstable();
        keys.dedup();
        let threshold = self.threshold.unwrap_or(old.threshold);
        check_threshold(name, threshold, keys.len())?;
        Ok(Role { keys: List::new(keys)?, threshold })
    }
}

/// A threshold that so many keys can meet.
pub(super) fn check_threshold(
    role: &RoleName,
    threshold: u8,
    keys: usize,
) -> Result<(), CharterError> {
    if threshold == 0 || usize::from(threshold) > keys {
        let s = if keys == 1 { "" } else { "s" };
        let why = format!(
            "{threshold} cannot sign for the role {role}, which has {keys} key{s}: give another \
             --threshold, or more keys"
        );
        return Err(CharterError::Usage(why));
    }
    Ok(())
}
