//! What the demonstration shows: a table that is drawn again in place on a terminal, one line for
//! each change otherwise, or one JSON object for each event.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::out;

/// Between two drawings of the table.
const FRAME: Duration = Duration::from_millis(50);

/// How things are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Terminal,
    Lines,
    Json,
}

/// One VM in the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Row {
    pub(super) host: String,
    pub(super) vm: String,
    pub(super) wish: String,
    pub(super) version: String,
    pub(super) state: String,
    pub(super) right: bool,
    /// Host and bytes, for the release that is watched.
    pub(super) from: Vec<(String, u64)>,
    /// The publisher brought it to this host.
    pub(super) pushed: bool,
    /// The host's first VM names where the bytes came from.
    pub(super) first: bool,
}

impl Row {
    fn sources(&self) -> String {
        if self.pushed {
            return "from the publisher".to_owned();
        }
        let each = self.from.iter().map(|(host, n)| format!("{} from {host}", out::bytes(*n)));
        each.collect::<Vec<_>>().join(", ")
    }

    fn cells(&self) -> Vec<String> {
        let mark = if self.right { " ✔" } else { "" };
        let from = if self.first { self.sources() } else { String::new() };
        let host = if self.first { self.host.clone() } else { String::new() };
        let (vm, wish) = (self.vm.clone(), self.wish.clone());
        let version = format!("{}{mark}", self.version);
        vec![host, vm, wish, version, self.state.clone(), from]
    }
}

/// The screen, a pipe or a log.
#[derive(Debug)]
pub(super) struct Screen {
    mode: Mode,
    began: Instant,
    /// Lines of the table that is drawn.
    drawn: usize,
    drawn_at: Option<Instant>,
    last: BTreeMap<String, Row>,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        let mode = match (json, std::io::stdout().is_terminal() && !dumb) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Lines,
        };
        let (drawn, drawn_at, last) = (0, None, BTreeMap::new());
        Self { mode, began: Instant::now(), drawn, drawn_at, last }
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_json(&self) -> bool {
        self.mode == Mode::Json
    }

    /// A thing that happened: `text` for people, `more` for programs.
    pub(super) fn event(&mut self, event: &str, text: &str, more: &Value) {
        self.drawn = 0;
        if self.mode != Mode::Json {
            return out::result(text);
        }
        let mut all = json!({ "event": event, "at_ms": self.ms() });
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        out::result(&all.to_string());
    }

    /// A new part of the story.
    pub(super) fn step(&mut self, text: &str) {
        let shown = if self.drawn_at.is_none() && self.last.is_empty() && self.ms() < 5 {
            text.to_owned()
        } else {
            format!("\n{text}")
        };
        self.event("step", &shown, &json!({ "text": text }));
    }

    /// The table as it is now; `last`: it stays as it is.
    pub(super) fn table(&mut self, rows: &[Row], last: bool) {
        let changed: Vec<Row> =
            rows.iter().filter(|r| self.last.get(&r.vm) != Some(r)).cloned().collect();
        match self.mode {
            Mode::Terminal => {
                let fresh = self.drawn_at.is_some_and(|at| at.elapsed() < FRAME);
                if self.drawn > 0 && (changed.is_empty() || fresh && !last) {
                    // What is not drawn now is a change at the next call as well.
                    return self.end_table_if(last);
                }
                self.draw(rows);
            }
            Mode::Lines => self.lines(&changed),
            Mode::Json => self.objects(&changed),
        }
        for row in changed {
            self.last.insert(row.vm.clone(), row);
        }
        self.end_table_if(last);
    }

    fn draw(&mut self, rows: &[Row]) {
        let head = ["HOST", "VM", "WANTS", "SHOWS", "STATE", "THIS VERSION'S BYTES"];
        let head = head.iter().map(|h| (*h).to_owned()).collect();
        let all: Vec<Vec<String>> =
            std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
        let table = out::table(&all);
        // Up to the first line; every line without wrapping, and cleared behind its end.
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let body = table.lines().map(|l| format!("{l}\x1b[K")).collect::<Vec<_>>().join("\n");
        out::result(&format!("{up}\x1b[?7l{body}\x1b[?7h"));
        self.drawn = table.lines().count();
        self.drawn_at = Some(Instant::now());
    }

    const fn end_table_if(&mut self, last: bool) {
        if last {
            self.drawn = 0;
        }
    }

    fn lines(&self, changed: &[Row]) {
        let seconds = self.began.elapsed().as_secs_f32();
        for row in changed {
            let old = self.last.get(&row.vm);
            // Bytes alone change too often for a log; they are told with the version.
            if old.is_some_and(|o| o.version == row.version && o.state == row.state) {
                continue;
            }
            let mark = if row.right { " ✔" } else { "" };
            let (host, vm, version, state) = (&row.host, &row.vm, &row.version, &row.state);
            let from = if row.right && row.first { row.sources() } else { String::new() };
            let line = format!("{seconds:7.3} s  {host}  {vm:5}  {version}{mark}  {state}  {from}");
            out::result(line.trim_end());
        }
    }

    fn objects(&self, changed: &[Row]) {
        for row in changed {
            let from: Vec<Value> =
                row.from.iter().map(|(h, n)| json!({ "host": h, "bytes": n })).collect();
            let object = json!({
                "event": "vm", "at_ms": self.ms(), "host": row.host, "vm": row.vm,
                "version": row.version, "state": row.state, "right": row.right,
                "from_publisher": row.pushed,
                "from": if row.first { from } else { Vec::new() },
            });
            out::result(&object.to_string());
        }
    }
}
