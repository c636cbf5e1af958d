//! Which node is meant: its address and the id that it must prove to have.

use std::fmt;
use std::str::FromStr;

use stork_wire::ids::NodeId;

use super::session::Place;
use super::{PushError, PushOptions};

/// A node to push to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `HOST:PORT`.
    pub addr: String,
    /// The node's id; without it the feed must have exactly one home.
    pub node: Option<NodeId>,
}

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no target: NODEID@HOST:PORT or HOST:PORT#NODEID is expected")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;
    fn from_str(s: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(s.chars().take(120).collect());
        let (addr, node) = match (s.split_once('@'), s.split_once('#')) {
            (Some((node, addr)), None) => (addr, Some(node)),
            (None, Some((addr, node))) => (addr, Some(node)),
            (None, None) => (s, None),
            (Some(_), Some(_)) => return Err(bad()),
        };
        let node = node.map(|n| n.parse().map_err(|_e| bad())).transpose()?;
        let (host, port) = addr.rsplit_once(':').ok_or_else(bad)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(bad());
        }
        Ok(Self { addr: addr.to_owned(), node })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addr)
    }
}

/// The targets with the ids that they must prove, the home first.
pub(super) fn places(to: &[Target], homes: &[NodeId]) -> Result<Vec<Place>, PushError> {
    let mut out: Vec<Place> = Vec::new();
    for target in to {
        let node = match (target.node, homes) {
            (Some(node), _) => node,
            (None, [only]) => *only,
            (None, _) => {
                let text = format!("which node is {target}? name it as NODEID@{target}");
                return Err(PushError::Usage(text));
            }
        };
        if !out.iter().any(|p| p.node == node) {
            out.push(Place { addr: target.addr.clone(), node });
        }
    }
    if out.is_empty() {
        return Err(PushError::Usage("no node to push to: add --to NODEID@HOST:PORT".into()));
    }
    if !homes.is_empty() {
        let is_home = |p: &Place| homes.contains(&p.node);
        if !out.iter().any(is_home) {
            return Err(PushError::NoHome(homes.iter().map(NodeId::to_string).collect()));
        }
        // Stable: among homes and among others the order of the command line stays.
        out.sort_by_key(|p| !is_home(p));
    }
    Ok(out)
}

/// Nodes that must have the content before it is announced, where as many are named.
const COPIES: usize = 2;

/// How many nodes must have the content (design §6): those asked for, otherwise two, or all.
pub(super) fn copies(options: &PushOptions, places: &[Place]) -> Result<usize, PushError> {
    match options.copies {
        Some(n) if n == 0 || n > places.len() => {
            let named = places.len();
            Err(PushError::Usage(format!("--copies {n} does not fit: {named} nodes are named")))
        }
        Some(n) => Ok(n),
        None => Ok(COPIES.min(places.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to write a target mean the same; an id must be whole.
    #[test]
    fn two_ways_to_write_it() {
        let id = "ab".repeat(32);
        let a: Target = format!("{id}@[::1]:7749").parse().unwrap();
        let b: Target = format!("[::1]:7749#{id}").parse().unwrap();
        assert_eq!(a, b);
        assert_eq!(a.addr, "[::1]:7749");
        assert_eq!("host:1".parse::<Target>().unwrap().node, None);
        for s in ["host", ":1", "host:x", "ab@host:1", "host:1#ab", ""] {
            assert!(s.parse::<Target>().is_err(), "{s}");
        }
    }
}
