//! The kernel, and the clock.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};

use crate::apt::EPOCH;
use crate::view::probe::Probe;

/// The two first numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Is the kernel as new? What was ported back to an older one is not seen.
pub(super) fn since(least: (u32, u32)) -> Probe {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let new = version(&release).is_some_and(|v| v >= least);
    let text = format!("Linux {release}, by its version");
    if new { Ok(text) } else { Err(text) }
}

pub(super) fn exists(path: &str) -> Probe {
    if Path::new(path).exists() { Ok(path.to_owned()) } else { Err(format!("there is no {path}")) }
}

fn number_in(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn user_namespaces() -> Probe {
    let path = "/proc/sys/user/max_user_namespaces";
    match number_in(path) {
        None => Err(format!("there is no {path}")),
        Some(0) => Err(format!("{path} is 0")),
        Some(n) => Ok(format!("{path} is {n}")),
    }
}

pub(super) fn landlock() -> Probe {
    // A set of rules that is made and dropped restricts nobody.
    let level = |abi: ABI| {
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        rules.handle_access(AccessFs::from_all(abi)).and_then(Ruleset::create).is_ok()
    };
    let known = [(ABI::V5, 5), (ABI::V3, 3), (ABI::V2, 2), (ABI::V1, 1)];
    let best = known.into_iter().find(|(abi, _)| level(*abi));
    best.map_or_else(
        || Err("the kernel makes no rules".to_owned()),
        |(_, n)| Ok(format!("rules for files of version {n} or later")),
    )
}

pub(super) fn seccomp() -> Probe {
    exists("/proc/sys/kernel/seccomp/actions_avail")
}

/// A clock before this program's own time is wrong; whether it is kept right is only told.
pub(super) fn clock() -> Probe {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if now < u64::from(EPOCH) {
        return Err(format!("it shows {now} seconds since 1970, which is before 2026"));
    }
    let by = [
        ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
        ("/run/chrony", "chrony"),
        ("/run/ntpd.pid", "ntpd"),
    ];
    let kept = by.iter().find(|(path, _)| Path::new(path).exists());
    let kept = kept.map_or_else(
        || "no time service that is known here keeps it".to_owned(),
        |(_, name)| format!("kept by {name}"),
    );
    Ok(format!("after 2026; {kept}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernel releases as distributions write them.
    #[test]
    fn releases() {
        assert_eq!(version("6.1.0-26-amd64"), Some((6, 1)));
        assert_eq!(version("6.18-rc3"), Some((6, 18)));
        assert_eq!(version("weird"), None);
        assert!(since((2, 6)).is_ok() && since((99, 0)).is_err());
    }
}
