//! What the daemon takes away from itself before it listens, so that whoever takes it over gains
//! little: files (Landlock), system calls (seccomp), capabilities, core dumps.
//!
//! It happens once, while the process has one thread, and for ever. Two children are started
//! before. Hooks are programs of the operator and would inherit all of it; therefore a child runs
//! them, and takes no order but the name of a VM ([`hooks`]). And a process that mounts views
//! cannot have Landlock, because that forbids all mounts; therefore another child mounts, and has
//! no network ([`mounter`]).

mod calls;
mod files;
pub mod hooks;
pub mod mounter;
mod rights;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::thread::CapabilitySet;

use crate::catalog::VmFile;
use crate::config::{NodeConfig, VmFolder};
use crate::view::{Backend, mounts_for};

/// Why the process could not be locked up. It does not run then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system's: one of its calls failed.
    #[error("the daemon cannot lock itself up: {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SandboxError {
    fn new(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::System { what, source: source.into() }
    }

    /// What to do about it.
    pub const HELP: &'static str =
        "report it; `[sandbox] enabled = false` in node.toml runs the daemon without, meanwhile";
}

/// What holds for this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The process took rights away from itself.
    pub enabled: bool,
    /// Files outside of its own folders are closed to it (Landlock).
    pub files: bool,
    /// System calls that it does not need are refused (seccomp).
    pub calls: bool,
    /// Views can be mounted: by the view helper where the process is locked up, else by itself.
    pub mounts: bool,
    /// A process of its own mounts, the view helper.
    pub view_helper: bool,
    /// The user that it runs as.
    pub uid: u32,
    /// Capabilities that it kept, in the words of capabilities(7).
    pub capabilities: Vec<&'static str>,
    /// Folders below which views may be, where files are closed.
    pub views: Vec<PathBuf>,
}

/// A process gives up its rights once, and all of it does: hence one for the process.
static REPORT: OnceLock<Report> = OnceLock::new();

/// What holds for this process; nothing where [`enter`] was not called.
#[must_use]
pub fn report() -> Report {
    REPORT.get().cloned().unwrap_or_default()
}

/// May this process show a view there? The answer is why not.
#[must_use]
pub fn refuses(backend: Backend, target: &Path) -> Option<&'static str> {
    let report = REPORT.get()?;
    if mounts_for(backend) {
        return (!report.mounts)
            .then_some("the daemon has no right to mount, or gave it up at its start");
    }
    let inside = report.views.iter().any(|v| target.parent().is_some_and(|p| p.starts_with(v)));
    (report.files && !inside)
        .then_some("the daemon closed to itself all folders but those of `views` at its start")
}

/// What is known before anything is taken away.
#[derive(Debug)]
struct Needs {
    /// Views are mounted.
    mounts: bool,
    /// A VM's file grants what may be a device.
    devices: bool,
    vms: Vec<VmFile>,
}

impl Needs {
    fn find(config: &NodeConfig) -> Self {
        let mut folder = VmFolder::new(config.vms.clone());
        folder.reread();
        let vms: Vec<VmFile> = folder.vms().into_values().collect();
        // Or by a helper that is not its child.
        let able = rights::effective().contains(CapabilitySet::SYS_ADMIN)
            || config.sandbox.helpers.is_some();
        // Without any VM nobody knows yet what will be wanted.
        let wanted = vms.is_empty() || vms.iter().any(|v| mounts_for(v.backend));
        let mounts = able && config.sandbox.mounts.unwrap_or(wanted);
        let root = rustix::process::geteuid().is_root();
        let devices = root && (vms.is_empty() || vms.iter().any(|vm| !vm.privileged.is_empty()));
        Self { mounts, devices, vms }
    }

    /// Capabilities that the daemon goes on with.
    fn capabilities(&self, port: u16) -> CapabilitySet {
        let mut needed = rights::OWNERS;
        if self.devices {
            needed |= rights::DEVICES;
        }
        if port < 1_024 {
            needed |= CapabilitySet::NET_BIND_SERVICE;
        }
        needed
    }
}

/// Takes away from this process what it does not need. To be called once, before there is a second
/// thread: what is taken away holds for this thread and all that it makes.
///
/// # Errors
/// Nothing may then go on in this process: a part of it is locked up already.
pub fn enter(config: &NodeConfig) -> Result<(), SandboxError> {
    let uid = rustix::process::geteuid().as_raw();
    if !config.sandbox.enabled {
        tracing::warn!("the sandbox is switched off: the daemon keeps all rights of its user");
        let capabilities = rights::names(rights::effective());
        let mounts = rights::effective().contains(CapabilitySet::SYS_ADMIN);
        let report = Report { uid, capabilities, mounts, ..Report::default() };
        REPORT.get_or_init(|| report);
        return Ok(());
    }
    rights::no_dumps()?;
    let needs = Needs::find(config);
    if needs.mounts {
        mounter::start(config)?;
    }
    hooks::start(config)?;
    let capabilities = rights::keep(needs.capabilities(config.listen.port()))?;
    let (files, views) = files::close(config, &needs)?;
    calls::refuse(calls::Who::Daemon)?;
    let report = Report {
        enabled: true,
        files,
        calls: true,
        mounts: needs.mounts,
        view_helper: needs.mounts,
        uid,
        capabilities,
        views,
    };
    tracing::info!(
        files = report.files, calls = report.calls, mounts = report.mounts, uid,
        capabilities = %report.capabilities.join(","), "sandbox"
    );
    if !report.files {
        tracing::warn!("this kernel has no Landlock: files are not closed to the daemon");
    }
    REPORT.get_or_init(|| report);
    Ok(())
}
