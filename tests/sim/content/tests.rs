//! Short forms of the large runs. With 64 pieces the first and last steps weigh much: the bounds of
//! time are far from those of the large ones, which are run by hand.

use super::{Content, Links, report, world::World};

fn run(options: &Content) -> serde_json::Value {
    let mut world = World::new(options).unwrap();
    world.run();
    let (value, bad) = report::report(&world);
    assert_eq!(bad, 0, "{value}");
    println!("{value}");
    value
}

fn content(nodes: u32, sites: u32) -> Content {
    Content {
        nodes,
        sites,
        mib: 64,
        piece_kib: Some(1_024),
        links: Links::Homog,
        deaths: 0.0,
        stalls: 0.0,
        late: 0.0,
        background_mib: 0,
        security_mib: 0,
        lost: 0.0,
        disagree: 0.0,
        contacts: 0,
        seed: 1,
        seeds: 1,
        json: true,
    }
}

fn at_most(value: &serde_json::Value, name: &str, most: f64) {
    let got = value.pointer(name).and_then(serde_json::Value::as_f64).unwrap();
    assert!(got <= most, "{name} is {got}, {most} is allowed: {value}");
}

/// One site: near the bound, and the origin sends everything once.
#[test]
fn one_site_is_near_the_bound() {
    let value = run(&content(30, 1));
    at_most(&value, "/makespan", 1.35);
    at_most(&value, "/origin_egress", 1.02);
    at_most(&value, "/duplicates", 0.001);
}

/// Several sites: each gets every byte once from the others.
#[test]
fn each_site_gets_it_once() {
    let value = run(&content(30, 3));
    at_most(&value, "/makespan", 1.7);
    at_most(&value, "/origin_egress", 1.02);
    at_most(&value, "/wan_copies/most", 1.01);
    at_most(&value, "/duplicates", 0.001);
}

/// The same where other sites know only some hosts of each.
#[test]
fn a_few_contacts_are_enough() {
    let value = run(&Content { contacts: 4, ..content(30, 3) });
    at_most(&value, "/makespan", 1.9);
    at_most(&value, "/wan_copies/most", 1.01);
}

/// Hosts die, stall and come late: everybody who lives gets everything, and the same seed gives the
/// same run.
#[test]
fn nobody_is_left_behind() {
    let options = Content { deaths: 0.05, stalls: 0.02, late: 0.05, ..content(50, 5) };
    let value = run(&options);
    at_most(&value, "/origin_egress", 1.3);
    assert_eq!(value["trace"], run(&options)["trace"]);
    assert_ne!(value["trace"], run(&Content { seed: 2, ..options })["trace"]);
}

/// Several contents at once: what closes a hole hardly waits for the others, and the background
/// waits for them.
#[test]
fn classes_go_in_their_order() {
    let options = Content { background_mib: 64, security_mib: 16, ..content(30, 1) };
    let value = run(&options);
    at_most(&value, "/makespan", 1.9);
    let beside = |class: &str| {
        let all = value["beside"].as_array().unwrap();
        let it = all.iter().find(|b| b["class"] == class).unwrap();
        it["makespan"].as_f64().unwrap()
    };
    // A few pieces of others are before each of its own: 0.4 s, for 0.13 at the least.
    assert!(beside("security") < 3.5, "{value}");
    assert!(beside("background") > 1.8, "{value}");
}

/// Grants that are lost, and hosts that have not heard of each other, cost time and nothing else.
#[test]
fn lost_grants_and_other_rosters() {
    let value = run(&Content { lost: 0.05, disagree: 0.1, ..content(30, 3) });
    at_most(&value, "/makespan", 2.5);
    at_most(&value, "/wan_copies/most", 1.5);
    at_most(&value, "/duplicates", 0.05);
}
