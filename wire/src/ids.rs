//! Identities: 32-byte hashes and keys, each of its own type.
//!
//! Every id is either a BLAKE3 hash under its own `derive_key` context, so that no hash of one
//! kind can stand for another (attack C6), or an Ed25519 public key. They are written as 64
//! lower-case hexadecimal digits for people and as 32 raw bytes on the wire.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeTuple};

/// A text was not 64 lower- or upper-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: 64 hexadecimal digits are expected")]
pub struct BadId(pub String);

/// Writes bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        for nibble in [b >> 4, b & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    out
}

/// Reads hexadecimal digits; `None` where the text is anything else.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<Vec<u8>>>()?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(digits.chunks_exact(2).map(|p| p.iter().fold(0, |acc, d| (acc << 4) | d)).collect())
}

/// 32 bytes as a fixed serde tuple, so that no length travels with them.
pub(crate) fn ser_bytes<S: Serializer, const N: usize>(
    b: &[u8; N],
    s: S,
) -> Result<S::Ok, S::Error> {
    let mut t = s.serialize_tuple(N)?;
    for x in b {
        t.serialize_element(x)?;
    }
    t.end()
}

struct BytesVisitor<const N: usize>;

impl<'de, const N: usize> de::Visitor<'de> for BytesVisitor<N> {
    type Value = [u8; N];
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
        let mut out = [0; N];
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(i, &self))?;
        }
        Ok(out)
    }
}

pub(crate) fn de_bytes<'de, D: Deserializer<'de>, const N: usize>(
    d: D,
) -> Result<[u8; N], D::Error> {
    d.deserialize_tuple(N, BytesVisitor)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 32]);

        impl Ord for $name {
            /// That of the bytes. Two ids mostly differ in the first eight, and maps compare a lot:
            /// these are compared without the call that 32 bytes take.
            #[inline]
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                let first = |id: &[u8; 32]| id.first_chunk().map(|b| u64::from_be_bytes(*b));
                first(&self.0).cmp(&first(&other.0)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// The first ten hexadecimal digits, for tables and logs.
            #[must_use]
            pub fn short(&self) -> String {
                let mut s = hex(&self.0);
                s.truncate(10);
                s
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(s: &str) -> Result<Self, BadId> {
                unhex(s)
                    .and_then(|v| <[u8; 32]>::try_from(v).ok())
                    .map(Self)
                    .ok_or_else(|| BadId(s.chars().take(80).collect()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { ser_bytes(&self.0, s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = String::deserialize(d)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    de_bytes(d).map(Self)
                }
            }
        }
    };
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $context:literal) => {
        id!($(#[$doc])* $name);

        impl $name {
            /// The BLAKE3 `derive_key` context of this kind of hash.
            pub const CONTEXT: &'static str = $context;
            /// Hashes `bytes` under this kind's context.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(blake3::derive_key(Self::CONTEXT, bytes))
            }
        }
    };
}

id!(
    /// A host's `stork-node`: its Ed25519 public key.
    NodeId
);
id!(
    /// An Ed25519 public key of a person or role.
    PublicKey
);
id!(
    /// BLAKE3-256 of a file's bytes (plain, no context: what `b3sum` prints).
    ContentId
);
id!(
    /// BLAKE3-256 of a pack's bytes (plain, no context).
    PackId
);
id!(
    /// BLAKE3-256 of one piece of a pack or manifest (plain, no context).
    PieceHash
);

hash_id!(
    /// Names a key by algorithm and public bytes.
    KeyId, "stork 2026 key id v1");
hash_id!(
    /// A fleet: the hash of its first root document's body.
    FleetId, "stork 2026 fleet id v1");
hash_id!(
    /// A group: the hash of its first group document's body.
    GroupId, "stork 2026 group id v1");
hash_id!(
    /// The key of a private group, by its hash.
    GroupKeyId, "stork 2026 group key id v1");
hash_id!(
    /// A publisher: the hash of its first publisher document's body.
    PublisherId, "stork 2026 publisher id v1");
hash_id!(
    /// A log of numbered signed items: a feed, or the versions of one charter document.
    LogId, "stork 2026 log id v1");
hash_id!(
    /// One signed body: a feed entry or a charter document.
    ItemHash, "stork 2026 item v1");
hash_id!(
    /// The entries of a manifest: what a VM is shown.
    TreeId, "stork 2026 tree id v1");
hash_id!(
    /// A whole manifest.
    ManifestId, "stork 2026 manifest id v1");
hash_id!(
    /// One release body inside a feed entry.
    ReleaseHash, "stork 2026 release v1");
hash_id!(
    /// All releases of a publisher that are not withdrawn.
    ViewRoot, "stork 2026 view root v1");
hash_id!(
    /// One swarm: a release's packing, full or delta.
    SwarmId, "stork 2026 swarm id v1");

impl ContentId {
    /// Hashes a file's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl PackId {
    /// Hashes a pack's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl PieceHash {
    /// Hashes a piece's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl PublicKey {
    /// The id of this key; the leading 1 is the algorithm Ed25519.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let mut input = [1; 33];
        for (slot, b) in input.iter_mut().skip(1).zip(self.0) {
            *slot = b;
        }
        KeyId::of(&input)
    }
}

impl LogId {
    /// The log of a publisher's feed in its first epoch.
    #[must_use]
    pub fn feed(publisher: PublisherId) -> Self {
        Self::tagged(b'F', publisher.as_bytes())
    }
    /// The log of a publisher's feed in any epoch: each has numbers of its own.
    #[must_use]
    pub fn feed_epoch(publisher: PublisherId, epoch: u32) -> Self {
        if epoch <= 1 {
            return Self::feed(publisher);
        }
        let id: Vec<u8> = publisher.0.into_iter().chain(epoch.to_le_bytes()).collect();
        Self::tagged(b'F', &id)
    }
    /// The log that holds the one proof that two entries of a feed have this number.
    #[must_use]
    pub fn proof(publisher: PublisherId, at: Position) -> Self {
        let place = at.epoch.to_le_bytes().into_iter().chain(at.seq.to_le_bytes());
        let id: Vec<u8> = publisher.0.into_iter().chain(place).collect();
        Self::first(b'E', &id)
    }
    /// The log of a publisher's beacons, of which only the newest is kept.
    #[must_use]
    pub fn beacon(publisher: PublisherId) -> Self {
        Self::tagged(b'B', publisher.as_bytes())
    }
    /// The log of a fleet's root documents.
    #[must_use]
    pub fn root(fleet: FleetId) -> Self {
        Self::tagged(b'R', fleet.as_bytes())
    }
    /// The log of a group's documents.
    #[must_use]
    pub fn group(group: GroupId) -> Self {
        Self::tagged(b'G', group.as_bytes())
    }
    /// The log of a publisher's documents.
    #[must_use]
    pub fn publisher(publisher: PublisherId) -> Self {
        Self::tagged(b'P', publisher.as_bytes())
    }
    /// The log of the one suicide of a key.
    #[must_use]
    pub fn suicide(key: PublicKey) -> Self {
        Self::first(b'S', key.as_bytes())
    }

    /// Does it hold items that only narrow ([`crate::item::ItemKind::is_first`])? It can be told by
    /// the id, so that what is missing of it is fetched before anything else. To make another log's
    /// id look so takes 2^64 tries, and would win that log a better place in queues.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.0.last_chunk() == Some(&[0; Self::FIRST_BYTES])
    }

    /// Zero bytes at the end of the ids of such logs.
    const FIRST_BYTES: usize = 8;

    pub(crate) fn first(tag: u8, id: &[u8]) -> Self {
        let mut log = Self::tagged(tag, id);
        let end = log.0.last_chunk_mut::<{ Self::FIRST_BYTES }>();
        end.into_iter().for_each(|end| *end = [0; Self::FIRST_BYTES]);
        log
    }
    fn tagged(tag: u8, id: &[u8]) -> Self {
        let mut input = vec![tag];
        input.extend_from_slice(id);
        Self::of(&input)
    }
}

/// The place of an entry in a feed. A later epoch comes after every number of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, from 1.
    pub epoch: u32,
    /// The number within the epoch, from 1.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            1 => write!(f, "{}", self.seq),
            epoch => write!(f, "{} of epoch {epoch}", self.seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id survives text and wire, and wrong text is refused with the text in the message.
    #[test]
    fn ids_round_trip() {
        let id = ContentId::of(b"hello");
        assert_eq!(id.to_string().parse::<ContentId>(), Ok(id));
        assert_eq!(id.to_string(), blake3::hash(b"hello").to_hex().as_str());
        assert!("xyz".parse::<ContentId>().is_err());
        let wire = postcard::to_allocvec(&id).unwrap();
        assert_eq!(wire.len(), 32);
        assert_eq!(postcard::from_bytes::<ContentId>(&wire), Ok(id));
    }

    /// Ids are ordered as their bytes are.
    #[test]
    fn the_order_is_that_of_the_bytes() {
        let mut all: Vec<ContentId> = (0..200u8).map(|i| ContentId::of(&[i])).collect();
        for at in [0, 7, 8, 31] {
            all.push(ContentId(core::array::from_fn(|i| u8::from(i == at))));
        }
        let mut bytes: Vec<[u8; 32]> = all.iter().map(|id| id.0).collect();
        all.sort_unstable();
        bytes.sort_unstable();
        assert!(all.iter().map(|id| id.0).eq(bytes));
    }

    /// The same bytes give different ids in different roles (attack C6).
    #[test]
    fn kinds_of_hash_do_not_meet() {
        assert_ne!(TreeId::of(b"x").0, ManifestId::of(b"x").0);
        let id = PublisherId([1; 32]);
        assert_ne!(LogId::feed(id), LogId::publisher(id));
        assert_eq!(LogId::feed(id), LogId::feed_epoch(id, 1));
        assert_ne!(LogId::feed(id), LogId::feed_epoch(id, 2));
        let at = |epoch, seq| LogId::proof(id, Position { epoch, seq });
        assert_ne!(at(1, 2), at(2, 1));
    }
}
