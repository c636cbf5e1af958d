//! What commands print: results on standard output, everything else on standard error.

use std::io::Write;
use std::process::ExitCode;

/// Writes a result. A reader that went away (a closed pipe) is no error of ours.
pub fn result(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Writes a line for people, beside the result.
pub fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(writeln!(err, "{text}"));
}

/// Says what failed and what to do, and gives the exit code.
pub fn failure(what: &str, causes: &[String], help: &str, code: u8) -> ExitCode {
    let mut text = format!("error: {what}");
    for cause in causes {
        text.push_str("\n  because: ");
        text.push_str(cause);
    }
    if !help.is_empty() {
        text.push_str("\nhelp: ");
        text.push_str(help);
    }
    note(&text);
    ExitCode::from(code)
}

/// The causes of an error, outermost first, without the error itself.
#[must_use]
pub fn causes(e: &dyn std::error::Error) -> Vec<String> {
    let mut out = Vec::new();
    let mut next = e.source();
    while let Some(cause) = next {
        out.push(cause.to_string());
        next = cause.source();
    }
    out
}

/// Prints a command's completion script, as `stork-publish` does.
pub(super) fn completion(command: clap::Command, shell: clap_complete::Shell) -> ExitCode {
    stork_publisher::out::completion(command, shell);
    ExitCode::SUCCESS
}

/// Prints a command's manual page, as `stork-publish` does.
pub(super) fn manual(command: clap::Command) -> ExitCode {
    match stork_publisher::out::manual(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failure(&e.to_string(), &[], "report this as a bug", 1),
    }
}

/// Rows with aligned columns; the first row is the head.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes for people.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut hundredths = n.saturating_mul(100) / 1024;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or("KiB");
    while hundredths >= 102_400 {
        hundredths /= 1024;
        unit = units.next().copied().unwrap_or(unit);
    }
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns line up, sizes read well.
    #[test]
    fn tables_and_sizes() {
        let rows = [vec!["A".into(), "B".into()], vec!["long".into(), "x".into()]];
        assert_eq!(table(&rows), "A     B\nlong  x");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(5 << 20), "5.00 MiB");
    }
}
