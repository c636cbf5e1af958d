//! What the daemon takes away from itself before it listens, so that whoever takes it over gains
//! little: files (Landlock), system calls (seccomp), capabilities, core dumps.
//!
//! It happens once, while the process has one thread, and for ever. Hooks are programs of the
//! operator and would inherit all of it; therefore a child that is started before runs them, and
//! takes no order but the name of a VM ([`hooks`]). A process that mounts views cannot have
//! Landlock, because that forbids all mounts: it keeps the other measures.

mod calls;
mod files;
pub mod hooks;
mod rights;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::thread::CapabilitySet;

use crate::catalog::VmFile;
use crate::config::{NodeConfig, VmFolder};
use crate::view::{Backend, mounts_for, prepare_idmap};

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
    /// It may mount views.
    pub mounts: bool,
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
struct Needs {
    mounts: bool,
    vms: Vec<VmFile>,
}

impl Needs {
    fn find(config: &NodeConfig) -> Self {
        let mut folder = VmFolder::new(config.vms.clone());
        folder.reread();
        let vms: Vec<VmFile> = folder.vms().into_values().collect();
        let able = rights::effective().contains(CapabilitySet::SYS_ADMIN);
        // Without any VM nobody knows yet what will be wanted.
        let wanted = vms.is_empty() || vms.iter().any(|v| mounts_for(v.backend));
        Self { mounts: able && config.sandbox.mounts.unwrap_or(wanted), vms }
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
        // Later no process can be made for a user namespace.
        for map in needs.vms.iter().filter_map(|vm| vm.view.idmap) {
            if let Err(e) = prepare_idmap(map) {
                tracing::warn!("the map of ids from {} on cannot be made: {e}", map.uid);
            }
        }
    }
    hooks::start(&config.vms)?;
    let capabilities = rights::keep(needs.mounts, config.listen.port())?;
    let (files, views) =
        if needs.mounts { (false, Vec::new()) } else { files::close(config, &needs.vms)? };
    calls::refuse(needs.mounts)?;
    let report = Report {
        enabled: true,
        files,
        calls: true,
        mounts: needs.mounts,
        uid,
        capabilities,
        views,
    };
    tracing::info!(
        files = report.files, calls = report.calls, mounts = report.mounts, uid,
        capabilities = %report.capabilities.join(","), "sandbox"
    );
    if !report.files && !report.mounts {
        tracing::warn!("this kernel has no Landlock: files are not closed to the daemon");
    }
    REPORT.get_or_init(|| report);
    Ok(())
}
