//! Which files and ports are left to the process: a Landlock domain.
//!
//! A rule belongs to a folder that exists, so all folders are found before. What lies outside is
//! refused by the kernel, whoever the process is. Looking at names (`stat`) is not restricted, and
//! neither is what is open already.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Needs, SandboxError};
use crate::config::NodeConfig;
use crate::view;

/// The rules that are asked for; an older kernel keeps those that it knows.
const RULES: ABI = ABI::V6;

/// Programs of the system, their libraries and data, which everybody may read.
const PUBLIC: &[&str] = &["/usr", "/lib", "/lib64", "/proc", "/dev/urandom"];
/// Where this host's name for itself stands.
const MACHINE: &[&str] = &["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// What it takes to look up a name and to check a web server. These files are replaced as whole
/// ones by other programs, and a rule for a file would stay with the old one: hence the folders.
const NAMES: &[&str] = &["/etc", "/run/systemd/resolve", "/run/resolvconf"];
/// DNS over TCP, for answers that are too long for a datagram.
const DNS: u16 = 53;

fn failed(e: impl std::error::Error + Send + Sync + 'static) -> SandboxError {
    SandboxError::new("Landlock refused a rule", e)
}

fn read() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// All that is done in the state folder and below views; nothing is executed there. Devices are
/// made only where a VM's file may grant them. Both have the same rights, or no file could be
/// linked from one to the other.
fn write(may_make_devices: bool) -> BitFlags<AccessFs> {
    let none = AccessFs::Execute | AccessFs::MakeSock | AccessFs::IoctlDev;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
    let all = AccessFs::from_all(RULES) & !none;
    if may_make_devices { all } else { all & !devices }
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    what: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    // What is not there is not needed, or its absence is told by whoever needs it.
    let Ok(fd) = PathFd::new(path) else { return Ok(rules) };
    // A right that belongs to folders cannot be given for a file.
    let what = if path.is_dir() { what } else { what & AccessFs::from_file(RULES) };
    rules.add_rule(PathBeneath::new(fd, what)).map_err(failed)
}

/// Rules for TCP: the daemon listens for metrics only, and dials an origin only.
fn ports(
    mut rules: RulesetCreated,
    config: &NodeConfig,
    dials: bool,
) -> Result<RulesetCreated, SandboxError> {
    if let Some(addr) = config.metrics {
        let rule = NetPort::new(addr.port(), AccessNet::BindTcp);
        rules = rules.add_rule(rule).map_err(failed)?;
    }
    if !dials {
        let rule = NetPort::new(DNS, AccessNet::ConnectTcp);
        rules = rules.add_rule(rule).map_err(failed)?;
    }
    Ok(rules)
}

/// Folders below which views may be: those that the settings name and those of the VMs at hand.
fn view_folders(
    mut rules: RulesetCreated,
    config: &NodeConfig,
    needs: &Needs,
) -> Result<(RulesetCreated, Vec<PathBuf>), SandboxError> {
    let mut views = Vec::new();
    let write = || write(needs.devices);
    for folder in config.sandbox.views.iter().filter(|f| f.is_dir()) {
        rules = allow(rules, folder, write())?;
        views.push(folder.clone());
    }
    // What is mounted, the view helper mounts.
    for vm in needs.vms.iter().filter(|vm| !view::mounts_for(vm.backend)) {
        let Some(folder) = vm.target.parent().filter(|f| f.parent().is_some()) else { continue };
        if views.iter().any(|v| folder.starts_with(v)) {
            continue;
        }
        // Made here if need be, as a switch would: later nothing can be made beside it.
        match view::make_folder(&vm.name, folder) {
            Ok(fd) => {
                rules = rules.add_rule(PathBeneath::new(fd, write())).map_err(failed)?;
                views.push(folder.to_owned());
            }
            Err(e) => tracing::warn!(vm = %vm.name, %e, "no folder for the view"),
        }
    }
    Ok((rules, views))
}

/// Makes the folders that the daemon would make later, when it cannot any more. What goes wrong is
/// told by whoever needs them.
fn make_folders(config: &NodeConfig) {
    let above = config.state.parent().into_iter().chain(config.socket.parent());
    for folder in above.filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).unwrap_or_default();
    }
    std::fs::DirBuilder::new().mode(0o700).create(&config.state).unwrap_or_default();
}

/// Closes everything else: whether the kernel can, and the folders of views.
pub(super) fn close(
    config: &NodeConfig,
    needs: &Needs,
) -> Result<(bool, Vec<PathBuf>), SandboxError> {
    let origin = config.origin.as_ref().map(ToString::to_string);
    let folder = origin.as_deref().and_then(|o| o.strip_prefix("file:")).map(PathBuf::from);
    let dials = origin.is_some() && folder.is_none();
    let names = dials || !config.bootstrap.is_empty() || config.bootstrap_file.is_some();

    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let rules = rules.handle_access(AccessFs::from_all(RULES)).map_err(failed)?;
    let mut net = BitFlags::from(AccessNet::BindTcp);
    if !dials {
        net |= AccessNet::ConnectTcp;
    }
    let rules = rules.handle_access(net).map_err(failed)?;
    let rules = rules.scope(Scope::Signal).map_err(failed)?;
    let mut rules = rules.create().map_err(failed)?;

    make_folders(config);
    for path in PUBLIC.iter().chain(MACHINE) {
        rules = allow(rules, Path::new(path), read())?;
    }
    for path in NAMES.iter().filter(|_| names) {
        rules = allow(rules, Path::new(path), read())?;
    }
    let own = [Some(&config.vms), folder.as_ref()];
    let own = own.into_iter().chain([config.origin_credentials.as_ref()]);
    for path in own.chain([config.bootstrap_file.as_ref()]).flatten() {
        rules = allow(rules, path, read())?;
    }
    rules = allow(rules, &config.state, write(needs.devices))?;
    if let Some(folder) = config.socket.parent() {
        let what = AccessFs::MakeSock | AccessFs::RemoveFile;
        rules = allow(rules, folder, what)?;
    }
    let rules = ports(rules, config, dials)?;
    let (rules, views) = view_folders(rules, config, needs)?;
    let status = rules.restrict_self().map_err(failed)?;
    Ok((status.ruleset != RulesetStatus::NotEnforced, views))
}
