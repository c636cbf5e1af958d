//! What a push did: for `--json` and for people.

use serde::Serialize;
use stork_wire::feed::Entry;
use stork_wire::ids::{ManifestId, NodeId, TreeId};

use super::origin::OriginReport;
use crate::out;
use crate::pack::Packed;
use crate::source::Package;
use stork_wire::manifest::{Manifest, Variant};

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The release is announced.
    Published,
    /// The same release was there already; nothing was done.
    AlreadyPublished,
    /// `--dry-run`: everything was checked, nothing was sent.
    DryRun,
}

/// What went to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it was reached.
    pub addr: String,
    /// Bytes that travelled.
    pub sent_bytes: u64,
    /// Bytes that an earlier try had left there.
    pub resumed_bytes: u64,
    /// Bytes of packs that it had whole.
    pub present_bytes: u64,
    /// Has it committed the entry itself? If not, it learns it from the others.
    pub committed: bool,
    /// Peers that it handed the entry to at once.
    pub peers: u32,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushReport {
    /// `stork.push/v1`.
    pub schema: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub arch: String,
    /// The names of the groups that it is for.
    pub groups: Vec<String>,
    /// What a VM is shown.
    pub tree: TreeId,
    /// The manifest; `None` where nothing was packed.
    pub manifest: Option<ManifestId>,
    /// The number of the entry in the feed.
    pub seq: Option<u64>,
    /// Bytes of all files.
    pub unpacked_bytes: u64,
    /// Bytes of the full packs.
    pub full_bytes: Option<u64>,
    /// Bytes of the delta, where one is offered.
    pub delta_bytes: Option<u64>,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// The origin, where one is used and something was to be put there.
    pub origin: Option<OriginReport>,
    /// Maintainer scripts that a tree view will not run.
    pub scripts_not_run: Vec<String>,
    /// What else the maintainer should know.
    pub notes: Vec<String>,
}

impl PushReport {
    /// A report of a package that nothing was done with yet.
    pub(super) fn of(package: &Package, groups: Vec<String>, nodes: Vec<NodeReport>) -> Self {
        Self {
            schema: "stork.push/v1",
            outcome: Outcome::AlreadyPublished,
            package: package.name.to_string(),
            version: package.version.to_string(),
            arch: package.arch.to_string(),
            groups,
            tree: package.tree.id(),
            manifest: None,
            seq: None,
            unpacked_bytes: package.unpacked_bytes(),
            full_bytes: None,
            delta_bytes: None,
            nodes,
            origin: None,
            scripts_not_run: package.scripts().iter().map(|s| (*s).to_owned()).collect(),
            notes: package.notes.clone(),
        }
    }

    pub(super) fn add_packed(&mut self, packed: &Packed, entry: &Entry) {
        let packing = &packed.manifest.packing;
        self.manifest = Some(Manifest::reference(&packed.bytes).id);
        self.seq = Some(entry.seq);
        self.full_bytes = Some(packing.bytes(Variant::Full));
        self.delta_bytes = packing.delta.as_ref().map(|_| packing.bytes(Variant::Delta));
    }

    /// The report as lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let name = format!("{} {} ({})", self.package, self.version, self.arch);
        let mut out = vec![match (self.outcome, self.seq) {
            (Outcome::AlreadyPublished, seq) => {
                format!("already published as entry {}: {name}", seq.unwrap_or_default())
            }
            (Outcome::DryRun, seq) => {
                format!("would publish {name} as entry {}", seq.unwrap_or_default())
            }
            (Outcome::Published, seq) => {
                format!("published {name} as entry {}", seq.unwrap_or_default())
            }
        }];
        out.push(format!("  groups    {}", self.groups.join(", ")));
        out.push(format!("  tree      {}", self.tree));
        if let Some(full) = self.full_bytes {
            let unpacked = out::bytes(self.unpacked_bytes);
            out.push(format!("  packed    {} of {unpacked}", out::bytes(full)));
            out.push(match self.delta_bytes {
                Some(delta) => format!("  delta     {}", out::bytes(delta)),
                None => "  delta     none".into(),
            });
        }
        if self.outcome == Outcome::Published {
            out.extend(self.nodes.iter().map(NodeReport::line));
            out.extend(self.origin.iter().map(OriginReport::line));
        }
        if !self.scripts_not_run.is_empty() {
            let scripts = self.scripts_not_run.join(", ");
            out.push(format!("  scripts   a tree view will not run: {scripts}"));
        }
        out.extend(self.notes.iter().map(|n| format!("  note      {n}")));
        if self.outcome != Outcome::DryRun {
            out.push(format!("watch it: stork release {}", self.package));
        }
        out
    }
}

impl NodeReport {
    pub(super) fn line(&self) -> String {
        let how = if self.committed { "committed" } else { "will learn it from the others" };
        let mut line = format!(
            "  node      {} {} at {}: {} sent",
            self.name,
            self.node.short(),
            self.addr,
            out::bytes(self.sent_bytes)
        );
        for (bytes, what) in
            [(self.resumed_bytes, "resumed"), (self.present_bytes, "there already")]
        {
            if bytes > 0 {
                line.push_str(&format!(", {} {what}", out::bytes(bytes)));
            }
        }
        line.push_str(&format!(", {how}"));
        line
    }
}
