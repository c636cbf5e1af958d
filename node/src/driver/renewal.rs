//! The life of host certificates: renewed past their half, warned about in their last quarter, and
//! the end of connections with hosts whose certificate has run out.
//!
//! All of it goes by the calendar, not by the time since the start: a host that slept for days, or
//! whose clock was wrong at first, must not wait for another hour.

use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::charter::{HostCert, PeerRecord, UnixSeconds};
use stork_wire::codec::{List, encode};
use stork_wire::frame::{Frame, ItemRange, JoinReply, LinkClass, PeerHint};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::ItemKind;
use stork_wire::sign::Envelope;

use super::Driver;
use crate::net::Priority;
use crate::overlay::Peer;
use crate::trust;

/// Seconds that a host certificate is good for (design §4: 30 days, renewed at half).
pub(crate) const CERT_VALID_S: u64 = 30 * DAY_S;
const DAY_S: u64 = 24 * 3_600;
/// Seconds between two looks at certificates.
const LOOK_EVERY_S: u64 = 3_600;
/// Seconds that connections stay whose certificates a root document has made void.
const VOID_AFTER_S: u64 = 60;
/// Hosts that admit and are dialled at one look.
const ASKED_MAX: usize = 3;
/// Root documents beside a certificate for a host that comes late, and their bytes: its frame is
/// one of 64 KiB.
const LATE_ROOTS: u64 = 16;
/// See [`LATE_ROOTS`].
const LATE_ROOTS_BYTES: usize = 40 * 1024;
/// Seconds until the first one: links come up by themselves until then, and bring renewals along.
const FIRST_LOOK_S: u64 = 60;

/// How far a certificate is through its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// Before its half.
    Young,
    /// Past its half: to be renewed.
    Due,
    /// In its last quarter: it should have been renewed long ago.
    Late,
    /// Run out.
    Expired,
}

fn age(cert: &HostCert, now: UnixSeconds) -> Age {
    let life = cert.expires.saturating_sub(cert.issued);
    match cert.expires.saturating_sub(now) {
        0 => Age::Expired,
        left if left <= life / 4 => Age::Late,
        left if left <= life / 2 => Age::Due,
        _ => Age::Young,
    }
}

/// When certificates are looked at next, and what was said of the own one.
#[derive(Debug)]
pub(super) struct Renewal {
    next: UnixSeconds,
    said: Option<(Age, u64)>,
    /// Who admitted this host, as far as it is known: asked where no link leads there.
    pub(super) admitter: Option<Arc<Peer>>,
}

impl Renewal {
    pub(super) const fn new(now: UnixSeconds) -> Self {
        Self { next: now.saturating_add(FIRST_LOOK_S), said: None, admitter: None }
    }

    /// At the next turn of the housekeeping.
    const fn hurry(&mut self) {
        self.next = 0;
    }

    /// Is it time? Also where the clock was put back: it is not waited for until it has caught up.
    const fn is_due(&mut self, now: UnixSeconds) -> bool {
        let soon = self.next <= now.saturating_add(LOOK_EVERY_S);
        if now < self.next && soon {
            return false;
        }
        self.next = now.saturating_add(LOOK_EVERY_S);
        true
    }

    /// Is there something new to say? Once a day while it gets late, once when it is over.
    fn is_news(&mut self, age: Age, days: u64) -> bool {
        let bad = matches!(age, Age::Late | Age::Expired);
        let said = bad.then_some((age, days));
        let news = bad && self.said != said;
        self.said = said;
        news
    }
}

impl Driver {
    /// Everything about certificates that goes by the calendar.
    pub(super) fn watch_certificates(&mut self) {
        let now = self.clock.unix();
        if self.renewal.is_due(now) {
            self.renew_own(now);
            let connected: Vec<NodeId> = self.connections.keys().copied().collect();
            for node in connected {
                self.renew_for(node);
            }
            self.ask_admitter(now);
        }
        self.close_expired(now);
        self.warn_of_own(now);
        self.look_for_keys();
    }

    pub(super) fn own_cert(&self) -> Option<HostCert> {
        let cert: HostCert = self.cert.claimed().ok()?;
        let scope = self.trust.charter().scope_of(cert.node, cert.scope.clone());
        Some(HostCert { scope, ..cert })
    }

    /// The same certificate for another 30 days, where this node admits.
    fn renewed(&self, old: HostCert, now: UnixSeconds) -> Option<Box<JoinReply>> {
        let key = self.admission.as_ref().filter(|_| self.admits())?;
        let new = HostCert { issued: now, expires: now.saturating_add(CERT_VALID_S), ..old };
        let cert = Envelope::sign(&new, self.trust.fleet(), key).ok()?;
        let (roots, peers) = (List::empty(), List::empty());
        Some(Box::new(JoinReply::Admitted { cert, roots, peers }))
    }

    /// With another admission key than before, the own certificate is renewed by it at once.
    pub(super) fn renew_at_start(&mut self) {
        self.look_at_private();
        if self.admits() && !self.trust.is_by_newest(&self.cert) {
            self.renewal.hurry();
        }
    }

    /// Does this node hold a key that may sign certificates by the newest root document?
    pub(super) fn admits(&self) -> bool {
        self.admission.as_ref().is_some_and(|k| self.trust.admits_by(&k.public()))
    }

    /// A new certificate for a host that was refused because its own has run out, with the newest
    /// root documents, so that it can check who signed: what an answer before admission may hold.
    pub(super) fn renew_late(
        &self,
        cert: &Envelope,
        node: NodeId,
        refused: &trust::AdmissionError,
    ) -> Option<Box<JoinReply>> {
        let now = self.clock.unix();
        let late = matches!(refused, trust::AdmissionError::Time(_)) && self.admits();
        let old = late.then(|| self.trust.check_late(cert, now).ok())?;
        let old = old.filter(|c| c.node == node && c.expires <= now)?;
        let mut reply = self.renewed(old, now)?;
        let to = self.trust.charter().root().map_or(1, |r| r.number);
        let from = to.saturating_sub(LATE_ROOTS - 1).max(1);
        let range = ItemRange { log: LogId::root(self.trust.fleet()), from, to };
        if let JoinReply::Admitted { roots, .. } = &mut *reply {
            let count = usize::try_from(LATE_ROOTS).unwrap_or_default();
            let items = self.store.items(range, LATE_ROOTS_BYTES, count).unwrap_or_default();
            *roots = List::truncated(items);
        }
        Some(reply)
    }

    /// Another root document is in force. Certificates whose signer counts no more go after a
    /// minute, so that the document gets to everybody first; those of an earlier key are renewed
    /// now.
    pub(super) fn on_root(&mut self) {
        let now = self.clock.unix();
        self.checked.clear();
        for link in self.connections.values_mut() {
            let until = self.trust.cert_until(&link.cert, now).max(now + VOID_AFTER_S);
            link.cert_expires = link.cert_expires.min(until);
        }
        self.record.current = None;
        self.refresh_record();
        self.renewal.hurry();
    }

    /// A host that admits renews its own certificate. It may be late with that: it has the key.
    fn renew_own(&mut self, now: UnixSeconds) {
        let due = |c: &HostCert| age(c, now) != Age::Young || !self.trust.is_by_newest(&self.cert);
        let own = self.own_cert().filter(due);
        if let Some(reply) = own.and_then(|c| self.renewed(c, now)) {
            self.on_renewed(*reply);
        }
    }

    /// Renews the certificate of a connected host that is past its half, if we admit.
    pub(super) fn renew_for(&mut self, node: NodeId) {
        let now = self.clock.unix();
        let Some(link) = self.connections.get(&node) else { return };
        let Ok(old) = self.trust.check_cert(&link.cert, now) else { return };
        if age(&old, now) == Age::Young && self.trust.is_by_newest(&link.cert) {
            return;
        }
        if let Some(reply) = self.renewed(old, now) {
            self.send(node, Priority::Control, &Frame::Joined(reply));
        }
    }

    /// Dials hosts that admit, where the own certificate is to be renewed and no connection leads
    /// to one of them: in a large fleet, links alone may never do. They renew whoever says hello,
    /// and this goes on every hour until one does.
    fn ask_admitter(&mut self, now: UnixSeconds) {
        let old = self.own_life(now).is_some_and(|c| age(&c, now) != Age::Young);
        let due = old || !self.trust.is_by_newest(&self.cert);
        if !due || self.admits() {
            return;
        }
        for peer in self.admitters() {
            self.counters.add("dials", "admitter");
            self.dial(&peer, LinkClass::Transient, false);
        }
    }

    /// Hosts that may renew certificates: who admitted this one, and those that say so. None where
    /// one of them is connected.
    fn admitters(&self) -> Vec<Arc<Peer>> {
        let says = |p: &Peer| p.hint.record.claimed::<PeerRecord>().is_ok_and(|r| r.admits);
        let mut all: Vec<Arc<Peer>> =
            self.overlay.hosts().filter(|p| says(p)).map(Arc::clone).collect();
        if let Some(known) = &self.renewal.admitter {
            all.retain(|p| p.node != known.node);
            all.insert(0, self.known_host(known.node).unwrap_or_else(|| Arc::clone(known)));
        }
        let ends = self.own_life(self.clock.unix()).map_or(0, |c| c.expires);
        if ends > self.clock.unix() && all.iter().any(|p| self.connections.contains_key(&p.node)) {
            return Vec::new();
        }
        all.truncate(ASKED_MAX);
        all
    }

    /// The own certificate, with its end by its signer as well.
    fn own_life(&self, now: UnixSeconds) -> Option<HostCert> {
        let cert = self.own_cert()?;
        let expires = cert.expires.min(self.trust.cert_until(&self.cert, now));
        Some(HostCert { expires, ..cert })
    }

    /// The same from a host that was dialled, with root documents that say who signed.
    pub(super) fn on_renewed_late(&mut self, reply: JoinReply) {
        let JoinReply::Admitted { roots, .. } = &reply else { return };
        for root in roots.iter().filter(|i| i.kind == ItemKind::Root) {
            self.judge(root.clone(), None, None);
        }
        self.on_renewed(reply);
    }

    /// Takes a fresh certificate for this node from a node that admits.
    pub(super) fn on_renewed(&mut self, reply: JoinReply) {
        let JoinReply::Admitted { cert, .. } = reply else { return };
        let Ok(new) = self.trust.check_cert(&cert, self.clock.unix()) else { return };
        let old = self.own_cert().map_or(0, |c| c.expires);
        let same = new.node == self.me && new.name == self.name && new.site == self.site;
        if !same || new.expires <= old {
            return;
        }
        if let Err(e) = self.store.put_state("cert", &encode(&cert)) {
            tracing::warn!("the renewed certificate is not saved, and asked for again: {e}");
            return;
        }
        self.cert = cert;
        self.record.current = None;
        self.refresh_record();
        self.event("certificate_renewed", "the host certificate was renewed");
    }

    /// Notes a newer certificate of a connected host.
    pub(super) fn note_cert(&mut self, hint: &PeerHint, cert: &HostCert) {
        let now = self.clock.unix();
        if let Some(link) = self.connections.get_mut(&cert.node)
            && cert.expires > link.cert_expires.min(self.trust.cert_until(&link.cert, now))
        {
            (link.cert, link.cert_expires) = (hint.cert.clone(), cert.expires);
            link.scope.clone_from(&cert.scope);
        }
    }

    /// Ends connections with hosts whose certificate has run out since they were admitted.
    fn close_expired(&mut self, now: UnixSeconds) {
        let e = trust::AdmissionError::Time("the certificate");
        let over = self.connections.iter().filter(|(_, l)| l.cert_expires <= now);
        let over: Vec<_> = over.map(|(node, l)| (*node, l.connected.clone())).collect();
        for (node, connected) in over {
            // Closed before, and not gone yet.
            if connected.connection.close_reason().is_none() {
                connected.connection.close(1u32.into(), e.to_string().as_bytes());
                self.counters.add("hosts_refused", e.code());
                self.event("host_refused", format!("{} at {}: {e}", node.short(), connected.addr));
            }
        }
    }

    fn warn_of_own(&mut self, now: UnixSeconds) {
        let Some(cert) = self.own_life(self.clock.unix()) else { return };
        let (age, days) = (age(&cert, now), cert.expires.saturating_sub(now) / DAY_S);
        if !self.renewal.is_news(age, days) {
            return;
        }
        let help = self.certificate_help(age).unwrap_or_default();
        if age == Age::Expired {
            let text = format!("the host certificate has run out, and other hosts refuse: {help}");
            self.event("certificate_expired", text);
        } else {
            let text = format!("the host certificate runs out in {days} days: {help}");
            self.event("certificate_late", text);
        }
    }

    fn certificate_help(&self, age: Age) -> Option<&'static str> {
        match (age, self.admits()) {
            (Age::Young | Age::Due, _) => None,
            (Age::Late | Age::Expired, true) => Some("this host renews itself: see its log"),
            (Age::Late, false) => Some(
                "start the host that admitted this one, or another that admits, and see that UDP \
                      gets there",
            ),
            (Age::Expired, false) => Some(
                "check the clock, and start a host that admits: it renews this one. Otherwise stop \
                 this node, run `stork-node join` with a new token from `stork token create`, and \
                 start it: key, content and views stay",
            ),
        }
    }

    /// For `stork status`.
    pub(super) fn certificate_json(&self) -> Value {
        let now = self.clock.unix();
        let Some(cert) = self.own_life(now) else { return Value::Null };
        let age = age(&cert, now);
        let state = match age {
            Age::Young => "good",
            Age::Due => "due",
            Age::Late => "late",
            Age::Expired => "expired",
        };
        json!({
            "state": state, "issued": cert.issued, "expires": cert.expires,
            "by_newest_key": self.trust.is_by_newest(&self.cert),
            "days_left": cert.expires.saturating_sub(now) / DAY_S,
            "help": self.certificate_help(age),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Young to the half, due to the last quarter, then late, then expired at the very second.
    #[test]
    fn a_certificate_ages_by_its_own_life() {
        let cert = HostCert {
            version: stork_wire::charter::BODY_VERSION,
            node: NodeId([7; 32]),
            name: "host-1".parse().unwrap(),
            site: "default".parse().unwrap(),
            issued: 1_000,
            expires: 1_400,
            scope: None,
        };
        let at = |now| age(&cert, now);
        assert_eq!((at(900), at(1_199)), (Age::Young, Age::Young));
        assert_eq!((at(1_200), at(1_299)), (Age::Due, Age::Due));
        assert_eq!((at(1_300), at(1_399)), (Age::Late, Age::Late));
        assert_eq!((at(1_400), at(u64::MAX)), (Age::Expired, Age::Expired));
    }

    /// A minute after the start and then every hour; at once after the clock was put ahead or back.
    #[test]
    fn looks_go_by_the_calendar() {
        let mut looks = Renewal::new(100_000);
        let seen: Vec<u64> = (100_000..108_000).filter(|now| looks.is_due(*now)).collect();
        assert_eq!(seen, [100_060, 103_660, 107_260]);
        assert!(looks.is_due(900_000), "ahead");
        assert!(!looks.is_due(900_001));
        assert!(looks.is_due(200_000), "back");
        assert!(!looks.is_due(200_001));
    }

    /// A warning comes once a day, the end is said once, and a renewal ends it.
    #[test]
    fn nothing_is_said_twice() {
        let mut looks = Renewal::new(0);
        assert!(!looks.is_news(Age::Young, 20) && !looks.is_news(Age::Due, 10));
        assert!(looks.is_news(Age::Late, 7));
        assert!(!looks.is_news(Age::Late, 7));
        assert!(looks.is_news(Age::Late, 6));
        assert!(looks.is_news(Age::Late, 0) && looks.is_news(Age::Expired, 0));
        assert!(!looks.is_news(Age::Expired, 0));
        assert!(!looks.is_news(Age::Young, 29));
        assert!(looks.is_news(Age::Late, 7), "a year later");
    }
}
