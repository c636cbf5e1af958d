//! Proofs of equivocation: two signed entries of one feed with one number (attack A21).
//!
//! A proof carries both entries as they were signed and so needs no signature of its own: anybody
//! who knows the publisher's keys can check it, and nobody can make one without them.

use serde::{Deserialize, Serialize};

use crate::charter::BODY_VERSION;
use crate::feed::Entry;
use crate::ids::{LogId, Position, PublisherId};
use crate::item::{Item, ItemKind};
use crate::limits::PROOF_LEN_MAX;
use crate::sign::{Body, Envelope};

/// Two entries with one number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// Whose feed it is.
    pub publisher: PublisherId,
    /// The number that both entries have.
    pub at: Position,
    /// The entry whose body has the lower hash.
    pub first: Envelope,
    /// The other one.
    pub second: Envelope,
}

impl Proof {
    /// The proof that two entries make, whoever signed them; `None` where they do not contradict
    /// each other: other numbers, or one body that was signed twice.
    #[must_use]
    pub fn of(a: &Envelope, b: &Envelope) -> Option<Self> {
        let entry: Entry = a.claimed().ok()?;
        let (first, second) = if a.hash() < b.hash() { (a, b) } else { (b, a) };
        let proof = Self {
            version: BODY_VERSION,
            publisher: entry.publisher,
            at: entry.position(),
            first: first.clone(),
            second: second.clone(),
        };
        proof.check().is_ok().then_some(proof)
    }

    /// The item that carries it; `None` where it is too long, which no pair of entries is.
    #[must_use]
    pub fn item(&self) -> Option<Item> {
        let log = LogId::proof(self.publisher, self.at);
        let envelope = Envelope::unsigned(self).ok()?;
        Some(Item { kind: ItemKind::Proof, log, seq: 1, envelope })
    }

    /// Both entries.
    #[must_use]
    pub const fn both(&self) -> [&Envelope; 2] {
        [&self.first, &self.second]
    }
}

impl Body for Proof {
    /// Nobody signs one; this stands here so that no signature could ever be meant for it.
    const CONTEXT: &'static str = "proof";
    const LEN_MAX: usize = PROOF_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        for envelope in self.both() {
            let entry: Entry = envelope.claimed().map_err(|e| e.to_string())?;
            if (entry.publisher, entry.position()) != (self.publisher, self.at) {
                return Err("an entry has another feed or number".into());
            }
        }
        if self.first.hash() < self.second.hash() {
            Ok(())
        } else {
            Err("the entries are the same, or not in order".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter::{PublisherDoc, ReleaseKey, Role, Survivor};
    use crate::codec::{List, encode};
    use crate::feed::{Kind, Recall};
    use crate::ids::{FleetId, ItemHash, ViewRoot, hex};
    use crate::sign::SecretKey;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn entry(counter: u64) -> Entry {
        Entry {
            version: 1,
            publisher: PublisherId([7; 32]),
            epoch: 2,
            seq: 1,
            prev: Some(ItemHash([8; 32])),
            document: 2,
            signed_at: 1_000,
            expires: 2_000,
            view_root: ViewRoot([9; 32]),
            kind: Kind::Recall(Recall {
                package: "hello".parse().unwrap(),
                releases: List::truncated([counter]),
                reason: "test".parse().unwrap(),
            }),
            via: None,
        }
    }

    fn signed(counter: u64, by: u8) -> Envelope {
        Envelope::sign(&entry(counter), FleetId([1; 32]), &key(by)).unwrap()
    }

    fn print(bytes: &[u8]) -> String {
        hex(blake3::hash(bytes).as_bytes()).chars().take(16).collect()
    }

    /// T021: one body with two signatures is no proof, nor are two entries of two numbers.
    #[test]
    fn t021_equal_bodies_are_no_proof() {
        let (a, b) = (signed(1, 1), signed(2, 1));
        assert_eq!(Proof::of(&a, &b), Proof::of(&b, &a));
        assert!(Proof::of(&a, &b).is_some());
        assert_eq!(Proof::of(&a, &signed(1, 2)), None);
        let mut later = entry(2);
        later.seq = 2;
        let later = Envelope::sign(&later, FleetId([1; 32]), &key(1)).unwrap();
        assert_eq!(Proof::of(&a, &later), None);
        let mut turned = Proof::of(&a, &b).unwrap();
        core::mem::swap(&mut turned.first, &mut turned.second);
        assert_eq!(turned.item(), None, "one order only");
    }

    /// Hosts that build other proofs of one fork have one head.
    #[test]
    fn all_proofs_of_a_fork_have_one_hash() {
        let one = Proof::of(&signed(1, 1), &signed(2, 1)).unwrap().item().unwrap();
        let other = Proof::of(&signed(1, 1), &signed(3, 1)).unwrap().item().unwrap();
        assert_ne!(one.envelope.hash(), other.envelope.hash());
        assert_eq!((one.log, one.hash()), (other.log, other.hash()));
    }

    /// The bytes of the bodies that know epochs, so that a change of the format is seen. The long
    /// ones by the beginning of their hash.
    #[test]
    fn golden_vectors() {
        let at = Position { epoch: 1, seq: 300 };
        assert_eq!(hex(&encode(&at)), "01ac02");
        let survivor = Survivor { at, hash: ItemHash([3; 32]) };
        assert_eq!(hex(&encode(&Some(survivor))), format!("0101ac02{}", "03".repeat(32)));
        let doc = PublisherDoc {
            version: 1,
            number: 2,
            prev: Some(ItemHash([4; 32])),
            name: "acme".parse().unwrap(),
            issued: 1,
            expires: 2,
            root: Role::single(key(4).public()),
            epoch: 2,
            survivor: Some(survivor),
            release_keys: List::truncated([ReleaseKey {
                key: key(5).public(),
                packages: List::truncated(["*".parse().unwrap()]),
                not_after: 9,
                valid_through: Some(at),
            }]),
            beacon_keys: List::empty(),
            homes: List::empty(),
            delegations: List::empty(),
            compacts: None,
        };
        let proof = Proof::of(&signed(1, 1), &signed(2, 1)).unwrap();
        let logs = [
            LogId::feed_epoch(proof.publisher, 1),
            LogId::feed_epoch(proof.publisher, 2),
            LogId::proof(proof.publisher, proof.at),
        ];
        let all = [encode(&doc), encode(&entry(1)), encode(&proof), encode(&logs)];
        assert_eq!(hex(&encode(&ItemKind::Proof)), "04");
        assert_eq!(all.map(|b| (b.len(), print(&b))), GOLDEN.map(|(n, h)| (n, h.to_owned())));
    }

    const GOLDEN: [(usize, &str); 4] = [
        (157, "bac69b1c8f085b3f"),
        (119, "ead706f01778f6d9"),
        (469, "ef206791d28da218"),
        (96, "d4d074ce411b007a"),
    ];
}
