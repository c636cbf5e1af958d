//! Configuration: the node's own file and the folder with one file per VM.
//!
//! A broken VM file never stops the daemon: the last good version of it stays in force, and the
//! fault is reported with file, line and what to do.

mod bandwidth;
mod limits;
mod node_file;
mod quota;
mod sandbox;
mod scrub;
mod seeds;
mod vm_folder;

pub use bandwidth::WINDOWS_MAX;
pub use limits::{Bucket, LimitsConfig};
pub use node_file::{BeaconConfig, ConfigError, LogFormat, NodeConfig};
pub use quota::{QuotaConfig, VmQuota};
pub use sandbox::SandboxConfig;
pub use scrub::ScrubConfig;
pub use seeds::{SEEDS_MAX, Seed, read_seeds};
pub use vm_folder::{BadVmFile, VmFolder};

/// What to do about an error of the TOML parser; finds the key that was probably meant.
#[must_use]
pub fn hint_for(error: &str) -> String {
    let quoted: Vec<&str> = error.split('`').skip(1).step_by(2).collect();
    if (error.contains("unknown field") || error.contains("unknown variant"))
        && let Some((wrong, known)) = quoted.split_first()
        && let Some(best) = known.iter().min_by_key(|k| distance(wrong, k))
        && distance(wrong, best) <= 3
    {
        return format!("did you mean `{best}`?");
    }
    if error.contains("missing field")
        && let Some(key) = quoted.first()
    {
        return format!("add the key `{key}`");
    }
    // A value of the right type that breaks a rule of names: the message has the rule itself.
    let rules = [
        ("\npattern `", "name packages, such as `nginx`, `lib*` or `acme/*`; a path is none"),
        ("\npackage name `", "name one package, such as `nginx` or `acme/site`"),
        ("\ngroup name `", "name a group of the charter: `stork-publish charter show DIR`"),
        ("\narchitecture `", "write it as Debian does: `amd64`, `arm64`"),
        ("is no origin", stork_origin::BadAddress::HELP),
        ("is no bootstrap entry", "write for example `seed.example.org:7749`"),
        (
            "is no rate",
            "write for example `\"40 MB/s\"`, `\"80 Mbit/s\"`, `\"none\"` or `\"unlimited\"`",
        ),
        ("a rate such as", "write for example `\"40 MB/s\"`, with the quotes"),
        ("is no time of day", "write hours and minutes of UTC, such as `\"22:00\"`"),
        ("is no day of the week", "write for example `[\"mon\", \"fri\"]`, or leave the key out"),
        ("has no length", "for the whole day write `from = \"00:00\"` and `to = \"24:00\"`"),
        ("sets nothing", "name what is different then, such as `up = \"none\"`"),
        ("windows of bandwidth are more", "days with the same times go into one window"),
        ("is no version constraint", "write for example `>= 1.0, < 2` or `= 1.2-3`"),
    ];
    if let Some((_, help)) = rules.iter().find(|(begins, _)| error.contains(begins)) {
        return (*help).to_owned();
    }
    "see the examples in deploy/examples".to_owned()
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let up = *cell;
            let best = (diagonal + usize::from(x != *y)).min(up + 1).min(left + 1);
            diagonal = up;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key that was probably meant is named.
    #[test]
    fn did_you_mean() {
        assert_eq!(distance("traget", "target"), 2);
        let e = "unknown field `traget`, expected one of `backend`, `target`";
        assert_eq!(hint_for(e), "did you mean `target`?");
        assert_eq!(hint_for("missing field `view`"), "add the key `view`");
    }
}
