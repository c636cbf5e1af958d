//! What a header says against what was announced.
//!
//! The publisher wrote it, and a guest's dnf believes what the metadata say. So nothing may stand
//! there that makes one package look like another, or puts it in another's place. Sonames,
//! `perl(…)` and other capabilities that are no names of packages are not announced, and not
//! judged: a file of that name could be in the package as well.

use stork_wire::rpm::info::debian_arch;
use stork_wire::rpm::{BadHeader, Header, tag};

/// Why a header is not put into metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRpm {
    /// It cannot be read.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// It says otherwise than was announced.
    #[error("its header {0}")]
    Other(String),
}

/// Does it say the name and version that were announced?
pub fn check_name(header: &Header, package: &str, version: &str) -> Result<(), BadRpm> {
    let own = [("name", header.text(tag::NAME).into_owned()), ("version", header.evr())];
    for ((what, own), announced) in own.into_iter().zip([package, version]) {
        if own != announced {
            let why = format!("says {what} `{own}`, and announced was `{announced}`");
            return Err(BadRpm::Other(why));
        }
    }
    Ok(())
}

/// Does it say what was announced: name, version, machine, and names that it provides?
pub fn check(header: &Header, announced: [&str; 3], provided: &[&str]) -> Result<(), BadRpm> {
    let [package, version, arch] = announced;
    check_name(header, package, version)?;
    let own = header.text(tag::ARCH);
    if debian_arch(&own) != arch {
        let why = format!("says architecture `{own}`, and announced was `{arch}`");
        return Err(BadRpm::Other(why));
    }
    let own = header.provided()?;
    if let Some(name) = own.iter().find(|name| !provided.contains(&name.as_str())) {
        return Err(BadRpm::Other(format!("provides `{name}`, which was not announced")));
    }
    match header.replaces_unprovided()? {
        None => Ok(()),
        Some(name) => Err(BadRpm::Other(format!("obsoletes `{name}`, and does not provide it"))),
    }
}

#[cfg(test)]
mod tests {
    use stork_wire::rpm::Value;

    use super::*;

    fn header() -> Header {
        let mut h = Header::default();
        let text = |t: &str| Value::Text(t.into());
        for (tag, t) in
            [(tag::NAME, "acme"), (tag::VERSION, "1.0"), (tag::RELEASE, "3"), (tag::ARCH, "x86_64")]
        {
            h.set(tag, text(t));
        }
        h.set(tag::PROVIDENAME, Value::texts(&["acme", "acme(x86-64)", "acme-api"]));
        h.set(tag::PROVIDEVERSION, Value::texts(&["1.0-3", "1.0-3", "7"]));
        h.set(tag::PROVIDEFLAGS, Value::Int32(vec![8, 8, 8]));
        h
    }

    /// A header that takes another name, version or machine, provides what was not announced, or
    /// takes another's place, is refused with what it says.
    #[test]
    fn headers_say_what_was_announced() {
        let acme = ["acme", "1.0-3", "amd64"];
        assert_eq!(check(&header(), acme, &["acme-api"]), Ok(()));
        let says = |h: &Header, announced, provided: &[&str]| {
            check(h, announced, provided).unwrap_err().to_string()
        };
        assert!(says(&header(), acme, &[]).contains("provides `acme-api`"));
        for (other, what) in [
            (["openssl", "1.0-3", "amd64"], "name `acme`"),
            (["acme", "2.0-3", "amd64"], "version `1.0-3`"),
            (["acme", "1.0-3", "all"], "architecture `x86_64`"),
        ] {
            let said = says(&header(), other, &["acme-api"]);
            assert!(said.contains(what), "{said}");
        }
        let mut thief = header();
        thief.set(tag::OBSOLETENAME, Value::texts(&["openssl"]));
        thief.set(tag::OBSOLETEVERSION, Value::texts(&["9"]));
        thief.set(tag::OBSOLETEFLAGS, Value::Int32(vec![2]));
        assert!(says(&thief, acme, &["acme-api"]).contains("obsoletes `openssl`"));
        let mut uneven = header();
        uneven.set(tag::PROVIDEFLAGS, Value::Int32(vec![]));
        assert!(says(&uneven, acme, &[]).contains("lengths"));
    }
}
