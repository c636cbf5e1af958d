//! `recall`: releases are withdrawn, also from the VMs that show them.
//!
//! A recall stands beside the feed, so that it passes a freeze and waits for no entry. It names the
//! releases by their hashes: nodes are asked for the entries of the live releases, which are
//! checked like everything that nodes show. The feed itself does not change.
//!
//! Who knows the hashes needs no node's answer, and no right to ask: so the publisher's root, and a
//! release key that has ended itself, take back what no feed shows any more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use stork_wire::charter::{PublisherDoc, UnixSeconds};
use stork_wire::codec::List;
use stork_wire::feed::Entry;
use stork_wire::frame::{PushReply, PushRequest};
use stork_wire::ids::{LogId, ReleaseHash};
use stork_wire::seal::Sealed;
use stork_wire::text::{Arch, Line, PackageName, Version};
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::client::Body;
use super::narrow::{NarrowReport, Sending, signed};
use super::session::{self, Enough, Peer};
use super::target::places;
use super::{NodeReport, PushError, Target, now, release_signer};
use crate::feed::{Author, Published, Standing};
use crate::keys::{Passphrase, Signer};
use crate::progress::Progress;
use crate::version;

/// What to withdraw, and how.
#[derive(Debug, Clone)]
pub struct RecallOptions {
    /// The package.
    pub package: PackageName,
    /// Its versions.
    pub versions: Vec<Version>,
    /// Only those for this machine; all if not given.
    pub arch: Option<Arch>,
    /// Why, for the people at the hosts.
    pub reason: Line,
    /// The publisher's directory.
    pub charter: PathBuf,
    /// The release key, as `Signer::open` takes it; the profile's if not given.
    pub key: Option<String>,
    /// How to open it.
    pub passphrase: Passphrase,
    /// Let the publisher's root say it, with these keys; the one beside the charter if none is
    /// named. The release key then only asks what there is.
    pub root: Option<Vec<String>>,
    /// The nodes.
    pub to: Vec<Target>,
    /// Check everything, commit nothing.
    pub dry_run: bool,
}

/// One release that is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recalled {
    /// Its version.
    pub version: String,
    /// For which machine.
    pub arch: String,
    /// Its counter.
    pub release: u64,
    /// The entry that announced it.
    pub seq: u64,
    /// The newest version that is left for this machine; `None`: VMs lose the package.
    pub left: Option<String>,
}

/// What a recall did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecallReport {
    /// `stork.recall/v2`.
    pub schema: &'static str,
    /// `recalled` or `dry_run`.
    pub outcome: &'static str,
    /// The package.
    pub package: String,
    /// The withdrawal's log, by which hosts know it.
    pub log: LogId,
    /// What is withdrawn.
    pub recalled: Vec<Recalled>,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// What else the maintainer should know.
    pub notes: Vec<String>,
}

impl RecallReport {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let did = if self.outcome == "dry_run" { "would recall" } else { "recalled" };
        let mut out = vec![format!("{did} {}", self.package)];
        for r in &self.recalled {
            let then = match &r.left {
                Some(version) => format!("VMs go back to {version}"),
                None => "nothing older is left: VMs lose the package".into(),
            };
            out.push(format!("  {} ({}), release {}: {then}", r.version, r.arch, r.release));
        }
        if self.outcome != "dry_run" {
            out.extend(self.nodes.iter().map(NodeReport::line));
        }
        out.extend(self.notes.iter().map(|n| format!("  note      {n}")));
        out
    }
}

impl RecallOptions {
    /// The keys of the publisher's root, where it is to say it.
    fn root_signers(&self, doc: &PublisherDoc) -> Result<Option<Vec<Signer>>, PushError> {
        let Some(keys) = &self.root else { return Ok(None) };
        let how = Sending {
            charter: self.charter.clone(),
            keys: keys.clone(),
            passphrase: self.passphrase.clone(),
            reason: self.reason.clone(),
            to: self.to.clone(),
            dry_run: self.dry_run,
        };
        how.root_signers(doc).map(Some)
    }
}

/// Which of the live releases go, and which stay.
fn split(
    options: &RecallOptions,
    live: Vec<Published>,
    forked: Vec<Published>,
) -> Result<(Vec<Published>, Vec<Published>), PushError> {
    let meant = |p: &Published| {
        options.versions.contains(&p.release.version)
            && options.arch.as_ref().is_none_or(|a| *a == p.release.arch)
    };
    for version in &options.versions {
        let arch = options.arch.as_ref().map(|a| format!(" ({a})")).unwrap_or_default();
        let all = || live.iter().chain(&forked);
        if !all().any(|p| meant(p) && p.release.version == *version) {
            return Err(PushError::NotLive(format!("{} {version}{arch}", options.package)));
        }
    }
    let (mut gone, stay): (Vec<_>, Vec<_>) = live.into_iter().partition(meant);
    gone.extend(forked.into_iter().filter(meant));
    Ok((gone, stay))
}

impl Peer {
    /// The releases of a package that this node has behind a fork, checked: its own branch, and
    /// the two entries with which the branches begin. No head commits to any of it.
    async fn forked(
        &self,
        author: Author<'_>,
        standing: &Standing,
        package: &PackageName,
    ) -> Result<Vec<Published>, PushError> {
        let request = PushRequest::Forked { package: package.clone() };
        let shown = match self.client.ask(&request, Body::None).await?.0 {
            PushReply::Releases(shown) => shown,
            other => return Err(self.client.nonsense(format!("{other:?}"))),
        };
        let mut out = Vec::new();
        for envelope in &shown {
            let entry: Entry =
                envelope.claimed().map_err(|_e| self.client.nonsense("entries that are none"))?;
            // As if the head committed to it: who signed it is all that counts here.
            let mut alone = standing.clone();
            alone.live = entry.release_hash().into_iter().collect();
            let release = author.latest(&alone, envelope)?;
            if release.release.package != *package {
                return Err(self.client.nonsense("the release of another package"));
            }
            out.push(release);
        }
        Ok(out)
    }
}

/// What the nodes have behind a fork, where a version is not live: each node knows its own branch,
/// and the first entry of another one.
async fn behind_forks(
    options: &RecallOptions,
    author: Author<'_>,
    (standing, live): (&Standing, &[Published]),
    peers: &[Peer],
) -> Result<Vec<Published>, PushError> {
    let is_live = |v: &Version| live.iter().any(|p| p.release.version == *v);
    let mut out: Vec<Published> = Vec::new();
    if options.versions.iter().all(is_live) {
        return Ok(out);
    }
    for peer in peers {
        for release in peer.forked(author, standing, &options.package).await? {
            let known = live.iter().chain(&out).any(|p| p.hash == release.hash);
            if !known {
                out.push(release);
            }
        }
    }
    Ok(out)
}

/// What is left for each machine.
fn recalled(gone: &[Published], stay: &[Published]) -> Vec<Recalled> {
    let mut newest: BTreeMap<&Arch, &Version> = BTreeMap::new();
    for p in stay {
        let (arch, version) = (&p.release.arch, &p.release.version);
        let best = newest.entry(arch).or_insert(version);
        if version::compare(version.as_str(), best.as_str()).is_gt() {
            *best = version;
        }
    }
    let one = |p: &Published| Recalled {
        version: p.release.version.to_string(),
        arch: p.release.arch.to_string(),
        release: p.release.release,
        seq: p.seq,
        left: newest.get(&p.release.arch).map(ToString::to_string),
    };
    gone.iter().map(one).collect()
}

/// Withdraws releases of one package.
pub async fn recall(
    options: &RecallOptions,
    progress: &Progress,
) -> Result<RecallReport, PushError> {
    let (charter, profile) = crate::charter::open(&options.charter)?;
    let publisher = profile.publisher;
    let doc = charter.publishers.get(&publisher);
    let doc = doc.ok_or_else(|| PushError::Usage("the charter lacks this publisher".into()))?;
    let author = Author { charter: &charter, publisher, doc };
    let places = places(&options.to, &doc.homes)?;
    let signer = release_signer(options.key.as_ref(), &profile, &options.passphrase)?;
    let root = options.root_signers(doc)?;
    if root.is_none() {
        author.may_recall(signer.public(), &options.package, now())?;
    }
    progress.phase("connecting", 0);
    let enough = Enough { copies: 1, homes: &doc.homes };
    let (mut peers, notes) = session::open(&places, (author, &signer, None), enough, now()).await?;
    let by = root.as_deref().unwrap_or_else(|| core::slice::from_ref(&signer));
    let report = commit(options, author, by, &mut peers).await;
    let mut nodes = Vec::new();
    for peer in peers {
        peer.client.close().await;
        nodes.push(peer.report);
    }
    progress.done();
    let mut report = report?;
    report.nodes = nodes;
    report.notes.splice(0..0, notes);
    Ok(report)
}

/// Signs the withdrawal and hands it to the nodes; the home must take it.
async fn commit(
    options: &RecallOptions,
    author: Author<'_>,
    signers: &[Signer],
    peers: &mut [Peer],
) -> Result<RecallReport, PushError> {
    let home = peers.first().ok_or_else(|| PushError::Usage("no node to ask".into()))?;
    if !options.dry_run {
        home.documents(author).await?;
    }
    let standing = home.standing(author).await?;
    let live = home.releases(author, &standing, &options.package).await?;
    let forked = behind_forks(options, author, (&standing, &live), peers).await?;
    let (gone, stay) = split(options, live, forked)?;
    let body = withdrawal(options, author, &gone, now())?;
    if let (Level::Release, What::Recall { package, .. }) = (body.by, &body.what) {
        // Its name may be a cover, which the key must be allowed to use.
        for signer in signers {
            author.may_recall(signer.public(), package, now())?;
        }
    }
    let mut report = RecallReport {
        schema: "stork.recall/v2",
        outcome: if options.dry_run { "dry_run" } else { "recalled" },
        package: options.package.to_string(),
        log: body.log(),
        recalled: recalled(&gone, &stay),
        nodes: Vec::new(),
        notes: Vec::new(),
    };
    if options.dry_run {
        return Ok(report);
    }
    let item = body.item(signed(&body, author.charter.fleet, signers)?);
    for (i, peer) in peers.iter_mut().enumerate() {
        let given = peer.give(author, &item, i > 0).await;
        match given {
            Ok(()) => peer.report.committed = true,
            Err(e) if i == 0 => return Err(e),
            // The fleet brings it there.
            Err(e) => report.notes.push(format!("{} did not take it: {e}", peer.report.name)),
        }
    }
    Ok(report)
}

fn what(package: &PackageName, mut hashes: Vec<ReleaseHash>) -> Result<What, PushError> {
    hashes.sort_unstable();
    hashes.dedup();
    let many = |_| PushError::Usage("64 releases at once at the most: recall them in parts".into());
    Ok(What::Recall { package: package.clone(), releases: List::new(hashes).map_err(many)? })
}

fn withdrawal(
    options: &RecallOptions,
    author: Author<'_>,
    gone: &[Published],
    now: UnixSeconds,
) -> Result<Withdrawal, PushError> {
    // What was sealed is not named: a recall is read by everybody.
    let sealed = gone.iter().filter(|p| p.sealed).count();
    if sealed != 0 && sealed != gone.len() {
        let why = "some of these are of a private group: recall those by a command of their own";
        return Err(PushError::Usage(why.into()));
    }
    let cover = Sealed::cover().filter(|_| sealed != 0);
    let package = cover.as_ref().unwrap_or(&options.package);
    let what = what(package, gone.iter().map(|p| p.hash).collect())?;
    let by = if options.root.is_some() { Level::Root } else { Level::Release };
    Ok(super::narrow::withdrawal(author, by, what, (now, options.reason.clone())))
}

/// Releases that are withdrawn by their hashes.
#[derive(Debug, Clone)]
pub struct HashesOptions {
    /// The package.
    pub package: PackageName,
    /// The releases.
    pub releases: Vec<ReleaseHash>,
    /// By the publisher's root instead of a release key.
    pub root: bool,
    /// How it is sent.
    pub sending: Sending,
}

/// Withdraws releases that are known by their hashes, without asking a node for anything.
pub async fn recall_hashes(options: &HashesOptions) -> Result<NarrowReport, PushError> {
    let (how, now) = (&options.sending, now());
    let (charter, profile) = crate::charter::open(&how.charter)?;
    let publisher = profile.publisher;
    let doc = charter.publishers.get(&publisher);
    let doc = doc.ok_or_else(|| PushError::Usage("the charter lacks this publisher".into()))?;
    let author = Author { charter: &charter, publisher, doc };
    let (by, signers) = if options.root {
        (Level::Root, how.root_signers(doc)?)
    } else {
        let signer = release_signer(how.keys.first(), &profile, &how.passphrase)?;
        author.may_recall(signer.public(), &options.package, now)?;
        (Level::Release, vec![signer])
    };
    let what = what(&options.package, options.releases.clone())?;
    let body = super::narrow::withdrawal(author, by, what, (now, how.reason.clone()));
    let item = body.item(signed(&body, charter.fleet, &signers)?);
    let (n, package) = (options.releases.len(), &options.package);
    let text = format!("{n} releases of {package} by {} are recalled", doc.name);
    how.send(&charter, (item, text), now).await
}
