//! Hostile nodes without a machine: they take every link that they can get by the claim that they
//! are starving, answer pings so that the links live, and pass nothing on (attack G2).

use stork_node::overlay::Input;
use stork_wire::frame::{LinkClass, OverlayFrame};

use super::hostile::Hostile;
use super::world::{World, number};

/// Hosts that are dialled each second, far more often than the rules allow (attack G4).
const DIALS: u32 = 3;

impl World {
    /// Does this node run no machine?
    pub(crate) fn is_puppet(&self, i: u32) -> bool {
        self.node(i).is_some_and(|n| n.hostile == Some(Hostile::Eclipse))
    }

    /// What a puppet does with what comes: it grants every link, names its accomplices, and says
    /// that it has what the other has.
    pub(crate) fn pull(&mut self, i: u32, input: Input) {
        match input {
            Input::Hello { peer, class, .. } => {
                let hints = self.accomplices(i);
                self.answer(i, peer.node, class, hints);
            }
            Input::Frame { from, frame: OverlayFrame::Ping { nonce, fingerprint, class, .. } } => {
                let pong = OverlayFrame::Pong { nonce, fingerprint, class };
                self.transmit(i, number(&from), pong, 0);
            }
            _ => {}
        }
    }

    /// Dials honest hosts for the slots that are kept for the starving.
    pub(crate) fn press(&mut self, i: u32) {
        for _ in 0..DIALS {
            let j = self.rng.node(self.nodes.len());
            let linked = self.node(i).is_some_and(|n| n.conns.contains_key(&j));
            let Some(victim) = self.node(j).filter(|n| n.is_honest() && !linked) else { continue };
            let peer = std::sync::Arc::clone(&victim.peer);
            let far = self.crosses(i, j) || self.rng.below(3) == 0;
            let class = if far { LinkClass::Far } else { LinkClass::Near };
            self.dial(i, &peer, class, true);
        }
    }
}
