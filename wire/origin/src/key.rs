//! The names of objects in an origin. Each is made from the hash of its bytes, so that no object
//! ever changes and two publishers that have the same bytes have the same object.

use std::fmt;

use stork_wire::ids::{ManifestId, PackId};

/// The name of one object, below the origin's own path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Of a pack: `stork/v1/packs/<2 hex>/<64 hex>`.
    #[must_use]
    pub fn pack(id: PackId) -> Self {
        Self::of("packs", &id.to_string())
    }

    /// Of a manifest: `stork/v1/manifests/<2 hex>/<64 hex>`.
    #[must_use]
    pub fn manifest(id: ManifestId) -> Self {
        Self::of("manifests", &id.to_string())
    }

    fn of(kind: &str, id: &str) -> Self {
        let begins = id.get(..2).unwrap_or(id);
        Self(format!("stork/v1/{kind}/{begins}/{id}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout that publishers and hosts of all versions share.
    #[test]
    fn layout() {
        let hex = "ab".repeat(32);
        let pack = Key::pack(PackId([0xab; 32]));
        assert_eq!(pack.as_str(), format!("stork/v1/packs/ab/{hex}"));
        let manifest = Key::manifest(ManifestId([0xab; 32]));
        assert_eq!(manifest.as_str(), format!("stork/v1/manifests/ab/{hex}"));
    }
}
