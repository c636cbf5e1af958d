//! Reads a VM's file: the tables as they are written, their lines, and what cannot be.

use std::path::PathBuf;

use serde::Deserialize;
use stork_wire::text::{Arch, GroupName, Label, PackageName, Pattern};
use toml::Spanned;

use super::vm::{
    Backend, FileError, HookRule, IdMap, OnDepends, OnFailure, Subscription, UPPER_BYTES_MAX,
    ViewOptions, VmFile, VmHold, VmPin,
};
use super::vm_when::{RawCheck, RawSwitch, view_path};
use super::{Constraint, OnDeny, OnRecall};
use crate::trust::{Attested, Effect, OnStale, Rule, Subject};

pub(super) fn wrong(message: impl Into<String>, help: impl Into<String>) -> FileError {
    FileError { message: message.into(), help: help.into() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    vm: Spanned<RawVm>,
    #[serde(default)]
    subscribe: Vec<Spanned<RawSubscribe>>,
    #[serde(default)]
    pin: Vec<Spanned<RawPin>>,
    #[serde(default)]
    hold: Vec<Spanned<RawHold>>,
    #[serde(default)]
    trust: Vec<Spanned<RawTrust>>,
    view: Spanned<RawView>,
    check: Option<RawCheck>,
    #[serde(default)]
    switch: RawSwitch,
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
    #[serde(default)]
    freshness: OnStale,
    #[serde(default)]
    depends: OnDepends,
    #[serde(default = "default_depends_bytes")]
    depends_bytes_max: u64,
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
    provides: Option<Vec<Pattern>>,
    publishers: Option<RawAttested>,
    freshness: Option<OnStale>,
    #[serde(default)]
    delegations: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAttested {
    need: usize,
    of: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawView {
    backend: Backend,
    target: PathBuf,
    isolation: Option<String>,
    #[serde(default)]
    privileged: Vec<Pattern>,
    #[serde(default = "default_generations")]
    keep_generations: usize,
    #[serde(default)]
    keep: Vec<String>,
    upper: Option<PathBuf>,
    upper_mib_max: Option<u64>,
    idmap: Option<IdMap>,
}

impl RawView {
    fn options(&self) -> Result<ViewOptions, FileError> {
        let keep: Result<Vec<_>, _> =
            self.keep.iter().map(|path| view_path("view.keep", path)).collect();
        let keep = keep?;
        if let Some(upper) = self.upper.as_ref().filter(|p| !p.is_absolute()) {
            let message = format!("view.upper `{}` is not an absolute path", upper.display());
            return Err(wrong(message, "write the whole path, beginning with `/`"));
        }
        if let Some(why) = self.idmap.and_then(IdMap::fault) {
            let help = "write for example `idmap = { uid = 100000, gid = 100000, count = 65536 }`";
            return Err(wrong(format!("view.idmap: {why}"), help));
        }
        let mib = |n: u64| n.saturating_mul(1024 * 1024);
        let upper_bytes_max = self.upper_mib_max.map_or(UPPER_BYTES_MAX, mib);
        Ok(ViewOptions { keep, upper: self.upper.clone(), upper_bytes_max, idmap: self.idmap })
    }
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
const fn default_depends_bytes() -> u64 {
    8 * 1024 * 1024 * 1024
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

/// The line, from 1, of what begins at this byte.
fn line_at(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|b| **b == b'\n').count() + 1
}

impl VmFile {
    /// Reads a VM's file; `stem` is the file's name without `.toml`, the VM's name by default.
    pub fn parse(stem: &str, text: &str) -> Result<Self, FileError> {
        let raw: RawFile = toml::from_str(text).map_err(|e| {
            let e = e.to_string();
            wrong(e.trim_end(), crate::config::hint_for(&e))
        })?;
        let line = |span: core::ops::Range<usize>| line_at(text, span.start);
        let table_lines = (line(raw.vm.span()), line(raw.view.span()));
        let (vm, view) = (raw.vm.into_inner(), raw.view.into_inner());
        let options = view.options()?;
        let subscription = |raw: Spanned<RawSubscribe>| {
            let (line, raw) = (line(raw.span()), raw.into_inner());
            Subscription { package: raw.package, group: raw.group, version: raw.version, line }
        };
        let pin = |raw: Spanned<RawPin>| {
            let (line, raw) = (line(raw.span()), raw.into_inner());
            (raw.package, VmPin { version: raw.version, reason: raw.reason, line })
        };
        let hold = |raw: Spanned<RawHold>| {
            let (line, raw) = (line(raw.span()), raw.into_inner());
            (raw.package, VmHold { reason: raw.reason, line })
        };
        let rule = |raw: Spanned<RawTrust>| rule(line(raw.span()), raw.into_inner());
        let file = Self {
            path: PathBuf::new(),
            table_lines,
            name: vm.name.map_or_else(|| name_of(stem), Ok)?,
            arch: vm.arch.map_or_else(this_arch, Ok)?,
            groups: vm.groups,
            subscriptions: raw.subscribe.into_iter().map(subscription).collect(),
            pins: raw.pin.into_iter().map(pin).collect(),
            holds: raw.hold.into_iter().map(hold).collect(),
            rules: raw.trust.into_iter().map(rule).collect::<Result<_, _>>()?,
            on_deny: vm.on_deny,
            on_recall: vm.on_recall,
            freshness: vm.freshness,
            depends: vm.depends,
            depends_bytes_max: vm.depends_bytes_max,
            backend: view.backend,
            target: view.target,
            isolation_none: isolation(view.isolation.as_deref())?,
            view: options,
            privileged: view.privileged,
            keep_generations: view.keep_generations.clamp(2, 100),
            check: raw.check.map(RawCheck::rule).transpose()?,
            switch: raw.switch.rule()?,
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
        if self.backend == Backend::Hardlink && !self.isolation_none {
            return Err(wrong(
                "a `hardlink` view shares files that root in the VM could write to",
                "use `backend = \"tree\"`, or accept it with `isolation = \"none\"` in [view]",
            ));
        }
        let overlay = self.backend == Backend::Overlay;
        let folder = !matches!(self.backend, Backend::Hardlink | Backend::Image);
        let odd = [
            (
                "idmap",
                self.view.idmap.is_some() && !folder,
                "folders that are mounted, such as `tree`",
            ),
            ("keep", !self.view.keep.is_empty() && !overlay, "`overlay` views"),
            ("upper", self.view.upper.is_some() && !overlay, "`overlay` views"),
        ];
        if let Some((key, _, whose)) = odd.iter().find(|(_, wrong, _)| *wrong) {
            let backend = self.backend.name();
            return Err(wrong(
                format!("view.{key} means nothing for a `{backend}` view"),
                format!("take it out; it belongs to {whose}"),
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

/// A mistake in a rule, which the parser could not see.
fn bad_rule(line: usize, message: &str, help: &str) -> FileError {
    wrong(format!("line {line}: {message}"), help)
}

fn subject(line: usize, text: &str) -> Result<Subject, FileError> {
    let help = "name a publisher, its id, or `*`";
    Subject::parse(text).map_err(|e| bad_rule(line, &format!("trust: {e}"), help))
}

fn rule(line: usize, raw: RawTrust) -> Result<Rule, FileError> {
    let (effect, who) = match (&raw.allow, &raw.deny) {
        (Some(who), None) => (Effect::Allow, who),
        (None, Some(who)) => (Effect::Deny, who),
        _ => {
            let message = "a [[trust]] rule has either `allow` or `deny`";
            return Err(bad_rule(line, message, "write for example `allow = \"acme\"`"));
        }
    };
    let narrows = raw.provides.is_some() || raw.publishers.is_some() || raw.freshness.is_some();
    if effect == Effect::Deny && narrows {
        let message = "`provides`, `publishers` and `freshness` say what an `allow` asks for";
        return Err(bad_rule(line, message, "take them out of this rule, which denies"));
    }
    let subject_of_rule = subject(line, who)?;
    if raw.delegations && matches!(subject_of_rule, Subject::Tree(_)) {
        let message = "`delegations` belongs to a publisher, and this rule names a content";
        return Err(bad_rule(line, message, "take it out of this rule"));
    }
    let publishers = raw.publishers.map(|p| attested(line, p)).transpose()?;
    Ok(Rule {
        effect,
        subject: subject_of_rule,
        packages: raw.packages,
        provides: raw.provides,
        publishers,
        freshness: raw.freshness,
        delegations: raw.delegations,
        line,
    })
}

/// `publishers = { need = 2, of = ["acme", "audit", "distro"] }`
fn attested(line: usize, raw: RawAttested) -> Result<Attested, FileError> {
    let mut names = raw.of.clone();
    names.sort_unstable();
    names.dedup();
    if names.len() != raw.of.len() || raw.need == 0 || raw.need > names.len() {
        let message = format!("`publishers` asks for {} of {}", raw.need, names.len());
        let help = "name each publisher once, and ask for 1 at least and all at the most";
        return Err(bad_rule(line, &message, help));
    }
    let of: Vec<Subject> = names.iter().map(|n| subject(line, n)).collect::<Result<_, _>>()?;
    if !of.iter().all(|s| matches!(s, Subject::Name(_) | Subject::Id(_))) {
        let help = "name them as the VM's groups do, or by their ids";
        return Err(bad_rule(line, "`publishers.of` names publishers and nothing else", help));
    }
    Ok(Attested { need: raw.need, of })
}
