//! Quotas: what a publisher or a group may bring to this host, asked before a fetch begins.

use stork_wire::ids::ManifestId;

use super::Driver;
use super::content::{Content, Stage};

/// Does it take room, or is it about to?
fn counts(c: &Content) -> bool {
    c.wanted && !matches!(c.stage, Stage::Idle | Stage::Failed(..))
}

impl Driver {
    /// Why a content may not be fetched now: what it and others of its publisher or group take
    /// together is more than their quota.
    pub(super) fn over_quota(&self, id: ManifestId) -> Option<String> {
        let quota = &self.config.quota;
        let content = self.contents.get(&id).filter(|_| !quota.is_empty())?;
        let taken = |same: &dyn Fn(&Content) -> bool| -> u64 {
            let others = self.contents.iter().filter(|(other, c)| **other != id && counts(c));
            let others = others.filter(|(_, c)| same(c)).map(|(_, c)| c.release.unpacked_bytes);
            others.fold(content.release.unpacked_bytes, u64::saturating_add)
        };
        let told = |what: String, limit: Option<u64>, taken: u64| {
            let limit = limit.filter(|limit| taken > *limit)?;
            Some(format!("over the quota of {what}: {taken} bytes with this, {limit} are allowed"))
        };
        let publisher = content.publisher?;
        let (name, number) =
            (self.trust.charter().publisher_name(publisher), publisher.to_string());
        let limit = quota.publisher(&[&name, &number]);
        let whole = limit.map_or(0, |_| taken(&|c| c.publisher == Some(publisher)));
        told(format!("publisher {name}"), limit, whole).or_else(|| {
            content.release.groups.iter().find_map(|group| {
                let state = self.trust.charter().group(*group)?;
                let name = state.doc().name.as_str();
                let limit = quota.group(name);
                let whole = limit.map_or(0, |_| taken(&|c| c.release.groups.contains(group)));
                told(format!("group {name}"), limit, whole)
            })
        })
    }
}
