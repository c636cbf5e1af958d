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

/// Writes a command's completion script for a shell to stdout.
pub fn completion(mut command: clap::Command, shell: clap_complete::Shell) {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    raw(&script);
}

/// Writes a command's manual page to stdout.
pub fn manual(command: clap::Command) -> std::io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    raw(&page);
    Ok(())
}

fn raw(bytes: &[u8]) {
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

/// The exit code of a file that cannot be used (design §11): 5 where it is not there, 77 where we
/// may not touch it, 1 where its disk fails or anything else is wrong.
#[must_use]
pub fn file_exit(e: &std::io::Error) -> u8 {
    use std::io::ErrorKind;
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => 5,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => 77,
        _ => 1,
    }
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

/// The UTC day of a time in seconds since 1970: `2026-11-22`.
#[must_use]
pub fn day(seconds: u64) -> String {
    // Days to civil date by eras of 400 years, each of 146 097 days, that begin on 1 March
    // (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The UTC minute of a time in seconds since 1970: `2026-11-22 14:05 UTC`.
#[must_use]
pub fn minute(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    format!("{} {:02}:{:02} UTC", day(seconds), of_day / 3_600, of_day / 60 % 60)
}

#[cfg(test)]
mod tests {
    /// Days around leap years and the turn of a century.
    #[test]
    fn days() {
        assert_eq!(super::day(0), "1970-01-01");
        assert_eq!(super::day(951_782_400), "2000-02-29");
        assert_eq!(super::day(951_868_800), "2000-03-01");
        assert_eq!(super::day(1_767_225_599), "2025-12-31");
        assert_eq!(super::day(4_107_542_400), "2100-03-01");
    }

    /// What the system says of a file has one exit code everywhere.
    #[test]
    fn files_have_exit_codes() {
        use std::io::{Error, ErrorKind};
        let cases = [
            (ErrorKind::NotFound, 5),
            (ErrorKind::NotADirectory, 5),
            (ErrorKind::PermissionDenied, 77),
            (ErrorKind::ReadOnlyFilesystem, 77),
            (ErrorKind::StorageFull, 1),
        ];
        for (kind, code) in cases {
            assert_eq!(super::file_exit(&Error::from(kind)), code, "{kind}");
        }
    }

    /// Sizes are short and keep one digit after the point.
    #[test]
    fn sizes() {
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(1536), "1.5 KiB");
        assert_eq!(super::bytes(32 << 20), "32.0 MiB");
        assert_eq!(super::bytes(5 << 40), "5.0 TiB");
    }
}
