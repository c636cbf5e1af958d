//! `key delegate`: what can be typed, and what is done.

use std::path::PathBuf;

use clap::Args;
use stork_wire::text::Pattern;

use super::charter_run::now;
use super::commands::{print_json, print_lines};
use super::run::Failure;
use crate::delegate::{DelegateOptions, TTL_MAX_S, delegate};
use crate::keys::Passphrase;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  stork-publish key delegate --charter ~/stork --packages 'ci-*' --ttl 1h --out job
  stork-publish push ci-tool_1.2_amd64.deb --charter job --to NODEID@host:7749

Makes a directory with all that a build job needs: a key (ci, mode 600, no passphrase), its
certificate (ci.delegated), the charter and a profile. The key pushes releases of these packages
until it runs out, and does nothing else: no recall, no halt, no document. It is worth nothing in
another epoch of the feed, nor when the release key ends itself. Nothing of it is sent to hosts
before its first push.")]
pub(super) struct DelegateArgs {
    /// Package names that it may release: a name, or a pattern such as 'ci-*'; may be given 8 times
    #[arg(long, value_name = "PATTERN", required = true)]
    packages: Vec<Pattern>,
    /// How long it is good: minutes (30m) or hours (1h), 12 hours at the most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: u64,
    /// The directory that is made; no key in it is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The publisher's directory, as `charter init` made it
    #[arg(long, value_name = "DIR", env = "STORK_CHARTER")]
    charter: PathBuf,
    /// The release key that vouches: a file, ssh-agent:SHA256:…, ssh-agent: or
    /// 'exec:PROGRAM ARGUMENT…'
    #[arg(long, env = "STORK_PUBLISH_KEY")]
    key: Option<String>,
    /// Take its passphrase from the first line of a file
    #[arg(long, value_name = "FILE", env = "STORK_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Seconds of `30m` or `1h`.
fn ttl(text: &str) -> Result<u64, String> {
    let (digits, unit) = match (text.strip_suffix('m'), text.strip_suffix('h')) {
        (Some(minutes), _) => (minutes, 60),
        (_, Some(hours)) => (hours, 3_600),
        _ => return Err("say it in minutes or hours: 30m, 1h".into()),
    };
    let n: u64 = digits.parse().map_err(|_e| "say it in minutes or hours: 30m, 1h".to_owned())?;
    match n.saturating_mul(unit) {
        0 => Err("it would run out at once".into()),
        s if s > TTL_MAX_S => Err(format!("{} hours are the most", TTL_MAX_S / 3_600)),
        s => Ok(s),
    }
}

pub(super) fn run(args: DelegateArgs) -> Result<(), Failure> {
    let options = DelegateOptions {
        charter: args.charter,
        key: args.key,
        passphrase: args.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        packages: args.packages,
        ttl_s: args.ttl,
        out: args.out,
    };
    let report = delegate(&options, now())?;
    if args.json {
        return print_json(&report);
    }
    print_lines(&report.lines());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ttl;

    /// Times as people write them, within the bound.
    #[test]
    fn times_to_live() {
        assert_eq!((ttl("1h"), ttl("30m"), ttl("12h")), (Ok(3_600), Ok(1_800), Ok(43_200)));
        for bad in ["", "h", "0h", "13h", "721m", "1d", "-1h", "1.5h", "90", "99999999999999999h"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
