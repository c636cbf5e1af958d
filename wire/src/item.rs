//! Items: what gossip and sync carry, without knowing what is in it.
//!
//! Feeds and the version chains of charter documents are all **logs**: numbered, chained, signed.
//! The overlay spreads items of logs and compares heads; only the trust rules look inside.

use serde::{Deserialize, Serialize};

use crate::codec::encode;
use crate::ids::{ItemHash, LogId};
use crate::limits::MOMENTS_FROM;
use crate::sign::Envelope;

/// What kind of body an item carries, and so which rules judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
}

/// Is this number a time, and its log one of which only the newest item is kept? Such a log has
/// gaps: a later item takes the place of the one before. No other log ever gets so far.
#[must_use]
pub const fn is_moment(seq: u64) -> bool {
    seq >= MOMENTS_FROM
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
    /// it has a hash of its log and its number.
    #[must_use]
    pub fn hash(&self) -> ItemHash {
        match self.kind {
            ItemKind::Proof => ItemHash::of(self.log.as_bytes()),
            ItemKind::Beacon => {
                let number = self.seq.to_le_bytes();
                let id: Vec<u8> = self.log.0.into_iter().chain(number).collect();
                ItemHash::of(&id)
            }
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
