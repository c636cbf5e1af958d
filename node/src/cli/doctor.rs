//! `stork doctor`: what this host can do for its VMs, with or without a daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::out::{failure, result, table};
use crate::config::{ConfigError, NodeConfig};
use crate::doctor::{Report, look};

/// Where the files are that the daemon reads.
#[derive(Debug, Default, Args)]
pub(super) struct Places {
    /// The daemon's settings file.
    #[arg(long, env = "STORK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's state folder.
    #[arg(long, env = "STORK_STATE_DIR", value_name = "DIR")]
    state: Option<PathBuf>,
    /// The folder with one file per VM.
    #[arg(long, env = "STORK_VMS_DIR", value_name = "DIR")]
    vms: Option<PathBuf>,
}

impl Places {
    /// The settings as the daemon would read them.
    pub(super) fn settings(&self) -> Result<NodeConfig, ConfigError> {
        let path = self.config.clone().unwrap_or_else(|| "/etc/stork/node.toml".into());
        let mut config = NodeConfig::read(&path, self.config.is_some())?;
        if let Some(state) = &self.state {
            config.state.clone_from(state);
        }
        if let Some(vms) = &self.vms {
            config.vms.clone_from(vms);
        }
        Ok(config)
    }
}

/// Runs the command: 0 where every VM gets what its file asks for, 1 otherwise.
pub(super) fn run(places: &Places, json: bool) -> ExitCode {
    let config = match places.settings() {
        Ok(config) => config,
        Err(e) => return failure(&e.to_string(), &[], &e.help, 78),
    };
    let report = look(&config);
    if json {
        let ok = report.all_well();
        let shown = json!({
            "schema": "stork.doctor/v1", "ok": ok, "findings": report.findings, "vms": report.vms,
        });
        result(&shown.to_string());
    } else {
        result(&text(&report));
    }
    ExitCode::from(u8::from(!report.all_well()))
}

fn text(report: &Report) -> String {
    let mut rows = vec![vec![String::new(), "WHAT".to_owned(), "EVIDENCE".to_owned()]];
    for f in &report.findings {
        let mark = if f.ok { "yes" } else { "no" };
        rows.push(vec![mark.to_owned(), f.what.to_owned(), f.evidence.clone()]);
        if !f.ok {
            rows.push(vec![String::new(), String::new(), format!("instead: {}", f.instead)]);
        }
    }
    let mut out = table(&rows);
    out.push_str("\n\n");
    if report.vms.is_empty() {
        out.push_str("No VM has a file yet.");
    }
    for vm in &report.vms {
        let (ok, backend) = (if vm.ok { "works" } else { "DOES NOT WORK" }, &vm.backend);
        let backend = if backend.is_empty() { String::new() } else { format!(" ({backend})") };
        out.push_str(&format!("{}{backend}: {ok}\n", vm.vm));
        for (word, text) in [("  ", &vm.why), ("  help: ", &vm.help)] {
            if !text.is_empty() {
                out.push_str(&format!("{word}{text}\n"));
            }
        }
    }
    out.trim_end().to_owned()
}

/// What the daemon says when it starts: only what is missing.
pub(super) fn say_at_start(config: &NodeConfig) {
    let report = look(config);
    for f in report.findings.iter().filter(|f| !f.ok) {
        if f.vital {
            tracing::warn!(what = f.what, evidence = %f.evidence, help = f.instead, "doctor");
        } else {
            tracing::debug!(what = f.what, evidence = %f.evidence, instead = f.instead, "doctor");
        }
    }
    for vm in report.vms.iter().filter(|v| !v.why.is_empty()) {
        let (why, help) = (&vm.why, &vm.help);
        tracing::warn!(vm = %vm.vm, backend = %vm.backend, works = vm.ok, %why, %help, "doctor");
    }
}
