//! The answers to `stork trust` as text for people.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use serde_json::Value;
use stork_publisher::out::day;

use super::show::{joined, list, text};

fn time(v: &Value) -> String {
    v.as_u64().map_or_else(|| "-".to_owned(), day)
}

/// `1 of 2 keys: SHA256:…, SHA256:…`
fn role(v: &Value) -> String {
    let keys: Vec<String> = list(&v["keys"]).iter().map(|k| text(&k["fingerprint"])).collect();
    format!("{} of {}: {}", text(&v["threshold"]), keys.len(), keys.join(", "))
}

/// What a document is, its number, and until when it is good.
fn document(kind: &str, v: &Value) -> String {
    let name = text(&v["name"]);
    let state = if v["state"] == "expired" { "RAN OUT" } else { "good until" };
    format!("{kind} {name}: document {}, {state} {}", text(&v["number"]), time(&v["expires"]))
}

/// `stork trust [VM|PACKAGE]`.
pub(super) fn trust(v: &Value) -> String {
    match v["view"].as_str() {
        Some("vm") => vm(v),
        Some("package") => package(v),
        _ => charter(v),
    }
}

fn grant(g: &Value) -> String {
    let provides = joined(&g["provides"]);
    let provides =
        if provides == "-" { String::new() } else { format!("; may provide {provides}") };
    format!("\n    {} may publish {}{provides}", text(&g["publisher"]), joined(&g["packages"]))
}

fn publisher(p: &Value) -> String {
    let mut out = format!("\n{}, epoch {}", document("publisher", p), text(&p["epoch"]));
    out += &format!(", feed {}", text(&p["freshness"]));
    out += &format!("\n    id {}", text(&p["id"]));
    out += &format!("\n    documents are signed by {}", role(&p["root"]));
    for k in list(&p["release_keys"]) {
        let retired = match k["valid_through"].as_str() {
            Some(at) => format!(", retired after entry {at}"),
            None => String::new(),
        };
        out += &format!(
            "\n    key {} releases {} until {}{retired}",
            text(&k["fingerprint"]),
            joined(&k["packages"]),
            time(&k["not_after"])
        );
    }
    for k in list(&p["beacon_keys"]) {
        out += &format!("\n    key {} signs beacons", text(&k["fingerprint"]));
    }
    for d in list(&p["delegations"]) {
        let ends = if d["terminating"] == true { ", and nobody after it is asked" } else { "" };
        out += &format!("\n    delegates {} to {}{ends}", joined(&d["packages"]), text(&d["name"]));
    }
    out
}

fn more(v: &Value, what: &str) -> String {
    let listed = list(&v[what]).len() as u64;
    match v[format!("{what}_in_all")].as_u64() {
        Some(all) if all > listed => format!("\n… and {} more {what}", all - listed),
        _ => String::new(),
    }
}

fn charter(v: &Value) -> String {
    let root = &v["root"];
    let mut out = format!("fleet {}", text(&v["fleet"]));
    if root.is_null() {
        return out + ": no charter has come yet";
    }
    out += &format!("\n{}", document("root", root));
    out += &format!("\n    documents are signed by {}", role(&root["root"]));
    out += &format!("\n    hosts are admitted by {}", role(&root["admission"]));
    for a in list(&root["authorities"]) {
        out += &format!("\n    groups `{}` are founded by {}", text(&a["names"]), role(&a["role"]));
    }
    for g in list(&v["groups"]) {
        out += &format!("\n{}", document("group", &g));
        out += &format!("\n    documents are signed by {}", role(&g["authority"]));
        out.extend(list(&g["publishers"]).iter().map(grant));
        for v in list(&g["veto"]) {
            let (key, end) = (text(&v["fingerprint"]), time(&v["not_after"]));
            out += &format!("\n    key {key} denies content to its VMs until {end}");
        }
        if g["private"] == true {
            out += "\n    private: only hosts whose certificates grant it read what comes";
        }
        if let Some(s) = g["beacon_s"].as_u64() {
            out += &format!("\n    beacons speak to its VMs for {s} s at the most");
        }
    }
    out += &more(v, "groups");
    out.extend(list(&v["publishers"]).iter().map(publisher));
    out += &more(v, "publishers");
    out.extend(list(&v["host_grants"]).iter().map(host_grant));
    out + &more(v, "host_grants")
}

/// What an admission key has said of a host since it joined.
fn host_grant(g: &Value) -> String {
    let name = if g["name"].is_null() { text(&g["id"]) } else { text(&g["name"]) };
    let groups = if g["groups"].is_null() { "all".to_owned() } else { joined(&g["groups"]) };
    let old = if g["signer_admits"] == true { "" } else { ", by a key that admits no more" };
    let labels = joined(&g["labels"]);
    format!("\nhost {name} may take part in private groups: {groups}; labels: {labels}{old}")
}

fn rule(r: &Value) -> String {
    let packages = joined(&r["packages"]);
    let mut out = format!(
        "rule {} (line {}): {} {}",
        text(&r["number"]),
        text(&r["line"]),
        text(&r["effect"]),
        text(&r["subject"])
    );
    if packages != "-" {
        out += &format!(", packages {packages}");
    }
    if !r["provides"].is_null() {
        out += &format!(", may provide {}", joined(&r["provides"]));
    }
    let asked = &r["publishers"];
    if !asked.is_null() {
        out += &format!(", if {} of {} announce it", text(&asked["need"]), joined(&asked["of"]));
    }
    if let Some(freshness) = r["freshness"].as_str() {
        out += &format!(", freshness {freshness}");
    }
    if r["delegations"] == true {
        out += ", and those to whom it delegates";
    }
    out
}

fn vm(v: &Value) -> String {
    let mut out = format!("{} ({})", text(&v["vm"]), text(&v["file"]));
    out += &format!("\ngroups: {}", joined(&v["groups"]));
    if !list(&v["unknown_groups"]).is_empty() {
        out += &format!("\nNO SUCH GROUP: {}", joined(&v["unknown_groups"]));
    }
    for r in list(&v["rules"]) {
        out += &format!("\n{}", rule(&r));
    }
    out += "\nwhat no rule names is denied";
    out += &format!(
        "\nfeeds that are not fresh: {}; dependencies: {}; privileged files: {}",
        text(&v["freshness"]),
        text(&v["depends"]),
        joined(&v["privileged"])
    );
    for m in list(&v["may"]) {
        let rules: Vec<String> = list(&m["rules"]).iter().map(|r| text(&r["number"])).collect();
        let rules = if rules.is_empty() {
            "no rule".to_owned()
        } else {
            format!("rule {}", rules.join(", "))
        };
        out += &format!(
            "\n{} may publish {} to group {} (document {}): {rules}; feed {}",
            text(&m["publisher"]),
            joined(&m["packages"]),
            text(&m["group"]),
            text(&m["group_number"]),
            text(&m["freshness"])
        );
    }
    out
}

fn keys(v: &Value) -> String {
    let all: Vec<String> = list(v).iter().map(|k| text(&k["fingerprint"])).collect();
    if all.is_empty() { "NO KEY of it may".to_owned() } else { format!("with {}", all.join(", ")) }
}

fn package(v: &Value) -> String {
    let mut out = format!("{}: {} releases known", text(&v["package"]), text(&v["known"]));
    for g in list(&v["granted"]) {
        out += &format!(
            "\ngroup {} (document {}) lets {} release it, {} (document {})",
            text(&g["group"]),
            text(&g["group_number"]),
            text(&g["publisher"]),
            keys(&g["keys"]),
            text(&g["publisher_number"])
        );
        for d in list(&g["delegates"]) {
            out += &format!("\n    delegated to {}, {}", text(&d["publisher"]), keys(&d["keys"]));
        }
        if let Some(why) = g["search_ended"].as_str() {
            out += &format!("\n    the search for delegates ended early: {why}");
        }
    }
    if list(&v["granted"]).is_empty() {
        out += "\nno group lets anybody release it";
    }
    for vm in list(&v["vms"]) {
        out += &format!(
            "\nVM {} subscribes ({}:{})",
            text(&vm["vm"]),
            text(&vm["file"]),
            text(&vm["subscribed_in_line"])
        );
        for d in list(&vm["decisions"]) {
            let by =
                if d["rule"].is_null() { "no rule names it".to_owned() } else { rule(&d["rule"]) };
            out += &format!("\n    {}: {} ({by})", text(&d["publisher"]), text(&d["effect"]));
        }
    }
    out
}
