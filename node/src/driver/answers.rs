//! Answers for the control socket, as JSON with a versioned schema.

use serde_json::{Value, json};
use stork_wire::frame::LinkClass;
use stork_wire::text::Label;

use super::content::Stage;
use super::vms::Vm;
use super::{Answer, CallError, ControlCall, Driver};
use crate::store::Health;
use crate::transfer::PeerView;

/// Entries that are read from what is kept aside for one list of releases.
const ASIDE_READS_MAX: usize = 256;

impl Driver {
    pub(super) fn on_control(&mut self, call: ControlCall) {
        let (answer, outcome): (Answer, Result<Value, CallError>) = match call {
            ControlCall::Status(answer) => (answer, Ok(self.status_json())),
            ControlCall::Metrics(answer) => (answer, Ok(Value::String(self.metrics()))),
            ControlCall::Vms(answer) => (answer, Ok(self.vms_json())),
            ControlCall::Releases(answer) => (answer, Ok(self.releases_json())),
            ControlCall::Peers(answer) => (answer, Ok(self.peers_json())),
            ControlCall::Tree { what, answer } => (answer, self.tree_json(&what)),
            ControlCall::Why { vm, package, answer } => {
                let outcome = self.why_json(&vm, &package);
                (answer, outcome)
            }
            ControlCall::Trust { about, package, answer } => {
                (answer, self.trust_json(about.as_deref(), package))
            }
            ControlCall::Permits(answer) => (answer, Ok(self.permits_json())),
            ControlCall::Permit { text, answer } => (answer, self.take_permit(&text)),
            ControlCall::Events { after, answer } => {
                let events: Vec<_> = self.counters.events_after(after).collect();
                (answer, Ok(json!({ "schema": "stork.events/v1", "events": events })))
            }
            ControlCall::Rollback { vm, to, undo, answer } => {
                (answer, self.order_rollback(&vm, to, undo))
            }
            ControlCall::Switch { vm, at_once, answer } => {
                (answer, self.order_switch(&vm, at_once))
            }
            ControlCall::Holders { vm, answer } => return self.holders(&vm, answer),
            ControlCall::Token { asked, answer } => (answer, self.make_token(asked)),
            ControlCall::GroupKey { key, answer } => return self.add_group_key(key, answer),
            ControlCall::HostGrant { asked, answer } => return self.grant_host(&asked, answer),
            ControlCall::Hosts(answer) => (answer, Ok(self.hosts_json())),
            ControlCall::Collect { dry_run, answer } => return self.collect(dry_run, Some(answer)),
            ControlCall::Damaged { damaged, answer } => {
                self.on_damaged(&damaged);
                (answer, Ok(Value::Null))
            }
            ControlCall::Reload(answer) => {
                self.folder.reread();
                self.reload_vms();
                self.look_again();
                (answer, Ok(json!({ "schema": "stork.reload/v1", "vms": self.vms.len() })))
            }
        };
        // Whoever asked may have gone meanwhile.
        drop(answer.send(outcome));
    }

    fn status_json(&self) -> Value {
        let counters: Vec<Value> = self
            .all_counters()
            .map(|(name, reason, n)| json!({ "name": name, "reason": reason, "count": n }))
            .collect();
        let (sent, received, unexpected) = self.net.bulk().totals();
        let bytes =
            json!({ "served": sent, "fetched": received, "unexpected_streams": unexpected });
        let health = match self.store.health() {
            Health::Good => json!({ "ok": true }),
            Health::Latched { since, cause } => {
                json!({ "ok": false, "read_only_since": since, "cause": cause })
            }
        };
        let bad: Vec<Value> = self
            .folder
            .bad()
            .iter()
            .map(|b| json!({ "file": b.path, "message": b.error.message, "help": b.error.help }))
            .collect();
        let mut status = json!({
            "schema": "stork.status/v1",
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.me, "name": self.name, "site": self.site,
            "fleet": self.trust.fleet(),
            "listen": self.net.local_addr().ok().map(|a| a.to_string()),
            "addrs": self.own_addrs(), "certificate": self.certificate_json(),
            "uptime_s": self.clock.unix().saturating_sub(self.started_unix),
            "peers": self.connections.len(),
            "links": self.overlay.links().count(),
            "hosts": self.overlay.hosts().count() + 1,
            "sites": self.sites_json(),
            "vms": self.vms.len(),
            "vms_current": self.vms.values().filter(|v| self.is_current(v)).count(),
            "withheld": self.withheld_json(),
            "bad_vm_files": bad,
            "frozen": self.frozen_json(), "narrowed": self.narrowed_json(),
            "freshness": self.freshness_json(),
            "feeds": Value::from_iter(self.feeds_by_state()),
            "clock": self.clock_json(), "documents_due": self.documents_json(),
            "releases": self.catalog.len(),
            "documents": self.trust.charter().document_count(),
            "pending_items": self.trust.pending_len(),
            "admits_hosts": self.admits(),
            "store": health, "journal": self.journal_json(),
            "bytes": bytes,
            "udp": self.udp_json(), "bandwidth": self.bandwidth_json(),
            "gossip": self.gossip_json(),
            "net": self.net_json(), "gauges": self.gauges_json(),
            "counters": counters, "sandbox": crate::sandbox::report(),
        });
        // The macro takes no more names at once.
        if let Some(all) = status.as_object_mut() {
            all.insert("restored".into(), self.restored_json());
            all.insert("scrub".into(), self.scrub_json());
            all.insert("private_groups".into(), self.private_json());
        }
        status
    }

    /// What the trees of the overlay have carried.
    fn gossip_json(&self) -> Value {
        let overlay = self.overlay.counters();
        json!({
            "pushes_in": overlay.pushes_in, "pushes_out": overlay.pushes_out,
            "duplicates": overlay.duplicates, "delivered": overlay.delivered,
            "grafts": overlay.grafts, "prunes": overlay.prunes,
            "leads": overlay.leads, "syncs": overlay.syncs,
        })
    }

    /// Payload bytes of UDP datagrams on the control connections that are open now.
    fn udp_json(&self) -> Value {
        let stats = self.connections.values().map(|c| c.connected.connection.stats());
        let (sent, received) =
            stats.fold((0u64, 0u64), |(tx, rx), s| (tx + s.udp_tx.bytes, rx + s.udp_rx.bytes));
        json!({ "sent": sent, "received": received })
    }

    /// Does the VM show all that it should?
    pub(super) fn is_current(&self, vm: &Vm) -> bool {
        let shown = vm.shown(&self.catalog).releases;
        vm.reconciled
            && shown.len() == vm.wish.len()
            && vm.wish.iter().all(|(p, c)| shown.get(p) == Some(&c.known.hash))
    }

    fn vms_json(&self) -> Value {
        let vms: Vec<Value> = self.vms.iter().map(|(name, vm)| self.vm_json(name, vm)).collect();
        json!({ "schema": "stork.vms/v1", "vms": vms })
    }

    fn vm_json(&self, name: &Label, vm: &Vm) -> Value {
        let shown: Vec<Value> = vm
            .current
            .iter()
            .flat_map(|g| &g.label.releases)
            .map(|r| json!({ "package": r.package, "version": r.version }))
            .collect();
        let wanted: Vec<Value> = vm
            .wish
            .values()
            .map(|c| {
                let r = &c.known.release;
                let stage = self.contents.get(&r.manifest.id).map(|k| stage_text(&k.stage));
                json!({ "package": r.package, "version": r.version, "content": stage })
            })
            .collect();
        let generations: Vec<Value> = self
            .views
            .generations(name)
            .unwrap_or_default()
            .iter()
            .map(|g| {
                let releases: Vec<String> = g
                    .label
                    .releases
                    .iter()
                    .map(|r| format!("{}={}", r.package, r.version))
                    .collect();
                json!({
                    "number": g.number, "created": g.created, "releases": releases,
                    "set": g.set.to_string(), "state": format!("{:?}", g.state).to_lowercase(),
                })
            })
            .collect();
        json!({
            "name": name, "groups": vm.file.groups, "target": vm.file.target,
            "backend": vm.spec.backend.name(),
            "generation": vm.current.as_ref().map(|g| g.number),
            "current": self.is_current(vm),
            "switching": vm.switching,
            "shows": shown, "wants": wanted, "generations": generations,
            "error": vm.failed.as_ref().map(|(why, _, _)| why),
            "hook": vm.receipt.as_ref().and_then(|r| r.hook.as_ref()),
            "switch_ms": vm.receipt.as_ref().map(|r| r.switch_ms),
            "receipt": vm.receipt, "waits": self.waits_json(name),
            "windows": vm.file.switch.windows.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "not_before": vm.file.switch.not_before,
            "private": vm.carried,
            "skipped": vm.skipped.len(),
            "stale": self.stale_of(vm, vm.wish.values().map(|c| c.known.publisher)),
        })
    }

    fn releases_json(&self) -> Value {
        let now = self.clock.tick();
        let names = self.host_names();
        let name_of =
            |n: &stork_wire::ids::NodeId| names.get(n).cloned().unwrap_or_else(|| n.short());
        let charter = self.trust.charter();
        let reads = core::cell::Cell::new(ASIDE_READS_MAX);
        let group_name = |g: &stork_wire::ids::GroupId| {
            charter.group(*g).map_or_else(|| g.short(), |g| g.doc().name.to_string())
        };
        let releases: Vec<Value> = self
            .catalog
            .all()
            .map(|k| {
                let r = &k.release;
                let content = self.contents.get(&r.manifest.id);
                let swarms: Vec<Value> = self
                    .planner
                    .views_of(r.manifest.id, now)
                    .map(|v| {
                        let side = |of: fn(&PeerView) -> u64| {
                            let peers = v.peers.iter().filter(|p| of(p) > 0);
                            let one =
                                |p: &PeerView| json!({ "host": name_of(&p.node), "bytes": of(p) });
                            peers.map(one).collect::<Vec<Value>>()
                        };
                        let variant = self.swarms.get(&v.swarm).map(|s| s.variant);
                        json!({
                            "variant": variant, "role": format!("{:?}", v.role).to_lowercase(),
                            "have": v.have, "pieces": v.total, "bytes": v.total_bytes,
                            "have_bytes": v.have_bytes, "neighbours": v.neighbours,
                            "from": side(|p| p.got.bytes), "to": side(|p| p.gave.bytes),
                            "received": v.got.bytes, "sent": v.gave.bytes,
                        })
                    })
                    .collect();
                json!({
                    "package": r.package, "version": r.version, "arch": r.arch,
                    "release": r.release, "epoch": k.epoch, "seq": k.seq,
                    "entry": self.entry_hash(k, &reads), "hash": k.hash,
                    "signed_at": k.signed_at,
                    "frozen": k.frozen.map(|f| f.to_string()),
                    "retired": k.retired,
                    "recalled": charter.recalled(k.publisher, k.epoch, &k.recalled_as(), k.hash),
                    "publisher": charter.publisher_name(k.publisher),
                    "publisher_id": k.publisher,
                    "freshness": self.freshness_word(k.publisher),
                    "groups": r.groups.iter().map(group_name).collect::<Vec<_>>(),
                    "tree": r.tree, "manifest": r.manifest.id,
                    "full_bytes": r.full_bytes, "delta_bytes": r.delta.map(|d| d.bytes),
                    "unpacked_bytes": r.unpacked_bytes, "files": r.files,
                    "state": content.map(|c| stage_text(&c.stage)),
                    "fetched_bytes": content.map(|c| c.fetched_bytes),
                    "fetched_as": content.and_then(|c| c.fetched_as),
                    "took_ms": content.and_then(|c| c.took_ms),
                    "origin": content.is_some_and(|c| c.origin),
                    "origins": r.origins.iter().map(name_of).collect::<Vec<_>>(),
                    "swarms": swarms,
                })
            })
            .collect();
        json!({ "schema": "stork.releases/v1", "releases": releases })
    }

    fn peers_json(&self) -> Value {
        let names = self.host_names();
        let now = self.clock.tick();
        let links: std::collections::BTreeMap<_, _> =
            self.overlay.links().map(|l| (l.peer.node, l)).collect();
        let peers: Vec<Value> = self
            .connections
            .iter()
            .map(|(node, c)| {
                let link = links.get(node);
                let (queued, shed) = c.connected.outbox.level();
                json!({
                    "node": node, "name": names.get(node),
                    "addr": c.connected.addr.to_string(), "certificate_expires": c.cert_expires,
                    "class": link.map_or(LinkClass::Transient, |l| l.class),
                    "dialled": c.dialled_by == self.me,
                    "rtt_ms": link.map(|l| l.rtt_ms),
                    "age_s": now.since(c.since) / 1_000,
                    "queued_bytes": queued, "shed_frames": shed,
                })
            })
            .collect();
        json!({
            "schema": "stork.peers/v1", "peers": peers,
            "known_hosts": self.overlay.hosts().count(),
        })
    }

    pub(super) fn find_vm(&self, name: &str) -> Result<(Label, &Vm), CallError> {
        let missing = || CallError::NotFound(format!("there is no VM `{name}` on this host"));
        let label: Label = name.parse().map_err(|_e| missing())?;
        let vm = self.vms.get(&label).ok_or_else(missing)?;
        Ok((label, vm))
    }

    fn order_rollback(
        &mut self,
        vm: &str,
        to: Option<u64>,
        undo: bool,
    ) -> Result<Value, CallError> {
        let (name, state) = self.find_vm(vm)?;
        if undo {
            let forgotten = state.skipped.len();
            if let Some(state) = self.vms.get_mut(&name) {
                state.skipped.clear();
            }
            self.save_skipped(&name);
            self.replan_soon();
            return Ok(json!({ "schema": "stork.rollback/v1", "vm": name, "undone": forgotten }));
        }
        if state.switching {
            let help = "wait a moment, and ask again".to_owned();
            return Err(CallError::Refused(format!("{name} is being switched"), help));
        }
        let target = self.views.rollback_target(&name, to).map_err(|e| {
            CallError::Refused(e.to_string(), format!("`stork vm {name}` lists its generations"))
        })?;
        let from = state.current.as_ref().map(|g| g.number);
        let number = target.number;
        self.roll_back(&name, target);
        Ok(json!({ "schema": "stork.rollback/v1", "vm": name, "from": from, "to": number }))
    }
}

/// A stage in a word or two.
pub(super) fn stage_text(stage: &Stage) -> String {
    match stage {
        Stage::Idle => "known".into(),
        Stage::Manifest => "finding".into(),
        Stage::Opening(_) => "preparing".into(),
        Stage::Fetching(_) => "fetching".into(),
        Stage::Unpacking(_) => "unpacking".into(),
        Stage::Whole => "whole".into(),
        Stage::Failed(why, _) => format!("failed: {why}"),
    }
}
