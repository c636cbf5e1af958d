//! Attributes: those of the tree in the form of inodes, and what overlayfs reads from them.
//!
//! Overlayfs takes `trusted.overlay.*` of a lower layer as orders: which file gives the bytes, what
//! is removed. A publisher must not give such orders; what a tree has of that name is escaped, so
//! that overlayfs shows it as it was (kernel documentation, overlayfs, "Nesting overlayfs mounts").

use stork_wire::manifest::{TreeEntry, Xattr};

use super::ErofsError;
use super::format::Record;

/// Name spaces and their numbers.
const SPACES: &[(&str, u8)] = &[("user.", 1), ("trusted.", 4), ("security.", 6)];
/// Names that are a number of their own, without a rest.
const WHOLE: &[(&str, u8)] = &[("system.posix_acl_access", 2), ("system.posix_acl_default", 3)];
const TRUSTED: u8 = 4;
/// Bytes of the header of an inode's attributes.
const HEADER: usize = 12;

/// What a name is in an inode: the number of its name space, and the rest.
fn split(name: &str) -> Option<(u8, &str)> {
    let whole = WHOLE.iter().find(|(n, _)| *n == name).map(|(_, number)| (*number, ""));
    whole.or_else(|| {
        let (space, number) = SPACES.iter().find(|(space, _)| name.starts_with(space))?;
        name.strip_prefix(space).filter(|rest| !rest.is_empty()).map(|rest| (*number, rest))
    })
}

fn put(out: &mut Record, space: u8, name: &str, value: &[u8]) -> Option<()> {
    let (name_len, value_len) = (u8::try_from(name.len()).ok()?, u16::try_from(value.len()).ok()?);
    out.u8(name_len).u8(space).u16(value_len).bytes(name.as_bytes()).bytes(value).pad4();
    Some(())
}

/// Who reads the attributes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader<'a> {
    /// Whoever mounts it.
    Anybody,
    /// Overlayfs, which finds the file's bytes at the path, if there are any.
    Overlay(Option<&'a str>),
}

/// The attributes of a file as they stand behind its inode; empty where it has none.
pub(super) fn attributes(
    entry: &TreeEntry,
    xattrs: &[Xattr],
    reader: Reader<'_>,
) -> Result<Vec<u8>, ErofsError> {
    let redirect = match reader {
        Reader::Overlay(redirect) => redirect,
        Reader::Anybody => None,
    };
    if xattrs.is_empty() && redirect.is_none() {
        return Ok(Vec::new());
    }
    let mut out = Record::default();
    out.zeros(HEADER);
    for x in xattrs {
        let name = x.name.as_str();
        let refused =
            || ErofsError::Attribute { path: entry.path.to_string(), name: name.to_owned() };
        let (space, rest) = split(name).ok_or_else(refused)?;
        // The one name space that overlayfs takes orders from.
        let read = space == TRUSTED && reader != Reader::Anybody;
        let escaped = rest.strip_prefix("overlay.").filter(|_| read);
        match escaped {
            Some(rest) => put(&mut out, space, &format!("overlay.overlay.{rest}"), &x.value),
            None => put(&mut out, space, rest, &x.value),
        }
        .ok_or_else(refused)?;
    }
    if let Some(path) = redirect {
        let refused = || ErofsError::Attribute {
            path: entry.path.to_string(),
            name: "trusted.overlay.redirect".to_owned(),
        };
        put(&mut out, TRUSTED, "overlay.metacopy", &[])
            .and_then(|()| put(&mut out, TRUSTED, "overlay.redirect", path.as_bytes()))
            .ok_or_else(refused)?;
    }
    Ok(out.0)
}

/// The count that an inode says: words behind the header and one for it.
pub(super) fn words(attributes: &[u8]) -> Option<u16> {
    if attributes.is_empty() {
        return Some(0);
    }
    u16::try_from(attributes.len().saturating_sub(HEADER) / 4 + 1).ok()
}
