//! The plan of the week: which limits hold at what time of which day, and when they change next.
//!
//! Calendar time is handed in, in seconds since 1970. Days and times of day are UTC: no day has 23
//! or 25 hours, and all hosts of a fleet mean the same by one file.

use super::bandwidth::{Limit, Limits, Way};

const MINUTES_A_DAY: u32 = 1_440;
const MINUTES_A_WEEK: u32 = 7 * MINUTES_A_DAY;
/// The first of January 1970 was a Thursday, which is day 3 of a week that begins on Monday.
const FIRST_DAY: u64 = 3;

/// What the operator wrote for one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As much as there is.
    Unlimited,
    /// Nothing of the classes normal and background.
    Nothing,
    /// So many bytes a second, one at least.
    PerS(u64),
}

/// What the operator wrote for all ways; none: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// To any host.
    pub up: Option<Rate>,
    /// From any host.
    pub down: Option<Rate>,
    /// To hosts of other sites.
    pub wan_up: Option<Rate>,
    /// From hosts of other sites.
    pub wan_down: Option<Rate>,
}

impl Rates {
    const fn of(&self, way: Way) -> Option<Rate> {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
            Way::WanUp => self.wan_up,
            Way::WanDown => self.wan_down,
        }
    }
}

/// A part of some days in which other rates hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it begins, from Monday on.
    pub days: [bool; 7],
    /// Minute of the day at which it begins, below 1440.
    pub from: u16,
    /// Minute at which it ends, up to 1440; if that is not later, it is one of the next day.
    pub to: u16,
    /// What holds in it; what it does not name stays as it is outside.
    pub rates: Rates,
}

impl Window {
    /// Minutes of the week at which it begins on each of its days.
    fn begins(&self) -> impl Iterator<Item = u32> + '_ {
        let days = (0u32..).zip(&self.days).filter(|(_, on)| **on);
        days.map(|(day, _)| (day * MINUTES_A_DAY + u32::from(self.from)) % MINUTES_A_WEEK)
    }

    /// How many minutes it lasts.
    fn lasts(&self) -> u32 {
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        if to > from { to - from } else { (to + MINUTES_A_DAY).saturating_sub(from) }
    }

    fn covers(&self, minute: u32) -> bool {
        self.begins().any(|from| (minute + MINUTES_A_WEEK - from) % MINUTES_A_WEEK < self.lasts())
    }
}

/// The limits of a host over the week.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// What holds outside of the windows.
    pub base: Rates,
    /// Where several hold at the same time, the first one that names a way decides for it.
    pub windows: Vec<Window>,
}

const fn minute_of_week(unix_s: u64) -> u32 {
    let minute = unix_s / 60 + FIRST_DAY * MINUTES_A_DAY as u64;
    #[expect(clippy::cast_possible_truncation, reason = "less than the minutes of a week")]
    let minute = (minute % MINUTES_A_WEEK as u64) as u32;
    minute
}

impl Schedule {
    /// The limits at a calendar time, in seconds since 1970.
    #[must_use]
    pub fn at(&self, unix_s: u64) -> Limits {
        self.limits(minute_of_week(unix_s))
    }

    fn limits(&self, minute: u32) -> Limits {
        let open: Vec<&Window> = self.windows.iter().filter(|w| w.covers(minute)).collect();
        let limit = |way| {
            let base = self.base.of(way).unwrap_or(Rate::Unlimited);
            let rate = open.iter().find_map(|w| w.rates.of(way)).unwrap_or(base);
            // Where nothing else goes, urgent content keeps to what holds otherwise.
            let per_s = match (rate, base) {
                (Rate::PerS(rate), _) | (Rate::Nothing, Rate::PerS(rate)) => Some(rate),
                _ => None,
            };
            Limit { per_s, closed: rate == Rate::Nothing }
        };
        Limits {
            up: limit(Way::Up),
            down: limit(Way::Down),
            wan_up: limit(Way::WanUp),
            wan_down: limit(Way::WanDown),
        }
    }

    /// When they change next, in seconds since 1970; `None` if they never do.
    #[must_use]
    pub fn next_change(&self, unix_s: u64) -> Option<u64> {
        let minute = minute_of_week(unix_s);
        let ends = |w: &Window, from: u32| [from, (from + w.lasts()) % MINUTES_A_WEEK];
        let edges = self.windows.iter().flat_map(|w| w.begins().flat_map(move |m| ends(w, m)));
        let away = |edge: u32| match (edge + MINUTES_A_WEEK - minute) % MINUTES_A_WEEK {
            0 => MINUTES_A_WEEK,
            away => away,
        };
        let mut away: Vec<u32> = edges.map(away).collect();
        away.sort_unstable();
        away.dedup();
        let now = self.limits(minute);
        let next = away.into_iter().find(|m| self.limits((minute + m) % MINUTES_A_WEEK) != now)?;
        Some((unix_s / 60 + u64::from(next)) * 60)
    }

    /// Whether anything is limited at any time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.base == Rates::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    /// Monday, 2 November 2026, 00:00 UTC.
    const MONDAY: u64 = 1_793_577_600;

    fn up(rate: Rate) -> Rates {
        Rates { up: Some(rate), ..Rates::default() }
    }

    fn window(days: &[usize], from: u16, to: u16, rate: Rate) -> Window {
        let mut on = [false; 7];
        days.iter().for_each(|d| on[*d] = true);
        Window { days: on, from: from * 60, to: to * 60, rates: up(rate) }
    }

    fn rate_at(s: &Schedule, unix_s: u64) -> Option<u64> {
        s.at(unix_s).up.per_s
    }

    /// Over midnight it belongs to the day on which it began, also from Sunday to Monday.
    #[test]
    fn over_midnight() {
        let nights = window(&[4, 6], 22, 6, Rate::Unlimited);
        let s = Schedule { base: up(Rate::PerS(7)), windows: vec![nights] };
        let friday = MONDAY + 4 * DAY;
        assert_eq!(rate_at(&s, friday + 22 * HOUR - 1), Some(7));
        assert_eq!(rate_at(&s, friday + 22 * HOUR), None);
        assert_eq!(rate_at(&s, friday + DAY + 6 * HOUR - 1), None);
        assert_eq!(rate_at(&s, friday + DAY + 6 * HOUR), Some(7));
        assert_eq!(rate_at(&s, friday + DAY + 22 * HOUR), Some(7), "Saturday has none");
        assert_eq!(rate_at(&s, MONDAY + 7 * DAY + 5 * HOUR), None, "Sunday's goes on");
        assert_eq!(rate_at(&s, MONDAY + 7 * DAY + 6 * HOUR), Some(7));
    }

    /// The next change is the next minute in which other limits hold, a year long.
    #[test]
    fn next_changes() {
        let days = window(&[0, 1, 2, 3, 4], 8, 18, Rate::PerS(5));
        let lunch = window(&[0, 1, 2, 3, 4], 12, 13, Rate::PerS(5));
        let s = Schedule { base: Rates::default(), windows: vec![days, lunch] };
        let mut now = MONDAY;
        for day in 0..365 {
            let date = MONDAY + day * DAY;
            if day % 7 > 4 {
                continue;
            }
            now = s.next_change(now).unwrap();
            assert_eq!((now, rate_at(&s, now)), (date + 8 * HOUR, Some(5)));
            now = s.next_change(now + 59).unwrap();
            assert_eq!((now, rate_at(&s, now)), (date + 18 * HOUR, None), "lunch changes nothing");
        }
        let always = window(&[0, 1, 2, 3, 4, 5, 6], 0, 24, Rate::PerS(5));
        let s = Schedule { base: Rates::default(), windows: vec![always] };
        assert_eq!((rate_at(&s, MONDAY + 9), s.next_change(MONDAY)), (Some(5), None));
        assert_eq!(Schedule::default().next_change(MONDAY), None);
    }

    /// The first window that names a way decides; a closed one keeps the other rate for what is
    /// urgent; ways that it does not name stay as they are.
    #[test]
    fn first_window_decides() {
        let closed = window(&[0], 0, 12, Rate::Nothing);
        let mut wan = window(&[0], 0, 24, Rate::PerS(1));
        wan.rates.wan_down = Some(Rate::Nothing);
        let s = Schedule { base: up(Rate::PerS(9)), windows: vec![closed, wan] };
        let limits = s.at(MONDAY);
        assert_eq!(limits.up, Limit { per_s: Some(9), closed: true });
        assert_eq!(limits.wan_down, Limit { per_s: None, closed: true });
        assert_eq!(limits.down, Limit::default());
        assert_eq!(s.at(MONDAY + 12 * HOUR).up, Limit { per_s: Some(1), closed: false });
        assert_eq!(s.next_change(MONDAY), Some(MONDAY + 12 * HOUR));
    }

    /// At the end of time nothing overflows.
    #[test]
    fn far_times() {
        let s =
            Schedule { base: Rates::default(), windows: vec![window(&[3], 1, 2, Rate::Nothing)] };
        assert!(s.next_change(0).is_some() && !s.at(0).up.closed && s.at(HOUR).up.closed);
        assert!(!s.at(u64::MAX).down.closed && s.next_change(u64::MAX / 2).is_some());
    }
}
