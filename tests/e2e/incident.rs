//! The incident of docs/INCIDENT.md, played in its short form.

use std::path::Path;
use std::process::Command;

use stork_tests::fleet::binary;

/// The script ends with 0 only if each step did what it should; its page has the words that it
/// prints.
#[test]
fn a_stolen_key_is_recovered_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = ["stork", "stork-node", "stork-publish"].map(binary);
    let mut script = Command::new("sh");
    script.arg(root.join("incident/run.sh")).arg(programs[0].parent().unwrap());
    let out = script.env("INCIDENT_HOSTS", "3").output().unwrap();
    let (said, error) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}{error}");
    let page = std::fs::read_to_string(root.join("../docs/INCIDENT.md")).unwrap();
    for line in said.lines() {
        // Hosts are 5 there; times and key ids differ; the words do not.
        let (_, words) = line.split_once(" s  ").unwrap();
        let start: String = words.chars().take_while(|c| !c.is_ascii_digit()).collect();
        assert!(start.is_empty() || page.contains(start.trim()), "not on the page: {words}");
    }
}
