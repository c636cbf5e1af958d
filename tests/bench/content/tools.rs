//! Small tools of the bench: running other programs to their end, and the times of marks.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// This machine cannot do it: no root, no namespaces, no token buckets. Nothing was measured.
#[derive(Debug)]
pub(crate) struct Unable(pub String);

impl std::fmt::Display for Unable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unable {}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("{name} cannot be run"))?;
    if !out.status.success() {
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let error = String::from_utf8_lossy(&out.stderr);
        bail!("{name} {}: {}: {}", args.join(" "), out.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Gives `ip` or `tc` lines of commands for one namespace.
pub(crate) fn batch(program: &str, namespace: &str, lines: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} cannot be run: apt-get install iproute2"))?;
    child.stdin.take().context("no input")?.write_all(lines.as_bytes())?;
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("{program} in {namespace}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Milliseconds since 1970, as events of nodes are stamped.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the present time into a file, in one step.
pub(crate) fn mark(path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, now_ms().to_string())?;
    Ok(std::fs::rename(&new, path)?)
}

/// The time in a mark, once it is there: milliseconds, or seconds with a fraction as `date` writes.
pub(crate) fn marked(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    if let Some((seconds, fraction)) = text.split_once('.') {
        let millis: u64 = fraction.get(..3)?.parse().ok()?;
        return Some(seconds.parse::<u64>().ok()? * 1_000 + millis);
    }
    text.parse().ok()
}
