//! Certificates over weeks: renewed without an operator, missed while the admitting host is away,
//! and over at last. The nodes run inside of this process, and are told that days have passed.

use std::time::Duration;

use serde_json::Value;
use stork_node::run::{RunError, open_store};
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, LabNode, wait_for};
use stork_tests::wait::PATIENCE_S;

const LIMIT: Duration = Duration::from_secs(PATIENCE_S);

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 3_600)
}

async fn status(node: &LabNode) -> Value {
    node.client().get("/v1/status").await.unwrap()
}

/// How often a node noted an event of a kind whose text holds `text`.
async fn events(node: &LabNode, kind: &str, text: &str) -> usize {
    let all = node.client().get("/v1/events").await.unwrap();
    let fits = |e: &&Value| e["kind"] == kind && e["text"].as_str().unwrap().contains(text);
    all["events"].as_array().unwrap().iter().filter(fits).count()
}

async fn await_events(node: &LabNode, kind: &str, text: &str, count: usize) {
    let what = format!("{count} times {kind} on {}", node.name);
    let enough = || async { (events(node, kind, text).await >= count).then_some(()) };
    wait_for(&what, LIMIT, enough).await.unwrap();
    assert_eq!(events(node, kind, text).await, count, "{what}");
}

async fn counter(node: &LabNode, name: &str, reason: &str) -> u64 {
    let status = status(node).await;
    let all = status["counters"].as_array().unwrap();
    let fits = |c: &&Value| c["name"] == name && c["reason"] == reason;
    all.iter().find(fits).map_or(0, |c| c["count"].as_u64().unwrap())
}

/// How often a node went to the host that admitted it for a new certificate.
async fn asked(node: &LabNode) -> u64 {
    counter(node, "dials", "admitter").await
}

async fn peers(node: &LabNode) -> Vec<Value> {
    let peers = node.client().get("/v1/peers").await.unwrap();
    peers["peers"].as_array().unwrap().clone()
}

/// Waits until a node knows certificates of so many connected hosts that are good until then.
async fn await_known(node: &LabNode, hosts: usize, expires: u64) {
    let what = format!("{} to know the new certificates", node.name);
    let known = || async {
        let peers = peers(node).await;
        let good = |p: &&Value| p["certificate_expires"].as_u64().unwrap() >= expires;
        (peers.iter().filter(good).count() >= hosts).then_some(())
    };
    wait_for(&what, LIMIT, known).await.unwrap();
}

async fn expires(node: &LabNode) -> u64 {
    status(node).await["certificate"]["expires"].as_u64().unwrap()
}

/// Past its half each certificate is renewed, also that of the host that admits, once, over the
/// links that there are. They stay: also after the old certificates have run out, since everybody
/// was told of the new ones. Twice, since a renewed certificate is renewed like the first.
#[test]
fn certificates_are_renewed_and_links_stay() {
    runtime().block_on(async {
        let mut lab = Lab::new(3).await.unwrap();
        lab.settle().await.unwrap();
        for round in 1..=2 {
            let old = expires(&lab.nodes[0]).await;
            // A day too early, and then a day too late.
            lab.pass(days(14));
            for node in &lab.nodes {
                let certificate = status(node).await["certificate"].clone();
                assert_eq!(certificate["state"], "good", "{certificate}");
                assert_eq!(events(node, "certificate_renewed", "").await, round - 1);
            }
            lab.pass(days(2));
            for node in &lab.nodes {
                await_events(node, "certificate_renewed", "", round).await;
            }
            for node in &lab.nodes {
                await_known(node, 2, old + days(10).as_secs()).await;
                let certificate = status(node).await["certificate"].clone();
                assert_eq!(certificate["state"], "good", "{certificate}");
                assert_eq!(certificate["help"], Value::Null);
                assert_eq!(counter(node, "links", "down").await, 0, "{}", node.name);
                assert_eq!(events(node, "host_refused", "").await, 0);
                assert_eq!(peers(node).await.len(), 2);
            }
        }
        // The first certificates would be over by now, and the new ones are on disk.
        lab.pass(days(13));
        lab.nodes[1].stop().await.unwrap();
        lab.nodes[1].start().await.unwrap();
        lab.settle().await.unwrap();
        assert_eq!(status(&lab.nodes[1]).await["certificate"]["state"], "good");
        lab.stop().await.unwrap();
    });
}

/// While the host that admits is away, the others say so, and work on until the end. From then on
/// they refuse each other with the reason, and the status says what to do. A host that comes back
/// only then does not start, and says the same.
#[test]
fn without_renewal_the_end_comes_with_words() {
    runtime().block_on(async {
        let mut lab = Lab::new(3).await.unwrap();
        lab.settle().await.unwrap();
        lab.nodes[0].stop().await.unwrap();
        lab.pass(days(24));
        for node in &lab.nodes[1..] {
            await_events(node, "certificate_late", "runs out in 5 days: start the host", 1).await;
            let certificate = status(node).await["certificate"].clone();
            assert_eq!(certificate["state"], "late", "{certificate}");
            assert!(certificate["help"].as_str().unwrap().contains("that admitted this one"));
        }
        // It is dialled at each look, for the certificate's sake.
        let [_, second, third] = &lab.nodes[..] else { panic!("three nodes") };
        assert!(asked(second).await >= 1 && asked(third).await >= 1);
        lab.pass(days(1));
        for node in &lab.nodes[1..] {
            await_events(node, "certificate_late", "runs out in 4 days", 1).await;
            assert!(asked(node).await >= 2, "it is dialled again");
            assert_eq!(status(node).await["links"], 1, "it still works");
            assert_eq!(events(node, "host_refused", "").await, 0);
        }
        lab.pass(days(5));
        for node in &lab.nodes[1..] {
            await_events(node, "certificate_expired", "stork-node join", 1).await;
            let certificate = status(node).await["certificate"].clone();
            assert_eq!(certificate["state"], "expired", "{certificate}");
            assert!(certificate["help"].as_str().unwrap().contains("stork token create"));
            wait_for("the links to end", LIMIT, || async {
                peers(node).await.is_empty().then_some(())
            })
            .await
            .unwrap();
        }
        // Somebody tries again, and is refused with the reason.
        let refused = || async {
            let why = "the certificate has run out";
            events(second, "host_refused", why).await + events(third, "host_refused", why).await
        };
        let before = refused().await;
        let again = || async { (refused().await > before).then_some(()) };
        wait_for("another refusal", LIMIT, again).await.unwrap();
        assert_eq!((peers(second).await.len(), peers(third).await.len()), (0, 0));
        // Half a year later there is no way back without a token.
        lab.pass(days(190));
        let error = lab.nodes[0].start().await.unwrap_err();
        let error = error.downcast::<RunError>().unwrap();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("the certificate has run out"), "{error}: {why}");
        assert!(error.help().contains("stork-node init"), "{}", error.help());
        for i in 1..3 {
            lab.nodes[i].stop().await.unwrap();
        }
        let error = lab.nodes[1].start().await.unwrap_err().downcast::<RunError>().unwrap();
        assert!(error.help().contains("stork-node join"), "{}", error.help());
    });
}

/// The host that admits comes back after the end: it renews itself, and then whoever asks, since
/// nobody was denied. That gives each a certificate and nothing else; with it they link again.
#[test]
fn who_ran_out_is_renewed_when_the_admitting_host_returns() {
    runtime().block_on(async {
        let mut lab = Lab::new(3).await.unwrap();
        lab.settle().await.unwrap();
        lab.nodes[0].stop().await.unwrap();
        lab.nodes[2].stop().await.unwrap();
        lab.pass(days(31));
        await_events(&lab.nodes[1], "certificate_expired", "start a host that admits", 1).await;
        // Off, it does not start while nobody renews it, and says so.
        let error = lab.nodes[2].start().await.unwrap_err().downcast::<RunError>().unwrap();
        assert!(error.help().contains("start a host that admits"), "{}", error.help());
        lab.nodes[0].start().await.unwrap();
        assert_eq!(status(&lab.nodes[0]).await["certificate"]["state"], "good");
        lab.nodes[2].start().await.unwrap();
        assert_eq!(status(&lab.nodes[2]).await["certificate"]["state"], "good");
        lab.pass(Duration::from_secs(3_601));
        await_events(&lab.nodes[1], "certificate_renewed", "", 1).await;
        assert!(events(&lab.nodes[0], "host_renewed", "").await >= 2);
        lab.settle().await.unwrap();
        lab.stop().await.unwrap();
    });
}

/// The host that admits comes back before the end: all are renewed at once, whoever dials, without
/// an operator, and nobody's link to another host goes.
#[test]
fn renewal_is_made_up_for_when_the_admitting_host_returns() {
    runtime().block_on(async {
        let mut lab = Lab::new(3).await.unwrap();
        lab.settle().await.unwrap();
        lab.nodes[0].stop().await.unwrap();
        lab.pass(days(26));
        for node in &lab.nodes[1..] {
            await_events(node, "certificate_late", "", 1).await;
        }
        let down = counter(&lab.nodes[1], "links", "down").await;
        lab.nodes[0].start().await.unwrap();
        for node in &lab.nodes[1..] {
            await_events(node, "certificate_renewed", "", 1).await;
            assert_eq!(status(node).await["certificate"]["state"], "good");
        }
        assert_eq!(counter(&lab.nodes[1], "links", "down").await, down);
        // Its own is renewed at the first look, a minute after the start.
        lab.pass(Duration::from_secs(61));
        await_events(&lab.nodes[0], "certificate_renewed", "", 1).await;
        lab.stop().await.unwrap();
    });
}

/// A host that was off for longer than records of hosts are good, and whom nobody remembers, finds
/// its fleet by the old addresses: its certificate is still good.
#[test]
fn a_host_that_was_off_for_longer_than_records_live_comes_back() {
    runtime().block_on(async {
        let mut lab = Lab::new(2).await.unwrap();
        lab.settle().await.unwrap();
        lab.stop().await.unwrap();
        let store = open_store(&lab.nodes[0].config).unwrap();
        store.put_state("peers", &[0]).unwrap();
        drop(store);
        lab.pass(days(8));
        for i in 0..2 {
            lab.nodes[i].start().await.unwrap();
        }
        lab.settle().await.unwrap();
        lab.stop().await.unwrap();
    });
}
