//! The whole charter looked over: every document of every chain with the thresholds of the one
//! before and its own, and what has run out or soon will. Everything that is wrong is said, not
//! only the first.

use std::path::Path;

use serde::Serialize;
use stork_wire::charter::UnixSeconds;
use stork_wire::item::Item;

use super::ledger::{Doc, Ledger};
use super::profile::read_items;
use super::{Charter, CharterError};
use crate::keys::fingerprint;
use crate::out;

/// So long before its end a document is warned of.
const WARN_S: u64 = 30 * 86_400;

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    /// Always `stork.charter-verify/v1`.
    pub schema: &'static str,
    /// The time for which ends were looked at.
    pub at: UnixSeconds,
    /// How many documents there are.
    pub documents: usize,
    /// What is wrong.
    pub faults: Vec<String>,
    /// What will be soon.
    pub warnings: Vec<String>,
}

impl Checked {
    fn end(&mut self, what: &str, expires: UnixSeconds) {
        let day = out::day(expires);
        if expires <= self.at {
            self.faults.push(format!("{what} has run out on {day}"));
        } else if expires - self.at <= WARN_S {
            self.warnings.push(format!("{what} runs out on {day}"));
        }
    }

    fn ends(&mut self, doc: &Doc) {
        let title = doc.title();
        match doc {
            Doc::Root(d) => self.end(&title, d.expires),
            Doc::Group(d) => {
                self.end(&title, d.expires);
                for key in &d.veto {
                    let what = format!("veto key {} of group {}", fingerprint(&key.key), d.name);
                    self.end(&what, key.not_after);
                }
            }
            Doc::Publisher(d) => {
                self.end(&title, d.expires);
                let in_use = d.release_keys.iter().filter(|k| k.valid_through.is_none());
                for key in in_use {
                    let what = format!("release key {} of {}", fingerprint(&key.key), d.name);
                    self.end(&what, key.not_after);
                }
            }
        }
    }
}

/// Documents, release keys and veto keys of a charter that have run out, or will within 30 days.
pub(crate) fn expiry(charter: &Charter, at: UnixSeconds) -> Checked {
    let mut checked = Checked { at, documents: charter.items.len(), ..Checked::default() };
    checked.ends(&Doc::Root(charter.root.clone()));
    charter.groups.values().for_each(|d| checked.ends(&Doc::Group(d.clone())));
    charter.publishers.values().for_each(|d| checked.ends(&Doc::Publisher(d.clone())));
    checked
}

/// Looks over a bundle, or a directory with one.
pub fn verify(path: &Path, at: UnixSeconds) -> Result<Checked, CharterError> {
    let mut items = read_items(path)?;
    items.sort_by_key(|i| (i.kind, i.log, i.seq));
    let mut checked = match Charter::from_items(&items) {
        Ok(charter) => expiry(&charter, at),
        Err(e) => Checked { at, faults: vec![with_causes(&e)], ..Checked::default() },
    };
    checked.schema = "stork.charter-verify/v1";
    checked.documents = items.len();
    if let Some(mut ledger) = ledger(&items)? {
        for item in &items {
            match ledger.step(item) {
                Ok(step) => {
                    checked.faults.extend(step.missing().into_iter().map(|m| format!("{m} lacks")));
                }
                Err(e) => checked.faults.push(with_causes(&e)),
            }
        }
    }
    Ok(checked)
}

fn ledger(items: &[Item]) -> Result<Option<Ledger>, CharterError> {
    let first = items.first().filter(|i| i.kind == stork_wire::item::ItemKind::Root);
    let root = first.map(super::claimed::<stork_wire::charter::RootDoc>).transpose()?;
    Ok(root.map(|d| Ledger::empty(d.fleet_id())))
}

fn with_causes(e: &CharterError) -> String {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
