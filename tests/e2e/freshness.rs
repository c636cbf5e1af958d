//! Freshness on real nodes in this process: beacons keep feeds fresh, silence makes them stale, and
//! a clock that is set back changes nothing. Calendars are moved; nothing waits for hours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use stork_publisher::charter::{self, Change, Life};
use stork_publisher::keys::Passphrase;
use stork_publisher::push;
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, LabNode, wait_for};
use stork_tests::wait::PATIENCE_S;

const LIMIT: Duration = Duration::from_secs(PATIENCE_S);
const HOUR: Duration = Duration::from_secs(3_600);

/// What a node says of its one feed.
async fn feed(node: &LabNode) -> Value {
    let status = node.client().get("/v1/status").await.unwrap();
    status["freshness"][0].clone()
}

async fn await_state(node: &LabNode, state: &str) -> Value {
    wait_for(&format!("{state} on {}", node.name), LIMIT, || async {
        let feed = feed(node).await;
        (feed["state"] == state).then_some(feed)
    })
    .await
    .unwrap()
}

/// Waits for a newer beacon than one that runs out at `until`.
async fn await_newer(node: &LabNode, until: u64) -> u64 {
    wait_for(&format!("a newer beacon on {}", node.name), LIMIT, || async {
        feed(node).await["until"].as_u64().filter(|u| *u > until)
    })
    .await
    .unwrap()
}

async fn await_event(node: &LabNode, kind: &str) {
    let what = format!("{kind} on {}", node.name);
    wait_for(&what, LIMIT, || node.event_ms(kind, "acme")).await.unwrap();
}

async fn counter(node: &LabNode, name: &str, reason: &str) -> u64 {
    let status = node.client().get("/v1/status").await.unwrap();
    let all = status["counters"].as_array().unwrap().clone();
    let fits = |c: &&Value| c["name"] == name && c["reason"] == reason;
    all.iter().find(fits).map_or(0, |c| c["count"].as_u64().unwrap())
}

/// T033: three hosts are fresh as long as beacons come, each a new one in an hour. Without
/// them the feed turns stale where a beacon has run out; what a VM shows stays, and the commands
/// say so. When beacons come again, so does freshness.
#[test]
fn t033_silence_turns_stale_and_beacons_make_fresh() {
    runtime().block_on(async {
        let mut lab = Lab::with_beacons(3).await.unwrap();
        lab.settle().await.unwrap();
        let target = lab.nodes[1].add_vm("web-1").unwrap();
        let package = lab.dir.path().join("site");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(package.join("hello"), "hello").unwrap();
        lab.publish(&package, "site", "1").await.unwrap();
        let shown = target.join("hello");
        let there = || async { shown.exists().then_some(()) };
        wait_for("the view", LIMIT, there).await.unwrap();

        // An hour: another beacon, everywhere.
        for node in &lab.nodes {
            await_state(node, "fresh").await;
        }
        lab.nodes[2].stop().await.unwrap();
        let mut until = feed(&lab.nodes[1]).await["until"].as_u64().unwrap();
        for _ in 0..3 {
            lab.pass(HOUR);
            until = await_newer(&lab.nodes[1], until).await;
        }
        assert_eq!(counter(&lab.nodes[1], "feeds", "stale").await, 0);

        // One that was away gets the newest, and only that: the others are no more.
        lab.nodes[2].start().await.unwrap();
        await_newer(&lab.nodes[2], until - 1).await;
        // News of others go to the disk together, a moment after they are known.
        let written = || async {
            let all = counter(&lab.nodes[2], "items_committed", "beacon").await;
            (all > 0).then_some(all)
        };
        assert_eq!(wait_for("it is on disk", LIMIT, written).await.unwrap(), 1);

        // The only host that makes beacons is gone for longer than they speak.
        lab.nodes[0].stop().await.unwrap();
        lab.pass(23 * HOUR);
        for node in &lab.nodes[1..] {
            assert_eq!(feed(node).await["state"], "fresh", "an hour is left");
        }
        lab.pass(HOUR);
        for node in &lab.nodes[1..] {
            assert_eq!(feed(node).await["state"], "stale");
            await_event(node, "feed_stale").await;
            assert_eq!(counter(node, "feeds", "stale").await, 1);
        }
        let vms = lab.nodes[1].client().get("/v1/vms").await.unwrap();
        assert!(vms["vms"][0]["stale"][0].as_str().unwrap().contains("acme is stale"), "{vms}");
        let releases = lab.nodes[1].client().get("/v1/releases").await.unwrap();
        assert_eq!(releases["releases"][0]["freshness"], "stale");
        assert_eq!(std::fs::read_to_string(&shown).unwrap(), "hello", "it is served all the same");

        // A restart knows as much, and a host that is back makes the next one at once.
        lab.nodes[2].stop().await.unwrap();
        lab.nodes[2].start().await.unwrap();
        assert_eq!(feed(&lab.nodes[2]).await["state"], "stale");
        lab.nodes[0].start().await.unwrap();
        for node in &lab.nodes {
            await_state(node, "fresh").await;
        }
        await_event(&lab.nodes[1], "feed_fresh").await;
        assert_eq!(counter(&lab.nodes[1], "feeds", "fresh").await, 1);
        lab.stop().await.unwrap();
    });
}

/// T034: a stale feed is fresh again with the first beacon of the host that makes them, which it
/// makes at its start: nobody waits for the next hour. A VM whose file hides what is not fresh
/// follows both.
#[test]
fn t034_the_next_beacon_makes_fresh() {
    runtime().block_on(async {
        let mut lab = Lab::with_beacons(2).await.unwrap();
        lab.settle().await.unwrap();
        let package = lab.dir.path().join("site");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(package.join("hello"), "hello").unwrap();
        lab.publish(&package, "site", "1").await.unwrap();
        await_state(&lab.nodes[1], "fresh").await;
        let target = lab.nodes[1].add_vm_with("careful", "freshness = \"hide\"").unwrap();
        let shown = target.join("hello");
        let there = || async { shown.exists().then_some(()) };
        wait_for("the view", LIMIT, there).await.unwrap();
        let until = feed(&lab.nodes[1]).await["until"].as_u64().unwrap();
        lab.nodes[0].stop().await.unwrap();
        lab.pass(25 * HOUR);
        await_state(&lab.nodes[1], "stale").await;
        let gone = || async { (!shown.exists()).then_some(()) };
        wait_for("the view to hide it", LIMIT, gone).await.unwrap();
        lab.nodes[0].start().await.unwrap();
        wait_for("the view to show it again", LIMIT, there).await.unwrap();
        await_newer(&lab.nodes[1], until).await;
        assert_eq!(feed(&lab.nodes[1]).await["state"], "fresh");
        lab.stop().await.unwrap();
    });
}

/// T033: the last beacon speaks for seconds only, and its maker is gone. Each host says that the
/// feed is stale when the beacon runs out, not when it looks the next time; what was announced is
/// fetched and shown all the same.
#[test]
fn t033_stale_when_the_beacon_runs_out() {
    runtime().block_on(async {
        let mut lab = Lab::with_beacons(4).await.unwrap();
        lab.settle().await.unwrap();
        let package = lab.dir.path().join("site");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(package.join("hello"), "hello").unwrap();
        lab.publish(&package, "site", "1").await.unwrap();
        let shown = lab.nodes[1].add_vm("web-1").unwrap().join("hello");
        wait_for("the view", LIMIT, || async { shown.exists().then_some(()) }).await.unwrap();
        let day = await_state(&lab.nodes[3], "fresh").await["until"].as_u64().unwrap();

        lab.nodes[0].stop().await.unwrap();
        let beacon = lab.nodes[0].config.beacon.as_mut().unwrap();
        (beacon.interval_s, beacon.valid_s) = (1_000, 8);
        // The next beacon is due after that time, and speaks for eight seconds.
        lab.pass(Duration::from_secs(1_000));
        lab.nodes[0].start().await.unwrap();
        let mut until = 0;
        for node in &lab.nodes[1..] {
            let feed = || async { feed(node).await["until"].as_u64().filter(|u| *u < day) };
            until = wait_for("the short beacon", LIMIT, feed).await.unwrap();
        }
        lab.nodes[0].stop().await.unwrap();
        let mut late = Vec::new();
        for node in &lab.nodes[1..] {
            await_event(node, "feed_stale").await;
            let at = node.event_ms("feed_stale", "acme").await.unwrap();
            assert!(at >= until * 1_000, "{at} is before {until}");
            late.push(at - until * 1_000);
            assert_eq!(counter(node, "feeds", "stale").await, 1);
            assert_eq!(feed(node).await["state"], "stale");
        }
        late.sort_unstable();
        eprintln!("stale {late:?} ms after the beacon ran out");
        // Looking every second would be half a second late on the average.
        assert!(late[1] < 400 && late[2] < 1_000, "{late:?}");
        assert_eq!(std::fs::read_to_string(&shown).unwrap(), "hello");
        // The one that has it serves it, and another shows it.
        let other = lab.nodes[2].add_vm("web-2").unwrap().join("hello");
        wait_for("another view", LIMIT, || async { other.exists().then_some(()) }).await.unwrap();
        lab.stop().await.unwrap();
    });
}

/// T035: a host whose clock is set back at its start knows better: what has run out stays so.
#[test]
fn t035_a_clock_that_is_set_back_makes_nothing_fresh() {
    runtime().block_on(async {
        let mut lab = Lab::with_beacons(2).await.unwrap();
        lab.settle().await.unwrap();
        await_state(&lab.nodes[1], "fresh").await;
        lab.nodes[0].stop().await.unwrap();
        let node = &lab.nodes[1];
        // A leap of more than a day could be a clock that is wrong; some hours are believed.
        for _ in 0..3 {
            lab.pass(9 * HOUR);
            wait_for("the floor to rise", LIMIT, || async {
                let clock = node.client().get("/v1/status").await.ok()?["clock"].clone();
                (clock["floor"].as_u64()? + 5 >= clock["system"].as_u64()?).then_some(())
            })
            .await
            .unwrap();
        }
        assert_eq!(feed(node).await["state"], "stale");
        lab.nodes[1].stop().await.unwrap();
        lab.set_back(26 * HOUR);
        lab.nodes[1].start().await.unwrap();
        let status = lab.nodes[1].client().get("/v1/status").await.unwrap();
        let clock = &status["clock"];
        assert!(clock["now"].as_u64() > clock["system"].as_u64().map(|s| s + 25 * 3_600));
        assert_eq!(feed(&lab.nodes[1]).await["state"], "stale", "{clock}");
        lab.stop().await.unwrap();
    });
}

/// The group lets beacons speak for so long from now on; the first node is told.
async fn ask_for_beacons(lab: &Lab, within_s: u32) {
    let change = Change {
        dir: lab.charter.clone(),
        keys: Vec::new(),
        passphrase: Passphrase::None,
        out: None,
        dry_run: false,
        life: Life::days(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(), 365),
    };
    charter::beacons(&change, "web", Some(within_s)).unwrap();
    let (charter, _) = charter::open(&lab.charter).unwrap();
    let home = format!("{}@{}", lab.nodes[0].id, lab.nodes[0].addr).parse().unwrap();
    push::send_documents(&[home], &charter, None).await.unwrap();
}

/// A group lets beacons speak for fifteen minutes, of the day that they say. Their maker makes
/// three in that time, whatever its interval is. When it is gone, the feed is stale to a VM of the
/// group after these minutes, though fresh by itself, and the VM follows its file.
#[test]
fn a_group_asks_for_fresher_beacons() {
    runtime().block_on(async {
        let mut lab = Lab::with_beacons(2).await.unwrap();
        lab.settle().await.unwrap();
        let package = lab.dir.path().join("site");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(package.join("hello"), "hello").unwrap();
        lab.publish(&package, "site", "1").await.unwrap();
        let target = lab.nodes[1].add_vm_with("careful", "freshness = \"hide\"").unwrap();
        let shown = target.join("hello");
        let there = || async { shown.exists().then_some(()) };
        wait_for("the view", LIMIT, there).await.unwrap();
        let until = feed(&lab.nodes[1]).await["until"].as_u64().unwrap();
        // Less than until all feeds are looked at: the rule itself makes the beacon due.
        lab.pass(Duration::from_secs(400));
        ask_for_beacons(&lab, 900).await;
        await_newer(&lab.nodes[1], until).await;

        lab.nodes[0].stop().await.unwrap();
        lab.pass(Duration::from_secs(900));
        let told = || lab.nodes[1].event_ms("feed_stale", "acme is stale to the groups");
        wait_for("the event", LIMIT, told).await.unwrap();
        assert_eq!(feed(&lab.nodes[1]).await["state"], "fresh", "by itself");
        let gone = || async { (!shown.exists()).then_some(()) };
        wait_for("the view to hide it", LIMIT, gone).await.unwrap();
        let why = lab.nodes[1].client().get("/v1/why/careful/site").await.unwrap();
        let said = why["stale"][0].as_str().unwrap();
        assert!(said.contains("acme is stale to the groups that ask for more: web"), "{said}");
        let document = &why["considered"][0]["because"]["document"];
        assert_eq!((&document["kind"], &document["number"]), (&"group".into(), &"2".into()));
        lab.nodes[0].start().await.unwrap();
        wait_for("the view to show it again", LIMIT, there).await.unwrap();
        lab.stop().await.unwrap();
    });
}

/// A month before documents run out hosts say which, once a day, and whose matter it is; then that
/// they have run out.
#[test]
fn documents_that_run_out_are_told() {
    runtime().block_on(async {
        let mut lab = Lab::new(1).await.unwrap();
        let due = || async {
            let status = lab.nodes[0].client().get("/v1/status").await.unwrap();
            let all = status["documents_due"].as_array().unwrap().clone();
            all.iter().map(|d| d["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        // The lab's documents are good for thirty days.
        let told = due().await;
        let fits = |t: &String, what: &str| t.contains(what) && t.contains("must renew it");
        assert!(told.len() == 3 && told.iter().all(|t| fits(t, " runs out in ")), "{told:?}");
        let event = || lab.nodes[0].event_ms("document_late", "the root document of");
        wait_for("the event", LIMIT, event).await.unwrap();
        lab.pass(24 * 31 * HOUR);
        let told = due().await;
        assert!(told.len() == 3 && told.iter().all(|t| fits(t, " ran out ")), "{told:?}");
        lab.stop().await.unwrap();
    });
}

/// Without beacon keys the status says on what freshness rests.
#[test]
fn without_beacon_keys_expiry_must_do() {
    runtime().block_on(async {
        let mut lab = Lab::new(1).await.unwrap();
        let feed = await_state(&lab.nodes[0], "unwatched").await;
        assert!(feed["text"].as_str().unwrap().contains("expiry of its entries"), "{feed}");
        lab.stop().await.unwrap();
    });
}
