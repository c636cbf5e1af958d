//! The control file of a release as it goes into the index: one stanza of fields, checked.
//!
//! The publisher wrote it, and a guest's apt believes what the index says. So nothing may stand
//! there that makes one package look like another: no second stanza, no other name, version or
//! architecture than was announced, no provided name that was not, and none of the fields that
//! the index itself says.

/// Fields that the index says itself, or that are no publisher's to say.
const OURS: &[&str] = &[
    "filename",
    "size",
    "md5sum",
    "sha1",
    "sha256",
    "sha512",
    "description-md5",
    "status",
    "config-version",
    "conffiles",
];
/// Fields of a stanza at the most.
const FIELDS_MAX: usize = 100;

/// Why a control file is not put into an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its control file {0}")]
pub struct BadControl(String);

fn bad(why: impl Into<String>) -> BadControl {
    BadControl(why.into())
}

/// The fields of a control file in their order; values with their continuation lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// Reads a control file.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadControl> {
        let text = std::str::from_utf8(bytes).map_err(|_e| bad("is no UTF-8"))?;
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut ended = false;
        for line in text.lines() {
            if line.chars().any(|c| c.is_control() && c != '\t') {
                return Err(bad("has control characters"));
            }
            if line.trim().is_empty() {
                ended = !fields.is_empty();
                continue;
            }
            if ended {
                return Err(bad("has a second stanza"));
            }
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().ok_or_else(|| bad("begins with no field"))?;
                value.push('\n');
                value.push_str(line);
                continue;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| bad("has a line without `:`"))?;
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !plain || name.is_empty() || name.starts_with('-') {
                return Err(bad("has a field with a wrong name"));
            }
            if fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                return Err(bad(format!("has the field `{name}` twice")));
            }
            if fields.len() == FIELDS_MAX {
                return Err(bad(format!("has more than {FIELDS_MAX} fields")));
            }
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        if fields.is_empty() { Err(bad("is empty")) } else { Ok(Self { fields }) }
    }

    /// The value of a field; empty where it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// Names in `Provides`, without versions and architectures.
    pub fn provides(&self) -> impl Iterator<Item = &str> {
        let elements = self.get("Provides").split(',').map(str::trim);
        let names = elements.map(|e| e.split([' ', '\t', '\n', '(', ':']).next().unwrap_or(""));
        names.filter(|n| !n.is_empty())
    }

    /// Does it say what was announced?
    pub fn check(&self, package: &str, version: &str, arch: &str) -> Result<(), BadControl> {
        for (field, announced) in
            [("Package", package), ("Version", version), ("Architecture", arch)]
        {
            let own = self.get(field);
            if own != announced {
                return Err(bad(format!("says {field} `{own}`, and announced was `{announced}`")));
            }
        }
        Ok(())
    }

    /// The fields that the index takes over, as lines.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.fields {
            if !OURS.iter().any(|o| o.eq_ignore_ascii_case(name)) {
                out.push_str(&format!("{name}: {value}\n"));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Stanza::parse(text.as_bytes()).unwrap_err().to_string()
    }

    /// What a control file may smuggle into the index is refused or left out.
    #[test]
    fn nothing_is_smuggled_into_the_index() {
        assert!(refused("Package: a\n\nPackage: openssl\n").contains("second stanza"));
        assert!(refused("Package: a\nPACKAGE: openssl\n").contains("twice"));
        assert!(refused("Package: a\r\r\nX: 1").contains("control characters"));
        assert!(refused("Package a\n").contains("without"));
        assert!(refused(" Package: a\n").contains("no field"));
        assert!(refused("\n\n").contains("empty"));
        assert!(Stanza::parse(&[0xff]).is_err());
        assert!(
            refused(&(0..101).map(|i| format!("A{i}: x\n")).collect::<String>()).contains("100")
        );
        let text = "\nPackage: a\nVersion: 1\nArchitecture: all\nFilename: /etc/shadow\n\
                    SHA256: 00\nsize: 1\nDescription: x\n y\n .\n z\n\n\n";
        let stanza = Stanza::parse(text.as_bytes()).unwrap();
        assert_eq!(
            stanza.lines(),
            "Package: a\nVersion: 1\nArchitecture: all\nDescription: x\n y\n .\n z\n"
        );
        assert!(stanza.check("a", "1", "all").is_ok());
        let other = stanza.check("b", "1", "all").unwrap_err().to_string();
        assert_eq!(other, "its control file says Package `a`, and announced was `b`");
        assert!(stanza.check("a", "2", "all").is_err());
        assert!(stanza.check("a", "1", "amd64").is_err());
    }

    /// Provided names are read as dpkg reads them.
    #[test]
    fn provided_names() {
        let text = "Package: a\nProvides: mta, api (= 1.0),\n  b:any\n";
        let stanza = Stanza::parse(text.as_bytes()).unwrap();
        assert_eq!(stanza.provides().collect::<Vec<_>>(), ["mta", "api", "b"]);
    }
}
