//! All nodes of one push: welcomed, given the charter, given the content, asked to commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::charter::{
    BODY_VERSION, DELEGATION_DEPTH_MAX, GroupDoc, PublisherDoc, PushCert, UnixSeconds,
};
use stork_wire::codec::List;
use stork_wire::feed::Entry;
use stork_wire::frame::{PushReply, PushRequest, RELEASES_AT_ONCE, Refusal};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::Envelope;
use stork_wire::text::PackageName;
use tokio::task::JoinSet;

use super::client::{Body, Client, is_refusal};
use super::error::PushError;
use super::report::NodeReport;
use super::upload::{Sent, upload};
use crate::delegate::Via;
use crate::feed::{Author, Published, Standing};
use crate::keys::{Signer, generate};
use crate::pack::Packed;
use crate::progress::Progress;
use crate::source::Package;

/// Seconds that a push certificate lives: the most that the wire allows.
const CERT_LIFE_S: u64 = 600;

/// A node that has welcomed us.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) report: NodeReport,
}

/// Where to push, with the id that each node must prove.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) addr: String,
    pub(super) node: NodeId,
}

/// Which nodes a push can do without.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enough<'a> {
    /// So many must have the content.
    pub(super) copies: usize,
    /// The first one must be one of these, if there are any.
    pub(super) homes: &'a [NodeId],
}

impl Enough<'_> {
    /// A note for each node that was lost, or the first loss if the others are not enough.
    fn without(self, left: &[Peer], lost: Vec<PushError>) -> Result<Vec<String>, PushError> {
        let good = |p: &Peer| self.homes.is_empty() || self.homes.contains(&p.report.node);
        let home = left.first().is_some_and(good);
        let notes = lost.iter().map(|e| format!("goes on without a node: {e}")).collect();
        match lost.into_iter().next() {
            Some(first) if !home || left.len() < self.copies => Err(first),
            _ => Ok(notes),
        }
    }
}

/// A node that is down or full, and not one that is wrong.
const fn is_loss(e: &PushError) -> bool {
    use Refusal::{Busy, Internal, NoSpace};
    match e {
        PushError::Connect { .. } | PushError::Lost { .. } | PushError::Timeout { .. } => true,
        PushError::Refused { code, .. } => matches!(code, Busy | Internal | NoSpace),
        _ => false,
    }
}

/// Connects to all nodes; the first one is the home.
///
/// A node that does not answer is left out, as long as the others are enough.
pub(super) async fn open(
    places: &[Place],
    (author, signer, via): (Author<'_>, &Signer, Option<&Via>),
    enough: Enough<'_>,
    now: UnixSeconds,
) -> Result<(Vec<Peer>, Vec<String>), PushError> {
    let tls_key = generate()?;
    let cert = PushCert {
        version: BODY_VERSION,
        tls_key: tls_key.public(),
        publisher: author.publisher,
        issued: now,
        expires: now + CERT_LIFE_S,
    };
    let fleet = author.charter.fleet;
    let cert = signer.sign(&cert, fleet)?;
    let mut out = Vec::new();
    let mut lost = Vec::new();
    for place in places {
        let client = match Client::connect(&place.addr, place.node, &tls_key).await {
            Ok(client) => client,
            Err(e) if is_loss(&e) => {
                lost.push(e);
                continue;
            }
            Err(e) => return Err(e),
        };
        let cert = cert.clone();
        let hello = match via.map(|v| v.envelope.clone()) {
            None => PushRequest::Hello { fleet, cert },
            Some(via) => PushRequest::HelloDelegated { fleet, cert, via },
        };
        let name = match client.ask(&hello, Body::None).await?.0 {
            PushReply::Welcome { node, name } if node == place.node => name.to_string(),
            PushReply::Welcome { .. } => return Err(client.nonsense("another node's welcome")),
            other => return Err(client.nonsense(format!("{other:?}"))),
        };
        let report = NodeReport {
            node: place.node,
            name,
            addr: place.addr.clone(),
            sent_bytes: 0,
            resumed_bytes: 0,
            present_bytes: 0,
            committed: false,
            peers: 0,
        };
        out.push(Peer { client, report });
    }
    let notes = enough.without(&out, lost)?;
    Ok((out, notes))
}

/// Documents that go to a node without a hello, over one connection: as many as it takes then.
const DOCUMENTS_MAX: usize = 64;

/// What others rest on comes first: the fleet's documents, then the groups', then the
/// publishers'. A node does not take a publisher whom no group names yet, and a bundle has no such
/// order.
fn in_order<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<&'a Item> {
    let mut items: Vec<&Item> = items.into_iter().collect();
    let steps = steps(&items);
    items.sort_by_key(|i| (i.kind, steps.get(&i.log).copied(), i.seq));
    items
}

/// By how many delegations each publisher is one that a group names: its documents rest on those of
/// its delegators. None where a group names it itself.
fn steps(items: &[&Item]) -> BTreeMap<LogId, u8> {
    let groups = items.iter().filter(|i| i.kind == ItemKind::Group);
    let groups = groups.filter_map(|i| i.envelope.claimed::<GroupDoc>().ok());
    let named = groups.flat_map(|d| d.publishers.iter().map(|g| g.publisher).collect::<Vec<_>>());
    let named: BTreeSet<LogId> = named.map(LogId::publisher).collect();
    let docs: Vec<(LogId, PublisherDoc)> = items
        .iter()
        .filter(|i| i.kind == ItemKind::Publisher)
        .filter_map(|i| Some((i.log, i.envelope.claimed().ok()?)))
        .collect();
    let mut steps: BTreeMap<LogId, u8> = BTreeMap::new();
    for step in 1..=DELEGATION_DEPTH_MAX {
        let known = |log: &LogId| named.contains(log) || steps.contains_key(log);
        let from = docs.iter().filter(|(log, _)| known(log));
        let to = from.flat_map(|(_, d)| d.delegations.iter().map(|d| LogId::publisher(d.to)));
        let new: Vec<LogId> = to.filter(|log| !known(log)).collect();
        steps.extend(new.into_iter().map(|log| (log, step)));
    }
    steps
}

/// Connects to a node only to give it documents.
pub(super) async fn documents_only(place: &Place, items: &[&Item]) -> Result<(), PushError> {
    for part in in_order(items.iter().copied()).chunks(DOCUMENTS_MAX) {
        let client = Client::connect(&place.addr, place.node, &generate()?).await?;
        for some in part.chunks(4) {
            let some = some.iter().map(|i| (*i).clone());
            let request = PushRequest::Documents(List::truncated(some));
            client.put(&request, Body::None).await?;
        }
        client.close().await;
    }
    Ok(())
}

impl Peer {
    /// Gives the node all documents of the charter; it keeps what it lacks.
    pub(super) async fn documents(&self, author: Author<'_>) -> Result<(), PushError> {
        for some in in_order(&author.charter.items).chunks(4) {
            let some = some.iter().map(|i| (*i).clone());
            let request = PushRequest::Documents(List::truncated(some));
            self.client.put(&request, Body::None).await?;
        }
        Ok(())
    }

    /// Gives the node what narrows, and the charter before it if it may lack that.
    pub(super) async fn give(
        &self,
        author: Author<'_>,
        item: &Item,
        charter: bool,
    ) -> Result<(), PushError> {
        if charter {
            self.documents(author).await?;
        }
        let request = PushRequest::Documents(List::truncated([item.clone()]));
        self.client.put(&request, Body::None).await.map(|_| ())
    }

    /// Where the feed stands on this node, checked.
    pub(super) async fn standing(&self, author: Author<'_>) -> Result<Standing, PushError> {
        match self.client.ask(&PushRequest::Head, Body::None).await?.0 {
            PushReply::Head { entry, live } => Ok(author.standing(entry.as_deref(), &live)?),
            other => Err(self.client.nonsense(format!("{other:?}"))),
        }
    }

    /// The newest release of a package on this node, checked.
    pub(super) async fn latest(
        &self,
        author: Author<'_>,
        standing: &Standing,
        package: &Package,
    ) -> Result<Option<Published>, PushError> {
        let (name, arch) = (package.name.clone(), package.arch.clone());
        let request = PushRequest::Latest { package: name, arch };
        let shown = match self.client.ask(&request, Body::None).await?.0 {
            PushReply::Latest(shown) => shown,
            other => return Err(self.client.nonsense(format!("{other:?}"))),
        };
        let Some(shown) = shown else { return Ok(None) };
        let latest = author.latest(standing, &shown)?;
        let release = &latest.release;
        if release.package != package.name || release.arch != package.arch {
            return Err(self.client.nonsense("the release of another package"));
        }
        Ok(Some(latest))
    }

    /// All live releases of a package on this node, checked, the newest first.
    pub(super) async fn releases(
        &self,
        author: Author<'_>,
        standing: &Standing,
        package: &PackageName,
    ) -> Result<Vec<Published>, PushError> {
        let (mut out, mut before) = (Vec::<Published>::new(), None);
        loop {
            let request = PushRequest::Releases { package: package.clone(), before };
            let shown = match self.client.ask(&request, Body::None).await?.0 {
                PushReply::Releases(shown) => shown,
                other => return Err(self.client.nonsense(format!("{other:?}"))),
            };
            for envelope in &shown {
                let at = envelope.claimed::<Entry>().map(|e| e.position()).ok();
                if at.is_none() || before.is_some_and(|b| at >= Some(b)) {
                    return Err(self.client.nonsense("releases that are in no order"));
                }
                before = at;
                let release = author.latest(standing, envelope)?;
                if release.release.package != *package {
                    return Err(self.client.nonsense("the release of another package"));
                }
                out.push(release);
            }
            if shown.len() < RELEASES_AT_ONCE {
                return Ok(out);
            }
        }
    }

    /// All live releases on this node with their entries, checked, the newest first.
    pub(super) async fn live(
        &self,
        author: Author<'_>,
        standing: &Standing,
    ) -> Result<Vec<(Envelope, Published)>, PushError> {
        let (mut out, mut before) = (Vec::<(Envelope, Published)>::new(), None);
        loop {
            let request = PushRequest::Live { before };
            let shown = match self.client.ask(&request, Body::None).await?.0 {
                PushReply::Releases(shown) => shown,
                other => return Err(self.client.nonsense(format!("{other:?}"))),
            };
            let last = shown.len() < RELEASES_AT_ONCE;
            for envelope in shown.into_vec() {
                let release = author.latest(standing, &envelope)?;
                if before.is_some_and(|b| release.at >= b) {
                    return Err(self.client.nonsense("releases that are in no order"));
                }
                before = Some(release.at);
                out.push((envelope, release));
            }
            if last {
                break;
            }
        }
        // Each is one that the head commits to, and none is there twice.
        if out.len() == standing.live.len() {
            return Ok(out);
        }
        Err(self.client.nonsense("fewer live releases than its head commits to"))
    }

    async fn commit(&mut self, envelope: &Envelope, seq: u64) -> Result<(), PushError> {
        let request = PushRequest::Commit(envelope.clone());
        match self.client.ask(&request, Body::None).await?.0 {
            PushReply::Committed { seq: got, peers } if got == seq => {
                self.report.committed = true;
                self.report.peers = peers;
                Ok(())
            }
            other => Err(self.client.nonsense(format!("{other:?}"))),
        }
    }
}

/// Puts the content on all nodes at once, and notes what each of them was sent. Those that fail are
/// let go, as long as the others are enough.
pub(super) async fn upload_all(
    peers: &mut Vec<Peer>,
    packed: &Arc<Packed>,
    enough: Enough<'_>,
    progress: &Progress,
) -> Result<Vec<String>, PushError> {
    let bytes: u64 = packed.all_packs().iter().map(|(_, size)| size).sum();
    let all = (bytes + packed.bytes.len() as u64).saturating_mul(peers.len() as u64);
    progress.phase("sending", all);
    let mut tasks: JoinSet<(usize, Result<Sent, PushError>)> = JoinSet::new();
    for (i, peer) in peers.iter().enumerate() {
        let (client, packed, progress) =
            (peer.client.clone(), Arc::clone(packed), progress.clone());
        tasks.spawn(async move { (i, upload(&client, &packed, &progress).await) });
    }
    let (mut gone, mut lost) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (i, sent) = done.map_err(|e| PushError::Local(std::io::Error::other(e)))?;
        let sent = match sent {
            Ok(sent) => sent,
            Err(e) if is_loss(&e) => {
                gone.extend(peers.get(i).map(|p| p.report.node));
                lost.push(e);
                continue;
            }
            Err(e) => return Err(e),
        };
        if let Some(peer) = peers.get_mut(i) {
            peer.report.sent_bytes = sent.bytes;
            peer.report.resumed_bytes = sent.resumed;
            peer.report.present_bytes = sent.present;
        }
    }
    peers.retain(|p| !gone.contains(&p.report.node));
    enough.without(peers, lost)
}

/// Commits at the home. What it does not take, nobody is given.
pub(super) async fn commit_home(
    peers: &mut [Peer],
    envelope: &Envelope,
    entry: &Entry,
) -> Result<(), PushError> {
    let Some(home) = peers.first_mut() else { return Ok(()) };
    home.commit(envelope, entry.seq).await
}

/// Hands the committed entry to the other nodes. They may have heard of it already, or leave it to
/// the fleet to tell them: that is a note and no failure, since the home has it for good.
pub(super) async fn commit_others(
    peers: &mut [Peer],
    author: Author<'_>,
    envelope: &Envelope,
    entry: &Entry,
) -> Vec<String> {
    let mut notes = Vec::new();
    for peer in peers.iter_mut().skip(1) {
        let Err(e) = peer.commit(envelope, entry.seq).await else { continue };
        let standing = peer.standing(author).await.ok().and_then(|s| s.head);
        if standing.is_some_and(|(_, hash)| hash == envelope.hash()) {
            peer.report.committed = true;
        } else if !is_refusal(&e, Refusal::NotHome) {
            notes.push(format!("{e}; the entry reaches it through the fleet"));
        }
    }
    notes
}
