//! What we know of one neighbour in one swarm.

use std::collections::BTreeMap;

use stork_wire::limits::GRANT_TTL_MS_MAX;
use stork_wire::tick::Tick;

use super::pieces::PieceSet;

/// Shortest life of a grant (protocol.md §3e).
const GRANT_TTL_MS_MIN: u64 = 50;
/// How long after its end a grant may still be used once. An event loop that is late by more
/// than the round trip would otherwise lose every grant; one use more cannot flood anybody.
const GRANT_GRACE_MS: u64 = 5_000;
/// Longest silence after unused grants.
const QUIET_MS_MAX: u64 = 1_000;
/// Unused grants in a row after which the silence doubles. A Pass is common near the end and
/// costs only a round trip.
const QUIET_DOUBLES: u32 = 4;
/// And so often at the most: who passes has no room at the moment, and may lack its last piece in a
/// few times the time that a piece takes.
const PASS_DOUBLES_MAX: u32 = 2;
/// Who has passed for long is left alone for this part of that time.
const PASSING_PART: u64 = 16;
/// Unused grants in a row after which even a new piece does not end the silence.
const ROUSED_MAX: u32 = 24;

/// A grant that is out.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) at: Tick,
    pub(super) ends: Tick,
    pub(super) bytes: u64,
    /// The piece that an origin offers with it.
    pub(super) offer: Option<u32>,
}

/// A piece that the shell is sending.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    pub(super) since: Tick,
    pub(super) bytes: u64,
    /// Whether we asked the shell to stop.
    pub(super) stopped: bool,
}

/// Whether both sides have said Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// We have; until then the other has to.
    Opening(Tick),
    /// Both have.
    Open,
}

/// One neighbour in one swarm.
#[derive(Debug, Clone)]
pub(super) struct Neighbour {
    pub(super) link: Link,
    /// Whether we chose it, rather than it us.
    pub(super) picked: bool,
    /// Whether it injects each piece once, so that its map says what it offers to us.
    pub(super) origin: bool,
    /// What it says it has.
    pub(super) have: PieceSet,
    /// When it said that it has something new; before that, when we met.
    pub(super) moved: Tick,
    /// Pieces that it lacks and we have.
    pub(super) useful: u32,
    /// Pieces that it has and we lack.
    pub(super) wanted: u32,
    /// Its map does not count until then.
    pub(super) muted: Option<Tick>,
    /// Pieces that the shell sent it; with `have`, the measure of its progress.
    pub(super) sent: u32,
    /// Pieces that are sent or being sent, and not in `have` yet.
    pub(super) unconfirmed: BTreeMap<u32, Tick>,
    pub(super) grant: Option<Grant>,
    pub(super) sending: BTreeMap<u32, Sending>,
    /// A grant that ended unused may still be used until then.
    pub(super) grace: Option<(Tick, Tick)>,
    /// Number of the last grant, for the order by age.
    pub(super) last_grant: u64,
    /// Breaks ties, differently at each host.
    pub(super) salt: u64,
    /// No grant before that.
    pub(super) quiet: Tick,
    unused: u32,
    /// Since when it has only passed.
    passing: Option<Tick>,
    srtt_ms: u64,
    /// The best time from our Request to the arrival, in 64ths of a millisecond; 0 if unknown.
    best_time: u64,
    /// Requests without a grant since the last blame.
    pub(super) ungranted: u32,
}

impl Neighbour {
    pub(super) fn new(link: Link, picked: bool, origin: bool, len: u32, salt: u64) -> Self {
        Self {
            link,
            picked,
            origin,
            have: PieceSet::empty(len),
            moved: Tick(0),
            useful: 0,
            wanted: 0,
            muted: None,
            sent: 0,
            unconfirmed: BTreeMap::new(),
            grant: None,
            sending: BTreeMap::new(),
            grace: None,
            last_grant: 0,
            salt,
            quiet: Tick(0),
            unused: 0,
            passing: None,
            srtt_ms: 0,
            best_time: 0,
            ungranted: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.link == Link::Open
    }

    /// How far it is, in 2^-20 of the content: the larger of what it claims and what it got from
    /// us, so that who claims too little gains nothing (attack on the order of service).
    pub(super) fn progress(&self) -> u64 {
        let sent = self.sent.saturating_add(u32::try_from(self.sending.len()).unwrap_or(0));
        let far = u64::from(self.have.count().max(sent).min(self.have.len()));
        (far << 20) / u64::from(self.have.len().max(1))
    }

    /// A piece took so long from our Request to its arrival. The best time fades by a 64th each.
    pub(super) fn delivered(&mut self, ms: u64) {
        let time = ms.max(1) * 64;
        let known = if self.best_time == 0 { time } else { self.best_time + self.best_time / 64 };
        self.best_time = known.min(time);
    }

    /// Bytes per millisecond that it can send us in pieces of this length, if known.
    pub(super) fn rate(&self, piece_len: u64) -> Option<u64> {
        (self.best_time > 0).then(|| piece_len * 64 / self.best_time)
    }

    pub(super) fn ttl_ms(&self) -> u64 {
        (3 * self.srtt_ms).clamp(GRANT_TTL_MS_MIN, u64::from(GRANT_TTL_MS_MAX))
    }

    /// Ends the grant by its use; true if there was one, or one that ended a moment ago.
    pub(super) fn use_grant(&mut self, now: Tick) -> Option<Option<u32>> {
        let (at, offer) = match (self.grant.take(), self.grace.take()) {
            (Some(g), grace) => {
                self.grace = grace;
                (g.at, g.offer)
            }
            (None, Some((at, until))) if now < until => (at, None),
            (None, _) => return None,
        };
        self.answered(at, now);
        (self.unused, self.passing) = (0, None);
        Some(offer)
    }

    /// Ends the grant because it was passed; gives back the piece that was offered.
    /// `pace_ms` is about when something will have changed.
    pub(super) fn pass_grant(&mut self, now: Tick, pace_ms: u64) -> Option<Grant> {
        let Some(g) = self.grant.take() else {
            self.grace = None;
            return None;
        };
        self.answered(g.at, now);
        // Nobody is left alone for less time than it held the grant.
        let first = *self.passing.get_or_insert(now);
        let least = now.since(g.at).max(now.since(first) / PASSING_PART);
        self.hush(now, pace_ms, least);
        Some(g)
    }

    /// Ends the grant if its time has come.
    pub(super) fn expire_grant(&mut self, now: Tick) -> Option<Grant> {
        let g = self.grant.take_if(|g| g.ends <= now)?;
        self.grace = Some((g.at, now.after_ms(GRANT_GRACE_MS)));
        // An answer that did not come is worth a longer silence than a Pass.
        self.unused = self.unused.max(2 * QUIET_DOUBLES);
        self.hush(now, GRANT_TTL_MS_MIN, GRANT_TTL_MS_MIN << (self.unused / QUIET_DOUBLES).min(8));
        Some(g)
    }

    fn hush(&mut self, now: Tick, pace_ms: u64, least_ms: u64) {
        let ms = pace_ms.max(1) << (self.unused / QUIET_DOUBLES).min(PASS_DOUBLES_MAX);
        self.unused = self.unused.saturating_add(1);
        self.quiet = now.after_ms(ms.max(least_ms).min(QUIET_MS_MAX));
    }

    /// Something changed that makes a grant worth while again.
    pub(super) fn rouse(&mut self) {
        if self.unused < ROUSED_MAX {
            self.quiet = Tick(0);
        }
    }

    fn answered(&mut self, at: Tick, now: Tick) {
        let ms = now.since(at);
        self.srtt_ms = if self.srtt_ms == 0 { ms } else { (7 * self.srtt_ms + ms) / 8 };
    }
}
