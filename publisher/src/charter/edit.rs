//! Groups, publishers and what groups grant them: each change makes the documents that say so, and
//! hands them on to be signed. What a charter says already is not said again.

use std::path::PathBuf;

use stork_wire::charter::{BODY_VERSION, GroupDoc, PublisherDoc, PublisherGrant, Role, RootDoc};
use stork_wire::codec::List;
use stork_wire::ids::{GroupId, ItemHash, LogId, PublisherId};
use stork_wire::text::{GroupName, Label, Pattern};

use super::change::{Change, Changed};
use super::init::patterns;
use super::ledger::Doc;
use super::rotate::with_release_keys;
use super::{Charter, CharterError, RoleChange, RoleName, open, read_file};

/// What a group lets a publisher do.
#[derive(Debug, Clone, Default)]
pub struct Granted {
    /// Package names; all if empty.
    pub packages: Vec<Pattern>,
    /// Names that packages may provide beside their own.
    pub provides: Vec<Pattern>,
    /// Unpacked bytes of one release; 0 is no limit.
    pub release_bytes_max: u64,
}

/// A publisher that a charter does not have yet.
#[derive(Debug, Clone)]
pub struct NewPublisher {
    /// Its name.
    pub name: Label,
    /// Public halves of its root keys.
    pub root_keys: Vec<PathBuf>,
    /// How many of them sign.
    pub threshold: u8,
    /// Public halves of its release keys.
    pub release_keys: Vec<PathBuf>,
    /// Groups that grant it something.
    pub groups: Vec<String>,
}

/// The hash of a document of a log.
pub(super) fn hash_of(
    charter: &Charter,
    log: LogId,
    number: u64,
) -> Result<ItemHash, CharterError> {
    let found = charter.items.iter().find(|i| i.log == log && i.seq == number);
    let missing = || CharterError::Broken(format!("document {number} of a log is missing"));
    found.map(|i| i.envelope.hash()).ok_or_else(missing)
}

pub(super) fn group_id(charter: &Charter, name: &str) -> Result<GroupId, CharterError> {
    charter.group_named(name).ok_or_else(|| CharterError::NoSuch(format!("group `{name}`")))
}

impl Change {
    pub(super) fn next_root(&self, charter: &Charter) -> Result<RootDoc, CharterError> {
        let old = &charter.root;
        let prev = Some(hash_of(charter, LogId::root(charter.fleet), old.number)?);
        let expires = self.life.expires.max(old.expires);
        Ok(RootDoc {
            number: old.number + 1,
            prev,
            issued: self.life.issued,
            expires,
            ..old.clone()
        })
    }

    pub(super) fn next_group(
        &self,
        charter: &Charter,
        id: GroupId,
    ) -> Result<GroupDoc, CharterError> {
        let missing = || CharterError::NoSuch(format!("group {}", id.short()));
        let old = charter.groups.get(&id).ok_or_else(missing)?;
        let prev = Some(hash_of(charter, LogId::group(id), old.number)?);
        let expires = self.life.expires.max(old.expires);
        Ok(GroupDoc {
            number: old.number + 1,
            prev,
            issued: self.life.issued,
            expires,
            // What a document lifts stays lifted without being named again.
            lifts: List::empty(),
            ..old.clone()
        })
    }

    pub(super) fn next_publisher(
        &self,
        charter: &Charter,
        id: PublisherId,
    ) -> Result<PublisherDoc, CharterError> {
        let missing = || CharterError::NoSuch(format!("publisher {}", id.short()));
        let old = charter.publishers.get(&id).ok_or_else(missing)?;
        let prev = Some(hash_of(charter, LogId::publisher(id), old.number)?);
        let (issued, expires) = (self.life.issued, self.life.expires.max(old.expires));
        Ok(PublisherDoc { number: old.number + 1, prev, issued, expires, ..old.clone() })
    }

    /// The publisher that is named, or that of `publisher.toml`.
    pub(super) fn publisher(
        &self,
        charter: &Charter,
        name: Option<&str>,
    ) -> Result<PublisherId, CharterError> {
        match name {
            Some(name) => charter.publisher_named(name),
            None => Ok(open(&self.dir)?.1.publisher),
        }
    }

    pub(super) fn make_group(
        &self,
        charter: &Charter,
        doc: GroupDoc,
    ) -> Result<Changed, CharterError> {
        let name = format!("group-{}-{}", doc.name, doc.number);
        self.make(charter, &[Doc::Group(doc)], &name)
    }

    pub(super) fn make_publisher(
        &self,
        charter: &Charter,
        doc: PublisherDoc,
    ) -> Result<Changed, CharterError> {
        let name = format!("publisher-{}-{}", doc.name, doc.number);
        self.make(charter, &[Doc::Publisher(doc)], &name)
    }
}

fn granted(
    charter_name: Label,
    publisher: PublisherId,
    what: &Granted,
) -> Result<PublisherGrant, CharterError> {
    Ok(PublisherGrant {
        publisher,
        name: charter_name,
        packages: patterns(&what.packages)?,
        provides: List::new(what.provides.clone())?,
        release_bytes_max: what.release_bytes_max,
    })
}

/// A group's grants with this one in its place.
fn with_grant(doc: &mut GroupDoc, grant: PublisherGrant) -> Result<(), CharterError> {
    let mut all = doc.publishers.to_vec();
    all.retain(|g| g.publisher != grant.publisher);
    all.push(grant);
    all.sort_by_key(|g| g.publisher);
    doc.publishers = List::new(all)?;
    Ok(())
}

/// Founds a group; its authority is that which the root document names for it.
pub fn add_group(
    change: &Change,
    name: &GroupName,
    publishers: &[String],
    what: &Granted,
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    if charter.group_named(name.as_str()).is_some() {
        return Ok(Changed::nothing());
    }
    let authority = charter.root.authorities.iter().find(|a| a.names.matches(name.as_str()));
    let nobody = || CharterError::NoSuch(format!("authority that may found group `{name}`"));
    let mut doc = GroupDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: name.clone(),
        issued: change.life.issued,
        expires: change.life.expires,
        authority: authority.ok_or_else(nobody)?.role.clone(),
        publishers: List::empty(),
        veto: List::empty(),
        lifts: List::empty(),
        private: None,
        beacon_s: None,
    };
    for publisher in publishers {
        let id = charter.publisher_named(publisher)?;
        let title = charter.publishers.get(&id).map(|d| d.name.clone());
        if let Some(title) = title {
            with_grant(&mut doc, granted(title, id, what)?)?;
        }
    }
    change.make_group(&charter, doc)
}

/// Lets a publisher publish to a group, or changes what it may.
pub fn grant(
    change: &Change,
    group: &str,
    publisher: &str,
    what: &Granted,
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let id = charter.publisher_named(publisher)?;
    let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
    let old = doc.publishers.clone();
    let title = charter.publishers.get(&id).map(|d| d.name.clone());
    let title = title.ok_or_else(|| CharterError::NoSuch(format!("publisher `{publisher}`")))?;
    with_grant(&mut doc, granted(title, id, what)?)?;
    if doc.publishers == old { Ok(Changed::nothing()) } else { change.make_group(&charter, doc) }
}

/// Takes away what a group lets a publisher do. What was published stays valid; nothing more of it
/// is installed.
pub fn ungrant(change: &Change, group: &str, publisher: &str) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
    // A name in the group itself counts too: its publisher may be unknown here.
    let named =
        |g: &PublisherGrant| g.publisher.to_string() == publisher || g.name.as_str() == publisher;
    let kept: Vec<PublisherGrant> = doc.publishers.iter().filter(|g| !named(g)).cloned().collect();
    match doc.publishers.len() - kept.len() {
        0 => Ok(Changed::nothing()),
        1 => {
            doc.publishers = List::new(kept)?;
            change.make_group(&charter, doc)
        }
        _ => {
            let why = format!("several publishers are called `{publisher}`: name one by its id");
            Err(CharterError::Usage(why))
        }
    }
}

/// A new publisher, and what groups grant it.
pub fn add_publisher(
    change: &Change,
    new: &NewPublisher,
    what: &Granted,
) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    if charter.publishers.values().any(|d| d.name == new.name) {
        let why =
            format!("there is a publisher `{}`: `charter grant` changes what it may", new.name);
        return Err(CharterError::Usage(why));
    }
    let root = Role { keys: List::empty(), threshold: 1 };
    let keys = RoleChange {
        add: new.root_keys.clone(),
        remove: Vec::new(),
        threshold: Some(new.threshold),
        stolen: false,
    };
    let root = keys.apply(&RoleName::Publisher(Some(new.name.to_string())), &root)?;
    let doc = PublisherDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: new.name.clone(),
        issued: change.life.issued,
        expires: change.life.expires,
        root,
        epoch: 1,
        survivor: None,
        release_keys: List::empty(),
        beacon_keys: List::empty(),
        homes: List::empty(),
        delegations: List::empty(),
        compacts: None,
    };
    let doc = with_release_keys(doc, &new.release_keys, &what.packages, change.life.expires)?;
    let id = doc.publisher_id();
    let mut docs = vec![Doc::Publisher(doc)];
    for group in &new.groups {
        let mut doc = change.next_group(&charter, group_id(&charter, group)?)?;
        with_grant(&mut doc, granted(new.name.clone(), id, what)?)?;
        docs.push(Doc::Group(doc));
    }
    change.make(&charter, &docs, &format!("publisher-{}-1", new.name))
}
