//! Reads choices out of the bytes of a fuzz input: past its end every choice is 0.

/// Numbers at which arithmetic and bounds tend to break.
const WILD: [u64; 16] = [
    0,
    1,
    2,
    3,
    4,
    63,
    64,
    65,
    255,
    256,
    1_000,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// A fuzz input that is being read.
#[derive(Debug)]
pub(super) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// One of these.
    pub(super) fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// A number where things tend to break.
    pub(super) fn wild(&mut self) -> u64 {
        self.pick(&WILD)
    }

    /// The same, cut to 32 bits.
    pub(super) fn wild32(&mut self) -> u32 {
        u32::try_from(self.wild()).unwrap_or(u32::MAX)
    }

    /// So many bytes, or what is left.
    pub(super) fn take(&mut self, n: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        first
    }
}
