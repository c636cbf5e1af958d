//! For each decision about a release, what made it: the line of the VM's file, and the signed
//! document.

use super::{Considered, Narrow, Outcome, Scene, VmFile};
use crate::trust::{Expired, Freshness, GroupState, OnStale};

/// A signed document that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `root`, `group`, `publisher`, `entry`, `proof`, `denial`, `recall` or `halt`.
    pub kind: &'static str,
    /// The name of the fleet, group or publisher.
    pub name: String,
    /// Its number; of an entry or a proof, its place in the feed; of what narrows, its log.
    pub number: String,
}

/// What made a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Because {
    /// The part of the VM's file, and its line; none where it has no say in it.
    pub rule: Option<(String, usize)>,
    /// The document; none where the VM's file alone decided.
    pub document: Option<Document>,
}

struct Finder<'a> {
    vm: &'a VmFile,
    c: &'a Considered<'a>,
    scene: Scene<'a>,
}

impl Finder<'_> {
    fn table(&self) -> Option<(String, usize)> {
        Some(("[vm]".to_owned(), self.vm.table_lines.0))
    }

    /// The trust rule that decided.
    fn trust_rule(&self) -> Option<(String, usize)> {
        let i = self.c.decision.rule?;
        self.vm.rules.get(i).map(|r| (format!("[[trust]] rule {}", i + 1), r.line))
    }

    /// Where the rules end, of which none matches: what no rule names is denied.
    fn no_rule(&self) -> Option<(String, usize)> {
        let last = self.vm.rules.last().map(|r| ("after the last [[trust]]".to_owned(), r.line));
        last.or_else(|| self.table())
    }

    /// The subscription that names the package.
    fn subscription(&self) -> Option<(String, usize)> {
        let name = self.c.known.release.package.as_str();
        let mut all = self.vm.subscriptions.iter();
        all.find(|s| s.package.matches(name)).map(|s| ("[[subscribe]]".to_owned(), s.line))
    }

    fn group_document(&self, group: &GroupState) -> Document {
        let doc = group.doc();
        Document { kind: "group", name: doc.name.to_string(), number: doc.number.to_string() }
    }

    /// The document of the group through which the VM has it.
    fn granting(&self) -> Option<Document> {
        let charter = self.scene.trust.charter();
        let groups = self.vm.groups.iter().filter_map(|g| charter.group_named(g.as_str()));
        let mut own = groups.filter(|g| self.c.known.release.groups.contains(&g.id()));
        let way = self.c.decision.via.first().copied();
        let whose = way.unwrap_or(self.c.known.publisher);
        own.find(|g| g.grant(whose).is_some()).map(|g| self.group_document(g))
    }

    /// The document of the group whose rule for beacons makes a feed stale that is not by itself.
    fn beacon_rule(&self) -> Option<Document> {
        let (trust, id) = (self.scene.trust, self.c.known.publisher);
        let state = trust.freshness(id, self.scene.now);
        if !matches!(state, Freshness::Fresh { .. } | Freshness::Unwatched) {
            return None;
        }
        let groups = self.vm.groups.iter().filter_map(|g| trust.charter().group_named(g.as_str()));
        let own = groups.filter(|g| self.c.known.release.groups.contains(&g.id()));
        let asking = own.filter(|g| g.doc().beacon_s.is_some());
        asking.min_by_key(|g| g.doc().beacon_s).map(|g| self.group_document(g))
    }

    fn name(&self) -> String {
        self.scene.trust.charter().publisher_name(self.c.known.publisher)
    }

    fn entry(&self) -> Option<Document> {
        let k = self.c.known;
        let number = stork_wire::ids::Position { epoch: k.epoch, seq: k.seq }.to_string();
        Some(Document { kind: "entry", name: self.name(), number })
    }

    fn publisher(&self) -> Option<Document> {
        let publisher = self.scene.trust.charter().publisher(self.c.known.publisher)?;
        let number = publisher.doc().number.to_string();
        Some(Document { kind: "publisher", name: self.name(), number })
    }

    /// The document that has run out, where that is why a feed is not fresh.
    fn run_out(&self) -> Option<Document> {
        let (trust, id) = (self.scene.trust, self.c.known.publisher);
        let Freshness::Expired { document, .. } = trust.freshness(id, self.scene.now) else {
            return None;
        };
        match document {
            Expired::Root => trust.charter().root().map(|r| Document {
                kind: "root",
                name: r.name.to_string(),
                number: r.number.to_string(),
            }),
            Expired::Groups => self.granting(),
            Expired::Publisher => self.publisher(),
        }
    }

    /// What narrows has a log of its own, by whose name a denial is lifted.
    fn narrowing(&self, by: &Narrow) -> Option<Document> {
        let (kind, name, log) = match by {
            Narrow::Denied(by) => ("denial", by.group.clone(), by.log),
            Narrow::Recalled(log, _) => ("recall", self.name(), *log),
            Narrow::Halted(log, _) => ("halt", self.name(), *log),
            Narrow::Unsettled(_) => return self.publisher(),
        };
        Some(Document { kind, name, number: log.to_string() })
    }

    fn find(&self) -> Because {
        let package = &self.c.known.release.package;
        let (rule, document) = match &self.c.outcome {
            Outcome::Chosen | Outcome::Older => (self.trust_rule(), self.granting()),
            Outcome::NotAttested { .. } => (self.trust_rule(), None),
            Outcome::Denied(Some(_)) => (self.trust_rule(), None),
            Outcome::Denied(None) => (self.no_rule(), None),
            Outcome::OtherArch
            | Outcome::NotForGroup
            | Outcome::OverQuota { .. }
            | Outcome::Depends(_) => (self.table(), None),
            Outcome::NotGranted(name) => {
                let group = self.scene.trust.charter().group_named(name);
                (None, group.map(|g| self.group_document(g)))
            }
            Outcome::Constraint(_) => (self.subscription(), None),
            Outcome::Pinned(_) | Outcome::Kept => {
                let pin = self.vm.pins.get(package).map(|p| ("[[pin]]".to_owned(), p.line));
                (pin.or_else(|| self.subscription()), None)
            }
            Outcome::Held(_) => {
                let hold = self.vm.holds.get(package);
                (hold.map(|h| ("[[hold]]".to_owned(), h.line)), None)
            }
            Outcome::NotFresh { .. } => {
                let by_rule = self.c.decision.rule.and_then(|i| self.vm.rules.get(i));
                let own = by_rule.is_some_and(|r| r.freshness.is_some_and(|f| f != OnStale::Serve));
                let rule = if own { self.trust_rule() } else { self.table() };
                (rule, self.run_out().or_else(|| self.beacon_rule()))
            }
            Outcome::Privileged(_) => (Some(("[view]".to_owned(), self.vm.table_lines.1)), None),
            Outcome::Frozen(freeze) => {
                let (name, number) = (self.name(), freeze.at.to_string());
                (None, Some(Document { kind: "proof", name, number }))
            }
            Outcome::Narrowed(by) => (None, self.narrowing(by)),
            // An operator's word at this host: no line, and no document.
            Outcome::Skipped => (None, None),
            Outcome::Downgrade(_)
            | Outcome::BelowFloor(_)
            | Outcome::Expired
            | Outcome::Retired
            | Outcome::Stale(_)
            | Outcome::Blocked(_)
            | Outcome::Bundle { .. } => (None, self.entry()),
        };
        Because { rule, document }
    }
}

impl Considered<'_> {
    /// What made this decision.
    #[must_use]
    pub fn because(&self, vm: &VmFile, scene: Scene<'_>) -> Because {
        Finder { vm, c: self, scene }.find()
    }
}
