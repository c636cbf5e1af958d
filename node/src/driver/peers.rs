//! Peers: who is admitted, which connection counts, and the way of overlay frames in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stork_wire::charter::{HostCert, HostScope, PeerRecord, UnixSeconds};
use stork_wire::codec::{List, encode};
use stork_wire::frame::{Frame, HelloAck, LinkClass, OverlayFrame, PeerHint};
use stork_wire::ids::NodeId;
use stork_wire::sign::Envelope;
use stork_wire::tick::Tick;

use super::Driver;
use crate::net::{ConnId, Connected, NetEvent, Priority};
use crate::overlay::{Input, Peer, PeersKind};
use crate::{transfer, trust};

/// Milliseconds after which a connection without link and content is closed.
const IDLE_MS: u64 = 60_000;
/// Hosts whose signatures were checked and are remembered: the roster and as many again.
pub(super) const CHECKED_MAX: usize = 2_048;
/// A start raises the incarnation by at least this much, a changed record by one (see `run.rs`).
pub(crate) const RESTART_STEP: u64 = 1_000;
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
    /// Of the host's record when the connection was made.
    incarnation: u64,
    /// Frames that had left the outbox when it was looked at last and some waited, and since when.
    pub(super) stuck: Option<(u64, Tick)>,
    /// What the host said that it knows ([`OverlayFrame::Knows`]).
    pub(super) knows: u64,
    /// Frames were queued in this turn of the loop.
    pub(super) unsent: bool,
    /// The newest certificate of the host that was seen, and when it runs out.
    pub(super) cert: Envelope,
    pub(super) cert_expires: UnixSeconds,
    /// What that certificate says of groups.
    pub(super) scope: Option<Box<HostScope>>,
}

impl Driver {
    /// Checks a host's certificate and record, or finds that they were checked before.
    pub(super) fn check_hint(&mut self, hint: &PeerHint) -> Option<Arc<Peer>> {
        let key = *blake3::hash(&encode(hint)).as_bytes();
        let now = self.clock.unix();
        if let Some((until, peer)) = self.checked.get(&key)
            && *until > now
        {
            return Some(Arc::clone(peer));
        }
        match self.trust.check_peer(hint, now) {
            Ok(checked) => {
                self.note_cert(hint, &checked.cert);
                if checked.cert.node == self.me {
                    self.on_own_record(&checked.record);
                }
                let (until, peer) = self.peer_of(&checked, now);
                if self.checked.len() >= CHECKED_MAX {
                    self.checked.clear();
                }
                self.checked.insert(key, (until, Arc::clone(&peer)));
                Some(peer)
            }
            Err(e) => {
                self.counters.add("hosts_refused", e.code());
                None
            }
        }
    }

    /// A host, and until when its certificate and record are good.
    fn peer_of(&self, checked: &trust::CheckedPeer, now: UnixSeconds) -> (UnixSeconds, Arc<Peer>) {
        let until = checked.cert.expires.min(checked.record.expires);
        let left = until.saturating_sub(now);
        let expires = self.clock.tick().after_ms(left.saturating_mul(1_000));
        (until, Arc::new(self.to_peer(checked, expires)))
    }

    /// Checks what this host itself wrote down, by the time when that was good: for want of better
    /// ones, old addresses may do for a dial. Whoever answers must show something newer.
    fn check_old(&self, hint: &PeerHint) -> Option<Arc<Peer>> {
        let cert: HostCert = hint.cert.claimed().ok()?;
        let record: PeerRecord = hint.record.claimed().ok()?;
        let now = self.clock.unix();
        let then = now.min(cert.expires.min(record.expires).saturating_sub(1));
        let checked = self.trust.check_peer(hint, then).ok()?;
        Some(self.peer_of(&checked, now).1).filter(|p| p.node != self.me)
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
            *out = hints.iter().filter_map(|h| self.check_old(h)).collect();
        }
        let [known, anchors] = lists;
        let nodes: BTreeSet<NodeId> = known.iter().chain(&anchors).map(|p| p.node).collect();
        self.restored.known = nodes.len();
        // The answer to a join begins with the host that gave it.
        self.renewal.admitter = anchors.first().map(Arc::clone);
        self.overlay_input(Input::Bootstrap { known, anchors });
        Ok(())
    }

    pub(super) fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Hello { connected, hello, answer } => {
                self.on_hello(connected, &hello, answer);
            }
            NetEvent::Join { node, request, answer } => self.on_join(node, request, answer),
            NetEvent::TurnedAway { node, addr, code, why } => {
                self.counters.add("connections_refused", code);
                self.event("connection_refused", format!("{} at {addr}: {why}", node.short()));
            }
            NetEvent::Answered { connected, ack } => self.on_answered(connected, &ack),
            NetEvent::Renewed { node, reply } => {
                self.dialling.remove(&node);
                self.on_renewed_late(*reply);
                // The host takes us from now on: that is for the overlay to find out.
                self.dial_failed(node);
            }
            NetEvent::DialFailed { node, why } => {
                self.dialling.remove(&node);
                tracing::debug!(peer = %node.short(), %why, "dial failed");
                self.note_denied(node, &why);
                self.counters.add("dials", "failed");
                self.dial_failed(node);
            }
            NetEvent::Bootstrapped(round) => self.on_bootstrapped(&round),
            NetEvent::Frame { conn, node, frame } => self.on_frame(conn, node, frame),
            NetEvent::UnknownFrame { node } => {
                tracing::debug!(peer = %node.short(), "a frame of an unknown type");
                self.counters.add("frames_ignored", "unknown_type");
            }
            NetEvent::Slowed { node } => {
                tracing::debug!(peer = %node.short(), "frames come too fast");
                self.counters.add("peers_limited", "frames");
            }
            NetEvent::Closed { conn, node, why, at_fault } => {
                if at_fault {
                    self.counters.add("peers_at_fault", "frame");
                    self.event("peer_at_fault", format!("{}: {why}", node.short()));
                }
                self.note_denied(node, &why);
                self.on_closed(conn, node, &why);
            }
        }
    }

    /// Of two connections made crosswise, both sides keep the one that the larger id dialled;
    /// otherwise the newer one counts, since the older may be dead (protocol.md §3).
    pub(super) fn prefers_new(&self, peer: &Peer, new_dialled_by: NodeId) -> bool {
        let node = peer.node;
        let Some(old) = self.connections.get(&node) else { return true };
        if peer.incarnation >= old.incarnation.saturating_add(RESTART_STEP) {
            return true;
        }
        let crosswise = self.clock.tick().since(old.since) < CROSSWISE_MS;
        if old.connected.connection.close_reason().is_some() || !crosswise {
            return true;
        }
        old.dialled_by == new_dialled_by || new_dialled_by == self.me.max(node)
    }

    /// A dial came to nothing. A host that is connected all the same is not dead: it only does not
    /// give us a link that way.
    fn dial_failed(&mut self, node: NodeId) {
        let peer = self.known_host(node).filter(|_| self.connections.contains_key(&node));
        self.overlay_input(match peer {
            Some(peer) => Input::Linked { peer, class: LinkClass::Transient, hints: Vec::new() },
            None => Input::DialFailed { node },
        });
    }

    fn on_answered(&mut self, connected: Connected, ack: &HelloAck) {
        let node = connected.node;
        self.dialling.remove(&node);
        let peer = self.check_hint(&ack.peer).filter(|p| p.node == node);
        let keep = peer.filter(|p| self.prefers_new(p, self.me));
        let Some(peer) = keep else {
            connected.connection.close(0u32.into(), b"there is a connection already");
            if !self.connections.contains_key(&node) {
                self.overlay_input(Input::DialFailed { node });
            }
            return;
        };
        let hints = self.check_hints(&ack.hints);
        let known = self.overlay.last_record(&node).map(Arc::clone);
        self.connect(connected, &peer, self.me, ack.class);
        self.tell_past(node, known, peer.incarnation);
        self.renew_for(node);
        self.overlay_input(Input::Linked { peer, class: ack.class, hints });
    }

    pub(super) fn connect(
        &mut self,
        connected: Connected,
        peer: &Peer,
        dialled_by: NodeId,
        class: LinkClass,
    ) {
        let node = connected.node;
        let now = self.clock.tick();
        let incarnation = peer.incarnation;
        let cert = peer.hint.cert.clone();
        let cert_expires = self.trust.cert_until(&cert, self.clock.unix());
        let (since, content_at) = (now, now);
        let by_cert = peer.hint.cert.claimed::<HostCert>().ok().and_then(|c| c.scope);
        let link = Link {
            connected,
            dialled_by,
            since,
            content_at,
            class,
            incarnation,
            stuck: None,
            knows: 0,
            unsent: false,
            cert,
            cert_expires,
            scope: self.trust.charter().scope_of(node, by_cert),
        };
        let same_site = peer.site == self.site;
        let old = self.connections.insert(node, link);
        // A host that dials again, or after that time, has lost the old connection: it was
        // restarted.
        let restarted = old.as_ref().is_some_and(|l| {
            l.dialled_by == dialled_by
                || now.since(l.since) >= CROSSWISE_MS
                || incarnation >= l.incarnation.saturating_add(RESTART_STEP)
        });
        if let Some(old) = &old {
            old.connected.connection.close(0u32.into(), b"replaced by a newer connection");
        }
        if restarted {
            // QUIC has not noticed yet: what is sent on the old bulk connection would wait for the
            // idle time-out, and the host has forgotten what it asked for.
            self.net.bulk().expel(node);
            self.planner_input(transfer::Input::PeerDown { node });
        }
        self.net.bulk().admit(node, peer.addrs.clone());
        if restarted || old.is_none() {
            self.planner_input(transfer::Input::PeerUp { node, same_site });
        }
        self.send(node, Priority::Control, &Frame::Overlay(OverlayFrame::OURS));
    }

    fn on_closed(&mut self, conn: ConnId, node: NodeId, why: &str) {
        if self.connections.get(&node).is_none_or(|l| l.connected.id != conn) {
            return;
        }
        tracing::debug!(peer = %node.short(), %why, "connection ended");
        let link = self.connections.remove(&node);
        let (_, shed) = link.map_or((0, 0), |l| l.connected.outbox.level());
        self.counters.add_many("frames_shed", "lazy", shed);
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
            Frame::Overlay(OverlayFrame::Knows(knows)) => link.knows = knows,
            Frame::Overlay(frame) => {
                let (kind, hints) = match frame {
                    OverlayFrame::Records(hints) => (PeersKind::Records, hints),
                    OverlayFrame::Shuffle { nonce, peers } => (PeersKind::Shuffle { nonce }, peers),
                    OverlayFrame::ShuffleReply { nonce, peers } => {
                        (PeersKind::ShuffleReply { nonce }, peers)
                    }
                    frame => {
                        self.note_equal(node, &frame);
                        return self.overlay_input(Input::Frame { from: node, frame });
                    }
                };
                let peers = self.check_hints(&hints);
                self.overlay_input(Input::Peers { from: node, kind, peers });
            }
            Frame::Transfer(frame) => {
                link.content_at = now;
                let scope = link.scope.clone();
                if self.is_hidden_from(scope.as_deref(), &frame) {
                    return self.counters.add("content_refused", "no_grant");
                }
                self.planner_input(transfer::Input::Frame { from: node, frame });
            }
            Frame::Joined(reply) => self.on_renewed(*reply),
            Frame::KeysAsk(asked) => self.on_keys_ask(node, asked),
            Frame::Keys(keys) => self.on_keys(keys),
            Frame::Bye(why) => tracing::debug!(peer = %node.short(), %why, "bye"),
            Frame::Hello(_) | Frame::HelloAck(_) | Frame::Join(_) => {
                self.counters.add("peers_at_fault", "order");
                link.connected.connection.close(1u32.into(), b"hello comes first and once");
            }
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

    pub(super) fn some_hints(&self, count: usize) -> impl Iterator<Item = PeerHint> {
        self.overlay.hosts().take(count).map(|p| p.hint.clone())
    }

    /// How each host that is known here is named.
    pub(super) fn host_names(&self) -> BTreeMap<NodeId, String> {
        self.host_names_of(|_| true)
    }

    /// The same of some of them.
    pub(super) fn host_names_of(&self, some: impl Fn(&NodeId) -> bool) -> BTreeMap<NodeId, String> {
        let now = self.clock.unix();
        let ours = (self.me, self.name.to_string());
        let mut names =
            BTreeMap::from([ours, (transfer::ORIGIN_STORE, "the origin store".to_owned())]);
        for peer in self.overlay.hosts().filter(|p| some(&p.node)) {
            if let Ok(cert) = self.trust.check_cert(&peer.hint.cert, now) {
                names.insert(peer.node, cert.name.to_string());
            }
        }
        names
    }
}

impl Driver {
    /// A host as the overlay knows it. That it wants a private group counts where its certificate
    /// lets it.
    fn to_peer(&self, checked: &trust::CheckedPeer, expires: Tick) -> Peer {
        Peer {
            node: checked.cert.node,
            site: checked.cert.site.clone(),
            addrs: checked.record.addrs.iter().copied().filter(super::addrs::dialable).collect(),
            incarnation: checked.record.incarnation,
            groups: self.trust.charter().granted(&checked.cert, &checked.record.groups),
            cell: checked.record.cell.clone(),
            expires,
            hint: checked.hint.clone(),
        }
    }
}
