//! Content over real links: processes in network namespaces with cards of a limited rate.

use std::process::Command;

use serde_json::Value;
use stork_tests::fleet::binary;

/// The exit code of the bench where a machine gives no namespaces or no token buckets.
const UNABLE: i32 = 77;
const HOSTS: u64 = 3;

/// The short form of `stork-bench content`. Times depend on what else the machine does; counts do
/// not: every copy is right, and the origin sends one copy and not one for each host.
#[test]
fn three_hosts_on_limited_links_get_a_content_once_from_its_origin() {
    // The bench runs the programs that lie beside it.
    assert!(binary("stork-node").is_file());
    let out = Command::new(env!("CARGO_BIN_EXE_stork-bench"))
        .args(["content", "--hosts", &HOSTS.to_string(), "--rate", "50", "--mib", "4"])
        .args(["--against", "chain", "--json", "--bed", "storke2e"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    if out.status.code() == Some(UNABLE) {
        return println!("skipped: {error}");
    }
    assert!(out.status.success(), "{}: {error}", out.status);
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let methods: Vec<&str> = lines.iter().filter_map(|l| l["method"].as_str()).collect();
    assert_eq!(methods, ["stork", "chain"]);
    for line in &lines {
        println!("{line}");
        assert_eq!(line["completed"], HOSTS, "{line}");
        assert_eq!(line["corrupt"], 0, "{line}");
        let copies = line["origin_copies"].as_f64().unwrap();
        assert!((1.0..=2.0).contains(&copies), "the origin sent {copies} copies: {line}");
        let got = line["received_copies_per_host"].as_f64().unwrap();
        assert!((1.0..=1.5).contains(&got), "each host got {got} copies: {line}");
    }
}
