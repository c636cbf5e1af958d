//! `stork release RELEASE --watch` and `stork tree RELEASE --watch`: follows a release until it is
//! whole on this host and shown by the VMs that want it.
//!
//! On a terminal a picture is drawn again in place; otherwise there is a line for each change, and
//! with `--json` an object for each. Numbers change all the time, so the daemon is asked a few
//! times a second rather than told to speak.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null for what is not there"
)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::out::{bytes, causes, failure, note};
use super::show::{list, text};
use super::tree::{here, left, number, percent, rate, straggler, title};
use crate::control::{Client, ClientError, path_segment};

/// Between two questions to the daemon: four pictures a second look alive and cost it nothing.
const EVERY: Duration = Duration::from_millis(250);
/// How long a release may be wanted by no VM before the watch ends. A VM's file is read every
/// second, and what follows from it and from an announcement takes less than one more.
const UNWANTED: Duration = Duration::from_secs(3);
/// A line for a log is printed when so many hundredths more have come.
const STEP_PERCENT: u64 = 10;
/// Feeders that a picture names.
const FEEDERS: usize = 3;
/// Stragglers that it names.
const STRAGGLERS: usize = 3;
/// Lines of a picture: with more than a terminal has, it could not be drawn again in place.
const LINES: usize = 22;
/// Characters of the bar.
const BAR: u64 = 30;
/// Exit code when the user interrupts it, as shells count signals.
const INTERRUPTED: u8 = 130;

/// How the release is drawn on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Picture {
    /// A bar with the top feeders.
    Bar,
    /// All peers.
    Tree,
}

/// How far a watch is.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It goes on.
    Goes,
    /// It is here, and shown where it should be.
    Done,
    /// It cannot be had, or not be shown: what, and why.
    Failed(String, String),
    /// No VM wants it, and it is not here.
    Unwanted(String),
}

fn is(v: &Value, key: &str) -> bool {
    v[key] == Value::Bool(true)
}

/// Are the packs of a release here, so that others get it from this host?
fn is_here(r: &Value) -> bool {
    let whole = |c: &Value| c["have"] == c["pieces"];
    r["state"] == "whole" || (is(r, "origin") && list(&r["contents"]).iter().any(whole))
}

/// What follows from an answer. Of several architectures those count that a VM wants.
fn outcome(v: &Value) -> Outcome {
    let all = list(&v["releases"]);
    let wanted: Vec<&Value> = all.iter().filter(|r| is(r, "wanted")).collect();
    for r in &all {
        if let Some(why) = r["failed"].as_str() {
            return Outcome::Failed(format!("{} was not fetched", title(r)), why.to_owned());
        }
        for vm in list(&r["vms"]).iter().filter(|vm| !is(vm, "shows")) {
            if let Some(why) = vm["error"].as_str() {
                let what = format!("{} does not show {}", text(&vm["name"]), title(r));
                return Outcome::Failed(what, why.to_owned());
            }
        }
    }
    if wanted.is_empty() {
        let first = all.first().map_or_else(String::new, title);
        return if all.iter().any(is_here) { Outcome::Done } else { Outcome::Unwanted(first) };
    }
    let shown = |r: &Value| list(&r["vms"]).iter().all(|vm| is(vm, "shows"));
    let done = wanted.iter().all(|r| r["state"] == "whole" && shown(r));
    if done { Outcome::Done } else { Outcome::Goes }
}

/// Follows a release to its end.
pub(super) async fn watch(client: &Client, what: &str, picture: Picture, json: bool) -> ExitCode {
    let mut screen = Screen::new(json, picture);
    let code = tokio::select! {
        code = follow(client, what, &mut screen) => code,
        _ = tokio::signal::ctrl_c() => {
            note("stopped watching; the host goes on");
            Ok(ExitCode::from(INTERRUPTED))
        }
    };
    code.unwrap_or_else(|e| failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()))
}

async fn follow(client: &Client, what: &str, screen: &mut Screen) -> Result<ExitCode, ClientError> {
    let mut value = client.get(&path("/v1/tree", what)).await?;
    // A newer release under the same name is another one.
    let ids: Vec<String> = list(&value["releases"]).iter().map(|r| text(&r["manifest"])).collect();
    let mut unwanted: Option<Instant> = None;
    loop {
        if screen.show(&value).is_err() {
            // Whoever read this went away: nobody is left to watch.
            return Ok(ExitCode::SUCCESS);
        }
        match outcome(&value) {
            Outcome::Done => return Ok(ExitCode::SUCCESS),
            Outcome::Failed(what, why) => {
                let help = "the host tries again by itself; `stork events` says more";
                return Ok(failure(&what, &[why], help, 1));
            }
            Outcome::Unwanted(what)
                if unwanted.get_or_insert_with(Instant::now).elapsed() >= UNWANTED =>
            {
                let what = format!("no VM of this host wants {what}, so that it is not fetched");
                let help = "`stork why VM PACKAGE` says why not";
                return Ok(failure(&what, &[], help, 7));
            }
            Outcome::Unwanted(_) => {}
            Outcome::Goes => unwanted = None,
        }
        tokio::time::sleep(EVERY).await;
        value = ask_again(client, &ids).await?;
    }
}

fn path(route: &str, what: &str) -> String {
    format!("{route}/{}", path_segment(what))
}

/// The same releases again, in one answer.
async fn ask_again(client: &Client, ids: &[String]) -> Result<Value, ClientError> {
    let mut all = Value::Null;
    let mut releases = Vec::new();
    for id in ids {
        let mut value = client.get(&path("/v1/tree", id)).await?;
        releases.extend(list(&value["releases"].take()));
        all = value;
    }
    all["releases"] = json!(releases);
    Ok(all)
}

/// What a log or a program is told again only when it has changed.
fn news(v: &Value, step: u64) -> Value {
    let one = |r: &Value| {
        let content = |c: &Value| {
            let percent = number(&c["have_bytes"]) * 100 / number(&c["bytes"]).max(1);
            let behind: Vec<Value> =
                list(&c["stragglers"]).iter().map(|p| p["host"].clone()).collect();
            json!([c["variant"], percent / step.max(1), behind])
        };
        let contents: Vec<Value> = list(&r["contents"]).iter().map(content).collect();
        json!([r["state"], r["vms"], contents])
    };
    Value::from_iter(list(&v["releases"]).iter().map(one))
}

/// Where and how it is shown.
struct Screen {
    json: bool,
    terminal: bool,
    picture: Picture,
    /// Lines of the picture that is drawn.
    drawn: usize,
    last: Value,
}

impl Screen {
    fn new(json: bool, picture: Picture) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        let terminal = !json && !dumb && std::io::stdout().is_terminal();
        Self { json, terminal, picture, drawn: 0, last: Value::Null }
    }

    fn show(&mut self, v: &Value) -> std::io::Result<()> {
        if self.terminal {
            return self.draw(v);
        }
        let news = news(v, if self.json { 1 } else { STEP_PERCENT });
        if news == self.last {
            return Ok(());
        }
        self.last = news;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{v}")?;
        } else {
            for r in list(&v["releases"]) {
                writeln!(out, "{}", line(&r))?;
            }
        }
        out.flush()
    }

    fn draw(&mut self, v: &Value) -> std::io::Result<()> {
        let frame = match self.picture {
            Picture::Tree => super::tree::tree(v),
            Picture::Bar => list(&v["releases"]).iter().map(bar).collect::<Vec<_>>().join("\n"),
        };
        let frame = cut(&frame);
        // Up to the first line; every line without wrapping, and cleared behind its end.
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let body = frame.lines().map(|l| format!("{l}\x1b[K")).collect::<Vec<_>>().join("\n");
        self.drawn = frame.lines().count();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{up}\x1b[?7l{body}\x1b[?7h\x1b[J")?;
        out.flush()
    }
}

/// As much of a picture as fits.
fn cut(frame: &str) -> String {
    let all: Vec<&str> = frame.lines().collect();
    if all.len() <= LINES {
        return frame.to_owned();
    }
    let shown = all.get(..LINES - 1).unwrap_or_default().join("\n");
    format!("{shown}\n… {} more lines: without --watch", all.len() + 1 - LINES)
}

/// The content that is being fetched; of a release that is whole, any.
fn content(r: &Value) -> Option<Value> {
    let all = list(&r["contents"]);
    let fetched = all.iter().find(|c| c["role"] == "leech").cloned();
    fetched.or_else(|| all.into_iter().next())
}

/// Those who brought the most: name, bytes and rate.
fn feeders(c: &Value) -> Vec<String> {
    let mut all = list(&c["fed_by"]);
    all.retain(|p| !p["host"].is_null() && number(&p["bytes"]) > 0);
    all.sort_by_key(|p| core::cmp::Reverse(number(&p["bytes"])));
    let comes = number(&c["have_bytes"]) < number(&c["bytes"]);
    let one = |p: &Value| {
        let rate = rate(&p["rate"]).filter(|_| comes);
        let rate = rate.map_or_else(String::new, |r| format!(" ({r})"));
        format!("{} {}{rate}", text(&p["host"]), bytes(number(&p["bytes"])))
    };
    let mut named: Vec<String> = all.iter().take(FEEDERS).map(one).collect();
    if all.len() > FEEDERS {
        named.push(format!("{} more", all.len() - FEEDERS));
    }
    named
}

fn stragglers(c: &Value) -> Vec<String> {
    let (all, pieces) = (list(&c["stragglers"]), number(&c["pieces"]));
    let mut named: Vec<String> =
        all.iter().take(STRAGGLERS).map(|p| straggler(p, pieces)).collect();
    if all.len() > STRAGGLERS {
        named.push(format!("{} more", all.len() - STRAGGLERS));
    }
    named
}

/// How far, how fast, how long yet.
fn progress(c: &Value) -> String {
    let (have, all) = (number(&c["have_bytes"]), number(&c["bytes"]));
    let mut parts = vec![format!("{} of {}", bytes(have), bytes(all))];
    if have < all {
        parts.extend(rate(&c["rate"]));
        parts.push(left(c));
    }
    parts.join(", ")
}

/// One line for a log.
fn line(r: &Value) -> String {
    let mut out = format!("{}: {}", title(r), here(r));
    let Some(c) = content(r) else { return out };
    out += &format!("; {}", progress(&c));
    for (what, all) in [("from", feeders(&c)), ("behind:", stragglers(&c))] {
        if !all.is_empty() {
            out += &format!("; {what} {}", all.join(", "));
        }
    }
    out
}

/// A few lines for a terminal.
fn bar(r: &Value) -> String {
    let mut out = format!("{}: {}", title(r), here(r));
    let Some(c) = content(r) else { return out };
    let (have, all) = (number(&c["have_bytes"]), number(&c["bytes"]));
    let full = usize::try_from(have.saturating_mul(BAR) / all.max(1)).unwrap_or(0);
    let empty = usize::try_from(BAR).unwrap_or(0).saturating_sub(full);
    let (full, empty) = ("=".repeat(full), " ".repeat(empty));
    out += &format!("\n  [{full}{empty}] {} {}", percent(have, all), progress(&c));
    for from in feeders(&c) {
        out += &format!("\n  from {from}");
    }
    for behind in stragglers(&c) {
        out += &format!("\n  behind: {behind}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: &str, shows: bool) -> Value {
        json!({ "releases": [{
            "package": "app", "version": "1.0", "arch": "all", "state": state, "wanted": true,
            "origin": false, "failed": null,
            "vms": [{ "name": "web-1", "shows": shows, "error": null }],
            "contents": [{
                "variant": "full", "role": "leech", "have": 4, "pieces": 8, "bytes": 8192,
                "have_bytes": 4096, "rate": 2048, "eta_ms": 2000, "hungry_ms": 0,
                "fed_by": [
                    { "kind": "before", "bytes": 1024 },
                    { "kind": "host", "host": "host-1", "bytes": 1024, "rate": 0 },
                    { "kind": "host", "host": "host-3", "bytes": 2048, "rate": 2048 },
                ],
                "stragglers": [{ "host": "host-4", "has": 1, "behind": "lags" }],
            }],
        }]})
    }

    /// A watch ends when the release is whole and each VM that wants it shows it.
    #[test]
    fn the_end() {
        assert_eq!(outcome(&answer("fetching", false)), Outcome::Goes);
        assert_eq!(outcome(&answer("whole", false)), Outcome::Goes);
        assert_eq!(outcome(&answer("whole", true)), Outcome::Done);
        let mut failed = answer("failed: no space", false);
        failed["releases"][0]["failed"] = json!("no space");
        let what = "app 1.0 (all) was not fetched".to_owned();
        assert_eq!(outcome(&failed), Outcome::Failed(what, "no space".to_owned()));
        let mut stuck = answer("whole", false);
        stuck["releases"][0]["vms"][0]["error"] = json!("the hook failed");
        let what = "web-1 does not show app 1.0 (all)".to_owned();
        assert_eq!(outcome(&stuck), Outcome::Failed(what.clone(), "the hook failed".to_owned()));
        // A hook that failed may have rolled it back: then no VM wants it, and it is whole.
        stuck["releases"][0]["wanted"] = json!(false);
        assert_eq!(outcome(&stuck), Outcome::Failed(what, "the hook failed".to_owned()));
    }

    /// Where no VM wants it, a host has it that got the push; others never will.
    #[test]
    fn nobody_wants_it() {
        let mut v = answer("known", false);
        v["releases"][0]["wanted"] = json!(false);
        assert_eq!(outcome(&v), Outcome::Unwanted("app 1.0 (all)".to_owned()));
        v["releases"][0]["origin"] = json!(true);
        assert_eq!(outcome(&v), Outcome::Unwanted("app 1.0 (all)".to_owned()));
        v["releases"][0]["contents"][0]["have"] = json!(8);
        assert_eq!(outcome(&v), Outcome::Done);
    }

    /// Of two architectures only the one that a VM wants counts.
    #[test]
    fn another_architecture_does_not_count() {
        let mut v = answer("whole", true);
        let mut other = answer("known", false)["releases"][0].take();
        other["wanted"] = json!(false);
        v["releases"].as_array_mut().unwrap().push(other);
        assert_eq!(outcome(&v), Outcome::Done);
    }

    /// The picture and the line for a log.
    #[test]
    fn pictures() {
        let v = answer("fetching", false);
        assert_eq!(
            bar(&v["releases"][0]).lines().collect::<Vec<_>>(),
            [
                "app 1.0 (all): fetching; not shown yet by web-1",
                "  [===============               ] 50 % 4.00 KiB of 8.00 KiB, 2.00 KiB/s, \
                 2 s left",
                "  from host-3 2.00 KiB (2.00 KiB/s)",
                "  from host-1 1.00 KiB",
                "  behind: host-4 has 12 %, less than half of the middle",
            ]
        );
        assert_eq!(
            line(&v["releases"][0]),
            "app 1.0 (all): fetching; not shown yet by web-1; 4.00 KiB of 8.00 KiB, 2.00 KiB/s, \
             2 s left; from host-3 2.00 KiB (2.00 KiB/s), host-1 1.00 KiB; behind: host-4 has \
             12 %, less than half of the middle"
        );
    }

    /// A picture never has more lines than a terminal.
    #[test]
    fn a_picture_fits() {
        let lines = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(cut(&lines(LINES)), lines(LINES));
        let cut = cut(&lines(LINES + 8));
        assert_eq!(cut.lines().count(), LINES);
        assert!(cut.ends_with("\n20\n… 9 more lines: without --watch"), "{cut}");
    }

    /// A rate alone is no news; a step of progress, a straggler, a state and a VM are.
    #[test]
    fn what_is_news() {
        let v = answer("fetching", false);
        let changed = |change: &dyn Fn(&mut Value), step| {
            let mut other = v.clone();
            change(&mut other["releases"][0]);
            news(&other, step) != news(&v, step)
        };
        assert!(!changed(&|r| r["contents"][0]["rate"] = json!(1), 1));
        let little = |r: &mut Value| r["contents"][0]["have_bytes"] = json!(4300);
        assert!(changed(&little, 1) && !changed(&little, STEP_PERCENT));
        assert!(changed(&|r| r["contents"][0]["stragglers"] = json!([]), STEP_PERCENT));
        assert!(changed(&|r| r["state"] = json!("whole"), STEP_PERCENT));
        assert!(changed(&|r| r["vms"][0]["shows"] = json!(true), STEP_PERCENT));
    }
}
