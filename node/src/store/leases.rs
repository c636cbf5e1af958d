//! Leases: what may not be removed, and why. Each has a name that says who needs it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stork_wire::ids::{ManifestId, PackId, TreeId};

use super::db::{self, LEASES};
use super::merge::SetId;
use super::{Store, StoreError};

/// What a lease keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseSet {
    /// Manifests; their packs are kept as seeds, as far as the budget goes.
    pub manifests: BTreeSet<ManifestId>,
    /// Packs, whatever the budget says, also partial ones.
    pub packs: BTreeSet<PackId>,
    /// Trees with their files, also those of a tree that is still being unpacked.
    pub trees: BTreeSet<TreeId>,
    /// Package sets with their trees and files.
    pub sets: BTreeSet<SetId>,
}

impl Store {
    /// Keeps things under a name, instead of what that name kept before. Durable; what stands so
    /// already is not written again.
    pub fn lease(&self, name: &str, what: &LeaseSet) -> Result<(), StoreError> {
        let before: Option<LeaseSet> = self.record(LEASES, name.as_bytes())?;
        if before.as_ref() == Some(what) {
            return Ok(());
        }
        self.put_record(LEASES, name.as_bytes(), what)
    }

    /// Lets go of what a name keeps.
    pub fn release_lease(&self, name: &str) -> Result<(), StoreError> {
        self.room_to_free()?;
        self.write(|tx| db::remove(tx, LEASES, name.as_bytes()))
    }

    /// Every lease, by name.
    pub fn leases(&self) -> Result<Vec<(String, LeaseSet)>, StoreError> {
        let rows = self.rows(LEASES)?;
        let mut out = Vec::with_capacity(rows.len());
        for (name, value) in rows {
            let name = String::from_utf8_lossy(&name).into_owned();
            out.push((name, self.decode_row(&value)?));
        }
        Ok(out)
    }
}
