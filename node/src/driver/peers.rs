//! Peers: who is admitted, which connection counts, and the way of overlay frames in and out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use stork_wire::charter::{BODY_VERSION, HostCert, JoinToken, PeerRecord};
use stork_wire::codec::{List, encode};
use stork_wire::frame::{
    Frame, Hello, HelloAck, ItemRange, JoinReply, JoinRequest, LinkClass, OverlayFrame,
    PROTOCOL_VERSION, PeerHint,
};
use stork_wire::ids::{GroupId, LogId, NodeId};
use stork_wire::limits::HINTS_MAX;
use stork_wire::sign::Envelope;
use stork_wire::text::Line;
use stork_wire::tick::Tick;
use tokio::sync::oneshot;

use super::workers::Done;
use super::Driver;
use crate::net::{Admission, ConnId, Connected, NetEvent, Priority};
use crate::overlay::{Action, Class, Event, Input, Peer, PeersKind};
use crate::store::StoreError;
use crate::{transfer, trust};

/// Seconds that an own record is good for; it is renewed at half.
const RECORD_VALID_S: u64 = 7 * 24 * 3_600;
/// Seconds that a host certificate is good for (design §4: 30 days, renewed at half).
const CERT_VALID_S: u64 = 30 * 24 * 3_600;
/// Milliseconds after which a connection without link and content is closed.
const IDLE_MS: u64 = 60_000;
/// Hosts whose signatures were checked and are remembered: the roster and as many again.
const CHECKED_MAX: usize = 2_048;
/// Connections within this time of each other were dialled crosswise (protocol.md §3).
const CROSSWISE_MS: u64 = 5_000;

/// The one connection with a host that counts.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connected: Connected,
    pub(super) dialled_by: NodeId,
    pub(super) since: Tick,
    pub(super) content_at: Tick,
    pub(super) class: LinkClass,
}

/// This node's own record, signed anew when something in it changes.
#[derive(Debug)]
pub(super) struct OwnRecord {
    incarnation: u64,
    current: Option<(PeerRecord, PeerHint)>,
}

/// A host that waits for the overlay's answer to its hello.
#[derive(Debug)]
pub(super) struct Waiting {
    connected: Connected,
    peer: Arc<Peer>,
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

impl OwnRecord {
    pub(super) const fn new(incarnation: u64) -> Self {
        Self { incarnation, current: None }
    }
}

impl Driver {
    /// Signs the own record again where it changed or gets old, and tells the overlay.
    pub(super) fn refresh_record(&mut self) {
        let now = self.clock.unix();
        let groups = self.wanted_groups();
        let addrs = self.own_addrs();
        if let Some((r, _)) = &self.record.current
            && *r.groups == *groups
            && *r.addrs == *addrs
            && r.expires > now + RECORD_VALID_S / 2
        {
            return;
        }
        self.record.incarnation += 1;
        let record = PeerRecord {
            version: BODY_VERSION,
            node: self.me,
            incarnation: self.record.incarnation,
            addrs: List::truncated(addrs),
            site: self.site.clone(),
            groups: List::truncated(groups),
            issued: now,
            expires: now + RECORD_VALID_S,
        };
        let signed = Envelope::sign(&record, self.trust.fleet(), &self.key);
        let Ok(signed) = signed else { return };
        let hint = PeerHint { cert: self.cert.clone(), record: signed };
        self.record.current = Some((record, hint.clone()));
        if let Some(peer) = self.check_hint(&hint) {
            self.overlay_input(Input::Local(peer));
        }
    }

    pub(super) fn own_addrs(&self) -> Vec<SocketAddr> {
        if !self.config.advertise.is_empty() {
            return self.config.advertise.clone();
        }
        self.net.local_addr().into_iter().filter(|a| !a.ip().is_unspecified()).collect()
    }

    fn wanted_groups(&self) -> Vec<GroupId> {
        let names = self.vms.values().flat_map(|v| v.file.groups.iter());
        let charter = self.trust.charter();
        let ids = names.filter_map(|n| charter.group_named(n.as_str()).map(|g| g.id()));
        let sorted: std::collections::BTreeSet<GroupId> = ids.collect();
        sorted.into_iter().collect()
    }

    fn own_hint(&self) -> Option<PeerHint> {
        self.record.current.as_ref().map(|(_, hint)| hint.clone())
    }

    /// Checks a host's certificate and record, or finds that they were checked before.
    fn check_hint(&mut self, hint: &PeerHint) -> Option<Arc<Peer>> {
        let key = *blake3::hash(&encode(hint)).as_bytes();
        if let Some(peer) = self.checked.get(&key) {
            return Some(Arc::clone(peer));
        }
        let now = self.clock.unix();
        match self.trust.check_peer(hint, now) {
            Ok(checked) => {
                let left = checked.cert.expires.min(checked.record.expires).saturating_sub(now);
                let expires = self.clock.tick().after_ms(left.saturating_mul(1_000));
                let peer = Arc::new(to_peer(&checked, expires));
                if self.checked.len() >= CHECKED_MAX {
                    self.checked.clear();
                }
                self.checked.insert(key, Arc::clone(&peer));
                Some(peer)
            }
            Err(e) => {
                self.counters.add("hosts_refused", e.code());
                None
            }
        }
    }

    fn check_hints(&mut self, hints: &[PeerHint]) -> Vec<Arc<Peer>> {
        let me = self.me;
        hints.iter().filter_map(|h| self.check_hint(h)).filter(|p| p.node != me).collect()
    }

    /// Hosts known from the last run, and those that the join named.
    pub(super) fn load_peers(&mut self) -> anyhow::Result<()> {
        let mut lists = [Vec::new(), Vec::new()];
        for (name, out) in ["peers", "anchors"].iter().zip(&mut lists) {
            let Some(bytes) = self.store.get_state(name)? else { continue };
            let hints: List<PeerHint, 1_024> =
                stork_wire::codec::decode(&bytes, 16 * 1024 * 1024).unwrap_or_default();
            *out = self.check_hints(&hints);
        }
        let [known, anchors] = lists;
        self.overlay_input(Input::Bootstrap { known, anchors });
        Ok(())
    }

    pub(super) fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Hello { connected, hello, answer } => self.on_hello(connected, &hello, answer),
            NetEvent::Join { node, request, answer } => self.on_join(node, request, answer),
            NetEvent::Answered { connected, ack } => self.on_answered(connected, &ack),
            NetEvent::DialFailed { node, why } => {
                self.dialling.remove(&node);
                tracing::debug!(peer = %node.short(), %why, "dial failed");
                self.counters.add("dials", "failed");
                self.overlay_input(Input::DialFailed { node });
            }
            NetEvent::Frame { conn, node, frame } => self.on_frame(conn, node, frame),
            NetEvent::Closed { conn, node, why, at_fault } => {
                if at_fault {
                    self.counters.add("peers_at_fault", "frame");
                    self.event("peer_at_fault", format!("{}: {why}", node.short()));
                }
                self.on_closed(conn, node, &why);
            }
        }
    }

    fn on_hello(&mut self, connected: Connected, hello: &Hello, answer: oneshot::Sender<Admission>) {
        let node = connected.node;
        let checked = if hello.protocol == PROTOCOL_VERSION && hello.fleet == self.trust.fleet() {
            self.trust.check_peer(&hello.peer, self.clock.unix())
        } else {
            Err(trust::AdmissionError::OtherFleet(hello.fleet))
        };
        let refused = match &checked {
            Ok(c) if c.cert.node != node => Some(trust::AdmissionError::OtherKey("the certificate")),
            Ok(_) => None,
            Err(e) => Some(e.clone()),
        };
        if let Some(e) = refused {
            self.counters.add("hosts_refused", e.code());
            self.event("host_refused", format!("{} at {}: {e}", node.short(), connected.addr));
            drop(answer.send(Admission::Refused(e.to_string())));
            return;
        }
        if node == self.me || !self.prefers_new(node, node) {
            drop(answer.send(Admission::Refused("there is a connection already".to_owned())));
            return;
        }
        let Some(peer) = self.check_hint(&hello.peer) else { return };
        self.waiting.insert(node, Waiting { connected, peer: Arc::clone(&peer), answer });
        let (class, starving) = (hello.class, hello.starving);
        self.overlay_input(Input::Hello { peer, class, starving });
        // The overlay answers each hello at once; what it did not answer is not kept.
        if let Some(w) = self.waiting.remove(&node) {
            drop(w.answer.send(Admission::Refused("not now".to_owned())));
        }
    }

    /// Of two connections made crosswise, both sides keep the one that the larger id dialled;
    /// otherwise the newer one counts, since the older may be dead (protocol.md §3).
    fn prefers_new(&self, node: NodeId, new_dialled_by: NodeId) -> bool {
        let Some(old) = self.connections.get(&node) else { return true };
        let crosswise = self.clock.tick().since(old.since) < CROSSWISE_MS;
        if old.connected.connection.close_reason().is_some() || !crosswise {
            return true;
        }
        old.dialled_by == new_dialled_by || new_dialled_by == self.me.max(node)
    }

    fn on_answered(&mut self, connected: Connected, ack: &HelloAck) {
        let node = connected.node;
        self.dialling.remove(&node);
        let peer = self.check_hint(&ack.peer).filter(|p| p.node == node);
        let keep = peer.filter(|_| self.prefers_new(node, self.me));
        let Some(peer) = keep else {
            connected.connection.close(0u32.into(), b"there is a connection already");
            if !self.connections.contains_key(&node) {
                self.overlay_input(Input::DialFailed { node });
            }
            return;
        };
        let hints = self.check_hints(&ack.hints);
        self.connect(connected, &peer, self.me, ack.class);
        self.overlay_input(Input::Linked { peer, class: ack.class, hints });
    }

    fn connect(&mut self, connected: Connected, peer: &Peer, dialled_by: NodeId, class: LinkClass) {
        let node = connected.node;
        let now = self.clock.tick();
        let link = Link { connected, dialled_by, since: now, content_at: now, class };
        if let Some(old) = self.connections.insert(node, link) {
            old.connected.connection.close(0u32.into(), b"replaced by a newer connection");
            // The host may have been started again and know nothing of what was under way: the bulk
            // connection to its old process would swallow pieces until it idles out, and the host
            // would blame us for them. So everything begins anew with it.
            self.net.bulk().expel(node);
            self.planner_input(transfer::Input::PeerDown { node });
        }
        self.net.bulk().admit(node, peer.addrs.clone());
        self.planner_input(transfer::Input::PeerUp { node, same_site: peer.site == self.site });
    }

    fn on_closed(&mut self, conn: ConnId, node: NodeId, why: &str) {
        if self.connections.get(&node).is_none_or(|l| l.connected.id != conn) {
            return;
        }
        tracing::debug!(peer = %node.short(), %why, "connection ended");
        self.connections.remove(&node);
        self.net.bulk().expel(node);
        self.overlay_input(Input::Down { node });
        self.planner_input(transfer::Input::PeerDown { node });
    }

    fn on_frame(&mut self, conn: ConnId, node: NodeId, frame: Frame) {
        let now = self.clock.tick();
        let Some(link) = self.connections.get_mut(&node).filter(|l| l.connected.id == conn) else {
            return;
        };
        match frame {
            Frame::Overlay(frame) => {
                let (kind, hints) = match frame {
                    OverlayFrame::Records(hints) => (PeersKind::Records, hints),
                    OverlayFrame::Shuffle { nonce, peers } => (PeersKind::Shuffle { nonce }, peers),
                    OverlayFrame::ShuffleReply { nonce, peers } => {
                        (PeersKind::ShuffleReply { nonce }, peers)
                    }
                    frame => return self.overlay_input(Input::Frame { from: node, frame }),
                };
                let peers = self.check_hints(&hints);
                self.overlay_input(Input::Peers { from: node, kind, peers });
            }
            Frame::Transfer(frame) => {
                link.content_at = now;
                self.planner_input(transfer::Input::Frame { from: node, frame });
            }
            Frame::Joined(reply) => self.on_renewed(*reply),
            Frame::Bye(why) => tracing::debug!(peer = %node.short(), %why, "bye"),
            Frame::Hello(_) | Frame::HelloAck(_) | Frame::Join(_) => {
                self.counters.add("peers_at_fault", "order");
                link.connected.connection.close(1u32.into(), b"hello comes first and once");
            }
        }
    }

    /// Takes a fresh certificate for this node from a node that admits.
    fn on_renewed(&mut self, reply: JoinReply) {
        let JoinReply::Admitted { cert, .. } = reply else { return };
        let now = self.clock.unix();
        let Ok(new) = self.trust.check_cert(&cert, now) else { return };
        let old = self.trust.check_cert(&self.cert, now).map_or(0, |c| c.expires);
        let same = new.node == self.me && new.name == self.name && new.site == self.site;
        if same && new.expires > old && self.store.put_state("cert", &encode(&cert)).is_ok() {
            self.cert = cert;
            self.record.current = None;
            self.event("certificate_renewed", "the host certificate was renewed");
        }
    }

    /// Renews the certificate of a host that connects with one past its half, if we admit.
    fn renew_for(&self, peer: &Peer) {
        let Some(key) = &self.admission else { return };
        let now = self.clock.unix();
        let Ok(old) = self.trust.check_cert(&peer.hint.cert, now) else { return };
        if old.expires > now + CERT_VALID_S / 2 {
            return;
        }
        let new = HostCert { issued: now, expires: now + CERT_VALID_S, ..old };
        let Ok(cert) = Envelope::sign(&new, self.trust.fleet(), key) else { return };
        let (roots, peers) = (List::empty(), List::empty());
        let reply = JoinReply::Admitted { cert, roots, peers };
        self.send(peer.node, Priority::Control, &Frame::Joined(Box::new(reply)));
    }

    fn on_join(
        &mut self,
        node: NodeId,
        request: Box<JoinRequest>,
        answer: oneshot::Sender<Admission>,
    ) {
        let now = self.clock.unix();
        let token = match self.trust.check_token(&request.token, self.me, now) {
            Ok(token) if self.admission.is_some() => token,
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
        let now = self.clock.unix();
        let name = token.name.unwrap_or(request.name);
        let cert = HostCert {
            version: BODY_VERSION,
            node,
            name: name.clone(),
            site: token.site,
            issued: now,
            expires: now + CERT_VALID_S,
        };
        let fleet = self.trust.fleet();
        let signed = self.admission.as_ref().and_then(|k| Envelope::sign(&cert, fleet, k).ok());
        let Some(cert) = signed else {
            return refuse_join(answer, "the admitting node cannot sign");
        };
        let range = ItemRange { log: LogId::root(fleet), from: 1, to: 16 };
        let roots = self.store.items(range, 512 * 1024, 16).unwrap_or_default();
        let peers = self.own_hint().into_iter().chain(self.some_hints(HINTS_MAX - 1));
        let (roots, peers) = (List::truncated(roots), List::truncated(peers));
        let reply = JoinReply::Admitted { cert, roots, peers };
        self.event("host_admitted", format!("{name} ({})", node.short()));
        self.counters.add("joins", "admitted");
        drop(answer.send(Admission::Joined(Box::new(reply))));
    }

    /// Gives the overlay an input, and does what it asks for.
    pub(super) fn overlay_input(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.overlay.handle(self.clock.tick(), input, &mut actions);
        for action in actions {
            self.overlay_action(action);
        }
    }

    fn overlay_action(&mut self, action: Action) {
        match action {
            Action::Send { to, frame, class } => {
                let priority = match class {
                    Class::Control => Priority::Control,
                    Class::News => Priority::News,
                    Class::Lazy => Priority::Lazy,
                };
                self.send(to, priority, &Frame::Overlay(frame));
            }
            Action::Dial { peer, class, starving } => self.dial(&peer, class, starving),
            Action::Answer { to, class, hints } => self.answer_hello(to, class, hints),
            Action::Close { node, why } => {
                if let Some(link) = self.connections.get(&node) {
                    let why = format!("{why:?}").to_lowercase();
                    link.connected.connection.close(0u32.into(), why.as_bytes());
                }
            }
            Action::Deliver { from, item, .. } => self.on_delivered(from, item),
            Action::ReadItems { to, ranges } => self.send_items(to, ranges),
            Action::SavePeers(hints) => {
                let list: List<PeerHint, 1_024> = List::truncated(hints);
                let store = Arc::clone(&self.store);
                self.workers.disk(move || {
                    if let Err(e) = store.put_state("peers", &encode(&list)) {
                        tracing::warn!("known hosts are not saved: {e}");
                    }
                    None
                });
            }
            Action::Event(event) => self.overlay_event(&event),
        }
    }

    fn overlay_event(&mut self, event: &Event) {
        match event {
            Event::LinkUp { node, class } => {
                if let Some(link) = self.connections.get_mut(node) {
                    link.class = *class;
                }
                self.counters.add("links", "up");
            }
            Event::LinkDown { node, why } => {
                if let Some(link) = self.connections.get_mut(node) {
                    link.class = LinkClass::Transient;
                }
                self.counters.add("links", "down");
                tracing::debug!(peer = %node.short(), ?why, "link down");
            }
            Event::MergeProbe { .. } => self.counters.add("merge_probes", "sent"),
            Event::Comparing { .. } => self.counters.add("syncs", "begun"),
            Event::ForkSeen { node, theirs, ours } => {
                self.counters.add("forks", "seen");
                let text = format!(
                    "{} has another item {} in log {}",
                    node.short(),
                    theirs.seq.min(ours.seq),
                    ours.log.short()
                );
                self.event("fork_seen", text);
            }
        }
    }

    fn answer_hello(&mut self, to: NodeId, class: LinkClass, hints: List<PeerHint, HINTS_MAX>) {
        let Some(Waiting { connected, peer, answer }) = self.waiting.remove(&to) else { return };
        let Some(own) = self.own_hint() else { return };
        let ack = HelloAck { peer: own, class, hints };
        if answer.send(Admission::Welcome(Box::new(ack))).is_ok() {
            self.connect(connected, &peer, to, class);
            self.renew_for(&peer);
        }
    }

    /// Dials a host, unless that is under way or done.
    pub(super) fn dial(&mut self, peer: &Peer, class: LinkClass, starving: bool) {
        let Some(own) = self.own_hint() else { return };
        if peer.node == self.me || !self.dialling.insert(peer.node) {
            return;
        }
        let fleet = self.trust.fleet();
        let hello = Hello { protocol: PROTOCOL_VERSION, fleet, peer: own, class, starving };
        self.net.dial(peer.node, peer.addrs.clone(), Box::new(hello));
    }

    /// Queues a frame for a host; one that does not read is closed.
    pub(super) fn send(&self, to: NodeId, priority: Priority, frame: &Frame) {
        let Some(link) = self.connections.get(&to) else { return };
        if link.connected.outbox.push(priority, frame.to_bytes()).is_err() {
            link.connected.connection.close(1u32.into(), b"you do not read");
        }
    }

    /// Closes connections that are no overlay link and carry no content.
    pub(super) fn close_idle_connections(&self) {
        let now = self.clock.tick();
        for link in self.connections.values() {
            let idle = now.since(link.content_at) > IDLE_MS && now.since(link.since) > IDLE_MS;
            if link.class == LinkClass::Transient && idle {
                link.connected.connection.close(0u32.into(), b"idle");
            }
        }
    }

    /// A host with its record, if it is known here.
    pub(super) fn known_host(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.overlay.hosts().find(|p| p.node == node).map(Arc::clone)
    }

    fn some_hints(&self, count: usize) -> impl Iterator<Item = PeerHint> {
        self.overlay.hosts().take(count).map(|p| p.hint.clone())
    }

    /// How each host that is known here is named.
    pub(super) fn host_names(&self) -> BTreeMap<NodeId, String> {
        let now = self.clock.unix();
        let mut names = BTreeMap::from([(self.me, self.name.to_string())]);
        for peer in self.overlay.hosts() {
            if let Ok(cert) = self.trust.check_cert(&peer.hint.cert, now) {
                names.insert(peer.node, cert.name.to_string());
            }
        }
        names
    }
}

fn refuse_join(answer: oneshot::Sender<Admission>, why: &str) {
    let line = why.parse().or_else(|_e| "refused".parse::<Line>());
    if let Ok(line) = line {
        drop(answer.send(Admission::Joined(Box::new(JoinReply::Refused(line)))));
    }
}

fn to_peer(checked: &trust::CheckedPeer, expires: Tick) -> Peer {
    Peer {
        node: checked.cert.node,
        site: checked.cert.site.clone(),
        addrs: checked.record.addrs.to_vec(),
        incarnation: checked.record.incarnation,
        groups: checked.record.groups.to_vec(),
        expires,
        hint: checked.hint.clone(),
    }
}
