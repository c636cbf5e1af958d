//! A VM's file (`vms.d/NAME.toml`): what it wants, whom it trusts, and how it is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stork_wire::text::{Arch, GroupName, Label, PackageName, Pattern};

use super::{Constraint, OnDeny, OnRecall};
use crate::trust::{OnStale, Rule};

/// A VM file that cannot be used: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    /// What is wrong; names the line where the parser knows it.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// How a VM is shown its packages. What each of them does stands in the room `view`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The set's folder, mounted read-only; needs root.
    Tree,
    /// A tree of hard links; needs `isolation = "none"`.
    Hardlink,
    /// The same as `Tree`, handed to hardware VMs by virtiofsd.
    Virtiofs,
    /// An apt repository, mounted read-only; the guest's own apt installs from it.
    Packages,
    /// A system extension, mounted read-only.
    Sysext,
    /// An image of names over the store's objects, mounted read-only; needs root.
    Composefs,
    /// A folder with an image of a file system, for guests with a kernel of their own; needs root.
    Image,
}

impl Backend {
    /// The word for it in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Hardlink => "hardlink",
            Self::Virtiofs => "virtiofs",
            Self::Packages => "packages",
            Self::Sysext => "sysext",
            Self::Composefs => "composefs",
            Self::Image => "image",
        }
    }
}

/// What happens when the hook after a switch fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The previous generation is shown again.
    #[default]
    Rollback,
    /// The failure is reported, the new generation stays.
    Report,
}

/// The program that runs after a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRule {
    /// An absolute path.
    pub command: PathBuf,
    /// Seconds after which it is killed.
    pub timeout_s: u64,
    /// What a failure means.
    pub on_failure: OnFailure,
}

/// Packages that a VM wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which package names.
    pub package: Pattern,
    /// Of this group only; `None`: of any of the VM's groups.
    pub group: Option<GroupName>,
    /// Which versions.
    pub version: Constraint,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// A package that is kept to a constraint, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPin {
    /// Which versions.
    pub version: Constraint,
    /// Why.
    pub reason: String,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// A package that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmHold {
    /// Why, for people.
    pub reason: String,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// What a VM makes of the packages that a package says it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnDepends {
    /// They are shown to whoever asks, and change nothing.
    #[default]
    Show,
    /// A package whose needs the VM's packages do not meet is not installed.
    Check,
    /// What is missing is installed as well, where the VM's own rules allow it.
    Pull,
}

/// All that a VM's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmFile {
    /// The file itself; empty where it was read from elsewhere.
    pub path: PathBuf,
    /// The lines of `[vm]` and `[view]`, from 1.
    pub table_lines: (usize, usize),
    /// Its name.
    pub name: Label,
    /// Its architecture.
    pub arch: Arch,
    /// The groups it belongs to.
    pub groups: Vec<GroupName>,
    /// What it wants.
    pub subscriptions: Vec<Subscription>,
    /// Packages kept to a constraint.
    pub pins: BTreeMap<PackageName, VmPin>,
    /// Packages that stay as they are.
    pub holds: BTreeMap<PackageName, VmHold>,
    /// What a denial does to what is shown.
    pub on_deny: OnDeny,
    /// What is shown while the replacement of what was taken back is not whole.
    pub on_recall: OnRecall,
    /// Whom it trusts.
    pub rules: Vec<Rule>,
    /// What feeds that are not fresh mean, where a rule says nothing else.
    pub freshness: OnStale,
    /// What dependencies mean.
    pub depends: OnDepends,
    /// Unpacked bytes of all that dependencies of one package may bring in.
    pub depends_bytes_max: u64,
    /// How it is shown.
    pub backend: Backend,
    /// Where.
    pub target: PathBuf,
    /// `isolation = "none"`: the VM could write the shared files, and that is accepted.
    pub isolation_none: bool,
    /// Packages whose setuid files, devices and the like are allowed.
    pub privileged: Vec<Pattern>,
    /// Generations to keep.
    pub keep_generations: usize,
    /// What runs after a switch.
    pub hook: Option<HookRule>,
}

impl VmFile {
    /// Does it make more of a feed that is not fresh than to flag it?
    #[must_use]
    pub fn asks_for_freshness(&self) -> bool {
        let own = self.rules.iter().filter_map(|r| r.freshness);
        own.chain([self.freshness]).any(|f| f != OnStale::Serve)
    }
}
