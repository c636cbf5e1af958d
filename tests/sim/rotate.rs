//! `stork-sim rotate`: keys that are taken away in fleets whose hosts judge for themselves.
//! Acceptance rows T026 and T118.
//!
//! In the first story a thief signs junk with a stolen release key until its publisher begins a new
//! epoch after the last good entry. In the second the fleet is cut in two: one side hears of the
//! new epoch and goes on in it, the other goes on with the old key until the cut heals. In both,
//! hosts sleep through it and come back. Nobody does anything on any host; in the end all must
//! have the same heads, and no entry that the epoch made void.

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde_json::{Value, json};
use stork_node::overlay::Config;
use stork_wire::charter::{BODY_VERSION, PublisherDoc, ReleaseKey, Survivor};
use stork_wire::codec::List;
use stork_wire::feed::{Entry, Kind, Recall, Release, view_root};
use stork_wire::ids::{ItemHash, LogId, Position, ReleaseHash};
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::SecretKey;

use super::feeds::{UNIX_START, key, release, signed};
use super::news::boot_all;
use super::world::{Options, SECOND, World};

/// Good entries before the theft or the cut.
const GOOD: u64 = 3;
/// Of so many junk entries one is a release; the others recall what is not there.
const RELEASE_EVERY: u64 = 20;
/// Junk entries in one second.
const RATE: u64 = 250;
/// The longest that is waited until all hosts agree.
const DRAIN_S: u64 = 600;

/// What to simulate.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rotate {
    /// Hosts of the fleet.
    #[arg(long, default_value_t = 24)]
    pub(crate) nodes: u32,
    /// Junk entries by the stolen key, or by the old key beyond the cut.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) entries: u64,
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Cut the fleet in two, and rotate on one side.
    #[arg(long)]
    pub(crate) partition: bool,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// One key's hand in the feed.
#[derive(Debug, Clone)]
struct Pen {
    epoch: u32,
    document: u64,
    seq: u64,
    last: Option<ItemHash>,
    live: Vec<ReleaseHash>,
}

impl Pen {
    fn next(&mut self, world: &World, key: &SecretKey, kind: Kind) -> Result<Item> {
        let feed = world.feeds.all.first().context("no feed")?;
        self.seq += 1;
        let unix = UNIX_START + world.now / SECOND;
        let mut entry = Entry {
            version: BODY_VERSION,
            publisher: feed.publisher,
            epoch: self.epoch,
            seq: self.seq,
            prev: self.last,
            document: self.document,
            signed_at: unix,
            expires: unix + 1_000_000,
            view_root: view_root([]),
            kind,
            via: None,
        };
        self.live.extend(entry.release_hash());
        entry.view_root = view_root(self.live.iter().copied());
        let log = LogId::feed_epoch(feed.publisher, self.epoch);
        let item = signed(ItemKind::Entry, log, self.seq, (&entry, world.feeds.fleet, key))?;
        self.last = Some(item.envelope.hash());
        Ok(item)
    }

    fn release(&mut self, world: &World, key: &SecretKey, n: u64) -> Result<Item> {
        let group = world.feeds.all.first().context("no feed")?.group;
        let release: Release = release(group, n)?;
        self.next(world, key, Kind::Release(Box::new(release)))
    }

    /// Junk; what it releases has numbers that no good entry has.
    fn junk(&mut self, world: &World, key: &SecretKey, n: u64) -> Result<Item> {
        if n.is_multiple_of(RELEASE_EVERY) {
            return self.release(world, key, 1_000_000 + n);
        }
        let recall = Recall {
            package: "hello".parse()?,
            releases: List::truncated([2_000_000 + n]),
            reason: "junk".parse()?,
        };
        self.next(world, key, Kind::Recall(recall))
    }
}

/// The publisher's next document: a new epoch after this entry, with another release key.
fn new_epoch(
    world: &World,
    seed: u64,
    after: (u64, ItemHash),
    key_new: &SecretKey,
) -> Result<Item> {
    let publisher = world.feeds.all.first().context("no feed")?.publisher;
    let log = LogId::publisher(publisher);
    let old = world.feeds.documents.iter().find(|i| i.log == log).context("no document")?;
    let doc: PublisherDoc = old.envelope.claimed().map_err(|e| anyhow!("{e}"))?;
    let rule = doc.release_keys.first().context("no key")?.clone();
    let doc = PublisherDoc {
        number: 2,
        prev: Some(old.envelope.hash()),
        epoch: 2,
        survivor: Some(Survivor { at: Position { epoch: 1, seq: after.0 }, hash: after.1 }),
        release_keys: List::truncated([ReleaseKey { key: key_new.public(), ..rule }]),
        ..doc
    };
    // The root of the first publisher of a simulated fleet.
    signed(ItemKind::Publisher, log, 2, (&doc, world.feeds.fleet, &key(seed, 10)))
}

/// The new epoch begins at the first host, and goes on there.
fn goes_on(world: &mut World, pen: &mut Pen, key: &SecretKey, document: Item) -> Result<()> {
    world.judge_own(0, None, document);
    for n in 1..=GOOD {
        let item = pen.release(world, key, GOOD + n)?;
        world.judge_own(0, None, item);
    }
    Ok(())
}

/// What all hosts agree on: how many do, how many show something void, and the newest place.
fn agree(world: &World, good: &[ReleaseHash]) -> (usize, usize, Option<Position>) {
    let Some(publisher) = world.feeds.all.first().map(|f| f.publisher) else {
        return (0, 0, None);
    };
    let up: Vec<u32> = world.honest().map(|(i, _)| i).collect();
    let owns: Vec<_> = up.iter().filter_map(|i| world.own(*i)).collect();
    let heads = |own: &super::own::Own| {
        let mut heads = own.trust.heads();
        heads.sort_by_key(|h| (h.log, h.seq));
        heads
    };
    let newest = owns.iter().filter_map(|o| Some(o.trust.feed(publisher)?.newest()?.0)).max();
    let first = owns
        .iter()
        .find(|o| o.trust.feed(publisher).and_then(|f| f.newest()).map(|n| n.0) == newest);
    let Some(want) = first.map(|o| heads(o)) else { return (0, 0, None) };
    let same = owns.iter().filter(|o| heads(o) == want).count();
    let bad = |o: &super::own::Own| {
        o.trust.feed(publisher).is_none_or(|f| f.live().any(|h| !good.contains(&h)))
    };
    (same, owns.iter().filter(|o| bad(o)).count(), newest)
}

/// A fleet that has linked up, whose hosts judge for themselves.
fn prepared(of: &Rotate) -> Result<World> {
    ensure!(of.nodes >= 8, "--nodes {}: at least 8", of.nodes);
    let options = Options {
        nodes: of.nodes,
        feeds: 1,
        sites: 2,
        seed: of.seed,
        commit_us: 2_000,
        jitter_us: 1_000,
        loss_ppm: 1_000,
        no_sync: false,
        config: Config::default(),
    };
    let mut world = World::new(options)?;
    let documents = world.feeds.documents.clone();
    world.judge_alone(world.feeds.fleet, &documents);
    boot_all(&mut world, 2 * SECOND);
    world.run_until(world.now + 20 * SECOND);
    Ok(world)
}

/// Runs it. The second value counts hosts that do not agree, or hold what is void, and violations.
pub(crate) fn run(of: &Rotate) -> Result<(Value, u64)> {
    let mut world = prepared(of)?;
    // The first publisher's release key, and one that it makes later.
    let (old, new) = (key(of.seed, 11), key(of.seed, 77));
    let mut pen = Pen { epoch: 1, document: 1, seq: 0, last: None, live: Vec::new() };
    for n in 1..=GOOD {
        let item = pen.release(&world, &old, n)?;
        world.judge_own(0, None, item);
        world.run_until(world.now + SECOND);
    }
    let after = (pen.seq, pen.last.context("no entry")?);
    let mut next = Pen { epoch: 2, document: 2, seq: 0, ..pen.clone() };
    let last = of.nodes - 1;
    // It sleeps through everything.
    world.kill(of.nodes / 2);
    let document = new_epoch(&world, of.seed, after, &new)?;
    if of.partition {
        world.cut(0.5, 1_000_000 * SECOND, false, (Some(0), Some(last)));
        goes_on(&mut world, &mut next, &new, document.clone())?;
    }
    for n in 1..=of.entries {
        let item = pen.junk(&world, &old, n)?;
        world.judge_own(last, None, item);
        if n.is_multiple_of(RATE) {
            world.run_until(world.now + SECOND);
        }
    }
    world.run_until(world.now + 60 * SECOND);
    let (all, both) = (world.honest().count(), [&pen.live[..], &next.live].concat());
    let (same, ..) = agree(&world, &both);
    let begun = world.now;
    if of.partition {
        ensure!(same < all, "the two sides agree before the cut heals");
        let stale = world.own(last).and_then(|o| o.trust.feed(world.feeds.all.first()?.publisher));
        let newest = stale.and_then(|f| f.newest()).map(|(at, _)| at);
        let want = Position { epoch: 1, seq: GOOD + of.entries };
        ensure!(newest == Some(want), "the other side did not go on: {newest:?}");
        world.net.end_cut(world.now);
    } else {
        ensure!(same == all, "the junk is not everywhere: on {same} of {all}");
        goes_on(&mut world, &mut next, &new, document)?;
    }
    world.start(of.nodes / 2);
    let all = world.honest().count();
    let mut found = agree(&world, &next.live);
    for _ in 0..DRAIN_S {
        if (found.0, found.1) == (all, 0) {
            break;
        }
        world.run_until(world.now + SECOND);
        found = agree(&world, &next.live);
    }
    let (same, bad, newest) = found;
    let right = newest == Some(Position { epoch: 2, seq: GOOD });
    let wrong = (all - same) as u64 + bad as u64 + u64::from(!right) + world.watch.count;
    let value = json!({
        "schema": "stork.sim.rotate/v1", "nodes": of.nodes, "entries": of.entries,
        "seed": of.seed, "partition": of.partition, "agree": same, "hosts": all,
        "hold_void": bad, "newest": newest.map(|at| at.to_string()),
        "converged_s": (world.now - begun) / SECOND, "violations": world.watch.count,
    });
    Ok((value, wrong))
}
