//! Delegations: a publisher lets another one release some of its packages in its place, or takes
//! that back. Its own root signs; no group's document changes.

use stork_wire::charter::Delegation;
use stork_wire::codec::List;
use stork_wire::text::Pattern;

use super::change::{Change, Changed};
use super::{CharterError, read_file};

/// What a publisher delegates.
#[derive(Debug, Clone)]
pub struct Delegating {
    /// To which publisher, by name or id.
    pub to: String,
    /// Which packages; empty takes back all that this one was given.
    pub packages: Vec<Pattern>,
    /// Whoever looks for these packages looks no further than to this publisher.
    pub terminating: bool,
}

/// Makes the document by which a publisher delegates packages to another one, or takes them back.
/// A delegation to the same publisher is replaced where it stands; a new one is asked last.
pub fn delegate(change: &Change, from: &str, what: &Delegating) -> Result<Changed, CharterError> {
    let charter = read_file(&change.dir)?;
    let from = charter.publisher_named(from)?;
    let to = charter.publisher_named(&what.to)?;
    if from == to {
        let why = "a publisher needs no delegation to itself".to_owned();
        return Err(CharterError::Usage(why));
    }
    let mut doc = change.next_publisher(&charter, from)?;
    let old = doc.delegations.clone();
    let mut all = doc.delegations.to_vec();
    let before = all.iter().position(|d| d.to == to);
    let packages = List::new(what.packages.clone())?;
    let new = Delegation { to, packages, terminating: what.terminating, depth: 1 };
    match (before, what.packages.is_empty()) {
        (_, true) => all.retain(|d| d.to != to),
        (Some(at), false) => {
            all.retain(|d| d.to != to);
            all.insert(at.min(all.len()), new);
        }
        (None, false) => all.push(new),
    }
    doc.delegations = List::new(all)?;
    if doc.delegations == old {
        Ok(Changed::nothing())
    } else {
        change.make_publisher(&charter, doc)
    }
}
