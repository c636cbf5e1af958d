//! `retire`: releases that newer ones have replaced make room in their feed.
//!
//! A feed has a bounded number of live releases. What is retired stays on the VMs that show it and
//! is installed nowhere anew; nothing is said to be wrong with it, as a recall would. Nodes are
//! asked for all that is live, and what they show is checked like everything else of theirs.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use stork_wire::codec::List;
use stork_wire::feed::Kind;
use stork_wire::frame::Refusal;
use stork_wire::ids::Position;
use stork_wire::limits::{LIVE_RELEASES_MAX, RETIRED_AT_ONCE};
use stork_wire::retire::Retire;
use stork_wire::text::{Arch, PackageName, Version};

use super::client::is_refusal;
use super::session::{self, Enough, Peer};
use super::target::places;
use super::{COMMIT_TRIES, DAY_S, NodeReport, PushError, Target, now, release_signer};
use crate::feed::{Author, FeedError, Published, Standing};
use crate::keys::{Passphrase, Signer};
use crate::progress::Progress;
use crate::version;

/// Days that the entry itself is good for: it announces nothing.
const ENTRY_DAYS: u64 = 365;

/// What to retire, and how.
#[derive(Debug, Clone)]
pub struct RetireOptions {
    /// Only of this package; of all if not given.
    pub package: Option<PackageName>,
    /// These versions of it.
    pub versions: Vec<Version>,
    /// All but so many of the newest, of each package, machine and set of groups.
    pub keep: Option<usize>,
    /// Only those for this machine.
    pub arch: Option<Arch>,
    /// The publisher's directory.
    pub charter: PathBuf,
    /// The release key, as `Signer::open` takes it; the profile's if not given.
    pub key: Option<String>,
    /// How to open it.
    pub passphrase: Passphrase,
    /// The nodes.
    pub to: Vec<Target>,
    /// Show what would be retired.
    pub dry_run: bool,
}

/// One release that is retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retired {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// For which machine.
    pub arch: String,
    /// Its counter.
    pub release: u64,
    /// The entry that announced it.
    pub at: Position,
    /// No newer one takes its place: who does not show it gets an older one, or none.
    pub newest: bool,
}

/// What was retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetireReport {
    /// `stork.retire/v1`.
    pub schema: &'static str,
    /// `retired`, `nothing` or `dry_run`.
    pub outcome: &'static str,
    /// What is retired.
    pub retired: Vec<Retired>,
    /// Releases of the feed that are live afterwards.
    pub live: usize,
    /// So many it may have.
    pub live_max: usize,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// What else the maintainer should know.
    pub notes: Vec<String>,
}

impl RetireReport {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let did = match self.outcome {
            "dry_run" => "would retire",
            "nothing" => "nothing to retire:",
            _ => "retired",
        };
        let (n, live, max) = (self.retired.len(), self.live, self.live_max);
        let mut out = vec![format!("{did} {n} releases; {live} of {max} are live")];
        for r in &self.retired {
            let newest = if r.newest { ": it was the newest" } else { "" };
            out.push(format!(
                "  {} {} ({}), release {}{newest}",
                r.package, r.version, r.arch, r.release
            ));
        }
        if self.outcome == "retired" {
            out.extend(self.nodes.iter().map(NodeReport::line));
        }
        out.extend(self.notes.iter().map(|n| format!("  note      {n}")));
        out
    }
}

/// The best first: the newest version, then the newest release.
fn newest_first(a: &Published, b: &Published) -> Ordering {
    let (a, b) = (&a.release, &b.release);
    version::compare(b.version.as_str(), a.version.as_str()).then(b.release.cmp(&a.release))
}

/// Releases that take each other's place: the best first.
fn lines(live: &[Published]) -> Vec<Vec<&Published>> {
    let mut lines: BTreeMap<_, Vec<&Published>> = BTreeMap::new();
    for p in live {
        let r = &p.release;
        lines.entry((&r.package, &r.arch, r.groups.to_vec())).or_default().push(p);
    }
    let mut lines: Vec<Vec<&Published>> = lines.into_values().collect();
    lines.iter_mut().for_each(|line| line.sort_by(|a, b| newest_first(a, b)));
    lines
}

/// Which of the live releases are meant, with whether it is the newest of its line.
fn chosen<'a>(
    options: &RetireOptions,
    live: &'a [Published],
) -> Result<Vec<(&'a Published, bool)>, PushError> {
    let of = |p: &Published| {
        options.package.as_ref().is_none_or(|name| *name == p.release.package)
            && options.arch.as_ref().is_none_or(|a| *a == p.release.arch)
    };
    for version in &options.versions {
        if !live.iter().any(|p| of(p) && p.release.version == *version) {
            let package = options.package.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(PushError::NotLive(format!("{package} {version}")));
        }
    }
    let mut out = Vec::new();
    for line in lines(live) {
        for (place, p) in line.into_iter().enumerate().filter(|(_, p)| of(p)) {
            let beyond = options.keep.is_some_and(|keep| place >= keep);
            if beyond || options.versions.contains(&p.release.version) {
                out.push((p, place == 0));
            }
        }
    }
    out.sort_by_key(|(p, _)| p.at);
    Ok(out)
}

/// What a maintainer should hear before the feed takes nothing more.
pub(super) fn nearly_full(live: usize) -> Option<String> {
    let full = live * 4 > LIVE_RELEASES_MAX * 3;
    full.then(|| {
        format!(
            "the feed has {live} live releases of {LIVE_RELEASES_MAX}: \
             `stork-publish retire --keep 4` makes room"
        )
    })
}

/// Retires releases of a feed.
pub async fn retire(
    options: &RetireOptions,
    progress: &Progress,
) -> Result<RetireReport, PushError> {
    let (charter, profile) = crate::charter::open(&options.charter)?;
    let publisher = profile.publisher;
    let doc = charter.publishers.get(&publisher);
    let doc = doc.ok_or_else(|| PushError::Usage("the charter lacks this publisher".into()))?;
    let author = Author { charter: &charter, publisher, doc };
    let places = places(&options.to, &doc.homes)?;
    let signer = release_signer(options.key.as_ref(), &profile, &options.passphrase)?;
    progress.phase("connecting", 0);
    let enough = Enough { copies: 1, homes: &doc.homes };
    let (mut peers, notes) = session::open(&places, (author, &signer, None), enough, now()).await?;
    let report = commit(options, author, &signer, &mut peers).await;
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

/// Looks what is live, and says what of it goes, in as many entries as it takes.
async fn commit(
    options: &RetireOptions,
    author: Author<'_>,
    signer: &Signer,
    peers: &mut [Peer],
) -> Result<RetireReport, PushError> {
    let home = peers.first().ok_or_else(|| PushError::Usage("no node to ask".into()))?;
    if !options.dry_run {
        home.documents(author).await?;
    }
    let standing = home.standing(author).await?;
    let live = home.live(author, &standing).await?;
    let live: Vec<Published> = live.into_iter().map(|(_, p)| p).collect();
    let chosen = chosen(options, &live)?;
    for (p, _) in &chosen {
        // Of what is sealed the node is told no name.
        if !p.sealed {
            author.may_recall(signer.public(), &p.release.package, now())?;
        }
    }
    let outcome = match (chosen.is_empty(), options.dry_run) {
        (true, _) => "nothing",
        (_, true) => "dry_run",
        _ => "retired",
    };
    let retired = chosen.iter().map(|(p, newest)| Retired {
        package: p.release.package.to_string(),
        version: p.release.version.to_string(),
        arch: p.release.arch.to_string(),
        release: p.release.release,
        at: p.at,
        newest: *newest,
    });
    let mut report = RetireReport {
        schema: "stork.retire/v1",
        outcome,
        retired: retired.collect(),
        live: live.len(),
        live_max: LIVE_RELEASES_MAX,
        nodes: Vec::new(),
        notes: Vec::new(),
    };
    if outcome == "retired" {
        for some in chosen.chunks(RETIRED_AT_ONCE) {
            let some: Vec<&Published> = some.iter().map(|(p, _)| *p).collect();
            report.notes.extend(one(author, signer, peers, &some).await?);
        }
        report.live -= chosen.len();
    }
    Ok(report)
}

/// Commits one entry that retires these; looks again when somebody else was faster.
async fn one(
    author: Author<'_>,
    signer: &Signer,
    peers: &mut [Peer],
    retired: &[&Published],
) -> Result<Vec<String>, PushError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let home = peers.first().ok_or_else(|| PushError::Usage("no node to ask".into()))?;
        let standing = home.standing(author).await?;
        let entry = entry(author, &standing, retired)?;
        let envelope = signer.sign(&entry, author.charter.fleet)?;
        match session::commit_home(peers, &envelope, &entry).await {
            Err(e) if is_refusal(&e, Refusal::HeadMoved) && tries < COMMIT_TRIES => {}
            Err(e) => return Err(e),
            Ok(()) => return Ok(session::commit_others(peers, author, &envelope, &entry).await),
        }
    }
}

fn entry(
    author: Author<'_>,
    standing: &Standing,
    retired: &[&Published],
) -> Result<stork_wire::feed::Entry, PushError> {
    let places: Vec<Position> = retired.iter().map(|p| p.at).collect();
    let releases = List::new(places).map_err(FeedError::from)?;
    let live = standing.live.iter().copied();
    let live = live.filter(|hash| retired.iter().all(|p| p.hash != *hash));
    let now = now();
    let times = (now, now + ENTRY_DAYS * DAY_S);
    Ok(author.follow(standing, live, times, Kind::Retire(Retire { releases })))
}
