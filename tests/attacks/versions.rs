//! A peer with a later version: what it says that is not known here is left out, and the rest
//! counts.

use stork_tests::feed::Feed;
use stork_tests::fleet::Fleet;
use stork_tests::hostile::{Deed, Manners, Peer};
use stork_wire::codec::List;
use stork_wire::frame::{Frame, Have, OverlayFrame};
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};

use crate::check::await_counter;

/// An item that a later version might send: another kind, in a log that is not known here.
fn later(like: &Item, log: u8) -> Item {
    let (kind, log) = (ItemKind::of(10), LogId([log; 32]));
    Item { kind, log, seq: 1, envelope: like.envelope.clone() }
}

/// Answers only when all of these were asked for, and then with one frame that holds them all.
fn all_at_once(items: Vec<Item>) -> Manners {
    let mut asked = Vec::new();
    Box::new(move |frame| {
        if let Frame::Overlay(OverlayFrame::Graft { log, seq }) = frame {
            asked.push((*log, *seq));
        }
        if !items.iter().all(|i| asked.contains(&(i.log, i.seq))) {
            return Vec::new();
        }
        asked.clear();
        vec![Deed::Send(Frame::Overlay(OverlayFrame::Items(List::truncated(items.clone()))))]
    })
}

/// T119: while a fleet is updated host by host, a neighbour with a later version pushes an item of
/// a kind that this host does not know, and sends one beside an entry in one frame. The items are
/// counted and not passed on, nobody is blamed, the link stays, and the entries take effect.
#[test]
fn t119_items_of_a_later_version_are_left_out() {
    let fleet = Fleet::new(&["web"], 2);
    fleet.push(&fleet.package("app", "1", &[("file", b"app")]), &["web"]);
    let mut feed = Feed::read(&fleet);
    let [other, host] = &fleet.hosts[..] else { panic!("two hosts") };
    await_counter(host, "items_committed", "entry", 1);
    let (first, second) = (feed.go_on(), feed.go_on());
    let (pushed, fetched) = (later(&first, 66), later(&first, 67));
    let newer = Peer::enlist(&fleet, "newer");
    let talk = newer.dial_with(host, all_at_once(vec![fetched.clone(), second.clone()]));

    for _ in 0..10 {
        talk.push(&pushed);
    }
    talk.push(&first);
    await_counter(host, "items_committed", "entry", 2);
    await_counter(host, "items_ignored", "later_kind", 1);
    assert_eq!(host.counter("items_ignored", "later_kind"), 1, "judged once from one host");
    let have = |i: &Item| Have::new(i.log, i.seq);
    let entries = [have(&fetched), have(&second)];
    talk.send(Frame::Overlay(OverlayFrame::IHave(List::truncated(entries))));
    await_counter(host, "items_ignored", "later_kind", 2);
    await_counter(host, "items_committed", "entry", 3);
    await_counter(other, "items_committed", "entry", 3);
    assert_eq!(other.counter("items_ignored", "later_kind"), 0, "it was passed on");

    assert_eq!(talk.end(), None);
    let status = host.tell(&["status"]);
    assert_eq!(status["links"], 2, "the other host, and the peer");
    let blamed = |c: &&serde_json::Value| c["name"] == "peers_at_fault";
    assert_eq!(status["counters"].as_array().unwrap().iter().find(blamed), None);
    let events = host.tell(&["events"]);
    let refused = |e: &&serde_json::Value| e["kind"] == "item_refused";
    assert_eq!(events["events"].as_array().unwrap().iter().find(refused), None);
}
