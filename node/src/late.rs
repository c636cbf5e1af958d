//! A certificate that ran out while the host was off: renewed before it starts, by a host that
//! admits, or by its own admission key.
//!
//! Whoever asks shows the old certificate in its hello. It is not let in by that: it gets one
//! answer, the new certificate, and the connection ends (docs/PROTOCOL.md "Join"). A host that was
//! denied gets none, nor one whose certificate ran out half a year ago.

use std::time::Duration;

use stork_wire::charter::{BODY_VERSION, HostCert, PeerRecord};
use stork_wire::codec::{List, decode, encode};
use stork_wire::frame::{
    ALPN_CONTROL, Frame, Hello, JoinReply, LinkClass, PROTOCOL_VERSION, PeerHint,
};
use stork_wire::ids::FleetId;
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::sign::{Envelope, SecretKey};
use tokio::time::timeout;

use crate::driver::CERT_VALID_S;
use crate::net::{dial_once, read_raw, write_raw};
use crate::store::{JournalItem, Store};
use crate::trust::{AdmissionError, Trust, Verdict};

/// How long one host may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Hosts that are asked.
const ASKED_MAX: usize = 6;

/// The own key, and the admission key where there is one.
type Own<'a> = (&'a SecretKey, Option<&'a SecretKey>);

/// A new certificate in the place of one that ran out; `None` where it did not, or nobody gives
/// one. What comes is checked and on disk.
pub(crate) async fn renew(
    store: &Store,
    trust: &mut Trust,
    (key, admission): Own<'_>,
    cert: &Envelope,
    now: u64,
) -> Option<Envelope> {
    let over = matches!(trust.check_cert(cert, now), Err(AdmissionError::Time(_)));
    let old = trust.check_late(cert, now).ok().filter(|c| over && c.expires <= now)?;
    let admits = admission.filter(|k| trust.admits_by(&k.public()));
    let new = match admits {
        Some(admission) => {
            let new = HostCert { issued: now, expires: now.saturating_add(CERT_VALID_S), ..old };
            Envelope::sign(&new, trust.fleet(), admission).ok()?
        }
        None => ask_around(store, trust, key, (cert, &old), now).await?,
    };
    match store.put_state("cert", &encode(&new)) {
        Ok(()) => {
            tracing::info!("the host certificate had run out, and was renewed");
            Some(new)
        }
        Err(e) => {
            tracing::warn!("the renewed certificate is not saved: {e}");
            None
        }
    }
}

/// Who admitted this host, and hosts that said in the last run that they admit. That a host has
/// the key that it is dialled by is checked by the connection; its answer is checked below.
fn admitters(store: &Store) -> Vec<(PeerHint, PeerRecord)> {
    let read = |name: &str| -> Vec<(PeerHint, PeerRecord)> {
        let bytes = store.get_state(name).ok().flatten().unwrap_or_default();
        let hints: List<PeerHint, 1_024> = decode(&bytes, 16 * 1024 * 1024).unwrap_or_default();
        let all = hints.iter().map(|h| Some((h.clone(), h.record.claimed().ok()?)));
        all.flatten().collect()
    };
    // The answer to a join begins with the host that gave it.
    let first = read("anchors").into_iter().take(1);
    let mut all: Vec<_> =
        first.chain(read("peers").into_iter().filter(|(_, r)| r.admits)).collect();
    let mut seen = Vec::new();
    all.retain(|(_, r)| {
        let new = !seen.contains(&(r.node, r.addrs.clone()));
        seen.push((r.node, r.addrs.clone()));
        new
    });
    all.truncate(ASKED_MAX);
    all
}

async fn ask_around(
    store: &Store,
    trust: &mut Trust,
    key: &SecretKey,
    (cert, old): (&Envelope, &HostCert),
    now: u64,
) -> Option<Envelope> {
    let record = PeerRecord {
        version: BODY_VERSION,
        node: old.node,
        incarnation: 0,
        addrs: List::empty(),
        site: old.site.clone(),
        groups: List::empty(),
        cell: None,
        admits: false,
        issued: now,
        expires: now.saturating_add(60),
    };
    let record = Envelope::sign(&record, trust.fleet(), key).ok()?;
    let own = PeerHint { cert: cert.clone(), record };
    for (_, other) in admitters(store) {
        let asked = timeout(ASK_TIMEOUT, ask(key, trust.fleet(), &own, &other)).await;
        let Ok(Some(JoinReply::Admitted { cert, roots, .. })) = asked else { continue };
        let mut items = Vec::new();
        for item in roots.iter().filter(|i| i.kind == stork_wire::item::ItemKind::Root) {
            if let Verdict::Accepted { hash, fact } = trust.judge(item, now) {
                let cuts = fact.cuts().to_vec();
                items.push(JournalItem { item: item.clone(), hash, cuts });
            }
        }
        if store.commit_items(&items).is_err() {
            return None;
        }
        let Ok(new) = trust.check_cert(&cert, now) else { continue };
        // Its scope may be another one: it may have been granted something else meanwhile.
        if new.node == old.node && new.name == old.name && new.site == old.site {
            return Some(cert);
        }
    }
    None
}

async fn ask(
    key: &SecretKey,
    fleet: FleetId,
    own: &PeerHint,
    other: &PeerRecord,
) -> Option<JoinReply> {
    let (endpoint, connection) =
        dial_once(key, other.node, &other.addrs, ALPN_CONTROL).await.ok()?;
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        fleet,
        peer: own.clone(),
        class: LinkClass::Transient,
        starving: false,
    };
    write_raw(&mut send, &encode(&Frame::Hello(Box::new(hello)))).await.ok()?;
    let bytes = read_raw(&mut recv, FRAME_LEN_MAX).await.ok();
    connection.close(0u32.into(), b"thank you");
    drop(timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
    match Frame::from_bytes(&bytes?, FRAME_LEN_MAX) {
        Ok(Frame::Joined(reply)) => Some(*reply),
        _ => None,
    }
}
