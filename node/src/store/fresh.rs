//! What may not be swept because it was written or relied upon a moment ago.
//!
//! A collection marks what leases name and sweeps the rest. Between writing an object and leasing
//! it there is a gap; a [`Hold`] closes it: while one is alive, every object, pack, manifest,
//! tree and set that is written *or found to be here already* is remembered and not swept. The
//! collection itself holds one from before its mark, so that nothing written since is lost
//! (T099).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Store, lock};

/// What kind of thing a remembered id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Object,
    Pack,
    Manifest,
    Tree,
    Set,
}

#[derive(Debug, Default)]
pub(super) struct Fresh {
    holders: usize,
    keys: BTreeSet<(Kind, [u8; 32])>,
}

impl Fresh {
    pub(super) fn has(&self, kind: Kind, id: &[u8; 32]) -> bool {
        self.keys.contains(&(kind, *id))
    }
}

/// While it lives, nothing is swept that was written or relied upon since it was taken. Take it
/// before a fetch or a build, and drop it after the lease is on disk.
#[derive(Debug)]
pub struct Hold {
    store: Arc<Store>,
}

/// The same for the inside of the store.
pub(super) struct InnerHold<'a>(&'a Store);

impl Store {
    /// See [`Hold`].
    pub fn hold(self: &Arc<Self>) -> Hold {
        lock(&self.fresh).holders += 1;
        Hold { store: Arc::clone(self) }
    }

    pub(super) fn inner_hold(&self) -> InnerHold<'_> {
        lock(&self.fresh).holders += 1;
        InnerHold(self)
    }

    /// Remembers an id if anybody holds. To be called *before* looking whether it is here: a sweep
    /// removes under the same lock, so that the look sees the truth.
    pub(super) fn touch(&self, kind: Kind, id: &[u8; 32]) {
        let mut fresh = lock(&self.fresh);
        if fresh.holders > 0 {
            fresh.keys.insert((kind, *id));
        }
    }

    fn let_go(&self) {
        let mut fresh = lock(&self.fresh);
        fresh.holders = fresh.holders.saturating_sub(1);
        if fresh.holders == 0 {
            fresh.keys.clear();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.store.let_go();
    }
}

impl Drop for InnerHold<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}
