//! The answer to `stork why`: for every release of a package what became of it for a VM, and which
//! line, document and key made it so.

use core::cell::Cell;

use serde_json::{Value, json};
use stork_wire::feed::{Entry, Kind};
use stork_wire::frame::ItemRange;
use stork_wire::ids::{ItemHash, LogId, ManifestId, PublicKey, ReleaseHash};
use stork_wire::item::Item;
use stork_wire::text::{Label, PackageName};

use super::answers::stage_text;
use super::vms::Vm;
use super::{CallError, Driver};
use crate::catalog::{Because, Considered, KnownRelease, Outcome, Shown};

/// Entries with one number that are looked at: two branches, and what a thief adds.
const BRANCHES_MAX: usize = 8;
/// Releases that one status lists; all are counted.
const LISTED_MAX: usize = 16;

impl Driver {
    pub(super) fn why_json(&self, vm: &str, package: &str) -> Result<Value, CallError> {
        let (name, vm) = self.find_vm(vm)?;
        let package: PackageName =
            package.parse().map_err(|e| CallError::NotFound(format!("{e}")))?;
        let shown = vm.shown(&self.catalog);
        let subscribed = vm.file.subscriptions.iter().any(|s| s.package.matches(package.as_str()));
        let pulled = vm.wish.get(&package).and_then(|c| c.pulled_for.as_ref());
        let mut all = if pulled.is_some() {
            self.catalog.consider_pulled(&vm.file, &package, &shown, self.scene())
        } else {
            self.catalog.consider(&vm.file, &package, &shown, self.scene())
        };
        for c in &mut all {
            if let Some(why) = vm.withheld.get(&c.known.hash) {
                c.outcome = why.clone();
            }
        }
        // What the whole has put in the place of the best.
        let wished = vm.wish.get(&package).map(|c| c.known.hash);
        for c in all.iter_mut().filter(|c| Some(c.known.hash) == wished) {
            if c.outcome == Outcome::Older {
                c.outcome = Outcome::Chosen;
            }
        }
        let considered: Vec<Value> =
            all.iter().map(|c| self.considered_json(vm, &shown, c)).collect();
        let known = !self.catalog.of_package(&package).is_empty();
        let answer = match (known, subscribed || pulled.is_some()) {
            (false, _) => format!("no release of `{package}` is known here"),
            (true, false) => format!("no [[subscribe]] of {name} names `{package}`"),
            (true, true) => answer(&package, &all, pulled),
        };
        Ok(json!({
            "schema": "stork.why/v1", "vm": name, "package": package, "answer": answer,
            "file": vm.file.path, "subscribed": subscribed, "pulled_for": pulled,
            "considered": considered, "frozen": self.frozen_of(&all),
            "stale": self.stale_of(vm, all.iter().map(|c| c.known.publisher)),
            "error": vm.failed.as_ref().map(|(why, _, _)| why),
        }))
    }

    /// What VMs do not get because of the whole, for `stork status`.
    pub(super) fn withheld_json(&self) -> Value {
        let all = self.vms.iter().flat_map(|(name, vm)| vm.withheld.iter().map(move |w| (name, w)));
        let one = |(name, (hash, why)): (&Label, (&ReleaseHash, &Outcome))| {
            let release = self.catalog.by_hash(*hash).map(|k| &k.release);
            json!({
                "vm": name, "package": release.map(|r| &r.package),
                "version": release.map(|r| &r.version), "why": why.to_string(),
            })
        };
        let count = all.clone().count();
        json!({ "count": count, "listed": all.take(LISTED_MAX).map(one).collect::<Vec<_>>() })
    }

    fn considered_json(&self, vm: &Vm, shown: &Shown, c: &Considered<'_>) -> Value {
        let (r, k) = (&c.known.release, c.known);
        let charter = self.trust.charter();
        let rule = c.decision.rule.and_then(|i| vm.file.rules.get(i).map(|r| (i, r)));
        let because = c.because(&vm.file, self.scene());
        let via: Vec<String> = c.decision.via.iter().map(|p| charter.publisher_name(*p)).collect();
        let needs = self.catalog.needs_of(&vm.file, shown, self.scene(), (k, &vm.wish));
        let needs = needs.into_iter().map(|(line, by)| json!({ "line": line, "met_by": by }));
        let bundle = r.bundle.as_ref();
        json!({
            "version": r.version, "release": r.release, "arch": r.arch,
            "publisher": charter.publisher_name(k.publisher), "publisher_id": k.publisher,
            "outcome": c.outcome.to_string(), "chosen": c.outcome.is_choice(),
            "help": help(&vm.file.name, k, &c.outcome),
            "because": because_json(&because, vm),
            "rule": rule.map(|(i, r)| json!({
                "number": i + 1, "effect": format!("{:?}", r.effect).to_lowercase(),
                "subject": r.subject.to_string(), "line": r.line,
            })),
            "delegated_by": via,
            "entry": {
                "epoch": k.epoch, "seq": k.seq, "document": k.document,
                "keys": self.keys_of(k).iter().map(|key| json!({ "public_key": key }))
                    .collect::<Vec<_>>(),
            },
            "needs": needs.collect::<Vec<_>>(),
            "bundle": bundle.map(|b| json!({ "name": b.name, "members": b.members })),
            "shown": shown.releases.get(&r.package) == Some(&k.hash),
            "content": self.contents.get(&r.manifest.id).map(|k| stage_text(&k.stage)),
            "files_skipped": self.scripts_of(&r.manifest.id),
        })
    }

    /// The release keys that signed an entry, read from the journal and checked once more.
    fn keys_of(&self, known: &KnownRelease) -> Vec<PublicKey> {
        let log = LogId::feed_epoch(known.publisher, known.epoch);
        let range = ItemRange { log, from: known.seq, to: known.seq };
        let items = self.store.items(range, usize::MAX, 1).unwrap_or_default();
        items.first().map(|item| self.trust.signers(item)).unwrap_or_default()
    }

    /// Maintainer scripts of a release, which no tree view runs.
    fn scripts_of(&self, id: &ManifestId) -> Vec<String> {
        let manifest = self.store.manifest_decoded(*id).ok().flatten();
        let files = manifest.iter().flat_map(|m| m.source.control_files.iter());
        files.filter(|f| f.is_script()).map(|f| f.name.to_string()).collect()
    }

    /// The hash of the entry that announced a release: what a new epoch begins after. Of one that
    /// is in no feed any more, because its key has ended or the feed forked before it, that is
    /// read from what is kept aside: the owner must say whether it stands. So many may be read.
    pub(super) fn entry_hash(&self, known: &KnownRelease, reads: &Cell<usize>) -> Option<ItemHash> {
        let at = stork_wire::ids::Position { epoch: known.epoch, seq: known.seq };
        let here = self.trust.feed(known.publisher).and_then(|f| f.entry_hash(at));
        here.or_else(|| {
            known.frozen?;
            reads.set(reads.get().checked_sub(1)?);
            let log = LogId::feed_epoch(known.publisher, known.epoch);
            let items = self.store.log_items_aside(log, known.seq, BRANCHES_MAX).ok()?;
            let is_its = |item: &&Item| {
                let entry = item.envelope.claimed::<Entry>();
                item.seq == known.seq
                    && entry.is_ok_and(|e| match &e.kind {
                        Kind::Release(r) => r.hash() == known.hash,
                        Kind::Sealed(s) => s.hash() == known.hash,
                        _ => false,
                    })
            };
            items.iter().find(is_its).map(|i| i.envelope.hash())
        })
    }
}

fn because_json(because: &Because, vm: &Vm) -> Value {
    let rule = because.rule.as_ref();
    json!({
        "part": rule.map(|(part, _)| part),
        "line": rule.map(|(_, line)| line),
        "file": rule.map(|_| &vm.file.path),
        "document": because.document.as_ref().map(|d| json!({
            "kind": d.kind, "name": d.name, "number": d.number,
        })),
    })
}

fn answer(package: &PackageName, all: &[Considered<'_>], pulled: Option<&PackageName>) -> String {
    let for_whom = pulled.map(|p| format!(", because `{p}` needs it")).unwrap_or_default();
    match (all.iter().find(|c| c.outcome.is_choice()), all.first()) {
        (Some(c), _) if c.outcome == Outcome::Kept => {
            format!("{package} {} is {}", c.known.release.version, c.outcome)
        }
        (Some(c), _) => format!("{package} {} is chosen{for_whom}", c.known.release.version),
        (None, Some(c)) => format!("nothing is chosen; the best: {}", c.outcome),
        (None, None) => String::new(),
    }
}

/// What an operator can do about it.
fn help(vm: &Label, known: &KnownRelease, outcome: &Outcome) -> Option<String> {
    let r = &known.release;
    let (package, version) = (&r.package, &r.version);
    match outcome {
        Outcome::Downgrade(_) => Some(format!(
            "an operator lets it: `stork permit create {vm} {package}={version} --key FILE`"
        )),
        Outcome::Privileged(_) => {
            Some(format!("if that is wanted, add `privileged = [\"{package}\"]` to [view]"))
        }
        Outcome::Skipped => Some(format!("`stork rollback {vm} --undo` forgets it")),
        Outcome::OverQuota { .. } => Some(format!(
            "raise `vms.{vm}` in [quota] of the node's settings, or subscribe to less; \
             a view that keeps no copy (`tree`, `composefs`) takes half of an `image`"
        )),
        Outcome::NotAttested { .. } => Some(
            "the other publishers announce the same content, or the rule asks for fewer".into(),
        ),
        _ => None,
    }
}
