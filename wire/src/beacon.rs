//! Beacons: what a publisher says of its feed's head now and then, so that a host can tell silence
//! from being cut off (attack A5).
//!
//! A beacon is signed by one of the beacon keys of the publisher's document, on a node that is
//! always on. Its counter is the number of its item, and the time in seconds at which it was made:
//! a signer that lost its memory never counts below what hosts have seen, and a stolen key cannot
//! run so far ahead that the owner's next beacon would come too late.

use serde::{Deserialize, Serialize};

use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::ids::{ItemHash, LogId, PublisherId};
use crate::item::{Item, ItemKind, is_moment};
use crate::limits::{BEACON_LEN_MAX, BEACON_VALID_MAX_S};
use crate::sign::{Body, Envelope};

/// The newest entry of a feed's open epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeaconHead {
    /// Its number.
    pub seq: u64,
    /// The hash of its body.
    pub hash: ItemHash,
}

/// A statement about a feed's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// Whose feed it is.
    pub publisher: PublisherId,
    /// The feed's open epoch.
    pub epoch: u32,
    /// The newest entry of that epoch; `None`: it has none yet.
    pub head: Option<BeaconHead>,
    /// Rises with every beacon of the publisher; a time in seconds, not later than `time`.
    pub counter: u64,
    /// When it was made.
    pub time: UnixSeconds,
    /// Until when it speaks.
    pub expires: UnixSeconds,
}

impl Beacon {
    /// The item that carries it in its envelope.
    #[must_use]
    pub fn item(&self, envelope: Envelope) -> Item {
        let log = LogId::beacon(self.publisher);
        Item { kind: ItemKind::Beacon, log, seq: self.counter, envelope }
    }
}

impl Body for Beacon {
    const CONTEXT: &'static str = "beacon";
    const LEN_MAX: usize = BEACON_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if self.epoch == 0 || self.head.is_some_and(|h| h.seq == 0) {
            return Err("epochs and entries are numbered from 1".into());
        }
        if !is_moment(self.counter) || self.counter > self.time {
            return Err("the counter is a time, and not later than the beacon's".into());
        }
        let valid = self.expires.saturating_sub(self.time);
        if valid == 0 || valid > BEACON_VALID_MAX_S {
            return Err("a beacon is good for a second at least, and a week at the most".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;
    use crate::ids::{FleetId, hex};
    use crate::sign::SecretKey;

    fn beacon() -> Beacon {
        Beacon {
            version: 1,
            publisher: PublisherId([7; 32]),
            epoch: 2,
            head: Some(BeaconHead { seq: 300, hash: ItemHash([3; 32]) }),
            counter: 1_800_000_000,
            time: 1_800_000_001,
            expires: 1_800_003_600,
        }
    }

    /// The bytes of the body, so that a change of the format is seen.
    #[test]
    fn golden_vectors() {
        let (id, hash) = ("07".repeat(32), "03".repeat(32));
        let rest = "80a4a7da0681a4a7da0690c0a7da06";
        assert_eq!(hex(&encode(&beacon())), format!("01{id}0201ac02{hash}{rest}"));
        let none = Beacon { head: None, ..beacon() };
        assert_eq!(hex(&encode(&none)), format!("01{id}0200{rest}"));
        assert_eq!(hex(&encode(&ItemKind::Beacon)), "05");
        assert_eq!(LogId::beacon(beacon().publisher).short(), "651496e941");
    }

    /// Two beacons of one second are one to all heads; another number is another one.
    #[test]
    fn beacons_of_one_second_have_one_hash() {
        let signed = |b: &Beacon, n: u8| {
            let key = SecretKey::from_seed(&[n; 32]);
            b.item(Envelope::sign(b, FleetId([1; 32]), &key).unwrap())
        };
        let (a, b) = (signed(&beacon(), 1), signed(&beacon(), 2));
        assert_ne!(a, b);
        assert_eq!(a.hash(), b.hash());
        let later = Beacon { counter: 1_800_000_001, ..beacon() };
        assert_ne!(signed(&later, 1).hash(), a.hash());
    }

    /// What contradicts itself: a counter ahead of its time, or below all times, a life of nothing
    /// or of years.
    #[test]
    fn beacons_that_are_refused() {
        let bad = [
            Beacon { version: 2, ..beacon() },
            Beacon { epoch: 0, ..beacon() },
            Beacon { counter: 1_800_000_002, ..beacon() },
            Beacon { counter: 7, ..beacon() },
            Beacon { expires: 1_800_000_001, ..beacon() },
            Beacon { expires: 1_900_000_000, ..beacon() },
            Beacon { head: Some(BeaconHead { seq: 0, hash: ItemHash([0; 32]) }), ..beacon() },
        ];
        assert!(beacon().check().is_ok());
        assert!(bad.iter().all(|b| b.check().is_err()));
    }
}
