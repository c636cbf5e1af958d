//! What was taken away, for people: frozen feeds, denials, recalls, halts and keys that have ended.

use serde_json::Value;

use super::show::{list, text};

/// Lines of one kind in `stork status`; the rest is counted.
const LINES_MAX: usize = 5;

/// Feeds that are frozen, and what narrows, one line each.
pub(super) fn lines(v: &Value) -> String {
    let frozen = list(&v["frozen"]);
    let frozen =
        frozen.iter().map(|f| format!("\nFEED {} {}", text(&f["publisher"]), text(&f["text"])));
    let mut out: String = frozen.collect();
    let narrowed = &v["narrowed"];
    let what = |x: &Value| if x.is_null() { "everything".to_owned() } else { text(x) };
    out += &few(narrowed, "dead_keys", |k| {
        let key: String = text(&k["key"]).chars().take(10).collect();
        format!("KEY {key} has ended itself: {}", text(&k["reason"]))
    });
    out += &few(narrowed, "halts", |h| {
        let (package, by) = (what(&h["package"]), text(&h["publisher"]));
        format!("HALTED {package} of {by}, by its {}: {}", text(&h["by"]), text(&h["reason"]))
    });
    out += &few(narrowed, "denials", |d| {
        let group = d["group"].as_str().map(|g| format!(" for group {g}")).unwrap_or_default();
        let lifted = if d["in_force"] == Value::Bool(true) { "" } else { " (lifted)" };
        format!("DENIED {}{group}{lifted}: {}", text(&d["what"]), text(&d["reason"]))
    });
    out += &few(narrowed, "recalls", |r| {
        let (package, by) = (text(&r["package"]), text(&r["publisher"]));
        let n = text(&r["releases"]);
        format!("RECALLED {n} of {package} by {by}: {}", text(&r["reason"]))
    });
    out
}

/// The newest of one kind first.
fn few(narrowed: &Value, key: &str, line: impl Fn(&Value) -> String) -> String {
    let mut all = list(&narrowed[key]);
    all.sort_by_key(|v| core::cmp::Reverse(v["signed_at"].as_u64()));
    let shown = all.iter().take(LINES_MAX).map(|v| format!("\n{}", line(v)));
    let mut out: String = shown.collect();
    if all.len() > LINES_MAX {
        let more = all.len() - LINES_MAX;
        out += &format!("\n  and {more} more {}: stork status --json", key.replace('_', " "));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One line each; of many the newest, and how many more there are.
    #[test]
    fn a_line_for_each() {
        assert_eq!(lines(&json!({})), "");
        let recalls: Vec<Value> = (0..7u64)
            .map(|n| {
                json!({
                    "publisher": "ops", "package": "nginx", "releases": n, "signed_at": n,
                    "reason": "broken",
                })
            })
            .collect();
        let v = json!({
            "frozen": [{ "publisher": "ops", "text": "frozen: two entries" }],
            "narrowed": {
                "dead_keys": [{ "key": "0123456789abcdef", "reason": "stolen" }],
                "halts": [{ "publisher": "ops", "package": null, "by": "root", "reason": "wait" }],
                "denials": [
                    { "what": "the tree 77", "group": "web", "in_force": true, "reason": "evil" },
                    { "what": "host 99", "group": null, "in_force": true, "reason": "stolen" },
                ],
                "recalls": recalls,
            },
        });
        let text = lines(&v);
        for want in [
            "\nFEED ops frozen: two entries",
            "\nKEY 0123456789 has ended itself: stolen",
            "\nHALTED everything of ops, by its root: wait",
            "\nDENIED the tree 77 for group web: evil",
            "\nDENIED host 99: stolen",
            "\nRECALLED 6 of nginx by ops: broken",
            "\n  and 2 more recalls: stork status --json",
        ] {
            assert!(text.contains(want), "{want} in {text}");
        }
        assert!(!text.contains("RECALLED 1 of"), "{text}");
    }
}
