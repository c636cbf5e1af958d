//! What this host says of itself in its signed record, and of the whole fleet in its status.

use serde_json::{Value, json};
use stork_wire::charter::{BODY_VERSION, Cell, PeerRecord};
use stork_wire::codec::List;
use stork_wire::frame::PeerHint;
use stork_wire::ids::{GroupId, NodeId};
use stork_wire::sign::Envelope;

use super::Driver;
use super::peers::RESTART_STEP;
use crate::overlay::{Input, Site};

/// Seconds that an own record is good for; it is renewed at half.
const RECORD_VALID_S: u64 = 7 * 24 * 3_600;

/// How others begin who take this host for denied (`AdmissionError`).
const DENIED: &str = "the host is denied";

/// This node's own record, signed anew when something in it changes.
#[derive(Debug)]
pub(super) struct OwnRecord {
    pub(super) incarnation: u64,
    /// The number that is on disk: none that was said is a step ahead of it.
    kept: u64,
    /// The site's sum, where this host speaks for it.
    pub(super) cell: Option<Cell>,
    pub(super) current: Option<(PeerRecord, PeerHint)>,
    /// The day since 1970 that the overlay was told.
    day: Option<u32>,
    /// The operator was told that others take this host for denied.
    told_denied: bool,
}

impl OwnRecord {
    pub(super) const fn new(incarnation: u64) -> Self {
        let (cell, current, day) = (None, None, None);
        Self { incarnation, kept: incarnation, cell, current, day, told_denied: false }
    }
}

impl Driver {
    /// Another host closed our dial because this one is denied. The denial itself may never come
    /// here, since nobody talks to this host any more: it is said once, in that host's words.
    pub(super) fn note_denied(&mut self, node: NodeId, why: &str) {
        let Some(at) = why.find(DENIED).filter(|_| !self.record.told_denied) else { return };
        self.record.told_denied = true;
        let said: String = why.get(at..).unwrap_or_default().chars().take(200).collect();
        let text = format!(
            "this host is taken for denied by {}, which says: {said}; where that is not meant, \
             join again with a new token",
            node.short()
        );
        self.event("host_denied", text);
    }

    /// Tells the overlay when another day begins.
    pub(super) fn tell_day(&mut self) {
        let day = u32::try_from(self.clock.unix() / 86_400).ok();
        if let Some(today) = day.filter(|_| day != self.record.day) {
            self.record.day = day;
            self.overlay_input(Input::Day(today));
            self.warn_of_documents();
        }
    }

    /// Signs the own record again where it changed or gets old, and tells the overlay.
    pub(super) fn refresh_record(&mut self) {
        let now = self.clock.unix();
        let groups = self.wanted_groups();
        let (addrs, admits) = (self.own_addrs(), self.admits());
        if let Some((r, _)) = &self.record.current
            && *r.groups == *groups
            && r.cell == self.record.cell
            && r.admits == admits
            && *r.addrs == *addrs
            && r.expires > now + RECORD_VALID_S / 2
        {
            return;
        }
        self.record.incarnation += 1;
        self.keep_incarnation();
        let record = PeerRecord {
            version: BODY_VERSION,
            node: self.me,
            incarnation: self.record.incarnation,
            addrs: List::truncated(addrs),
            site: self.site.clone(),
            groups: List::truncated(groups),
            cell: self.record.cell.clone(),
            admits,
            issued: now,
            expires: now + RECORD_VALID_S,
        };
        let signed = Envelope::sign(&record, self.trust.fleet(), &self.key);
        let Ok(signed) = signed else { return };
        let hint = PeerHint { cert: self.cert.clone(), record: signed };
        self.record.current = Some((record, hint.clone()));
        if let Some(peer) = self.check_hint(&hint) {
            self.overlay_input(Input::Local(peer));
        }
    }

    /// A long run with many changes keeps its number, so that the next start does not take records
    /// of this one for those of another (`restored.rs`).
    fn keep_incarnation(&mut self) {
        let now = self.record.incarnation;
        if now < self.record.kept.saturating_add(RESTART_STEP / 2) {
            return;
        }
        match self.store.put_state("incarnation", &now.to_le_bytes()) {
            Ok(()) => self.record.kept = now,
            Err(e) => tracing::warn!("the number of the own record is not saved: {e}"),
        }
    }

    fn wanted_groups(&self) -> Vec<GroupId> {
        let names = self.vms.values().flat_map(|v| v.file.groups.iter());
        let charter = self.trust.charter();
        let ids = names.filter_map(|n| charter.group_named(n.as_str()).map(|g| g.id()));
        let sorted: std::collections::BTreeSet<GroupId> = ids.collect();
        sorted.into_iter().collect()
    }

    pub(super) fn own_hint(&self) -> Option<PeerHint> {
        self.record.current.as_ref().map(|(_, hint)| hint.clone())
    }

    /// Other sites of a large fleet, as those say who speak for them.
    pub(super) fn sites_json(&self) -> Value {
        let one = |s: Site| json!({ "site": s.name, "hosts": s.hosts, "contacts": s.contacts });
        self.overlay.sites().into_iter().map(one).collect()
    }
}
