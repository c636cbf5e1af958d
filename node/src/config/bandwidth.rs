//! `[bandwidth]`: how much content may come and go, and when.
//!
//! Rates and times are text in the file, as people write them, and are checked here once. Every
//! message says what is wrong with which word; what to write instead is in `hint_for`.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::transfer::{Rate, Rates, Schedule, Window};

/// Windows of one file: two a day, and as many exceptions. Each is looked at once a second.
pub const WINDOWS_MAX: usize = 32;
/// Less than this is a mistake: a piece of the largest size would take more than an hour.
const RATE_MIN: u64 = 1_000;
/// More than this as well: a terabyte a second.
const RATE_MAX: u64 = 1_000_000_000_000;
/// Digits of a number before its unit, with those behind the point.
const DIGITS_MAX: usize = 16;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default, deserialize_with = "rate")]
    up: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    down: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    wan_up: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    wan_down: Option<Rate>,
    #[serde(default)]
    window: Vec<WindowTable>,
}

/// One `[[bandwidth.window]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    #[serde(default = "every_day", deserialize_with = "days")]
    days: [bool; 7],
    #[serde(deserialize_with = "time")]
    from: u16,
    #[serde(deserialize_with = "time")]
    to: u16,
    #[serde(default, deserialize_with = "rate")]
    up: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    down: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    wan_up: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    wan_down: Option<Rate>,
}

const fn every_day() -> [bool; 7] {
    [true; 7]
}

/// Reads the table.
pub(super) fn schedule<'de, D: Deserializer<'de>>(from: D) -> Result<Schedule, D::Error> {
    let t = Table::deserialize(from)?;
    if t.window.len() > WINDOWS_MAX {
        let count = t.window.len();
        return Err(D::Error::custom(format!(
            "{count} windows of bandwidth are more than {WINDOWS_MAX}"
        )));
    }
    let windows: Result<Vec<Window>, String> = t.window.into_iter().map(window).collect();
    let windows = windows.map_err(D::Error::custom)?;
    let base = Rates { up: t.up, down: t.down, wan_up: t.wan_up, wan_down: t.wan_down };
    Ok(Schedule { base, windows })
}

fn window(t: WindowTable) -> Result<Window, String> {
    let clock = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
    if t.from == t.to {
        let at = clock(t.from);
        return Err(format!("a window of bandwidth from {at} to {at} has no length"));
    }
    let rates = Rates { up: t.up, down: t.down, wan_up: t.wan_up, wan_down: t.wan_down };
    if rates == Rates::default() {
        let (from, to) = (clock(t.from), clock(t.to));
        return Err(format!("the window of bandwidth from {from} to {to} sets nothing"));
    }
    if t.from == 1_440 {
        return Err("`24:00` is no time of day at which a window begins".to_owned());
    }
    Ok(Window { days: t.days, from: t.from, to: t.to, rates })
}

/// A value that is text, or a whole number where that has a meaning.
struct Text<T> {
    what: &'static str,
    parse: fn(&str) -> Result<T, String>,
    number: fn(i64) -> Result<T, String>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        (self.number)(number).map_err(E::custom)
    }
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Rate>, D::Error> {
    let number = |n: i64| match u64::try_from(n) {
        Ok(0) => Ok(Rate::Nothing),
        _ => Err(format!("`{n}` is no rate: a number needs a unit")),
    };
    let what = "a rate such as \"40 MB/s\", \"none\" or \"unlimited\"";
    from.deserialize_any(Text { what, parse: parse_rate, number }).map(Some)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let number = |n: i64| Err(format!("`{n}` is no time of day"));
    from.deserialize_any(Text { what: "a time of day", parse: parse_time, number })
}

fn days<'de, D: Deserializer<'de>>(from: D) -> Result<[bool; 7], D::Error> {
    let mut on = [false; 7];
    for word in Vec::<String>::deserialize(from)? {
        let day = DAYS.iter().position(|d| *d == word);
        let day = day.and_then(|d| on.get_mut(d)).ok_or_else(|| {
            D::Error::custom(format!("`{}` is no day of the week", shortened(&word)))
        })?;
        *day = true;
    }
    match on.contains(&true) {
        true => Ok(on),
        false => Err(D::Error::custom("an empty list is no day of the week")),
    }
}

/// As much of a wrong word as an error shows.
fn shortened(word: &str) -> String {
    word.chars().take(32).collect()
}

/// `HH:MM`, up to `24:00`, as a minute of the day.
fn parse_time(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{}` is no time of day", shortened(text));
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let two = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| digits)
    };
    match (two(hour), two(minute)) {
        (Some(24), Some(0)) => Ok(1_440),
        (Some(h @ 0..24), Some(m @ 0..60)) => Ok(h * 60 + m),
        _ => Err(wrong()),
    }
}

/// `40MB/s`, `1.5 GiB/s`, `80 Mbit/s`, `none`, `0` or `unlimited`.
pub(super) fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = |why: &str| format!("`{}` is no rate: {why}", shortened(text));
    let text = text.trim();
    match text {
        "none" | "0" => return Ok(Rate::Nothing),
        "unlimited" => return Ok(Rate::Unlimited),
        _ => {}
    }
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(|| wrong("it has no unit"))?;
    let Some(unit) = unit.trim_start().strip_suffix("/s") else {
        return Err(wrong("it does not end with `/s`"));
    };
    let (times, part) = unit_of(unit).map_err(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all = format!("{whole}{fraction}");
    if whole.is_empty() || number.ends_with('.') || all.len() > DIGITS_MAX {
        return Err(wrong("the number is missing, or too long"));
    }
    let n: u128 = all.parse().map_err(|_e| wrong("its number is not one"))?;
    let scale = fraction.bytes().fold(1u128, |scale, _| scale * 10) * part;
    match u64::try_from(n * times / scale) {
        Ok(0) if n == 0 => Ok(Rate::Nothing),
        Ok(rate @ RATE_MIN..=RATE_MAX) => Ok(Rate::PerS(rate)),
        Ok(0..RATE_MIN) => Err(wrong("it is less than 1 kB/s")),
        _ => Err(wrong("it is more than 1 TB/s")),
    }
}

/// How many bytes a unit has: times this, and divided by that.
fn unit_of(unit: &str) -> Result<(u128, u128), &'static str> {
    const KIB: u128 = 1_024;
    Ok(match unit {
        "B" => (1, 1),
        "kB" => (1_000, 1),
        "MB" => (1_000_000, 1),
        "GB" => (1_000_000_000, 1),
        "KiB" => (KIB, 1),
        "MiB" => (KIB * KIB, 1),
        "GiB" => (KIB * KIB * KIB, 1),
        "bit" => (1, 8),
        "kbit" => (1_000, 8),
        "Mbit" => (1_000_000, 8),
        "Gbit" => (1_000_000_000, 8),
        "" => return Err("it has no unit"),
        "b" | "kb" | "Kb" | "Mb" | "Gb" | "mb" | "gb" => {
            return Err("bits and bytes cannot be told apart in its unit");
        }
        _ => return Err("its unit is not known"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, NodeConfig};

    fn read(text: &str) -> Result<NodeConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        NodeConfig::read(file.path(), true)
    }

    /// Every unit, fractions, spaces, and the two words.
    #[test]
    fn rates() {
        for (text, rate) in [
            ("40MB/s", 40_000_000),
            ("40 MB/s", 40_000_000),
            (" 1.5 GiB/s ", 1_610_612_736),
            ("80 Mbit/s", 10_000_000),
            ("0.1Gbit/s", 12_500_000),
            ("64KiB/s", 65_536),
            ("8kbit/s", 1_000),
            ("1000B/s", 1_000),
            ("1000GB/s", 1_000_000_000_000),
        ] {
            assert_eq!(parse_rate(text), Ok(Rate::PerS(rate)), "{text}");
        }
        for text in ["none", "0", "0MB/s", "0.0 Gbit/s"] {
            assert_eq!(parse_rate(text), Ok(Rate::Nothing), "{text}");
        }
        assert_eq!(parse_rate("unlimited"), Ok(Rate::Unlimited));
    }

    /// What is written down is what holds, with the windows in their order.
    #[test]
    fn a_whole_table() {
        let text = "[bandwidth]\nup = \"40MB/s\"\nwan_down = \"80 Mbit/s\"\n\
            [[bandwidth.window]]\ndays = [\"fri\", \"sun\"]\nfrom = \"22:00\"\nto = \"06:30\"\n\
            up = \"unlimited\"\nwan_down = 0\n\
            [[bandwidth.window]]\nfrom = \"00:00\"\nto = \"24:00\"\ndown = \"1GB/s\"\n";
        let s = read(text).unwrap().bandwidth;
        assert_eq!((s.base.up, s.base.down), (Some(Rate::PerS(40_000_000)), None));
        let days = [false, false, false, false, true, false, true];
        let rates =
            Rates { up: Some(Rate::Unlimited), wan_down: Some(Rate::Nothing), ..Rates::default() };
        let first = Window { days, from: 1_320, to: 390, rates };
        assert_eq!(s.windows.first(), Some(&first));
        assert_eq!(s.windows.get(1).map(|w| (w.days, w.from, w.to)), Some(([true; 7], 0, 1_440)));
        assert!(read("").unwrap().bandwidth.is_empty() && !s.is_empty());
    }

    /// Wrong values are named with their line, and what to write instead.
    #[test]
    fn wrong_values() {
        let window = |keys: &str| format!("[bandwidth]\n[[bandwidth.window]]\n{keys}");
        let many = "[[bandwidth.window]]\nfrom = \"01:00\"\nto = \"02:00\"\nup = 0\n".repeat(33);
        for (text, message, line, help) in [
            ("[bandwidth]\nup = \"40\"", "`40` is no rate", 2, "40 MB/s"),
            ("[bandwidth]\nup = \"40MB\"", "does not end with `/s`", 2, "40 MB/s"),
            ("[bandwidth]\nup = 40", "a number needs a unit", 2, "40 MB/s"),
            ("[bandwidth]\nup = \"-1MB/s\"", "unit is not known", 2, "40 MB/s"),
            ("[bandwidth]\n\ndown = \"4Mb/s\"", "bits and bytes", 3, "40 MB/s"),
            ("[bandwidth]\nup = \"1B/s\"", "less than 1 kB/s", 2, "40 MB/s"),
            ("[bandwidth]\nup = \"9999GB/s\"", "more than 1 TB/s", 2, "40 MB/s"),
            ("[bandwidth]\nup = true", "a rate such as", 2, "40 MB/s"),
            ("[bandwidth]\nupp = \"1MB/s\"", "unknown field `upp`", 2, "did you mean `up`?"),
            (&window("from = \"7:00\"\nto = \"08:00\"\nup = 0"), "`7:00` is no time", 3, "22:00"),
            (&window("from = \"07:00\"\nto = \"24:01\"\nup = 0"), "`24:01` is no time", 4, "22:00"),
            (&window("from = \"07:00\"\nto = \"07:00\"\nup = 0"), "has no length", 1, "24:00"),
            (&window("from = \"24:00\"\nto = \"07:00\"\nup = 0"), "`24:00` is no time", 1, "22:00"),
            (&window("from = \"07:00\"\nto = \"09:00\""), "sets nothing", 1, "up = \"none\""),
            (
                &window("days = [\"Mon\"]\nfrom = \"07:00\"\nto = \"09:00\""),
                "`Mon` is",
                3,
                "\"mon\"",
            ),
            (&window("days = []\nfrom = \"07:00\"\nto = \"09:00\""), "no day", 3, "\"mon\""),
            (&window("to = \"09:00\"\nup = 0"), "missing field `from`", 2, "add the key `from`"),
            (&format!("[bandwidth]\n{many}"), "33 windows", 1, "one window"),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.message.contains(message), "{text}\n{}", e.message);
            assert!(e.message.contains(&format!("line {line},")), "{text}\n{}", e.message);
            assert!(e.help.contains(help), "{text}\n{}", e.help);
        }
    }

    /// Nonsense of all kinds is refused, and never taken for a rate or a time.
    #[test]
    fn nonsense() {
        let parts = [
            "",
            "1",
            "9999999999999999",
            ".",
            "-",
            "e9",
            "∞",
            "kB",
            "MB/s",
            "/s",
            " ",
            "\0",
            "ｋB/s",
        ];
        for a in parts {
            for b in parts {
                for c in parts {
                    let text = format!("{a}{b}{c}");
                    if let Ok(Rate::PerS(rate)) = parse_rate(&text) {
                        assert!((RATE_MIN..=RATE_MAX).contains(&rate), "{text}: {rate}");
                        assert!(text.contains("B/s") && text.contains('1'), "{text}");
                    }
                    assert!(parse_time(&text).is_err(), "{text}");
                }
            }
        }
        assert!(parse_rate(&"9".repeat(100_000)).is_err());
        assert!(parse_rate(&format!("0.{}MB/s", "0".repeat(99))).is_err());
        assert_eq!(parse_time("1é:0").ok(), None);
    }
}
