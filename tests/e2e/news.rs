//! The command that measures news, on a small scale: that it runs, and that nothing is lost.

use std::process::Command;

use serde_json::Value;

/// Four nodes, few messages, one host killed, two late ones: every figure is there, and every
/// message everywhere.
#[test]
fn bench_news_runs_and_loses_nothing() {
    let fast = ["--settle", "0", "--idle", "0.2", "--probe", "1"];
    let few = ["--nodes", "4", "--messages", "20", "--window-messages", "40"];
    let bench = Command::new(env!("CARGO_BIN_EXE_stork-bench"))
        .arg("news")
        .args(few)
        .args(fast)
        .args(["--phases", "idle,cold,paced,multi,window,crash", "--json"])
        .output()
        .unwrap();
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let out: Value = serde_json::from_slice(&bench.stdout).unwrap();
    for phase in ["cold", "paced", "multi", "window"] {
        let figures = &out[phase];
        assert_eq!(figures["msgs_everywhere_frac"], 1.0, "{phase}: {figures}");
        for name in ["cpu_us_per_delivery", "wire_bytes_per_payload_byte"] {
            assert!(figures[name].as_f64().unwrap() > 0.0, "{phase} {name}: {figures}");
        }
        assert!(figures["lat_ms"]["p99"].is_f64(), "{phase}: {figures}");
    }
    assert!(out["idle"]["rss_kib_per_node"].as_f64().unwrap() > 0.0);
    assert_eq!(out["crash"]["killed"], 1, "{}", out["crash"]);
    assert_eq!(out["crash"]["survivors_missing_any"], 0, "{}", out["crash"]);
}
