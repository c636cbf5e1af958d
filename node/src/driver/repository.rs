//! What goes into an apt repository says of itself what was announced.
//!
//! A guest's apt believes the index. Rules of the charter and of the VM judge the announcement; so
//! a control file that names another package, version or machine, or that provides a name which
//! was not announced, would pass them by.

use stork_wire::feed::Release;
use stork_wire::manifest::Manifest;

use crate::apt::Stanza;

/// Compares a control file with its announcement; the answer is for people.
pub(super) fn check_control(r: &Release, manifest: &Manifest) -> Result<(), String> {
    let at = |why: &dyn std::fmt::Display| format!("{} {}: {why}", r.package, r.version);
    let stanza = Stanza::parse(&manifest.source.control).map_err(|e| {
        let from_deb = !manifest.source.control.is_empty();
        let more = if from_deb { "" } else { ": it was not published from a .deb" };
        at(&format!("{e}{more}"))
    })?;
    let (package, version, arch) = (r.package.as_str(), r.version.as_str(), r.arch.as_str());
    stanza.check(package, version, arch).map_err(|e| at(&e))?;
    let announced = |name: &str| r.provides.iter().any(|p| p.as_str() == name);
    match stanza.provides().find(|name| !announced(name)) {
        None => Ok(()),
        Some(name) => {
            Err(at(&format!("its control file provides `{name}`, which was not announced")))
        }
    }
}
