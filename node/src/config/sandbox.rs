//! `[sandbox]`: what the daemon takes away from itself at its start.

use std::path::PathBuf;

use serde::Deserialize;

/// The keys of the table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// `false` takes nothing away: for debugging.
    pub enabled: bool,
    /// Keeps the right to mount (`true`) or gives it up; not said: by the files of the VMs.
    pub mounts: Option<bool>,
    /// The folder with the sockets of the helpers that systemd starts (`views`, `hooks`), where it
    /// is not the daemon that starts them.
    pub helpers: Option<PathBuf>,
    /// Folders below which views may be, beside those of the VMs that are there at the start.
    pub views: Vec<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { enabled: true, mounts: None, helpers: None, views: vec!["/srv/views".into()] }
    }
}
