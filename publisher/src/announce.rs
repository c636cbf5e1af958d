//! The entry that announces a packed package: what it says beside the package itself.

use stork_wire::bundle::Bundle;
use stork_wire::charter::UnixSeconds;
use stork_wire::codec::List;
use stork_wire::feed::{DeltaOffer, Entry, Release, Urgency};
use stork_wire::ids::{GroupId, NodeId};
use stork_wire::limits::{LIVE_RELEASES_MAX, RELEASE_GROUPS_MAX};
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::text::{Label, PackageName};

use crate::feed::{Author, FeedError, Standing};
use crate::pack::Packed;
use crate::source::Package;

/// What is announced beside the package itself.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// The groups that it is for.
    pub groups: Vec<GroupId>,
    /// The bundle that it belongs to, with the other packages of it.
    pub bundle: Option<(Label, Vec<PackageName>)>,
    /// How soon it matters.
    pub urgency: Urgency,
    /// Nodes that hold the content.
    pub origins: Vec<NodeId>,
    /// Now.
    pub now: UnixSeconds,
    /// When it runs out.
    pub expires: UnixSeconds,
}

fn bundle(
    name: &Label,
    others: &[PackageName],
    own: &PackageName,
) -> Result<Box<Bundle>, FeedError> {
    let mut members: Vec<PackageName> = others.iter().chain([own]).cloned().collect();
    members.sort_unstable();
    members.dedup();
    Ok(Box::new(Bundle { name: name.clone(), members: List::new(members)? }))
}

/// The entry that follows `standing` and announces a packed package.
pub fn next_entry(
    author: Author<'_>,
    standing: &Standing,
    latest: Option<&Release>,
    (package, packed): (&Package, &Packed),
    announcement: &Announcement,
) -> Result<Entry, FeedError> {
    let seq = author.next_seq(standing);
    let after = latest.map_or(0, |r| r.release) + 1;
    // At least as high as the number of entries that stand, so that it rises above releases that
    // were withdrawn, which `latest` does not show.
    let count = author.entries_before().saturating_add(seq);
    let mut groups = announcement.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    let packing = &packed.manifest.packing;
    let release = Release {
        package: package.name.clone(),
        version: package.version.clone(),
        arch: package.arch.clone(),
        release: count.max(after),
        min_secure_release: latest.map_or(0, |r| r.min_secure_release),
        groups: List::<_, RELEASE_GROUPS_MAX>::new(groups)?,
        tree: package.tree.id(),
        manifest: Manifest::reference(&packed.bytes),
        full_bytes: packing.bytes(Variant::Full),
        delta: packing
            .delta
            .as_ref()
            .map(|d| DeltaOffer { base: d.base, bytes: packing.bytes(Variant::Delta) }),
        unpacked_bytes: package.unpacked_bytes(),
        files: u32::try_from(package.tree.entries.len()).unwrap_or(u32::MAX),
        depends: package.depends.clone(),
        provides: package.provides.clone(),
        urgency: announcement.urgency,
        origins: List::truncated(announcement.origins.iter().copied()),
        bundle: announcement
            .bundle
            .as_ref()
            .map(|(name, others)| bundle(name, others, &package.name))
            .transpose()?,
    };
    if standing.live.len() >= LIVE_RELEASES_MAX {
        return Err(FeedError::TooMany);
    }
    let (kind, hash) = author.announced(release)?;
    let live = standing.live.iter().copied().chain([hash]);
    let times = (announcement.now, announcement.expires);
    Ok(author.follow(standing, live, times, kind))
}
