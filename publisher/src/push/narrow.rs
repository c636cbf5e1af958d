//! `deny`, `halt`, `resume` and `key suicide`: what takes something away beside the feed.
//!
//! Each is one signed body that proves itself, so that any node takes it without asking who brings
//! it, and the fleet carries it before everything else. The charter goes in front: a node must know
//! the document that names the key.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use stork_wire::charter::{BODY_VERSION, PublisherDoc, UnixSeconds};
use stork_wire::deny::{Content, Denial, Denied};
use stork_wire::ids::{FleetId, LogId, NodeId, PublicKey, PublisherId, TreeId};
use stork_wire::item::Item;
use stork_wire::sign::{Body, Envelope};
use stork_wire::suicide::Suicide;
use stork_wire::text::{Line, PackageName, Pattern};
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::session;
use super::target::places;
use super::{PushError, Target, now, release_signer};
use crate::charter::{Charter, open, read_file};
use crate::feed::Author;
use crate::keys::{Passphrase, Signer, fingerprint};

/// Keys, nodes and reason: the same for all of these.
#[derive(Debug, Clone)]
pub struct Sending {
    /// The directory with the charter, or the bundle itself where no profile is needed.
    pub charter: PathBuf,
    /// The keys that sign, as `Signer::open` takes them.
    pub keys: Vec<String>,
    /// How to open them.
    pub passphrase: Passphrase,
    /// Why, for the people at the hosts.
    pub reason: Line,
    /// The nodes.
    pub to: Vec<Target>,
    /// Check everything, send nothing.
    pub dry_run: bool,
}

/// What is denied.
#[derive(Debug, Clone)]
pub enum DenyWhat {
    /// A tree, for the VMs of a group.
    Tree(TreeId),
    /// Releases, for the VMs of a group.
    Releases {
        /// Whose: a name or an id.
        publisher: String,
        /// Of which packages.
        package: Pattern,
        /// The first counter.
        from: u64,
        /// The last counter.
        to: u64,
    },
}

/// A denial.
#[derive(Debug, Clone)]
pub struct DenyOptions {
    /// The group and what its VMs must not install, or a host that must not connect.
    pub what: Result<(String, DenyWhat), NodeId>,
    /// How it is sent.
    pub sending: Sending,
}

/// A halt, or its end.
#[derive(Debug, Clone)]
pub struct HaltOptions {
    /// One package; `None`: all.
    pub package: Option<PackageName>,
    /// Is it halted? Otherwise it goes on.
    pub halted: bool,
    /// By the publisher's root, so that no release key ends it.
    pub root: bool,
    /// How it is sent.
    pub sending: Sending,
}

/// The end of a release key.
#[derive(Debug, Clone)]
pub struct SuicideOptions {
    /// How it is sent; its one key is the one that ends.
    pub sending: Sending,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NarrowReport {
    /// `stork.narrow/v1`.
    pub schema: &'static str,
    /// `sent` or `dry_run`.
    pub outcome: &'static str,
    /// In words.
    pub what: String,
    /// Its log, by which hosts know it and a group lifts a denial.
    pub log: LogId,
    /// When it was signed, in seconds since 1970.
    pub signed_at: UnixSeconds,
    /// The nodes that took it.
    pub nodes: Vec<NodeId>,
    /// What else should be known.
    pub notes: Vec<String>,
}

impl NarrowReport {
    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let did = if self.outcome == "dry_run" { "would say: " } else { "" };
        let mut out = vec![format!("{did}{}", self.what), format!("  log       {}", self.log)];
        out.extend(self.nodes.iter().map(|n| format!("  {} has it", n.short())));
        out.extend(self.notes.iter().map(|n| format!("  note      {n}")));
        out
    }
}

impl Sending {
    fn signers(&self) -> Result<Vec<Signer>, PushError> {
        let open = |spec: &String| Ok(Signer::open(spec, &self.passphrase)?);
        self.keys.iter().map(open).collect()
    }

    /// The keys of the publisher's root: those that are named, or the one in its directory.
    pub(super) fn root_signers(&self, doc: &PublisherDoc) -> Result<Vec<Signer>, PushError> {
        let mut how = self.clone();
        let own = how.charter.join("keys").join("publisher");
        if how.keys.is_empty() && own.is_file() {
            how.keys.push(own.to_string_lossy().into_owned());
        }
        let signers = how.signers()?;
        check_role("the publisher's root", &doc.root, &signers)?;
        Ok(signers)
    }

    /// The charter first, then the item, to every node that takes it.
    pub(super) async fn send(
        &self,
        charter: &Charter,
        (item, what): (Item, String),
        signed_at: UnixSeconds,
    ) -> Result<NarrowReport, PushError> {
        let mut report = NarrowReport {
            schema: "stork.narrow/v1",
            outcome: if self.dry_run { "dry_run" } else { "sent" },
            what,
            log: item.log,
            signed_at,
            nodes: Vec::new(),
            notes: Vec::new(),
        };
        let places = places(&self.to, &[])?;
        if self.dry_run {
            return Ok(report);
        }
        let documents: Vec<&Item> = charter.items.iter().collect();
        let mut lost = None;
        for place in places {
            let mut sent = session::documents_only(&place, &documents).await;
            if sent.is_ok() {
                sent = session::documents_only(&place, &[&item]).await;
            }
            match sent {
                Ok(()) => report.nodes.push(place.node),
                Err(e) => {
                    report.notes.push(format!("not sent: {e}"));
                    lost = lost.or(Some(e));
                }
            }
        }
        match lost {
            Some(e) if report.nodes.is_empty() => Err(e),
            _ => Ok(report),
        }
    }
}

pub(super) fn signed<T: Body>(
    body: &T,
    fleet: FleetId,
    signers: &[Signer],
) -> Result<Envelope, PushError> {
    let unsigned = Envelope::unsigned(body);
    let mut envelope =
        unsigned.map_err(|e| PushError::Usage(format!("this cannot be said: {e}")))?;
    for signer in signers {
        signer.add_to::<T>(&mut envelope, fleet)?;
    }
    Ok(envelope)
}

fn usage(why: impl Into<String>) -> PushError {
    PushError::Usage(why.into())
}

/// Does the role of these keys have enough of them?
fn check_role(
    what: &str,
    role: &stork_wire::charter::Role,
    signers: &[Signer],
) -> Result<(), PushError> {
    let mut keys: Vec<PublicKey> = signers.iter().map(Signer::public).collect();
    keys.sort_unstable();
    keys.dedup();
    if let Some(key) = keys.iter().find(|k| !role.keys.contains(k)) {
        return Err(PushError::NotSigner { key: fingerprint(key), role: what.to_owned() });
    }
    if keys.len() < role.needed() {
        let (have, need) = (keys.len(), role.needed());
        return Err(usage(format!("{what}: {have} keys given, {need} must sign: add --key")));
    }
    Ok(())
}

/// Denies content to a group's VMs, or a host to the fleet.
pub async fn deny(options: &DenyOptions) -> Result<NarrowReport, PushError> {
    let (how, now) = (&options.sending, now());
    let charter = read_file(&how.charter)?;
    let signers = how.signers()?;
    let (what, text) = match &options.what {
        Err(node) => {
            check_role("admission", &charter.root.admission, &signers)?;
            (Denied::Host(*node), format!("host {} is denied", node.short()))
        }
        Ok((group, what)) => content(&charter, group, what, &signers, now)?,
    };
    let body = Denial { version: BODY_VERSION, what, signed_at: now, reason: how.reason.clone() };
    let item = body.item(signed(&body, charter.fleet, &signers)?);
    how.send(&charter, (item, text), now).await
}

fn content(
    charter: &Charter,
    name: &str,
    what: &DenyWhat,
    signers: &[Signer],
    now: UnixSeconds,
) -> Result<(Denied, String), PushError> {
    let no_group = || PushError::NoGroup(name.to_owned());
    let group = charter.group_named(name).ok_or_else(no_group)?;
    let doc = charter.groups.get(&group).ok_or_else(no_group)?;
    let [signer] = signers else { return Err(usage("one veto key signs: give --key once")) };
    let signer = signer.public();
    let good = doc.veto.iter().find(|v| v.key == signer);
    match good {
        Some(v) if v.not_after > now => {}
        Some(_) => {
            return Err(usage(format!(
                "the veto key has run out: stork-publish charter veto {name} --add KEY.pub"
            )));
        }
        None => {
            let role = format!("the veto keys of group `{name}`");
            return Err(PushError::NotSigner { key: fingerprint(&signer), role });
        }
    }
    let (what, text) = match what {
        DenyWhat::Tree(tree) => (Content::Tree(*tree), format!("tree {}", tree.short())),
        DenyWhat::Releases { publisher, package, from, to } => {
            let id: PublisherId = charter.publisher_named(publisher)?;
            let text = match *to {
                u64::MAX => format!("{package} by {publisher}, releases from {from} on"),
                to => format!("{package} by {publisher}, releases {from} to {to}"),
            };
            let package = package.clone();
            (Content::Releases { publisher: id, package, from: *from, to: *to }, text)
        }
    };
    Ok((Denied::Content { group, signer, what }, format!("{text} is denied to group {name}")))
}

/// A withdrawal of a publisher as its document stands.
pub(super) fn withdrawal(
    author: Author<'_>,
    by: Level,
    what: What,
    (signed_at, reason): (UnixSeconds, Line),
) -> Withdrawal {
    Withdrawal {
        version: BODY_VERSION,
        publisher: author.publisher,
        epoch: author.doc.epoch,
        document: author.doc.number,
        by,
        signed_at,
        what,
        reason,
    }
}

/// In one second a halt beats its end, so that an end is signed in the second after it was asked
/// for: then it follows every halt that was made before.
async fn next_second() -> UnixSeconds {
    let asked = now();
    while now() == asked {
        let past = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begun = Duration::from_nanos(past.subsec_nanos().into());
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(begun)).await;
    }
    now()
}

/// Halts what a publisher releases, or lets it go on.
pub async fn halt(options: &HaltOptions) -> Result<NarrowReport, PushError> {
    let how = &options.sending;
    let now = if options.halted { now() } else { next_second().await };
    let (charter, profile) = open(&how.charter)?;
    let publisher = profile.publisher;
    let doc = charter.publishers.get(&publisher);
    let doc = doc.ok_or_else(|| usage("the charter lacks this publisher"))?;
    let author = Author { charter: &charter, publisher, doc };
    let (by, signers) = if options.root {
        (Level::Root, how.root_signers(doc)?)
    } else {
        let signer = release_signer(how.keys.first(), &profile, &how.passphrase)?;
        match &options.package {
            Some(package) => author.may_recall(signer.public(), package, now)?,
            None => author.may_halt(signer.public(), now)?,
        }
        (Level::Release, vec![signer])
    };
    let (package, halted) = (options.package.clone(), options.halted);
    let name = package.as_ref().map_or_else(|| "everything".to_owned(), ToString::to_string);
    let does = if halted { "is halted" } else { "goes on" };
    let text = format!("{name} of {} {does}", doc.name);
    let body = withdrawal(author, by, What::Halt { package, halted }, (now, how.reason.clone()));
    let item = body.item(signed(&body, charter.fleet, &signers)?);
    let mut report = how.send(&charter, (item, text), now).await?;
    if !halted && !options.root {
        report.notes.push("a halt by the publisher's root stands until `resume --root`".into());
    }
    Ok(report)
}

/// Ends a release key for ever.
pub async fn suicide(options: &SuicideOptions) -> Result<NarrowReport, PushError> {
    let (how, now) = (&options.sending, now());
    let charter = read_file(&how.charter)?;
    let signers = how.signers()?;
    let [signer] = signers.as_slice() else { return Err(usage("one key ends: name one file")) };
    let key = signer.public();
    let epochs = |id: &PublisherId, epoch: u32| charter.release_keys(*id, epoch);
    let named = charter.publishers.iter().find(|(id, doc)| {
        (1..=doc.epoch).any(|epoch| epochs(id, epoch).iter().any(|k| k.key == key))
    });
    let Some((_, doc)) = named else {
        let role = "the release keys of this charter".to_owned();
        return Err(PushError::NotSigner { key: fingerprint(&key), role });
    };
    let (version, reason) = (BODY_VERSION, how.reason.clone());
    let body = Suicide { version, key, signed_at: now, reason };
    let item = body.item(signed(&body, charter.fleet, &signers)?);
    let text = format!("release key {} of {} has ended itself", fingerprint(&key), doc.name);
    let mut report = how.send(&charter, (item, text), now).await?;
    report.notes.push(
        "what it signed in this epoch is void; say what of it stands: stork-publish charter revoke"
            .into(),
    );
    Ok(report)
}
