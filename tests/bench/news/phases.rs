//! The phases: rest, bursts at several paces, hosts that come late, and hosts that die.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};
use tokio::time::{sleep, sleep_until};

use super::Options;
use super::fleet::Fleet;
use super::record::{Message, percentiles};
use super::usage::Usage;

/// How fast a burst goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Messages in a second.
    Rate(f64),
    /// As fast as it goes with at most so many that are not everywhere yet.
    Window(u64),
}

/// What a phase needs beside the fleet.
pub(super) struct Stage<'a> {
    pub(super) options: &'a Options,
    /// What one check of a signature costs.
    pub(super) verify_us: f64,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
const fn float(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    float(n as u64)
}

/// Memory, processor and bytes of nodes that have nothing to do.
pub(super) async fn idle(fleet: &Fleet, before: &Usage, seconds: f64) -> Result<Value> {
    let nodes = count(fleet.live.len());
    let begun = Usage::now()?;
    sleep(Duration::from_secs_f64(seconds)).await;
    let ended = Usage::now()?;
    let took = (ended.at - begun.at).as_secs_f64();
    let degrees = fleet.degrees().await?;
    let cpu = (ended.cpu_s - begun.cpu_s) / took * 100.0;
    let per_node = |from: u64, to: u64| float(to - from) / took / nodes;
    Ok(json!({
        "rss_kib_per_node": float(ended.rss_kib.saturating_sub(before.rss_kib)) / nodes,
        "cpu_pct_total": cpu, "cpu_pct_per_node": cpu / nodes,
        "bytes_per_s_per_node": per_node(begun.wire_bytes, ended.wire_bytes),
        "datagrams_per_s_per_node": per_node(begun.datagrams, ended.datagrams),
        "degree_min": degrees.iter().min(), "degree_max": degrees.iter().max(),
        "degree_mean": float(degrees.iter().sum()) / nodes,
    }))
}

/// Waits until the next message is due; the moment from which its latency counts.
async fn due(fleet: &Fleet, pace: Pace, (i, begun): (usize, Instant)) -> Instant {
    match pace {
        Pace::Rate(rate) => {
            let due = begun + Duration::from_secs_f64(count(i) / rate);
            sleep_until(due.into()).await;
            // A bench that falls behind by more than its timer is wrong counts it as latency.
            (due + Duration::from_millis(2)).min(Instant::now())
        }
        Pace::Window(window) => {
            let since = Instant::now();
            let everywhere = || fleet.record.delivered() / fleet.live.len().max(1) as u64;
            while (i as u64).saturating_sub(everywhere()) >= window
                && since.elapsed() < Duration::from_secs(2)
            {
                sleep(Duration::from_micros(200)).await;
            }
            Instant::now()
        }
    }
}

/// Publishes messages in turn by these feeds, and waits for them.
pub(super) async fn burst(
    fleet: &mut Fleet,
    stage: &Stage<'_>,
    (feeds, messages): (usize, usize),
    pace: Pace,
) -> Result<(Value, Vec<Message>)> {
    let (nodes, homes) = (fleet.live.clone(), fleet.homes());
    let others = nodes.len().saturating_sub(1).max(1);
    let gossip = fleet.gossip().await?;
    let accepted = fleet.record.accepted();
    fleet.record.begin_phase();
    let begun = Usage::now()?;
    let mut sent = Vec::with_capacity(messages);
    for i in 0..messages {
        let stamp = due(fleet, pace, (i, begun.at)).await;
        sent.push(fleet.publish(i % feeds, stamp).await?);
    }
    let published_s = begun.at.elapsed().as_secs_f64();
    fleet.record.wait((messages * nodes.len()) as u64, Duration::from_secs(4)).await;
    let ended = Usage::now()?;
    fleet.answers().await?;
    let accepted = fleet.record.accepted() - accepted;
    let gossip = fleet.gossip().await?.since(&gossip);
    let latencies = fleet.record.latencies(&sent, &nodes, &homes);
    let got = count(latencies.len());
    let span = fleet.record.last_delivery().saturating_duration_since(begun.at).as_secs_f64();
    let cpu_us = (ended.cpu_s - begun.cpu_s) * 1e6;
    let checks = float(accepted + gossip.early) / got;
    let verify_us = checks * stage.verify_us;
    let wire = float(ended.wire_bytes - begun.wire_bytes);
    let out = json!({
        "m": messages, "publishers": feeds, "size": stage.options.size,
        "rate": if let Pace::Rate(rate) = pace { rate } else { 0.0 },
        "delivered_frac": got / count(messages * others),
        "msgs_everywhere_frac": count(fleet.record.everywhere(&sent, &nodes)) / count(messages),
        "lat_ms": percentiles(&latencies),
        "published_s": published_s, "all_delivered_s": span,
        "deliveries_per_s": got / span, "msgs_per_s": got / count(others) / span,
        "wire_bytes_per_payload_byte": wire / (got * count(stage.options.size)),
        "udp_datagrams_per_delivery": float(ended.datagrams - begun.datagrams) / got,
        "udp_rcvbuf_errors": ended.overruns - begun.overruns,
        "redundancy": float(gossip.duplicates) / got,
        "cpu_us_per_delivery": cpu_us / got,
        "verifications_per_delivery": checks,
        "verify_cpu_us_per_delivery": verify_us,
        "cpu_us_per_delivery_without_verification": cpu_us / got - verify_us,
        "journal_cpu_us_per_delivery": (ended.journal_s - begun.journal_s) * 1e6 / got,
        "cpu_util_cores": cpu_us / 1e6 / span,
    });
    Ok((out, sent))
}

/// Sends messages, starts one node at once and one 5 s later, and counts what they have of them;
/// then what they get of new ones.
pub(super) async fn late(fleet: &mut Fleet, stage: &Stage<'_>) -> Result<Value> {
    const HISTORY: usize = 100;
    let before = fleet.live.len();
    let (_, history) = burst(fleet, stage, (1, HISTORY), Pace::Rate(100.0)).await?;
    let begun = Instant::now();
    fleet.start(None).await?;
    sleep(Duration::from_secs(5)).await;
    fleet.start(None).await?;
    sleep(Duration::from_secs(6)).await;
    let [.., at_once, later] = fleet.live.as_slice() else { anyhow::bail!("no late nodes") };
    let late = [*at_once, *later];
    let homes = fleet.homes();
    let got =
        |fleet: &Fleet, m: &[Message]| late.map(|n| fleet.record.latencies(m, &[n], &homes).len());
    let [first, second] = got(fleet, &history);
    let waited_s = begun.elapsed().as_secs_f64();
    let (_, fresh) = burst(fleet, stage, (1, 20), Pace::Rate(20.0)).await?;
    Ok(json!({
        "history": HISTORY, "got_join_at_once": first, "got_join_after_5s": second,
        "waited_s": waited_s, "fresh_of_20": got(fleet, &fresh), "nodes_before": before,
    }))
}

/// Ends the runtime of the victims under them: nothing is said to anybody. Then messages at once,
/// and probes twice a second.
pub(super) async fn crash(
    fleet: &mut Fleet,
    stage: &Stage<'_>,
    (victims, runtime): (&[usize], Runtime),
) -> Result<Value> {
    const MESSAGES: usize = 100;
    let begun = Instant::now();
    runtime.shutdown_background();
    fleet.forget(victims);
    let at = |ms: usize| begun + Duration::from_millis(ms as u64);
    let mut sent = Vec::new();
    for i in 0..MESSAGES {
        sleep_until(at(10 * i).into()).await;
        sent.push(fleet.publish(0, Instant::now()).await?);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few dozen")]
    let count_probes = (stage.options.probe * 2.0) as usize;
    let (mut probes, mut probed_s) = (Vec::new(), Vec::new());
    for i in 0..count_probes {
        sleep_until(at(1_000 + 500 * i).into()).await;
        probes.push(fleet.publish(0, Instant::now()).await?);
        probed_s.push(begun.elapsed().as_secs_f64());
    }
    sleep(Duration::from_secs(4)).await;
    fleet.answers().await?;
    let (nodes, homes, record) = (fleet.live.clone(), fleet.homes(), &fleet.record);
    let others = nodes.len().saturating_sub(1).max(1);
    let latencies = record.latencies(&sent, &nodes, &homes);
    let none = |n: &&usize| sent.iter().all(|m| record.latency_ms(*m, **n).is_none());
    let missing =
        |n: &&usize| sent.iter().chain(&probes).any(|m| record.latency_ms(*m, **n).is_none());
    let of_probes: Vec<Vec<f64>> =
        probes.iter().map(|m| record.latencies(&[*m], &nodes, &homes)).collect();
    let whole = |l: &Vec<f64>| l.len() == others;
    let quick = |l: &Vec<f64>| whole(l) && l.last().is_none_or(|ms| *ms < 150.0);
    let since = |good: &dyn Fn(&Vec<f64>) -> bool| {
        let from = of_probes.iter().rposition(|l| !good(l)).map_or(0, |i| i + 1);
        probed_s.get(from).copied()
    };
    let all: Vec<f64> = record.latencies(&probes, &nodes, &homes);
    let late = sent.iter().enumerate().filter_map(|(i, m)| {
        let last = record.latencies(&[*m], &nodes, &homes).last().copied()?;
        Some(last / 1e3 + count(i) / 100.0)
    });
    Ok(json!({
        "killed": victims.len(), "survivors": nodes.len(), "m": MESSAGES,
        "delivered_frac": count(latencies.len()) / count(MESSAGES * others),
        "msgs_everywhere_frac": count(record.everywhere(&sent, &nodes)) / count(MESSAGES),
        "survivors_with_none": nodes.iter().filter(none).count(),
        "survivors_missing_any": nodes.iter().filter(missing).count(),
        "last_delivery_s": late.max_by(f64::total_cmp),
        "lat_ms": percentiles(&latencies),
        "recovered_s": since(&whole), "recovered_quick_s": since(&quick),
        "probe_delivered_frac": count(all.len()) / count(count_probes * others),
        "probe_lat_ms": percentiles(&all),
        "probe_worst_ms": of_probes.iter().map(|l| l.last().copied()).collect::<Vec<_>>(),
        "end_degree_mean": float(fleet.degrees().await?.iter().sum()) / count(nodes.len()),
    }))
}

/// Starts all nodes, those that will be killed on a runtime of their own.
pub(super) async fn start(
    fleet: &mut Fleet,
    nodes: usize,
    (victims, runtime): (&[usize], &Handle),
) -> Result<()> {
    for i in 0..nodes {
        let place = victims.contains(&i).then(|| runtime.clone());
        fleet.start(place).await.with_context(|| format!("node {i}"))?;
    }
    Ok(())
}
