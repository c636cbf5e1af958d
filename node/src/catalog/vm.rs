//! A VM's file (`vms.d/NAME.toml`): what it wants, whom it trusts, and how it is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use stork_wire::text::{Arch, GroupName, Label, PackageName, Pattern};

use super::{Constraint, OnDeny, OnRecall};
use crate::trust::{Effect, Rule, Subject};

/// A VM file that cannot be used: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    /// What is wrong; names the line where the parser knows it.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> FileError {
    FileError { message: message.into(), help: help.into() }
}

/// How a VM is shown its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// A read-only mount of the set's directory; needs root.
    Tree,
    /// A tree of hard links; needs `isolation = "none"`.
    Hardlink,
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
}

/// A package that is kept to a constraint, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPin {
    /// Which versions.
    pub version: Constraint,
    /// Why.
    pub reason: String,
}

/// All that a VM's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmFile {
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
    /// Packages that stay as they are, with the reason.
    pub holds: BTreeMap<PackageName, String>,
    /// What a denial does to what is shown.
    pub on_deny: OnDeny,
    /// What is shown while the replacement of what was taken back is not whole.
    pub on_recall: OnRecall,
    /// Whom it trusts.
    pub rules: Vec<Rule>,
    /// How it is shown.
    pub backend: BackendKind,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    vm: RawVm,
    #[serde(default)]
    subscribe: Vec<RawSubscribe>,
    #[serde(default)]
    pin: Vec<RawPin>,
    #[serde(default)]
    hold: Vec<RawHold>,
    #[serde(default)]
    trust: Vec<RawTrust>,
    view: RawView,
    hook: Option<RawHook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVm {
    name: Option<Label>,
    arch: Option<Arch>,
    groups: Vec<GroupName>,
    #[serde(default)]
    on_deny: OnDeny,
    #[serde(default)]
    on_recall: OnRecall,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubscribe {
    package: Pattern,
    group: Option<GroupName>,
    #[serde(default)]
    version: Constraint,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPin {
    package: PackageName,
    version: Constraint,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHold {
    package: PackageName,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrust {
    allow: Option<String>,
    deny: Option<String>,
    #[serde(default)]
    packages: Vec<Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawView {
    backend: BackendKind,
    target: PathBuf,
    isolation: Option<String>,
    #[serde(default)]
    privileged: Vec<Pattern>,
    #[serde(default = "default_generations")]
    keep_generations: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    command: PathBuf,
    #[serde(default = "default_timeout")]
    timeout_s: u64,
    #[serde(default)]
    on_failure: OnFailure,
}

const fn default_generations() -> usize {
    5
}
const fn default_timeout() -> u64 {
    60
}

fn this_arch() -> Result<Arch, FileError> {
    let name = if core::cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    name.parse().map_err(|e| wrong(format!("{e}"), "write `arch` into [vm]"))
}

/// The VM's name where its file does not say one: the file's own, without `.toml`.
fn name_of(stem: &str) -> Result<Label, FileError> {
    let help = "rename the file, or write `name` into [vm]";
    stem.parse().map_err(|e| wrong(format!("the file's own name: {e}"), help))
}

impl From<RawSubscribe> for Subscription {
    fn from(raw: RawSubscribe) -> Self {
        Self { package: raw.package, group: raw.group, version: raw.version }
    }
}

impl VmFile {
    /// Reads a VM's file; `stem` is the file's name without `.toml`, the VM's name by default.
    pub fn parse(stem: &str, text: &str) -> Result<Self, FileError> {
        let raw: RawFile = toml::from_str(text).map_err(|e| {
            let e = e.to_string();
            wrong(e.trim_end(), crate::config::hint_for(&e))
        })?;
        let pins = raw.pin.into_iter();
        let file = Self {
            name: raw.vm.name.map_or_else(|| name_of(stem), Ok)?,
            arch: raw.vm.arch.map_or_else(this_arch, Ok)?,
            groups: raw.vm.groups,
            on_deny: raw.vm.on_deny,
            on_recall: raw.vm.on_recall,
            subscriptions: raw.subscribe.into_iter().map(Into::into).collect(),
            pins: pins
                .map(|p| (p.package, VmPin { version: p.version, reason: p.reason }))
                .collect(),
            holds: raw.hold.into_iter().map(|h| (h.package, h.reason)).collect(),
            rules: raw.trust.into_iter().map(rule).collect::<Result<_, _>>()?,
            backend: raw.view.backend,
            target: raw.view.target,
            isolation_none: isolation(raw.view.isolation.as_deref())?,
            privileged: raw.view.privileged,
            keep_generations: raw.view.keep_generations.clamp(2, 100),
            hook: raw.hook.map(|h| HookRule {
                command: h.command,
                timeout_s: h.timeout_s.clamp(1, 3_600),
                on_failure: h.on_failure,
            }),
        };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), FileError> {
        if !self.target.is_absolute() {
            return Err(wrong(
                format!("view.target `{}` is not an absolute path", self.target.display()),
                "write the whole path, beginning with `/`",
            ));
        }
        if self.backend == BackendKind::Hardlink && !self.isolation_none {
            return Err(wrong(
                "a `hardlink` view shares files that root in the VM could write to",
                "use `backend = \"tree\"`, or accept it with `isolation = \"none\"` in [view]",
            ));
        }
        if let Some(h) = &self.hook
            && !h.command.is_absolute()
        {
            return Err(wrong(
                format!("hook.command `{}` is not an absolute path", h.command.display()),
                "write the whole path, beginning with `/`",
            ));
        }
        let lone = self.subscriptions.iter().filter_map(|s| s.group.as_ref());
        for g in lone {
            if !self.groups.contains(g) {
                return Err(wrong(
                    format!("subscribe.group `{g}` is none of this VM's groups"),
                    "add it to `groups` in [vm]",
                ));
            }
        }
        Ok(())
    }
}

fn isolation(text: Option<&str>) -> Result<bool, FileError> {
    match text {
        None | Some("default") => Ok(false),
        Some("none") => Ok(true),
        Some(other) => Err(wrong(
            format!("view.isolation `{other}` is not known"),
            "write `default` or `none`",
        )),
    }
}

fn rule(raw: RawTrust) -> Result<Rule, FileError> {
    let (effect, who) = match (&raw.allow, &raw.deny) {
        (Some(who), None) => (Effect::Allow, who),
        (None, Some(who)) => (Effect::Deny, who),
        _ => {
            return Err(wrong(
                "a [[trust]] rule has either `allow` or `deny`",
                "write for example `allow = \"acme\"`",
            ));
        }
    };
    let subject = Subject::parse(who)
        .map_err(|e| wrong(format!("trust: {e}"), "name a publisher, its id, or `*`"))?;
    Ok(Rule { effect, subject, packages: raw.packages })
}
