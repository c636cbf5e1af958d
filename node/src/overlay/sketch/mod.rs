//! A sketch of a map from logs to heads, from which two hosts find where their maps differ at a
//! cost that depends on the differences and not on the maps.
//!
//! It is a rateless invertible Bloom look-up table (Yang, Gilad, Alizadeh, SIGCOMM 2024): an
//! endless row of cells, of which the prefix that is needed is sent, the same for every peer. Log
//! `k` is in cell `i` with probability `1 / (1 + i/2)`. Theirs is of sets: a feed in which two
//! hosts differ is two elements there, the old and the new head, and costs 2.7 cells. Ours is of
//! maps: a log has one place, whatever its head, and a cell holds sums over its logs modulo a
//! prime: of the head's number `v`, of `v k`, and of `v g(k)`. The difference of two hosts' cells
//! is that of their maps, equal heads cancel, and where one log differs alone, `k` is the second
//! sum divided by the first, and the third proves it. So a differing feed costs about 1.35 cells.
//!
//! All is pure and nothing is keyed by a session, so that one prefix, kept up with every change,
//! serves everybody. What somebody who chooses log ids can do with that is bounded by the caller:
//! two logs that lie in the same cells make a sketch undecodable, which costs as much as the heads
//! in full.

mod field;

use std::collections::{BTreeMap, VecDeque};

use stork_wire::frame::{ShortLog, SketchCell};
use stork_wire::item::Head;

use super::rng::{Rng, mix};
use field::{add, invert, mul, reduce, sub};

/// Cells that are kept, and so the longest prefix (192 KiB): it decodes about 6 000 differences.
pub(super) const CELLS_MAX: usize = 8_192;
/// Chosen once, so that check, place and log are independent of each other.
const CHECK_SALT: u64 = 0x7374_6f72_6b20_6368;
const PLACE_SALT: u64 = 0x7374_6f72_6b20_706c;
/// Numbers of items from this on look alike in a sketch; no log comes near.
const SEQ_MAX: u64 = (1 << 40) - 2;
/// Bits of the head's hash beside the item's number.
const HASH_BITS: u32 = 24;

/// A head as the sketch sums it: the item's number and 24 bits of its hash. Never 0 for a head.
pub(super) fn value_of(head: &Head) -> u64 {
    let hash = head.hash.iter().take(3).fold(0, |acc, b| (acc << 8) | u64::from(*b));
    (head.seq.min(SEQ_MAX) << HASH_BITS) | hash
}

/// The number of the item in a value.
pub(super) const fn seq_of(value: u64) -> u64 {
    value >> HASH_BITS
}

/// A value to which a difference was added.
pub(super) const fn changed(value: u64, difference: u64) -> u64 {
    add(value, difference)
}

/// The log as a number.
fn place(log: ShortLog) -> u64 {
    reduce(u64::from_be_bytes(log.0))
}

/// The cells in which a log lies, rising from 0 for ever. The gaps follow section 4.2 of the paper,
/// in whole numbers, so that every machine finds the same.
#[derive(Debug)]
struct Places {
    next: u64,
    draw: Rng,
}

impl Places {
    const fn of(k: u64) -> Self {
        Self { next: 0, draw: Rng::new(mix(k ^ PLACE_SALT)) }
    }

    /// Those below `end`.
    fn below(k: u64, end: usize) -> impl Iterator<Item = usize> {
        let cells = Self::of(k).map_while(|i| usize::try_from(i).ok());
        cells.take_while(move |i| *i < end)
    }
}

impl Iterator for Places {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        let at = self.next;
        // From cell i, the next one is ceil((i + 3/2) (2^32 / sqrt(u) - 1)) further, u of 64 bits.
        let root = u128::from(self.draw.next().isqrt().max(1));
        let top = (2 * u128::from(at) + 3) * ((1u128 << 32) - root);
        let gap = top.div_ceil(2 * root).max(1);
        self.next = u64::try_from(u128::from(at) + gap).unwrap_or(u64::MAX);
        Some(at)
    }
}

/// One cell: three sums over the logs in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    values: u64,
    by_log: u64,
    by_check: u64,
}

impl Cell {
    fn of(k: u64, value: u64) -> Self {
        let check = reduce(mix(k ^ CHECK_SALT));
        Self { values: value, by_log: mul(value, k), by_check: mul(value, check) }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            values: add(self.values, other.values),
            by_log: add(self.by_log, other.by_log),
            by_check: add(self.by_check, other.by_check),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            values: sub(self.values, other.values),
            by_log: sub(self.by_log, other.by_log),
            by_check: sub(self.by_check, other.by_check),
        }
    }

    /// The log that is alone in this cell; `None` where there is none, or several.
    fn alone(self) -> Option<u64> {
        if self.values == 0 {
            return None;
        }
        let k = mul(self.by_log, invert(self.values));
        (Self::of(k, self.values) == self).then_some(k)
    }

    /// As it travels.
    pub(super) fn to_wire(self) -> SketchCell {
        let mut out = [0; 24];
        let all = [self.values, self.by_log, self.by_check];
        for (slot, b) in out.iter_mut().zip(all.into_iter().flat_map(u64::to_be_bytes)) {
            *slot = b;
        }
        SketchCell(out)
    }

    /// As it came; `None` where a number is no remainder, which no sum can be.
    pub(super) fn from_wire(cell: &SketchCell) -> Option<Self> {
        let mut all = cell.0.chunks_exact(8).map(|c| {
            let n = c.iter().fold(0, |acc, b| (acc << 8) | u64::from(*b));
            (n < field::P).then_some(n)
        });
        let mut one = || all.next().flatten();
        Some(Self { values: one()?, by_log: one()?, by_check: one()? })
    }
}

/// The prefix of this host's sketch that was needed so far.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    cells: Vec<Cell>,
}

impl Sketch {
    /// The head of a log is another one now; 0 stands for none.
    pub(super) fn change(&mut self, log: ShortLog, old: u64, new: u64) {
        let k = place(log);
        let change = Cell::of(k, sub(new, old));
        for i in Places::below(k, self.cells.len()) {
            if let Some(cell) = self.cells.get_mut(i) {
                *cell = cell.plus(change);
            }
        }
    }

    /// The first `count` cells, at most [`CELLS_MAX`]. Those that were not needed before are made
    /// from all heads: about 20 steps for each head, once.
    pub(super) fn cells<'a>(
        &mut self,
        count: usize,
        heads: impl Iterator<Item = &'a Head>,
    ) -> &[Cell] {
        let (have, count) = (self.cells.len(), count.min(CELLS_MAX));
        if count > have {
            // A power of two, so that a peer that asks for one more cell each time costs little.
            let end = count.next_power_of_two().min(CELLS_MAX);
            self.cells.resize(end, Cell::default());
            for head in heads {
                let k = place(ShortLog::of(&head.log));
                let one = Cell::of(k, value_of(head));
                for i in Places::below(k, end).skip_while(|i| *i < have) {
                    if let Some(cell) = self.cells.get_mut(i) {
                        *cell = cell.plus(one);
                    }
                }
            }
        }
        self.cells.get(..count).unwrap_or_default()
    }

    /// Cells that are kept now.
    pub(super) const fn len(&self) -> usize {
        self.cells.len()
    }
}

/// Where two maps differ: by how much the value of a log is larger in the first one.
///
/// `None` where that needs more cells. The work is bounded by the number of cells, whatever is in
/// them: every step takes one log out, and there are no more steps than cells, twice over.
pub(super) fn differences(theirs: &[Cell], ours: &[Cell]) -> Option<BTreeMap<ShortLog, u64>> {
    let mut cells: Vec<Cell> = theirs.iter().zip(ours).map(|(a, b)| a.minus(*b)).collect();
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    let mut look: VecDeque<usize> = (0..cells.len()).rev().collect();
    let mut steps = 0;
    while let Some(at) = look.pop_front() {
        let Some(cell) = cells.get(at).copied() else { continue };
        let Some(k) = cell.alone() else { continue };
        if !Places::below(k, at + 1).any(|i| i == at) {
            continue;
        }
        steps += 1;
        if steps > 2 * cells.len() {
            return None;
        }
        let sum = found.entry(k).or_insert(0);
        *sum = add(*sum, cell.values);
        for i in Places::below(k, cells.len()) {
            if let Some(other) = cells.get_mut(i) {
                *other = other.minus(cell);
                look.push_back(i);
            }
        }
    }
    let done = cells.iter().all(|c| *c == Cell::default());
    let found = found.into_iter().filter(|(_, by)| *by != 0);
    done.then(|| found.map(|(k, by)| (ShortLog(k.to_be_bytes()), by)).collect())
}

#[cfg(test)]
mod tests;
