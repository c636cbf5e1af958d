//! Hostile nodes: admitted hosts that run the real machine, with what it says twisted by kind, and
//! with frames that no machine would send (security.md §2).

use stork_node::overlay::Action;
use stork_wire::codec::List;
use stork_wire::frame::{Have, ItemRange, OverlayFrame, PeerHint, ShortLog, SketchCell};
use stork_wire::ids::{ItemHash, LogId};
use stork_wire::item::Head;

use super::queue::Ev;
use super::world::{SECOND, World, number};

/// How far beyond the truth a liar's heads are.
const LIE: u64 = 1_000;
/// Frames that a flooding node sends each second to each neighbour, of each sort.
const FLOOD: u64 = 10;

/// What a hostile node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hostile {
    /// Keeps its links and takes everything, but passes nothing on and serves nothing (G11).
    Silent,
    /// Prunes all its neighbours from every tree, again and again (G16).
    Prune,
    /// Names only its accomplices in shuffles and hints (G3).
    Poison,
    /// Announces items that do not exist, and never serves one (G8).
    IHave,
    /// Pushes entries with changed bytes under the old signature (G6, G7).
    Forge,
    /// Sends replies to shuffles that nobody asked for, and shuffles without end (G3).
    Shuffle,
    /// Pushes and announces old items again and again (G10).
    Replay,
    /// Asks for items, heads and cells without end (G9).
    Flood,
    /// Passes on everything but the first feed (G14).
    Censor,
    /// Says in comparisons that it has what does not exist, and serves nothing.
    Heads,
    /// As `Silent`, and says that it has exactly what the other has, so that nobody compares.
    Echo,
    /// Says that it is the relay of all logs, draws trees to itself with the lowest entry, and then
    /// drops every second item.
    Relay,
    /// Dials as many hosts as it can as if it were starving, and passes nothing on (G2). It runs no
    /// machine: see `puppet`.
    Eclipse,
}

/// All kinds, with their names on the command line.
pub(crate) const KINDS: &[(&str, Hostile)] = &[
    ("silent", Hostile::Silent),
    ("prune", Hostile::Prune),
    ("poison", Hostile::Poison),
    ("ihave", Hostile::IHave),
    ("forge", Hostile::Forge),
    ("shuffle", Hostile::Shuffle),
    ("replay", Hostile::Replay),
    ("flood", Hostile::Flood),
    ("censor", Hostile::Censor),
    ("heads", Hostile::Heads),
    ("echo", Hostile::Echo),
    ("relay", Hostile::Relay),
    ("eclipse", Hostile::Eclipse),
];

/// The kinds of a name on the command line: one, or all of them in turn.
pub(crate) fn kinds(name: &str) -> Result<Vec<Hostile>, String> {
    let named = KINDS.iter().filter(|(n, _)| *n == name || name == "mixed");
    let found: Vec<Hostile> = named.map(|(_, kind)| *kind).collect();
    let names: Vec<&str> = KINDS.iter().map(|(n, _)| *n).collect();
    let none = || format!("`{name}` is none of {}, mixed", names.join(", "));
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

impl World {
    /// What becomes of an action of this node; `None` where it does not happen.
    pub(crate) fn twist(&mut self, i: u32, action: Action) -> Option<Action> {
        let Some(kind) = self.node(i).and_then(|n| n.hostile) else { return Some(action) };
        match action {
            Action::ReadItems { .. } if serves_nothing(kind) => None,
            Action::ReadItems { to, mut ranges } if kind == Hostile::Censor => {
                let censored = self.censored();
                ranges.retain(|r| Some(r.log) != censored);
                Some(Action::ReadItems { to, ranges })
            }
            Action::Answer { to, class, .. } if names_accomplices(kind) => {
                Some(Action::Answer { to, class, hints: self.accomplices(i) })
            }
            Action::Send { to, frame, class } => {
                let frame = self.twist_frame(i, number(&to), kind, frame)?;
                Some(Action::Send { to, frame, class })
            }
            action => Some(action),
        }
    }

    fn twist_frame(
        &mut self,
        i: u32,
        to: u32,
        kind: Hostile,
        frame: OverlayFrame,
    ) -> Option<OverlayFrame> {
        match (kind, frame) {
            (Hostile::Silent | Hostile::IHave | Hostile::Echo, f) if carries(&f) => None,
            (Hostile::Poison | Hostile::Shuffle, OverlayFrame::Shuffle { nonce, .. }) => {
                Some(OverlayFrame::Shuffle { nonce, peers: self.accomplices(i) })
            }
            (Hostile::Poison | Hostile::Shuffle, OverlayFrame::ShuffleReply { nonce, .. }) => {
                Some(OverlayFrame::ShuffleReply { nonce, peers: self.accomplices(i) })
            }
            (Hostile::Echo, f) => Some(self.echo(i, to, f)),
            (Hostile::Heads, f) => Some(self.lie(f)),
            (Hostile::Censor, f) => self.censor(f),
            (Hostile::Relay, f) => draw_trees(f),
            (_, frame) => Some(frame),
        }
    }

    /// The other's own fingerprint, as far as it was heard.
    fn echo(&self, i: u32, to: u32, mut frame: OverlayFrame) -> OverlayFrame {
        let heard = self.node(i).and_then(|n| n.heard.get(&to));
        if let (
            Some(heard),
            OverlayFrame::Ping { fingerprint, .. } | OverlayFrame::Pong { fingerprint, .. },
        ) = (heard, &mut frame)
        {
            *fingerprint = *heard;
        }
        frame
    }

    /// A frame of sync that says what is not so.
    fn lie(&mut self, frame: OverlayFrame) -> OverlayFrame {
        let random = self.rng.next();
        let print = random.to_le_bytes();
        match frame {
            OverlayFrame::Ping { nonce, class, carries, .. } => {
                OverlayFrame::Ping { nonce, fingerprint: print, class, carries }
            }
            OverlayFrame::Pong { nonce, class, .. } => {
                OverlayFrame::Pong { nonce, fingerprint: print, class }
            }
            OverlayFrame::Heads { last, answer, .. } => self.false_heads(last, answer),
            OverlayFrame::Ahead(logs) => OverlayFrame::Ahead(List::truncated(
                logs.iter().map(|(log, seq)| (*log, seq + LIE)),
            )),
            OverlayFrame::Sketch { logs, start, cells, .. } => {
                let cells =
                    cells.iter().map(|_| SketchCell([self.rng.next().to_le_bytes()[0]; 24]));
                let cells = List::truncated(cells.collect::<Vec<_>>());
                OverlayFrame::Sketch { fingerprint: print, logs, start, cells }
            }
            frame => frame,
        }
    }

    /// Heads far beyond the true ones, of logs that exist and of some that do not.
    fn false_heads(&mut self, last: bool, answer: bool) -> OverlayFrame {
        let made_up = (0..8).map(|_| LogId::of(&self.rng.next().to_le_bytes())).collect::<Vec<_>>();
        let real = self.feeds.all.iter().map(|f| (f.log, f.items.len() as u64 + LIE));
        let all = real.chain(made_up.into_iter().map(|log| (log, 3)));
        let heads = all.map(|(log, seq)| Head::of(log, seq, ItemHash([7; 32])));
        OverlayFrame::Heads { heads: List::truncated(heads.collect::<Vec<_>>()), last, answer }
    }

    fn censored(&self) -> Option<LogId> {
        self.feeds.all.first().map(|f| f.log)
    }

    fn censor(&self, frame: OverlayFrame) -> Option<OverlayFrame> {
        let censored = self.censored()?;
        match frame {
            OverlayFrame::Push { item, .. } if item.log == censored => None,
            OverlayFrame::IHave(all) => {
                let rest = all.iter().filter(|h| h.log != censored).copied();
                Some(OverlayFrame::IHave(List::truncated(rest.collect::<Vec<_>>())))
            }
            frame => Some(frame),
        }
    }

    pub(crate) fn accomplices<const N: usize>(&mut self, i: u32) -> List<PeerHint, N> {
        let all = (0u32..).zip(&self.nodes).filter(|(j, n)| *j != i && n.hostile.is_some());
        let all: Vec<PeerHint> = all.map(|(_, n)| n.peer.hint.clone()).take(400).collect();
        List::truncated(self.rng.shuffled(all))
    }

    /// Every second: frames that no machine would send, to all neighbours.
    pub(crate) fn mischief(&mut self, i: u32) {
        self.plan(SECOND, i, Ev::Mischief);
        let Some(kind) = self.node(i).and_then(|n| n.hostile) else { return };
        if kind == Hostile::Eclipse {
            return self.press(i);
        }
        let feed = self.rng.node(self.feeds.all.len());
        let Some(f) = self.feeds.all.get(feed as usize) else { return };
        let (log, len) = (f.log, f.items.len() as u64);
        let frames = match kind {
            Hostile::Prune => vec![OverlayFrame::Prune { log }],
            Hostile::IHave => {
                let made_up = LogId::of(&self.rng.next().to_le_bytes());
                let all = [(log, len + 1), (log, len + 2), (made_up, 1)];
                let all = all.map(|(log, seq)| Have { log, seq, more: 0, waited_ms: u16::MAX });
                vec![OverlayFrame::IHave(List::truncated(all))]
            }
            Hostile::Forge => match self.feeds.forge(feed) {
                Some(item) => vec![push(item)],
                None => return,
            },
            Hostile::Shuffle => self.strange_shuffles(i),
            Hostile::Replay => self.old_news(feed, log, len),
            Hostile::Flood => self.flood(log, len),
            Hostile::Heads => vec![self.false_heads(true, true)],
            _ => return,
        };
        let Some(node) = self.node(i) else { return };
        let links: Vec<u32> = node.overlay.links().map(|l| number(&l.peer.node)).collect();
        for j in links {
            for frame in &frames {
                self.transmit(i, j, frame.clone(), 0);
            }
        }
    }

    fn strange_shuffles(&mut self, i: u32) -> Vec<OverlayFrame> {
        let nonce = self.rng.next();
        let peers = self.accomplices(i);
        let reply = OverlayFrame::ShuffleReply { nonce, peers: peers.clone() };
        vec![reply, OverlayFrame::Shuffle { nonce, peers }]
    }

    fn old_news(&mut self, feed: u32, log: LogId, len: u64) -> Vec<OverlayFrame> {
        let seqs: Vec<u64> = (0..3).map(|_| 1 + self.rng.below(len.max(1))).chain([len]).collect();
        let items = seqs.iter().filter_map(|seq| self.feeds.item(feed, *seq));
        let mut frames: Vec<OverlayFrame> = items.map(|p| push((*p.item).clone())).collect();
        let old = seqs.iter().filter(|seq| **seq > 0).map(|seq| Have::new(log, *seq));
        frames.push(OverlayFrame::IHave(List::truncated(old.collect::<Vec<_>>())));
        frames
    }

    fn flood(&mut self, log: LogId, len: u64) -> Vec<OverlayFrame> {
        let mut frames = Vec::new();
        for _ in 0..FLOOD {
            let seq = 1 + self.rng.below(len + 1);
            let ranges = self.feeds.all.iter();
            let ranges = ranges.map(|f| ItemRange { log: f.log, from: 1, to: 256 });
            let short = ShortLog::of(&LogId::of(&self.rng.next().to_le_bytes()));
            frames.push(OverlayFrame::Graft { log, seq });
            frames.push(OverlayFrame::Fetch(List::truncated(ranges.collect::<Vec<_>>())));
            frames.push(OverlayFrame::HeadsAsk(List::truncated([short, ShortLog::of(&log)])));
            frames.push(OverlayFrame::SketchAsk { start: 0, count: 2_048 });
        }
        frames
    }
}

fn push(item: stork_wire::item::Item) -> OverlayFrame {
    OverlayFrame::Push { hop: 1, age_ms: 1, entry: 0, item: Box::new(item) }
}

const fn carries(frame: &OverlayFrame) -> bool {
    matches!(frame, OverlayFrame::Push { .. } | OverlayFrame::IHave(_) | OverlayFrame::Items(_))
}

const fn serves_nothing(kind: Hostile) -> bool {
    matches!(
        kind,
        Hostile::Silent | Hostile::IHave | Hostile::Echo | Hostile::Heads | Hostile::Relay
    )
}

const fn names_accomplices(kind: Hostile) -> bool {
    matches!(kind, Hostile::Poison | Hostile::Shuffle)
}

/// The lowest entry wins a site, and whoever says that it is a relay gets what crosses.
fn draw_trees(frame: OverlayFrame) -> Option<OverlayFrame> {
    match frame {
        OverlayFrame::Ping { nonce, fingerprint, class, .. } => {
            Some(OverlayFrame::Ping { nonce, fingerprint, class, carries: u64::MAX })
        }
        OverlayFrame::Push { item, .. } if item.seq % 2 == 1 => None,
        OverlayFrame::Push { item, .. } => Some(push(*item)),
        OverlayFrame::IHave(_) => None,
        frame => Some(frame),
    }
}
