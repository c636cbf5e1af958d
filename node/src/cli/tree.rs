//! The answer to `stork tree` as text for people: who feeds this host, and whom it feeds.

use serde_json::Value;

use super::out::{bytes, table};
use super::show::{joined, list, text};

/// Peers that are listed on each side; the others are added up. A screen has room for both sides.
const PEERS_SHOWN: usize = 12;
/// Stripes and stragglers that are named in a line.
const NAMED_MAX: usize = 8;

pub(super) fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or(0)
}

/// `46 %`, rounded down, so that only all of it is 100.
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{} %", part.saturating_mul(100) / whole.max(1))
}

pub(super) fn rate(v: &Value) -> Option<String> {
    Some(number(v)).filter(|n| *n > 0).map(|n| format!("{}/s", bytes(n)))
}

/// `4 s`, `3 min`, `2 h`: a time that is reckoned needs no more figures.
pub(super) fn span(ms: u64) -> String {
    match ms.div_ceil(1_000) {
        s @ ..100 => format!("{s} s"),
        s @ 100..6_000 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h", s.div_ceil(3_600)),
    }
}

/// `app 1.0 (all)`.
pub(super) fn title(r: &Value) -> String {
    format!("{} {} ({})", text(&r["package"]), text(&r["version"]), text(&r["arch"]))
}

/// `stork tree`.
pub(super) fn tree(v: &Value) -> String {
    list(&v["releases"]).iter().map(|r| release(v, r)).collect::<Vec<_>>().join("\n")
}

fn release(v: &Value, r: &Value) -> String {
    let mut out = format!("{} by {}: {}", title(r), text(&r["publisher"]), here(r));
    let contents = list(&r["contents"]);
    for c in &contents {
        out += &format!("\n  {}\n{}", head(c), body(v, c));
        for line in rest(c) {
            out += &format!("\n  {line}");
        }
    }
    if contents.is_empty() {
        out += &format!("\n  {}", nothing(r));
    }
    out
}

/// How far a release is on this host, and which VMs wait for it.
pub(super) fn here(r: &Value) -> String {
    let vms = list(&r["vms"]);
    let of = |shows: bool| {
        let some = vms.iter().filter(|vm| (vm["shows"] == Value::Bool(true)) == shows);
        some.map(|vm| text(&vm["name"])).collect::<Vec<_>>()
    };
    let state = match r["state"].as_str() {
        Some("known") if r["origin"] == Value::Bool(true) => "pushed to this host".to_owned(),
        Some("whole") if !r["took_ms"].is_null() => {
            format!("whole after {}", span(number(&r["took_ms"])))
        }
        _ => text(&r["state"]),
    };
    let line = |what: &str, names: Vec<String>| {
        let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        match names.len() {
            0 => String::new(),
            n if n > NAMED_MAX => format!("; {what} {named} and {} more", n - NAMED_MAX),
            _ => format!("; {what} {named}"),
        }
    };
    format!("{state}{}{}", line("shown by", of(true)), line("not shown yet by", of(false)))
}

/// Why there is no picture of a release.
fn nothing(r: &Value) -> &'static str {
    match (r["state"].as_str(), r["wanted"] == Value::Bool(true)) {
        (Some("whole"), _) => "its packs are not kept here: this host serves nothing of it",
        (Some("known"), false) => "no VM of this host wants it, so that it is not fetched",
        _ => "no piece is on its way yet",
    }
}

/// One line about a content as a whole.
fn head(c: &Value) -> String {
    let (have, all) = (number(&c["have_bytes"]), number(&c["bytes"]));
    let mut parts = vec![format!(
        "{} as {}: {} of {} ({}), {} of {} pieces",
        text(&c["variant"]),
        text(&c["role"]),
        bytes(have),
        bytes(all),
        percent(have, all),
        text(&c["have"]),
        text(&c["pieces"]),
    )];
    parts.extend(rate(&c["rate"]).map(|r| format!("{r} in")));
    parts.extend(rate(&c["rate_up"]).map(|r| format!("{r} out")));
    if have < all {
        parts.push(left(c));
    }
    parts.join(", ")
}

/// When all will be here.
pub(super) fn left(c: &Value) -> String {
    c["eta_ms"].as_u64().map_or_else(
        || format!("nothing comes for {}", span(number(&c["hungry_ms"]))),
        |ms| format!("{} left", span(ms)),
    )
}

/// Peers of one side, the most bytes first, with what goes beyond the room in one line.
fn side(c: &Value, key: &str, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    let mut all = list(&c[key]);
    all.sort_by_key(|p| core::cmp::Reverse(number(&p["bytes"])));
    let more = all.split_off(all.len().min(PEERS_SHOWN));
    let mut rows: Vec<Vec<String>> = all.iter().map(row).collect();
    if !more.is_empty() {
        let sum = more.iter().map(|p| number(&p["bytes"])).sum();
        rows.push(vec![format!("{} more", more.len()), bytes(sum)]);
    }
    rows
}

/// This host between those who feed it and those whom it feeds.
fn body(v: &Value, c: &Value) -> String {
    let have = number(&c["have_bytes"]);
    let above = side(c, "fed_by", |p| giver(p, have));
    let below = side(c, "feeds", taker);
    let mut rows = Vec::new();
    for (i, mut row) in above.into_iter().enumerate() {
        let mark = if i == 0 { "┌" } else { "├" };
        row.first_mut().into_iter().for_each(|name| name.insert_str(0, &format!("    {mark} ")));
        rows.push(row);
    }
    let me = format!("    {} at {} (this host)", text(&v["name"]), text(&v["site"]));
    rows.push(vec![me, bytes(have)]);
    let last = below.len().saturating_sub(1);
    for (i, mut row) in below.into_iter().enumerate() {
        let mark = if i == last { "└" } else { "├" };
        row.first_mut().into_iter().for_each(|name| name.insert_str(0, &format!("    {mark} ")));
        rows.push(row);
    }
    table(&rows)
}

/// A host with its site, or what else bytes come from.
fn named(p: &Value) -> String {
    match p["kind"].as_str() {
        Some("publisher") => "the publisher".to_owned(),
        Some("before") => "was on disk before".to_owned(),
        Some("others") => "other hosts".to_owned(),
        Some("host") if !p["site"].is_null() => {
            format!("{} at {}", text(&p["host"]), text(&p["site"]))
        }
        _ => text(&p["host"]),
    }
}

fn on_their_way(pieces: u64) -> Option<String> {
    match pieces {
        0 => None,
        1 => Some("1 piece on its way".to_owned()),
        n => Some(format!("{n} pieces on their way")),
    }
}

fn giver(p: &Value, have: u64) -> Vec<String> {
    let share = percent(number(&p["bytes"]), have);
    let (along, asked) = (number(&p["along_stripes"]), number(&p["asked"]));
    let mut notes: Vec<String> = Vec::new();
    notes.extend((p["origin"] == Value::Bool(true)).then(|| "has it from the publisher".into()));
    match joined(&p["stripes"]).as_str() {
        "-" if along > 0 => notes.push(format!("{} along stripes", bytes(along))),
        "-" => {}
        stripes => notes.push(format!("stripes {stripes}")),
    }
    notes.extend(on_their_way(asked));
    let twice = number(&p["twice"]);
    notes.extend((twice > 0).then(|| format!("{} more came twice", bytes(twice))));
    let rate = rate(&p["rate"]).unwrap_or_default();
    vec![named(p), bytes(number(&p["bytes"])), share, rate, notes.join(", ")]
}

fn taker(p: &Value) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    match joined(&p["stripes"]).as_str() {
        "-" if number(&p["along_stripes"]) > 0 => notes.push("along stripes".into()),
        "-" => {}
        stripes => notes.push(format!("stripes {stripes}")),
    }
    notes.extend(on_their_way(number(&p["sending"])));
    let rate = rate(&p["rate"]).unwrap_or_default();
    vec![named(p), bytes(number(&p["bytes"])), String::new(), rate, notes.join(", ")]
}

/// `host-4 has 12 % and nothing new for 8 s`.
pub(super) fn straggler(p: &Value, pieces: u64) -> String {
    let has = percent(number(&p["has"]), pieces);
    let still = span(number(&p["still_ms"]));
    match p["behind"].as_str() {
        Some("stands") => format!("{} has {has} and nothing new for {still}", text(&p["host"])),
        _ => format!("{} has {has}, less than half of the middle", text(&p["host"])),
    }
}

/// What the picture does not show: neighbours without traffic, stragglers, stripes.
fn rest(c: &Value) -> Vec<String> {
    let pieces = number(&c["pieces"]);
    let mut out = Vec::new();
    let idle = list(&c["idle"]);
    if !idle.is_empty() {
        let names: Vec<String> = idle.iter().take(NAMED_MAX).map(|p| text(&p["host"])).collect();
        let more = idle.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        out.push(format!("neighbours without traffic: {}{more}", names.join(", ")));
    }
    let behind = list(&c["stragglers"]);
    out.extend(behind.iter().take(NAMED_MAX).map(|p| format!("behind: {}", straggler(p, pieces))));
    if behind.len() > NAMED_MAX {
        out.push(format!("behind: {} more", behind.len() - NAMED_MAX));
    }
    out.extend(parents(&list(&c["stripes"])));
    out
}

/// One line for each host of another site from which this one fetches stripes.
fn parents(stripes: &[Value]) -> Vec<String> {
    let mut from: Vec<&str> = stripes.iter().filter_map(|s| s["from"].as_str()).collect();
    from.sort_unstable();
    from.dedup();
    let line = |name: &&str| {
        let its = || stripes.iter().filter(|s| s["from"].as_str() == Some(*name));
        let sum = |key: &str| its().map(|s| number(&s[key])).sum::<u64>();
        let last = match its().filter_map(|s| s["idle_ms"].as_u64()).min() {
            Some(ms) => format!("the last piece {} ago", span(ms)),
            None => "not asked yet".to_owned(),
        };
        let (n, have, pieces) = (its().count(), sum("have"), sum("pieces"));
        let stripes = if n == 1 { "stripe" } else { "stripes" };
        format!(
            "for this site from {name}: {n} {stripes}, {have} of {pieces} pieces here, {} still \
             to come, {last}",
            sum("expected"),
        )
    };
    from.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn answer() -> Value {
        json!({ "name": "host-2", "site": "default", "releases": [{
            "package": "app", "version": "1.0", "arch": "all", "publisher": "acme",
            "state": "fetching", "wanted": true, "origin": false,
            "vms": [{ "name": "web-1", "shows": false }],
            "contents": [{
                "variant": "full", "role": "leech", "pieces": 256, "have": 128,
                "bytes": 8 * MIB, "have_bytes": 4 * MIB, "rate": 2 * MIB, "rate_up": 0,
                "eta_ms": 2_000, "hungry_ms": 10,
                "fed_by": [
                    { "kind": "before", "bytes": MIB / 2 },
                    { "kind": "host", "host": "host-1", "site": "default", "origin": true,
                      "bytes": 2 * MIB, "rate": MIB, "asked": 3, "stripes": [], "twice": 0 },
                    { "kind": "host", "host": "host-9", "site": "far", "origin": false,
                      "bytes": MIB * 3 / 2, "rate": 0, "asked": 0, "stripes": [3, 7],
                      "along_stripes": MIB, "twice": 2048 },
                ],
                "feeds": [{ "kind": "host", "host": "host-3", "site": "default",
                            "bytes": MIB, "rate": MIB / 2, "sending": 1, "stripes": [] }],
                "idle": [{ "host": "host-5" }],
                "stragglers": [{ "host": "host-4", "has": 25, "still_ms": 8_000,
                                 "behind": "stands" }],
                "stripes": [
                    { "stripe": 2, "from": null },
                    { "stripe": 3, "from": "host-9", "have": 10, "pieces": 16, "expected": 6,
                      "idle_ms": 3_000 },
                    { "stripe": 7, "from": "host-9", "have": 5, "pieces": 16, "expected": 11,
                      "idle_ms": 300 },
                ],
            }],
        }]})
    }

    /// The whole picture of a content that is half here.
    #[test]
    fn a_tree() {
        let text = tree(&answer());
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "app 1.0 (all) by acme: fetching; not shown yet by web-1",
            "  full as leech: 4.00 MiB of 8.00 MiB (50 %), 128 of 256 pieces, 2.00 MiB/s in, \
             2 s left",
            "    ┌ host-1 at default             2.00 MiB    50 %  1.00 MiB/s    has it from the \
             publisher, 3 pieces on their way",
            "    ├ host-9 at far                 1.50 MiB    37 %                stripes 3, 7, \
             2.00 KiB more came twice",
            "    ├ was on disk before            512.00 KiB  12 %",
            "    host-2 at default (this host)   4.00 MiB",
            "    └ host-3 at default             1.00 MiB          512.00 KiB/s  1 piece on \
             its way",
            "  neighbours without traffic: host-5",
            "  behind: host-4 has 9 % and nothing new for 8 s",
            "  for this site from host-9: 2 stripes, 15 of 32 pieces here, 17 still to come, the \
             last piece 1 s ago",
        ];
        let squeezed = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(squeezed(line), squeezed(expected));
        }
        assert_eq!(lines.len(), expected.len());
        let column = |l: &str| l.chars().position(|c| c.is_ascii_digit() && l.contains("MiB"));
        assert!(column(lines[5]).is_some());
        let starts: Vec<usize> =
            [2, 3, 5, 6].map(|i| lines[i].split(" MiB").next().unwrap().chars().count()).into();
        assert!(starts.windows(2).all(|w| w[0] == w[1]), "columns line up: {text}");
    }

    /// More peers than fit are added up, and none is lost.
    #[test]
    fn a_crowd_is_added_up() {
        let mut v = answer();
        let many: Vec<Value> = (1..=20)
            .map(|i| json!({ "kind": "host", "host": format!("h{i}"), "bytes": i * 1024 }))
            .collect();
        v["releases"][0]["contents"][0]["feeds"] = json!(many);
        let text = tree(&v);
        assert_eq!(text.lines().filter(|l| l.contains("├ h")).count(), PEERS_SHOWN + 1, "{text}");
        let last = text.lines().find(|l| l.contains('└')).unwrap();
        assert!(last.contains("8 more") && last.contains("36.00 KiB"), "{last}");
    }

    /// What is not fetched, not begun or not kept says so.
    #[test]
    fn where_there_is_no_picture() {
        let mut v = answer();
        v["releases"][0]["contents"] = json!([]);
        assert!(tree(&v).ends_with("no piece is on its way yet"));
        v["releases"][0]["state"] = json!("known");
        v["releases"][0]["wanted"] = json!(false);
        assert!(tree(&v).ends_with("no VM of this host wants it, so that it is not fetched"));
        v["releases"][0]["state"] = json!("whole");
        assert!(tree(&v).ends_with("this host serves nothing of it"));
    }

    /// A time that is left is rounded up, a share down.
    #[test]
    fn figures() {
        assert_eq!([1, 99_000, 100_000, 5_999_000].map(span), ["1 s", "99 s", "2 min", "100 min"]);
        assert_eq!(span(7_200_001), "3 h");
        assert_eq!([percent(999, 1_000), percent(0, 0)], ["99 %", "0 %"]);
    }
}
