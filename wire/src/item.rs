//! Items: what gossip and sync carry, without knowing what is in it.
//!
//! Feeds and the version chains of charter documents are all **logs**: numbered, chained, signed.
//! The overlay spreads items of logs and compares heads; only the trust rules look inside.

use core::fmt;

use serde::de::{self, DeserializeSeed, EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::encode;
use crate::ids::{ItemHash, LogId};
use crate::limits::MOMENTS_FROM;
use crate::sign::Envelope;

/// What kind of body an item carries, and so which rules judge it.
///
/// On the wire it is a number. One that is not known here belongs to a later version: such an item
/// is read like any other, so that the rest of its frame can be used, and then left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// The fleet's root document.
    Root,
    /// A group's document.
    Group,
    /// A publisher's document.
    Publisher,
    /// A feed entry.
    Entry,
    /// Two feed entries with one number: a [`crate::proof::Proof`].
    Proof,
    /// What a publisher says of its feed's head: a [`crate::beacon::Beacon`].
    Beacon,
    /// Something must not be installed, or a host not connect: a [`crate::deny::Denial`].
    Deny,
    /// A release key has ended itself: a [`crate::suicide::Suicide`].
    Suicide,
    /// A publisher takes releases back or halts: a [`crate::withdrawal::Withdrawal`].
    Withdrawal,
    /// What a host may take part in: a [`crate::grant::HostGrant`].
    Grant,
    /// Of a later version. No rules here judge it: it is not kept, and not passed on.
    Later(LaterKind),
}

/// The number of a kind that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaterKind(u32);

impl ItemKind {
    /// All known kinds by their numbers.
    const KNOWN: [Self; 10] = [
        Self::Root,
        Self::Group,
        Self::Publisher,
        Self::Entry,
        Self::Proof,
        Self::Beacon,
        Self::Deny,
        Self::Suicide,
        Self::Withdrawal,
        Self::Grant,
    ];
    /// Their words by their numbers, so that each has a metric before it has happened.
    pub const CODES: &[&str] = &[
        "root",
        "group",
        "publisher",
        "entry",
        "proof",
        "beacon",
        "deny",
        "suicide",
        "withdrawal",
        "grant",
    ];

    /// The kind with this number.
    #[must_use]
    pub fn of(number: u32) -> Self {
        let known = usize::try_from(number).ok().and_then(|n| Self::KNOWN.get(n));
        known.copied().unwrap_or(Self::Later(LaterKind(number)))
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Group => 1,
            Self::Publisher => 2,
            Self::Entry => 3,
            Self::Proof => 4,
            Self::Beacon => 5,
            Self::Deny => 6,
            Self::Suicide => 7,
            Self::Withdrawal => 8,
            Self::Grant => 9,
            Self::Later(kind) => kind.0,
        }
    }

    /// A word for counters; one for all later kinds.
    #[must_use]
    pub fn name(self) -> &'static str {
        let number = usize::try_from(self.number()).unwrap_or(usize::MAX);
        Self::CODES.get(number).copied().unwrap_or("later")
    }

    /// Does it only ever take away what may be installed, or might it take away what a host may
    /// see? Such items go before all others in every queue; their logs are told by
    /// [`LogId::is_first`].
    #[must_use]
    pub const fn is_first(self) -> bool {
        matches!(self, Self::Proof | Self::Deny | Self::Suicide | Self::Withdrawal | Self::Grant)
    }
}

impl Serialize for ItemKind {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_unit_variant("ItemKind", self.number(), self.name())
    }
}

/// Reads the number of an enum's variant, whatever it is.
struct Number;

impl Visitor<'_> for Number {
    type Value = u32;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a kind")
    }
    fn visit_u32<E: de::Error>(self, number: u32) -> Result<u32, E> {
        Ok(number)
    }
}

impl<'de> DeserializeSeed<'de> for Number {
    type Value = u32;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<u32, D::Error> {
        d.deserialize_identifier(self)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = ItemKind;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a kind of item")
    }
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<ItemKind, A::Error> {
        let (number, rest) = data.variant_seed(Number)?;
        rest.unit_variant()?;
        Ok(ItemKind::of(number))
    }
}

impl<'de> Deserialize<'de> for ItemKind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_enum("ItemKind", &[], KindVisitor)
    }
}

/// Is this number a time, and its log one of which only the newest item is kept? Such a log has
/// gaps: a later item takes the place of the one before. No other log ever gets so far.
#[must_use]
pub const fn is_moment(seq: u64) -> bool {
    seq >= MOMENTS_FROM
}

/// The hash of an item that is known by its log and number alone: see [`Item::hash`].
#[must_use]
pub fn place_hash(log: LogId, seq: u64) -> ItemHash {
    let id: Vec<u8> = log.0.into_iter().chain(seq.to_le_bytes()).collect();
    ItemHash::of(&id)
}

/// One numbered item of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it carries.
    pub kind: ItemKind,
    /// Its log. A claim until the body was looked at.
    pub log: LogId,
    /// Its number in the log, from 1. A claim until the body was looked at.
    pub seq: u64,
    /// The signed bytes.
    pub envelope: Envelope,
}

impl Item {
    /// The hash that stands for this item in heads and in the journal: of its body. Hosts may build
    /// different proofs of one fork, all equally good, and their heads must be equal all the same:
    /// so a proof has a hash of its log alone. Likewise two nodes may make a beacon in one second:
    /// it has a hash of its log and its number. So have those that narrow: what they say is in
    /// their logs' names, and the reasons that they give may differ.
    #[must_use]
    pub fn hash(&self) -> ItemHash {
        match self.kind {
            ItemKind::Proof => ItemHash::of(self.log.as_bytes()),
            ItemKind::Beacon
            | ItemKind::Deny
            | ItemKind::Suicide
            | ItemKind::Withdrawal
            | ItemKind::Grant => place_hash(self.log, self.seq),
            _ => self.envelope.hash(),
        }
    }
}

/// Items that are void from now on: those of a log beyond a number. No message; what the rules ask
/// of a node's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The log.
    pub log: LogId,
    /// The last number that stands; 0: none does.
    pub after: u64,
    /// The hash that the item with this number must have, or else it is void as well.
    pub last: Option<ItemHash>,
    /// Are they kept aside? What VMs show of them must still be known by name.
    pub keep: bool,
}

/// The newest item of a log that a node has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The log.
    pub log: LogId,
    /// The number of its newest item, without gaps before it.
    pub seq: u64,
    /// That item's hash, cut to 8 bytes: enough to see a fork, which is then proved by the items.
    pub hash: [u8; 8],
}

impl Head {
    /// The head that an item makes.
    #[must_use]
    pub fn of(log: LogId, seq: u64, hash: ItemHash) -> Self {
        let mut cut = [0; 8];
        for (slot, b) in cut.iter_mut().zip(hash.as_bytes()) {
            *slot = *b;
        }
        Self { log, seq, hash: cut }
    }

    /// This head's part of a fingerprint: heads are summed, so that their order does not matter and
    /// a changed one is exchanged in constant time.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let hash = blake3::derive_key("stork 2026 head fingerprint v1", &encode(self));
        hash.iter().take(16).fold(0, |acc, b| (acc << 8) | u128::from(*b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DecodeError, decode};

    /// T119: kinds keep their numbers; one of a later version is read and written as it came, in
    /// one form only.
    #[test]
    fn t119_kinds_of_later_versions() {
        let named = ItemKind::KNOWN.into_iter().zip(ItemKind::CODES);
        for (number, (kind, name)) in (0..).zip(named) {
            assert_eq!((kind.number(), kind.name()), (number, *name));
            assert_eq!((ItemKind::of(number), encode(&kind)), (kind, encode(&number)));
        }
        for number in [10, 127, 128, u32::MAX] {
            let kind = ItemKind::of(number);
            assert_eq!((kind.number(), kind.name()), (number, "later"));
            assert!(kind > ItemKind::Grant);
            assert_eq!(encode(&kind), encode(&number));
            assert_eq!(decode(&encode(&number), 8), Ok(kind));
        }
        assert_eq!(decode::<ItemKind>(&[0x86, 0], 8), Err(DecodeError::NotCanonical));
        let long = decode::<ItemKind>(&[0xff; 6], 8);
        assert!(matches!(long, Err(DecodeError::Malformed(_))));
    }

    /// An item of kind 10 is these bytes: a later version changes no part of what every item has.
    #[test]
    fn golden_item_of_a_later_kind() {
        let body = crate::codec::Blob::new(vec![1, 2, 3]).unwrap();
        let envelope = Envelope { body, signatures: crate::codec::List::empty() };
        let item = Item { kind: ItemKind::of(10), log: LogId([7; 32]), seq: 300, envelope };
        let golden = format!("0a{}ac020301020300", "07".repeat(32));
        assert_eq!(crate::ids::hex(&encode(&item)), golden);
        assert_eq!(decode(&encode(&item), 64), Ok(item.clone()));
        assert_eq!(item.hash(), item.envelope.hash());
    }
}
