//! What is said of freshness: in `stork status`, in events, and of what VMs show.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stork_wire::charter::UnixSeconds;
use stork_wire::ids::PublisherId;

use super::Driver;
use super::vms::Vm;
use crate::trust::{Due, Expired, Freshness, GroupState};

/// Feeds that one status lists: those first of which an operator should know. All are counted.
const LISTED_MAX: usize = 64;
/// Documents that run out so soon are told of.
const DUE_S: u64 = 30 * 86_400;
/// Groups that one line names.
const NAMED_MAX: usize = 8;
/// Events of one day about them.
const WARNED_MAX: usize = 8;

impl Driver {
    /// Feeds with their freshness, for `stork status`.
    pub(super) fn freshness_json(&self) -> Vec<Value> {
        let now = self.clock.unix();
        let charter = self.trust.charter();
        let all = charter.publishers().map(|(id, _)| (rank(self.trust.freshness(*id, now)), *id));
        let behind = self.trust.all_behind().map(|id| (0, id));
        let first: BTreeSet<(u8, PublisherId)> = behind.chain(all).collect();
        let mut listed = BTreeSet::new();
        let first = first.into_iter().filter(|(_, id)| listed.insert(*id)).take(LISTED_MAX);
        let list = first.map(|(_, id)| {
            let state = self.trust.freshness(id, now);
            let (until, since) = match state {
                Freshness::Fresh { until } => (Some(until), None),
                Freshness::Stale { since } => (None, since),
                Freshness::Expired { since, .. } => (None, Some(since)),
                Freshness::Unwatched => (None, None),
            };
            let behind = self.trust.behind(id);
            json!({
                "publisher": charter.publisher_name(id), "id": id,
                "state": state_word(state), "until": until, "since": since,
                "behind": behind.map(|at| json!({ "epoch": at.epoch, "seq": at.seq })),
                "text": self.freshness_text(id, now),
            })
        });
        list.collect()
    }

    /// How many feeds are in each state: for `stork status` and for metrics.
    pub(super) fn feeds_by_state(&self) -> [(&'static str, u64); 4] {
        let now = self.clock.unix();
        let mut counts = ["fresh", "stale", "expired", "unwatched"].map(|word| (word, 0));
        for (id, _) in self.trust.charter().publishers() {
            let word = state_word(self.trust.freshness(*id, now));
            if let Some((_, count)) = counts.iter_mut().find(|(w, _)| *w == word) {
                *count += 1;
            }
        }
        counts
    }

    /// Documents of the charter that run out within a month or have done so, the first first; for
    /// `stork status`.
    pub(super) fn documents_due(&self) -> Vec<Due> {
        let by = self.clock.unix().saturating_add(DUE_S);
        let due: BTreeSet<Due> = self.trust.charter().due(by).collect();
        due.into_iter().take(LISTED_MAX).collect()
    }

    /// The same as JSON.
    pub(super) fn documents_json(&self) -> Value {
        let now = self.clock.unix();
        let one = |d: Due| {
            let text = due_text(&d, now);
            json!({ "kind": d.kind, "name": d.name, "expires": d.expires, "text": text })
        };
        self.documents_due().into_iter().map(one).collect()
    }

    /// Says once a day which documents must be renewed.
    pub(super) fn warn_of_documents(&mut self) {
        let now = self.clock.unix();
        for due in self.documents_due().iter().take(WARNED_MAX) {
            self.event("document_late", due_text(due, now));
        }
    }

    /// The time that this host goes by, the system's, and what is known to be past.
    pub(super) fn clock_json(&self) -> Value {
        let floor = self.freshness.floor.0;
        json!({ "now": self.clock.unix(), "system": self.clock.system(), "floor": floor })
    }

    /// The word for a feed's freshness now.
    pub(super) fn freshness_word(&self, id: PublisherId) -> &'static str {
        state_word(self.trust.freshness(id, self.clock.unix()))
    }

    /// The same for VMs of one group, which may let beacons speak for a shorter time.
    pub(super) fn freshness_word_in(&self, group: &GroupState, id: PublisherId) -> &'static str {
        let now = self.clock.unix();
        state_word(self.trust.freshness_within(id, group.doc().beacon_s, now))
    }

    /// Publishers of what a VM shows or wants whose feeds are not fresh to it: served all the same,
    /// where its file does not say otherwise.
    pub(super) fn stale_of(&self, vm: &Vm, ids: impl Iterator<Item = PublisherId>) -> Vec<String> {
        let now = self.clock.unix();
        let bad =
            |state: Freshness| matches!(state, Freshness::Stale { .. } | Freshness::Expired { .. });
        let ids: BTreeSet<PublisherId> = ids.collect();
        let one = |id: PublisherId| {
            if bad(self.trust.freshness(id, now)) {
                return Some(self.freshness_text(id, now));
            }
            let groups = self.groups_of(vm).filter(|g| g.grant(id).is_some());
            let most = groups.filter_map(|g| g.doc().beacon_s).min();
            let stale = bad(self.trust.freshness_within(id, most, now));
            let made = self.trust.beacon(id).map_or(0, |b| b.time);
            stale.then(|| self.outlived_text(id, made, now))
        };
        ids.into_iter().filter_map(one).collect()
    }

    /// That a feed is fresh by itself, and not to groups that ask for more.
    pub(super) fn outlived_text(
        &self,
        id: PublisherId,
        made: UnixSeconds,
        now: UnixSeconds,
    ) -> String {
        let charter = self.trust.charter();
        let ended = |s: u32| made.saturating_add(s.into()) <= now;
        let asking = charter.groups().filter(|g| g.grant(id).is_some());
        let names: Vec<&str> = asking
            .filter(|g| g.doc().beacon_s.is_some_and(ended))
            .map(|g| g.doc().name.as_str())
            .take(NAMED_MAX)
            .collect();
        let (name, groups) = (charter.publisher_name(id), names.join(", "));
        let age = match made {
            0 => "it has no beacons".to_owned(),
            made => format!("its last beacon is {} old", span(now.saturating_sub(made))),
        };
        format!("{name} is stale to the groups that ask for more: {groups}; {age}")
    }

    pub(super) fn freshness_text(&self, id: PublisherId, now: UnixSeconds) -> String {
        let name = self.trust.charter().publisher_name(id);
        let mut text = match self.trust.freshness(id, now) {
            Freshness::Fresh { until } => {
                format!("{name} is fresh for {}", span(until.saturating_sub(now)))
            }
            Freshness::Stale { since: Some(since) } => format!(
                "{name} is stale: its last beacon ran out {} ago; this host may be cut off",
                span(now.saturating_sub(since))
            ),
            Freshness::Stale { since: None } => {
                format!("{name} is stale: no beacon has come; this host may be cut off")
            }
            Freshness::Unwatched => format!(
                "{name} has no beacons: freshness rests on the expiry of its entries{}",
                self.last_expiry(id, now)
            ),
            Freshness::Expired { document, since } => {
                let what = match document {
                    Expired::Root => "the fleet's root document",
                    Expired::Groups => "the document of its group",
                    Expired::Publisher => "its publisher document",
                };
                let ago = span(now.saturating_sub(since));
                format!("{name} is expired: {what} ran out {ago} ago")
            }
        };
        if let Some(head) = self.trust.behind(id) {
            text += &format!("; entries up to {head} have not come");
        }
        text
    }

    /// When the last of a publisher's entries runs out, in words.
    fn last_expiry(&self, id: PublisherId, now: UnixSeconds) -> String {
        let expires = self.catalog.all().filter(|k| k.publisher == id).map(|k| k.expires).max();
        match expires {
            None => String::new(),
            Some(at) if at <= now => ", which have all run out".to_owned(),
            Some(at) => format!(", the last of which runs out in {}", span(at - now)),
        }
    }
}

/// Which feeds an operator should know of first, after those that are behind.
const fn rank(state: Freshness) -> u8 {
    match state {
        Freshness::Expired { .. } => 1,
        Freshness::Stale { .. } => 2,
        Freshness::Unwatched => 3,
        Freshness::Fresh { .. } => 4,
    }
}

const fn state_word(state: Freshness) -> &'static str {
    match state {
        Freshness::Fresh { .. } => "fresh",
        Freshness::Stale { .. } => "stale",
        Freshness::Unwatched => "unwatched",
        Freshness::Expired { .. } => "expired",
    }
}

fn due_text(due: &Due, now: UnixSeconds) -> String {
    let Due { expires, kind, name } = due;
    let whom = match *kind {
        "root" => "the holders of the fleet's root keys must renew it",
        "group" => "the group's authority must renew it",
        _ => "the publisher must renew it",
    };
    match expires.checked_sub(now).filter(|left| *left > 0) {
        Some(left) => format!("the {kind} document of {name} runs out in {}: {whom}", span(left)),
        None => {
            format!("the {kind} document of {name} ran out {} ago: {whom}", span(now - expires))
        }
    }
}

/// A span of seconds for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
