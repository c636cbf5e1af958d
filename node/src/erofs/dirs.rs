//! Directories: names sorted by their bytes, cut into blocks that each stand alone.
//!
//! A block has its entries first and their names behind; a name ends where the next one begins,
//! the last one at a zero or at the end of the block. Readers search them by halves, across blocks
//! by each block's first name.

use super::format::{BLOCK, Record};

/// Bytes of an entry without its name.
const ENTRY: usize = 12;

/// One name of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) name: &'a [u8],
    /// Which node.
    pub(super) node: usize,
    /// What kind of node, in the numbers of the format.
    pub(super) kind: u8,
}

/// A directory whose names are sorted and cut.
#[derive(Debug)]
pub(super) struct Dir<'a> {
    blocks: Vec<Vec<Name<'a>>>,
}

fn len_of(names: &[Name<'_>]) -> usize {
    names.iter().map(|n| ENTRY + n.name.len()).sum()
}

impl<'a> Dir<'a> {
    /// Sorts names and fills block after block. A name has at most 255 bytes.
    pub(super) fn new(mut names: Vec<Name<'a>>) -> Self {
        names.sort_unstable_by_key(|n| n.name);
        let block = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        let (mut blocks, mut now, mut used) = (Vec::new(), Vec::new(), 0);
        for name in names {
            let len = ENTRY + name.name.len();
            if used + len > block {
                blocks.push(std::mem::take(&mut now));
                used = 0;
            }
            used += len;
            now.push(name);
        }
        blocks.push(now);
        Self { blocks }
    }

    /// Bytes of the directory: all blocks whole but the last.
    pub(super) fn size(&self) -> u64 {
        let last = self.blocks.last().map_or(0, |names| len_of(names));
        (self.blocks.len() as u64).saturating_sub(1) * BLOCK + last as u64
    }

    /// The blocks, given the place of each node in slots. Only the last is shorter than a block.
    pub(super) fn bytes(&self, slot: impl Fn(usize) -> u64) -> Vec<u8> {
        let mut out = Record::default();
        let block = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        for names in &self.blocks {
            // Only a block before the last is filled up.
            out.zeros(out.0.len().next_multiple_of(block) - out.0.len());
            let mut at = names.len() * ENTRY;
            for n in names {
                out.u64(slot(n.node)).u16(u16::try_from(at).unwrap_or_default());
                out.u8(n.kind).u8(0);
                at += n.name.len();
            }
            for n in names {
                out.bytes(n.name);
            }
        }
        out.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks are filled, never crossed, and sorted by bytes over all of them.
    #[test]
    fn blocks_stand_alone() {
        let names: Vec<String> = (0..1_000).rev().map(|i| format!("name-{i}")).collect();
        let all = names.iter().enumerate();
        let all = all.map(|(node, n)| Name { name: n.as_bytes(), node, kind: 1 }).collect();
        let dir = Dir::new(all);
        let bytes = dir.bytes(|node| node as u64);
        assert_eq!(bytes.len() as u64, dir.size());
        assert!(dir.blocks.len() > 4);
        assert!(dir.blocks.iter().all(|b| len_of(b) <= 4096));
        let seen: Vec<&[u8]> = dir.blocks.iter().flatten().map(|n| n.name).collect();
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), 1_000);
        assert_eq!(Dir::new(Vec::new()).size(), 0);
    }
}
