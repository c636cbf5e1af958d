//! `stork-publish charter beacons`: how fresh feeds must be to a group's VMs.

use clap::Args;

use super::charter::ChangeArgs;
use super::charter_run::{change, report};
use super::run::Failure;
use crate::charter;

#[derive(Debug, Args)]
pub(super) struct BeaconsArgs {
    /// The group
    group: String,
    /// How old the newest beacon may be: 3m to 168h
    #[arg(long, value_name = "TIME", value_parser = within,
        required_unless_present = "as_they_say")]
    within: Option<u32>,
    /// As long as each beacon says itself
    #[arg(long, conflicts_with = "within")]
    as_they_say: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Seconds of `15m` or `1h`.
fn within(text: &str) -> Result<u32, String> {
    let wrong = || "say it in minutes or hours: 15m, 1h".to_owned();
    let (digits, unit) = match (text.strip_suffix('m'), text.strip_suffix('h')) {
        (Some(minutes), _) => (minutes, 60),
        (_, Some(hours)) => (hours, 3_600),
        _ => return Err(wrong()),
    };
    let n: u32 = digits.parse().map_err(|_e| wrong())?;
    match n.saturating_mul(unit) {
        s @ 180..=604_800 => Ok(s),
        _ => Err("three minutes are the least, and a week (168h) is the most".into()),
    }
}

pub(super) fn run(args: BeaconsArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    report(&charter::beacons(&change, &args.group, args.within)?, &change.dir, json)
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn times() {
        assert_eq!((within("3m"), within("168h")), (Ok(180), Ok(604_800)));
        for bad in ["", "m", "15", "2m", "169h", "-5m", "99999999999h"] {
            assert!(within(bad).is_err(), "{bad}");
        }
    }
}
