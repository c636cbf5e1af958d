//! A group's document: who may publish what to it, who may deny it, and how fresh its feeds are.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::{Role, UnixSeconds, check_chain, check_head, check_sorted};
use crate::codec::{List, encode};
use crate::ids::{GroupId, GroupKeyId, ItemHash, LogId, PublicKey, PublisherId};
use crate::limits::{BEACON_VALID_MAX_S, DOC_LEN_MAX, GROUP_BEACON_MIN_S};
use crate::sign::{Body, is_sound};
use crate::text::{GroupName, Label, Pattern};

/// What a group lets one publisher do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherGrant {
    /// Which publisher.
    pub publisher: PublisherId,
    /// Its name for people, as VM files use it.
    pub name: Label,
    /// Package names that it may publish to this group.
    pub packages: List<Pattern, 64>,
    /// Names that its packages may provide beside their own.
    pub provides: List<Pattern, 64>,
    /// Unpacked bytes of one release at the most; 0 is no limit of its own.
    pub release_bytes_max: u64,
}

/// A group's document: who may publish to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupDoc {
    /// [`super::BODY_VERSION`].
    pub version: u8,
    /// 1, 2, 3 …
    pub number: u64,
    /// The hash of the previous document's body.
    pub prev: Option<ItemHash>,
    /// The group's name, never changed.
    pub name: GroupName,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it must have been renewed.
    pub expires: UnixSeconds,
    /// Who signs the next document.
    pub authority: Role,
    /// The publishers of this group.
    pub publishers: List<PublisherGrant, 64>,
    /// Who may deny content to this group's VMs, sorted by key.
    pub veto: List<VetoKey, 8>,
    /// Denials that end with this document. They stay lifted when a later one names them no more.
    pub lifts: List<Lift, 64>,
    /// The key that releases for this group are sealed with: the group is private. It is not there
    /// where neither it nor what follows has a value.
    #[serde(default, deserialize_with = "crate::delegated::last")]
    pub private: Option<GroupKeyId>,
    /// Seconds for which a beacon speaks to this group's VMs at the most, whatever it says itself.
    /// A feed without beacons is not fresh to them. It is not there where it has no value.
    #[serde(default, deserialize_with = "crate::delegated::last")]
    pub beacon_s: Option<u32>,
}

/// By hand for the sake of its end: bodies are what they were before there were such fields.
impl Serialize for GroupDoc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let last = match (self.private, self.beacon_s) {
            (None, None) => 0,
            (Some(_), None) => 1,
            (_, Some(_)) => 2,
        };
        let mut out = serializer.serialize_struct("GroupDoc", 10 + last)?;
        out.serialize_field("version", &self.version)?;
        out.serialize_field("number", &self.number)?;
        out.serialize_field("prev", &self.prev)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("issued", &self.issued)?;
        out.serialize_field("expires", &self.expires)?;
        out.serialize_field("authority", &self.authority)?;
        out.serialize_field("publishers", &self.publishers)?;
        out.serialize_field("veto", &self.veto)?;
        out.serialize_field("lifts", &self.lifts)?;
        if last > 0 {
            out.serialize_field("private", &self.private)?;
        }
        if last > 1 {
            out.serialize_field("beacon_s", &self.beacon_s)?;
        }
        out.end()
    }
}

/// A key of a group's security team.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VetoKey {
    /// The key.
    pub key: PublicKey,
    /// No denial signed at or after this time is accepted; those before stay in force.
    pub not_after: UnixSeconds,
}

/// The end of denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lift {
    /// Of one: what was signed later denies again.
    Denial {
        /// Its log.
        log: LogId,
        /// The last second whose denial is lifted.
        through: UnixSeconds,
    },
    /// Of all that this key has signed or will sign: it was stolen.
    AllBy(PublicKey),
}

impl Body for GroupDoc {
    const CONTEXT: &'static str = "group";
    const LEN_MAX: usize = DOC_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        check_chain(self.number, self.prev)?;
        self.authority.check("authority")?;
        let ids: Vec<_> = self.publishers.iter().map(|p| p.publisher).collect();
        check_sorted(&ids, "publishers")?;
        let keys: Vec<_> = self.veto.iter().map(|v| v.key).collect();
        check_sorted(&keys, "veto keys")?;
        if let Some(k) = keys.iter().find(|k| !is_sound(k)) {
            return Err(format!("veto key {} is weak or no key", k.short()));
        }
        match self.beacon_s {
            Some(s) if !(GROUP_BEACON_MIN_S..=BEACON_VALID_MAX_S).contains(&u64::from(s)) => {
                Err("beacons speak to a group for three minutes at least, a week at the most"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

impl GroupDoc {
    /// The group that this first document founds.
    #[must_use]
    pub fn group_id(&self) -> GroupId {
        GroupId::of(&encode(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charter_tests::{group, role};
    use crate::codec::decode;
    use crate::sign::Envelope;

    /// What has no value at the end is not there, so that documents of before are what they were;
    /// what is there where it must not be is no canonical form.
    #[test]
    fn the_end_of_a_document() {
        let plain = group(&role(&[1], 1));
        let key = GroupKeyId([7; 32]);
        let with = |private, beacon_s| GroupDoc { private, beacon_s, ..plain.clone() };
        let bytes = encode(&plain);
        let end = |doc: &GroupDoc| encode(doc).strip_prefix(&bytes[..]).unwrap().to_vec();
        assert_eq!(end(&with(None, None)), [0; 0]);
        assert_eq!(end(&with(Some(key), None)), [&[1][..], &[7; 32]].concat());
        assert_eq!(end(&with(None, Some(900))), [0, 1, 0x84, 7]);
        assert_eq!(end(&with(Some(key), Some(900))), [&[1][..], &[7; 32], &[1, 0x84, 7]].concat());
        for doc in [with(None, None), with(Some(key), None), with(Some(key), Some(900))] {
            assert_eq!(decode::<GroupDoc>(&encode(&doc), 10_000).unwrap(), doc);
        }
        assert_eq!(
            decode::<GroupDoc>(&encode(&with(None, Some(180))), 10_000).unwrap().beacon_s,
            Some(180)
        );
        for end in [&[0][..], &[0, 0], &[1], &[0, 1], &[0, 1, 0x84, 7, 0], &[0, 1, 0x84, 0x87, 0]] {
            assert!(decode::<GroupDoc>(&[&bytes, end].concat(), 10_000).is_err(), "{end:?}");
        }
    }

    /// A rule that no signer can keep, or that no beacon needs, is none.
    #[test]
    fn beacon_rules_that_are_refused() {
        let with = |s| GroupDoc { beacon_s: Some(s), ..group(&role(&[1], 1)) };
        for (s, good) in [(0, false), (179, false), (180, true), (604_800, true), (604_801, false)]
        {
            assert_eq!(Envelope::unsigned(&with(s)).is_ok(), good, "{s}");
        }
    }
}
