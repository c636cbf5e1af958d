//! The charter: signed, versioned documents that say who may do what in a fleet.
//!
//! The fleet root names the admission keys and the authorities for groups; a group document names
//! the publishers of a group and the package names that each may use; a publisher document names
//! the keys that sign its feed. Version N+1 is signed by the thresholds of N and of N+1, and its
//! `prev` is the hash of N, so that a chain can be walked from the first version. The id of a
//! fleet, group or publisher is the hash of its first document and so survives every rotation.

mod delegation;
mod group;
mod host;

pub use delegation::{DELEGATION_DEPTH_MAX, Delegation};
pub use group::{GroupDoc, Lift, PublisherGrant, VetoKey};
pub use host::{
    Cell, HostCert, HostScope, JoinToken, PeerRecord, PushCert, ShortGroup, TokenError,
};

use serde::{Deserialize, Serialize};

use crate::codec::{List, encode};
use crate::ids::{FleetId, ItemHash, NodeId, Position, PublicKey, PublisherId};
use crate::limits::DOC_LEN_MAX;
use crate::sign::{Body, is_sound};
use crate::text::{Label, Pattern};

/// Seconds since 1970-01-01 UTC, as in every signed body.
pub type UnixSeconds = u64;

/// Version byte with which every signed body begins.
pub const BODY_VERSION: u8 = 1;

/// Some keys and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Sorted, each key once.
    pub keys: List<PublicKey, 16>,
    /// At least 1, at most the number of keys.
    pub threshold: u8,
}

impl Role {
    /// A role of one key.
    #[must_use]
    pub fn single(key: PublicKey) -> Self {
        Self { keys: List::truncated([key]), threshold: 1 }
    }
    /// The threshold as a count.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.threshold as usize
    }
    fn check(&self, what: &str) -> Result<(), String> {
        if self.threshold == 0 {
            return Err(format!("{what}: a threshold of 0 lets anybody sign"));
        }
        if self.needed() > self.keys.len() {
            return Err(format!("{what}: the threshold exceeds the number of keys"));
        }
        check_sorted(&self.keys, what)?;
        match self.keys.iter().find(|k| !is_sound(k)) {
            Some(k) => Err(format!("{what}: key {} is weak or no key", k.short())),
            None => Ok(()),
        }
    }
}

fn check_sorted<T: Ord>(items: &[T], what: &str) -> Result<(), String> {
    if items.windows(2).all(|w| matches!(w, [a, b] if a < b)) {
        Ok(())
    } else {
        Err(format!("{what}: not sorted, or twice the same"))
    }
}

fn check_head(version: u8, issued: UnixSeconds, expires: UnixSeconds) -> Result<(), String> {
    if version != BODY_VERSION {
        return Err(format!("version {version} of this body is not known here"));
    }
    if expires <= issued {
        return Err("expires before it is issued".into());
    }
    Ok(())
}

fn check_chain(number: u64, prev: Option<ItemHash>) -> Result<(), String> {
    match (number, prev) {
        (0, _) => Err("documents are numbered from 1".into()),
        (1, Some(_)) => Err("the first document has no predecessor".into()),
        (2.., None) => Err("a later document names its predecessor".into()),
        _ => Ok(()),
    }
}

/// Keys that may found groups whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Which group names.
    pub names: Pattern,
    /// Who signs the group's first document.
    pub role: Role,
}

/// The fleet's root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDoc {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// 1, 2, 3 …
    pub number: u64,
    /// The hash of the previous root document's body.
    pub prev: Option<ItemHash>,
    /// A human name for the fleet.
    pub name: Label,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it must have been renewed.
    pub expires: UnixSeconds,
    /// Who signs this and the next root document.
    pub root: Role,
    /// Who admits hosts.
    pub admission: Role,
    /// Who founds groups; the first entry whose pattern matches decides.
    pub authorities: List<Authority, 32>,
    /// Keys that admitted hosts before, sorted by key: what they signed is good for a while, so
    /// that every host can be certified anew. A key that was stolen is not named here.
    pub admission_before: List<PastKey, 8>,
}

/// A key that is in its role no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PastKey {
    /// The key.
    pub key: PublicKey,
    /// From then on what it signed is worth nothing.
    pub until: UnixSeconds,
}

impl Body for RootDoc {
    const CONTEXT: &'static str = "root";
    const LEN_MAX: usize = DOC_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        check_chain(self.number, self.prev)?;
        self.root.check("root")?;
        self.admission.check("admission")?;
        let before: Vec<_> = self.admission_before.iter().map(|k| k.key).collect();
        check_sorted(&before, "earlier admission keys")?;
        if let Some(k) = before.iter().find(|k| self.admission.keys.contains(k)) {
            return Err(format!("admission key {} is in use, and an earlier one", k.short()));
        }
        if let Some(k) = before.iter().find(|k| !is_sound(k)) {
            return Err(format!("earlier admission key {} is weak or no key", k.short()));
        }
        self.authorities.iter().try_for_each(|a| a.role.check("authority"))
    }
}

impl RootDoc {
    /// The fleet that this first root document founds.
    #[must_use]
    pub fn fleet_id(&self) -> FleetId {
        FleetId::of(&encode(self))
    }
}

/// A key that signs feed entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseKey {
    /// The key.
    pub key: PublicKey,
    /// Package names that it may release.
    pub packages: List<Pattern, 64>,
    /// No entry signed at or after this time is accepted.
    pub not_after: UnixSeconds,
    /// The last entry that this key may sign; `None` while it is in use.
    pub valid_through: Option<Position>,
}

/// An entry after which a later epoch begins: whatever else follows it is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its place; an earlier epoch's.
    pub at: Position,
    /// The hash of its body.
    pub hash: ItemHash,
}

/// A publisher's document: the keys of its feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherDoc {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// 1, 2, 3 …
    pub number: u64,
    /// The hash of the previous document's body.
    pub prev: Option<ItemHash>,
    /// The publisher's own name for people.
    pub name: Label,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it must have been renewed.
    pub expires: UnixSeconds,
    /// Who signs the next document.
    pub root: Role,
    /// The feed's epoch: 1 in the first document, and raised by one to begin anew after a fork.
    pub epoch: u32,
    /// The last entry of earlier epochs that stands; `None`: none of them does.
    pub survivor: Option<Survivor>,
    /// Keys that sign entries.
    pub release_keys: List<ReleaseKey, 16>,
    /// Keys that sign beacons.
    pub beacon_keys: List<PublicKey, 16>,
    /// The nodes that take new entries of this feed, one after the other; empty: any node, which
    /// is safe only while one person publishes from one place.
    pub homes: List<NodeId, 4>,
    /// Who else may release packages in its place, in the order in which they are asked.
    pub delegations: List<Delegation, 64>,
    /// The epoch begins with an empty feed, into which the publisher carries over what was live at
    /// this entry. Hosts forget the entries before; what they show of them stays until it has been
    /// carried over. It is not there where it has no value.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::delegated::last"
    )]
    pub compacts: Option<Survivor>,
}

impl Body for PublisherDoc {
    const CONTEXT: &'static str = "publisher";
    const LEN_MAX: usize = DOC_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        check_chain(self.number, self.prev)?;
        self.root.check("root")?;
        if self.epoch == 0 || (self.number == 1 && self.epoch != 1) {
            return Err("the first document begins epoch 1".into());
        }
        if self.survivor.is_some_and(|s| s.at.epoch >= self.epoch || s.at.epoch == 0) {
            return Err("an epoch begins after an entry of an earlier one".into());
        }
        if self.survivor.is_some_and(|s| s.at.seq == 0) {
            return Err("entries are numbered from 1".into());
        }
        if let Some(c) = self.compacts {
            if self.survivor.is_some() {
                return Err("an epoch that begins with an empty feed follows no entry".into());
            }
            if c.at.epoch >= self.epoch || c.at.epoch == 0 || c.at.seq == 0 {
                return Err("an epoch carries over what an earlier one had".into());
            }
        }
        self.delegations.iter().try_for_each(Delegation::check)?;
        let keys: Vec<_> = self.release_keys.iter().map(|k| k.key).collect();
        check_sorted(&keys, "release keys")?;
        match keys.iter().chain(self.beacon_keys.iter()).find(|k| !is_sound(k)) {
            Some(k) => Err(format!("key {} is weak or no key", k.short())),
            None => Ok(()),
        }
    }
}

impl PublisherDoc {
    /// The publisher that this first document founds.
    #[must_use]
    pub fn publisher_id(&self) -> PublisherId {
        PublisherId::of(&encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter_tests::{key, role};
    use crate::sign::{Envelope, KeySignature, VerifyError};

    fn root(role: Role) -> RootDoc {
        RootDoc {
            version: 1,
            number: 1,
            prev: None,
            name: "test".parse().unwrap(),
            issued: 1,
            expires: 2,
            admission: Role::single(key(9).public()),
            root: role,
            authorities: List::empty(),
            admission_before: List::empty(),
        }
    }

    /// An earlier admission key is named once, and is none that is in use.
    #[test]
    fn earlier_admission_keys() {
        let past = |n| PastKey { key: key(n).public(), until: 9 };
        let with = |keys: Vec<PastKey>| {
            let admission_before = List::new(keys).unwrap();
            Envelope::unsigned(&RootDoc { admission_before, ..root(role(&[1], 1)) })
        };
        assert!(with(vec![past(3)]).is_ok());
        assert!(with(vec![past(3), past(3)]).is_err());
        assert!(with(vec![past(9)]).is_err(), "it is in use");
    }

    /// T004: neither the same signature twice nor two by one key make a threshold of two.
    #[test]
    fn t004_a_threshold_counts_distinct_keys() {
        let doc = root(role(&[1, 2], 2));
        let fleet = doc.fleet_id();
        let mut e = Envelope::sign(&doc, fleet, &key(1)).unwrap();
        let r = e.verify::<RootDoc>(fleet, &doc.root.keys, doc.root.needed());
        assert_eq!(r, Err(VerifyError::ThresholdNotMet { good: 1, needed: 2 }));
        let s: KeySignature = e.signatures[0].clone();
        let twice =
            Envelope { body: e.body.clone(), signatures: List::new(vec![s.clone(), s]).unwrap() };
        let r = twice.verify::<RootDoc>(fleet, &doc.root.keys, 2);
        assert_eq!(r, Err(VerifyError::SignatureOrder));
        let second = Envelope::sign(&doc, fleet, &key(2)).unwrap();
        e.add(key(2).public(), second.signatures[0].signature).unwrap();
        assert!(e.verify::<RootDoc>(fleet, &doc.root.keys, 2).is_ok());
    }

    /// T005: a threshold of none, or of more than there are, is refused when decoding.
    #[test]
    fn t005_impossible_thresholds() {
        assert!(Envelope::unsigned(&root(role(&[1, 2], 0))).is_err());
        assert!(Envelope::unsigned(&root(role(&[1, 2], 3))).is_err());
    }

    /// T007: a wrong signature beside enough good ones does no harm.
    #[test]
    fn t007_one_bad_signature_beside_good_ones() {
        let doc = root(role(&[1, 2], 1));
        let fleet = doc.fleet_id();
        let mut e = Envelope::sign(&doc, fleet, &key(1)).unwrap();
        e.add(key(2).public(), key(2).sign(b"something else")).unwrap();
        assert!(e.verify::<RootDoc>(fleet, &doc.root.keys, 1).is_ok());
        assert!(e.verify::<RootDoc>(fleet, &doc.root.keys, 2).is_err());
    }

    /// T047: a signature is good in one fleet and for one kind of body only.
    #[test]
    fn t047_other_fleet_or_context() {
        let doc = root(role(&[1], 1));
        let e = Envelope::sign(&doc, FleetId([7; 32]), &key(1)).unwrap();
        let r = e.verify::<RootDoc>(doc.fleet_id(), &doc.root.keys, 1);
        assert_eq!(r, Err(VerifyError::BadSignature));
        assert_ne!(
            crate::sign::signed_bytes("root", doc.fleet_id(), b"x"),
            crate::sign::signed_bytes("group", doc.fleet_id(), b"x")
        );
    }

    /// T053: the neutral element is a point of small order and no key.
    #[test]
    fn t053_weak_keys_are_not_enrolled() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let bad = root(Role::single(PublicKey(neutral)));
        assert!(Envelope::unsigned(&bad).is_err());
    }
}
