//! `bootstrap`: hosts that the operator names, for a node that finds none of those that it knows.

use std::path::Path;

use serde::Deserialize;
use stork_wire::ids::NodeId;

/// Entries that are read, of the settings and of the file together.
pub const SEEDS_MAX: usize = 16;
/// Bytes of the file at the most.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// `HOST:PORT` or `NODE@HOST:PORT`, where the host is a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Seed {
    /// As the operator wrote it.
    pub text: String,
    /// Who must answer; `None`: any host of the fleet.
    pub node: Option<NodeId>,
    /// A name of DNS, or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::str::FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` is no bootstrap entry: {what}");
        let (node, place) = match text.split_once('@') {
            Some((node, place)) => {
                let node = node.parse().map_err(|_e| wrong("before `@` stands a node id"))?;
                (Some(node), place)
            }
            None => (None, text),
        };
        let (host, port) = place.rsplit_once(':').ok_or_else(|| wrong("write HOST:PORT"))?;
        let port = port.parse().ok().filter(|p| *p != 0);
        let port = port.ok_or_else(|| wrong("the port is a number from 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let v6 = bare.parse::<std::net::Ipv6Addr>().is_ok();
        let name = bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if bare.is_empty() || bare.len() > 253 || (!v6 && !name) || (v6 && bare == host) {
            return Err(wrong("the host is a name, an IPv4 address, or an IPv6 address in `[]`"));
        }
        Ok(Self { text: text.to_owned(), node, host: bare.to_owned(), port })
    }
}

impl TryFrom<String> for Seed {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The entries of a file, one a line, and what is wrong with the other lines. Empty lines and those
/// that begin with `#` say nothing.
#[must_use]
pub fn read_seeds(path: &Path) -> (Vec<Seed>, Vec<String>) {
    let shown = path.display();
    let text = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_LEN_MAX => Err("is too long".to_owned()),
        _ => std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}")),
    };
    let text = match text {
        Ok(text) => text,
        Err(why) => return (Vec::new(), vec![format!("{shown} {why}")]),
    };
    let (mut seeds, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') || errors.len() + seeds.len() >= SEEDS_MAX {
            continue;
        }
        match line.parse() {
            Ok(seed) => seeds.push(seed),
            Err(e) => errors.push(format!("{shown}, line {number}: {e}")),
        }
    }
    (seeds, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and addresses, with and without a node; what is neither is refused by its own words.
    #[test]
    fn entries() {
        let id = "ab".repeat(32);
        let with_id = format!("{id}@seed.example:7749");
        for (text, host, port, node) in [
            ("seed.example:7749", "seed.example", 7749, false),
            ("localhost:1", "localhost", 1, false),
            ("192.0.2.1:7749", "192.0.2.1", 7749, false),
            ("[2001:db8::1]:7749", "2001:db8::1", 7749, false),
            (with_id.as_str(), "seed.example", 7749, true),
        ] {
            let seed: Seed = text.parse().unwrap();
            assert_eq!((seed.host.as_str(), seed.port), (host, port));
            assert_eq!((seed.node.is_some(), seed.text.as_str()), (node, text));
        }
        for bad in ["", "seed", "seed:", "seed:0", "seed:70000", ":1", "a b:1", "::1:7749", "x@a:1"]
        {
            let e = bad.parse::<Seed>().unwrap_err();
            assert!(e.contains(&format!("`{bad}`")), "{e}");
        }
    }

    /// A file: comments, good lines, and bad ones by their number.
    #[test]
    fn a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seeds");
        std::fs::write(&path, "# ours\n\nseed.example:7749\nnonsense\n").unwrap();
        let (seeds, errors) = read_seeds(&path);
        assert_eq!(seeds.len(), 1);
        assert!(errors[0].contains("line 4: `nonsense`"), "{errors:?}");
        let (seeds, errors) = read_seeds(&dir.path().join("nothing"));
        assert!(seeds.is_empty() && errors[0].contains("nothing cannot be read"), "{errors:?}");
    }
}
