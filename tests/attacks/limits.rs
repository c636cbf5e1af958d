//! Too much of what is valid: a publisher that announces without end, and a peer that sends frames
//! without end. Each is slowed down, nothing is lost, and others do not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, Host};
use stork_tests::forge::add_publisher;
use stork_tests::hostile::{Peer, Talk, has};
use stork_tests::wait::wait_until;
use stork_wire::frame::{Frame, LinkClass, OverlayFrame};
use stork_wire::ids::LogId;
use stork_wire::item::Item;

use crate::check::{await_counter, has_event};

/// What `limits` of a node are by default.
const PER_S: f64 = 100.0;
const BURST: f64 = 500.0;
/// Entries that may take effect at once because they came before the one that they follow: they
/// take their tokens all the same, so that the next ones wait longer.
const EARLY: f64 = 256.0;
/// Entries a second of the publisher that does not stop, and for how many seconds.
const SPAM_PER_S: u32 = 500;
const SPAM_S: u32 = 3;

/// Two hosts, the publishers acme and globex with one release each, and the feeds at those.
fn two_publishers() -> (Fleet, Feed, Feed) {
    let mut fleet = Fleet::charter_only(&["web"], None);
    let globex = add_publisher(&fleet.charter, "globex");
    fleet.found();
    fleet.enlist().start();
    for (charter, name) in [(fleet.charter.clone(), "app"), (globex.clone(), "tool")] {
        let package = fleet.package(name, "1", &[("file", name.as_bytes())]);
        let out = fleet.push_command_of(&charter, 0, &package, &["web"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let (loud, quiet) = (Feed::read(&fleet), Feed::read_of(&fleet, &globex));
    for host in &fleet.hosts {
        for package in ["app", "tool"] {
            wait_until("both releases", || host.release(package, "1").is_some());
        }
    }
    (fleet, loud, quiet)
}

fn head(host: &Host) -> u64 {
    host.counter("items_committed", "entry")
}

/// The 99th of a hundred, the median, and the last.
fn spread(mut all: Vec<Duration>) -> [Duration; 3] {
    all.sort_unstable();
    [all[all.len() / 2], all[(all.len() * 99).div_ceil(100) - 1], all[all.len() - 1]]
}

/// Pushes entries one after the other to one host, and waits for each at a neighbour of another.
fn measure(
    feed: &mut Feed,
    from: &Talk,
    to: &Talk,
    mut go_on: impl FnMut(usize) -> bool,
) -> Vec<Duration> {
    let mut all = Vec::new();
    while go_on(all.len()) {
        let item = feed.go_on();
        let begun = Instant::now();
        from.push(&item);
        to.wait("an entry of the quiet publisher", |frame| match frame {
            Frame::Overlay(OverlayFrame::Push { item: got, .. }) => {
                (got.log == item.log && got.seq == item.seq).then_some(())
            }
            _ => None,
        });
        all.push(begun.elapsed());
    }
    all
}

/// Becomes a child of a host in a log's tree, by asking for its newest item.
fn graft(talk: &Talk, log: LogId, seq: u64) {
    talk.send(Frame::Overlay(OverlayFrame::Graft { log, seq }));
    talk.wait("the newest item", |frame| match frame {
        Frame::Overlay(OverlayFrame::Items(items)) => {
            items.iter().any(|i| i.log == log).then_some(())
        }
        _ => None,
    });
}

/// Pushes items at an even pace, and says how long that took.
fn spam(items: &[Item], talk: &Talk) -> Duration {
    let begun = Instant::now();
    for (n, item) in (0..).zip(items) {
        let due = begun + Duration::from_secs(1) * n / SPAM_PER_S;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        talk.push(item);
    }
    begun.elapsed()
}

/// T062: a publisher with a good key announces 500 entries a second. Its own bucket limits it: no
/// more of it takes effect than burst and rate allow. Announcements of another publisher come all
/// the while, as fast as before; and when it is over, all that it said has come to every host.
#[test]
fn t062_a_publisher_without_end_is_limited_alone() {
    let (fleet, mut loud, mut quiet) = two_publishers();
    let [first, second] = &fleet.hosts[..] else { panic!("two hosts") };
    let [shouter, speaker, listener] =
        ["shouter", "speaker", "listener"].map(|name| Peer::enlist(&fleet, name));
    let items: Vec<Item> = (0..SPAM_PER_S * SPAM_S).map(|_| loud.go_on()).collect();
    let shouter = shouter.dial_with(first, has(items.clone()));
    let (speaker, listener) = (speaker.dial(first), listener.dial(second));
    for talk in [&shouter, &speaker, &listener] {
        assert_eq!(talk.class, LinkClass::Near);
    }
    graft(&listener, LogId::feed(quiet.publisher.id), quiet.entry.seq);
    let before = spread(measure(&mut quiet, &speaker, &listener, |n| n < 100));

    let said = head(first);
    let (shouted, over) = (items.clone(), Arc::new(AtomicBool::new(false)));
    let shouting = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let took = spam(&shouted, &shouter);
            over.store(true, Ordering::Relaxed);
            // It goes on to be there: its link is the one that brought all this.
            (took, shouter)
        }
    });
    let go_on = |n| n < 150 && !over.load(Ordering::Relaxed);
    let during = measure(&mut quiet, &speaker, &listener, go_on);
    let (took, _shouter) = shouting.join().unwrap();
    let (spoken, begun) = (during.len() as u64, Instant::now());
    let committed = head(first).saturating_sub(said + spoken);
    let seconds = (took + begun.elapsed()).as_secs_f64();
    let during = spread(during);
    eprintln!(
        "quiet {before:?}, beside spam {during:?} ({spoken}); {committed} of {} in {seconds} s",
        items.len()
    );
    assert!(first.counter("items_limited", "publisher") > 0);
    assert!(has_event(first, "items_limited", "acme announces more"));
    let allowed = BURST + PER_S * seconds + EARLY;
    assert!((committed as f64) < allowed, "{committed} took effect, {allowed} may");
    assert!(spoken >= 10, "the other publisher came to speak {spoken} times only");
    // Others use this machine as well, which adds a tenth of a second now and then; behind what was
    // shouted, it would wait for all of that.
    let limit = |n: usize, ms| (before[n] * 2).max(Duration::from_millis(ms));
    let fair = during[0] <= limit(0, 100) && during[1] <= limit(1, 1_000);
    assert!(fair, "{during:?} beside spam, {before:?} without");

    let all = said + spoken + items.len() as u64;
    let begun = Instant::now();
    for host in &fleet.hosts {
        wait_until("all of it to come", || head(host) >= all);
        let waits = || host.tell(&["status"])["gauges"]["limited_items"]["now"].clone();
        wait_until("nothing to wait any more", || waits() == 0);
        eprintln!("all of it on {} {:?} later", host.name, begun.elapsed());
    }
}

fn ping(nonce: u32) -> Frame {
    let (fingerprint, class) = ([0; 8], LinkClass::Near);
    Frame::Overlay(OverlayFrame::Ping { nonce, fingerprint, class, carries: 0 })
}

/// A peer that sends frames without end is read at a bounded rate, and loses nothing: the answer to
/// its last ping comes. Another peer's pings are answered meanwhile.
#[test]
fn t062_a_peer_without_end_is_read_slowly() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let pong = |talk: &Talk, wanted| {
        talk.wait("a pong", |frame| match frame {
            Frame::Overlay(OverlayFrame::Pong { nonce, .. }) => (*nonce == wanted).then_some(()),
            _ => None,
        });
    };
    let [loud, quiet] = ["loud", "quiet"].map(|name| Peer::enlist(&fleet, name));
    let (loud, quiet) = (loud.dial(host), quiet.dial(host));
    let begun = Instant::now();
    for _ in 0..20_000 {
        loud.send(Frame::Overlay(OverlayFrame::Prune { log: LogId([7; 32]) }));
    }
    loud.send(ping(7));
    for nonce in 0..20 {
        quiet.send(ping(nonce));
        pong(&quiet, nonce);
    }
    let soon = begun.elapsed();
    pong(&loud, 7);
    let late = begun.elapsed();
    eprintln!("20 pongs in {soon:?}, the last of 20 001 frames read in {late:?}");
    // The rate: 8 192 at once, and 4 000 in a second.
    assert!(late >= Duration::from_millis(2_900), "{late:?}");
    assert!(soon < late, "{soon:?} for a peer that is not slowed down");
    assert!(host.counter("peers_limited", "frames") > 0);
}

/// The queue of a host for the one peer with this id, in bytes; `None` where it has none.
fn queue(host: &Host, node: &str) -> Option<u64> {
    let peers = host.tell(&["peers"]);
    let mut all = peers["peers"].as_array().unwrap().iter();
    all.find(|p| p["node"] == node)?["queued_bytes"].as_u64()
}

/// A host with a feed, a neighbour that speaks, one that listens in the feed's tree, and one that
/// does not read.
fn one_does_not_read() -> (Fleet, Feed, [Peer; 3]) {
    let fleet = Fleet::new(&["web"], 1);
    fleet.push(&fleet.package("app", "1", &[("file", b"app")]), &["web"]);
    let feed = Feed::read(&fleet);
    let peers = ["speaker", "listener", "stuck"].map(|name| Peer::enlist(&fleet, name));
    (fleet, feed, peers)
}

/// T070: a neighbour whose window is shut asks and asks, and never reads an answer. What waits for
/// it is bounded, it is closed and counted when that is full, and news between other neighbours
/// come as fast as before.
#[test]
fn t070_a_neighbour_that_does_not_read_delays_nobody() {
    let (fleet, mut feed, [speaker, listener, stuck]) = one_does_not_read();
    let host = &fleet.hosts[0];
    let (speaker, listener) = (speaker.dial(host), listener.dial(host));
    graft(&listener, LogId::feed(feed.publisher.id), feed.entry.seq);
    let before = spread(measure(&mut feed, &speaker, &listener, |n| n < 100));

    let (id, stuck) = (stuck.node().to_string(), stuck.dial_stuck(host));
    assert_eq!(stuck.class, LinkClass::Near);
    for nonce in 0..60_000 {
        stuck.send(ping(nonce));
    }
    let mut most = 0;
    let during = measure(&mut feed, &speaker, &listener, |n| {
        if n % 10 == 0 {
            most = most.max(queue(host, &id).unwrap_or(0));
        }
        n < 300 && stuck.end().is_none()
    });
    let spoken = during.len();
    let during = spread(during);
    eprintln!("without {before:?}, beside it {during:?} ({spoken}), {most} bytes waited");
    let said = stuck.await_end();
    assert!(said.contains("you do not read"), "{said}");
    assert!(most > 0 && most <= 256 * 1024, "{most}");
    await_counter(host, "peers_at_fault", "stuck", 1);
    assert!(has_event(host, "peer_at_fault", "it does not read"));
    let limit = |n: usize, ms| (before[n] * 2).max(Duration::from_millis(ms));
    assert!(during[0] <= limit(0, 25) && during[1] <= limit(1, 250));
    wait_until("its link to be gone", || host.tell(&["status"])["links"] == 2);
    measure(&mut feed, &speaker, &listener, |n| n < 3);
}

/// T070: where too little is to be said to a neighbour that does not read to fill its queue, it is
/// closed all the same, after ten seconds in which nothing left the queue.
#[test]
fn t070_a_quiet_neighbour_that_does_not_read_is_closed() {
    let (fleet, _, [_, _, stuck]) = one_does_not_read();
    let host = &fleet.hosts[0];
    let (id, stuck) = (stuck.node().to_string(), stuck.dial_stuck(host));
    for nonce in 0..5_000 {
        stuck.send(ping(nonce));
    }
    wait_until("something to wait for it", || queue(host, &id).is_some_and(|bytes| bytes > 0));
    // It goes on to be heard of, so that it is not taken for dead.
    wait_until("it to be closed", || {
        stuck.send(ping(7));
        stuck.end().is_some()
    });
    assert!(stuck.await_end().contains("you do not read"));
    await_counter(host, "peers_at_fault", "stuck", 1);
}
