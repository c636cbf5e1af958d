//! The life of host certificates: renewed past their half, warned about in their last quarter, and
//! the end of connections with hosts whose certificate has run out.
//!
//! All of it goes by the calendar, not by the time since the start: a host that slept for days, or
//! whose clock was wrong at first, must not wait for another hour.

use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::charter::{HostCert, UnixSeconds};
use stork_wire::codec::{List, encode};
use stork_wire::frame::{Frame, JoinReply, LinkClass, PeerHint};
use stork_wire::ids::NodeId;
use stork_wire::sign::Envelope;

use super::Driver;
use crate::net::Priority;
use crate::overlay::Peer;
use crate::trust;

/// Seconds that a host certificate is good for (design §4: 30 days, renewed at half).
pub(super) const CERT_VALID_S: u64 = 30 * DAY_S;
const DAY_S: u64 = 24 * 3_600;
/// Seconds between two looks at certificates.
const LOOK_EVERY_S: u64 = 3_600;
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
    }

    pub(super) fn own_cert(&self) -> Option<HostCert> {
        self.cert.claimed().ok()
    }

    /// The same certificate for another 30 days, where this node admits.
    fn renewed(&self, old: HostCert, now: UnixSeconds) -> Option<Box<JoinReply>> {
        let key = self.admission.as_ref()?;
        let new = HostCert { issued: now, expires: now.saturating_add(CERT_VALID_S), ..old };
        let cert = Envelope::sign(&new, self.trust.fleet(), key).ok()?;
        let (roots, peers) = (List::empty(), List::empty());
        Some(Box::new(JoinReply::Admitted { cert, roots, peers }))
    }

    /// A host that admits renews its own certificate. It may be late with that: it has the key.
    fn renew_own(&mut self, now: UnixSeconds) {
        let own = self.own_cert().filter(|c| age(c, now) != Age::Young);
        if let Some(reply) = own.and_then(|c| self.renewed(c, now)) {
            self.on_renewed(*reply);
        }
    }

    /// Renews the certificate of a connected host that is past its half, if we admit.
    pub(super) fn renew_for(&mut self, node: NodeId) {
        let now = self.clock.unix();
        let Some(link) = self.connections.get(&node) else { return };
        let Ok(old) = self.trust.check_cert(&link.cert, now) else { return };
        if age(&old, now) == Age::Young {
            return;
        }
        if let Some(reply) = self.renewed(old, now) {
            self.send(node, Priority::Control, &Frame::Joined(reply));
        }
    }

    /// Dials the host that admitted this one, where the own certificate is past its half and no
    /// connection leads there: in a large fleet, links alone may never do. It renews whoever says
    /// hello, and this goes on every hour until it does.
    fn ask_admitter(&mut self, now: UnixSeconds) {
        let due = self.own_cert().is_some_and(|c| matches!(age(&c, now), Age::Due | Age::Late));
        let Some(known) = self.renewal.admitter.clone() else { return };
        if due && self.admission.is_none() && !self.connections.contains_key(&known.node) {
            let peer = self.known_host(known.node).unwrap_or(known);
            self.counters.add("dials", "admitter");
            self.dial(&peer, LinkClass::Transient, false);
        }
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
        self.event("certificate_renewed", "the host certificate was renewed");
    }

    /// Notes a newer certificate of a connected host.
    pub(super) fn note_cert(&mut self, hint: &PeerHint, cert: &HostCert) {
        if let Some(link) = self.connections.get_mut(&cert.node)
            && cert.expires > link.cert_expires
        {
            (link.cert, link.cert_expires) = (hint.cert.clone(), cert.expires);
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
        let Some(cert) = self.own_cert() else { return };
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

    const fn certificate_help(&self, age: Age) -> Option<&'static str> {
        match (age, self.admission.is_some()) {
            (Age::Young | Age::Due, _) => None,
            (Age::Late | Age::Expired, true) => Some("this host renews itself: see its log"),
            (Age::Late, false) => {
                Some("start the host that admitted this one, and see that UDP gets there")
            }
            (Age::Expired, false) => Some(
                "check the clock; otherwise stop this node, run `stork-node join` with a new token \
                 from `stork token create`, and start it: key, content and views stay",
            ),
        }
    }

    /// For `stork status`.
    pub(super) fn certificate_json(&self) -> Value {
        let now = self.clock.unix();
        let Some(cert) = self.own_cert() else { return Value::Null };
        let age = age(&cert, now);
        let state = match age {
            Age::Young => "good",
            Age::Due => "due",
            Age::Late => "late",
            Age::Expired => "expired",
        };
        json!({
            "state": state, "issued": cert.issued, "expires": cert.expires,
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
