//! A set of piece numbers of one swarm, as bits with a count.

use core::fmt;

/// Some of the pieces `0..len` of a swarm.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PieceSet {
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl PieceSet {
    /// No piece out of `len`.
    #[must_use]
    pub fn empty(len: u32) -> Self {
        Self { words: vec![0; (len as usize).div_ceil(64)], len, count: 0 }
    }

    /// These pieces; numbers that are not below `len` are dropped.
    #[must_use]
    pub fn of(pieces: impl IntoIterator<Item = u32>, len: u32) -> Self {
        let mut set = Self::empty(len);
        for p in pieces {
            set.insert(p);
        }
        set
    }

    /// Every piece.
    #[must_use]
    pub fn full(len: u32) -> Self {
        Self::of(0..len, len)
    }

    /// How many pieces the swarm has.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether no piece is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many pieces are in the set.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether every piece is in the set.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// Whether this piece is in the set.
    #[must_use]
    pub fn contains(&self, piece: u32) -> bool {
        self.words.get(piece as usize / 64).is_some_and(|w| w & (1 << (piece % 64)) != 0)
    }

    /// Puts a piece in; false if it was in, or does not exist.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.len || self.contains(piece) {
            return false;
        }
        if let Some(w) = self.words.get_mut(piece as usize / 64) {
            *w |= 1 << (piece % 64);
        }
        self.count += 1;
        true
    }

    /// Takes a piece out; false if it was not in.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        if let Some(w) = self.words.get_mut(piece as usize / 64) {
            *w &= !(1 << (piece % 64));
        }
        self.count -= 1;
        true
    }

    /// The pieces in the set, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().zip(0u32..).flat_map(|(w, i)| bits(*w).map(move |b| i * 64 + b))
    }

    /// How many pieces are here and not there.
    #[must_use]
    pub fn count_without(&self, there: &Self) -> u32 {
        let words = self.words.iter().zip(&there.words);
        words.map(|(a, b)| (a & !b).count_ones()).sum()
    }

    /// The first piece at or after `start`, going round, which is in this set, in neither of the
    /// two others, and for which `fits` holds.
    pub(super) fn find(
        &self,
        start: u32,
        without: [&Self; 2],
        fits: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let words = self.words.len();
        let [a, b] = without;
        let first = start as usize / 64;
        let low = u64::MAX << (start % 64);
        // The first word is looked at twice: its upper bits first, its lower bits at the end.
        for step in 0..=words {
            let i = (first + step) % words.max(1);
            let Some(w) = self.words.get(i) else { continue };
            let not = a.words.get(i).unwrap_or(&0) | b.words.get(i).unwrap_or(&0);
            let mut w = w & !not;
            if step == 0 {
                w &= low;
            } else if step == words {
                w &= !low;
            }
            let base = u32::try_from(i * 64).unwrap_or(u32::MAX);
            if let Some(p) = bits(w).map(|b| base + b).find(|p| fits(*p)) {
                return Some(p);
            }
        }
        None
    }
}

/// The positions of the ones in a word.
fn bits(mut w: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        (w != 0).then(|| {
            let b = w.trailing_zeros();
            w &= w - 1;
            b
        })
    })
}

impl fmt::Debug for PieceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceSet({} of {})", self.count, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Insert, remove and count agree, and numbers beyond the length are refused.
    #[test]
    fn counts() {
        let mut s = PieceSet::empty(70);
        assert!(s.insert(69) && !s.insert(69) && !s.insert(70));
        assert!(s.insert(0));
        assert_eq!((s.count(), s.iter().collect::<Vec<_>>()), (2, vec![0, 69]));
        assert!(s.remove(0) && !s.remove(0));
        assert_eq!(PieceSet::full(70).count_without(&s), 69);
    }

    /// The search goes round the end, and looks at every bit exactly once.
    #[test]
    fn find_goes_round() {
        let s = PieceSet::of([3, 64, 130], 131);
        let none = PieceSet::empty(131);
        let from = |start| s.find(start, [&none, &none], |_| true);
        assert_eq!([from(0), from(4), from(65), from(130)], [3, 64, 130, 130].map(Some));
        let but = PieceSet::of([130], 131);
        assert_eq!(s.find(65, [&but, &none], |_| true), Some(3));
        assert_eq!(s.find(4, [&but, &none], |p| p == 3), Some(3));
        assert_eq!(s.find(5, [&s, &none], |_| true), None);
        assert_eq!(PieceSet::empty(0).find(0, [&none, &none], |_| true), None);
    }
}
