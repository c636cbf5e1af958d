//! The answer to `stork why` as text for people.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use serde_json::Value;

use super::show::{joined, list, text};

/// `stork why VM PACKAGE`.
pub(super) fn why(v: &Value) -> String {
    let mut out = format!("{}: {}", text(&v["vm"]), text(&v["answer"]));
    for c in list(&v["considered"]) {
        out += &considered(&c);
    }
    for feed in list(&v["stale"]) {
        out += &format!("\n  {}", text(&feed));
    }
    for feed in list(&v["frozen"]) {
        out += &format!("\n  {}", text(&feed));
    }
    if !v["error"].is_null() {
        out += &format!("\n  the last switch failed: {}", text(&v["error"]));
    }
    out
}

/// In `stork status`: releases that wait because of what they need, or of their bundles.
pub(super) fn withheld(v: &Value) -> String {
    let line = |w: &Value| {
        let (vm, package) = (text(&w["vm"]), text(&w["package"]));
        format!("\nVM {vm} waits with {package} {}: {}", text(&w["version"]), text(&w["why"]))
    };
    let listed = list(&v["withheld"]["listed"]);
    let all: String = listed.iter().map(line).collect();
    let more = v["withheld"]["count"].as_u64().unwrap_or(0).saturating_sub(listed.len() as u64);
    if more > 0 { all + &format!("\n… and {more} more") } else { all }
}

/// One release: what became of it, and by which line, document and key.
fn considered(c: &Value) -> String {
    let rule = match &c["rule"] {
        Value::Null => "no trust rule matches".to_owned(),
        r => format!(
            "trust rule {}: {} {}",
            text(&r["number"]),
            text(&r["effect"]),
            text(&r["subject"])
        ),
    };
    let shown = if c["shown"] == Value::Bool(true) { ", shown now" } else { "" };
    let mut out = format!(
        "\n  {} by {}: {} ({rule}; content {}{shown})",
        text(&c["version"]),
        text(&c["publisher"]),
        text(&c["outcome"]),
        text(&c["content"]),
    );
    out += &reasons(c);
    let via = joined(&c["delegated_by"]);
    if via != "-" {
        out += &format!("\n    delegated by {via}");
    }
    let bundle = &c["bundle"];
    if !bundle.is_null() {
        let members = joined(&bundle["members"]);
        out += &format!("\n    of bundle {}: {members}", text(&bundle["name"]));
    }
    if c["chosen"] == Value::Bool(true) {
        for need in list(&c["needs"]) {
            let by = match need["met_by"].as_str() {
                Some(by) => format!("met by {by}"),
                None => "not met by what this VM shows".to_owned(),
            };
            out += &format!("\n    needs {}: {by}", text(&need["line"]));
        }
    }
    let scripts = joined(&c["files_skipped"]);
    if scripts != "-" {
        out += &format!("\n    maintainer scripts that this view does not run: {scripts}");
    }
    if let Some(help) = c["help"].as_str() {
        out += &format!("\n    help: {help}");
    }
    out
}

/// The line, the document and the keys that decided.
fn reasons(c: &Value) -> String {
    let mut out = String::new();
    let because = &c["because"];
    if !because["line"].is_null() {
        out += &format!(
            "\n    decided by {}:{} ({})",
            text(&because["file"]),
            text(&because["line"]),
            text(&because["part"])
        );
    }
    let doc = &because["document"];
    if !doc.is_null() {
        let (kind, name) = (text(&doc["kind"]), text(&doc["name"]));
        let what = match &*kind {
            "entry" | "proof" => "at",
            "denial" | "recall" | "halt" => "in log",
            _ => "document, number",
        };
        out += &format!("\n    by the {kind} {what} {} of {name}", text(&doc["number"]));
    }
    let entry = &c["entry"];
    let keys: Vec<String> = list(&entry["keys"]).iter().map(|k| text(&k["fingerprint"])).collect();
    if !keys.is_empty() {
        out += &format!(
            "\n    entry {}.{}, under publisher document {}, signed by {}",
            text(&entry["epoch"]),
            text(&entry["seq"]),
            text(&entry["document"]),
            keys.join(", ")
        );
    }
    out
}
