//! Admission: who may connect, who may join, and the certificate that comes of it.

use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::charter::{BODY_VERSION, HostCert, HostScope, JoinToken};
use stork_wire::codec::{List, TooMany};
use stork_wire::frame::{
    Hello, HelloAck, ItemRange, JoinReply, JoinRequest, LinkClass, PROTOCOL_VERSION, PeerHint,
};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::limits::{HINTS_MAX, ROOTS_MAX};
use stork_wire::sign::Envelope;
use stork_wire::text::{GroupName, Label, Line};
use tokio::sync::oneshot;

use super::renewal::CERT_VALID_S;
use super::workers::Done;
use super::{AskedToken, CallError, Driver};
use crate::identity;
use crate::net::{Admission, Connected};
use crate::overlay::{Input, Peer};
use crate::store::StoreError;
use crate::trust;

/// Seconds that a join token may be good for: a week.
const TOKEN_TTL_MAX_S: u64 = 7 * 24 * 3_600;

/// A host that waits for the overlay's answer to its hello.
#[derive(Debug)]
pub(super) struct Waiting {
    connected: Connected,
    peer: Arc<Peer>,
    /// What was known of it before.
    known: Option<Arc<Peer>>,
    answer: oneshot::Sender<Admission>,
}

/// Where the outcome of a token's check goes.
#[derive(Debug)]
pub(super) struct JoinAnswer {
    node: NodeId,
    token: JoinToken,
    request: Box<JoinRequest>,
    answer: oneshot::Sender<Admission>,
}

impl Driver {
    pub(super) fn on_hello(
        &mut self,
        connected: Connected,
        hello: &Hello,
        answer: oneshot::Sender<Admission>,
    ) {
        let node = connected.node;
        let checked = if hello.protocol == PROTOCOL_VERSION && hello.fleet == self.trust.fleet() {
            self.trust.check_peer(&hello.peer, self.clock.unix())
        } else {
            Err(trust::AdmissionError::OtherFleet(hello.fleet))
        };
        let refused = match &checked {
            Ok(c) if c.cert.node != node => {
                Some(trust::AdmissionError::OtherKey("the certificate"))
            }
            Ok(_) => None,
            Err(e) => Some(e.clone()),
        };
        if let Some(e) = refused {
            if let Some(reply) = self.renew_late(&hello.peer.cert, node, &e) {
                self.event("host_renewed", format!("{} at {}: {e}", node.short(), connected.addr));
                drop(answer.send(Admission::Joined(reply)));
                return;
            }
            self.counters.add("hosts_refused", e.code());
            self.event("host_refused", format!("{} at {}: {e}", node.short(), connected.addr));
            drop(answer.send(Admission::Refused(e.to_string())));
            return;
        }
        let Some(peer) = self.check_hint(&hello.peer) else { return };
        if node == self.me || !self.prefers_new(&peer, node) {
            drop(answer.send(Admission::Refused("there is a connection already".to_owned())));
            return;
        }
        let known = self.overlay.last_record(&node).map(Arc::clone);
        self.waiting.insert(node, Waiting { connected, peer: Arc::clone(&peer), known, answer });
        let (class, starving) = (hello.class, hello.starving);
        self.overlay_input(Input::Hello { peer, class, starving });
        // The overlay answers each hello at once; what it did not answer is not kept.
        if let Some(w) = self.waiting.remove(&node) {
            drop(w.answer.send(Admission::Refused("not now".to_owned())));
        }
    }

    pub(super) fn on_join(
        &mut self,
        node: NodeId,
        request: Box<JoinRequest>,
        answer: oneshot::Sender<Admission>,
    ) {
        let now = self.clock.unix();
        let token = match self.trust.check_token(&request.token, self.me, now) {
            Ok(token) if self.admits() => token,
            Ok(_) => return refuse_join(answer, "this node does not admit hosts"),
            Err(e) => {
                self.counters.add("joins_refused", e.code());
                self.event("join_refused", format!("{}: {e}", node.short()));
                return refuse_join(answer, &e.to_string());
            }
        };
        let answer = JoinAnswer { node, token, request, answer };
        let store = Arc::clone(&self.store);
        self.workers.disk(move || {
            let fresh = store.used_token(answer.token.id, answer.token.expires);
            Some(Done::Joined { answer, fresh })
        });
    }

    /// The token was looked up, and is used up from now on.
    pub(super) fn on_token_checked(&mut self, join: JoinAnswer, fresh: Result<bool, StoreError>) {
        let JoinAnswer { node, token, request, answer } = join;
        match fresh {
            Ok(true) => {}
            Ok(false) => {
                self.counters.add("joins_refused", "used_token");
                self.event("join_refused", format!("{}: the token was used before", node.short()));
                return refuse_join(answer, "the token was used before: ask for a new one");
            }
            Err(e) => return refuse_join(answer, &format!("the admitting node's disk: {e}")),
        }
        let issued = self.trust.charter().admitted_from(node, self.clock.unix());
        let name = token.name.unwrap_or(request.name);
        let cert = HostCert {
            version: BODY_VERSION,
            node,
            name: name.clone(),
            site: token.site,
            issued,
            expires: issued + CERT_VALID_S,
            scope: token.scope,
        };
        let fleet = self.trust.fleet();
        let signed = self.admission.as_ref().and_then(|k| Envelope::sign(&cert, fleet, k).ok());
        let Some(signed) = signed else {
            return refuse_join(answer, "the admitting node cannot sign");
        };
        self.grant_again(node, cert.scope.as_deref());
        let cert = signed;
        let range = ItemRange { log: LogId::root(fleet), from: 1, to: ROOTS_MAX as u64 };
        let roots = self.store.items(range, 512 * 1024, ROOTS_MAX).unwrap_or_default();
        let peers = self.own_hint().into_iter().chain(self.some_hints(HINTS_MAX - 1));
        let (roots, peers) = (List::truncated(roots), List::truncated(peers));
        let reply = JoinReply::Admitted { cert, roots, peers };
        self.event("host_admitted", format!("{name} ({})", node.short()));
        self.counters.add("joins", "admitted");
        drop(answer.send(Admission::Joined(Box::new(reply))));
    }

    pub(super) fn answer_hello(
        &mut self,
        to: NodeId,
        class: LinkClass,
        hints: List<PeerHint, HINTS_MAX>,
    ) {
        let Some(waiting) = self.waiting.remove(&to) else { return };
        let Waiting { connected, peer, known, answer } = waiting;
        let Some(own) = self.own_hint() else { return };
        let ack = HelloAck { peer: own, class, hints };
        if answer.send(Admission::Welcome(Box::new(ack))).is_ok() {
            self.connect(connected, &peer, to, class);
            self.tell_past(to, known, peer.incarnation);
            self.renew_for(to);
        }
    }

    /// Makes a token by which a host joins.
    pub(super) fn make_token(&self, asked: AskedToken) -> Result<Value, CallError> {
        let AskedToken { name, site, ttl_s, groups, labels } = asked;
        let refused = |why: &str, help: &str| CallError::Refused(why.into(), help.into());
        let Some(key) = &self.admission else {
            return Err(refused(
                "this host does not admit others",
                "ask on the host that was set up with `stork-node init`, or give this one an \
                 admission key: `stork-node admission add`",
            ));
        };
        if !self.admits() {
            return Err(refused(
                "the root document does not name this host's admission key",
                "give it one that is named: `stork-node admission add`; has the newest root \
                 document come?",
            ));
        }
        let addrs = self.own_addrs();
        if addrs.is_empty() {
            return Err(refused(
                "this node does not know an address that others could dial",
                "give it one with --advertise ADDR:PORT, or `advertise` in node.toml",
            ));
        }
        let scope = self.scope_of(groups.as_deref(), labels)?;
        let now = self.clock.unix();
        let id = identity::random().map_err(|e| refused(&e.to_string(), e.help()))?;
        let token = JoinToken {
            version: BODY_VERSION,
            fleet: self.trust.fleet(),
            id,
            admitter: self.me,
            addrs: List::truncated(addrs),
            name,
            site,
            issued: now,
            expires: now + ttl_s.clamp(60, TOKEN_TTL_MAX_S),
            scope,
        };
        let envelope = Envelope::sign(&token, self.trust.fleet(), key)
            .map_err(|e| refused(&e.to_string(), "see the node's log"))?;
        Ok(json!({
            "schema": "stork.token/v1", "token": JoinToken::to_text(&envelope),
            "expires": token.expires, "site": token.site, "name": token.name,
            "groups": groups, "labels": token.scope.map(|s| s.labels),
        }))
    }

    /// What the certificate will say beside name and site: nothing where nothing was asked for.
    fn scope_of(
        &self,
        groups: Option<&[GroupName]>,
        mut labels: Vec<Label>,
    ) -> Result<Option<Box<HostScope>>, CallError> {
        let refused = |why: String, help: &str| CallError::Refused(why, help.into());
        let charter = self.trust.charter();
        let id = |name: &GroupName| {
            let known = charter.group_named(name.as_str()).map(|g| g.id());
            let help = "`stork trust` lists the groups of this fleet";
            known.ok_or_else(|| refused(format!("no group is named `{name}`"), help))
        };
        let ids = groups.map(|g| g.iter().map(id).collect::<Result<Vec<_>, _>>()).transpose()?;
        if ids.is_none() && labels.is_empty() {
            return Ok(None);
        }
        let many = |e: TooMany| refused(e.to_string(), "name fewer groups and labels");
        let ids = ids.map(|mut all| {
            all.sort_unstable();
            all.dedup();
            List::new(all).map_err(many)
        });
        labels.sort_unstable();
        labels.dedup();
        let labels = List::new(labels).map_err(many)?;
        Ok(Some(Box::new(HostScope { labels, groups: ids.transpose()? })))
    }
}

fn refuse_join(answer: oneshot::Sender<Admission>, why: &str) {
    let line = why.parse().or_else(|_e| "refused".parse::<Line>());
    if let Ok(line) = line {
        drop(answer.send(Admission::Joined(Box::new(JoinReply::Refused(line)))));
    }
}
