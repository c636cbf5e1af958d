//! Delegated keys: a release key lets another key release some packages for some hours.
//!
//! A build machine should hold no key that is worth stealing for long. So it is given a key of its
//! own with a certificate, which travels inside of every entry that the key signs: no host needs
//! to have heard of either before. The certificate is of one epoch, and worth nothing when the
//! release key that signed it has ended itself. A delegated key releases, and does nothing else.

use serde::{Deserialize, Deserializer, Serialize};

use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::codec::{List, encode};
use crate::ids::{PublicKey, PublisherId};
use crate::limits::{DELEGATED_LEN_MAX, DELEGATED_VALID_MAX_S};
use crate::sign::{Body, Envelope, is_sound};
use crate::text::Pattern;

/// Signed by a release key: this key releases these packages between these times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// Whose releases.
    pub publisher: PublisherId,
    /// The feed's epoch: the certificate is worth nothing in another one.
    pub epoch: u32,
    /// The key.
    pub key: PublicKey,
    /// Package names that it may release, as far as the release key may itself.
    pub packages: List<Pattern, 8>,
    /// Nothing that claims an earlier time is taken from it.
    pub from: UnixSeconds,
    /// Nor what claims a later one.
    pub until: UnixSeconds,
}

impl Delegated {
    /// Has it begun, and not run out?
    #[must_use]
    pub const fn covers(&self, time: UnixSeconds) -> bool {
        self.from <= time && time <= self.until
    }
}

impl Body for Delegated {
    const CONTEXT: &'static str = "delegated key";
    /// Room is left for the signature in [`DELEGATED_LEN_MAX`].
    const LEN_MAX: usize = DELEGATED_LEN_MAX - 100;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if self.epoch == 0 {
            return Err("epochs are numbered from 1".into());
        }
        if self.packages.is_empty() {
            return Err("it is for no package".into());
        }
        if self.until <= self.from || self.until - self.from > DELEGATED_VALID_MAX_S {
            let hours = DELEGATED_VALID_MAX_S / 3_600;
            return Err(format!("a delegated key is good for {hours} hours at the most"));
        }
        if is_sound(&self.key) { Ok(()) } else { Err("the key is weak or no key".into()) }
    }
}

/// What can be said of a certificate without reading it: it is short, and of one signature.
pub(crate) fn check_shape(via: &Envelope) -> Result<(), String> {
    if via.signatures.len() != 1 {
        return Err("the certificate of a delegated key has one signature".into());
    }
    match encode(via).len() {
        len if len > DELEGATED_LEN_MAX => Err(format!("a certificate of {len} bytes")),
        _ => Ok(()),
    }
}

/// Reads the last field of a body, which is not there where it has no value: so bodies without one
/// are what they were before there was this field. A value that breaks off reads as none, and its
/// bytes are then no canonical form.
pub(crate) fn last<'de, T, D>(d: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(d).unwrap_or(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{Entry, Kind};
    use crate::ids::{FleetId, hex};
    use crate::sign::SecretKey;

    fn cert() -> Delegated {
        Delegated {
            version: 1,
            publisher: PublisherId([7; 32]),
            epoch: 2,
            key: SecretKey::from_seed(&[8; 32]).public(),
            packages: List::truncated(["ci-*".parse().unwrap()]),
            from: 1_800_000_000,
            until: 1_800_003_600,
        }
    }

    fn signed(cert: &Delegated) -> Envelope {
        Envelope::sign(cert, FleetId([1; 32]), &SecretKey::from_seed(&[5; 32])).unwrap()
    }

    /// The bytes of the certificate, so that a change of the format is seen; with its signature it
    /// takes few of an entry's.
    #[test]
    fn golden_vectors() {
        let golden =
            format!("01{}02{}010463692d2a80a4a7da0690c0a7da06", "07".repeat(32), cert().key);
        assert_eq!(hex(&encode(&cert())), golden);
        let envelope = signed(&cert());
        let len = encode(&envelope).len();
        assert_eq!(len, 180);
        assert!(check_shape(&envelope).is_ok());
        let longest = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|c| c.repeat(24));
        let packages = List::truncated(longest.iter().map(|p| p.parse().unwrap()));
        let long = signed(&Delegated { packages, epoch: u32::MAX, ..cert() });
        assert!(encode(&long).len() <= DELEGATED_LEN_MAX);
    }

    /// What contradicts itself, or would be good for a day, is refused.
    #[test]
    fn certificates_that_are_refused() {
        assert!(cert().check().is_ok());
        let mut weak = [0; 32];
        weak[0] = 1;
        let bad = [
            Delegated { version: 2, ..cert() },
            Delegated { epoch: 0, ..cert() },
            Delegated { packages: List::empty(), ..cert() },
            Delegated { until: cert().from, ..cert() },
            Delegated { until: cert().from + DELEGATED_VALID_MAX_S + 1, ..cert() },
            Delegated { from: u64::MAX, until: 0, ..cert() },
            Delegated { key: PublicKey(weak), ..cert() },
        ];
        assert!(bad.iter().all(|c| c.check().is_err()));
        assert!(cert().covers(cert().from) && cert().covers(cert().until));
        assert!(!cert().covers(cert().from - 1) && !cert().covers(cert().until + 1));
    }

    /// An entry without a certificate is what it was before there were any; one that says so by a
    /// byte, or whose certificate breaks off, is no canonical entry. A recall has none.
    #[test]
    fn the_last_field_of_an_entry() {
        let plain = crate::feed::tests::release_entry();
        let bytes = encode(&plain);
        let read = |bytes: &[u8]| crate::codec::decode::<Entry>(bytes, Entry::LEN_MAX);
        assert_eq!(read(&bytes).unwrap(), plain);
        let with = Entry { via: Some(Box::new(signed(&cert()))), ..plain.clone() };
        assert!(with.check().is_ok());
        let long = encode(&with);
        assert_eq!(read(&long).unwrap(), with);
        assert_eq!(long.len(), bytes.len() + 1 + 180);
        assert_eq!(long[..bytes.len()], bytes);
        assert_eq!(long[bytes.len()], 1);
        let said = [bytes.as_slice(), &[0]].concat();
        assert!(read(&said).is_err());
        for cut in bytes.len() + 1..long.len() {
            assert!(read(&long[..cut]).is_err(), "{cut}");
        }
        let recall = Entry { kind: Kind::Recall(crate::feed::tests::a_recall()), ..with };
        assert!(recall.check().is_err());
        let mut twice = signed(&cert());
        twice.add(PublicKey([3; 32]), twice.signatures[0].signature).unwrap();
        assert!(Entry { via: Some(Box::new(twice)), ..plain }.check().is_err());
    }
}
