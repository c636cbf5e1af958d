//! Mix and match: what a VM shows of one feed was live at one moment of that feed.
//!
//! The catalog holds what is live at the newest head of each feed, so that any part of it is such a
//! subset. Two things could break that: a frozen feed, where VMs go on showing what lies behind the
//! fork beside what the recalls behind it had withdrawn, and a release of a branch that a new epoch
//! has cut off. So it is checked once more where the list is made that a VM is switched to.

use stork_wire::ids::{Position, PublisherId};

use super::KnownRelease;

/// Two releases of one feed that no head of it had at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "releases {a} and {b} of the feed of {} were never live together: they are of two heads",
    .publisher.short()
)]
pub struct MixAndMatch {
    /// Whose feed.
    pub publisher: PublisherId,
    /// One of the two.
    pub a: Position,
    /// The other one.
    pub b: Position,
}

/// From where on the release was not live any more, where that is behind the fork of its feed.
fn withdrawn_at(k: &KnownRelease) -> Option<Position> {
    let freeze = k.frozen?;
    // Where it is not known which entry withdrew it, it may have been the first one.
    (k.place() < freeze.at).then(|| k.withdrawn_at.as_deref().copied().unwrap_or(freeze.at))
}

/// Was there a head of the feed at which both were live?
fn one_head(a: &KnownRelease, b: &KnownRelease) -> bool {
    let before =
        |a: &KnownRelease, b: &KnownRelease| withdrawn_at(b).is_none_or(|gone| a.place() < gone);
    before(a, b) && before(b, a)
}

/// Checks the releases that a VM is to show. `stands` says whether a place is on the path that a
/// feed has taken, as far as this host knows.
pub fn check_one_head(
    target: &[KnownRelease],
    stands: impl Fn(PublisherId, Position) -> bool,
) -> Result<(), MixAndMatch> {
    for (i, a) in target.iter().enumerate() {
        let rest = target.get(i + 1..).unwrap_or_default();
        let beside = |k: &KnownRelease| k.frozen.is_some() || k.retired;
        let on_path = |k: &KnownRelease| beside(k) || stands(k.publisher, k.place());
        for b in rest.iter().filter(|b| b.publisher == a.publisher) {
            if on_path(a) != on_path(b) || !one_head(a, b) {
                return Err(MixAndMatch { publisher: a.publisher, a: a.place(), b: b.place() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Cause, Freeze};
    use crate::trust_fixture::{Fixture, NOW};
    use stork_wire::ids::ItemHash;

    fn at(epoch: u32, seq: u64) -> Position {
        Position { epoch, seq }
    }

    fn known(f: &Fixture, epoch: u32, seq: u64, fork: Option<u64>) -> KnownRelease {
        let release = f.release("hello", &seq.to_string(), seq);
        let hash = ItemHash([1; 32]);
        KnownRelease {
            publisher: f.publisher,
            epoch,
            seq,
            document: 1,
            signed_at: NOW,
            expires: NOW + 1,
            hash: release.hash(),
            frozen: fork.map(|n| Freeze {
                at: at(epoch, n),
                cause: Cause::Fork { proof: hash, entries: [hash; 2] },
            }),
            retired: false,
            withdrawn_at: None,
            release,
            sealed: None,
        }
    }

    /// T037: releases of two heads of one feed are no view: one of a branch that an epoch cut off
    /// beside one that stands, and, of a frozen feed, one that was withdrawn before the other came.
    #[test]
    fn t037_two_heads_of_one_feed() {
        let f = Fixture::new();
        let path = |_, p: Position| p.epoch == 2 || p.seq <= 5;
        let check = |all: &[KnownRelease]| check_one_head(all, path);
        let (old, new) = (known(&f, 1, 5, None), known(&f, 2, 1, None));
        assert_eq!(check(&[old, new.clone()]), Ok(()));
        let cut_off = known(&f, 1, 6, None);
        let mixed = MixAndMatch { publisher: f.publisher, a: at(1, 6), b: at(2, 1) };
        assert_eq!(check(&[cut_off.clone(), new.clone()]), Err(mixed));
        assert!(mixed.to_string().contains("two heads"), "{mixed}");
        // Of another publisher, it is no business of this feed.
        let other = KnownRelease { publisher: PublisherId([9; 32]), ..cut_off };
        assert_eq!(check(&[other, new]), Ok(()));

        // A fork at 4. Entry 6 behind it withdrew what entry 2 had announced.
        let withdrawn =
            KnownRelease { withdrawn_at: Some(Box::new(at(1, 6))), ..known(&f, 1, 2, Some(4)) };
        let (before, after) = (known(&f, 1, 5, Some(4)), known(&f, 1, 7, Some(4)));
        assert_eq!(check(&[withdrawn.clone(), before.clone()]), Ok(()), "live at 5");
        assert_eq!(check(&[before.clone(), after.clone()]), Ok(()), "live at 7");
        assert_eq!(check(&[known(&f, 1, 3, None), after.clone()]), Ok(()), "never withdrawn");
        let mixed = MixAndMatch { publisher: f.publisher, a: at(1, 2), b: at(1, 7) };
        assert_eq!(check(&[withdrawn.clone(), after]), Err(mixed));
        // Nobody knows which entry withdrew it: the first behind the fork could have.
        let unknown = KnownRelease { withdrawn_at: None, ..withdrawn };
        assert!(check(&[unknown.clone(), before]).is_err());
        assert_eq!(check(&[unknown, known(&f, 1, 3, None)]), Ok(()), "both before the fork");
    }
}
