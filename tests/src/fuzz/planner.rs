//! The planner of transfers: bytes become frames of several peers, deaths, pieces and time.

use std::collections::BTreeSet;

use stork_node::transfer::{
    Action, Config, Fault, Input, Join, Members, PeerView, PieceSet, Planner, Role, SiteHosts,
    Small, Topic,
};
use stork_wire::codec::Blob;
use stork_wire::feed::Urgency;
use stork_wire::frame::{Bits, Frame, TransferFrame};
use stork_wire::ids::{ManifestId, NodeId, SwarmId};
use stork_wire::limits::FRAME_LEN_MAX;
use stork_wire::tick::Tick;

use super::bytes::Bytes;
use super::samples::list;

const HOSTS: usize = 8;
const PIECES: u32 = 20;
const STEPS_MAX: usize = 400;
const PAUSES: [u64; 8] = [0, 1, 10, 50, 300, 1_500, 5_000, 130_000];

fn node(i: usize) -> NodeId {
    NodeId([u8::try_from(i).unwrap_or(u8::MAX); 32])
}

struct Run<'a> {
    bytes: Bytes<'a>,
    planner: Planner,
    now: Tick,
    /// Pieces that were asked for: from whom, and which.
    expected: BTreeSet<(NodeId, SwarmId, u32)>,
    have: BTreeSet<(SwarmId, u32)>,
    sending: Vec<(NodeId, SwarmId, u32)>,
    seen: BTreeSet<&'static str>,
}

impl Run<'_> {
    fn swarm(&mut self) -> SwarmId {
        SwarmId([self.bytes.pick(&[1, 1, 1, 2, 3]); 32])
    }

    fn piece(&mut self) -> u32 {
        if self.bytes.below(8) == 0 {
            return self.bytes.wild32();
        }
        u32::from(self.bytes.byte()) % PIECES
    }

    fn stripe(&mut self) -> u32 {
        u32::from(self.bytes.byte()) % 5
    }

    /// Candidates in up to three sites.
    fn members(&mut self) -> Members {
        let sites = u64::from(self.bytes.byte() % 4);
        let mut site = |site| {
            let origins = if self.bytes.flag() { self.nodes() } else { Vec::new() };
            SiteHosts { site, hosts: self.nodes(), origins }
        };
        let sites = (1..=sites).map(&mut site).collect();
        Members { interested: self.nodes(), origins: self.nodes(), site: 2, sites }
    }

    fn nodes(&mut self) -> Vec<NodeId> {
        (0..self.bytes.below(6)).map(|_| node(self.bytes.below(HOSTS))).collect()
    }

    fn frame(&mut self) -> TransferFrame {
        let manifest = ManifestId([self.bytes.pick(&[1, 1, 2, 9]); 32]);
        let (swarm, piece) = (self.swarm(), self.piece());
        let ms = self.bytes.wild32();
        match self.bytes.below(19) {
            0 => TransferFrame::Interest(manifest),
            1 => TransferFrame::HasManifest(manifest),
            2 => TransferFrame::GetManifest(manifest),
            3 => TransferFrame::Busy { manifest, retry_ms: ms },
            4 | 5 => {
                let pieces = if self.bytes.below(8) == 0 { ms } else { PIECES };
                let some = self.bytes.take(4).to_vec();
                let some = some.iter().map(|b| u32::from(*b) % PIECES);
                let all = if self.bytes.flag() { 0..PIECES } else { 0..0 };
                TransferFrame::Open {
                    swarm,
                    pieces,
                    have: Bits::from_pieces(some.chain(all), PIECES),
                }
            }
            6 => TransferFrame::Have { swarm, pieces: list([piece, self.piece()]) },
            7 => TransferFrame::Grant { swarm, ttl_ms: if self.bytes.flag() { 500 } else { ms } },
            8 => TransferFrame::Request { swarm, piece },
            9 => TransferFrame::Pass(swarm),
            10 => TransferFrame::Cancel { swarm, piece },
            11 => TransferFrame::Rare { swarm, piece },
            12 => TransferFrame::Refuse { swarm, retry_ms: ms },
            13 | 14 => TransferFrame::Subscribe {
                swarm,
                stripe: self.stripe(),
                of: self.bytes.pick(&[1, 4, 16, ms]),
                pieces: if self.bytes.below(8) == 0 { ms } else { PIECES },
                have: Bits::from_pieces([piece], PIECES),
            },
            15 => TransferFrame::Unsubscribe { swarm, stripe: self.stripe(), of: 4 },
            16 => TransferFrame::GetSmall { manifest, swarm },
            17 => {
                let bytes = Blob::new(vec![7; self.bytes.pick(&[0, 3, 3, 4])]).unwrap_or_default();
                TransferFrame::Small { manifest, swarm, bytes }
            }
            _ => TransferFrame::Close(swarm),
        }
    }

    fn join(&mut self) -> Input {
        let role = self.bytes.pick(&[Role::Leech, Role::Leech, Role::Seed, Role::Origin]);
        let swarm = self.swarm();
        self.have.retain(|(s, _)| *s != swarm);
        self.expected.retain(|(_, s, _)| *s != swarm);
        let (have, here) = match role {
            Role::Leech => (PieceSet::empty(PIECES), 0..0),
            Role::Seed | Role::Origin => (PieceSet::full(PIECES), 0..PIECES),
        };
        self.have.extend(here.map(|p| (swarm, p)));
        let lens = (0..PIECES).map(|p| 65_536 - p).collect();
        let manifest = ManifestId(swarm.0);
        let members = self.members();
        let urgency = self.bytes.pick(&[Urgency::Security, Urgency::Normal]);
        Input::Join(Box::new(Join { swarm, manifest, lens, have, urgency, role, members }))
    }

    /// A piece that was asked for comes or does not, or one that was not.
    fn arrival(&mut self) -> Input {
        let all: Vec<_> = self.expected.iter().copied().collect();
        let Some((from, swarm, piece)) = all.get(self.bytes.below(all.len())).copied() else {
            return Input::Deadline;
        };
        self.expected.remove(&(from, swarm, piece));
        let fault = [Fault::Bad, Fault::Stalled, Fault::Gone];
        if self.bytes.below(4) == 0 {
            return Input::PieceFailed { swarm, piece, from, fault: self.bytes.pick(&fault) };
        }
        self.have.insert((swarm, piece));
        Input::PieceArrived { swarm, piece, from }
    }

    fn sent(&mut self) -> Input {
        if self.sending.is_empty() {
            return Input::Deadline;
        }
        let at = self.bytes.below(self.sending.len());
        let (to, swarm, piece) = self.sending.remove(at);
        if self.bytes.flag() {
            return Input::PieceSendFailed { swarm, piece, to };
        }
        Input::PieceSent { swarm, piece, to, bytes: 65_536 - piece.min(65_535) }
    }

    fn input(&mut self) -> Input {
        // The driver reports nothing of this node to itself; lists of candidates may name it.
        let who = node(1 + self.bytes.below(HOSTS - 1));
        let manifest = ManifestId([self.bytes.pick(&[1, 2]); 32]);
        let fault = self.bytes.pick(&[Fault::Bad, Fault::Stalled, Fault::Gone]);
        match self.bytes.below(20) {
            0 | 1 => Input::PeerUp { node: who, same_site: self.bytes.flag() },
            2 => Input::PeerDown { node: who },
            3 => self.join(),
            4 => Input::Leave { swarm: self.swarm() },
            5 => {
                let (interested, origins) = (self.nodes(), self.nodes());
                let urgency = Urgency::Normal;
                let teller = self.bytes.flag().then_some(who);
                let len = self.bytes.pick(&[3, 3, 99_999]);
                let small = Some(Small { swarm: self.swarm(), len, teller });
                Input::WantManifest { manifest, interested, origins, urgency, size: 1_000, small }
            }
            6 => match self.bytes.below(5) {
                0 => Input::HaveManifest { manifest },
                1 => Input::DropManifest { manifest },
                2 => Input::ManifestArrived { manifest, from: who },
                3 => Input::ManifestFailed { manifest, from: who, fault },
                _ => Input::ManifestSent { manifest, to: who },
            },
            7 => {
                let topics = [Topic::Manifest(manifest), Topic::Swarm(self.swarm())];
                let topic = self.bytes.pick(&topics);
                Input::Roster { topic, members: self.members() }
            }
            8 | 9 => self.arrival(),
            10 | 11 => self.sent(),
            12 => Input::Deadline,
            _ => Input::Frame { from: who, frame: self.frame() },
        }
    }

    fn step(&mut self) {
        self.now = self.now.after_ms(self.bytes.pick(&PAUSES));
        let input = self.input();
        if let Input::Leave { swarm } = &input {
            self.have.retain(|(s, _)| s != swarm);
        }
        let mut actions = Vec::new();
        self.planner.handle(self.now, input, &mut actions);
        for action in actions {
            self.check(action);
        }
        for view in self.planner.views(self.now) {
            assert!(view.have <= view.total && view.inflight <= 64 + PIECES as usize);
            assert!(view.have_bytes <= view.total_bytes && view.neighbours <= 64);
            let of = |bytes: fn(&PeerView) -> u64| view.peers.iter().map(bytes).sum::<u64>();
            assert!(
                of(|p| p.got.bytes) <= view.got.bytes && of(|p| p.gave.bytes) <= view.gave.bytes
            );
            assert!(view.got.bytes - view.got.twice <= view.have_bytes, "bytes from nowhere");
            assert!(view.got.striped <= view.got.bytes);
        }
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::Send { to, frame } => {
                self.seen.insert(frame.name());
                assert_ne!(to, node(0), "sends {} to itself", frame.name());
                let frame = Frame::Transfer(frame);
                assert_eq!(Frame::from_bytes(&frame.to_bytes(), FRAME_LEN_MAX), Ok(frame));
            }
            Action::SendPiece { to, swarm, piece } => {
                self.seen.insert("send piece");
                assert!(self.have.contains(&(swarm, piece)), "serves a piece that is not here");
                self.sending.push((to, swarm, piece));
            }
            Action::Expect { from, swarm, piece } => {
                self.seen.insert("expect");
                assert!(piece < PIECES && from != node(0), "asks for piece {piece}");
                assert!(!self.have.contains(&(swarm, piece)), "asks for a piece that is here");
                self.expected.insert((from, swarm, piece));
            }
            Action::Unexpect { from, swarm, piece } => {
                self.expected.remove(&(from, swarm, piece));
            }
            Action::Complete { .. } => drop(self.seen.insert("complete")),
            Action::Blame { .. } => drop(self.seen.insert("blame")),
            _ => {}
        }
    }
}

/// Runs it.
pub(super) fn planner(data: &[u8]) -> String {
    let mut run = Run {
        bytes: Bytes::new(data),
        planner: Planner::new(Config::default(), node(0), 3),
        now: Tick(0),
        expected: BTreeSet::new(),
        have: BTreeSet::new(),
        sending: Vec::new(),
        seen: BTreeSet::new(),
    };
    let mut steps = 0;
    while !run.bytes.is_empty() && steps < STEPS_MAX {
        run.step();
        steps += 1;
    }
    let c = run.planner.counters();
    format!("{:?} {} {}", run.seen, c.ungranted.min(4), c.nonsense.min(4))
}

/// Peers, a swarm, and then bytes without meaning.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let mut rng = super::Mutator::new(13);
    let mut some = |n: usize| (0..n).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
    [40, 200, 800, 2_000, 4_000].map(&mut some).to_vec()
}
