//! What narrows, on this host: the operator hears of it, connections with denied hosts end, and VMs
//! that show what was taken back switch before anything else is done.

use serde_json::{Value, json};
use stork_wire::deny::{Content, Denial, Denied};
use stork_wire::ids::{LogId, NodeId};
use stork_wire::item::Item;
use stork_wire::text::Label;
use stork_wire::withdrawal::{Level, What, Withdrawal};

use super::Driver;
use super::vms::releases_of;
use super::workers::Done;
use crate::catalog::Narrow;
use crate::trust::{AdmissionError, Death};

/// Entries that were kept aside and are read and judged at once.
const ASIDE_AT_ONCE: usize = 256;

impl Driver {
    /// A denial is on disk.
    pub(super) fn on_deny(&mut self, denial: &Denial) {
        let reason = &denial.reason;
        match &denial.what {
            Denied::Host(node) => {
                let name = self.host_names().get(node).cloned().unwrap_or_else(|| node.short());
                self.counters.add("narrowed", "host");
                self.event("host_denied", format!("{name} ({}): {reason}", node.short()));
                self.close_denied(*node, reason.as_str());
            }
            Denied::Content { group, what, .. } => {
                let group = self.trust.charter().group(*group);
                let group = group.map_or_else(String::new, |g| g.doc().name.to_string());
                let what = self.content_text(what);
                self.counters.add("narrowed", "denied");
                let text = format!("the security team of group `{group}` denies {what}: {reason}");
                self.event("release_denied", text);
                self.tell_vms("release_denied");
            }
        }
    }

    fn content_text(&self, what: &Content) -> String {
        match what {
            Content::Tree(tree) => {
                let known = self.catalog.all().find(|k| k.release.tree == *tree);
                let name = known.map(|k| format!(" ({} {})", k.release.package, k.release.version));
                format!("the tree {}{}", tree.short(), name.unwrap_or_default())
            }
            Content::Releases { publisher, package, from, to } => {
                let name = self.trust.charter().publisher_name(*publisher);
                format!("{package} by {name}, releases {from} to {to}")
            }
        }
    }

    /// Ends the connection with a host that was denied, and forgets that it was let in.
    fn close_denied(&mut self, node: NodeId, why: &str) {
        self.checked.clear();
        let Some(link) = self.connections.get(&node) else { return };
        let cert = link.cert.claimed::<stork_wire::charter::HostCert>();
        if cert.is_ok_and(|c| self.trust.charter().denied_cert(&c).is_none()) {
            // It was admitted again since.
            return;
        }
        let (connected, e) = (link.connected.clone(), AdmissionError::Denied(why.to_owned()));
        connected.connection.close(1u32.into(), e.to_string().as_bytes());
        self.counters.add("hosts_refused", e.code());
    }

    /// A publisher's withdrawal is on disk.
    pub(super) fn on_withdrawal(&mut self, w: &Withdrawal) {
        let by = self.trust.charter().publisher_name(w.publisher);
        let reason = &w.reason;
        match &w.what {
            What::Recall { package, releases } => {
                self.counters.add("narrowed", "recalled");
                let known = releases.iter().filter_map(|hash| self.catalog.by_hash(*hash));
                let mut names: Vec<String> = known.map(|k| k.release.version.to_string()).collect();
                names.sort_unstable();
                names.dedup();
                let names = match names.len() {
                    0 => format!("{} releases", releases.len()),
                    _ => names.join(", "),
                };
                self.event("recalled", format!("{package} {names} by {by}: {reason}"));
                self.tell_vms("release_withdrawn");
            }
            What::Halt { package, halted } => {
                self.counters.add("narrowed", if *halted { "halted" } else { "resumed" });
                let what =
                    package.as_ref().map_or_else(|| "everything".into(), ToString::to_string);
                let kind = if *halted { "halted" } else { "resumed" };
                self.event(kind, format!("{what} of {by}, by its {}: {reason}", level(w.by)));
            }
        }
    }

    /// A key has ended itself, and the journal has dropped what stood by it alone.
    pub(super) fn on_suicide(&mut self, death: &Death, kept: &[Item]) {
        self.counters.add("narrowed", "suicide");
        let key = death.key.short();
        self.event("key_suicide", format!("release key {key} has ended itself: {}", death.reason));
        for turn in &death.turns {
            let own: Vec<_> = kept.iter().filter(|i| turn.logs.contains(&i.log)).cloned().collect();
            self.on_turn(turn, &own);
            self.look_at_feed(turn.publisher);
        }
    }

    /// Entries that were kept aside may stand again. A stolen key may have made any number: so many
    /// are read at once.
    pub(super) fn look_aside(&self, mut logs: Vec<(LogId, u64)>) {
        let store = std::sync::Arc::clone(&self.store);
        let Some((log, from)) = logs.pop() else { return };
        self.workers.disk(move || {
            let items = store.log_items_aside(log, from, ASIDE_AT_ONCE);
            let items = items.unwrap_or_else(|e| {
                tracing::error!("entries that were kept aside wait for the next start: {e}");
                Vec::new()
            });
            if let Some(last) = items.last().filter(|_| items.len() == ASIDE_AT_ONCE) {
                logs.push((log, last.seq.saturating_add(1)));
            }
            Some(Done::Aside { items, logs })
        });
    }

    /// They are judged like any other; most do not stand.
    pub(super) fn on_aside(&mut self, items: Vec<Item>, left: Vec<(LogId, u64)>) {
        for item in items {
            let frozen = item.envelope.claimed().map(|e| self.trust.aside(&e));
            if matches!(frozen, Ok(None)) {
                self.judge(item, None, None);
            }
        }
        self.look_aside(left);
    }

    /// Says of each VM what it shows that was taken away.
    fn tell_vms(&mut self, kind: &'static str) {
        let mut texts = Vec::new();
        for (name, vm) in &self.vms {
            let shown = vm.current.as_ref().map(|g| releases_of(&self.catalog, g));
            for (package, known) in shown.unwrap_or_default() {
                let why = Narrow::of(&vm.file, &known, self.trust.charter());
                let Some(why) =
                    why.filter(|w| !matches!(w, Narrow::Halted(..) | Narrow::Unsettled(_)))
                else {
                    continue;
                };
                let then = if why.takes_away(&vm.file) { "it goes" } else { "it stays" };
                let version = &known.release.version;
                texts.push(format!("{name} shows {package} {version}; {then}: {why}"));
            }
        }
        for text in texts {
            self.event(kind, text);
        }
    }

    /// Does a VM show what must go?
    pub(super) fn shows_withdrawn(&self, name: &Label) -> bool {
        let Some(vm) = self.vms.get(name) else { return false };
        let shown = vm.current.as_ref().map(|g| releases_of(&self.catalog, g)).unwrap_or_default();
        shown.values().any(|k| {
            Narrow::of(&vm.file, k, self.trust.charter()).is_some_and(|n| n.takes_away(&vm.file))
        })
    }

    /// All that narrows, for `stork status`.
    pub(super) fn narrowed_json(&self) -> Value {
        let charter = self.trust.charter();
        let name = |id| charter.publisher_name(id);
        let denials = charter.denials().map(|(log, d, in_force)| {
            let (what, group) = match &d.what {
                Denied::Host(node) => (format!("host {}", node.short()), None),
                Denied::Content { group, what, .. } => {
                    (self.content_text(what), charter.group(*group).map(|g| &g.doc().name))
                }
            };
            json!({
                "log": log, "what": what, "group": group, "signed_at": d.signed_at,
                "reason": d.reason, "in_force": in_force,
            })
        });
        let recalls = charter.recalls().filter_map(|w| {
            let What::Recall { package, releases } = &w.what else { return None };
            Some(json!({
                "publisher": name(w.publisher), "package": package, "releases": releases.len(),
                "signed_at": w.signed_at, "reason": w.reason,
            }))
        });
        let halts = charter.halts().map(|(id, by, package, halt)| {
            json!({
                "publisher": name(id), "package": package, "by": level(by),
                "signed_at": halt.signed_at, "reason": halt.reason,
            })
        });
        let dead = charter.dead_keys();
        let dead = dead.map(|(key, why)| json!({ "key": key, "reason": why }));
        json!({
            "denials": denials.collect::<Vec<_>>(), "recalls": recalls.collect::<Vec<_>>(),
            "halts": halts.collect::<Vec<_>>(), "dead_keys": dead.collect::<Vec<_>>(),
        })
    }
}

const fn level(by: Level) -> &'static str {
    match by {
        Level::Release => "release key",
        Level::Root => "root",
    }
}
