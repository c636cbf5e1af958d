//! What was counted and what happened, for `stork status`, metrics and `stork events`.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

/// Events kept for `stork events`; older ones are in the log of the system.
pub(super) const EVENTS_MAX: usize = 1_024;
/// Bytes of an event's text.
const TEXT_MAX: usize = 400;

/// One thing worth telling an operator.
#[derive(Debug, Clone, Serialize)]
pub struct EventRecord {
    /// Rises by one with each event of this run.
    pub number: u64,
    /// Calendar time in milliseconds.
    pub at_ms: u64,
    /// A stable word.
    pub kind: &'static str,
    /// For people.
    pub text: String,
}

/// Counters by name and reason, and the last events.
#[derive(Debug, Default)]
pub struct Counters {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    events: VecDeque<EventRecord>,
    next: u64,
}

impl Counters {
    /// Counts one.
    pub fn add(&mut self, name: &'static str, reason: &'static str) {
        *self.counts.entry((name, reason)).or_default() += 1;
    }
    /// Counts many.
    pub fn add_many(&mut self, name: &'static str, reason: &'static str, n: u64) {
        *self.counts.entry((name, reason)).or_default() += n;
    }
    /// One counter.
    #[must_use]
    pub fn of(&self, name: &'static str, reason: &'static str) -> u64 {
        self.counts.get(&(name, reason)).copied().unwrap_or(0)
    }
    /// All counters.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.counts.iter().map(|((name, reason), n)| (*name, *reason, *n))
    }
    /// Notes an event and writes it to the log. Peers' words in it must be checked text.
    pub fn event(&mut self, at_ms: u64, kind: &'static str, text: impl Into<String>) {
        let text = clean(text.into());
        tracing::info!(event = kind, "{text}");
        self.next += 1;
        self.events.push_back(EventRecord { number: self.next, at_ms, kind, text });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }
    /// Events after a number.
    pub fn events_after(&self, number: u64) -> impl Iterator<Item = &EventRecord> {
        self.events.iter().filter(move |e| e.number > number)
    }
}

/// The text as it may be shown; nearly all are clean as they come.
fn clean(text: String) -> String {
    if text.len() <= TEXT_MAX && !text.chars().any(char::is_control) {
        return text;
    }
    text.chars().flat_map(escaped).take(TEXT_MAX).collect()
}

/// Control characters never reach a terminal or log unescaped (attack V7).
fn escaped(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}
