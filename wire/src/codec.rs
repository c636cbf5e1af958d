//! Postcard with bounds and a canonical form.
//!
//! Postcard alone accepts non-minimal varints and trailing bytes, and lets a short message ask for
//! huge allocations. Here every collection has a bound in its type ([`List`], [`Blob`], the types
//! of [`crate::text`]) which is checked before memory is taken, and [`decode`] refuses bytes that
//! are not exactly what [`encode`] would have written (attack A27).

use core::fmt;
use core::marker::PhantomData;

use postcard::ser_flavors::Flavor;
use serde::de::{self, DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why bytes were not accepted as a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the bound of its kind.
    #[error("{len} bytes exceed the bound of {max}")]
    TooLong {
        /// Bytes seen.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not a message of this kind at all.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A type of frame that this version does not know. Later versions may send it; it is ignored.
    #[error("a frame of an unknown type")]
    UnknownType,
    /// Decodes, but encoding it again gives other bytes.
    #[error("not in canonical form")]
    NotCanonical,
}

/// Room that is taken at first for a message: most announcements fit without growing.
const ENCODE_ROOM: usize = 768;
const KNOWN_LENGTH: &str = "types of stork-wire have a known length everywhere";

/// Compares what is written with what is expected, without keeping it.
struct Same<'a> {
    rest: &'a [u8],
    same: bool,
}

impl Flavor for Same<'_> {
    type Output = bool;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        match self.rest.split_at_checked(data.len()) {
            Some((next, rest)) if next == data => self.rest = rest,
            _ => self.same = false,
        }
        Ok(())
    }

    // Ids come byte by byte.
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.rest.split_first() {
            Some((next, rest)) if *next == byte => self.rest = rest,
            _ => self.same = false,
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.same && self.rest.is_empty())
    }
}

/// What is written, as it grows.
struct Written(Vec<u8>);

impl Flavor for Written {
    type Output = Vec<u8>;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Are these the canonical bytes of the message?
fn encodes_to<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    let same = Same { rest: bytes, same: true };
    postcard::serialize_with_flavor(value, same).expect(KNOWN_LENGTH)
}

/// The canonical bytes of a message.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that postcard cannot write.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let out = Written(Vec::with_capacity(ENCODE_ROOM));
    let mut out = postcard::serialize_with_flavor(value, out).expect(KNOWN_LENGTH);
    if out.len() < ENCODE_ROOM / 2 {
        // Small frames may wait by the thousands.
        out.shrink_to_fit();
    }
    out
}

/// Reads a message of at most `max` bytes, and refuses what is not its canonical form.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    let value: T =
        postcard::from_bytes(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    if encodes_to(&value, bytes) { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

/// At most `N` elements. The bound is checked before memory is taken, and memory grows only with
/// elements that were really there. They are kept without room to spare, so that no message takes
/// more than 16 times its bytes (test T050).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List<T, const N: usize>(Box<[T]>);

/// A collection was longer than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} elements where at most {max} are allowed")]
pub struct TooMany {
    /// Elements given.
    pub len: usize,
    /// Elements allowed.
    pub max: usize,
}

impl<T, const N: usize> List<T, N> {
    /// No elements.
    #[must_use]
    pub fn empty() -> Self {
        Self(Box::default())
    }
    /// Takes a vector if it is short enough.
    pub fn new(items: Vec<T>) -> Result<Self, TooMany> {
        if items.len() > N {
            return Err(TooMany { len: items.len(), max: N });
        }
        Ok(Self(items.into_boxed_slice()))
    }
    /// Takes the first `N` of the items and drops the rest.
    pub fn truncated(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(N).collect())
    }
    /// The elements as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0.into_vec()
    }
}

impl<T, const N: usize> core::ops::Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, const N: usize> IntoIterator for List<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a List<T, N> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize, const N: usize> Serialize for List<T, N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter())
    }
}

struct ListVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for ListVisitor<T, N> {
    type Value = List<T, N>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {N} elements")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        if seq.size_hint().is_some_and(|n| n > N) {
            return Err(de::Error::invalid_length(seq.size_hint().unwrap_or(0), &self));
        }
        let mut out = Vec::new();
        while let Some(item) = seq.next_element()? {
            if out.len() == N {
                return Err(de::Error::invalid_length(N + 1, &self));
            }
            out.push(item);
        }
        Ok(List(out.into_boxed_slice()))
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// At most `N` raw bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob<const N: usize>(Box<[u8]>);

impl<const N: usize> Blob<N> {
    /// Takes bytes if they are few enough.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TooMany> {
        if bytes.len() > N {
            return Err(TooMany { len: bytes.len(), max: N });
        }
        Ok(Self(bytes.into_boxed_slice()))
    }
    /// The bytes as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_vec()
    }
}

impl<const N: usize> core::ops::Deref for Blob<N> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Blob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<const N: usize> Serialize for Blob<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

struct BlobVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for BlobVisitor<N> {
    type Value = Blob<N>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {N} bytes")
    }
    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Blob<N>, E> {
        if v.len() > N { Err(E::invalid_length(v.len(), &self)) } else { Ok(Blob(v.into())) }
    }
}

impl<'de, const N: usize> Deserialize<'de> for Blob<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_bytes(BlobVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack A27: trailing bytes and long varints name the same value, and are refused.
    #[test]
    fn t048_only_the_canonical_form_is_accepted() {
        let good = encode(&(5u64, true));
        assert_eq!(decode::<(u64, bool)>(&good, 16), Ok((5, true)));
        let mut trailing = good;
        trailing.push(0);
        assert_eq!(decode::<(u64, bool)>(&trailing, 16), Err(DecodeError::NotCanonical));
        assert_eq!(decode::<(u64, bool)>(&[0x85, 0, 1], 16), Err(DecodeError::NotCanonical));
        assert!(matches!(decode::<(u64, bool)>(&[5, 2], 16), Err(DecodeError::Malformed(_))));
        let kind = decode::<crate::frame::LinkClass>(&[99], 16);
        assert!(matches!(kind, Err(DecodeError::Malformed(_))));
        let name = decode::<crate::text::Label>(&[1, 0xff], 16);
        assert!(matches!(name, Err(DecodeError::Malformed(_))));
    }

    /// A length field of 2^32 does not allocate: the bound is looked at first.
    #[test]
    fn t049_lengths_are_checked_before_memory_is_taken() {
        let huge = encode(&(1u64 << 32));
        assert!(decode::<List<u64, 10>>(&huge, 64).is_err());
        assert!(decode::<Blob<10>>(&huge, 64).is_err());
        assert!(List::<u8, 2>::new(vec![1, 2, 3]).is_err());
        let nested: List<List<u8, 2>, 2> = List::new(vec![List::new(vec![1]).unwrap()]).unwrap();
        assert_eq!(decode(&encode(&nested), 64), Ok(nested));
    }
}
