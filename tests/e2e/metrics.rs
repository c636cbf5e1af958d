//! `/metrics` on the control socket and, where that is wanted, on a loopback port: it parses, it is
//! complete, and it says what `stork status` says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use stork_node::trust::{AdmissionError, Refusal};
use stork_tests::hostile::runtime;
use stork_tests::lab::{Lab, free_addr};
use stork_tests::wait::wait_until;

/// Samples by name and labels.
type Samples = BTreeMap<String, f64>;

/// The body of an answer to `GET PATH`.
fn get(mut stream: impl Read + Write, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: stork\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Reads a page as a scraper does, and holds it to the rules of the format and of naming.
fn parse(page: &str) -> Samples {
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let (mut helped, mut family, mut kind) = ("", "", "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{line}");
            assert!(families.insert(name), "{name} begins twice");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').unwrap();
            assert_eq!(family, helped);
            assert!(is_name(family) && family.starts_with("stork_"), "{line}");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = id.split_once('{').unwrap_or((id, "}"));
            assert_eq!(name, family, "{line}: not in its family");
            let labels = labels.strip_suffix('}').unwrap();
            if !labels.is_empty() {
                let (key, value) = labels.split_once('=').unwrap();
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap();
                assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(samples.insert(id.to_owned(), value).is_none(), "{id} twice");
        }
    }
    assert!(page.ends_with('\n') && kind == "counter");
    samples
}

/// The name of a counter of the status as a metric.
fn metric(name: &str) -> String {
    name.strip_prefix("bytes_")
        .map_or_else(|| format!("stork_{name}_total"), |w| format!("stork_{w}_bytes_total"))
}

/// Prometheus's own tool finds no fault. False where it is not installed.
fn lint(page: &str) -> bool {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return false };
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    true
}

/// Every gauge, every counter and every reason for a refusal is a metric, with the same number;
/// the port has that page and nothing else.
#[test]
fn metrics_say_what_the_status_says() {
    let runtime = runtime();
    let (lab, page, port, status) = runtime.block_on(async {
        let mut lab = Lab::with_beacons(2).await.unwrap();
        lab.settle().await.unwrap();
        let port = free_addr().unwrap();
        lab.nodes[1].add_vm("web-1").unwrap();
        lab.nodes[1].stop().await.unwrap();
        lab.nodes[1].config.metrics = Some(port);
        lab.nodes[1].start().await.unwrap();
        lab.settle().await.unwrap();
        let socket = lab.nodes[1].config.socket.clone();
        let stream = UnixStream::connect(socket).unwrap();
        let (head, page) = tokio::task::block_in_place(|| get(stream, "/metrics"));
        assert!(head.contains("200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
        let status = lab.nodes[1].client().get("/v1/status").await.unwrap();
        (lab, page, port, status)
    });
    let samples = parse(&page);
    if !lint(&page) {
        eprintln!("skipped: promtool is not installed; only this test's own parser has looked");
    }
    for (name, gauge) in status["gauges"].as_object().unwrap() {
        let max = samples[&format!("stork_set_size_max{{set=\"{name}\"}}")];
        assert_eq!(Some(max), gauge["max"].as_f64(), "{name}");
        assert!(samples[&format!("stork_set_size{{set=\"{name}\"}}")] <= max, "{name}");
    }
    let sets = samples.keys().filter(|k| k.starts_with("stork_set_size{")).count();
    assert_eq!(sets, status["gauges"].as_object().unwrap().len());
    for c in status["counters"].as_array().unwrap() {
        let (name, reason) = (c["name"].as_str().unwrap(), c["reason"].as_str().unwrap());
        let id = format!("{}{{reason=\"{reason}\"}}", metric(name));
        let count = samples.get(&id).unwrap_or_else(|| panic!("no {id}"));
        assert!(*count <= c["count"].as_f64().unwrap(), "{id}");
    }
    for (name, codes) in [
        ("items_refused", Refusal::CODES),
        ("hosts_refused", AdmissionError::CODES),
        ("joins_refused", AdmissionError::CODES),
    ] {
        for code in codes {
            assert!(
                samples.contains_key(&format!("{}{{reason=\"{code}\"}}", metric(name))),
                "{code}"
            );
        }
    }
    assert_eq!(samples["stork_feeds{state=\"fresh\"}"], 1.0);
    assert_eq!(samples["stork_feeds{state=\"stale\"}"], 0.0);
    assert_eq!(samples["stork_vms"], 1.0);
    assert_eq!(samples["stork_store_writable"], 1.0);

    let (head, scraped) = get(TcpStream::connect(port).unwrap(), "/metrics");
    assert!(head.contains("200 OK"), "{head}");
    assert!(parse(&scraped).keys().eq(samples.keys()));
    let (head, _) = get(TcpStream::connect(port).unwrap(), "/v1/status");
    assert!(head.contains("404"), "{head}");
    let mut lab = lab;
    runtime.block_on(async { lab.stop().await.unwrap() });
    // The task that listens ends a moment after the node.
    wait_until("the port to close", || TcpStream::connect(port).is_err());
}

/// Whatever the driver counts under a fixed name and reason is there before it has happened.
#[test]
fn every_reason_is_a_metric_from_the_start() {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/../node/src/driver");
    let page = std::fs::read_to_string(format!("{driver}/metrics.rs")).unwrap();
    let known = page.split_once("const KNOWN").unwrap().1.split_once("];\n").unwrap().0;
    // However it is broken into lines.
    let known: String = known.split_whitespace().collect();
    let mut seen = 0;
    for file in std::fs::read_dir(driver).unwrap() {
        let file = file.unwrap().path();
        let file = if file.is_dir() { file.join("mod.rs") } else { file };
        let text = std::fs::read_to_string(file).unwrap();
        for call in text.split("counters.add(").skip(1) {
            let words: Vec<&str> = call.split(')').next().unwrap().split('"').collect();
            let [_, name, ", ", reason, rest] = words[..] else { continue };
            assert_eq!(rest, "");
            let of_name = known.split(&format!("(\"{name}\",")).nth(1);
            let of_name = of_name.unwrap_or_else(|| panic!("no {name}")).split(']').next();
            let code = of_name.unwrap().contains("::CODES");
            let listed = of_name.unwrap().contains(&format!("\"{reason}\""));
            assert!(listed || code, "{name} has no {reason}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}
