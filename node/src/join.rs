//! Joining: how a host without a certificate gets one, and how the first host of a fleet begins.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stork_wire::charter::{BODY_VERSION, HostCert, JoinToken, RootDoc};
use stork_wire::codec::{List, decode, encode};
use stork_wire::frame::{ALPN_CONTROL, Frame, JoinReply, JoinRequest, PeerHint};
use stork_wire::ids::FleetId;
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::{FRAME_LEN_MAX, GROUP_KEYS_MAX, HINTS_MAX, RECORD_LEN_MAX};
use stork_wire::seal::GroupKey;
use stork_wire::sign::{Envelope, SecretKey};
use stork_wire::text::Label;
use tokio::time::timeout;

use crate::identity;
use crate::net::{dial_once, read_raw, write_raw};
use crate::reload::load_trust;
use crate::store::{JournalItem, Store};
use crate::trust::{Trust, Verdict};

/// How long joining may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Days of the first host's own certificate.
const FIRST_CERT_DAYS: u64 = 30;

/// Why a host could not join. Nothing was changed but the node's key, which is kept.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The host has joined before.
    #[error("this host belongs to the fleet {} already", .0.short())]
    Already(FleetId),
    /// It has joined another fleet than the token's.
    #[error("this host belongs to the fleet {}, and cannot join {}", .0.short(), .1.short())]
    OtherFleet(FleetId, FleetId),
    /// It belongs to no fleet, and so has no key to replace.
    #[error("this host has not joined a fleet")]
    NotJoined,
    /// The admitting node cannot be reached.
    #[error("the admitting node cannot be reached: {0}")]
    Unreachable(String),
    /// The admitting node says no.
    #[error("the admitting node refuses: {0}")]
    Refused(String),
    /// What came back does not prove what it must.
    #[error("the answer of the admitting node is not to be trusted: {0}")]
    Untrusted(String),
    /// The charter with which a fleet begins does not hold.
    #[error("this charter does not hold: {0}")]
    Charter(String),
    /// The key with which a first host was to admit itself admits nobody.
    #[error("this key does not admit hosts: {0}")]
    NotAdmission(String),
    /// Disk.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// Disk.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
}

impl JoinError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Already(_) => "start it with `stork-node run`".into(),
            Self::NotJoined => "`stork-node join` with the same token".into(),
            Self::OtherFleet(..) => {
                "check where the token came from; to leave a fleet, begin with another --state"
                    .into()
            }
            Self::Unreachable(_) => {
                "check address and port in the token, and any firewall for UDP".into()
            }
            Self::Refused(_) => {
                "make a new token on the admitting node: `stork token create`".into()
            }
            Self::Untrusted(_) => "check where the token came from".into(),
            Self::Charter(_) => {
                "take charter.bundle from the publisher's directory again; `stork-publish charter \
                 verify FILE` says what is wrong with it"
                    .into()
            }
            Self::NotAdmission(_) => {
                "give keys/admission of this charter; `stork-publish charter show DIR` lists the \
                 keys of each role"
                    .into()
            }
            Self::Store(e) => e.help().into(),
            Self::Identity(e) => e.help().into(),
        }
    }

    /// The exit code (design §11).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Already(_) => 0,
            Self::NotJoined => 78,
            Self::Unreachable(_) => 75,
            Self::OtherFleet(..)
            | Self::Refused(_)
            | Self::Untrusted(_)
            | Self::Charter(_)
            | Self::NotAdmission(_) => 4,
            Self::Store(e) => e.exit_code(),
            Self::Identity(e) => e.exit_code(),
        }
    }
}

/// What a host got by joining.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The fleet.
    pub fleet: FleetId,
    /// The host's certificate.
    pub cert: HostCert,
}

/// The fleet that this state folder belongs to.
pub fn fleet_of(store: &Store) -> Result<Option<FleetId>, crate::store::StoreError> {
    let bytes = store.get_state("fleet")?;
    Ok(bytes.and_then(|b| <[u8; 32]>::try_from(b).ok()).map(FleetId))
}

/// May this host join the fleet? Not where it is a member: of another fleet at all, or of this one
/// with a certificate that is still good. One whose certificate ran out joins again, and one that
/// was denied or whose signer counts no more: those who admit hosts decide by the token.
fn check_new(store: &Store, fleet: FleetId) -> Result<(), JoinError> {
    let Some(before) = fleet_of(store)? else { return Ok(()) };
    if before != fleet {
        return Err(JoinError::OtherFleet(before, fleet));
    }
    let Some(cert) = cert_of(store)? else { return Ok(()) };
    let trust = load_trust(store, before, |_| {})?;
    match trust.check_cert(&cert, crate::driver::Clock::start().unix()) {
        Ok(_) => Err(JoinError::Already(before)),
        Err(_) => Ok(()),
    }
}

fn cert_of(store: &Store) -> Result<Option<Envelope>, crate::store::StoreError> {
    Ok(store.get_state("cert")?.and_then(|b| decode(&b, RECORD_LEN_MAX).ok()))
}

/// Joins by token.
pub async fn join(
    store: &Arc<Store>,
    state: &Path,
    token: &JoinToken,
    envelope: Envelope,
    name: Label,
) -> Result<Joined, JoinError> {
    check_new(store, token.fleet)?;
    let key = identity::open_or_create(state)?;
    let answer = admitted(&key, token, envelope, name).await?;
    finish(store, &answer.trust, &key, &answer.items, &answer.cert, &answer.peers)
}

/// Gives a host of the fleet another key, by a token: one whose state folder was cloned from
/// another machine, or whose key somebody else may have. Content, views and generations stay.
pub async fn rekey(
    store: &Arc<Store>,
    state: &Path,
    token: &JoinToken,
    envelope: Envelope,
    name: Label,
) -> Result<Joined, JoinError> {
    match fleet_of(store)? {
        None => return Err(JoinError::NotJoined),
        Some(fleet) if fleet != token.fleet => {
            return Err(JoinError::OtherFleet(fleet, token.fleet));
        }
        Some(_) => {}
    }
    let key = identity::fresh()?;
    let answer = admitted(&key, token, envelope, name).await?;
    // The key first: with a certificate of another key the host does not start, and this command
    // is run again.
    identity::replace(state, &key)?;
    finish(store, &answer.trust, &key, &answer.items, &answer.cert, &answer.peers)
}

/// What came of a token, checked.
struct Answer {
    trust: Trust,
    items: Vec<JournalItem>,
    cert: Envelope,
    peers: List<PeerHint, HINTS_MAX>,
}

async fn admitted(
    key: &SecretKey,
    token: &JoinToken,
    envelope: Envelope,
    name: Label,
) -> Result<Answer, JoinError> {
    let request = JoinRequest { token: envelope, name };
    let asked = timeout(JOIN_TIMEOUT, ask(key, token, request)).await;
    let reply = asked.map_err(|_late| JoinError::Unreachable("no answer within 20 s".into()))??;
    let (cert, roots, peers) = match reply {
        JoinReply::Admitted { cert, roots, peers } => (cert, roots, peers),
        JoinReply::Refused(why) => return Err(JoinError::Refused(why.to_string())),
    };
    let mut trust = Trust::new(token.fleet);
    let items = judge_all(&mut trust, &roots)?;
    Ok(Answer { trust, items, cert, peers })
}

async fn ask(
    key: &SecretKey,
    token: &JoinToken,
    request: JoinRequest,
) -> Result<JoinReply, JoinError> {
    let unreachable = |e: &dyn std::fmt::Display| JoinError::Unreachable(e.to_string());
    let (endpoint, connection) = dial_once(key, token.admitter, &token.addrs, ALPN_CONTROL)
        .await
        .map_err(|e| unreachable(&e))?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(|e| unreachable(&e))?;
    let frame = encode(&Frame::Join(Box::new(request)));
    write_raw(&mut send, &frame).await.map_err(|e| unreachable(&e))?;
    let bytes = read_raw(&mut recv, 16 * FRAME_LEN_MAX).await.map_err(|e| {
        let said = connection.close_reason().map(|r| r.to_string());
        JoinError::Refused(said.unwrap_or_else(|| e.to_string()))
    })?;
    connection.close(0u32.into(), b"thank you");
    drop(timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
    match Frame::from_bytes(&bytes, 16 * FRAME_LEN_MAX) {
        Ok(Frame::Joined(reply)) => Ok(*reply),
        Ok(_) => Err(JoinError::Untrusted("it answers with something else".into())),
        Err(e) => Err(JoinError::Untrusted(e.to_string())),
    }
}

/// Judges documents in the order of root, group, publisher; all must be accepted.
fn judge_all(trust: &mut Trust, items: &[Item]) -> Result<Vec<JournalItem>, JoinError> {
    let mut sorted = items.to_vec();
    sorted.sort_by_key(|i| (i.kind, i.seq));
    let mut out = Vec::new();
    for item in sorted {
        match trust.judge(&item, u64::MAX) {
            Verdict::Accepted { hash, fact } => {
                out.push(JournalItem { item, hash, cuts: fact.cuts().to_vec() });
            }
            Verdict::Known | Verdict::Rival { .. } => {}
            Verdict::Pending { .. } | Verdict::Behind { .. } => {
                return Err(JoinError::Untrusted("a charter document is missing".into()));
            }
            Verdict::Refused(r) => return Err(JoinError::Untrusted(r.to_string())),
        }
    }
    Ok(out)
}

fn finish(
    store: &Store,
    trust: &Trust,
    key: &SecretKey,
    items: &[JournalItem],
    cert: &Envelope,
    peers: &[PeerHint],
) -> Result<Joined, JoinError> {
    let now = crate::driver::Clock::start().unix();
    let checked = trust.check_cert(cert, now).map_err(|e| JoinError::Untrusted(e.to_string()))?;
    if checked.node != identity::node_id(key) {
        return Err(JoinError::Untrusted("the certificate is for another key".into()));
    }
    let heads = store.heads()?;
    let known = |i: &JournalItem| heads.iter().any(|h| h.log == i.item.log && h.seq >= i.item.seq);
    let items: Vec<JournalItem> = items.iter().filter(|i| !known(i)).cloned().collect();
    store.commit_items(&items)?;
    let anchors: List<PeerHint, 1_024> = List::truncated(peers.iter().cloned());
    store.put_state("anchors", &encode(&anchors))?;
    store.put_state("cert", &encode(cert))?;
    // Last: with this row the host counts as joined.
    store.put_state("fleet", trust.fleet().as_bytes())?;
    Ok(Joined { fleet: trust.fleet(), cert: checked })
}

/// Begins a fleet on its first host: takes the charter, and certifies itself with the admission
/// key.
pub fn found(
    store: &Arc<Store>,
    state: &Path,
    charter: &[Item],
    admission: &SecretKey,
    name: Label,
    site: Label,
) -> Result<Joined, JoinError> {
    let root = charter.iter().filter(|i| i.kind == ItemKind::Root).find_map(|i| {
        let doc: RootDoc = i.envelope.claimed().ok()?;
        (doc.number == 1).then(|| doc.fleet_id())
    });
    let fleet = root.ok_or_else(|| JoinError::Charter("it holds no root document".into()))?;
    check_new(store, fleet)?;
    let key = identity::open_or_create(state)?;
    let mut trust = Trust::new(fleet);
    let items = judge_all(&mut trust, charter).map_err(|e| match e {
        JoinError::Untrusted(why) => JoinError::Charter(why),
        other => other,
    })?;
    let now = crate::driver::Clock::start().unix();
    let cert = HostCert {
        version: BODY_VERSION,
        node: identity::node_id(&key),
        name,
        site,
        issued: now,
        expires: now + FIRST_CERT_DAYS * 24 * 3_600,
        scope: None,
    };
    let cert =
        Envelope::sign(&cert, fleet, admission).map_err(|e| JoinError::Untrusted(e.to_string()))?;
    // Before the key is kept: another one, perhaps a release key, has nothing to do here.
    trust.check_cert(&cert, now).map_err(|e| JoinError::NotAdmission(e.to_string()))?;
    identity::keep_admission_key(state, admission)?;
    finish(store, &trust, &key, &items, &cert, &[])
}

/// Where the store keeps the keys of private groups.
pub(crate) const KEYS_ROW: &str = "group_keys";

/// The keys of private groups that are on disk.
pub(crate) fn read_group_keys(store: &Store) -> Result<Vec<GroupKey>, crate::store::StoreError> {
    let bytes = store.get_state(KEYS_ROW)?.unwrap_or_default();
    let keys: List<GroupKey, GROUP_KEYS_MAX> = decode(&bytes, 64 * 1024).unwrap_or_default();
    Ok(keys.iter().cloned().collect())
}
