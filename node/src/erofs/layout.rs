//! Where everything stands: inodes with what is small behind them, then whole blocks of
//! directories and long links, then the contents of files.
//!
//! Places are found first and bytes are written afterwards, because directories name the places of
//! inodes.

use std::collections::BTreeMap;
use std::ops::Range;

use stork_wire::ids::ContentId;
use stork_wire::manifest::Tree;

use super::format::{
    BLOCK, BLOCK_BITS, CHECKSUM_AT, Inode, LONG, Layout, NO_BLOCK, SHORT, SLOT, SUPER_AT,
    SUPER_LEN, Super, UUID_AT, checksum,
};
use super::nodes::{Body, Node, epoch, nodes};
use super::{ErofsError, Files, HOLE, Plan, Run, overlay};

/// The place of one node.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    layout: Layout,
    /// Bytes of the inode with its attributes.
    head: u64,
    /// Bytes directly behind that.
    tail: u64,
    /// The first whole block, for what has any.
    block: u32,
    /// The chunk format.
    chunks: u32,
}

struct Planner<'a> {
    nodes: Vec<Node<'a>>,
    places: Vec<Place>,
    epoch: i64,
    holes: &'a BTreeMap<ContentId, Vec<Range<u64>>>,
    /// What contents are in the image. A tree that lies about a size gets only its own bytes.
    contents: BTreeMap<(ContentId, u64), Stored>,
    runs: Vec<Run>,
}

/// Where a content is.
#[derive(Debug, Clone)]
enum Stored {
    Whole(u32),
    /// One block number for every [`HOLE`] bytes.
    Chunks(Vec<u32>),
}

fn block(at: u64) -> Result<u32, ErofsError> {
    u32::try_from(at / BLOCK).ok().filter(|n| *n != NO_BLOCK).ok_or(ErofsError::TooLarge)
}

/// The chunk size of a file that is one hole, as a power of two above a block's.
fn one_chunk(size: u64) -> u32 {
    let bits = size.max(1).next_power_of_two().trailing_zeros();
    bits.saturating_sub(u32::from(BLOCK_BITS)).min(31)
}

const HOLE_CHUNK: u32 = HOLE.trailing_zeros() - BLOCK_BITS as u32;

impl Planner<'_> {
    /// What a node has behind its inode, and how: the layout, its bytes there, the chunk format.
    fn shape(&self, node: &Node<'_>) -> (Layout, u64, u32) {
        let inline = |size: u64| {
            let rest = size % BLOCK;
            // The rest must not cross a block, together with the largest inode; only files have
            // attributes.
            if rest > 0 && rest <= BLOCK - LONG {
                (Layout::Inline, rest, 0)
            } else {
                (Layout::Plain, 0, 0)
            }
        };
        match &node.body {
            Body::Dir(dir) => inline(dir.size()),
            Body::Link(target) => inline(target.len() as u64),
            Body::Beside { size } => (Layout::Chunks, 4, one_chunk(*size)),
            Body::File { content, size } if self.holes.contains_key(content) => {
                (Layout::Chunks, size.div_ceil(HOLE) * 4, HOLE_CHUNK)
            }
            Body::File { .. } | Body::Special(_) => (Layout::Plain, 0, 0),
        }
    }

    /// Finds places for all inodes; gives the first byte behind them.
    fn place(&mut self) -> u64 {
        let mut at = SUPER_AT + SUPER_LEN;
        let mut places = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let (layout, tail, chunks) = self.shape(node);
            let long = if inode(node, layout).is_short(self.epoch) { SHORT } else { LONG };
            let head = long + node.attributes.len() as u64;
            at = at.next_multiple_of(SLOT);
            // Neither an inode nor a rest that stands behind it may lie in two blocks.
            let together = if layout == Layout::Inline { head + tail } else { long };
            if at % BLOCK + together > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            places.push(Place { at, layout, head, tail, block: 0, chunks });
            at += head + tail;
        }
        self.places = places;
        at
    }

    /// Gives whole blocks to directories and links that need them.
    fn place_blocks(&mut self, behind: u64) -> Result<u64, ErofsError> {
        let mut at = behind.next_multiple_of(BLOCK);
        for (node, place) in self.nodes.iter().zip(&mut self.places) {
            let size = match &node.body {
                Body::Dir(dir) => dir.size(),
                Body::Link(target) => target.len() as u64,
                _ => continue,
            };
            let whole = if place.layout == Layout::Inline { size - place.tail } else { size };
            if whole > 0 {
                place.block = block(at)?;
                at = at.saturating_add(whole.next_multiple_of(BLOCK));
            }
        }
        Ok(at)
    }

    /// Gives blocks to the contents of files, each once.
    fn place_contents(&mut self, behind: u64) -> Result<u64, ErofsError> {
        let mut at = behind;
        for (node, place) in self.nodes.iter().zip(&mut self.places) {
            let Body::File { content, size } = node.body else { continue };
            if size == 0 {
                continue;
            }
            if !self.contents.contains_key(&(content, size)) {
                let runs = &mut self.runs;
                let stored = match self.holes.get(&content) {
                    Some(data) => Stored::Chunks(chunks((content, size), data, &mut at, runs)?),
                    None => {
                        let first = block(at)?;
                        runs.push(Run { content, from: 0, len: size, at });
                        at = at.saturating_add(size).next_multiple_of(BLOCK);
                        Stored::Whole(first)
                    }
                };
                self.contents.insert((content, size), stored);
            }
            if let Some(Stored::Whole(first)) = self.contents.get(&(content, size)) {
                place.block = *first;
            }
        }
        block(at)?;
        Ok(at)
    }

    fn write(&self, len: u64, metadata: u64) -> Result<Vec<u8>, ErofsError> {
        let size = usize::try_from(metadata).map_err(|_e| ErofsError::TooLarge)?;
        let mut sheet = Sheet(vec![0; size]);
        let mut chunked = false;
        for (number, (node, place)) in (1_u32..).zip(self.nodes.iter().zip(&self.places)) {
            let mut record = Inode { number, ..inode(node, place.layout) };
            record.xattr_words = overlay::words(&node.attributes).ok_or(ErofsError::TooLarge)?;
            record.union = match (&node.body, place.layout) {
                (Body::Special(device), _) => *device,
                (_, Layout::Chunks) => place.chunks,
                _ => place.block,
            };
            let head = record.bytes(self.epoch);
            sheet.put(place.at, &head);
            sheet.put(place.at + head.len() as u64, &node.attributes);
            chunked |= place.layout == Layout::Chunks;
            self.write_body(&mut sheet, node, place);
        }
        let root = self.places.first().map_or(0, |p| p.at / SLOT);
        let mut sb = Super {
            root: u16::try_from(root).map_err(|_e| ErofsError::TooLarge)?,
            inodes: self.nodes.len() as u64,
            epoch: self.epoch,
            blocks: block(len)?,
            uuid: [0; 16],
            chunks: chunked,
        };
        // The volume's id is a hash of everything else, so that the same tree gives the same.
        sheet.put(SUPER_AT, &sb.bytes());
        let hash = blake3::derive_key("stork 2026 erofs volume v1", &sheet.0);
        for (to, from) in sb.uuid.iter_mut().zip(hash) {
            *to = from;
        }
        sheet.put(UUID_AT, &sb.uuid);
        let (from, to) = (SUPER_AT, BLOCK);
        let summed = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        let summed = summed.and_then(|(from, to)| sheet.0.get(from..to)).unwrap_or_default();
        let sum = checksum(summed);
        sheet.put(CHECKSUM_AT, &sum.to_le_bytes());
        Ok(sheet.0)
    }

    fn write_body(&self, sheet: &mut Sheet, node: &Node<'_>, place: &Place) {
        let behind = place.at + place.head;
        let bytes = match &node.body {
            Body::Dir(dir) => dir.bytes(|node| self.places.get(node).map_or(0, |p| p.at / SLOT)),
            Body::Link(target) => target.as_bytes().to_vec(),
            Body::Beside { .. } => return sheet.put(behind, &NO_BLOCK.to_le_bytes()),
            Body::File { content, size } => {
                if let Some(Stored::Chunks(table)) = self.contents.get(&(*content, *size)) {
                    let table: Vec<u8> = table.iter().flat_map(|n| n.to_le_bytes()).collect();
                    sheet.put(behind, &table);
                }
                return;
            }
            Body::Special(_) => return,
        };
        let whole = (bytes.len() as u64).saturating_sub(place.tail);
        let (whole, tail) = bytes.split_at(usize::try_from(whole).unwrap_or(bytes.len()));
        sheet.put(u64::from(place.block) * BLOCK, whole);
        sheet.put(behind, tail);
    }
}

/// The chunks of a content with holes: a place for each that has data, in order.
fn chunks(
    (content, size): (ContentId, u64),
    data: &[Range<u64>],
    at: &mut u64,
    runs: &mut Vec<Run>,
) -> Result<Vec<u32>, ErofsError> {
    let mut table = Vec::new();
    let mut data = data.iter().filter(|r| r.start < r.end).peekable();
    for from in (0..size).step_by(usize::try_from(HOLE).unwrap_or(usize::MAX)) {
        let end = (from + HOLE).min(size);
        while data.next_if(|r| r.end <= from).is_some() {}
        if data.peek().is_none_or(|r| r.start >= end) {
            table.push(NO_BLOCK);
            continue;
        }
        table.push(block(*at)?);
        match runs.last_mut() {
            Some(last)
                if last.content == content
                    && last.from + last.len == from
                    && last.at + last.len == *at =>
            {
                last.len += end - from;
            }
            _ => runs.push(Run { content, from, len: end - from, at: *at }),
        }
        *at = at.saturating_add(end - from).next_multiple_of(BLOCK);
    }
    Ok(table)
}

/// The inode of a node, without what its place says.
fn inode(node: &Node<'_>, layout: Layout) -> Inode {
    let size = match &node.body {
        Body::Dir(dir) => dir.size(),
        Body::Link(target) => target.len() as u64,
        Body::File { size, .. } | Body::Beside { size } => *size,
        Body::Special(_) => 0,
    };
    Inode {
        layout,
        xattr_words: 0,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        links: node.links,
        size,
        union: 0,
        number: 0,
    }
}

/// The metadata while it is written.
struct Sheet(Vec<u8>);

impl Sheet {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        match self.0.get_mut(at..at.saturating_add(bytes.len())) {
            Some(room) => room.copy_from_slice(bytes),
            // Places were found for all of it before.
            None => debug_assert!(bytes.is_empty(), "{at} is outside of the metadata"),
        }
    }
}

pub(super) fn plan(tree: &Tree, files: Files<'_>, align: u64) -> Result<Plan, ErofsError> {
    let nodes = nodes(tree, files)?;
    let none = BTreeMap::new();
    let holes = match files {
        Files::Inside(holes) => holes,
        Files::Beside(_) => &none,
    };
    let epoch = epoch(&nodes);
    let (places, contents, runs) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut planner = Planner { nodes, places, epoch, holes, contents, runs };
    let behind = planner.place();
    let metadata = planner.place_blocks(behind)?;
    let end = planner.place_contents(metadata)?;
    let len = end.checked_next_multiple_of(align.max(BLOCK)).ok_or(ErofsError::TooLarge)?;
    let metadata = planner.write(len, metadata)?;
    Ok(Plan { metadata, runs: planner.runs, len })
}
