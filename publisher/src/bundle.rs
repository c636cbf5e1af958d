//! A charter bundle: all documents of a charter in one file, to hand to the nodes of a fleet.
//!
//! A magic line, so that people and `file` know it, then canonical postcard.

use stork_wire::codec::{DecodeError, List, TooMany, decode, encode};
use stork_wire::item::Item;
use stork_wire::limits::DOC_LEN_MAX;

const MAGIC: &[u8] = b"stork charter bundle v1\n";
/// Documents of one bundle.
pub const BUNDLE_ITEMS_MAX: usize = 256;
/// Bytes of one bundle: every document at its longest, with its signatures.
pub const BUNDLE_LEN_MAX: usize = BUNDLE_ITEMS_MAX * (DOC_LEN_MAX + 2048);

/// Bytes that are no charter bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It does not begin with the magic line.
    #[error("this is no charter bundle")]
    Magic,
    /// What follows is not canonical.
    #[error("the charter bundle cannot be read")]
    Decode(#[from] DecodeError),
    /// More documents than a bundle may hold.
    #[error("too many documents for one bundle")]
    TooMany(#[from] TooMany),
}

/// The bytes of a bundle of these documents.
pub fn write_bundle(items: &[Item]) -> Result<Vec<u8>, BundleError> {
    let items: List<Item, BUNDLE_ITEMS_MAX> = List::new(items.to_vec())?;
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&encode(&items));
    Ok(out)
}

/// Reads a bundle. What the documents say is not believed yet: see `charter::Charter`.
pub fn read_bundle(bytes: &[u8]) -> Result<Vec<Item>, BundleError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(BundleError::Magic)?;
    let items: List<Item, BUNDLE_ITEMS_MAX> = decode(body, BUNDLE_LEN_MAX)?;
    Ok(items.into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bundle is read back, and other bytes are refused.
    #[test]
    fn round_trip() {
        let bytes = write_bundle(&[]).unwrap();
        assert_eq!(read_bundle(&bytes), Ok(Vec::new()));
        assert_eq!(read_bundle(b"x"), Err(BundleError::Magic));
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(read_bundle(&longer), Err(BundleError::Decode(_))));
    }
}
