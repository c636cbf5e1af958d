//! Delegations: whom a publisher lets release packages in its place, and how far that goes.
//!
//! Pure. A search goes from the publisher that a VM trusts through its delegations in their order
//! (pre-order, as roles of TUF are searched), and is bounded: so many delegations and steps, and no
//! publisher twice. What a delegate may do is judged on the way that led to it: by the rights of
//! its delegator and the patterns in between, never by what somebody else gave the same delegate.
//!
//! As with grants, what is in a feed is judged by what any version of a document delegated, and
//! what a VM shows by the newest.

use std::collections::{BTreeMap, BTreeSet};

use stork_wire::charter::{DELEGATION_DEPTH_MAX, Delegation, PublisherDoc};
use stork_wire::ids::PublisherId;
use stork_wire::text::PackageName;

use super::{Charter, Refusal};

/// Delegations that one search looks at.
pub(super) const DELEGATIONS_MAX: usize = 64;
/// Steps that nodes follow today; the format has room for [`DELEGATION_DEPTH_MAX`].
pub const DEPTH: u8 = 1;
/// Delegations of earlier documents that are kept for a publisher.
const PAST_MAX: usize = 512;

/// Why a search ended before it had looked at everything. What it had found by then counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// A delegation leads back to a publisher that was asked already.
    #[error("the delegations lead back to {}", .0.short())]
    Cycle(PublisherId),
    /// More steps than the format allows.
    #[error("the delegations go deeper than {DELEGATION_DEPTH_MAX} steps")]
    TooDeep,
    /// More delegations than one search looks at.
    #[error("there are more than {DELEGATIONS_MAX} delegations")]
    TooMany,
}

/// A publisher that may release a package in the place of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    /// Who.
    pub publisher: PublisherId,
    /// The way to it: who delegated to whom, the publisher that the VM trusts first.
    pub via: Vec<PublisherId>,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Delegates for the package, the first one first; the publisher itself is not among them.
    pub delegates: Vec<Delegate>,
    /// A terminating delegation ended it.
    pub terminated: bool,
    /// It was ended by this.
    pub ended: Option<SearchError>,
    /// Delegations that were looked at.
    pub looked_at: usize,
}

impl Search {
    /// The place of a publisher among the delegates, from 0.
    #[must_use]
    pub fn place_of(&self, publisher: PublisherId) -> Option<usize> {
        self.delegates.iter().position(|d| d.publisher == publisher)
    }
}

struct Walk<'a, F> {
    delegations: F,
    package: &'a str,
    /// Publishers that were found, and the one from which the search began.
    asked: BTreeSet<PublisherId>,
    out: Search,
}

impl<'a, 'd, F: Fn(PublisherId) -> &'d [Delegation]> Walk<'a, F> {
    /// Looks at the delegations of the last publisher of `via`; false ends the whole search.
    fn from(&mut self, via: &mut Vec<PublisherId>, left: u8) -> bool {
        let Some(here) = via.last().copied() else { return true };
        for d in (self.delegations)(here) {
            if self.out.looked_at == DELEGATIONS_MAX {
                return self.end(SearchError::TooMany);
            }
            self.out.looked_at += 1;
            if !d.names(self.package) {
                continue;
            }
            if via.contains(&d.to) {
                return self.end(SearchError::Cycle(d.to));
            }
            if self.asked.insert(d.to) && !self.take(d, via, left) {
                return false;
            }
            if d.terminating {
                self.out.terminated = true;
                return false;
            }
        }
        true
    }

    /// Takes a delegate that was not found before, and follows it; false ends the whole search.
    fn take(&mut self, d: &Delegation, via: &mut Vec<PublisherId>, left: u8) -> bool {
        self.out.delegates.push(Delegate { publisher: d.to, via: via.clone() });
        let left = left.min(d.depth).saturating_sub(1);
        if left > 0 {
            via.push(d.to);
            let goes_on = self.from(via, left);
            via.pop();
            return goes_on;
        }
        let all_steps = via.len() == usize::from(DELEGATION_DEPTH_MAX);
        if all_steps && (self.delegations)(d.to).iter().any(|d| d.names(self.package)) {
            return self.end(SearchError::TooDeep);
        }
        true
    }

    const fn end(&mut self, why: SearchError) -> bool {
        self.out.ended = Some(why);
        false
    }
}

/// Searches from a publisher, with so many steps followed. What lies behind them is not looked at;
/// where they are all that the format has, more of them are an error.
pub fn search<'d>(
    from: PublisherId,
    package: &str,
    depth: u8,
    delegations: impl Fn(PublisherId) -> &'d [Delegation],
) -> Search {
    let asked = [from].into();
    let mut walk = Walk { delegations, package, asked, out: Search::default() };
    walk.from(&mut vec![from], depth);
    walk.out
}

/// Who delegated what to whom, by any document.
#[derive(Debug, Default)]
pub(super) struct Delegations {
    /// By delegate: each delegation once, with who made it.
    ever: BTreeMap<PublisherId, Vec<(PublisherId, Delegation)>>,
    /// How many each publisher has made.
    made: BTreeMap<PublisherId, usize>,
}

impl Delegations {
    pub(super) const fn new() -> Self {
        Self { ever: BTreeMap::new(), made: BTreeMap::new() }
    }

    /// Takes over what a publisher's next document says.
    pub(super) fn note(&mut self, id: PublisherId, doc: &PublisherDoc) -> Result<(), Refusal> {
        let known = |d: &&Delegation| {
            let all = self.ever.get(&d.to);
            !all.is_some_and(|all| all.iter().any(|(by, old)| *by == id && old == *d))
        };
        let new: Vec<Delegation> = doc.delegations.iter().filter(known).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let made = self.made.entry(id).or_default();
        if *made + new.len() > PAST_MAX {
            return Err(Refusal::TooMany);
        }
        *made += new.len();
        for d in new {
            self.ever.entry(d.to).or_default().push((id, d));
        }
        Ok(())
    }

    /// Has any document named it?
    pub(super) fn ever_named(&self, to: PublisherId) -> bool {
        self.ever.contains_key(&to)
    }

    /// Who has ever let it release anything in its own place.
    pub(super) fn ever_from(&self, to: PublisherId) -> impl Iterator<Item = PublisherId> {
        self.ever.get(&to).into_iter().flatten().map(|(by, _)| *by)
    }

    /// Who has ever let it release this package, in its own place.
    pub(super) fn ever(
        &self,
        to: PublisherId,
        package: &PackageName,
    ) -> impl Iterator<Item = PublisherId> {
        let all = self.ever.get(&to).into_iter().flatten();
        all.filter(|(_, d)| d.names(package.as_str())).map(|(by, _)| *by)
    }
}

impl Charter {
    /// Whom a publisher lets release a package in its place now.
    #[must_use]
    pub fn delegates(&self, from: PublisherId, package: &PackageName) -> Search {
        search(from, package.as_str(), DEPTH, |id| self.delegations_of(id))
    }

    fn delegations_of(&self, id: PublisherId) -> &[Delegation] {
        self.publisher(id).map_or(&[], |p| &*p.doc().delegations)
    }

    /// Publishers in whose place this one may release a package now, and the way from each.
    pub fn delegators(
        &self,
        of: PublisherId,
        package: &PackageName,
    ) -> impl Iterator<Item = Delegate> {
        let mut all: Vec<PublisherId> = self.delegations.ever(of, package).collect();
        all.sort_unstable();
        all.dedup();
        let found = all.into_iter().filter_map(move |from| {
            let search = self.delegates(from, package);
            let at = search.delegates.into_iter().find(|d| d.publisher == of)?;
            Some(Delegate { publisher: from, via: at.via })
        });
        found.collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stork_wire::codec::List;

    type Book = BTreeMap<PublisherId, Vec<Delegation>>;

    fn id(n: u8) -> PublisherId {
        PublisherId([n; 32])
    }

    fn to(n: u8, packages: &str, terminating: bool) -> Delegation {
        let packages = List::truncated([packages.parse().unwrap()]);
        Delegation { to: id(n), packages, terminating, depth: DELEGATION_DEPTH_MAX }
    }

    fn found(book: &Book, from: u8, package: &str, depth: u8) -> (Vec<u8>, Search) {
        let search =
            search(id(from), package, depth, |id| book.get(&id).map_or(&[], Vec::as_slice));
        (search.delegates.iter().map(|d| d.publisher.0[0]).collect(), search)
    }

    /// T043: a delegate of two publishers is one for each of them by its own patterns only: what A
    /// gave counts for A's packages, and never for B's, whoever is asked first.
    #[test]
    fn t043_a_diamond_is_judged_on_the_way_that_was_taken() {
        let book: Book = [
            (id(1), vec![to(2, "*", false), to(3, "*", false)]),
            (id(2), vec![to(4, "a-*", false)]),
            (id(3), vec![to(4, "b-*", false)]),
        ]
        .into();
        assert_eq!(found(&book, 2, "a-x", 4).0, [4]);
        assert_eq!(found(&book, 3, "a-x", 4).0, [] as [u8; 0], "B gave it nothing of A's");
        assert_eq!(found(&book, 2, "b-x", 4).0, [] as [u8; 0]);
        let (all, search) = found(&book, 1, "a-x", 4);
        assert_eq!(all, [2, 4, 3]);
        assert_eq!(search.delegates[1].via, [id(1), id(2)], "by way of A");
        let (all, search) = found(&book, 1, "b-x", 4);
        assert_eq!(all, [2, 3, 4]);
        assert_eq!(search.delegates[2].via, [id(1), id(3)], "by way of B");
    }

    /// T044: a terminating delegation that names the package ends the search before a later one
    /// that has it too, and no other one does.
    #[test]
    fn t044_a_terminating_delegation_ends_the_search() {
        let book: Book =
            [(id(1), vec![to(2, "a-*", true), to(3, "*", false)]), (id(2), vec![])].into();
        let (all, search) = found(&book, 1, "a-x", 4);
        assert_eq!((all, search.terminated), (vec![2], true));
        assert_eq!(found(&book, 1, "b-x", 4).0, [3], "it does not name this one");
    }

    /// T045: circles, more than four steps and more than 64 delegations end the search with an
    /// error of their own; what was found before counts, and what comes after does not.
    #[test]
    fn t045_searches_end() {
        let circle: Book = [
            (id(1), vec![to(2, "*", false), to(9, "*", false)]),
            (id(2), vec![to(3, "*", false)]),
            (id(3), vec![to(1, "*", false)]),
        ]
        .into();
        let (all, search) = found(&circle, 1, "x", 4);
        assert_eq!((all, search.ended), (vec![2, 3], Some(SearchError::Cycle(id(1)))));
        // A chain of five steps: the fifth is refused, however deep the caller would go.
        let chain: Book = (1..=6).map(|n| (id(n), vec![to(n + 1, "*", false)])).collect();
        let (all, search) = found(&chain, 1, "x", u8::MAX);
        assert_eq!((all, search.ended), (vec![2, 3, 4, 5], Some(SearchError::TooDeep)));
        // One step, as nodes follow today: what lies behind it is not looked at, and is no error.
        let (all, search) = found(&chain, 1, "x", DEPTH);
        assert_eq!((all, search.ended, search.looked_at), (vec![2], None, 1));
        let many: Vec<Delegation> = (0..65).map(|n| to(n + 10, "none", false)).collect();
        let (all, search) = found(&[(id(1), many)].into(), 1, "x", 4);
        assert_eq!((all, search.ended), (vec![], Some(SearchError::TooMany)));
        assert_eq!(search.looked_at, DELEGATIONS_MAX);
        // A bush in which every publisher delegates to every other one.
        let all: Vec<Delegation> = (1..=60).map(|n| to(n, "*", false)).collect();
        let bush: Book = (1..=60).map(|n| (id(n), all.clone())).collect();
        assert!(found(&bush, 1, "x", 4).1.looked_at <= DELEGATIONS_MAX);
    }

    /// What a delegation says of further steps holds, also where more could be followed.
    #[test]
    fn a_delegation_of_one_step_goes_no_further() {
        let mut first = to(2, "*", false);
        first.depth = 1;
        let book: Book = [(id(1), vec![first]), (id(2), vec![to(3, "*", false)])].into();
        assert_eq!(found(&book, 1, "x", 4).0, [2]);
    }
}
