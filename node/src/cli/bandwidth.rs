//! The limits of content transfer in `stork status`: what holds now, and what changes when.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use serde_json::Value;

const WAYS: [&str; 4] = ["up", "down", "wan_up", "wan_down"];
/// The first of January 1970 was a Thursday.
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

/// A rate in the units of the settings.
fn rate(per_s: u64) -> String {
    let (unit, name) = match per_s {
        1_000_000_000.. => (1_000_000_000, "GB/s"),
        1_000_000.. => (1_000_000, "MB/s"),
        _ => (1_000, "kB/s"),
    };
    let tenths = per_s / (unit / 10);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

fn limit(v: &Value) -> String {
    let per_s = v["bytes_per_s"].as_u64().map(rate);
    match (v["closed"] == Value::Bool(true), per_s) {
        (false, Some(rate)) => rate,
        (false, None) => "unlimited".to_owned(),
        (true, Some(rate)) => format!("none (security and urgent: {rate})"),
        (true, None) => "none (security and urgent: unlimited)".to_owned(),
    }
}

/// `fri 22:00 UTC` of seconds since 1970.
pub(super) fn moment(unix_s: u64) -> String {
    let day = usize::try_from(unix_s / 86_400 % 7).unwrap_or(0);
    let minute = unix_s / 60 % 1_440;
    let day = DAYS.get(day).copied().unwrap_or_default();
    format!("{day} {:02}:{:02} UTC", minute / 60, minute % 60)
}

/// The line of the status; empty where nothing is limited, now or later.
pub(super) fn line(v: &Value) -> String {
    let (now, then) = (&v["bandwidth"]["limits"], &v["bandwidth"]["then"]);
    let is_limited = |w: &&str| limit(&now[*w]) != "unlimited";
    let limited = WAYS.iter().filter(|w| is_limited(w) && !now[**w].is_null());
    let limited: Vec<String> = limited.map(|w| format!("{w} {}", limit(&now[*w]))).collect();
    let changes = WAYS.iter().filter(|w| !then.is_null() && now[**w] != then[**w]);
    let changes: Vec<String> = changes.map(|w| format!("{w} {}", limit(&then[*w]))).collect();
    if limited.is_empty() && changes.is_empty() {
        return String::new();
    }
    let limited = if limited.is_empty() { "none now".to_owned() } else { limited.join(", ") };
    let at = v["bandwidth"]["changes_at"].as_u64().map(moment);
    let later = at.map_or_else(String::new, |at| format!("; from {at} {}", changes.join(", ")));
    format!("\nlimits: {limited}{later}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What holds, and what changes when; nothing where nothing is limited.
    #[test]
    fn lines() {
        let open = json!({ "bytes_per_s": null, "closed": false });
        let some = |n: u64| json!({ "bytes_per_s": n, "closed": false });
        let shut = json!({ "bytes_per_s": 5_000, "closed": true });
        let all = |up: &Value, down: &Value| {
            let wan = &open;
            json!({ "up": up, "down": down, "wan_up": wan, "wan_down": wan })
        };
        let status = |now: &Value, at: Option<u64>, then: Option<Value>| {
            line(&json!({ "bandwidth": { "limits": now, "changes_at": at, "then": then } }))
        };
        assert_eq!(line(&json!({})), "");
        assert_eq!(status(&all(&open, &open), None, None), "");
        let now = all(&some(40_000_000), &shut);
        let text = "\nlimits: up 40.0 MB/s, down none (security and urgent: 5.0 kB/s)";
        assert_eq!(status(&now, None, None), text);
        let then = all(&open, &shut);
        let later = format!("{text}; from mon 22:00 UTC up unlimited");
        assert_eq!(status(&now, Some(1_793_577_600 + 22 * 3_600), Some(then.clone())), later);
        let begins = status(&all(&open, &open), Some(1_793_577_600), Some(then));
        assert_eq!(
            begins,
            "\nlimits: none now; from mon 00:00 UTC down none (security and urgent: 5.0 kB/s)"
        );
    }
}
