//! A small ordered map: pairs in a row, in the order of their keys.
//!
//! A node keeps several maps for each of ten thousand feeds, most of them with one entry. A B-tree
//! takes room for eleven at once, which was two thirds of the memory of such a node. New keys are
//! nearly always the highest, so that a row is as fast; in the middle it costs a move.

use std::collections::VecDeque;

/// Pairs in the order of their keys, each key once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sorted<K, V>(VecDeque<(K, V)>);

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Ord, V> Sorted<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        match self.0.back() {
            Some((last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(k, _)| k.cmp(key)),
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// Sets the value of a key. The first pair takes no more room than it needs.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(at) => {
                if let Some(pair) = self.0.get_mut(at) {
                    pair.1 = value;
                }
            }
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (key, value));
            }
        }
    }

    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        self.0.pop_front()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| keep(key, value));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// It holds what a B-tree holds, in whatever order keys come.
    #[test]
    fn as_a_tree() {
        let (mut row, mut tree) = (Sorted::default(), BTreeMap::new());
        for i in 0..200u64 {
            let key = i * 37 % 101;
            row.insert(key, i);
            tree.insert(key, i);
            if i % 7 == 0 {
                assert_eq!(row.pop_first(), tree.pop_first());
            }
        }
        row.retain(|k, _| k % 3 != 0);
        tree.retain(|k, _| k % 3 != 0);
        assert!(row.iter().eq(tree.iter()) && row.values().eq(tree.values()));
        assert_eq!(row.len(), tree.len());
        assert!((0..110).all(|k| row.get(&k) == tree.get(&k)));
        row.clear();
        assert_eq!(row.get(&1), None);
    }
}
