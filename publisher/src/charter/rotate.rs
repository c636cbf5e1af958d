//! Keys that change: those of roles, release keys that are added, and documents that are renewed.
//!
//! Nothing here takes a release key away: that is a new epoch.

use std::path::PathBuf;

use stork_wire::charter::{PastKey, PublisherDoc, ReleaseKey, RootDoc};
use stork_wire::codec::List;
use stork_wire::ids::PublicKey;
use stork_wire::text::Pattern;

use super::change::{Change, Changed};
use super::edit::group_id;
use super::init::patterns;
use super::ledger::Doc;
use super::{CharterError, RoleChange, RoleName, read_file};
use crate::keys::read_public;

/// Adds release keys, or widens them. Nothing is taken from those that are there.
pub(super) fn with_release_keys(
    mut doc: PublisherDoc,
    files: &[PathBuf],
    packages: &[Pattern],
    not_after: u64,
) -> Result<PublisherDoc, CharterError> {
    let mut keys = doc.release_keys.to_vec();
    for file in files {
        let key = read_public(file)?.0;
        let mut new =
            ReleaseKey { key, packages: patterns(packages)?, not_after, valid_through: None };
        if let Some(old) = keys.iter().find(|k| k.key == key) {
            let more = packages.iter().filter(|p| !old.packages.contains(p));
            new.packages = List::new(old.packages.iter().chain(more).cloned().collect())?;
            new.not_after = not_after.max(old.not_after);
        }
        keys.retain(|k| k.key != key);
        keys.push(new);
    }
    keys.sort_by_key(|k| k.key);
    doc.release_keys = List::new(keys)?;
    Ok(doc)
}

/// Adds release keys of a publisher, or names that one may release, within its epoch.
pub fn rotate_release(
    change: &Change,
    publisher: Option<&str>,
    files: &[PathBuf],
    packages: &[Pattern],
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let id = change.publisher(&charter, publisher)?;
    let next = change.next_publisher(&charter, id)?;
    let old = next.release_keys.clone();
    let doc = with_release_keys(next, files, packages, change.life.expires)?;
    if doc.release_keys == old {
        return Ok(Changed::nothing());
    }
    change.make_publisher(&charter, doc)
}

/// Seconds for which certificates of an earlier admission key are believed: as long as one lives.
const EARLIER_S: u64 = 30 * 86_400;

/// Admission keys that are taken away, unless they were stolen, and those of before whose time has
/// not come yet.
fn earlier_keys(old: &RootDoc, new: &RootDoc, stolen: bool) -> Vec<PastKey> {
    let in_use = |k: &PublicKey| new.admission.keys.contains(k);
    let taken = old.admission.keys.iter().filter(|k| !stolen && !in_use(k));
    let taken = taken.map(|k| PastKey { key: *k, until: new.issued.saturating_add(EARLIER_S) });
    let before = old.admission_before.iter().filter(|p| p.until > new.issued && !in_use(&p.key));
    let mut all: Vec<PastKey> = taken.chain(before.cloned()).collect();
    all.sort_unstable();
    all.dedup_by_key(|p| p.key);
    all
}

/// Changes the keys of a role, or its threshold.
pub fn rotate(
    change: &Change,
    role: &RoleName,
    what: &RoleChange,
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    match role {
        RoleName::Root | RoleName::Admission | RoleName::Authority => {
            let mut doc = change.next_root(&charter)?;
            match role {
                RoleName::Root => doc.root = what.apply(role, &doc.root)?,
                RoleName::Admission => {
                    let (doomed, what) = what.split_earlier(&doc.admission_before)?;
                    doc.admission = what.apply(role, &doc.admission)?;
                    let mut before = earlier_keys(&charter.root, &doc, what.stolen);
                    before.retain(|p| !doomed.contains(&p.key));
                    doc.admission_before = List::new(before)?;
                }
                _ => {
                    let mut all = doc.authorities.to_vec();
                    for authority in &mut all {
                        authority.role = what.apply(role, &authority.role)?;
                    }
                    doc.authorities = List::new(all)?;
                }
            }
            let old = &charter.root;
            if (&doc.root, &doc.admission, &doc.authorities, &doc.admission_before)
                == (&old.root, &old.admission, &old.authorities, &old.admission_before)
            {
                return Ok(Changed::nothing());
            }
            let name = format!("root-{}", doc.number);
            change.make(&charter, &[Doc::Root(doc)], &name)
        }
        RoleName::Group(name) => {
            let mut doc = change.next_group(&charter, group_id(&charter, name)?)?;
            let new = what.apply(role, &doc.authority)?;
            if new == doc.authority {
                return Ok(Changed::nothing());
            }
            doc.authority = new;
            change.make_group(&charter, doc)
        }
        RoleName::Publisher(name) => {
            let id = change.publisher(&charter, name.as_deref())?;
            let mut doc = change.next_publisher(&charter, id)?;
            let new = what.apply(role, &doc.root)?;
            if new == doc.root {
                return Ok(Changed::nothing());
            }
            doc.root = new;
            change.make_publisher(&charter, doc)
        }
    }
}

/// Says documents again with a later end: those that are named, or all that end before.
pub fn renew(change: &Change, only: &[RoleName]) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let end = change.life.expires;
    let all = only.is_empty();
    let mut docs = Vec::new();
    if all || only.iter().any(|r| matches!(r, RoleName::Root)) {
        docs.push(Doc::Root(change.next_root(&charter)?));
    }
    for (id, doc) in &charter.groups {
        let named = |r: &RoleName| *r == RoleName::Group(doc.name.to_string());
        if all || only.iter().any(named) {
            docs.push(Doc::Group(change.next_group(&charter, *id)?));
        }
    }
    let mut wanted = Vec::new();
    for role in only {
        match role {
            RoleName::Group(name) => drop(group_id(&charter, name)?),
            RoleName::Publisher(name) => wanted.push(change.publisher(&charter, name.as_deref())?),
            RoleName::Root => {}
            other => {
                let why = format!("{other} has no document of its own: renew root");
                return Err(CharterError::Usage(why));
            }
        }
    }
    for id in charter.publishers.keys().filter(|id| all || wanted.contains(id)) {
        let mut doc = change.next_publisher(&charter, *id)?;
        let mut keys = doc.release_keys.to_vec();
        for key in keys.iter_mut().filter(|k| k.valid_through.is_none()) {
            key.not_after = key.not_after.max(end);
        }
        doc.release_keys = List::new(keys)?;
        docs.push(Doc::Publisher(doc));
    }
    // A document that holds as long already need not be said again.
    docs.retain(|doc| match doc {
        Doc::Root(_) => charter.root.expires < end,
        Doc::Group(d) => charter.groups.values().any(|o| o.name == d.name && o.expires < end),
        Doc::Publisher(d) => charter
            .publishers
            .values()
            .filter(|o| o.number + 1 == d.number && o.name == d.name)
            .any(|o| o.expires < end || o.release_keys != d.release_keys),
    });
    if docs.is_empty() {
        return Ok(Changed::nothing());
    }
    let day = crate::out::day(change.life.issued);
    change.make(&charter, &docs, &format!("renewal-{day}"))
}
