//! Carrying over: what was live in a feed is announced again when the feed begins anew.
//!
//! A document by the publisher's root begins an epoch with an empty feed (`charter compact`), so
//! that no host keeps or fetches the entries of years. Before, the entries of all live releases
//! are put into a file beside the charter; after, each is signed again. VMs show what they show
//! meanwhile. Stopped anywhere, it goes on where it was: what is live again is passed over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stork_wire::charter::{Survivor, UnixSeconds};
use stork_wire::codec::{decode, encode};
use stork_wire::feed::{Entry, Kind, Release};
use stork_wire::ids::{GroupId, ReleaseHash, TreeId};
use stork_wire::limits::{ENTRY_LEN_MAX, LIVE_RELEASES_MAX};
use stork_wire::sign::Envelope;
use stork_wire::text::{Arch, PackageName, Version};

use super::session::{self, Enough, Peer};
use super::target::places;
use super::{NodeReport, PushError, Target, now, release_signer};
use crate::charter::{read_bounded, write_new};
use crate::feed::{Author, Published, Standing};
use crate::keys::{Passphrase, Signer};
use crate::progress::Progress;

/// The file beside the charter in which live releases wait to be carried over.
pub const CARRY_FILE: &str = "carry.entries";
const CARRY_MAGIC: &[u8] = b"stork carried entries v1\n";
/// All entries at their longest, each with its length.
const CARRY_LEN_MAX: u64 = (LIVE_RELEASES_MAX as u64) * (ENTRY_LEN_MAX as u64 + 4) + 64;

/// How to reach a feed.
#[derive(Debug, Clone)]
pub struct CarryOptions {
    /// The publisher's directory.
    pub charter: PathBuf,
    /// The release key, as `Signer::open` takes it; the profile's if not given.
    pub key: Option<String>,
    /// How to open it.
    pub passphrase: Passphrase,
    /// The nodes.
    pub to: Vec<Target>,
}

/// What was carried over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CarryReport {
    /// `stork.carry/v1`.
    pub schema: &'static str,
    /// The feed's epoch.
    pub epoch: u32,
    /// Releases that were announced again.
    pub carried: usize,
    /// Releases that were so already.
    pub present: usize,
    /// Releases that had run out, and were left.
    pub expired: usize,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// What else the maintainer should know.
    pub notes: Vec<String>,
}

impl CarryReport {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let (n, epoch) = (self.carried, self.epoch);
        let mut out = vec![format!("carried {n} releases over into epoch {epoch}")];
        if self.present > 0 {
            out.push(format!("  {} were there already", self.present));
        }
        if self.expired > 0 {
            out.push(format!("  {} had run out and were left", self.expired));
        }
        out.extend(self.nodes.iter().map(NodeReport::line));
        out.extend(self.notes.iter().map(|n| format!("  note      {n}")));
        out
    }
}

/// Puts the entries of all live releases but recalled ones into [`CARRY_FILE`], which must not be
/// there. Returns the newest entry of the feed; `None` where nothing is live: then no file was
/// made.
pub async fn gather(
    options: &CarryOptions,
    progress: &Progress,
) -> Result<Option<(Survivor, usize)>, PushError> {
    let path = options.charter.join(CARRY_FILE);
    if path.exists() {
        return Err(PushError::Carries(path.display().to_string()));
    }
    let (charter, profile) = crate::charter::open(&options.charter)?;
    let (publisher, doc) = own(&charter, &profile)?;
    let author = Author { charter: &charter, publisher, doc };
    let places = places(&options.to, &doc.homes)?;
    let signer = release_signer(options.key.as_ref(), &profile, &options.passphrase)?;
    progress.phase("asking what is live", 0);
    let enough = Enough { copies: 1, homes: &doc.homes };
    let (peers, _) = session::open(&places, (author, &signer, None), enough, now()).await?;
    let home = peers.first().ok_or_else(|| PushError::Usage("no node to ask".into()))?;
    let standing = home.standing(author).await?;
    let mut live = home.live(author, &standing).await?;
    // What was recalled stays recalled: under a new entry it would come back.
    let stands = unrecalled(home, author, &standing, &live).await?;
    live.retain(|(_, p)| stands.contains(&p.hash));
    for peer in peers {
        peer.client.close().await;
    }
    progress.done();
    let Some((head, hash)) = &standing.head else { return Ok(None) };
    if live.is_empty() {
        return Ok(None);
    }
    // In the order of the feed: bundles and counters come again as they came.
    live.sort_by_key(|(_, p)| p.at);
    let mut bytes = CARRY_MAGIC.to_vec();
    for (envelope, _) in &live {
        let one = encode(envelope);
        bytes.extend_from_slice(&u32::try_from(one.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&one);
    }
    if let Err(e) = write_new(&path, &bytes) {
        // What there is of it would be taken for a list that waits.
        fs::remove_file(&path).unwrap_or_default();
        return Err(e.into());
    }
    Ok(Some((Survivor { at: head.position(), hash: *hash }, live.len())))
}

/// Which of the live releases nobody has recalled.
async fn unrecalled(
    home: &Peer,
    author: Author<'_>,
    standing: &Standing,
    live: &[(Envelope, Published)],
) -> Result<BTreeSet<ReleaseHash>, PushError> {
    let packages: BTreeSet<&PackageName> = live.iter().map(|(_, p)| &p.release.package).collect();
    let mut stands = BTreeSet::new();
    for package in packages {
        let listed = home.releases(author, standing, package).await?;
        stands.extend(listed.into_iter().map(|p| p.hash));
    }
    Ok(stands)
}

fn own<'a>(
    charter: &'a crate::charter::Charter,
    profile: &crate::charter::Profile,
) -> Result<(stork_wire::ids::PublisherId, &'a stork_wire::charter::PublisherDoc), PushError> {
    let missing = || PushError::Usage("the charter lacks this publisher".into());
    let doc = charter.publishers.get(&profile.publisher).ok_or_else(missing)?;
    Ok((profile.publisher, doc))
}

/// Reads what [`gather`] wrote.
fn read(path: &Path) -> Result<Vec<Envelope>, PushError> {
    let broken = || PushError::NoCarriedList(path.display().to_string());
    let bytes = read_bounded(path, CARRY_LEN_MAX)?;
    let mut rest = bytes.strip_prefix(CARRY_MAGIC).ok_or_else(broken)?;
    let mut out = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        let (one, after) = after.split_at_checked(len).ok_or_else(broken)?;
        out.push(decode(one, ENTRY_LEN_MAX + 1_024).map_err(|_e| broken())?);
        rest = after;
    }
    if rest.is_empty() { Ok(out) } else { Err(broken()) }
}

/// What makes a release the same one again.
type Same = (PackageName, Arch, Version, TreeId, Vec<GroupId>);

fn same(r: &Release) -> Same {
    (r.package.clone(), r.arch.clone(), r.version.clone(), r.tree, r.groups.to_vec())
}

/// Announces again what [`CARRY_FILE`] holds, and removes it.
pub async fn carry(options: &CarryOptions, progress: &Progress) -> Result<CarryReport, PushError> {
    let path = options.charter.join(CARRY_FILE);
    if !path.exists() {
        return Err(PushError::NothingToCarry(path.display().to_string()));
    }
    let entries = read(&path)?;
    let (charter, profile) = crate::charter::open(&options.charter)?;
    let (publisher, doc) = own(&charter, &profile)?;
    if doc.compacts.is_none() {
        return Err(PushError::NotAnew(path.display().to_string()));
    }
    let author = Author { charter: &charter, publisher, doc };
    let places = places(&options.to, &doc.homes)?;
    let signer = release_signer(options.key.as_ref(), &profile, &options.passphrase)?;
    progress.phase(&format!("carrying {} releases over", entries.len()), 0);
    let enough = Enough { copies: 1, homes: &doc.homes };
    let (mut peers, notes) = session::open(&places, (author, &signer, None), enough, now()).await?;
    let report = all(author, &signer, &mut peers, &entries).await;
    let mut nodes = Vec::new();
    for peer in peers {
        peer.client.close().await;
        nodes.push(peer.report);
    }
    progress.done();
    let mut report = report?;
    report.nodes = nodes;
    report.notes.splice(0..0, notes);
    fs::remove_file(&path).map_err(PushError::Local)?;
    Ok(report)
}

async fn all(
    author: Author<'_>,
    signer: &Signer,
    peers: &mut [Peer],
    entries: &[Envelope],
) -> Result<CarryReport, PushError> {
    let home = peers.first().ok_or_else(|| PushError::Usage("no node to ask".into()))?;
    home.documents(author).await?;
    let mut standing = home.standing(author).await?;
    let live: Vec<_> = home.live(author, &standing).await?;
    let live: Vec<Same> = live.into_iter().map(|(_, p)| same(&p.release)).collect();
    let mut report = CarryReport {
        schema: "stork.carry/v1",
        epoch: author.doc.epoch,
        carried: 0,
        present: 0,
        expired: 0,
        nodes: Vec::new(),
        notes: Vec::new(),
    };
    for envelope in entries {
        let old = author.carried(envelope)?;
        if old.expires <= now() {
            report.expired += 1;
        } else if live.contains(&same(&old.release)) {
            report.present += 1;
        } else {
            let (envelope, entry, next) = again(author, signer, &standing, &old)?;
            session::commit_home(peers, &envelope, &entry).await?;
            report.notes.extend(session::commit_others(peers, author, &envelope, &entry).await);
            standing = next;
            report.carried += 1;
        }
    }
    Ok(report)
}

/// The entry that announces a release again, signed, and where the feed stands with it.
fn again(
    author: Author<'_>,
    signer: &Signer,
    standing: &Standing,
    old: &Published,
) -> Result<(Envelope, Entry, Standing), PushError> {
    let count = author.entries_before().saturating_add(author.next_seq(standing));
    // Above its own number: hosts show nothing older in its place.
    let release = count.max(old.release.release.saturating_add(1));
    let release = Release { release, ..old.release.clone() };
    let (kind, hash): (Kind, _) = author.announced(release)?;
    let live: Vec<_> = standing.live.iter().copied().chain([hash]).collect();
    let times: (UnixSeconds, UnixSeconds) = (now(), old.expires);
    let entry = author.follow(standing, live.iter().copied(), times, kind);
    let envelope = signer.sign(&entry, author.charter.fleet)?;
    let head = Some((entry.clone(), envelope.hash()));
    Ok((envelope, entry, Standing { head, live }))
}
