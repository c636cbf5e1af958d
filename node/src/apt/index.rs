//! `Packages`, `Release` and the source entry of a repository.

use ring::digest::{SHA256, digest};
use stork_wire::ids::hex;

use super::{EPOCH_TEXT, Stanza, Written};

/// Names of the files of a repository, relative to its folder.
#[derive(Debug, Clone, Copy)]
pub struct Names;

impl Names {
    /// The folder of the archives.
    pub const POOL: &str = "pool";
    /// The index.
    pub const PACKAGES: &str = "Packages";
    /// What names the index by its hash.
    pub const RELEASE: &str = "Release";
    /// The same, signed.
    pub const IN_RELEASE: &str = "InRelease";
    /// The key that signs it, for `signed-by`.
    pub const KEY: &str = "stork-host.asc";
    /// An entry for `sources.list.d` with that key inline.
    pub const SOURCES: &str = "stork.sources";
}

/// One archive of an index.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// What its control file says.
    pub stanza: Stanza,
    /// Its length and hash.
    pub deb: Written,
}

impl Indexed {
    /// The name of the archive in the pool. The epoch of a version is left out, as Debian does: a
    /// colon means something in URLs, and a set has one version of a package.
    #[must_use]
    pub fn file_name(&self) -> String {
        let version = self.stanza.get("Version");
        let version = version.split_once(':').map_or(version, |(_, rest)| rest);
        let (package, arch) = (self.stanza.get("Package"), self.stanza.get("Architecture"));
        format!("{package}_{version}_{arch}.deb")
    }
}

/// The index of archives, which must be in the order of their names.
#[must_use]
pub fn packages(all: &[Indexed]) -> String {
    let mut out = String::new();
    for one in all {
        let (pool, file) = (Names::POOL, one.file_name());
        let (len, hash) = (one.deb.len, hex(&one.deb.sha256));
        out.push_str(&one.stanza.lines());
        out.push_str(&format!("Filename: {pool}/{file}\nSize: {len}\nSHA256: {hash}\n\n"));
    }
    out
}

/// The `Release` file of an index.
#[must_use]
pub fn release(index: &str) -> String {
    let hash = hex(digest(&SHA256, index.as_bytes()).as_ref());
    let (len, name) = (index.len(), Names::PACKAGES);
    format!(
        "Origin: stork\nLabel: stork\nSuite: stork\nCodename: stork\nDate: {EPOCH_TEXT}\n\
         Description: what stork shows to this VM\nSHA256:\n {hash} {len} {name}\n"
    )
}

/// An entry for `sources.list.d/stork.sources`: the repository at `path` with its key inline.
#[must_use]
pub fn source_entry(path: &str, key: &str) -> String {
    let mut out = format!("Types: deb\nURIs: file:{path}\nSuites: ./\nSigned-By:\n");
    for line in key.lines() {
        let line = if line.is_empty() { "." } else { line };
        out.push(' ');
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole text of a small index, and the hash of it in the `Release`.
    #[test]
    fn an_index() {
        let text = "Package: acme\nVersion: 2:1.0~rc1\nArchitecture: all\nDescription: x\n";
        let stanza = Stanza::parse(text.as_bytes()).unwrap();
        let one = Indexed { stanza, deb: Written { len: 7, sha256: [0xab; 32] } };
        assert_eq!(one.file_name(), "acme_1.0~rc1_all.deb");
        let index = packages(&[one]);
        let hash = "ab".repeat(32);
        assert_eq!(
            index,
            format!("{text}Filename: pool/acme_1.0~rc1_all.deb\nSize: 7\nSHA256: {hash}\n\n")
        );
        let release = release(&index);
        assert!(release.ends_with(&format!(" {} Packages\n", index.len())), "{release}");
        let entry = source_entry("/opt/stork", "-----B\n\nabc\n");
        assert!(entry.ends_with("Signed-By:\n -----B\n .\n abc\n"));
    }
}
