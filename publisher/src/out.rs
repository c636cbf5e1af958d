//! The only place that writes to the terminal: results to stdout, everything else to stderr.
//!
//! A reader that went away (`stork-publish … | head`) is no failure, so that write errors on
//! stdout and stderr are passed over.

use std::io::Write;

/// Writes a line of the result to stdout.
pub fn result(line: &str) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// Writes a line for people to stderr.
pub fn chat(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Writes raw bytes to stdout: completion scripts and manual pages.
pub fn raw(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    drop(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// Writes an error with its causes and its `help:` line to stderr.
pub fn error(error: &dyn std::error::Error, help: &str) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    chat(&text);
    chat(&format!("help: {help}"));
}

/// Bytes for people: `1.4 MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    // Tenths of the unit, so that no floating point is needed.
    let (mut tenths, mut unit) = (n.saturating_mul(10) / 1024, 0usize);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    /// Sizes are short and keep one digit after the point.
    #[test]
    fn sizes() {
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(1536), "1.5 KiB");
        assert_eq!(super::bytes(32 << 20), "32.0 MiB");
        assert_eq!(super::bytes(5 << 40), "5.0 TiB");
    }
}
