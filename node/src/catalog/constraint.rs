//! Version constraints: `>= 1.0, < 2`, by Debian's ordering.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use stork_wire::text::Version;

/// Compares two versions by the rules of Debian policy §5.6.12 (crate `debversion`); what does not
/// parse as a Debian version is older than everything that does, and compared as text.
#[must_use]
pub fn compare_versions(a: &Version, b: &Version) -> Ordering {
    VersionKey::of(a).cmp(&VersionKey::of(b))
}

/// A version that was parsed once, to be compared often: ordered as [`compare_versions`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VersionKey<'a>(Option<debversion::Version>, &'a Version);

impl<'a> VersionKey<'a> {
    pub(super) fn of(version: &'a Version) -> Self {
        Self(version.as_str().parse().ok(), version)
    }
}

impl Ord for VersionKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Some(x), Some(y)) => x.cmp(y),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => self.1.cmp(other.1),
        }
    }
}

impl PartialOrd for VersionKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    LessEqual,
    Equal,
    NotEqual,
    GreaterEqual,
    Greater,
}

const OPS: [(&str, Op); 9] = [
    ("<=", Op::LessEqual),
    (">=", Op::GreaterEqual),
    ("!=", Op::NotEqual),
    ("==", Op::Equal),
    ("<<", Op::Less),
    (">>", Op::Greater),
    ("<", Op::Less),
    (">", Op::Greater),
    ("=", Op::Equal),
];

/// All parts must hold; no parts: every version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Constraint(Vec<(Op, Version)>);

/// A text that is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version constraint")]
pub struct ConstraintError(String);

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;
    fn from_str(s: &str) -> Result<Self, ConstraintError> {
        let bad = || ConstraintError(s.chars().take(80).flat_map(char::escape_debug).collect());
        let trimmed = s.trim();
        if trimmed.is_empty() || trimmed == "*" {
            return Ok(Self::default());
        }
        let mut parts = Vec::new();
        for part in trimmed.split(',').map(str::trim) {
            let found = OPS.iter().find_map(|(text, op)| part.strip_prefix(text).map(|v| (*op, v)));
            let (op, version) = found.unwrap_or((Op::Equal, part));
            parts.push((op, version.trim().parse().map_err(|_e| bad())?));
        }
        Ok(Self(parts))
    }
}

impl Constraint {
    /// Does it allow every version?
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.0.is_empty()
    }
    /// Does the version satisfy all parts?
    #[must_use]
    pub fn allows(&self, version: &Version) -> bool {
        self.0.iter().all(|(op, want)| {
            let ord = compare_versions(version, want);
            match op {
                Op::Less => ord.is_lt(),
                Op::LessEqual => ord.is_le(),
                Op::Equal => ord.is_eq(),
                Op::NotEqual => ord.is_ne(),
                Op::GreaterEqual => ord.is_ge(),
                Op::Greater => ord.is_gt(),
            }
        })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("*");
        }
        for (i, (op, v)) in self.0.iter().enumerate() {
            let text = OPS.iter().rev().find(|(_, o)| o == op).map_or("=", |(t, _)| t);
            write!(f, "{}{text} {v}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(s: &str) -> Version {
        s.parse().unwrap()
    }

    /// Pairs whose order people get wrong; each was also given to `dpkg --compare-versions`.
    #[test]
    fn debian_order() {
        for (a, b) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("1.9", "1.10"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("9.9", "1:0.1"),
            ("1.0a", "1.0+"),
            ("0.1~~", "0.1~"),
        ] {
            assert_eq!(compare_versions(&v(a), &v(b)), Ordering::Less, "{a} < {b}");
        }
    }

    /// Constraints are read, applied and shown again.
    #[test]
    fn constraints() {
        let c: Constraint = ">= 1.0, < 2".parse().unwrap();
        assert!(c.allows(&v("1.5")) && !c.allows(&v("2")) && !c.allows(&v("0.9")));
        assert_eq!(c.to_string(), ">= 1.0, < 2");
        assert!("= 1.2-3".parse::<Constraint>().unwrap().allows(&v("1.2-3")));
        assert!("".parse::<Constraint>().unwrap().allows(&v("7")));
        assert!(">= ".parse::<Constraint>().is_err());
    }
}
