//! Mutations of inputs, from a seed: cut, flipped, spliced, repeated, and with the numbers at which
//! decoders tend to break.

/// Bytes of an input at the most: a frame and a little more.
const INPUT_MAX: usize = 80 * 1024;
/// Numbers as canonical and as long varints, lengths that ask for memory, and odd text.
const PIECES: [&[u8]; 14] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80, 0],
    &[0x81, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x10],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    b"../",
    "\u{202e}".as_bytes(),
    &[0xc3, 0x28],
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// A source of chance that a seed decides (xorshift64*).
#[derive(Debug, Clone)]
pub struct Mutator(u64);

impl Mutator {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % n.max(1)
    }

    /// One to four changes of `input`; `other` is another input to splice with.
    #[must_use]
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = input.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut out, other);
        }
        out.truncate(INPUT_MAX);
        out
    }

    fn change(&mut self, out: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(out.len() + 1);
        let len = 1 + self.below(out.len().saturating_sub(at).clamp(1, 64));
        let end = (at + len).min(out.len());
        match self.below(9) {
            0 => out.truncate(at),
            1 => drop(out.drain(at..end)),
            2 | 3 => {
                let bit = 1u8 << self.below(8);
                out.iter_mut().skip(at).take(1).for_each(|b| *b ^= bit);
            }
            4 => {
                let new = self.next().to_le_bytes()[0];
                out.iter_mut().skip(at).take(1).for_each(|b| *b = new);
            }
            5 => {
                let piece = PIECES[self.below(PIECES.len())];
                let keep = if self.below(2) == 0 { at } else { end.min(at + piece.len()) };
                out.splice(at..keep, piece.iter().copied());
            }
            6 => {
                let from = self.below(other.len() + 1);
                let tail = other.get(from..).unwrap_or_default();
                out.splice(at.., tail.iter().copied());
            }
            7 => {
                let again: Vec<u8> = out[at..end].repeat(1 + self.below(20));
                out.splice(at..at, again);
            }
            _ => {
                let count = 1 + self.below(16);
                let new: Vec<u8> = (0..count).map(|_| self.next().to_le_bytes()[0]).collect();
                out.splice(at..at, new);
            }
        }
    }
}

/// The corpus of the gate: each sample, all short prefixes of it, each of its first bytes flipped,
/// numbers at the end of all numbers put in everywhere near its beginning, and then `more` random
/// mutations.
pub fn corpus(samples: &[Vec<u8>], seed: u64, more: usize) -> Vec<Vec<u8>> {
    let mut out = vec![Vec::new()];
    let mut rng = Mutator::new(seed);
    for sample in samples {
        out.push(sample.clone());
        for at in 0..sample.len().min(48) {
            out.push(sample[..at].to_vec());
            let mut flipped = sample.clone();
            flipped[at] ^= 1 << rng.below(8);
            out.push(flipped);
            let mut wild = sample.clone();
            let piece = PIECES[rng.below(PIECES.len())];
            wild.splice(at..=at, piece.iter().copied());
            out.push(wild);
        }
        out.push([sample.as_slice(), &[0]].concat());
    }
    for _ in 0..more {
        let [one, two] = [rng.below(samples.len()), rng.below(samples.len())];
        out.push(rng.mutate(&samples[one], &samples[two]));
    }
    out
}
