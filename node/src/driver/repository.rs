//! What goes into a repository says of itself what was announced.
//!
//! A guest's apt or dnf believes the index. Rules of the charter and of the VM judge the
//! announcement; so a control file that names another package, version or machine, or that provides
//! a name which was not announced, would pass them by.

use stork_wire::feed::Release;
use stork_wire::manifest::Manifest;

use crate::apt::Stanza;
use crate::rpm::{RpmError, check, header_of};

/// Compares a control file with its announcement; the answer is for people.
pub(super) fn check_control(r: &Release, manifest: &Manifest) -> Result<(), String> {
    let provided: Vec<&str> = r.provides.iter().map(|p| p.as_str()).collect();
    let announced = [r.package.as_str(), r.version.as_str(), r.arch.as_str()];
    let compared = match header_of(manifest) {
        Ok(header) => check(&header, announced, &provided).map_err(|e| e.to_string()),
        Err(RpmError::NotAnRpm) => compare(&manifest.source.control, announced, &provided),
        Err(e) => Err(e.to_string()),
    };
    compared.map_err(|why| format!("{} {}: {why}", r.package, r.version))
}

fn compare(control: &[u8], announced: [&str; 3], provided: &[&str]) -> Result<(), String> {
    if control.is_empty() {
        return Err("it was published neither from a .deb nor from an .rpm".to_owned());
    }
    let stanza = Stanza::parse(control).map_err(|e| e.to_string())?;
    let [package, version, arch] = announced;
    stanza.check(package, version, arch).map_err(|e| e.to_string())?;
    match stanza.provides().find(|name| !provided.contains(name)) {
        None => Ok(()),
        Some(name) => Err(format!("its control file provides `{name}`, which was not announced")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control file that takes another name, version or machine, or provides what was not
    /// announced, is refused with what it says.
    #[test]
    fn control_files_say_what_was_announced() {
        let text = "Package: acme\nVersion: 1\nArchitecture: all\nProvides: mta, api (= 2)\n";
        let check = |text: &str, announced, provided: &[&str]| {
            compare(text.as_bytes(), announced, provided)
        };
        let acme = ["acme", "1", "all"];
        assert_eq!(check(text, acme, &["api", "mta"]), Ok(()));
        assert!(check(text, acme, &["api"]).unwrap_err().contains("`mta`"));
        for other in [["openssl", "1", "all"], ["acme", "2", "all"], ["acme", "1", "amd64"]] {
            assert!(check(text, other, &["api", "mta"]).is_err(), "{other:?}");
        }
        assert!(check("", acme, &[]).unwrap_err().contains("neither from a .deb"));
        let two = format!("{text}\nPackage: openssl\n");
        assert!(check(&two, acme, &["api", "mta"]).is_err());
    }
}
