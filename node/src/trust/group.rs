//! A group as its documents have it: what it lets each publisher do, now and ever.
//!
//! A feed's chain is judged by what any version of the group's document allowed, so that every host
//! ends with the same chain, whenever it comes: a document that takes a grant away would else cut
//! the feed at its first entry for this group, for newcomers and at each restart. What VMs show is
//! judged by the newest version, so that what is taken away is gone at once.

use std::collections::BTreeSet;

use stork_wire::charter::{GroupDoc, PublisherGrant};
use stork_wire::feed::Release;
use stork_wire::ids::{GroupId, GroupKeyId, ItemHash, LogId, PublisherId};
use stork_wire::item::Head;
use stork_wire::limits::GROUP_KEYS_MAX;
use stork_wire::sign::Verified;
use stork_wire::text::PackageName;

use super::Refusal;
use super::charter::Current;
use super::deny::Vetoes;

/// Grants of earlier versions that are kept for a group. Beyond it the group takes no document.
const PAST_GRANTS_MAX: usize = 4_096;

/// A group as it stands.
#[derive(Debug, Clone)]
pub struct GroupState {
    id: GroupId,
    pub(super) current: Current<GroupDoc>,
    /// Grants of earlier versions, each once, that the newest does not have just so.
    past: Vec<PublisherGrant>,
    /// Who may deny, and what is lifted.
    pub(super) vetoes: Vetoes,
    /// Keys with which releases for it are sealed, of all versions.
    keys: BTreeSet<GroupKeyId>,
}

/// Why a grant does not allow a release.
enum Lack {
    Name,
    Provides(PackageName),
    Bytes(u64),
}

fn lack(grant: &PublisherGrant, r: &Release) -> Option<Lack> {
    if !grant.packages.iter().any(|p| p.matches(r.package.as_str())) {
        return Some(Lack::Name);
    }
    let provided =
        |p: &&PackageName| **p == r.package || grant.provides.iter().any(|g| g.matches(p.as_str()));
    if let Some(p) = r.provides.iter().find(|p| !provided(p)) {
        return Some(Lack::Provides(p.clone()));
    }
    let limit = grant.release_bytes_max;
    (limit != 0 && r.unpacked_bytes > limit).then_some(Lack::Bytes(limit))
}

impl GroupState {
    pub(super) fn first(id: GroupId, v: Verified<GroupDoc>) -> Self {
        let mut vetoes = Vetoes::default();
        // One document is never too much.
        drop(vetoes.note(&v.body().veto, &v.body().lifts));
        let keys = v.body().private.into_iter().collect();
        Self { id, current: Current::first(v), past: Vec::new(), vetoes, keys }
    }

    /// Takes the next version.
    pub(super) fn replace(&mut self, v: Verified<GroupDoc>) -> Result<ItemHash, Refusal> {
        let new = &v.body().publishers;
        let gone = self.doc().publishers.iter().filter(|g| !new.contains(g));
        let gone: Vec<_> = gone.filter(|g| !self.past.contains(g)).cloned().collect();
        let key = v.body().private;
        let new_key = key.is_some_and(|k| !self.keys.contains(&k));
        let many_keys = new_key && self.keys.len() >= GROUP_KEYS_MAX;
        if self.past.len() + gone.len() > PAST_GRANTS_MAX || many_keys {
            return Err(Refusal::TooMany);
        }
        self.vetoes.note(&v.body().veto, &v.body().lifts)?;
        self.past.extend(gone);
        self.keys.extend(key);
        Ok(self.current.replace(v))
    }

    pub(super) fn head(&self) -> Head {
        self.current.head(LogId::group(self.id))
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> GroupId {
        self.id
    }
    /// Its newest document.
    #[must_use]
    pub const fn doc(&self) -> &GroupDoc {
        &self.current.doc
    }
    /// The keys of its private releases, also earlier ones: what was sealed with them stands.
    pub fn keys(&self) -> impl Iterator<Item = &GroupKeyId> {
        self.keys.iter()
    }
    /// What it lets a publisher do.
    #[must_use]
    pub fn grant(&self, publisher: PublisherId) -> Option<&PublisherGrant> {
        // They are in the order of their ids, as the document was checked for.
        let publishers = &self.doc().publishers;
        let at = publishers.binary_search_by(|p| p.publisher.cmp(&publisher)).ok()?;
        publishers.get(at)
    }
    /// All that any version let a publisher do, the newest first.
    fn grants_ever(&self, publisher: PublisherId) -> impl Iterator<Item = &PublisherGrant> {
        let past = self.past.iter().rev().filter(move |g| g.publisher == publisher);
        self.grant(publisher).into_iter().chain(past)
    }
    /// Has any version named this publisher?
    pub(super) fn ever_named(&self, publisher: PublisherId) -> bool {
        self.grants_ever(publisher).next().is_some()
    }
    /// Does it let the publisher release this now?
    #[must_use]
    pub fn allows(&self, publisher: PublisherId, r: &Release) -> bool {
        self.grant(publisher).is_some_and(|g| lack(g, r).is_none())
    }

    /// Has any version let the publisher release this?
    pub(super) fn ever_allowed(&self, publisher: PublisherId, r: &Release) -> Result<(), Refusal> {
        let mut first = None;
        for grant in self.grants_ever(publisher) {
            match lack(grant, r) {
                None => return Ok(()),
                Some(lack) => first = first.or(Some((grant, lack))),
            }
        }
        let name = &self.doc().name;
        let what = match first {
            None => format!("group `{name}` has no publisher {}", publisher.short()),
            Some((_, Lack::Bytes(limit))) => {
                return Err(Refusal::OverQuota { got: r.unpacked_bytes, limit });
            }
            Some((g, Lack::Name)) => {
                format!("group `{name}` does not let `{}` publish `{}`", g.name, r.package)
            }
            Some((g, Lack::Provides(p))) => {
                format!("group `{name}` does not let `{}` provide `{p}`", g.name)
            }
        };
        Err(Refusal::OutOfScope(what))
    }
}
