//! Answers of the daemon as text for people.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use serde_json::Value;

use super::out::{bytes, table};

pub(super) fn text(v: &Value) -> String {
    match v {
        Value::Null => "-".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn short(v: &Value) -> String {
    text(v).chars().take(10).collect()
}

pub(super) fn list(v: &Value) -> Vec<Value> {
    v.as_array().cloned().unwrap_or_default()
}

fn size(v: &Value) -> String {
    v.as_u64().map_or_else(|| "-".to_owned(), bytes)
}

fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|c| (*c).to_owned()).collect()
}

pub(super) fn joined(v: &Value) -> String {
    let all: Vec<String> = list(v).iter().map(text).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// `a 1.0, b 2.0` of a list of packages with versions.
fn versions(v: &Value) -> String {
    let all: Vec<String> = list(v)
        .iter()
        .map(|r| format!("{} {}", text(&r["package"]), text(&r["version"])))
        .collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// News that do not come onto the disk.
fn journal(v: &Value) -> String {
    let j = &v["journal"];
    let what = match j["state"].as_str() {
        Some("waits") => "NEWS WAIT for the disk",
        Some(_) => "TAKES NO NEWS",
        None => return String::new(),
    };
    let help = text(&j["help"]);
    let help = if help.is_empty() { help } else { format!("\n  help: {help}") };
    format!("\n{what} since {}: {}{help}", text(&j["since"]), text(&j["cause"]))
}

/// Feeds that are not fresh, one line each, and how many more there are.
fn freshness(v: &Value) -> String {
    let all = list(&v["freshness"]);
    let (fresh, other): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|f| f["state"] == "fresh" && f["behind"].is_null());
    let mut out: String = other.iter().map(|f| format!("\nFEED {}", text(&f["text"]))).collect();
    let count = |state: &str| v["feeds"][state].as_u64().unwrap_or(0);
    let not_fresh = count("stale") + count("expired") + count("unwatched");
    let more = not_fresh.saturating_sub(other.len() as u64);
    if more > 0 && fresh.is_empty() {
        out += &format!("\nFEEDS {more} more are not fresh");
    }
    out.extend(
        list(&v["documents_due"]).iter().map(|d| format!("\nDOCUMENT {}", text(&d["text"]))),
    );
    out
}

/// `stork status`.
pub(super) fn status(v: &Value) -> String {
    let mut out = format!(
        "{} ({}) of fleet {} at site {}, stork {}, up {} s\n",
        text(&v["name"]),
        short(&v["node"]),
        short(&v["fleet"]),
        text(&v["site"]),
        text(&v["version"]),
        text(&v["uptime_s"]),
    );
    out += &format!(
        "listens on {} (for others: {}); {} connections, {} links, {} hosts known\n",
        text(&v["listen"]),
        joined(&v["addrs"]),
        text(&v["peers"]),
        text(&v["links"]),
        text(&v["hosts"]),
    );
    if list(&v["addrs"]).is_empty() {
        out += "NO ADDRESS that others could dial\n  help: give --advertise ADDR:PORT\n";
    }
    out += &format!(
        "{} of {} VMs current; {} releases known, {} items wait\n",
        text(&v["vms_current"]),
        text(&v["vms"]),
        text(&v["releases"]),
        text(&v["pending_items"]),
    );
    out += &format!(
        "content: {} fetched, {} served",
        size(&v["bytes"]["fetched"]),
        size(&v["bytes"]["served"])
    );
    out += &(super::bandwidth::line(v) + &super::locked::line(v));
    if v["store"]["ok"] != Value::Bool(true) {
        out += &format!(
            "\nSTORE READ-ONLY since {}: {}",
            text(&v["store"]["read_only_since"]),
            text(&v["store"]["cause"])
        );
    }
    out += &(journal(v) + &super::narrowed::lines(v) + &freshness(v) + &super::why::withheld(v));
    out += &super::admission::lines(v);
    out += &super::group_key::lines(v);
    for bad in list(&v["bad_vm_files"]) {
        out += &format!(
            "\nBAD FILE {}: {}\n  help: {}",
            text(&bad["file"]),
            text(&bad["message"]),
            text(&bad["help"])
        );
    }
    let refused: Vec<String> = list(&v["counters"])
        .iter()
        .filter(|c| {
            let name = text(&c["name"]);
            name.ends_with("refused") || name.ends_with("blamed") || name.ends_with("fault")
        })
        .map(|c| format!("{} {} ({})", text(&c["count"]), text(&c["name"]), text(&c["reason"])))
        .collect();
    if !refused.is_empty() {
        out += &format!("\nrefused: {}", refused.join(", "));
    }
    out
}

/// `stork vm`.
pub(super) fn vms(v: &Value) -> String {
    let mut rows = vec![head(&["VM", "STATE", "GENERATION", "SHOWS"])];
    for vm in list(&v["vms"]) {
        rows.push(vec![
            text(&vm["name"]),
            state(&vm),
            text(&vm["generation"]),
            versions(&vm["shows"]),
        ]);
    }
    if rows.len() == 1 {
        return "no VM has a file in the vms.d folder of this host".to_owned();
    }
    table(&rows)
}

fn state(vm: &Value) -> String {
    if !vm["error"].is_null() {
        "failed".to_owned()
    } else if vm["switching"] == Value::Bool(true) {
        "switching".to_owned()
    } else if vm["current"] == Value::Bool(true) {
        "current".to_owned()
    } else if !vm["waits"].is_null() {
        "waiting".to_owned()
    } else {
        "behind".to_owned()
    }
}

/// `stork vm NAME`.
pub(super) fn vm(v: &Value) -> String {
    let mut out = format!(
        "{}: {}\n  groups      {}\n  target      {} ({})\n  shows       {}\n  should show {}\n",
        text(&v["name"]),
        state(v),
        joined(&v["groups"]),
        text(&v["target"]),
        text(&v["backend"]),
        versions(&v["shows"]),
        versions(&v["wants"]),
    );
    if v["backend"] == "image" {
        out +=
            "  guest       sees a new image at its next start, or with the device plugged anew\n";
    }
    if !v["error"].is_null() {
        out += &format!("  error       {}\n", text(&v["error"]));
    }
    for feed in list(&v["stale"]) {
        out += &format!("  feed        {}\n", text(&feed));
    }
    if !v["hook"].is_null() {
        out += &format!("  hook        {}\n", text(&v["hook"]));
    }
    out += &super::vm::lines(v);
    let mut rows = vec![head(&["  GENERATION", "SET", "RELEASES"])];
    for g in list(&v["generations"]) {
        let mark = if g["number"] == v["generation"] { "*" } else { " " };
        rows.push(vec![
            format!("{mark} {}", text(&g["number"])),
            short(&g["set"]),
            joined(&g["releases"]),
        ]);
    }
    out + &table(&rows)
}

/// `stork release`.
pub(super) fn releases(v: &Value) -> String {
    let mut rows =
        vec![head(&["PACKAGE", "VERSION", "ARCH", "PUBLISHER", "GROUPS", "SIZE", "DELTA", "HERE"])];
    for r in list(&v["releases"]) {
        rows.push(vec![
            text(&r["package"]),
            text(&r["version"]),
            text(&r["arch"]),
            text(&r["publisher"]),
            joined(&r["groups"]),
            size(&r["full_bytes"]),
            size(&r["delta_bytes"]),
            here(&r),
        ]);
    }
    if rows.len() == 1 {
        return "no release is known here yet".to_owned();
    }
    table(&rows)
}

/// What there is of a release here, and what is wrong with its feed.
fn here(r: &Value) -> String {
    if !r["recalled"].is_null() {
        return "recalled".to_owned();
    }
    if r["retired"] == true {
        return "retired".to_owned();
    }
    match (r["frozen"].is_null(), r["freshness"].as_str()) {
        (false, _) => "frozen".to_owned(),
        (true, Some(word @ ("stale" | "expired"))) => format!("{} ({word})", text(&r["state"])),
        _ => text(&r["state"]),
    }
}

/// `stork release PACKAGE`.
pub(super) fn release(v: &Value) -> String {
    let mut out = Vec::new();
    for r in list(&v["releases"]) {
        out.push(format!(
            "{} {} {} by {} for {}: {}",
            text(&r["package"]),
            text(&r["version"]),
            text(&r["arch"]),
            text(&r["publisher"]),
            joined(&r["groups"]),
            here(&r),
        ));
        out.push(format!(
            "  tree {}, {} files, {} unpacked, {} to fetch in full, {} as delta",
            short(&r["tree"]),
            text(&r["files"]),
            size(&r["unpacked_bytes"]),
            size(&r["full_bytes"]),
            size(&r["delta_bytes"]),
        ));
        out.push(format!("  entry {}, hash {}", text(&r["seq"]), text(&r["entry"])));
        if !r["frozen"].is_null() {
            out.push(format!("  {}", text(&r["frozen"])));
        }
        for s in list(&r["swarms"]) {
            let side = |key: &str| {
                let all: Vec<String> = list(&s[key])
                    .iter()
                    .map(|p| format!("{} {}", text(&p["host"]), size(&p["bytes"])))
                    .collect();
                if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
            };
            out.push(format!(
                "  {} ({}): {} of {} pieces; from {}; to {}",
                text(&s["variant"]),
                text(&s["role"]),
                text(&s["have"]),
                text(&s["pieces"]),
                side("from"),
                side("to"),
            ));
        }
    }
    out.join("\n")
}

/// `stork peers`.
pub(super) fn peers(v: &Value) -> String {
    let mut rows = vec![head(&["HOST", "NODE", "ADDRESS", "LINK", "RTT", "AGE", "QUEUED"])];
    for p in list(&v["peers"]) {
        rows.push(vec![
            text(&p["name"]),
            short(&p["node"]),
            text(&p["addr"]),
            text(&p["class"]),
            p["rtt_ms"].as_u64().map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
            format!("{} s", text(&p["age_s"])),
            size(&p["queued_bytes"]),
        ]);
    }
    if rows.len() == 1 {
        return "connected with nobody; see `stork events`".to_owned();
    }
    table(&rows)
}

/// `stork rollback VM`.
pub(super) fn rollback(v: &Value) -> String {
    match v["undone"].as_u64() {
        Some(n) => format!("{}: {n} skipped releases are allowed again", text(&v["vm"])),
        None => format!(
            "{}: going back from generation {} to what {} showed\nwatch: stork vm {}",
            text(&v["vm"]),
            text(&v["from"]),
            text(&v["to"]),
            text(&v["vm"])
        ),
    }
}

/// `stork token create`.
pub(super) fn token(v: &Value) -> String {
    text(&v["token"])
}

/// `stork events`.
pub(super) fn events(v: &Value) -> String {
    let rows: Vec<Vec<String>> = list(&v["events"])
        .iter()
        .map(|e| vec![text(&e["number"]), text(&e["kind"]), text(&e["text"])])
        .collect();
    if rows.is_empty() { "nothing new".to_owned() } else { table(&rows) }
}

/// `stork reload`.
pub(super) fn reload(v: &Value) -> String {
    format!("{} VMs", text(&v["vms"]))
}

/// `stork store stat`.
pub(super) fn store_stat(v: &Value) -> String {
    format!(
        "{} objects, {}\n{} packs, {}\n{} package sets, {} of copies in them, {} trees\n{} free",
        text(&v["objects"]),
        size(&v["object_bytes"]),
        text(&v["packs"]),
        size(&v["pack_bytes"]),
        text(&v["sets"]),
        size(&v["copy_bytes"]),
        text(&v["trees"]),
        size(&v["free_bytes"]),
    )
}

/// `stork store verify`.
pub(super) fn store_verify(v: &Value) -> String {
    let damaged = list(&v["damaged"]);
    let mut out = format!(
        "{} objects, {} packs, {} manifests, {} hashed: {} damaged",
        text(&v["objects"]),
        text(&v["packs"]),
        text(&v["manifests"]),
        size(&v["bytes"]),
        damaged.len()
    );
    for d in &damaged {
        out += &format!("\n  {}", text(d));
    }
    if !damaged.is_empty() {
        out += &format!("\nmoved to {}, and fetched again", text(&v["quarantine"]));
    }
    out
}

/// `stork store gc`.
pub(super) fn store_gc(v: &Value) -> String {
    let done = if v["dry_run"] == Value::Bool(true) { "would be removed" } else { "removed" };
    format!(
        "{} objects, {} packs, {} sets, {} manifests {done}, {}",
        text(&v["objects"]),
        text(&v["packs"]),
        text(&v["sets"]),
        text(&v["manifests"]),
        size(&v["bytes"]),
    )
}
