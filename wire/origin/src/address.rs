//! The address of an origin: a folder, a bucket of an S3-compatible store, or a web server.
//!
//! It never holds a secret, so that it may be shown and logged everywhere.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of an address at the most.
const LEN_MAX: usize = 1_024;

/// Where content lies for a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    pub(crate) place: Place,
}

/// What an address means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `file:/DIR`
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX`
    Bucket { bucket: String, prefix: String },
    /// `https://HOST/PATH`, which is only read.
    Web,
}

/// A text that names no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no origin: {why}")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl BadAddress {
    /// What to do about it.
    pub const HELP: &str = "write file:/DIR, s3://BUCKET/PREFIX or https://HOST/PATH";
}

/// A bucket's name, by the rules of S3.
fn is_bucket(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    (3..=63).contains(&name.len()) && name.chars().all(good) && !name.starts_with(['.', '-'])
}

/// A path of which every part is a plain name.
fn is_plain_path(path: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-._~+=,:".contains(c);
    let part = |p: &str| !matches!(p, "" | "." | "..") && p.chars().all(good);
    path.is_empty() || path.split('/').all(part)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let ip = bare.parse::<std::net::IpAddr>();
    bare == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn place_of(text: &str) -> Result<Place, &'static str> {
    if text.len() > LEN_MAX || text.chars().any(char::is_control) {
        return Err("it is too long, or has characters that cannot be typed");
    }
    if let Some(path) = text.strip_prefix("file:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        let parts = || path.split('/').any(|p| p == "..");
        if !path.starts_with('/') || path.len() < 2 || parts() {
            return Err("the path of a folder begins with `/` and has no `..`");
        }
        return Ok(Place::Folder(path.into()));
    }
    if text.contains('@') {
        return Err("it must not hold credentials; these have a file or variables of their own");
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Err("the scheme is missing") };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    if !is_plain_path(path) {
        return Err("the path is made of letters, digits and `-._~+=,:`, parted by one `/`");
    }
    match scheme {
        "s3" if is_bucket(host) => {
            Ok(Place::Bucket { bucket: host.to_owned(), prefix: path.to_owned() })
        }
        "s3" => Err("a bucket's name has 3 to 63 of a-z, 0-9, `.` and `-`"),
        "https" | "http" => {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let good = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
            if name.is_empty() || !host.chars().all(good) {
                return Err("the host's name is missing or wrong");
            }
            if scheme == "http" && !is_loopback(name) {
                return Err("http is for the loopback only: others would see what a host fetches");
            }
            Ok(Place::Web)
        }
        _ => Err("the scheme is file, s3 or https"),
    }
}

impl FromStr for Address {
    type Err = BadAddress;
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match place_of(text) {
            Ok(place) => Ok(Self { text: text.trim_end_matches('/').to_owned(), place }),
            Err(why) => {
                // What stands before `@` may be a secret that was put into the wrong place.
                let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
                let text = shown.chars().filter(|c| !c.is_control()).take(120).collect();
                Err(BadAddress { text, why })
            }
        }
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;
    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Address {
    /// May content be put there? A web server is only read.
    #[must_use]
    pub fn takes_content(&self) -> bool {
        !matches!(self.place, Place::Web)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each form means; a slash at the end says nothing.
    #[test]
    fn good_addresses() {
        let place = |s: &str| s.parse::<Address>().unwrap().place;
        assert_eq!(place("file:/srv/a b"), Place::Folder("/srv/a b".into()));
        assert_eq!(place("file:///srv/a"), Place::Folder("/srv/a".into()));
        let bucket = |prefix: &str| Place::Bucket { bucket: "b-1".into(), prefix: prefix.into() };
        assert_eq!(place("s3://b-1"), bucket(""));
        assert_eq!(place("s3://b-1/"), bucket(""));
        assert_eq!(place("s3://b-1/x/y"), bucket("x/y"));
        for web in ["https://h", "https://h:8443/x", "http://127.0.0.1:80/x", "http://[::1]:1"] {
            assert_eq!(place(web), Place::Web, "{web}");
        }
        let address: Address = "s3://b-1/x/".parse().unwrap();
        assert_eq!(address.to_string(), "s3://b-1/x");
        assert!(
            address.takes_content() && !"https://h".parse::<Address>().unwrap().takes_content()
        );
    }

    /// What is refused, and that a secret in the wrong place is not repeated.
    #[test]
    fn bad_addresses() {
        let bad = [
            "",
            "x",
            "/srv/x",
            "file:",
            "file:x",
            "file:/",
            "file://host/x/../y",
            "ftp://h/x",
            "s3://",
            "s3://B_1",
            "s3://b-1//x",
            "s3://b-1/../x",
            "s3://b-1/x?y",
            "https://",
            "https:///x",
            "http://example.org/x",
            "https://h/x#y",
            "s3://b-1/x y",
            "s3://b-1/\n",
        ];
        for text in bad {
            let e = text.parse::<Address>().unwrap_err();
            assert!(e.to_string().contains("is no origin"), "{text}: {e}");
        }
        let e = "s3://AKIA:hush@bucket/x".parse::<Address>().unwrap_err().to_string();
        assert!(e.contains("credentials") && !e.contains("hush"), "{e}");
    }
}
