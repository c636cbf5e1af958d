//! How much content may go each way, and how soon more may: buckets of bytes, with time handed in.
//!
//! A host has four limits: to all other hosts and from them, and the same for hosts of other sites.
//! What crosses between sites takes from both. Whatever sends or asks for a piece comes here first
//! (protocol.md §3e: a grant is where sending is admitted). A piece is sent whole, so that a bucket
//! gives one as soon as it holds anything and is in debt for the rest: the average holds.
//!
//! Security and urgent content does not wait for what others took, and passes where others are
//! closed. A twentieth is kept for normal and background content, so that it never stops because
//! of them.

use stork_wire::feed::Urgency;
use stork_wire::ids::NodeId;
use stork_wire::limits::PIECE_LEN_MAX;
use stork_wire::tick::Tick;

use super::store::ORIGIN_STORE;
use super::swarm::Ctx;

/// A full bucket holds what comes in this time: it bridges the silence after a refused grant.
const BURST_MS: i64 = 1_000;
/// The part of a limit that stays for normal and background content (protocol.md §3e: 5 %).
const RESERVE_PART: i64 = 20;
/// Bytes that a bucket may owe: sixteen of the largest pieces. Only pushes by hosts that do not
/// keep to what they were asked for come near, and what they send more is not held against others.
const DEBT_MAX: i64 = 16 * PIECE_LEN_MAX as i64;
/// Buckets count thousandths of bytes: in a millisecond come as many as the limit has bytes a
/// second.
const MILLI: i64 = 1_000;

/// One of the limits of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To any host.
    Up,
    /// From any host.
    Down,
    /// To hosts of other sites.
    WanUp,
    /// From hosts of other sites, and from the origin store.
    WanDown,
}

impl Way {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::WanUp, Self::WanDown];

    /// Its key in `node.toml`, and its name wherever it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::WanUp => "wan_up",
            Self::WanDown => "wan_down",
        }
    }
}

/// What one way may carry now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Bytes a second; none: as many as there are.
    pub per_s: Option<u64>,
    /// Nothing of the classes normal and background.
    pub closed: bool,
}

/// What all ways may carry now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// To any host.
    pub up: Limit,
    /// From any host.
    pub down: Limit,
    /// To hosts of other sites.
    pub wan_up: Limit,
    /// From hosts of other sites.
    pub wan_down: Limit,
}

impl Limits {
    /// That of one way.
    #[must_use]
    pub const fn of(&self, way: Way) -> Limit {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
            Way::WanUp => self.wan_up,
            Way::WanDown => self.wan_down,
        }
    }
}

/// Which way a piece goes, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dir {
    Up,
    Down,
}

/// Which limits a piece takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) dir: Dir,
    /// It crosses between sites.
    pub(super) far: bool,
}

impl Ctx<'_> {
    /// The way of a piece to or from somebody. Nobody knows where the origin store is: it counts
    /// as another site.
    pub(super) fn lane(&self, dir: Dir, node: NodeId) -> Lane {
        let far = node == ORIGIN_STORE || self.peers.get(&node) == Some(&false);
        Lane { dir, far }
    }
}

const fn is_urgent(class: Urgency) -> bool {
    matches!(class, Urgency::Security | Urgency::Urgent)
}

fn milli(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(MILLI)
}

/// One limit and what is left of it, in thousandths of bytes.
#[derive(Debug, Default)]
struct Bucket {
    limit: Limit,
    /// Left by everybody.
    all: i64,
    /// Left by urgent content, and by what came out of the reserve.
    urgent: i64,
    /// Left of the part that is kept for the others.
    reserve: i64,
    filled: Tick,
    /// Somebody waits since the last piece.
    waiting: bool,
    waits: u64,
}

impl Bucket {
    /// Begins with nothing in it, so that a change of the limit gives nobody a burst.
    fn set(&mut self, limit: Limit, now: Tick) {
        if limit.per_s.is_none() || self.limit.per_s.is_none() {
            (self.all, self.urgent, self.reserve) = (0, 0, 0);
        }
        self.fill(now);
        self.limit = limit;
        self.filled = now;
    }

    fn rate(&self) -> Option<i64> {
        self.limit.per_s.map(|r| i64::try_from(r).unwrap_or(i64::MAX / BURST_MS).max(1))
    }

    fn fill(&mut self, now: Tick) {
        let Some(rate) = self.rate() else { return };
        let ms = i64::try_from(now.since(self.filled)).unwrap_or(i64::MAX);
        self.filled = now;
        let add = |left: i64, rate: i64| {
            left.saturating_add(rate.saturating_mul(ms)).min(rate.saturating_mul(BURST_MS))
        };
        self.all = add(self.all, rate);
        self.urgent = add(self.urgent, rate);
        self.reserve = add(self.reserve, rate / RESERVE_PART);
    }

    /// When a piece of a class may go; `None` if only another limit changes that.
    fn ready(&mut self, class: Urgency, now: Tick) -> Option<Tick> {
        let at = self.opens(class, now);
        if at != Some(now) && !self.waiting {
            self.waiting = true;
            self.waits += 1;
        }
        at
    }

    fn opens(&mut self, class: Urgency, now: Tick) -> Option<Tick> {
        if self.limit.closed && !is_urgent(class) {
            return None;
        }
        let Some(rate) = self.rate() else { return Some(now) };
        self.fill(now);
        let wait = |left: i64, rate: i64| match u64::try_from(left) {
            Ok(1..) => 0,
            _ => left.unsigned_abs() / rate.max(1).unsigned_abs() + 1,
        };
        let ms = if is_urgent(class) {
            wait(self.urgent, rate)
        } else if self.is_full_of_urgent() {
            wait(self.all, rate).min(wait(self.reserve, rate / RESERVE_PART))
        } else {
            wait(self.all, rate)
        };
        Some(now.after_ms(ms))
    }

    /// Thousandths of bytes that may go now; none is left where it is not above zero.
    fn left(&mut self, class: Urgency, now: Tick) -> i64 {
        if self.limit.closed && !is_urgent(class) {
            return 0;
        }
        if self.rate().is_none() {
            return i64::MAX;
        }
        self.fill(now);
        match is_urgent(class) {
            true => self.urgent,
            false if self.is_full_of_urgent() => self.all.max(self.reserve),
            false => self.all,
        }
    }

    /// Urgent content takes all that there is: the reserve is for the others then.
    const fn is_full_of_urgent(&self) -> bool {
        self.urgent <= 0
    }

    fn take(&mut self, class: Urgency, bytes: u64, now: Tick) {
        self.waiting = false;
        self.fill(now);
        let less = |left: i64| left.saturating_sub(milli(bytes)).max(-DEBT_MAX * MILLI);
        if is_urgent(class) {
            self.urgent = less(self.urgent);
        } else if self.all <= 0 && self.is_full_of_urgent() {
            self.reserve = less(self.reserve);
            self.urgent = less(self.urgent);
        }
        self.all = less(self.all);
    }

    /// What came out of the reserve is not put back there: it counts among the twentieth.
    fn give_back(&mut self, class: Urgency, bytes: u64, now: Tick) {
        self.all = self.all.saturating_add(milli(bytes));
        if is_urgent(class) {
            self.urgent = self.urgent.saturating_add(milli(bytes));
        }
        // Takes off what is more than a full bucket.
        self.fill(now);
    }
}

/// All limits of a host, and what is left of them.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    up: Bucket,
    down: Bucket,
    wan_up: Bucket,
    wan_down: Bucket,
    /// When something that waits here may be sent.
    pub(super) wake: Option<Tick>,
    /// A push to another site went last, so that a neighbour comes first now: where both wait for
    /// the same bytes, they take turns.
    pub(super) pushed_last: bool,
}

impl Bandwidth {
    /// Other limits from now on. True if what may come has changed.
    pub(super) fn set(&mut self, limits: &Limits, now: Tick) -> bool {
        let down = (self.down.limit, self.wan_down.limit) != (limits.down, limits.wan_down);
        for way in Way::ALL {
            self.bucket(way).set(limits.of(way), now);
        }
        down
    }

    const fn bucket(&mut self, way: Way) -> &mut Bucket {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
            Way::WanUp => &mut self.wan_up,
            Way::WanDown => &mut self.wan_down,
        }
    }

    fn buckets(&mut self, lane: Lane) -> impl Iterator<Item = &mut Bucket> {
        let (host, wan) = match lane.dir {
            Dir::Up => (&mut self.up, &mut self.wan_up),
            Dir::Down => (&mut self.down, &mut self.wan_down),
        };
        core::iter::once(host).chain(lane.far.then_some(wan))
    }

    /// Whether a piece may go now. If not, and it would be sent from here, this host wakes up when
    /// it may.
    pub(super) fn admits(&mut self, lane: Lane, class: Urgency, now: Tick) -> bool {
        let mut at = Some(now);
        for bucket in self.buckets(lane) {
            at = bucket.ready(class, now).and_then(|t| at.map(|a| a.max(t)));
        }
        if let (Dir::Up, Some(at)) = (lane.dir, at.filter(|t| *t > now)) {
            self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
        }
        at == Some(now)
    }

    /// Whether this class is closed on one of these ways until the limits change. Whoever asks
    /// waits if so.
    pub(super) fn is_closed(&mut self, lane: Lane, class: Urgency, now: Tick) -> bool {
        let closed = !is_urgent(class) && self.buckets(lane).any(|b| b.limit.closed);
        closed && !self.admits(lane, class, now)
    }

    /// Bytes that may go before the next one has to wait; `None`: there is no limit.
    pub(super) fn left(&mut self, lane: Lane, class: Urgency, now: Tick) -> Option<u64> {
        let least = self.buckets(lane).map(|b| b.left(class, now)).min().unwrap_or(i64::MAX);
        (least < i64::MAX).then(|| u64::try_from(least / MILLI).unwrap_or(0))
    }

    /// A piece goes.
    pub(super) fn take(&mut self, lane: Lane, class: Urgency, bytes: u64, now: Tick) {
        self.buckets(lane).for_each(|b| b.take(class, bytes, now));
    }

    /// So much of what was taken did not go.
    pub(super) fn give_back(&mut self, lane: Lane, class: Urgency, bytes: u64, now: Tick) {
        self.buckets(lane).for_each(|b| b.give_back(class, bytes, now));
    }

    /// `taken` bytes were taken, and it will be `bytes`.
    pub(super) fn correct(
        &mut self,
        lane: Lane,
        class: Urgency,
        (taken, bytes): (u64, u64),
        now: Tick,
    ) {
        if bytes > taken {
            self.take(lane, class, bytes - taken, now);
        } else {
            self.give_back(lane, class, taken - bytes, now);
        }
    }

    /// The limit of a way, and how often something waited for it since the start.
    pub(super) const fn state(&self, way: Way) -> (Limit, u64) {
        let bucket = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
            Way::WanUp => &self.wan_up,
            Way::WanDown => &self.wan_down,
        };
        (bucket.limit, bucket.waits)
    }
}
