//! A deterministic simulation of many planners in one process, and what it must show.
//!
//! `world` moves frames and pieces, `check` holds the invariants that are asserted after every
//! event, and the scenarios are in files by theme. Every run prints its figures.

mod check;
mod hostile;
mod limits;
mod manifest;
mod rules;
mod small;
mod spread;
mod store;
mod trouble;
mod world;

use stork_wire::feed::Urgency;
use stork_wire::ids::{ManifestId, NodeId, SwarmId};

use super::{Fault, Join, Members, PieceSet, Role};
use world::World;

/// What a host does with the pieces that it is to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honest,
    /// Sends bytes that do not match.
    Corrupt,
    /// Never sends anything, but answers all frames.
    Silent,
    /// Resets each stream in its middle.
    Resets,
}

impl Kind {
    /// What becomes of a stream of such a host.
    const fn fault(self) -> Option<Fault> {
        match self {
            Self::Corrupt => Some(Fault::Bad),
            Self::Resets => Some(Fault::Stalled),
            Self::Honest | Self::Silent => None,
        }
    }
}

/// 1 Gbit/s in bytes per millisecond.
const GBIT: u64 = 125_000;
/// Bytes of a piece in the larger runs.
const PIECE: u32 = 512 * 1024;

fn node(i: usize) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(i as u64 + 1).to_be_bytes());
    NodeId(id)
}

fn swarm(i: u8) -> SwarmId {
    SwarmId([i; 32])
}

/// One content and who takes part.
struct Content {
    swarm: SwarmId,
    pieces: u32,
    urgency: Urgency,
    origins: Vec<usize>,
    hosts: Vec<usize>,
}

impl Content {
    /// Host 0 is the origin and the next `n` want it.
    fn of(pieces: u32, n: usize) -> Self {
        let hosts = (1..=n).collect();
        Self { swarm: swarm(1), pieces, urgency: Urgency::Normal, origins: vec![0], hosts }
    }

    fn join(&self, host: usize, have: PieceSet) -> Join {
        Join {
            swarm: self.swarm,
            manifest: ManifestId([9; 32]),
            lens: vec![PIECE; self.pieces as usize],
            have,
            urgency: self.urgency,
            role: if self.origins.contains(&host) { Role::Origin } else { Role::Leech },
            members: Members {
                interested: self.hosts.iter().copied().filter(|h| *h != host).map(node).collect(),
                origins: self.origins.iter().copied().map(node).collect(),
                ..Members::default()
            },
        }
    }

    /// Everyone joins at once: origins with everything, the others with nothing.
    fn start(&self, world: &mut World) {
        for h in &self.origins {
            world.join(*h, 0, self.join(*h, PieceSet::full(self.pieces)));
        }
        for h in &self.hosts {
            world.join(*h, 0, self.join(*h, PieceSet::empty(self.pieces)));
        }
    }

    /// Bytes of the whole.
    fn bytes(&self) -> u64 {
        u64::from(self.pieces) * u64::from(PIECE)
    }

    /// Milliseconds that one link of 1 Gbit/s needs for it.
    fn bound_ms(&self) -> f64 {
        self.bytes() as f64 / GBIT as f64
    }
}

/// What a run measured.
#[derive(Debug)]
struct Figures {
    makespan: f64,
    egress: f64,
    duplicates: f64,
}

fn figures(name: &str, world: &World, content: &Content, until_ms: f64) -> Figures {
    let origin: u64 = content.origins.iter().map(|h| world.hosts[*h].sent_bytes).sum();
    let got: u64 = world.hosts.iter().map(|h| h.got_pieces).sum();
    let wasted: u64 = world.hosts.iter().map(|h| h.wasted_pieces).sum();
    let f = Figures {
        makespan: until_ms / content.bound_ms(),
        egress: origin as f64 / content.bytes() as f64,
        duplicates: wasted as f64 / got.max(1) as f64,
    };
    println!(
        "{name}: makespan/bound {:.3}, origin egress {:.3} F, duplicates {:.3} %, frames {}, \
         passes {}, stolen {}, seed {}",
        f.makespan,
        f.egress,
        100.0 * f.duplicates,
        world.frames,
        world.hosts.iter().map(|h| h.planner.counters().passes).sum::<u64>(),
        world.hosts.iter().map(|h| h.planner.counters().stolen).sum::<u64>(),
        world.seed,
    );
    f
}
