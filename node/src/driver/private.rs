//! Private groups on this host: whose content goes to whom, and how their keys come here.
//!
//! Announcements of a private group are ciphertext wherever they pass. A host whose certificate
//! grants the group asks hosts whose certificates do so for the key, over a connection on which
//! both have proved who they are; the first of them is given it by its operator (`stork group-key
//! add`). Content goes only to hosts with the grant: what others ask for is treated as if it were
//! not here, and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use stork_wire::charter::HostScope;
use stork_wire::codec::{List, encode};
use stork_wire::feed::{Entry, Kind};
use stork_wire::frame::{Frame, LinkClass, TransferFrame};
use stork_wire::ids::{GroupId, GroupKeyId, LogId, ManifestId, NodeId, SwarmId};
use stork_wire::item::Item;
use stork_wire::limits::{GROUP_KEYS_MAX, KEYS_PER_FRAME_MAX};
use stork_wire::seal::{GroupKey, Keyring};
use stork_wire::tick::Tick;

use super::workers::Done;
use super::{Answer, CallError, Driver};
use crate::join::{KEYS_ROW, read_group_keys};
use crate::net::Priority;
use crate::store::{Store, StoreError};

/// How often other hosts are asked for keys that are missing: at first, and after a while.
const ASK_EVERY_MS: u64 = 2_000;
/// See [`ASK_EVERY_MS`].
const ASK_LATER_MS: u64 = 60_000;
/// Rounds after which it is asked more rarely.
const FIRST_ROUNDS: u32 = 30;
/// Hosts that are asked at once.
const ASKED_AT_ONCE: usize = 3;
/// Hosts that asked for keys which were not here: they get them as soon as these are.
const WAITERS_MAX: usize = 64;

/// What the driver keeps of private groups.
#[derive(Debug, Default)]
pub(super) struct Private {
    /// Content that only private releases name, with their groups.
    only: BTreeMap<ManifestId, BTreeSet<GroupId>>,
    ask_at: Tick,
    rounds: u32,
    missing: Vec<GroupKeyId>,
    waiters: BTreeMap<NodeId, Vec<GroupKeyId>>,
}

/// Puts keys beside those that are on disk, and reads what was sealed with them.
fn keep(store: &Store, new: Vec<GroupKey>, logs: &[LogId]) -> Result<Vec<Item>, StoreError> {
    let mut ring = Keyring::default();
    for key in read_group_keys(store)?.into_iter().chain(new.clone()) {
        ring.add(key);
    }
    let all: List<GroupKey, GROUP_KEYS_MAX> = List::truncated(ring.iter().cloned());
    store.put_state(KEYS_ROW, &encode(&all))?;
    let ids: Vec<GroupKeyId> = new.iter().map(GroupKey::id).collect();
    let mut sealed = Vec::new();
    for log in logs {
        sealed.extend(store.log_items(*log)?.into_iter().filter(|item| {
            let entry = item.envelope.claimed::<Entry>().ok();
            entry.and_then(|e| e.sealed().map(|s| s.key)).is_some_and(|key| ids.contains(&key))
        }));
    }
    Ok(sealed)
}

impl Driver {
    /// Looks again at what is private: releases came or went.
    pub(super) fn look_at_private(&mut self) {
        let mut only: BTreeMap<ManifestId, BTreeSet<GroupId>> = BTreeMap::new();
        for known in self.catalog.all() {
            if let Some(group) = known.sealed {
                only.entry(known.release.manifest.id).or_default().insert(group);
            }
        }
        if !only.is_empty() {
            for known in self.catalog.all().filter(|k| k.sealed.is_none()) {
                only.remove(&known.release.manifest.id);
            }
        }
        self.private.only = only;
    }

    /// The same after one entry, which mostly has nothing to do with it: all releases are gone
    /// through only where it may.
    pub(super) fn look_at_private_entry(&mut self, entry: &Entry) {
        match &entry.kind {
            // What somebody releases for all is private no longer.
            Kind::Release(release) => drop(self.private.only.remove(&release.manifest.id)),
            Kind::Recall(_) if !self.trust.group_keys().is_empty() => self.look_at_private(),
            Kind::Sealed(sealed) if sealed.opened().is_some() => self.look_at_private(),
            Kind::Recall(_) | Kind::Sealed(_) | Kind::Retire(_) => {}
        }
    }

    /// Somebody announced what cannot be read here.
    pub(super) fn note_unread(&mut self, entry: &Entry) {
        if entry.sealed().is_some() && entry.release().is_none() {
            let text = format!("a sealed release by {}", entry.publisher.short());
            self.counters.add("sealed", "unread");
            self.event("announced", text);
        }
    }

    /// Is a frame about content that its sender may not have? What it names is not here, then.
    pub(super) fn is_hidden_from(&self, scope: Option<&HostScope>, frame: &TransferFrame) -> bool {
        if self.private.only.is_empty() {
            return false;
        }
        let of = |swarm: SwarmId| self.swarms.get(&swarm).map(|s| s.manifest);
        let manifest = frame.manifest().or_else(|| frame.swarm().and_then(of));
        let groups = manifest.and_then(|m| self.private.only.get(&m));
        groups.is_some_and(|all| !all.iter().any(|g| HostScope::grants(scope, g)))
    }

    /// Sends a frame about content to who may have it: a host may have asked before it was known
    /// here that only a private release names it.
    pub(super) fn send_content(&mut self, to: NodeId, priority: Priority, frame: TransferFrame) {
        let scope = self.connections.get(&to).and_then(|link| link.scope.clone());
        if self.is_hidden_from(scope.as_deref(), &frame) {
            return self.counters.add("content_refused", "no_grant");
        }
        self.send(to, priority, &Frame::Transfer(frame));
    }

    /// Keys that this host may have and has not.
    fn missing_keys(&self) -> Vec<GroupKeyId> {
        let Some(cert) = self.own_cert() else { return Vec::new() };
        let have = self.trust.group_keys();
        let mut all = self.trust.charter().keys_for(&cert);
        all.retain(|id| have.get(id).is_none());
        all
    }

    /// Asks other hosts for the keys that are missing, when it is time.
    pub(super) fn look_for_keys(&mut self) {
        let missing = self.missing_keys();
        if missing != self.private.missing {
            self.private.missing.clone_from(&missing);
            (self.private.rounds, self.private.ask_at) = (0, Tick(0));
        }
        let now = self.clock.tick();
        if missing.is_empty() || now < self.private.ask_at {
            return;
        }
        self.private.rounds = self.private.rounds.saturating_add(1);
        let early = self.private.rounds <= FIRST_ROUNDS;
        self.private.ask_at = now.after_ms(if early { ASK_EVERY_MS } else { ASK_LATER_MS });
        let charter = self.trust.charter();
        let groups: Vec<GroupId> = missing.iter().filter_map(|k| charter.group_of_key(k)).collect();
        let granted =
            |scope: Option<&HostScope>| groups.iter().any(|g| HostScope::grants(scope, g));
        let able = self.connections.iter().filter(|(_, l)| granted(l.scope.as_deref()));
        let able: Vec<NodeId> = able.map(|(node, _)| *node).collect();
        let first = usize::try_from(self.private.rounds).unwrap_or(0);
        let turn = able.iter().cycle().skip(first % able.len().max(1));
        let asked: Vec<NodeId> = turn.take(ASKED_AT_ONCE.min(able.len())).copied().collect();
        let ask = Frame::KeysAsk(List::truncated(missing));
        for node in asked {
            self.send(node, Priority::Control, &ask);
        }
        // Those with the grant may be few, and none of them a neighbour.
        let wants = self.overlay.interested(&groups);
        let far = wants.iter().filter(|p| p.node != self.me);
        let far: Vec<_> = far.filter(|p| !self.connections.contains_key(&p.node)).collect();
        if let Some(peer) = far.get(first % far.len().max(1)) {
            let peer = Arc::clone(peer);
            self.dial(&peer, LinkClass::Transient, false);
        }
    }

    /// A host asks for keys: it gets those that its certificate grants and that are here.
    pub(super) fn on_keys_ask(
        &mut self,
        from: NodeId,
        asked: List<GroupKeyId, KEYS_PER_FRAME_MAX>,
    ) {
        let Some(link) = self.connections.get(&from) else { return };
        let scope = link.scope.clone();
        let (mut given, mut later) = (Vec::new(), Vec::new());
        for id in asked {
            let group = self.trust.charter().group_of_key(&id);
            if !group.is_some_and(|g| HostScope::grants(scope.as_deref(), &g)) {
                // A key that is not known and one that is not for the asker are told alike.
                self.counters.add("group_keys", "refused");
                continue;
            }
            match self.trust.group_keys().get(&id) {
                Some(key) => given.push(key.clone()),
                None => later.push(id),
            }
        }
        self.counters.add_many("group_keys", "given", given.len() as u64);
        self.private.waiters.remove(&from);
        if !later.is_empty() && self.private.waiters.len() < WAITERS_MAX {
            self.private.waiters.insert(from, later);
        }
        self.send(from, Priority::Control, &Frame::Keys(List::truncated(given)));
    }

    /// Keys came: those that are missing here are kept.
    pub(super) fn on_keys(&mut self, keys: List<GroupKey, KEYS_PER_FRAME_MAX>) {
        let missing = self.missing_keys();
        let new: Vec<GroupKey> = keys.into_iter().filter(|k| missing.contains(&k.id())).collect();
        if !new.is_empty() {
            self.take_keys(new);
        }
    }

    /// They are used at once for what comes, kept on disk, and used for what was there before.
    fn take_keys(&mut self, new: Vec<GroupKey>) {
        for key in &new {
            self.trust.add_group_key(key.clone());
            self.counters.add("group_keys", "taken");
        }
        let publishers: Vec<_> = self.trust.feeds().map(|(id, _)| *id).collect();
        let logs: Vec<LogId> =
            publishers.into_iter().flat_map(|id| self.trust.feed_logs(id)).collect();
        let store = Arc::clone(&self.store);
        self.workers.slow_first(true, move || {
            let ids = new.iter().map(GroupKey::id).collect();
            Some(Done::GroupKeys { ids, sealed: keep(&store, new, &logs) })
        });
    }

    /// Keys are on disk, and what was sealed with them has been read from it.
    pub(super) fn on_group_keys(
        &mut self,
        ids: &[GroupKeyId],
        sealed: Result<Vec<Item>, StoreError>,
    ) {
        let sealed = match sealed {
            Ok(sealed) => sealed,
            // They are in memory, and asked for again after a restart.
            Err(e) => return self.event("group_key", format!("a key is not saved: {e}")),
        };
        let charter = self.trust.charter();
        let names: BTreeSet<String> = ids
            .iter()
            .filter_map(|k| charter.group_of_key(k))
            .filter_map(|g| Some(charter.group(g)?.doc().name.to_string()))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        let mut read = 0;
        for item in sealed {
            let Some(entry) = self.trust.read_entry(&item) else { continue };
            let Some(hash) = entry.release().and_then(|_| entry.release_hash()) else { continue };
            let feed = self.trust.feed(entry.publisher);
            let live = feed.is_some_and(|f| f.live().any(|h| h == hash));
            if live && self.catalog.by_hash(hash).is_none() {
                self.catalog.apply(&entry);
                self.on_entry(&entry, None);
                read += 1;
            }
        }
        let text = format!("the key of {} is here: {read} releases can be read", names.join(", "));
        self.event("group_key", text);
        self.look_at_private();
        for (node, wanted) in core::mem::take(&mut self.private.waiters) {
            // Asked anew: certificates may have changed.
            self.on_keys_ask(node, List::truncated(wanted));
        }
        self.replan_soon();
    }

    /// `stork group-key add`: the operator brings a key.
    pub(super) fn add_group_key(&mut self, key: GroupKey, answer: Answer) {
        let id = key.id();
        let refused = |why: &str, help: &str| Err(CallError::Refused(why.into(), help.into()));
        let group = self.trust.charter().group_of_key(&id);
        let name = group.and_then(|g| self.trust.charter().group(g)).map(|g| g.doc().name.clone());
        let granted = group.zip(self.own_cert()).is_some_and(|(g, cert)| cert.grants(&g));
        let have = self.trust.group_keys().get(&id).is_some();
        let outcome = match name {
            None => refused(
                "no group's document names this key",
                "send the newest charter: `stork-publish charter send`",
            ),
            Some(name) if !granted => refused(
                &format!("this host's certificate does not grant it group `{name}`"),
                "let it join again with a token of `stork token create --group`",
            ),
            Some(name) => Ok(json!({
                "schema": "stork.group-key/v1", "group": name, "key": id, "already": have,
            })),
        };
        if outcome.is_ok() && !have {
            self.take_keys(vec![key]);
        }
        drop(answer.send(outcome));
    }

    /// Private groups as this host sees them, for `stork status`.
    pub(super) fn private_json(&self) -> Value {
        let cert = self.own_cert();
        let charter = self.trust.charter();
        let private = charter.groups().filter_map(|g| Some((g, g.doc().private?)));
        let one = private.map(|(g, key)| {
            let granted = cert.as_ref().is_some_and(|c| c.grants(&g.id()));
            let have = self.trust.group_keys().get(&key).is_some();
            json!({ "group": g.doc().name, "key": key, "granted": granted, "have": have })
        });
        one.collect()
    }
}
