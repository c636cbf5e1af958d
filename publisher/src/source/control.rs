//! The control file of a `.deb`: deb822 fields, of which stork needs six.

use std::collections::BTreeMap;

use stork_wire::codec::List;
use stork_wire::limits::{DEPENDS_MAX, PROVIDES_MAX};
use stork_wire::text::{Arch, Line, PackageName, Version};

use super::error::SourceError;

/// What stork needs of a control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// `Package`.
    pub name: PackageName,
    /// `Version`.
    pub version: Version,
    /// `Architecture`.
    pub arch: Arch,
    /// `Pre-Depends` and `Depends`, one comma element each.
    pub depends: List<Line, DEPENDS_MAX>,
    /// `Provides`, without versions.
    pub provides: List<PackageName, PROVIDES_MAX>,
}

fn wrong(text: impl Into<String>) -> SourceError {
    SourceError::Control(text.into())
}

/// Fields of the first stanza by lower-case name; continuation lines are joined by a space.
fn fields(text: &str) -> Result<BTreeMap<String, String>, SourceError> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        if line.trim().is_empty() {
            if out.is_empty() {
                continue;
            }
            break;
        }
        if line.starts_with([' ', '\t']) {
            let field = last.as_ref().and_then(|name| out.get_mut(name));
            let field = field.ok_or_else(|| wrong("it begins with a continuation line"))?;
            field.push(' ');
            field.push_str(line.trim());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| wrong(format!("no field: `{}`", cut(line))))?;
        let name = name.to_ascii_lowercase();
        if out.insert(name.clone(), value.trim().to_owned()).is_some() {
            return Err(wrong(format!("field `{}` is there twice", cut(&name))));
        }
        last = Some(name);
    }
    Ok(out)
}

fn cut(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

fn elements(value: Option<&String>) -> impl Iterator<Item = &str> {
    value.into_iter().flat_map(|v| v.split(',')).map(str::trim).filter(|s| !s.is_empty())
}

impl Control {
    /// Reads a control file.
    pub fn parse(bytes: &[u8]) -> Result<Self, SourceError> {
        let text = std::str::from_utf8(bytes).map_err(|_e| wrong("it is no UTF-8"))?;
        let fields = fields(text)?;
        let get = |name: &str| {
            let value = fields.get(&name.to_ascii_lowercase()).filter(|v| !v.is_empty());
            value.ok_or_else(|| wrong(format!("field `{name}` is missing")))
        };
        let bad = |e: stork_wire::text::BadText| wrong(e.to_string());
        let depends = elements(fields.get("pre-depends"))
            .chain(elements(fields.get("depends")))
            .map(|e| e.split_whitespace().collect::<Vec<_>>().join(" ").parse::<Line>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        let provides = elements(fields.get("provides"))
            .map(|e| e.split([' ', '(', ':']).next().unwrap_or_default().parse::<PackageName>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        Ok(Self {
            name: get("Package")?.parse().map_err(bad)?,
            version: get("Version")?.parse().map_err(bad)?,
            arch: get("Architecture")?.parse().map_err(bad)?,
            depends: List::new(depends).map_err(|e| wrong(format!("too many Depends: {e}")))?,
            provides: List::new(provides).map_err(|e| wrong(format!("too many Provides: {e}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Continuation lines, alternatives, versions and pre-dependencies are read as dpkg reads them.
    #[test]
    fn reads_what_debian_writes() {
        let c = Control::parse(
            b"Package: acme\nVersion: 2:1.0~rc1-3\nArchitecture: amd64\n\
              Pre-Depends: init-system-helpers (>= 1.54~)\n\
              Depends: libc6 (>= 2.36),\n  debconf (>= 0.5) | debconf-2.0,\n\
              Provides: mail-transport-agent, acme-api (= 1.0)\n\
              Description: short\n long\n .\n more\n",
        )
        .unwrap();
        assert_eq!(c.version.as_str(), "2:1.0~rc1-3");
        let depends: Vec<_> = c.depends.iter().map(Line::as_str).collect();
        assert_eq!(
            depends,
            ["init-system-helpers (>= 1.54~)", "libc6 (>= 2.36)", "debconf (>= 0.5) | debconf-2.0"]
        );
        let provides: Vec<_> = c.provides.iter().map(PackageName::as_str).collect();
        assert_eq!(provides, ["mail-transport-agent", "acme-api"]);
    }

    /// What is missing or there twice is named in the message.
    #[test]
    fn says_what_is_wrong() {
        let err = |text: &str| Control::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(err("Package: a\nVersion: 1\n").contains("`Architecture` is missing"));
        assert!(err("Package: a\nPackage: b\n").contains("twice"));
        assert!(err("Package: ../a\nVersion: 1\nArchitecture: all\n").contains("../a"));
        let many = "x, ".repeat(65);
        let text = format!("Package: a\nVersion: 1\nArchitecture: all\nDepends: {many}\n");
        assert!(err(&text).contains("too many Depends"));
        let text = "Package: a\nVersion: 1\nArchitecture: all\nProvides: ";
        let many = |n: usize| (0..n).map(|i| format!("lib-{i}-perl, ")).collect::<String>();
        // Debian's perl has 62.
        let perl = Control::parse(format!("{text}{}\n", many(62)).as_bytes()).unwrap();
        assert_eq!(perl.provides.len(), 62);
        assert!(err(&format!("{text}{}\n", many(129))).contains("too many Provides"));
    }
}
