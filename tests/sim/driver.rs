//! The simulated driver of a node: what its machine asks for is done here, as `node/src/driver`
//! does it: items are judged, passed on, made durable; the first host of an item stores it first.

use stork_node::overlay::{Action, Class, Event, Input, PeersKind, Refusal};
use stork_wire::codec::List;
use stork_wire::frame::{ItemRange, LinkClass, OverlayFrame};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Item;
use stork_wire::limits::{CLOCK_SKEW_S, FRAME_LEN_MAX, ITEMS_PER_FRAME_MAX};

use super::feeds::{Published, UNIX_START};
use super::frame_size::{frame_bytes, item_bytes, payload_bytes};
use super::queue::Ev;
use super::world::{SECOND, World, number};

/// Reading items from the disk, in microseconds.
const READ_US: u64 = 500;
/// Bytes that may wait for one peer, and from which on lazy frames are shed (`net/outbox.rs`).
const OUTBOX_BYTES_MAX: u64 = 256 * 1024;
const LAZY_BYTES_MAX: u64 = OUTBOX_BYTES_MAX / 2;
/// Items that wait for one before them, in one log and in all (`trust::PENDING_MAX`).
const PENDING_PER_LOG_MAX: usize = 256;
const PENDING_MAX: usize = 1_024;

impl World {
    /// Gives a node's machine an input, does what it asks for, and checks what must hold then.
    pub(crate) fn input(&mut self, i: u32, input: Input) {
        if self.is_puppet(i) {
            return self.pull(i, input);
        }
        let now = self.now;
        let mut actions = self.scratch.pop().unwrap_or_default();
        let Some(node) = self.node_mut(i) else { return };
        let tick = node.tick(now);
        node.overlay.handle(tick, input, &mut actions);
        let mut sent = Vec::new();
        for action in actions.drain(..) {
            self.act(i, action, &mut sent);
        }
        self.scratch.push(actions);
        self.check_node(i);
        self.schedule(i);
    }

    /// Plans a node's next wake-up, if it is before the one that is planned.
    pub(crate) fn schedule(&mut self, i: u32) {
        let now = self.now;
        let Some(node) = self.node_mut(i) else { return };
        let next = node.overlay.deadline().map_or(u64::MAX, |t| t.0);
        let at = next.saturating_mul(1_000).saturating_add(node.born).max(now);
        if at < node.wake && next != u64::MAX {
            node.wake = at;
            self.plan(at - now, i, Ev::Wake);
        }
    }

    fn act(&mut self, i: u32, action: Action, sent: &mut Vec<(u32, u64)>) {
        let Some(action) = self.twist(i, action) else { return };
        match action {
            Action::Send { to, frame, class } => self.send(i, to, frame, class, sent),
            Action::Dial { peer, class, starving } => self.dial(i, &peer, class, starving),
            Action::Answer { to, class, hints } => self.answer(i, to, class, hints),
            Action::Close { node, .. } => self.close(i, number(&node)),
            Action::Deliver { from, item, .. } => self.judge(i, Some(number(&from)), item),
            Action::ReadItems { to, ranges } => self.read_items(i, to, &ranges),
            Action::Summarise(cell) => self.sign_record(i, cell),
            Action::SavePeers(hints) => {
                let saved = Self::to_disk(&hints);
                if let Some(node) = self.node_mut(i) {
                    node.saved = saved;
                }
            }
            Action::Event(Event::LinkUp { node, class }) => {
                self.set_class(i, number(&node), class);
            }
            Action::Event(Event::LinkDown { node, .. }) => {
                self.set_class(i, number(&node), LinkClass::Transient);
            }
            Action::Event(Event::MergeProbe { .. }) => self.meter.merge_probes += 1,
            Action::Event(Event::Comparing { .. }) => self.meter.comparisons += 1,
            Action::Event(Event::ForkSeen { .. }) => self.meter.forks += 1,
        }
    }

    /// Puts a frame into the outbox of a connection. What one input makes a machine say waits there
    /// at the same moment, so that its sum is what the outbox must hold at least (I17).
    fn send(
        &mut self,
        i: u32,
        to: NodeId,
        frame: OverlayFrame,
        class: Class,
        sent: &mut Vec<(u32, u64)>,
    ) {
        let j = number(&to);
        if !self.node(i).is_some_and(|n| n.conns.contains_key(&j)) {
            return;
        }
        if self.options.no_sync && compares(&frame) {
            return;
        }
        let (bytes, payload) = (frame_bytes(&frame), payload_bytes(&frame));
        let before = sent.iter().find(|(n, _)| *n == j).map_or(0, |(_, b)| *b);
        if class == Class::Lazy && before + bytes > LAZY_BYTES_MAX {
            self.meter.shed += 1;
            return;
        }
        if before + bytes > OUTBOX_BYTES_MAX {
            self.meter.overflows += 1;
            let name = frame.name();
            let all = before + bytes;
            self.violation("I17", i, || format!("{all} B for node {j} at once, of {name}"));
            self.close(i, j);
            return;
        }
        match sent.iter_mut().find(|(n, _)| *n == j) {
            Some((_, b)) => *b += bytes,
            None => sent.push((j, bytes)),
        }
        self.check_sent(i, &frame);
        self.meter.frame(frame.name(), bytes, payload);
        self.transmit(i, j, frame, 0);
    }

    /// A frame has arrived.
    pub(crate) fn on_frame(&mut self, i: u32, from: u32, conn: u64, frame: OverlayFrame) {
        let (Some(node), Some(sender)) = (self.node(i), self.node(from)) else { return };
        if node.conns.get(&from).is_none_or(|c| c.id != conn) {
            return;
        }
        let id = sender.peer.node;
        let crosses = self.crosses(from, i);
        self.overhear(i, from, &frame);
        match &frame {
            OverlayFrame::Push { item, .. } => self.count_payload(item, crosses),
            OverlayFrame::Items(items) => {
                for item in items {
                    self.count_payload(item, crosses);
                }
            }
            _ => {}
        }
        let peers =
            |kind, hints: &[_]| Input::Peers { from: id, kind, peers: self.checked(i, hints) };
        let input = match frame {
            OverlayFrame::Records(hints) => peers(PeersKind::Records, &hints),
            OverlayFrame::Shuffle { nonce, peers: hints } => {
                peers(PeersKind::Shuffle { nonce }, &hints)
            }
            OverlayFrame::ShuffleReply { nonce, peers: hints } => {
                peers(PeersKind::ShuffleReply { nonce }, &hints)
            }
            frame => Input::Frame { from: id, frame },
        };
        self.input(i, input);
    }

    /// A hostile node remembers what it could say to please its neighbours.
    fn overhear(&mut self, i: u32, from: u32, frame: &OverlayFrame) {
        let (OverlayFrame::Ping { fingerprint, .. } | OverlayFrame::Pong { fingerprint, .. }) =
            frame
        else {
            return;
        };
        if let Some(node) = self.node_mut(i).filter(|n| n.hostile.is_some()) {
            node.heard.insert(from, *fingerprint);
        }
    }

    fn count_payload(&mut self, item: &Item, crosses: bool) {
        let Some(feed) = self.feeds.find(&item.log) else { return };
        let Some(message) = self.feeds.item(feed, item.seq).map(|p| p.message) else { return };
        self.meter.payload(message, crosses);
    }

    /// Judges an item: the rules of its content once for the whole process, its order here.
    fn judge(&mut self, i: u32, source: Option<u32>, item: Item) {
        if self.own.is_some() {
            return self.judge_own(i, source, item);
        }
        let (log, seq, unix) = (item.log, item.seq, self.unix(i));
        if let Some(feed) = self.fork_of(&item) {
            let why = self.judge_fork(i, source, feed, &item);
            return self.refuse(i, source, (log, seq), why);
        }
        let why = match self.feeds.genuine(&item).map(|(feed, p)| (feed, p.signed_at)) {
            Some((feed, signed_at)) => {
                self.judge_order(i, source, (feed, seq), signed_at > unix + CLOCK_SKEW_S)
            }
            None => self.judge_forged(i, &item, unix),
        };
        self.refuse(i, source, (log, seq), why);
    }

    fn refuse(&mut self, i: u32, source: Option<u32>, key: (LogId, u64), why: Option<Refusal>) {
        let Some(from) = source.and_then(|s| self.node(s)).map(|n| n.peer.node) else { return };
        let (log, seq) = key;
        if let Some(why) = why {
            self.input(i, Input::Refused { from, log, seq, why });
        }
    }

    fn judge_forged(&mut self, i: u32, item: &Item, unix: u64) -> Option<Refusal> {
        let why = self.feeds.judge_forged(item, unix);
        if why.is_none() {
            self.violation("I11", i, || "the rules accepted a forged item".to_owned());
        }
        why.or(Some(Refusal::Invalid))
    }

    /// `None` where the item is accepted: then it is on its way to the disk.
    fn judge_order(
        &mut self,
        i: u32,
        source: Option<u32>,
        (feed, seq): (u32, u64),
        too_new: bool,
    ) -> Option<Refusal> {
        let node = self.nodes.get_mut(i as usize)?;
        let (accepted, _) = node.logs.get_mut(feed as usize)?;
        if seq <= *accepted {
            // What waited for the disk may have come once more meanwhile.
            if source.is_some() {
                self.violation("I7", i, || format!("item {seq} of feed {feed} came again"));
            }
            return Some(Refusal::Duplicate);
        }
        if too_new {
            return Some(Refusal::Unknown);
        }
        if seq > *accepted + 1 {
            let of_log = node.pending.range((feed, 0)..=(feed, u64::MAX)).count();
            if of_log < PENDING_PER_LOG_MAX && node.pending.len() < PENDING_MAX {
                node.pending.insert((feed, seq));
            }
            return Some(Refusal::Early);
        }
        *accepted = seq;
        let (now, on_disk) = (self.now, node.disk_us);
        let full = node.full_until > now;
        // What another host brought travels on at once; what a publisher brought has come here
        // by way of the disk (`publish`).
        self.pass_on(i, source, feed, seq);
        if !full {
            self.plan(on_disk, i, Ev::Commit { feed, seq });
        }
        if source.is_some() {
            self.judge_early(i, feed, seq + 1);
        }
        None
    }

    /// What came before its turn follows at once the item that it waited for, as what its sender
    /// brought; where that is forgotten, when the other item is on disk.
    fn judge_early(&mut self, i: u32, feed: u32, seq: u64) {
        let Some(item) = self.feeds.item(feed, seq).map(|p| Item::clone(&p.item)) else { return };
        let Some(node) = self.nodes.get_mut(i as usize) else { return };
        let Some(from) = node.overlay.early_source(item.log, seq) else { return };
        if node.pending.remove(&(feed, seq)) {
            self.judge(i, Some(number(&from)), item);
        }
    }

    /// An accepted item counts as here, and travels on.
    pub(crate) fn pass_on(&mut self, i: u32, from: Option<u32>, feed: u32, seq: u64) {
        let Some(p) = self.held(i, feed, seq) else { return };
        let (item, hash, message) = (std::sync::Arc::clone(&p.item), p.hash, p.message);
        let (log, now) = (item.log, self.now);
        let Some(node) = self.node(i) else { return };
        if node.is_honest() {
            self.meter.got(message, (i, from), now, node.born);
        }
        let source = from.and_then(|s| self.node(s)).map(|n| n.peer.node);
        self.input(i, Input::Committed { log, seq, hash, item, source });
    }

    /// An item is durable: what waited for it is judged.
    pub(crate) fn on_stored(&mut self, i: u32, feed: u32, seq: u64) {
        let now = self.now;
        let at = self.feeds.item(feed, seq).and_then(|p| self.meter.published_at(p.message));
        let Some(node) = self.nodes.get_mut(i as usize) else { return };
        let Some((_, stored)) = node.logs.get_mut(feed as usize) else { return };
        *stored = seq.max(*stored);
        if at.is_some_and(|at| at <= node.born) && node.behind > 0 {
            node.behind -= 1;
            if node.behind == 0 && node.is_honest() {
                self.meter.caught_up.push(now - node.born);
            }
        }
        if node.pending.remove(&(feed, seq + 1)) {
            // What is left was forgotten by the overlay: it goes on as if it were from here.
            let next = self.feeds.item(feed, seq + 1).map(|p| Item::clone(&p.item));
            if let Some(next) = next {
                self.judge(i, None, next);
            }
        }
    }

    /// A publisher pushes the next item of its feed to a node, which must have all before it.
    pub(crate) fn publish(&mut self, feed: u32) -> anyhow::Result<Option<u32>> {
        let Some(f) = self.feeds.all.get(feed as usize) else { return Ok(None) };
        let (home, len) = (f.home, f.items.len() as u64);
        if self.feeds.forks.contains_key(&feed) {
            return Ok(None);
        }
        let tries: Vec<u32> = (0..50).map(|_| self.rng.node(self.nodes.len())).collect();
        let fits = |i: u32| {
            let has = |n: &super::world::Node| n.logs.get(feed as usize).map(|l| l.1);
            let up = |n: &&super::world::Node| {
                let works = n.paused_until <= self.now && n.full_until <= self.now;
                n.alive && n.is_honest() && works
            };
            self.node(i).filter(up).and_then(has) == Some(len)
        };
        let mut at = Some(home).filter(|h| fits(*h));
        at = at.or_else(|| tries.into_iter().find(|i| fits(*i)));
        let Some(i) = at else { return Ok(None) };
        // The publisher's own clock is right; a node's may differ by what the rules tolerate.
        let unix = UNIX_START + self.now / SECOND;
        let seq = self.feeds.publish(feed, unix)?;
        self.pushed(i, feed, seq);
        Ok(Some(i))
    }

    /// A node has the next item of a log from its publisher.
    pub(crate) fn pushed(&mut self, i: u32, feed: u32, seq: u64) {
        let alive = self.nodes.iter().filter(|n| n.alive).count();
        self.meter.published(self.now, feed, alive, self.nodes.len());
        if let Some((accepted, _)) =
            self.nodes.get_mut(i as usize).and_then(|n| n.logs.get_mut(feed as usize))
        {
            *accepted = seq;
        }
        // Its own disk comes before the answer to the publisher: the clock runs from then.
        self.on_stored(i, feed, seq);
        self.pass_on(i, None, feed, seq);
    }

    /// What a node can serve.
    fn on_disk(&self, i: u32, log: LogId, seq: u64) -> Option<&Published> {
        let node = self.node(i)?;
        let Some(feed) = self.feeds.find(&log) else {
            let (feed, fork) = self.feeds.forks.iter().find(|(_, f)| f.proof.item.log == log)?;
            let proven = node.forks.get(feed).is_some_and(|b| b.proven) && seq == 1;
            return Some(&fork.proof).filter(|_| proven);
        };
        let stored = node.logs.get(feed as usize).map_or(0, |l| l.1);
        self.held(i, feed, seq).filter(|_| seq <= stored)
    }

    /// Reads stored items and sends them in frames that fit.
    fn read_items(&mut self, i: u32, to: NodeId, ranges: &[ItemRange]) {
        let j = number(&to);
        let mut batch: Vec<Item> = Vec::new();
        let mut bytes = 0;
        let all = ranges.iter().flat_map(|r| (r.from..=r.to).map(|seq| (r.log, seq)));
        let mut frames = Vec::new();
        for (log, seq) in all {
            let published = || self.on_disk(i, log, seq).map(|p| std::sync::Arc::clone(&p.item));
            let Some(item) = self.own_item(i, log, seq).or_else(published) else { continue };
            let len = item_bytes(&item);
            if bytes + len > FRAME_LEN_MAX as u64 - 1_024 || batch.len() == ITEMS_PER_FRAME_MAX {
                frames.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += len;
            batch.push(Item::clone(&item));
        }
        frames.push(batch);
        for items in frames.into_iter().filter(|f| !f.is_empty()) {
            let frame = OverlayFrame::Items(List::truncated(items));
            let (bytes, payload) = (frame_bytes(&frame), payload_bytes(&frame));
            if self.node(i).is_some_and(|n| n.conns.contains_key(&j)) {
                self.meter.frame(frame.name(), bytes, payload);
                self.transmit(i, j, frame, READ_US);
            }
        }
    }
}

/// Is this a frame of sync, without which there are only trees, announcements and grafts?
pub(crate) const fn compares(frame: &OverlayFrame) -> bool {
    matches!(
        frame,
        OverlayFrame::Heads { .. }
            | OverlayFrame::SketchAsk { .. }
            | OverlayFrame::Sketch { .. }
            | OverlayFrame::HeadsAsk(_)
            | OverlayFrame::Ahead(_)
            | OverlayFrame::Fetch(_)
    )
}
