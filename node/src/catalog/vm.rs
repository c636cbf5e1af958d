//! A VM's file (`vms.d/NAME.toml`): what it wants, whom it trusts, and how it is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stork_wire::text::{Arch, GroupName, Label, PackageName, Pattern};

use super::{Constraint, OnDeny, OnRecall, SwitchRule};
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
    /// The set's folder beneath a layer that takes the VM's writes; needs root.
    Overlay,
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
            Self::Overlay => "overlay",
        }
    }
}

/// Which ids of the host stand for those of a guest in a user namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// The user of the host that is the guest's user 0.
    pub uid: u32,
    /// The group of the host that is the guest's group 0.
    pub gid: u32,
    /// How many ids, from 0 on.
    pub count: u32,
}

impl IdMap {
    /// The host's user for a guest's.
    #[must_use]
    pub fn uid_of(self, id: u32) -> Option<u32> {
        self.uid.checked_add(id).filter(|_| id < self.count)
    }

    /// The host's group for a guest's.
    #[must_use]
    pub fn gid_of(self, id: u32) -> Option<u32> {
        self.gid.checked_add(id).filter(|_| id < self.count)
    }

    /// Why no map can be made of it; none where one can.
    #[must_use]
    pub fn fault(self) -> Option<&'static str> {
        let past = |first: u32| first.checked_add(self.count).is_none();
        match self {
            Self { count: 0, .. } => Some("`count` is 0"),
            Self { uid: 0, .. } | Self { gid: 0, .. } => Some("the host's root is no guest's"),
            _ if past(self.uid) || past(self.gid) => Some("it reaches past the last id"),
            _ => None,
        }
    }
}

/// What `[view]` says beside backend and target; each backend reads what it can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewOptions {
    /// Paths of the view, without a leading slash, whose private changes always win: files, or
    /// folders with all that is in them.
    pub keep: Vec<String>,
    /// The folder for private changes, where it is not the store's.
    pub upper: Option<PathBuf>,
    /// Bytes of private changes that are carried along to another generation.
    pub upper_bytes_max: u64,
    /// Ids of a guest in a user namespace.
    pub idmap: Option<IdMap>,
}

/// Bytes of private changes where the VM's file says nothing.
pub(super) const UPPER_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

impl Default for ViewOptions {
    fn default() -> Self {
        Self { keep: Vec::new(), upper: None, upper_bytes_max: UPPER_BYTES_MAX, idmap: None }
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

/// What must hold of a package set before a VM is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRule {
    /// Paths of the view, without a leading slash, that must be there.
    pub files: Vec<String>,
    /// A program that is given the path of the set, as it was built.
    pub command: Option<PathBuf>,
    /// Seconds after which it is killed.
    pub timeout_s: u64,
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
    /// What else `[view]` says.
    pub view: ViewOptions,
    /// Packages whose setuid files, devices and the like are allowed.
    pub privileged: Vec<Pattern>,
    /// Generations to keep.
    pub keep_generations: usize,
    /// What must hold before a switch.
    pub check: Option<CheckRule>,
    /// When it is switched.
    pub switch: SwitchRule,
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
