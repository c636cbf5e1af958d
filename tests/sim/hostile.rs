//! Hostile nodes: admitted hosts that run the real machine, with what it says twisted by kind.

use std::str::FromStr;

use stork_node::overlay::Action;
use stork_wire::codec::List;
use stork_wire::frame::{OverlayFrame, PeerHint};
use stork_wire::ids::LogId;

use super::queue::Ev;
use super::world::{SECOND, World, number};

/// What a hostile node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hostile {
    /// Keeps its links and takes everything, but passes nothing on and serves nothing.
    Silent,
    /// Prunes all its neighbours from every tree, again and again.
    Prune,
    /// Names only its accomplices in shuffles and hints.
    Poison,
    /// Announces items that do not exist, and never serves one.
    IHave,
    /// Pushes entries with changed bytes under the old signature.
    Forge,
}

/// All kinds, with their names on the command line.
pub(crate) const KINDS: &[(&str, Hostile)] = &[
    ("silent", Hostile::Silent),
    ("prune", Hostile::Prune),
    ("poison", Hostile::Poison),
    ("ihave", Hostile::IHave),
    ("forge", Hostile::Forge),
];

impl FromStr for Hostile {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let found = KINDS.iter().find(|(name, _)| *name == s).map(|(_, kind)| *kind);
        found.ok_or_else(|| format!("`{s}` is none of silent, prune, poison, ihave, forge"))
    }
}

impl World {
    /// What becomes of an action of this node; `None` where it does not happen.
    pub(crate) fn twist(&mut self, i: u32, action: Action) -> Option<Action> {
        let Some(kind) = self.node(i).and_then(|n| n.hostile) else { return Some(action) };
        match (kind, action) {
            (Hostile::Silent | Hostile::IHave, Action::ReadItems { .. }) => None,
            (Hostile::Silent | Hostile::IHave, Action::Send { frame, .. }) if carries(&frame) => {
                None
            }
            (Hostile::Poison, Action::Send { to, frame, class }) => {
                let peers = self.accomplices(i);
                let frame = match frame {
                    OverlayFrame::Shuffle { nonce, .. } => OverlayFrame::Shuffle { nonce, peers },
                    OverlayFrame::ShuffleReply { nonce, .. } => {
                        OverlayFrame::ShuffleReply { nonce, peers }
                    }
                    frame => frame,
                };
                Some(Action::Send { to, frame, class })
            }
            (Hostile::Poison, Action::Answer { to, class, .. }) => {
                Some(Action::Answer { to, class, hints: self.accomplices(i) })
            }
            (_, action) => Some(action),
        }
    }

    fn accomplices<const N: usize>(&mut self, i: u32) -> List<PeerHint, N> {
        let all = (0u32..).zip(&self.nodes).filter(|(j, n)| *j != i && n.hostile.is_some());
        let all: Vec<PeerHint> = all.map(|(_, n)| n.peer.hint.clone()).take(400).collect();
        List::truncated(self.rng.shuffled(all))
    }

    /// Every second: frames that no machine would send.
    pub(crate) fn mischief(&mut self, i: u32) {
        self.plan(SECOND, i, Ev::Mischief);
        let Some(kind) = self.node(i).and_then(|n| n.hostile) else { return };
        let feed = self.rng.node(self.feeds.all.len());
        let Some(f) = self.feeds.all.get(feed as usize) else { return };
        let (log, len) = (f.log, f.items.len() as u64);
        let frame = match kind {
            Hostile::Prune => OverlayFrame::Prune { log },
            Hostile::IHave => {
                let random = self.rng.next();
                let made_up = LogId::of(&random.to_le_bytes());
                OverlayFrame::IHave(List::truncated([(log, len + 1), (log, len + 2), (made_up, 1)]))
            }
            Hostile::Forge => {
                let Some(item) = self.feeds.forge(feed) else { return };
                OverlayFrame::Push { hop: 1, age_ms: 1, entry: 0, item: Box::new(item) }
            }
            Hostile::Silent | Hostile::Poison => return,
        };
        let Some(node) = self.node(i) else { return };
        let links: Vec<u32> = node.overlay.links().map(|l| number(&l.peer.node)).collect();
        for j in links {
            self.transmit(i, j, frame.clone(), 0);
        }
    }
}

const fn carries(frame: &OverlayFrame) -> bool {
    matches!(
        frame,
        OverlayFrame::Push { .. }
            | OverlayFrame::IHave(_)
            | OverlayFrame::IHaveRanges(_)
            | OverlayFrame::Items(_)
    )
}
