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
        out += &format!(
            "\n  {} by {}: {} ({rule}; content {}{shown})",
            text(&c["version"]),
            text(&c["publisher"]),
            text(&c["outcome"]),
            text(&c["content"]),
        );
        let scripts = joined(&c["files_skipped"]);
        if scripts != "-" {
            out += &format!("\n    maintainer scripts that this view does not run: {scripts}");
        }
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
