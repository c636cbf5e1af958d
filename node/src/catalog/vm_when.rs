//! The tables `[check]` and `[switch]` of a VM's file: whether and when it is switched.

use std::path::PathBuf;

use serde::Deserialize;
use stork_wire::charter::UnixSeconds;

use super::vm::{CheckRule, FileError};
use super::vm_text::wrong;
use super::window::{SwitchRule, WINDOWS_MAX, Withdrawals};

/// Paths that a check may name.
const FILES_MAX: usize = 256;

/// A path of the view, without its leading slash.
pub(super) fn view_path(key: &str, path: &str) -> Result<String, FileError> {
    let inner = path.trim_matches('/');
    if !path.starts_with('/') || inner.is_empty() || inner.split('/').any(|p| p == "..") {
        let message = format!("{key} `{path}` is not a path of the view");
        return Err(wrong(message, "write it as the VM sees it beneath its view: `/etc/app.conf`"));
    }
    Ok(inner.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCheck {
    #[serde(default)]
    files: Vec<String>,
    command: Option<PathBuf>,
    #[serde(default = "default_timeout")]
    timeout_s: u64,
}

const fn default_timeout() -> u64 {
    60
}

impl RawCheck {
    pub(super) fn rule(self) -> Result<CheckRule, FileError> {
        if self.files.len() > FILES_MAX {
            let message = format!("check.files names more than {FILES_MAX} paths");
            return Err(wrong(message, "let a `command` look for them"));
        }
        if let Some(c) = self.command.as_ref().filter(|c| !c.is_absolute()) {
            let message = format!("check.command `{}` is not an absolute path", c.display());
            return Err(wrong(message, "write the whole path, beginning with `/`"));
        }
        let files: Result<Vec<_>, _> =
            self.files.iter().map(|path| view_path("check.files", path)).collect();
        let timeout_s = self.timeout_s.clamp(1, 3_600);
        Ok(CheckRule { files: files?, command: self.command, timeout_s })
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSwitch {
    #[serde(default)]
    windows: Vec<String>,
    not_before: Option<toml::value::Datetime>,
    #[serde(default)]
    withdrawals: Withdrawals,
}

impl RawSwitch {
    pub(super) fn rule(&self) -> Result<SwitchRule, FileError> {
        if self.windows.len() > WINDOWS_MAX {
            let message = format!("switch.windows has more than {WINDOWS_MAX} entries");
            return Err(wrong(message, "several days go into one: `Mon-Fri 02:00-04:00`"));
        }
        let help = "write for example `Sat,Sun 22:00-02:00`, or `02:00-04:00` for every day (UTC)";
        let windows: Result<Vec<_>, _> = self.windows.iter().map(|w| w.parse()).collect();
        let windows = windows.map_err(|e| wrong(format!("switch.windows: {e}"), help))?;
        let not_before = self.not_before.as_ref().map(|at| unix(at).ok_or(at)).transpose();
        let not_before = not_before.map_err(|at| {
            let help = "write for example `not_before = 2026-12-01T02:00:00Z`";
            wrong(format!("switch.not_before `{at}` is no moment in UTC"), help)
        })?;
        Ok(SwitchRule { windows, not_before, withdrawals: self.withdrawals })
    }
}

/// Seconds since 1970 of a moment that says its date, time and offset.
fn unix(at: &toml::value::Datetime) -> Option<UnixSeconds> {
    let (date, time) = (at.date?, at.time?);
    let offset = match at.offset? {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    // Days since 1970, counted in years that begin in March, so that a leap day comes last.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + i64::from(date.day) - 1;
    let days = year * 365 + leaps + day_of_year - 719_468;
    let seconds = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60;
    let all = days * 86_400 + seconds + i64::from(time.second.unwrap_or(0)) - offset;
    u64::try_from(all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::VmFile;

    fn file(more: &str) -> Result<VmFile, FileError> {
        let text = format!(
            "[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"tree\"\ntarget = \"/srv/a\"\n{more}\n"
        );
        VmFile::parse("a", &text)
    }

    /// Moments are those of date(1); what has no offset is refused with an example.
    #[test]
    fn moments() {
        for (text, at) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-12-01T02:00:00Z", 1_796_090_400),
            ("2026-12-01T02:00:00+01:00", 1_796_086_800),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            let read = file(&format!("[switch]\nnot_before = {text}")).unwrap();
            assert_eq!(read.switch.not_before, Some(at), "{text}");
        }
        for bad in ["2026-12-01", "2026-12-01T02:00:00", "02:00:00"] {
            let e = file(&format!("[switch]\nnot_before = {bad}")).unwrap_err();
            assert!(e.help.contains("2026-12-01T02:00:00Z"), "{e}");
        }
    }

    #[test]
    fn checks_and_windows() {
        let text = "[check]\nfiles = [\"/bin/app\"]\ncommand = \"/bin/true\"\n[switch]\n\
                    windows = [\"Sat 22:00-02:00\"]\nwithdrawals = \"wait\"";
        let read = file(text).unwrap();
        let check = read.check.unwrap();
        assert_eq!((check.files, check.timeout_s), (vec!["bin/app".to_owned()], 60));
        assert_eq!(read.switch.withdrawals, Withdrawals::Wait);
        for bad in [
            "[check]\nfiles = [\"bin/app\"]",
            "[check]\nfiles = [\"/a/../b\"]",
            "[check]\ncommand = \"true\"",
            "[switch]\nwindows = [\"at night\"]",
            "[switch]\nwindow = [\"02:00-04:00\"]",
        ] {
            assert!(!file(bad).unwrap_err().help.is_empty(), "{bad}");
        }
    }
}
