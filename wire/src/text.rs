//! Checked text: names, versions, patterns and paths that can be shown, compared and joined safely.
//!
//! A name is checked once, where it enters; nothing inside checks it again. No type here can hold
//! control characters, bidirectional overrides or `..`, so none of them can forge a log line or
//! leave a directory (attacks A26, V7).

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{COMPONENT_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX};

/// Why a text was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{text}`: {why}")]
pub struct BadText {
    /// What it should have been.
    pub kind: &'static str,
    /// The text, cut to 80 characters, with control characters escaped.
    pub text: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

fn bad(kind: &'static str, text: &str, why: &'static str) -> BadText {
    let text = text.chars().take(80).flat_map(char::escape_debug).collect();
    BadText { kind, text, why }
}

/// True for characters that change how a terminal or page shows the text around them.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadText;
            fn from_str(s: &str) -> Result<Self, BadText> {
                $check(s)?;
                Ok(Self(s.into()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct V;
                impl de::Visitor<'_> for V {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(stringify!($name))
                    }
                    fn visit_str<E: de::Error>(self, v: &str) -> Result<$name, E> {
                        v.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(V)
            }
        }
    };
}

/// Components of `[A-Za-z0-9][A-Za-z0-9+._-]*`, joined by single slashes.
fn check_name(kind: &'static str, s: &str, len_max: usize) -> Result<(), BadText> {
    if s.is_empty() {
        return Err(bad(kind, s, "must not be empty"));
    }
    if s.len() > len_max {
        return Err(bad(kind, s, "is too long"));
    }
    for part in s.split('/') {
        if !part.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(bad(kind, s, "each part must begin with a letter or digit"));
        }
        if !part.chars().all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c)) {
            return Err(bad(kind, s, "may hold letters, digits, `+`, `.`, `_`, `-` and `/`"));
        }
    }
    Ok(())
}

fn check_package(s: &str) -> Result<(), BadText> {
    check_name("package name", s, 128)
}
fn check_group(s: &str) -> Result<(), BadText> {
    check_name("group name", s, 64)
}
fn check_label(s: &str) -> Result<(), BadText> {
    check_name("name", s, 64)
}
fn check_arch(s: &str) -> Result<(), BadText> {
    check_name("architecture", s, 32)
}

fn check_version(s: &str) -> Result<(), BadText> {
    let kind = "version";
    if s.is_empty() || s.len() > 128 {
        return Err(bad(kind, s, "must have 1 to 128 characters"));
    }
    if !s.chars().all(|c| c.is_ascii_alphanumeric() || ".+~:-_".contains(c)) {
        return Err(bad(kind, s, "may hold letters, digits, `.`, `+`, `~`, `:`, `-` and `_`"));
    }
    if !s.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(bad(kind, s, "must begin with a letter or digit"));
    }
    Ok(())
}

fn check_pattern(s: &str) -> Result<(), BadText> {
    let kind = "pattern";
    if s.is_empty() || s.len() > 128 {
        return Err(bad(kind, s, "must have 1 to 128 characters"));
    }
    if !s.chars().all(|c| c.is_ascii_alphanumeric() || "+._-/*".contains(c)) {
        return Err(bad(kind, s, "may hold what a name may hold, and `*`"));
    }
    // What no name can match is a mistake, and looks like a path: `../x`, `/x`, `x//y`, `.x`.
    let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '*');
    if !s.split('/').all(begins) {
        return Err(bad(kind, s, "each part must begin with a letter, a digit or `*`"));
    }
    if s.matches('*').count() > 8 {
        return Err(bad(kind, s, "may hold at most 8 `*`"));
    }
    Ok(())
}

fn check_line(s: &str) -> Result<(), BadText> {
    let kind = "text";
    if s.len() > 512 {
        return Err(bad(kind, s, "must have at most 512 bytes"));
    }
    if s.chars().any(is_hidden) {
        return Err(bad(kind, s, "must not hold control or direction characters"));
    }
    Ok(())
}

fn check_path(s: &str) -> Result<(), BadText> {
    let kind = "path";
    if s.is_empty() {
        return Err(bad(kind, s, "must not be empty"));
    }
    if s.len() > PATH_LEN_MAX {
        return Err(bad(kind, s, "is longer than 1024 bytes"));
    }
    if s.starts_with('/') {
        return Err(bad(kind, s, "must not be absolute"));
    }
    let mut depth = 0usize;
    for part in s.split('/') {
        depth += 1;
        match part {
            "" => return Err(bad(kind, s, "must not have an empty part")),
            "." | ".." => return Err(bad(kind, s, "must not hold `.` or `..`")),
            _ if part.len() > COMPONENT_LEN_MAX => {
                return Err(bad(kind, s, "has a part longer than 255 bytes"));
            }
            _ => {}
        }
    }
    if depth > PATH_DEPTH_MAX {
        return Err(bad(kind, s, "is deeper than 64 parts"));
    }
    if s.chars().any(char::is_control) {
        return Err(bad(kind, s, "must not hold control characters"));
    }
    Ok(())
}

fn check_target(s: &str) -> Result<(), BadText> {
    let kind = "link target";
    if s.is_empty() || s.len() > 4_095 {
        return Err(bad(kind, s, "must have 1 to 4095 bytes"));
    }
    if s.chars().any(char::is_control) {
        return Err(bad(kind, s, "must not hold control characters"));
    }
    Ok(())
}

checked_text!(
    /// A package's name, such as `libssl3` or `acme/base-image`.
    PackageName, check_package);
checked_text!(
    /// A group's name, such as `web` or `sensors/ids`.
    GroupName, check_group);
checked_text!(
    /// The human name of a host, site, publisher or VM.
    Label, check_label);
checked_text!(
    /// A version, ordered by Debian's rules.
    Version, check_version);
checked_text!(
    /// A machine architecture in Debian's words: `amd64`, `arm64`, `all`.
    Arch, check_arch);
checked_text!(
    /// A name with `*`, which stands for any run of characters but `/`.
    Pattern, check_pattern);
checked_text!(
    /// One line that is shown to people.
    Line, check_line);
checked_text!(
    /// A relative path inside a tree: no `.`, `..`, empty part or control character.
    TreePath, check_path);
checked_text!(
    /// What a symbolic link holds: data, never followed by us.
    LinkTarget, check_target);

impl Pattern {
    /// Does the name match? Letters must match in case, and `*` never crosses a `/` (test T046).
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut patterns = self.0.split('/');
        let mut names = name.split('/');
        loop {
            match (patterns.next(), names.next()) {
                (None, None) => return true,
                (Some(p), Some(n)) if glob(p.as_bytes(), n.as_bytes()) => {}
                _ => return false,
            }
        }
    }
}

/// Matches `*` by remembering the last star only: time is bounded by pattern × name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), name.get(n)) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(a), Some(b)) if a == b => {
                p += 1;
                n += 1;
            }
            (None, None) => return true,
            _ => {
                let Some((sp, sn)) = star else { return false };
                if sn >= name.len() {
                    return false;
                }
                star = Some((sp, sn + 1));
                p = sp + 1;
                n = sn + 1;
            }
        }
    }
}

impl TreePath {
    /// The path of the directory that holds this entry; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(dir, _)| dir)
    }
    /// The last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T046: a star stays inside one part, and case counts.
    #[test]
    fn t046_patterns() {
        let p: Pattern = "a/*".parse().unwrap();
        assert!(p.matches("a/b"));
        assert!(!p.matches("a/b/c"));
        assert!(!"README".parse::<Pattern>().unwrap().matches("readme"));
        for (p, n, want) in [
            ("*", "x", true),
            ("lib*3", "libssl3", true),
            ("lib*3", "libssl", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**", "", true),
        ] {
            assert_eq!(glob(p.as_bytes(), n.as_bytes()), want, "{p} {n}");
        }
    }

    /// T054: what could leave a directory, forge a log line or hide in a name is refused at once.
    #[test]
    fn t054_hostile_names() {
        for s in ["", "../x", "a//b", "a/../b", "x\0", "a\u{1b}[31m", &"a".repeat(300), "\u{202e}x"]
        {
            assert!(s.parse::<PackageName>().is_err(), "{s:?}");
        }
        for s in ["", "/etc", "a/../b", "a//b", "./a", "a\nb", &"a/".repeat(65), &"b".repeat(256)] {
            assert!(s.parse::<TreePath>().is_err(), "{s:?}");
        }
        for s in ["", "../x", "/etc", "/*", "a//b", "a/", "a/../*", "./a", "-x", "a\nb", "a\0"] {
            assert!(s.parse::<Pattern>().is_err(), "{s:?}");
        }
        for s in ["*", "acme/*", "*/*", "lib*3", "*-dev", "acme/base-image"] {
            assert!(s.parse::<Pattern>().is_ok(), "{s:?}");
        }
        assert!("\u{202e}x".parse::<Line>().is_err());
        let shown = "a\u{1b}[31m".parse::<PackageName>().unwrap_err().to_string();
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    /// What real packages use is accepted.
    #[test]
    fn real_names() {
        assert!("libstdc++6".parse::<PackageName>().is_ok());
        assert!("acme/base-image".parse::<PackageName>().is_ok());
        assert!("2:1.0~rc1+dfsg-3".parse::<Version>().is_ok());
        let path: TreePath = "usr/share/doc/a b/ä[1].gz".parse().unwrap();
        assert_eq!((path.parent(), path.name()), (Some("usr/share/doc/a b"), "ä[1].gz"));
    }
}
