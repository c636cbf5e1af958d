//! When a VM may be switched: maintenance windows and a time before which nothing is.
//!
//! Times are UTC, because a host's own zone may change twice a year, and differ between hosts.

use core::fmt;
use core::str::FromStr;

use serde::Deserialize;
use stork_wire::charter::UnixSeconds;

/// Windows of one VM.
pub(super) const WINDOWS_MAX: usize = 32;
const DAY_S: u64 = 86_400;
const DAY_MIN: u32 = 1_440;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A stretch of time on some days of the week, such as `Sat,Sun 22:00-02:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// A bit for each day on which it begins, from Monday on.
    days: u8,
    /// Minutes of that day.
    from: u32,
    /// Minutes that it lasts.
    minutes: u32,
}

/// A text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window")]
pub struct WindowError(String);

fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |t: &str| (t.len() == 2).then(|| t.parse::<u32>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY_MIN).then_some(all)
}

fn day(name: &str) -> Option<usize> {
    DAYS.iter().position(|d| d.eq_ignore_ascii_case(name))
}

fn days(text: &str) -> Option<u8> {
    let mut bits = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + DAYS.len() - first) % DAYS.len();
        for i in 0..=count {
            bits |= 1 << ((first + i) % DAYS.len());
        }
    }
    Some(bits)
}

impl FromStr for Window {
    type Err = WindowError;

    /// `[DAYS ]HH:MM-HH:MM`; without days on every day, and past midnight where it ends earlier
    /// than it begins.
    fn from_str(text: &str) -> Result<Self, WindowError> {
        let bad = || WindowError(text.chars().take(80).collect());
        let (on, time) = match text.trim().split_once(' ') {
            Some((on, time)) => (days(on).ok_or_else(bad)?, time.trim()),
            None => (0x7f, text.trim()),
        };
        let (from, to) = time.split_once('-').ok_or_else(bad)?;
        let (from, to) = (minutes(from).ok_or_else(bad)?, minutes(to).ok_or_else(bad)?);
        let long = if to > from { to - from } else { to + DAY_MIN - from };
        if from >= DAY_MIN {
            return Err(bad());
        }
        Ok(Self { days: on, from, minutes: long })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |i: &usize| self.days & (1 << i) != 0;
        let names: Vec<&str> =
            (0..DAYS.len()).filter(on).filter_map(|i| DAYS.get(i).copied()).collect();
        if names.len() < DAYS.len() {
            write!(f, "{} ", names.join(","))?;
        }
        let to = (self.from + self.minutes) % DAY_MIN;
        let (from, to) = ((self.from / 60, self.from % 60), (to / 60, to % 60));
        write!(f, "{:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)
    }
}

impl Window {
    /// When it begins on a day, in days since 1970; none where it does not.
    fn begins(&self, day: u64) -> Option<UnixSeconds> {
        // 1 January 1970 was a Thursday.
        let weekday = (day + 3) % 7;
        let on = self.days & (1 << weekday) != 0;
        on.then(|| day.saturating_mul(DAY_S).saturating_add(u64::from(self.from) * 60))
    }

    /// The first moment from `at` on that lies in it.
    fn next(&self, at: UnixSeconds) -> Option<UnixSeconds> {
        let today = at / DAY_S;
        // It may have begun yesterday.
        (today.saturating_sub(1)..=today.saturating_add(7)).find_map(|day| {
            let from = self.begins(day)?;
            let end = from.saturating_add(u64::from(self.minutes) * 60);
            (at < end).then_some(at.max(from))
        })
    }
}

/// When what was withdrawn from a VM is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Withdrawals {
    /// At once, whatever the windows say.
    #[default]
    AtOnce,
    /// In a window, as everything else.
    Wait,
}

/// When a VM is switched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchRule {
    /// Only in one of these; at any time where there is none.
    pub windows: Vec<Window>,
    /// Not before.
    pub not_before: Option<UnixSeconds>,
    /// When recalls and denials act.
    pub withdrawals: Withdrawals,
}

impl SwitchRule {
    /// The first moment from `now` on at which a switch may be: `now` itself if it may be at once,
    /// none if never. A VM that shows nothing yet has nothing that a window would protect, so its
    /// `first` switch waits for `not_before` only.
    #[must_use]
    pub fn next(&self, now: UnixSeconds, first: bool) -> Option<UnixSeconds> {
        let from = self.not_before.unwrap_or(0).max(now);
        if first || self.windows.is_empty() {
            return Some(from);
        }
        self.windows.iter().filter_map(|w| w.next(from)).min()
    }

    /// Does it say anything about when?
    #[must_use]
    pub fn says_when(&self) -> bool {
        !self.windows.is_empty() || self.not_before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday, 28 November 2026, 00:00 UTC.
    const SATURDAY: u64 = 20_785 * DAY_S;
    const HOUR: u64 = 3_600;

    fn rule(windows: &[&str]) -> SwitchRule {
        let windows = windows.iter().map(|w| w.parse().unwrap()).collect();
        SwitchRule { windows, ..SwitchRule::default() }
    }

    #[test]
    fn windows_are_read() {
        for (text, said) in [
            ("02:00-04:00", "02:00-04:00"),
            ("Sat,Sun 22:00-02:00", "Sat,Sun 22:00-02:00"),
            ("fri-mon 00:00-24:00", "Mon,Fri,Sat,Sun 00:00-00:00"),
            ("Mon-Sun 10:30-10:30", "10:30-10:30"),
        ] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), said);
        }
        let bad = ["", "2:00-4:00", "25:00-26:00", "24:00-01:00", "Mon", "Xyz 01:00-02:00"];
        for text in bad.into_iter().chain(["01:60-02:00", "01:00", "Mon,, 01:00-02:00", "-"]) {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }

    /// Inside, before, across midnight and the end of the week; with a time before which nothing
    /// is.
    #[test]
    fn the_next_moment() {
        let night = rule(&["Sat 22:00-02:00"]);
        let at = |h: u64| SATURDAY + h * HOUR;
        assert_eq!(night.next(at(3), false), Some(at(22)));
        assert_eq!(night.next(at(23), false), Some(at(23)));
        assert_eq!(night.next(at(25), false), Some(at(25)), "it is still Saturday's night");
        assert_eq!(night.next(at(26), false), Some(at(22 + 7 * 24)), "its end is not in it");
        assert_eq!(night.next(at(3), true), Some(at(3)));
        let two = rule(&["Sat 22:00-02:00", "Mon 08:00-09:00"]);
        assert_eq!(two.next(at(26), false), Some(at(48 + 8)));
        let later = SwitchRule { not_before: Some(at(30)), ..night };
        assert_eq!(later.next(at(23), false), Some(at(22 + 7 * 24)));
        assert_eq!(later.next(at(23), true), Some(at(30)));
        assert_eq!(rule(&[]).next(at(1), false), Some(at(1)));
        assert_eq!(rule(&["00:00-24:00"]).next(at(5), false), Some(at(5)));
        assert!(rule(&["01:00-02:00"]).next(u64::MAX, false).is_none_or(|t| t == u64::MAX));
    }
}
