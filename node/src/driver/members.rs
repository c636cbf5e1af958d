//! Who takes part in a transfer, by site, as the overlay knows it.

use std::collections::BTreeMap;

use stork_wire::feed::Release;
use stork_wire::text::Label;

use super::Driver;
use crate::transfer::{Members, SiteHosts};

/// A number for a site's name, the same on every host.
fn number(site: &Label) -> u64 {
    let hash = blake3::derive_key("stork 2026 site v1", site.as_str().as_bytes());
    hash.iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b))
}

fn entry<'a>(sites: &'a mut BTreeMap<Label, SiteHosts>, name: &Label) -> &'a mut SiteHosts {
    let new = || SiteHosts { site: number(name), ..SiteHosts::default() };
    sites.entry(name.clone()).or_insert_with(new)
}

impl Driver {
    /// Who wants a release, in this site and in others, and who has it from the publisher.
    ///
    /// In a fleet that fits into the roster every host is known. In a larger one those are that
    /// speak for their sites; then the gateways of this site are those as well, since the others
    /// know no more of it.
    pub(super) fn members(&self, release: &Release) -> Members {
        let (others, origins) = self.candidates(release);
        let wants = self.overlay.interested(&release.groups);
        let mut sites: BTreeMap<Label, SiteHosts> = BTreeMap::new();
        let mut site_of = BTreeMap::new();
        for peer in self.overlay.hosts() {
            site_of.insert(peer.node, peer.site.clone());
        }
        site_of.insert(self.me, self.site.clone());
        // A host that only has it from the publisher is no gateway: the others do not count it.
        if self.contents.get(&release.manifest.id).is_some_and(|c| c.wanted) {
            entry(&mut sites, &self.site).hosts.push(self.me);
        }
        for peer in wants.iter().filter(|p| p.node != self.me) {
            entry(&mut sites, &peer.site).hosts.push(peer.node);
        }
        for other in self.overlay.sites() {
            if release.groups.iter().any(|g| other.may_want(g)) {
                entry(&mut sites, &other.name).hosts.clone_from(&other.contacts);
            }
        }
        for origin in &release.origins {
            if let Some(name) = site_of.get(origin) {
                entry(&mut sites, name).origins.push(*origin);
            }
        }
        let speakers = self.overlay.speakers();
        if !speakers.is_empty() {
            entry(&mut sites, &self.site).hosts = speakers;
        }
        let near = |n: &stork_wire::ids::NodeId| site_of.get(n) == Some(&self.site);
        Members {
            interested: others.into_iter().filter(near).collect(),
            origins,
            site: number(&self.site),
            sites: sites.into_values().collect(),
        }
    }
}
