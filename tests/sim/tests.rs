//! Short forms of the simulations, small enough for every run of the tests.

use clap::Parser;
use stork_node::overlay::Config;
use stork_wire::charter::{BODY_VERSION, HostCert, PeerRecord};
use stork_wire::codec::{List, encode};
use stork_wire::frame::{Frame, Have, LinkClass, OverlayFrame, PeerHint, ShortLog, SketchCell};
use stork_wire::ids::{FleetId, LogId, NodeId};
use stork_wire::item::Head;
use stork_wire::sign::{Envelope, SecretKey};

use super::feeds::{Feeds, UNIX_START};
use super::frame_size::{HINT_BYTES, frame_bytes};
use super::news::{self, News};
use super::{revoke, rotate, soak, sync_cost};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    news: News,
}

/// Runs `news` with these arguments; nothing may be violated and everything delivered.
fn run(arguments: &str) -> serde_json::Value {
    let words = std::iter::once("news").chain(arguments.split_whitespace());
    let (value, violations) = news::run(&Line::parse_from(words).news).unwrap();
    assert_eq!(violations, 0, "{value:#}");
    assert_eq!(value["delivered"], 1.0, "{value:#}");
    assert_eq!(value["largest_part"]["end"], 1.0, "{value:#}");
    value
}

/// A calm fleet: every message reaches every node fast, and once.
#[test]
fn calm_news() {
    let v = run("--nodes 200 --groups 2 --messages 12 --settle 20");
    assert!(v["redundancy"]["rest"].as_f64().unwrap() <= 0.02, "{v:#}");
    assert!(v["delivery_ms"]["max_steady"].as_f64().unwrap() <= 300.0, "{v:#}");
    assert!(v["last_hop"].as_u64().unwrap() <= 10, "{v:#}");
}

/// Ten sites: items come into each by one of its relays, and fast.
#[test]
fn calm_sites() {
    let v = run("--nodes 400 --sites 8 --messages 12 --settle 20");
    let wan = |which: &str| v["wan_copies"][which].as_f64().unwrap();
    assert!(wan("first") <= 9.0 && wan("rest") <= 1.2, "{v:#}");
    assert!(v["redundancy"]["rest"].as_f64().unwrap() <= 0.02, "{v:#}");
    assert!(v["delivery_ms"]["max_steady"].as_f64().unwrap() <= 300.0, "{v:#}");
    assert!(v["last_hop"].as_u64().unwrap() <= 30, "{v:#}");
}

/// News travel while pings show differences: sync neither takes their place nor holds them up.
#[test]
fn busy_news() {
    let v = run("--nodes 150 --messages 100 --settle 20");
    assert_eq!(v["delivery_ms"]["late"], 0, "{v:#}");
    assert!(v["comparisons"].as_u64().unwrap() <= 150, "{v:#}");
}

/// 30 % die unseen in the moment of a message: all survivors get it, most before the deaths are
/// noticed, and the overlay is one again.
#[test]
fn thirty_percent_die() {
    let v = run("--nodes 200 --messages 8 --gap-ms 1000 --kill 0.3 --settle 20");
    assert!(v["delivery_ms"]["at_fault"].as_f64().unwrap() <= 16_000.0, "{v:#}");
    assert_eq!(v["largest_part"]["repaired"], 1.0, "{v:#}");
}

/// Two halves that were cut find each other again, and exchange what they missed.
#[test]
fn a_partition_heals() {
    let v = run("--nodes 100 --messages 10 --gap-ms 1000 --partition 0.5:40 --settle 20");
    assert!(v["merged_s"].as_f64().unwrap() <= 120.0, "{v:#}");
    assert!(v["caught_up_s"].as_f64().unwrap() <= 150.0, "{v:#}");
}

/// Half of the fleet crashes and starts again at once, amid messages: all have all, soon.
#[test]
fn half_start_again() {
    let v = run("--nodes 100 --groups 2 --messages 12 --settle 20 --restart 0.5 --burst 10");
    assert_eq!(v["returned"]["starts"], 50, "{v:#}");
    assert!(v["fault"]["all_ms"].as_u64().unwrap() <= 16_000, "{v:#}");
}

/// Half of the fleet dies: trees, announcements and grafts alone bring most messages of that moment
/// to the survivors. (What they do not bring, sync does: `thirty_percent_die`.)
#[test]
fn deaths_without_sync() {
    let arguments = "--nodes 100 --groups 2 --messages 8 --settle 20 --kill 0.5 --burst 10";
    let words = ["news", "--no-sync"].into_iter().chain(arguments.split_whitespace());
    let (v, violations) = news::run(&Line::parse_from(words).news).unwrap();
    assert!(violations == 0 && v["fault"]["delivered"].as_f64().unwrap() >= 0.9, "{v:#}");
    assert!(v["frames"]["news"].as_array().unwrap().iter().all(|f| f[0] != "fetch"), "{v:#}");
}

/// A fifth of the hosts are insiders, of every kind: nobody is isolated (I21), nothing is lost.
#[test]
fn insiders_isolate_nobody() {
    let v = run("--nodes 100 --groups 3 --messages 20 --gap-ms 1000 --settle 20 \
                 --hostile 0.2:mixed");
    assert_eq!(v["isolation"]["isolated"], 0, "{v:#}");
}

/// Two of five hosts take every link that they can get and pass nothing on, or name only each
/// other: nobody is apart from the honest for long, and they hold a fair share of links at most.
#[test]
fn nobody_is_surrounded() {
    for kind in ["eclipse", "poison"] {
        let v = run(&format!(
            "--nodes 150 --sites 3 --groups 3 --messages 20 --gap-ms 1000 --settle 20 \
             --hostile 0.4:{kind}"
        ));
        assert_eq!(v["isolation"]["isolated"], 0, "{v:#}");
        let share = |key: &str| v["isolation"][key].as_f64().unwrap();
        assert!(share("links_to_hostile") <= 0.5 * share("links"), "{kind}: {v:#}");
    }
}

/// Nine of ten die unseen: those that are left find each other within seconds, and lose nothing.
#[test]
fn one_of_ten_survives() {
    let v = run("--nodes 300 --messages 8 --gap-ms 1000 --kill 0.9 --settle 20 --burst 20");
    assert!(v["fault"]["all_ms"].as_u64().unwrap() <= 30_000, "{v:#}");
    assert_eq!(v["largest_part"]["cycle"], 1.0, "{v:#}");
}

/// T114: a tenth of the hosts hears nothing of the others for twenty minutes, in which these go on
/// as ever, and nothing turns in circles: nobody does more than in a calm fleet. Then all have all.
#[test]
fn t114_a_minority_is_cut_off() {
    let v = run("--nodes 100 --messages 12 --gap-ms 2000 --settle 20 --at 5 \
                 --partition 0.1:1200:oneway --drain 60");
    assert!(v["delivery_ms"]["p50"].as_f64().unwrap() <= 300.0, "{v:#}");
    assert!(v["fault"]["within_2500_ms"].as_f64().unwrap() >= 0.88, "{v:#}");
    let per_second = v["events"].as_f64().unwrap() / v["simulated_s"].as_f64().unwrap();
    assert!(per_second <= 100.0 * 10.0, "{v:#}");
}

/// T115: half of the hosts crash at once, amid churn, loss and frames out of order: all invariants
/// hold, and all have all. (Links that are cut and healed in turns: `stork-sim soak`.)
#[test]
fn t115_half_crash_amid_churn() {
    let v = run("--nodes 120 --groups 3 --messages 30 --gap-ms 1000 --settle 20 --burst 20 \
                 --churn 0.1 --restart 0.5 --loss 2 --jitter-ms 30");
    assert!(v["fault"]["all_ms"].as_u64().unwrap() <= 60_000, "{v:#}");
    assert!(v["returned"]["starts"].as_u64().unwrap() >= 60, "{v:#}");
}

/// The same seed gives the same run to the last event, another seed another one (I19).
#[test]
fn a_run_is_its_seed() {
    let faults = "--nodes 60 --sites 3 --messages 6 --kill 0.1 --loss 2 --jitter-ms 5 --settle 20";
    let trace = |seed: u64| run(&format!("{faults} --seed {seed}"))["trace"].clone();
    let first = trace(7);
    assert_eq!(first, trace(7));
    assert_ne!(first, trace(8));
}

/// A few histories with all faults.
#[test]
fn soak_of_a_few_seeds() {
    for seed in 1..3 {
        let outcome = soak::one_of(seed, (50, 60), 60).unwrap();
        assert_eq!(outcome.violations, 0, "{} {:?}", outcome.line, outcome.kept);
    }
}

/// Two nodes find their differences; equal ones say nothing beyond their pings.
#[test]
fn sync_of_two() {
    let cost = |differences| {
        let sync = sync_cost::Sync { feeds: 300, differences, seed: 1, json: true };
        sync_cost::run(&sync).unwrap()
    };
    assert_eq!(cost(0)["bytes"], 0);
    assert_eq!(cost(10)["agree"], true);
}

fn hint() -> PeerHint {
    let key = SecretKey::from_seed(&[7; 32]);
    let (node, fleet) = (NodeId(key.public().0), FleetId([1; 32]));
    let site: stork_wire::text::Label = "site-12".parse().unwrap();
    let (issued, expires) = (UNIX_START, UNIX_START + 1_000);
    let name = "host-01234".parse().unwrap();
    let (site_of, version, scope) = (site.clone(), BODY_VERSION, None);
    let cert = HostCert { version, node, name, site: site_of, issued, expires, scope };
    let record = PeerRecord {
        version: BODY_VERSION,
        node,
        incarnation: 1_700_000_000_000,
        addrs: List::truncated(["10.1.2.3:4433".parse().unwrap()]),
        site,
        groups: List::truncated([stork_wire::ids::GroupId([1; 32])]),
        cell: None,
        admits: false,
        issued,
        expires,
    };
    PeerHint {
        cert: Envelope::sign(&cert, fleet, &key).unwrap(),
        record: Envelope::sign(&record, fleet, &key).unwrap(),
    }
}

/// Sizes are those of the real encoding.
#[test]
fn sizes_are_the_encoded_ones() {
    let mut feeds = Feeds::new(&[0], 1).unwrap();
    feeds.publish(0, UNIX_START).unwrap();
    let item = (*feeds.item(0, 1).unwrap().item).clone();
    let log = LogId([3; 32]);
    let head = Head::of(log, 300, item.envelope.hash());
    let range = stork_wire::frame::ItemRange { log, from: 3, to: 70_000 };
    let class = LinkClass::Near;
    let (short, cell) = (ShortLog::of(&log), SketchCell([4; 24]));
    let cells = List::truncated([cell; 130]);
    let frames = [
        OverlayFrame::Ping { nonce: 77_777, fingerprint: [1; 8], class, carries: 1 << 40 },
        OverlayFrame::Push { hop: 3, age_ms: 200, entry: 1 << 30, item: Box::new(item.clone()) },
        OverlayFrame::IHave(List::truncated([
            Have::new(log, 1),
            Have { log, seq: 130, more: 200, waited_ms: 300 },
        ])),
        OverlayFrame::Graft { log, seq: 129 },
        OverlayFrame::Prune { log },
        OverlayFrame::Unlink,
        OverlayFrame::Heads { heads: List::truncated([head; 200]), last: true, answer: false },
        OverlayFrame::Fetch(List::truncated([range])),
        OverlayFrame::Items(List::truncated([item])),
        OverlayFrame::SketchAsk { start: 300, count: 2 },
        OverlayFrame::Sketch { fingerprint: [1; 8], logs: 10_000, start: 300, cells },
        OverlayFrame::HeadsAsk(List::truncated([short; 130])),
        OverlayFrame::Ahead(List::truncated([(short, 1), (short, 130)])),
    ];
    for frame in frames {
        let real = Frame::Overlay(frame.clone()).to_bytes().len() as u64 + 4;
        assert_eq!(frame_bytes(&frame), real, "{}", frame.name());
    }
    // Of a host with one address and one group.
    assert_eq!(encode(&hint()).len() as u64, HINT_BYTES);
    assert_eq!(Config::default().near, 5);
}

#[derive(Debug, Parser)]
struct RevokeLine {
    #[command(flatten)]
    revoke: revoke::Revoke,
}

/// Recalls that race announcements of the same moment reach every node, and are not slower.
#[test]
fn t117_revocations_are_as_fast_as_announcements() {
    let words = "revoke --nodes 80 --seeds 6 --beside 10".split_whitespace();
    let (v, bad) = revoke::run(&RevokeLine::parse_from(words).revoke).unwrap();
    assert_eq!(bad, 0, "{v:#}");
    assert_eq!(v["p99_holds"], true, "{v:#}");
    assert!(v["pairs"].as_u64().unwrap() > 1_000, "{v:#}");
}

#[derive(Debug, Parser)]
struct RotateLine {
    #[command(flatten)]
    rotate: rotate::Rotate,
}

/// Runs `rotate`: all hosts must agree by themselves, and hold nothing void.
fn rotated(arguments: &str) {
    let words = std::iter::once("rotate").chain(arguments.split_whitespace());
    let (value, wrong) = rotate::run(&RotateLine::parse_from(words).rotate).unwrap();
    assert_eq!(wrong, 0, "{value:#}");
    assert_eq!(value["agree"], value["hosts"], "{value:#}");
}

/// T026: junk by a stolen release key is on all hosts, which judge for themselves; the publisher's
/// next document ends it everywhere, also on one that slept.
#[test]
fn t026_junk_of_a_stolen_key_ends_with_its_epoch() {
    rotated("--nodes 10 --entries 600");
}

/// T118: a key is rotated on one side of a cut, and the other side goes on with the old one: both
/// end alike when it heals.
#[test]
fn t118_a_rotation_during_a_cut() {
    rotated("--nodes 10 --entries 600 --partition");
}
