//! Announcements for private groups: a release that only holders of the group's key can read.
//!
//! A sealed release stands in its publisher's feed like any other, so that every host passes it
//! on, chains it and counts it; what it says is ciphertext for all but those who have the key. Its
//! hash is of the ciphertext: nobody can try guesses against it. The group's document names the
//! key by its hash, so that whoever is given a key can tell whether it is the right one.
//!
//! The cipher is ChaCha20-Poly1305 (RFC 8439) by `ring`. Each release has a key of its own, made
//! from the group's, a random salt, the group and the publisher: so the nonce is always zero, and
//! a ciphertext that another publisher copies does not open.

use core::fmt;
use std::collections::BTreeMap;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec::{Blob, decode, encode};
use crate::feed::{Entry, Kind, Release};
use crate::ids::{GroupId, GroupKeyId, PublisherId, ReleaseHash, de_bytes, hex, ser_bytes, unhex};
use crate::limits::{ENTRY_LEN_MAX, GROUP_KEYS_MAX};
use crate::text::PackageName;

/// How the text of a key file begins.
const KEY_PREFIX: &str = "stork-group-key1-";
/// What is sealed is filled up to a multiple of so many bytes: its length says little.
const STEP: usize = 256;
/// Bytes before the release: its length.
const HEAD: usize = 2;
/// Bytes of a sealed release without its tag: more does not fit into an entry.
const PLAIN_LEN_MAX: usize = ENTRY_LEN_MAX - 3 * STEP;
/// Bytes that the cipher adds.
const TAG: usize = 16;
/// Longest ciphertext.
const SEALED_LEN_MAX: usize = PLAIN_LEN_MAX + TAG;

/// The key of a private group; its memory is cleared when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey([u8; 32]);

impl Drop for GroupKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for GroupKey {}

impl GroupKey {
    /// The key with these bytes, which must be random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The bytes, to write them into a key file; cleared when dropped.
    #[must_use]
    pub fn bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }
    /// The key as the text of a key file; cleared when dropped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{KEY_PREFIX}{}\n", *Zeroizing::new(hex(&self.0))))
    }
    /// Reads the text of a key file; `None` where it is anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix(KEY_PREFIX)?;
        let bytes = Zeroizing::new(unhex(digits)?);
        <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Self)
    }
    /// The id by which documents name it.
    #[must_use]
    pub fn id(&self) -> GroupKeyId {
        GroupKeyId::of(&self.0)
    }

    /// The cipher for one release; none where the library refuses the key, which it never does.
    fn cipher(&self, sealed: &Sealed, publisher: PublisherId) -> Option<LessSafeKey> {
        let mut hasher = blake3::Hasher::new_derive_key("stork 2026 sealed release v1");
        hasher.update(&self.0).update(&sealed.salt);
        hasher.update(sealed.group.as_bytes()).update(publisher.as_bytes());
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).ok().map(LessSafeKey::new)
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupKey({})", self.id().short())
    }
}

impl Serialize for GroupKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        ser_bytes(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for GroupKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        de_bytes(d).map(Self)
    }
}

/// The keys that somebody has, by their ids; no more than [`GROUP_KEYS_MAX`].
#[derive(Debug, Clone, Default)]
pub struct Keyring(BTreeMap<GroupKeyId, GroupKey>);

impl Keyring {
    /// Keeps a key. False where it was there, or there is no room.
    pub fn add(&mut self, key: GroupKey) -> bool {
        let id = key.id();
        if self.0.len() >= GROUP_KEYS_MAX || self.0.contains_key(&id) {
            return false;
        }
        self.0.insert(id, key).is_none()
    }
    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: &GroupKeyId) -> Option<&GroupKey> {
        self.0.get(id)
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &GroupKey> {
        self.0.values()
    }
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a release could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is longer than an entry may be.
    #[error("a release of {0} bytes does not fit into a sealed announcement")]
    TooLong(usize),
    /// The key is not here.
    #[error("the key of its group is not here")]
    NoKey,
    /// The bytes were not sealed with this key, for this group, by this publisher.
    #[error("it does not open with its group's key")]
    DoesNotOpen,
    /// What was sealed is no release for that group.
    #[error("what was sealed is no release: {0}")]
    NoRelease(String),
}

/// A release that only holders of a group's key can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The one group that it is for.
    pub group: GroupId,
    /// The key, by its hash.
    pub key: GroupKeyId,
    /// Random: with the group's key it makes the key of this release.
    #[serde(serialize_with = "ser_bytes", deserialize_with = "de_bytes")]
    salt: [u8; 16],
    bytes: Blob<SEALED_LEN_MAX>,
    /// What was read from it here; no part of what is signed or sent.
    #[serde(skip)]
    opened: Option<Box<Release>>,
}

impl Sealed {
    /// Seals a release for its one group; `salt` must be random.
    pub fn seal(
        release: &Release,
        publisher: PublisherId,
        key: &GroupKey,
        salt: [u8; 16],
    ) -> Result<Self, SealError> {
        let [group] = release.groups[..] else {
            return Err(SealError::NoRelease("it is not for one group".into()));
        };
        let body = encode(release);
        let too_long = || SealError::TooLong(body.len());
        let len = u16::try_from(body.len()).map_err(|_e| too_long())?;
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes.resize(bytes.len().next_multiple_of(STEP), 0);
        if bytes.len() > PLAIN_LEN_MAX {
            return Err(too_long());
        }
        let empty = Blob::default();
        let mut sealed = Self { group, key: key.id(), salt, bytes: empty, opened: None };
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let cipher = key.cipher(&sealed, publisher).ok_or(SealError::DoesNotOpen)?;
        let done = cipher.seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes);
        done.map_err(|_e| too_long())?;
        sealed.bytes = Blob::new(bytes).map_err(|_e| too_long())?;
        Ok(sealed)
    }

    /// The hash that the view root commits to, and by which the release is recalled: of the
    /// ciphertext.
    #[must_use]
    pub fn hash(&self) -> ReleaseHash {
        let mut bytes = b"sealed".to_vec();
        bytes.extend_from_slice(&encode(self));
        ReleaseHash::of(&bytes)
    }

    /// The name under which a sealed release is withdrawn, since its own would tell what it is.
    #[must_use]
    pub fn cover() -> Option<PackageName> {
        "sealed".parse().ok()
    }

    /// Shape only: what does not open is found by who has the key.
    pub(crate) fn check(&self) -> Result<(), String> {
        let plain = self.bytes.len().saturating_sub(TAG);
        if plain == 0 || !plain.is_multiple_of(STEP) {
            return Err(format!("a sealed release of {} bytes", self.bytes.len()));
        }
        Ok(())
    }

    /// Reads the release, which must be for this group alone.
    pub fn read(&self, publisher: PublisherId, keys: &Keyring) -> Result<Release, SealError> {
        let key = keys.get(&self.key).ok_or(SealError::NoKey)?;
        // So that one release with one salt is sealed in one way.
        self.check().map_err(SealError::NoRelease)?;
        let cipher = key.cipher(self, publisher).ok_or(SealError::DoesNotOpen)?;
        let mut bytes = self.bytes.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let plain = cipher.open_in_place(nonce, Aad::empty(), &mut bytes);
        let plain = plain.map_err(|_e| SealError::DoesNotOpen)?;
        let bad = |why: &str| SealError::NoRelease(why.to_owned());
        let (len, rest) = plain.split_first_chunk::<HEAD>().ok_or_else(|| bad("too short"))?;
        let len = usize::from(u16::from_le_bytes(*len));
        let (body, fill) = rest.split_at_checked(len).ok_or_else(|| bad("it breaks off"))?;
        if fill.len() >= STEP || fill.iter().any(|b| *b != 0) {
            return Err(bad("it is not filled up with zeros"));
        }
        let release: Release =
            decode(body, PLAIN_LEN_MAX).map_err(|e| SealError::NoRelease(e.to_string()))?;
        release.check().map_err(SealError::NoRelease)?;
        if release.groups[..] != [self.group] {
            return Err(bad("it is for another group"));
        }
        Ok(release)
    }

    /// Keeps what was read from it.
    pub fn set_opened(&mut self, release: Release) {
        self.opened = Some(Box::new(release));
    }

    /// What was read from it here.
    #[must_use]
    pub fn opened(&self) -> Option<&Release> {
        self.opened.as_deref()
    }
}

impl Entry {
    /// What it releases, if it releases anything and that can be read here.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        match &self.kind {
            Kind::Release(r) => Some(r),
            Kind::Recall(_) | Kind::Retire(_) => None,
            Kind::Sealed(s) => s.opened(),
        }
    }
    /// The hash of what it releases, if it releases anything, also what cannot be read here.
    #[must_use]
    pub fn release_hash(&self) -> Option<ReleaseHash> {
        match &self.kind {
            Kind::Release(r) => Some(r.hash()),
            Kind::Recall(_) | Kind::Retire(_) => None,
            Kind::Sealed(s) => Some(s.hash()),
        }
    }
    /// The sealed release that it announces.
    #[must_use]
    pub fn sealed(&self) -> Option<&Sealed> {
        match &self.kind {
            Kind::Sealed(s) => Some(s),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::tests::release_entry;
    use crate::sign::Envelope;

    fn release() -> Release {
        release_entry().release().unwrap().clone()
    }

    fn key(n: u8) -> GroupKey {
        GroupKey::from_bytes([n; 32])
    }

    fn ring(keys: impl IntoIterator<Item = GroupKey>) -> Keyring {
        let mut all = Keyring::default();
        keys.into_iter().for_each(|k| assert!(all.add(k)));
        all
    }

    const OPS: PublisherId = PublisherId([7; 32]);

    /// T112: what was sealed opens with its group's key, for its publisher, and not otherwise; no
    /// byte of the name stands in it.
    #[test]
    fn t112_only_holders_of_the_key_read_it() {
        let sealed = Sealed::seal(&release(), OPS, &key(1), [9; 16]).unwrap();
        assert_eq!(sealed.read(OPS, &ring([key(1), key(2)])), Ok(release()));
        assert_eq!(sealed.read(OPS, &ring([key(2)])), Err(SealError::NoKey));
        let copied = sealed.read(PublisherId([8; 32]), &ring([key(1)]));
        assert_eq!(copied, Err(SealError::DoesNotOpen));
        let bytes = encode(&sealed);
        assert!(!bytes.windows(5).any(|w| w == b"hello"));
        let other = Sealed { group: GroupId([2; 32]), ..sealed.clone() };
        assert_eq!(other.read(OPS, &ring([key(1)])), Err(SealError::DoesNotOpen));
        let twice = Sealed::seal(&release(), OPS, &key(1), [8; 16]).unwrap();
        assert_ne!((twice.hash(), &twice.bytes), (sealed.hash(), &sealed.bytes));
        assert_ne!(sealed.hash(), release().hash(), "guesses cannot be tried against it");
    }

    /// Each byte that is changed is found, by the cipher or by the decoder.
    #[test]
    fn t112_a_changed_byte_does_not_open() {
        let sealed = Sealed::seal(&release(), OPS, &key(1), [9; 16]).unwrap();
        let bytes = encode(&sealed);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            if let Ok(bad) = decode::<Sealed>(&bad, ENTRY_LEN_MAX) {
                assert!(bad.read(OPS, &ring([key(1)])).is_err(), "byte {at}");
            }
        }
    }

    /// The longest release that fits is an entry still; lengths come in steps.
    #[test]
    fn t112_lengths_say_little_and_fit() {
        let mut long = release();
        let line = "x".repeat(200);
        let mut sizes = std::collections::BTreeSet::new();
        for n in 0..60 {
            let lines = (0..n).map(|i| format!("{line}{i}").parse().unwrap());
            long.depends = crate::codec::List::truncated(lines);
            match Sealed::seal(&long, OPS, &key(1), [9; 16]) {
                Ok(sealed) => {
                    sizes.insert(sealed.bytes.len());
                    let kind = Kind::Sealed(Box::new(sealed));
                    let entry = Entry { kind, ..release_entry() };
                    assert!(Envelope::unsigned(&entry).is_ok(), "{n} lines");
                }
                Err(e) => assert!(matches!(e, SealError::TooLong(_)), "{e}"),
            }
        }
        assert!(sizes.len() > 5 && sizes.iter().all(|len| (len - TAG).is_multiple_of(STEP)));
    }

    /// T111: keys are cleared when dropped, and not printed.
    #[test]
    fn t111_group_keys_are_cleared() {
        const fn clears<T: ZeroizeOnDrop>(_: &T) {}
        clears(&key(1));
        clears(&key(1).to_text());
        assert_eq!(GroupKey::from_text(&key(1).to_text()), Some(key(1)));
        assert!(GroupKey::from_text("stork-group-key1-00").is_none());
        assert!(!format!("{:?}", key(0xab)).contains("abab"));
        let mut all = Keyring::default();
        assert!(all.add(key(1)) && !all.add(key(1)));
        for n in 2..=255 {
            all.add(key(n));
        }
        assert_eq!(all.len(), GROUP_KEYS_MAX);
    }

    /// The bytes of a sealed release, so that a change of the format is seen.
    #[test]
    fn golden_vectors() {
        let sealed = Sealed::seal(&release(), OPS, &key(1), [9; 16]).unwrap();
        let bytes = encode(&sealed);
        let head = format!("{}{}{}9002", "01".repeat(32), key(1).id(), "09".repeat(16));
        assert!(hex(&bytes).starts_with(&head), "{}", hex(&bytes));
        assert_eq!(hex(&blake3::derive_key("stork test", &bytes)), GOLDEN);
    }

    const GOLDEN: &str = "17446342a1bb7954bceaf643be9e602b4cbd55e1efac7302b4f9903c6bb58d92";
}
