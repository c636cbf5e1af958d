//! What of a base becomes the prefix of a segment: the parts whose bytes the segment repeats, and
//! the old bytes of the same files.
//!
//! Files are renamed, moved, and split over segments, and one file may be larger than any prefix.
//! So the base is cut into blocks, and a block counts by what it shares with the segment: hashes of
//! 32 bytes at places that the bytes themselves choose (the sampling of Manber, "Finding similar
//! files in a large file system", 1994). Recompiled programs share few long pieces, but many of
//! that length. What has the same name and place counts too, so that the prefix is never empty
//! where a file changed beyond recognition.

use std::collections::BTreeMap;
use std::io;

use stork_wire::ids::ContentId;
use stork_wire::limits::{PREFIX_LEN_MAX, PREFIX_RUNS_MAX};
use stork_wire::manifest::{Run, Tree};

use super::Base;
use super::names::Names;
use super::segment::Segment;

/// Bytes of a block; what begins a block is in no other content.
const BLOCK_LEN: u64 = 64 * 1024;
/// One byte in so many is sampled at least, as a power of two.
const RATE_LOG_MIN: u32 = 6;
/// Samples of a base at the most, as a power of two: 8 MiB of them.
const SAMPLES_LOG: u32 = 20;
/// A sample that stands at more places than this says nothing.
const PLACES_MAX: usize = 8;
/// What one sample is worth; shared between the places that have it.
const SAMPLE: u64 = 64;
/// Samples that a block needs to be worth its line in the manifest.
const SAMPLES_MIN: u64 = 2;
/// Samples that a block of that length has as a rule, so that having none says something.
const SAMPLES_EXPECTED: u64 = 4;
/// A block of the same name and place counts as if one sample in so many were the same.
const PLACE_SHARE: u64 = 8;
/// Blocks before and behind the same place that count as the same place.
const PLACE_MARGIN: u64 = 4;
/// Bytes that are read at once.
const CHUNK: u64 = 4 * 1024 * 1024;

/// A part of a content of the base.
#[derive(Debug, Clone, Copy)]
struct Block {
    content: ContentId,
    from: u64,
    len: u64,
    /// It has a sample. Long blocks without one are zeros or a pattern, which compress as well by
    /// themselves.
    sampled: bool,
}

/// A rolling hash of the last 32 bytes, which gives a sample at places that it chooses.
struct Sampler {
    table: [u64; 256],
    hash: u64,
    last: u32,
    rate_log: u32,
}

impl Sampler {
    fn new(rate_log: u32) -> Self {
        let mut seed = 0x5354_4f52_4b00_0001u64;
        // SplitMix64: any fixed table of well-mixed numbers would do.
        let table = std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { table, hash: 0, last: 0, rate_log }
    }

    /// Takes bytes, and calls `found` with the samples among them and how many bytes they follow.
    fn take(&mut self, bytes: &[u8], mut found: impl FnMut(u32, usize)) {
        let mask = u64::MAX.checked_shl(64 - self.rate_log).unwrap_or(0);
        for (i, byte) in bytes.iter().enumerate() {
            let value = self.table.get(usize::from(*byte)).copied().unwrap_or(0);
            self.hash = (self.hash << 2).wrapping_add(value);
            if self.hash & mask == 0 {
                let mixed = self.hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
                let sample = u32::try_from(mixed).unwrap_or(0);
                // Long runs of one byte would give the same one over and over.
                if sample != self.last {
                    found(sample, i);
                }
                self.last = sample;
            }
        }
    }
}

/// The base, ready to be looked up.
pub(super) struct Index {
    blocks: Vec<Block>,
    /// For each content its size and the number of its first block.
    contents: BTreeMap<ContentId, (u64, usize)>,
    /// Samples with the numbers of their blocks, sorted.
    samples: Vec<(u32, u32)>,
    names: Names,
    rate_log: u32,
}

impl Index {
    /// Reads the base once.
    pub(super) fn of(base: Base<'_>, tree: &Tree) -> io::Result<Self> {
        let payload = base.tree.payload();
        let total: u64 = payload.iter().map(|(_, size)| size).sum();
        let log = u64::BITS - total.leading_zeros();
        let rate_log = log.saturating_sub(SAMPLES_LOG).max(RATE_LOG_MIN);
        let names = Names::of(base.tree, tree);
        let (mut blocks, mut contents, mut samples) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (content, size) in payload {
            let first = blocks.len();
            contents.insert(content, (size, first));
            let starts = (0..size).step_by(usize::try_from(BLOCK_LEN).unwrap_or(usize::MAX));
            blocks.extend(starts.map(|from| {
                let len = BLOCK_LEN.min(size - from);
                Block { content, from, len, sampled: false }
            }));
            let mut sampler = Sampler::new(rate_log);
            let (mut at, mut chunk) = (0, Vec::new());
            while at < size {
                chunk.clear();
                let len = CHUNK.min(size - at);
                base.contents.read_into(&content, at, len, &mut chunk)?;
                sampler.take(&chunk, |sample, i| {
                    let number = first as u64 + (at + i as u64) / BLOCK_LEN;
                    let number = u32::try_from(number).unwrap_or(u32::MAX);
                    samples.push((sample, number));
                    if let Some(block) = blocks.get_mut(number as usize) {
                        block.sampled = true;
                    }
                });
                at += len;
            }
        }
        samples.sort_unstable();
        samples.dedup();
        Ok(Self { blocks, contents, samples, names, rate_log })
    }

    /// What each block is worth to a segment with these bytes.
    fn worth(&self, segment: &Segment, bytes: &[u8]) -> Vec<u64> {
        let mut worth = vec![0; self.blocks.len()];
        let mut wanted = Vec::new();
        Sampler::new(self.rate_log).take(bytes, |sample, _| wanted.push(sample));
        wanted.sort_unstable();
        wanted.dedup();
        for sample in wanted {
            let start = self.samples.partition_point(|(s, _)| *s < sample);
            let rest = self.samples.get(start..).unwrap_or_default();
            let places = rest.iter().take(PLACES_MAX + 1).take_while(|(s, _)| *s == sample);
            let count = places.clone().count();
            if count > PLACES_MAX {
                continue;
            }
            for (_, block) in places {
                if let Some(w) = worth.get_mut(*block as usize) {
                    *w += SAMPLE / count as u64;
                }
            }
        }
        worth.iter_mut().filter(|w| **w < SAMPLES_MIN * SAMPLE).for_each(|w| *w = 0);
        for slice in &segment.slices {
            let Some((old, new_size)) = self.names.like(&slice.content) else { continue };
            let Some(&(size, first)) = self.contents.get(&old) else { continue };
            let place = |at: u64| {
                let there = u128::from(at) * u128::from(size) / u128::from(new_size.max(1));
                u64::try_from(there).unwrap_or(u64::MAX) / BLOCK_LEN
            };
            let from = place(slice.from).saturating_sub(PLACE_MARGIN);
            let to = place(slice.from + slice.len) + PLACE_MARGIN;
            for at in from..=to.min(size.saturating_sub(1) / BLOCK_LEN) {
                let number = first + usize::try_from(at).unwrap_or(usize::MAX);
                let Some(block) = self.blocks.get(number) else { continue };
                let expected = block.len >> self.rate_log;
                if let Some(w) = worth.get_mut(number)
                    && (block.sampled || expected < SAMPLES_EXPECTED)
                {
                    *w += ((block.len * SAMPLE) >> self.rate_log) / PLACE_SHARE + 1;
                }
            }
        }
        worth
    }

    /// The prefix for a segment with these bytes: the best blocks that fit, in the base's order.
    pub(super) fn prefix(&self, segment: &Segment, bytes: &[u8]) -> Vec<Run> {
        let worth = self.worth(segment, bytes);
        let mut ranked: Vec<(u64, usize)> = worth
            .iter()
            .zip(&self.blocks)
            .enumerate()
            .filter(|(_, (worth, _))| **worth > 0)
            .map(|(i, (worth, block))| (worth * BLOCK_LEN / block.len.max(1), i))
            .collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let (mut left, mut chosen) = (PREFIX_LEN_MAX, Vec::new());
        for (_, number) in ranked.into_iter().take(PREFIX_RUNS_MAX) {
            let Some(block) = self.blocks.get(number) else { continue };
            if block.len <= left {
                left -= block.len;
                chosen.push((number, *block));
            }
        }
        chosen.sort_unstable_by_key(|(number, _)| *number);
        let mut runs: Vec<Run> = Vec::new();
        for (_, Block { content, from, len, .. }) in chosen {
            match runs.last_mut() {
                Some(run) if run.content == content && run.from + run.len == from => run.len += len,
                _ => runs.push(Run { content, from, len }),
            }
        }
        runs
    }

    /// Is there a content of the base with these bytes?
    pub(super) fn has(&self, content: &ContentId) -> bool {
        self.contents.contains_key(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same 32 bytes give the same samples, whatever stands before them.
    #[test]
    fn samples_do_not_depend_on_what_is_before() {
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let samples = |bytes: &[u8]| {
            let mut out = Vec::new();
            Sampler::new(6).take(bytes, |s, _| out.push(s));
            out
        };
        let (all, some) = (samples(&noise), samples(&noise[1234..]));
        assert!((1_200..2_000).contains(&all.len()), "{}", all.len());
        assert!(all.ends_with(&some[2..]));
        assert!(samples(&[0; 100_000]).len() < 4);
    }
}
