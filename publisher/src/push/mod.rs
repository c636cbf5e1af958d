//! `push`: a package becomes a release that a fleet can fetch.
//!
//! The order is what makes it safe to stop anywhere: content is on the disk of every target before
//! the entry is signed, and the entry is a compare-and-swap on the feed's head at its home.

mod base;
mod carry;
mod client;
#[cfg(test)]
mod delegate_tests;
mod error;
#[cfg(test)]
mod fake;
mod narrow;
#[cfg(test)]
mod narrow_tests;
mod origin;
mod recall;
#[cfg(test)]
mod recall_tests;
mod report;
mod retire;
#[cfg(test)]
mod retire_tests;
mod session;
mod signer;
mod target;
#[cfg(test)]
mod tests;
mod upload;

pub use base::BaseChoice;
pub use carry::{CARRY_FILE, CarryOptions, CarryReport, carry, gather};
pub use error::PushError;
pub use narrow::{
    DenyOptions, DenyWhat, HaltOptions, NarrowReport, Sending, SuicideOptions, deny, halt, suicide,
};
pub use origin::OriginReport;
pub use recall::{HashesOptions, RecallOptions, RecallReport, Recalled, recall, recall_hashes};
pub use report::{NodeReport, Outcome, PushReport};
pub use retire::{RetireOptions, RetireReport, Retired, retire};
pub(crate) use signer::release_signer;
pub use target::{BadTarget, Target};

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use stork_origin::Address;
use stork_wire::charter::UnixSeconds;
use stork_wire::feed::{Release, Urgency};
use stork_wire::frame::Refusal;
use stork_wire::ids::{GroupId, LogId, PublisherId};
use stork_wire::text::{Label, PackageName};

use crate::announce::{Announcement, next_entry};
use crate::charter::{Charter, Profile};
use crate::delegate::Via;
use crate::feed::{Author, Published, Standing};
use crate::keys::{Passphrase, Signer};
use crate::pack::{self, Base, Packed};
use crate::progress::Progress;
use crate::source::{self, Package, ReadOptions};
use crate::version;

use base::{Old, off_thread};
use client::is_refusal;
use origin::OriginTarget;
use session::{Enough, Peer, Place};
use target::{copies, places};

const DAY_S: u64 = 86_400;
/// The same content is announced again when half of so many days are left, or half of the days
/// that were asked for, where those are fewer.
const RENEW_DAYS: u32 = 28;
/// Tries to follow a head that others move.
const COMMIT_TRIES: usize = 3;
/// After so many seconds of packing, the ten minutes of a push certificate are renewed.
const RECONNECT_AFTER_S: u64 = 240;

/// What to push, and how.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// A `.deb`, `.rpm`, tar archive or directory.
    pub package: PathBuf,
    /// How to read it.
    pub read: ReadOptions,
    /// The publisher's directory.
    pub charter: PathBuf,
    /// The release key, as `Signer::open` takes it; the profile's if not given.
    pub key: Option<String>,
    /// How to open it.
    pub passphrase: Passphrase,
    /// The nodes.
    pub to: Vec<Target>,
    /// So many of them must have the content before it is announced; two, or all if fewer, if
    /// not given.
    pub copies: Option<usize>,
    /// An object store that gets the content as well; the profile's if not given.
    pub origin: Option<Address>,
    /// A file with credentials for it; the profile's if not given.
    pub origin_credentials: Option<PathBuf>,
    /// Names of groups; all of the profile if empty.
    pub groups: Vec<String>,
    /// The bundle that it belongs to, with the other packages of it.
    pub bundle: Option<(Label, Vec<PackageName>)>,
    /// How soon it matters.
    pub urgency: Urgency,
    /// Days until it is not installed anew any more.
    pub expires_days: u32,
    /// What the delta is made against.
    pub base: BaseChoice,
    /// Publish even if the version goes backwards.
    pub allow_lower: bool,
    /// Check everything, send nothing.
    pub dry_run: bool,
}

fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The groups by id and name.
fn groups(
    names: &[String],
    charter: &Charter,
    profile: &Profile,
) -> Result<Vec<(GroupId, String)>, PushError> {
    if names.is_empty() {
        let all: Vec<_> = profile.groups.iter().map(|g| (g.id, g.name.clone())).collect();
        return match all.len() {
            0 => Err(PushError::Usage("publisher.toml names no group: add --group NAME".into())),
            _ => Ok(all),
        };
    }
    let find = |name: &String| {
        let id = charter.group_named(name).ok_or_else(|| PushError::NoGroup(name.clone()))?;
        Ok((id, name.clone()))
    };
    names.iter().map(find).collect()
}

/// Everything that is known before a node is asked.
struct Plan<'a> {
    options: &'a PushOptions,
    author: Author<'a>,
    signer: Signer,
    via: Option<Via>,
    groups: Vec<GroupId>,
    places: Vec<Place>,
    copies: usize,
    origin: Option<OriginTarget>,
    package: Arc<Package>,
    progress: &'a Progress,
}

/// Reads, packs, sends, signs and commits one release.
pub async fn push(options: &PushOptions, progress: &Progress) -> Result<PushReport, PushError> {
    let (charter, profile) = crate::charter::open(&options.charter)?;
    let publisher = profile.publisher;
    let doc = charter.publishers.get(&publisher);
    let doc = doc.ok_or_else(|| PushError::Usage("the charter lacks this publisher".into()))?;
    let author = Author { charter: &charter, publisher, doc };
    let places = places(&options.to, &doc.homes)?;
    let (ids, names): (Vec<_>, Vec<_>) =
        groups(&options.groups, &charter, &profile)?.into_iter().unzip();
    let (signer, via) = signer::of_push(options.key.as_ref(), &profile, &options.passphrase)?;
    let origin = origin::target(options, &profile)?;
    let copies = copies(options, &places)?;

    progress.phase(&format!("reading {}", options.package.display()), 0);
    let (path, read) = (options.package.clone(), options.read.clone());
    let package = Arc::new(off_thread(move || source::read(&path, &read)).await??);
    author.may_publish((signer.public(), via.as_ref()), &package, &ids, now())?;
    author.may_seal(&ids)?;
    let plan = Plan {
        options,
        author,
        signer,
        via,
        groups: ids,
        places,
        copies,
        origin,
        package,
        progress,
    };
    let report = plan.run(names).await;
    progress.done();
    report
}

/// Hands documents to nodes, which need no other proof than the documents themselves: those of a
/// publisher to its homes, or all of the charter to any node.
pub async fn send_documents(
    to: &[Target],
    charter: &Charter,
    publisher: Option<PublisherId>,
) -> Result<(), PushError> {
    let missing = || PushError::Usage("the charter lacks this publisher".into());
    let doc = publisher.map(|id| charter.publishers.get(&id).ok_or_else(missing)).transpose()?;
    let log = publisher.map(LogId::publisher);
    let wanted = charter.items.iter().filter(|i| log.is_none_or(|log| i.log == log));
    let items: Vec<_> = wanted.collect();
    for place in places(to, doc.map_or(&[], |d| &d.homes))? {
        session::documents_only(&place, &items).await?;
    }
    Ok(())
}

impl Plan<'_> {
    /// Those of the nodes that answer, and a note for each of the others.
    async fn open(&self) -> Result<(Vec<Peer>, Vec<String>), PushError> {
        let enough = Enough { copies: self.copies, homes: &self.author.doc.homes };
        let who = (self.author, &self.signer, self.via.as_ref());
        let (peers, notes) = session::open(&self.places, who, enough, now()).await?;
        if !self.options.dry_run {
            for peer in &peers {
                peer.documents(self.author).await?;
            }
        }
        Ok((peers, notes))
    }

    async fn run(&self, names: Vec<String>) -> Result<PushReport, PushError> {
        self.progress.phase("connecting", 0);
        let opened = Instant::now();
        let (mut peers, notes) = self.open().await?;
        let home = peers.first().ok_or_else(|| PushError::Usage("no node to push to".into()))?;
        let standing = home.standing(self.author).await?;
        let latest = home.latest(self.author, &standing, &self.package).await?;
        let mut report = PushReport::of(&self.package, names, Vec::new());
        report.notes.extend(notes);
        if self.is_published(latest.as_ref())? {
            report.seq = latest.map(|l| l.seq);
            if let Some(origin) = &self.origin {
                let text = format!("{} was not looked at: nothing new is there", origin.address());
                report.notes.push(text);
            }
            report.nodes = self.close(peers).await;
            return Ok(report);
        }
        let latest = latest.as_ref().map(|l| &l.release);
        let old = self.base(home, latest, &mut report).await?;
        let packed = Arc::new(self.pack(old).await?);
        if opened.elapsed().as_secs() > RECONNECT_AFTER_S {
            self.close(peers).await;
            (peers, _) = self.open().await?;
        }
        if self.options.dry_run {
            let entry = self.entry(&standing, latest, &packed, &peers)?;
            report.outcome = Outcome::DryRun;
            report.add_packed(&packed, &entry);
            report.nodes = self.close(peers).await;
            return Ok(report);
        }
        let enough = Enough { copies: self.copies, homes: &self.author.doc.homes };
        let lost = session::upload_all(&mut peers, &packed, enough, self.progress).await?;
        report.notes.extend(lost);
        if let Some(origin) = &self.origin {
            report.origin = Some(origin.upload(&packed, self.progress).await?);
        }
        report.outcome = self.commit(&mut peers, &packed, &mut report).await?;
        report.nodes = self.close(peers).await;
        Ok(report)
    }

    /// Is exactly this published already? Refuses to go backwards, and to publish something else
    /// under a version that is taken. The node looks at older versions too.
    fn is_published(&self, latest: Option<&Published>) -> Result<bool, PushError> {
        let Some(Published { seq, expires, release: latest, .. }) = latest else {
            return Ok(false);
        };
        let new = &self.package;
        if latest.version == new.version {
            if latest.tree != new.tree.id() {
                let what = format!("{} {} ({})", new.name, new.version, new.arch);
                return Err(PushError::VersionTaken { what, seq: *seq });
            }
            // The same for further groups is a release of its own, and the same again before its
            // announcement runs out lets it be installed for longer.
            let lasting = self.options.expires_days.min(RENEW_DAYS) / 2;
            let soon = now().saturating_add(u64::from(lasting) * DAY_S);
            let runs_out = *expires <= soon;
            return Ok(!runs_out && self.groups.iter().all(|g| latest.groups.contains(g)));
        }
        let order = version::compare(new.version.as_str(), latest.version.as_str());
        if order == Ordering::Less && !self.options.allow_lower {
            let (new, latest) = (new.version.to_string(), latest.version.to_string());
            return Err(PushError::Lower { new, latest });
        }
        Ok(false)
    }

    /// The base of the delta. That it cannot be fetched costs the delta, not the release.
    async fn base(
        &self,
        home: &Peer,
        latest: Option<&Release>,
        report: &mut PushReport,
    ) -> Result<Option<Arc<Old>>, PushError> {
        let old = match &self.options.base {
            BaseChoice::None => return Ok(None),
            BaseChoice::File(path) => {
                base::from_file(path.clone(), self.options.read.clone()).await?
            }
            BaseChoice::Auto => {
                let Some(latest) = latest else { return Ok(None) };
                match base::fetch(&home.client, latest, self.progress).await {
                    Ok(old) => Arc::new(old),
                    Err(e @ PushError::Local(_)) => return Err(e),
                    Err(e) => {
                        report.notes.push(format!("no delta, the base cannot be fetched: {e}"));
                        return Ok(None);
                    }
                }
            }
        };
        Ok((old.tree != self.package.tree).then_some(old))
    }

    async fn pack(&self, old: Option<Arc<Old>>) -> Result<Packed, PushError> {
        let (package, progress) = (Arc::clone(&self.package), self.progress.clone());
        let work = move || {
            let base = old.as_ref().map(|o| Base { tree: &o.tree, contents: &o.contents });
            pack::pack(&package, base, &progress)
        };
        Ok(off_thread(work).await??)
    }

    fn entry(
        &self,
        standing: &Standing,
        latest: Option<&Release>,
        packed: &Packed,
        peers: &[Peer],
    ) -> Result<stork_wire::feed::Entry, PushError> {
        let now = now();
        let announcement = Announcement {
            groups: self.groups.clone(),
            bundle: self.options.bundle.clone(),
            urgency: self.options.urgency,
            origins: peers.iter().map(|p| p.report.node).collect(),
            now,
            expires: now + u64::from(self.options.expires_days.max(1)) * DAY_S,
        };
        let package = (&*self.package, packed);
        let mut entry = next_entry(self.author, standing, latest, package, &announcement)?;
        if let Some(via) = &self.via {
            via.put_into(&mut entry).map_err(crate::feed::FeedError::from)?;
        }
        Ok(entry)
    }

    /// Signs what follows the head and commits it; looks again when somebody else was faster.
    async fn commit(
        &self,
        peers: &mut [Peer],
        packed: &Packed,
        report: &mut PushReport,
    ) -> Result<Outcome, PushError> {
        self.progress.phase("announcing", 0);
        let mut tries = 0;
        loop {
            tries += 1;
            let home = peers.first().ok_or_else(|| PushError::Usage("no node".into()))?;
            let standing = home.standing(self.author).await?;
            let latest = home.latest(self.author, &standing, &self.package).await?;
            if self.is_published(latest.as_ref())? {
                report.seq = latest.map(|l| l.seq);
                return Ok(Outcome::AlreadyPublished);
            }
            let entry =
                self.entry(&standing, latest.as_ref().map(|l| &l.release), packed, peers)?;
            let envelope = self.signer.sign(&entry, self.author.charter.fleet)?;
            match session::commit_home(peers, &envelope, &entry).await {
                Err(e) if is_refusal(&e, Refusal::HeadMoved) && tries < COMMIT_TRIES => {
                    self.progress.note("somebody else published meanwhile: signing again");
                    continue;
                }
                other => other?,
            }
            report.add_packed(packed, &entry);
            let notes = session::commit_others(peers, self.author, &envelope, &entry).await;
            report.notes.extend(notes);
            report.notes.extend(retire::nearly_full(standing.live.len() + 1));
            return Ok(Outcome::Published);
        }
    }

    async fn close(&self, peers: Vec<Peer>) -> Vec<NodeReport> {
        let mut out = Vec::new();
        for peer in peers {
            peer.client.close().await;
            out.push(peer.report);
        }
        out
    }
}
