//! Key suicide: whoever holds a release key ends it for ever, with one signature by this key.
//!
//! It is for the hour in which a key is known to be stolen and the publisher's root is not at hand:
//! what the key signed in the feed's open epoch counts no more, wherever it comes from and whenever
//! it was signed. It proves itself, needs no document and cannot be taken back. A key that can be
//! killed by its thief is no loss to anybody but the thief.

use serde::{Deserialize, Serialize};

use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::ids::{LogId, PublicKey};
use crate::item::{Item, ItemKind};
use crate::limits::NARROW_LEN_MAX;
use crate::sign::{Body, Envelope, is_sound};
use crate::text::Line;

/// The end of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suicide {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// The key, which signs this.
    pub key: PublicKey,
    /// When it was signed, for people: the key is dead at all times.
    pub signed_at: UnixSeconds,
    /// Why, for people.
    pub reason: Line,
}

impl Suicide {
    /// The item that carries it in its envelope.
    #[must_use]
    pub fn item(&self, envelope: Envelope) -> Item {
        let log = LogId::suicide(self.key);
        Item { kind: ItemKind::Suicide, log, seq: 1, envelope }
    }
}

impl Body for Suicide {
    const CONTEXT: &'static str = "suicide";
    const LEN_MAX: usize = NARROW_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if is_sound(&self.key) { Ok(()) } else { Err("the key is weak or no key".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;
    use crate::ids::{FleetId, hex};
    use crate::sign::SecretKey;

    /// The bytes of the body and its log, so that a change of the format is seen; two of one key
    /// are one to all heads.
    #[test]
    fn golden_vectors() {
        let key = SecretKey::from_seed(&[5; 32]);
        let body = |reason: &str| Suicide {
            version: 1,
            key: key.public(),
            signed_at: 1_800_000_000,
            reason: reason.parse().unwrap(),
        };
        let golden = format!("01{}80a4a7da0606{}", key.public(), hex(b"stolen"));
        assert_eq!(hex(&encode(&body("stolen"))), golden);
        let item = |b: &Suicide| b.item(Envelope::sign(b, FleetId([1; 32]), &key).unwrap());
        let (a, b) = (item(&body("stolen")), item(&body("lost")));
        assert_eq!((a.log.short().as_str(), a.log.is_first()), ("36d9af4dd9", true));
        assert_eq!((a.log, a.seq, a.hash()), (b.log, 1, b.hash()));
        assert_eq!(hex(&encode(&ItemKind::Suicide)), "07");
    }

    /// A key of small order could be killed by anybody: none is.
    #[test]
    fn weak_keys_have_no_suicide() {
        let mut weak = [0; 32];
        weak[0] = 1;
        let reason = "x".parse().unwrap();
        let body = Suicide { version: 1, key: PublicKey(weak), signed_at: 1, reason };
        assert!(body.check().is_err());
    }
}
