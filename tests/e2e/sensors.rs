//! The rule set of docs/SENSORS.md, published to real sensors.

use std::path::Path;
use std::process::Command;

use stork_tests::fleet::binary;

/// What the script ends with where a program that it needs is missing.
const SKIPPED: i32 = 77;

/// The script ends with 0 only if each step did what it should; its page has the words that it
/// prints.
#[test]
fn a_broken_rule_set_takes_itself_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = ["stork", "stork-node", "stork-publish"].map(binary);
    let mut script = Command::new("sh");
    script.arg(root.join("sensors/run.sh")).arg(programs[0].parent().unwrap());
    let out = script.env("SENSORS_HOSTS", "2").output().unwrap();
    let (said, error) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.code() == Some(SKIPPED) {
        return eprint!("{error}");
    }
    assert!(out.status.success(), "{said}{error}");
    let page = std::fs::read_to_string(root.join("../docs/SENSORS.md")).unwrap();
    for line in said.lines() {
        // Hosts are 3 there; times and versions differ; the words do not.
        let (_, words) = line.split_once(" s  ").unwrap();
        let words = words.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let start: String = words.chars().take_while(|c| !c.is_ascii_digit()).collect();
        assert!(!start.is_empty() && page.contains(start.trim()), "not on the page: {words}");
    }
}
