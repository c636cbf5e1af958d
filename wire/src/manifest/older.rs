//! Manifests of version 1, as publishers wrote them before deltas left out what the base has: read
//! into the form of today, and never written.
//!
//! Their deltas hold the whole payload, and a prefix is a list of whole contents.

use serde::{Deserialize, Serialize};

use super::{Pack, Packing, Run, Source, Tree};
use crate::codec::List;
use crate::ids::{ContentId, TreeId};
use crate::limits::{PACKS_MAX, PREFIX_RUNS_MAX};

#[derive(Serialize, Deserialize)]
struct DeltaPack {
    pack: Pack,
    prefix: List<ContentId, PREFIX_RUNS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct Delta {
    base: TreeId,
    packs: List<DeltaPack, PACKS_MAX>,
}

/// All fields in their order; `version` is 1.
#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u8,
    tree: Tree,
    source: Source,
    piece_len: u32,
    packs: List<Pack, PACKS_MAX>,
    delta: Option<Delta>,
}

impl From<Manifest> for super::Manifest {
    fn from(old: Manifest) -> Self {
        let pack = |p: &DeltaPack| super::DeltaPack {
            pack: p.pack.clone(),
            prefix: List::truncated(p.prefix.iter().copied().map(Run::whole)),
        };
        let delta = old.delta.map(|d| super::Delta {
            base: d.base,
            kept: List::empty(),
            packs: List::truncated(d.packs.iter().map(pack)),
        });
        let packing = Packing { piece_len: old.piece_len, packs: old.packs, delta };
        Self { version: old.version, tree: old.tree, source: old.source, packing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Blob, encode};
    use crate::limits::PIECE_LEN_MIN;
    use crate::manifest::{Manifest as Current, SourceFormat, TreeEntry, TreeNode, Variant};

    /// A manifest of version 1 with a delta is read: whole contents are its prefix, and it keeps
    /// nothing. Bytes of version 1 that claim to be of today's, and unknown ones, are refused.
    #[test]
    fn version_1_is_read() {
        let (content, base) = (ContentId::of(b"new"), ContentId::of(b"old"));
        let node = TreeNode::File { content, size: 3, xattrs: List::empty() };
        let path = "file".parse().unwrap();
        let entry = TreeEntry { path, mode: 0o644, uid: 0, gid: 0, mtime: 0, node };
        let pack = |bytes: &[u8]| Pack::describe(bytes, 3, PIECE_LEN_MIN).unwrap();
        let delta = DeltaPack { pack: pack(b"difference"), prefix: List::truncated([base]) };
        let old = Manifest {
            version: 1,
            tree: Tree { entries: List::truncated([entry]) },
            source: Source {
                format: SourceFormat::Directory,
                file_name: "folder".parse().unwrap(),
                size: 0,
                sha256: [0; 32],
                control: Blob::default(),
                control_files: List::empty(),
            },
            piece_len: PIECE_LEN_MIN,
            packs: List::truncated([pack(b"all of it")]),
            delta: Some(Delta { base: TreeId::of(b""), packs: List::truncated([delta]) }),
        };
        let mut bytes = encode(&old);
        let read = Current::from_bytes(&bytes).unwrap();
        assert_eq!(read.version, 1);
        assert_eq!(read.packing.bytes(Variant::Full), 9);
        assert_eq!(read.packing.bytes(Variant::Delta), 10);
        let delta = read.packing.delta.unwrap();
        assert!(delta.kept.is_empty());
        assert_eq!(delta.packs[0].prefix[..], [Run::whole(base)]);
        for version in [0, 2, 3] {
            bytes[0] = version;
            assert!(Current::from_bytes(&bytes).is_err());
        }
    }
}
