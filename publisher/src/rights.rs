//! What a release key may do now, by the newest documents: asked before anything is packed or
//! signed, so that a node need not refuse it.

use stork_wire::charter::{GroupDoc, PublisherGrant, ReleaseKey, UnixSeconds};
use stork_wire::ids::{GroupId, PublicKey};
use stork_wire::text::PackageName;

use crate::delegate::Via;
use crate::feed::{Author, FeedError};
use crate::source::Package;

impl Author<'_> {
    /// What the newest document says of a release key that may sign now.
    pub(crate) fn release_key(
        &self,
        key: PublicKey,
        now: UnixSeconds,
    ) -> Result<&ReleaseKey, FeedError> {
        let usable =
            |k: &&ReleaseKey| k.key == key && k.valid_through.is_none() && now < k.not_after;
        let found = self.doc.release_keys.iter().find(usable);
        found.ok_or_else(|| FeedError::NoReleaseKey(crate::keys::fingerprint(&key)))
    }

    /// What a group grants for this package: to the publisher itself, or to one who delegates it.
    fn grant<'g>(&self, group: &'g GroupDoc, package: &str) -> Option<&'g PublisherGrant> {
        let names = |g: &&PublisherGrant| g.packages.iter().any(|p| p.matches(package));
        let mut all = group.publishers.iter();
        let own = all.clone().find(|g| g.publisher == self.publisher);
        let delegated = |g: &&PublisherGrant| {
            let doc = self.charter.publishers.get(&g.publisher);
            let mut all = doc.into_iter().flat_map(|d| d.delegations.iter());
            all.any(|d| d.to == self.publisher && d.names(package))
        };
        own.filter(names).or_else(|| all.find(|g| names(g) && delegated(g))).or(own)
    }

    /// May this key, a delegated one if it has a certificate, publish this package to these groups
    /// now?
    pub fn may_publish(
        &self,
        (key, via): (PublicKey, Option<&Via>),
        package: &Package,
        groups: &[GroupId],
        now: UnixSeconds,
    ) -> Result<(), FeedError> {
        let name = package.name.as_str();
        let release_key = match via {
            Some(via) => self.voucher(via, key, (name, now))?,
            None => self.release_key(key, now)?,
        };
        if now >= self.doc.expires {
            return Err(FeedError::Expired("publisher document".into()));
        }
        let denied = |who: String| FeedError::Name { who, name: name.to_owned() };
        if !release_key.packages.iter().any(|p| p.matches(name)) {
            return Err(denied("the release key".into()));
        }
        for id in groups {
            let Some(group) = self.charter.groups.get(id) else {
                return Err(FeedError::NoGrant(id.short()));
            };
            let title = group.name.to_string();
            if now >= group.expires {
                return Err(FeedError::Expired(format!("document of group `{title}`")));
            }
            let grant = self.grant(group, name).ok_or_else(|| FeedError::NoGrant(title.clone()))?;
            if !grant.packages.iter().any(|p| p.matches(name)) {
                return Err(denied(format!("group `{title}`")));
            }
            // As nodes have it: a name that the publisher may use for a package of its own is not
            // one that another package may claim.
            let others = package.provides.iter().filter(|provided| {
                let granted = grant.provides.iter().any(|p| p.matches(provided.as_str()));
                !granted && **provided != package.name
            });
            let names: Vec<String> = others.map(|p| format!("`{p}`")).collect();
            if !names.is_empty() {
                let (publisher, names) = (grant.name.to_string(), names.join(", "));
                return Err(FeedError::Provides { group: title, publisher, names });
            }
            let (len, max) = (package.unpacked_bytes(), grant.release_bytes_max);
            if max > 0 && len > max {
                return Err(FeedError::TooLarge { group: title, max, len });
            }
        }
        Ok(())
    }

    /// May this key withdraw releases of this package now?
    pub fn may_recall(
        &self,
        key: PublicKey,
        package: &PackageName,
        now: UnixSeconds,
    ) -> Result<(), FeedError> {
        let release_key = self.release_key(key, now)?;
        if release_key.packages.iter().any(|p| p.matches(package.as_str())) {
            return Ok(());
        }
        Err(FeedError::Name { who: "the release key".into(), name: package.to_string() })
    }

    /// May this key halt all that is released now?
    pub fn may_halt(&self, key: PublicKey, now: UnixSeconds) -> Result<(), FeedError> {
        self.release_key(key, now).map(|_| ())
    }
}
