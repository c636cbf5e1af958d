//! Signatures: the only place that calls the signature library.
//!
//! What is signed is `"stork-sig-v1\0" ‖ len ‖ context ‖ fleet id ‖ len ‖ body`, so that a
//! signature for one kind of body, or for one fleet, is never good for another (attack A28), and
//! the prefix can never be mistaken for what an SSH client signs (that begins with a length of four
//! bytes). A [`Verified`] value can be made only here.

use core::cell::LazyCell;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::codec::{Blob, DecodeError, List, decode, encode};
use crate::ids::{FleetId, ItemHash, KeyId, PublicKey, de_bytes, ser_bytes};
use crate::limits::{DOC_LEN_MAX, SIGNATURES_MAX};

/// A body that can be signed: its context, its bound and what must hold in itself.
pub trait Body: Serialize + DeserializeOwned + Clone {
    /// Separates this kind of body from every other.
    const CONTEXT: &'static str;
    /// Bytes of the encoded body at the most.
    const LEN_MAX: usize;
    /// Checks what can be checked without any other knowledge.
    fn check(&self) -> Result<(), String>;
}

/// One signature with the id of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySignature {
    /// Which key signed.
    pub key: KeyId,
    /// The 64 bytes of RFC 8032.
    pub signature: SignatureBytes,
}

/// The 64 bytes of an Ed25519 signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureBytes(pub [u8; 64]);

impl Serialize for SignatureBytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        ser_bytes(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for SignatureBytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        de_bytes(d).map(Self)
    }
}

/// A body as bytes with its signatures. The bytes are kept and forwarded, never encoded again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The exact signed bytes.
    pub body: Blob<DOC_LEN_MAX>,
    /// Sorted by key id, each key once.
    pub signatures: List<KeySignature, SIGNATURES_MAX>,
}

/// Why a signed body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The body does not decode, or not to the same bytes.
    #[error("the signed body is {0}")]
    Decode(DecodeError),
    /// The body decodes, but contradicts itself.
    #[error("the signed body is invalid: {0}")]
    Invalid(String),
    /// Signatures are not sorted, or a key signs twice.
    #[error("the signatures are not sorted by key, each key once")]
    SignatureOrder,
    /// None of the signatures is by a key that may sign this.
    #[error("none of the signing keys may sign this")]
    UnknownKey,
    /// A key that may sign this is named, but its signature is wrong.
    #[error("a signature is wrong")]
    BadSignature,
    /// Fewer good signatures by distinct keys than required.
    #[error("{good} good signatures by distinct keys, {needed} are needed")]
    ThresholdNotMet {
        /// Good signatures by distinct public keys.
        good: usize,
        /// The threshold.
        needed: usize,
    },
}

impl From<DecodeError> for VerifyError {
    fn from(e: DecodeError) -> Self {
        Self::Decode(e)
    }
}

/// A body that was read and not believed yet, with the hash of its bytes. Only an envelope makes
/// one, and only the same bytes can be verified with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed<T> {
    body: T,
    hash: ItemHash,
    /// Signatures of these bytes that were found good ahead.
    good: Vec<Good>,
}

/// A signature that is good, by a key that may be worth nothing. Made by [`Envelope::read_ahead`]
/// alone, and kept with the body that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Good {
    fleet: FleetId,
    key: PublicKey,
    signature: SignatureBytes,
}

impl<T> Claimed<T> {
    /// What the body says.
    pub const fn body(&self) -> &T {
        &self.body
    }
    /// The hash of its bytes.
    pub const fn hash(&self) -> ItemHash {
        self.hash
    }
}

/// A body whose signatures were checked against the keys of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    body: T,
    hash: ItemHash,
    signers: Vec<PublicKey>,
}

impl<T> Verified<T> {
    /// The checked body.
    pub const fn body(&self) -> &T {
        &self.body
    }
    /// The hash of its bytes.
    pub const fn hash(&self) -> ItemHash {
        self.hash
    }
    /// The keys of the role whose signatures are good. An envelope may name others: whoever passes
    /// it on can add signatures that are worth nothing (attack A19).
    pub fn signers(&self) -> &[PublicKey] {
        &self.signers
    }
    /// The body alone.
    pub fn into_body(self) -> T {
        self.body
    }
}

impl Envelope {
    /// The hash of the signed bytes, which names this item in chains.
    #[must_use]
    pub fn hash(&self) -> ItemHash {
        ItemHash::of(&self.body)
    }

    /// Reads the body without believing it: to learn which keys must have signed.
    pub fn claimed<T: Body>(&self) -> Result<T, VerifyError> {
        let body: T = decode(&self.body, T::LEN_MAX)?;
        body.check().map_err(VerifyError::Invalid)?;
        Ok(body)
    }

    /// The same with the hash of the bytes, so that [`Self::verify_read`] need not read them again.
    pub fn read<T: Body>(&self) -> Result<Claimed<T>, VerifyError> {
        Ok(Claimed { body: self.claimed()?, hash: self.hash(), good: Vec::new() })
    }

    /// The same with the signatures checked that are by keys which `of` knows by their ids. Whose
    /// signatures are wanted the rules decide later: [`Self::verify_read`] then does not compute
    /// again what was good here, and checks all others as ever.
    pub fn read_ahead<'k, T: Body>(
        &self,
        fleet: FleetId,
        of: impl Fn(KeyId) -> Option<&'k ReadyKey>,
    ) -> Result<Claimed<T>, VerifyError> {
        let mut read = self.read::<T>()?;
        let message = signed_bytes(T::CONTEXT, fleet, &self.body);
        for KeySignature { key, signature } in &self.signatures {
            if let Some(ready) = of(*key)
                && ready.verifies(&message, signature)
            {
                read.good.push(Good { fleet, key: ready.key, signature: *signature });
            }
        }
        Ok(read)
    }

    /// Checks that at least `threshold` distinct keys of `keys` signed this body in this fleet.
    ///
    /// A wrong signature beside enough good ones does no harm (test T007).
    pub fn verify<T: Body>(
        &self,
        fleet: FleetId,
        keys: &[PublicKey],
        threshold: usize,
    ) -> Result<Verified<T>, VerifyError> {
        let ready: Vec<ReadyKey> = keys.iter().map(|k| ReadyKey::new(*k)).collect();
        self.verify_read(self.read()?, fleet, &ready, threshold)
    }

    /// The same for a body that was read from this envelope, by keys that were made ready.
    pub fn verify_read<T: Body>(
        &self,
        read: Claimed<T>,
        fleet: FleetId,
        keys: &[ReadyKey],
        threshold: usize,
    ) -> Result<Verified<T>, VerifyError> {
        let Claimed { body, hash, good: ahead } = read;
        if hash != self.hash() {
            return Err(VerifyError::Invalid("it is the body of another envelope".into()));
        }
        if !self.signatures.windows(2).all(|w| matches!(w, [a, b] if a.key < b.key)) {
            return Err(VerifyError::SignatureOrder);
        }
        let message = LazyCell::new(|| signed_bytes(T::CONTEXT, fleet, &self.body));
        let checks = |key: &ReadyKey, signature: SignatureBytes| {
            let done = Good { fleet, key: key.key, signature };
            ahead.contains(&done) || key.verifies(&message, &signature)
        };
        let mut good: Vec<PublicKey> = Vec::new();
        let mut known = 0usize;
        for s in &self.signatures {
            let Some(key) = keys.iter().find(|k| k.id == s.key) else { continue };
            known += 1;
            if !good.contains(&key.key) && checks(key, s.signature) {
                good.push(key.key);
            }
        }
        let needed = threshold.max(1);
        match () {
            () if good.len() >= needed => Ok(Verified { body, hash, signers: good }),
            () if known == 0 => Err(VerifyError::UnknownKey),
            () if good.is_empty() => Err(VerifyError::BadSignature),
            () => Err(VerifyError::ThresholdNotMet { good: good.len(), needed }),
        }
    }

    /// Adds a signature, in its place; a second one by the same key replaces the first.
    ///
    /// # Errors
    /// When there are already [`SIGNATURES_MAX`] signatures.
    pub fn add(&mut self, key: PublicKey, signature: SignatureBytes) -> Result<(), VerifyError> {
        let mut all: Vec<KeySignature> = self.signatures.to_vec();
        let key = key.key_id();
        all.retain(|s| s.key != key);
        all.push(KeySignature { key, signature });
        all.sort_by_key(|s| s.key);
        self.signatures = List::new(all).map_err(|e| VerifyError::Invalid(e.to_string()))?;
        Ok(())
    }

    /// An envelope without signatures yet.
    ///
    /// # Errors
    /// When the body breaks its own rules or is longer than its kind allows.
    pub fn unsigned<T: Body>(body: &T) -> Result<Self, VerifyError> {
        body.check().map_err(VerifyError::Invalid)?;
        let bytes = encode(body);
        let len = bytes.len();
        if len > T::LEN_MAX {
            return Err(DecodeError::TooLong { len, max: T::LEN_MAX }.into());
        }
        let body = Blob::new(bytes).map_err(|e| VerifyError::Invalid(e.to_string()))?;
        Ok(Self { body, signatures: List::empty() })
    }

    /// Signs a body with a key that is at hand.
    pub fn sign<T: Body>(body: &T, fleet: FleetId, key: &SecretKey) -> Result<Self, VerifyError> {
        let mut envelope = Self::unsigned(body)?;
        let message = signed_bytes(T::CONTEXT, fleet, &envelope.body);
        envelope.add(key.public(), key.sign(&message))?;
        Ok(envelope)
    }
}

/// The bytes that are signed for a body; also what is handed to an ssh-agent.
#[must_use]
pub fn signed_bytes(context: &str, fleet: FleetId, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + context.len() + body.len());
    out.extend_from_slice(b"stork-sig-v1\0");
    for part in [context.as_bytes(), fleet.as_bytes(), body] {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// A public key with its point and its id, which take a tenth of a check to find: for a key that
/// will check much.
#[derive(Debug, Clone)]
pub struct ReadyKey {
    key: PublicKey,
    id: KeyId,
    /// `None`: the bytes are no point, and nothing is signed by them.
    point: Option<VerifyingKey>,
}

impl ReadyKey {
    /// Makes a key ready.
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        Self { key, id: key.key_id(), point: VerifyingKey::from_bytes(key.as_bytes()).ok() }
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Strict RFC 8032 verification of raw bytes: refuses small-order keys and non-canonical points
    /// and scalars. What is [`Verified`] is made by [`Envelope::verify`] alone.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        let signature = Signature::from_bytes(&signature.0);
        self.point.as_ref().is_some_and(|p| p.verify_strict(message, &signature).is_ok())
    }
}

/// May this key be enrolled? Refuses what is no point, and points of small order (test T053).
#[must_use]
pub fn is_sound(key: &PublicKey) -> bool {
    VerifyingKey::from_bytes(key.as_bytes())
        .is_ok_and(|k| !k.is_weak() && k.to_edwards().is_torsion_free())
}

/// A private key; its memory is cleared when dropped.
pub struct SecretKey(SigningKey);

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SecretKey(of {})", self.public().short())
    }
}

impl SecretKey {
    /// The key of a 32-byte seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }
    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
    /// Signs raw bytes, which must come from [`signed_bytes`] or a TLS handshake.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> SignatureBytes {
        SignatureBytes(self.0.sign(message).to_bytes())
    }
    /// The 32-byte seed, to write it into a key file; cleared when dropped.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beacon::Beacon;
    use crate::charter::BODY_VERSION;
    use crate::ids::PublisherId;
    use rustls::SignatureScheme;
    use rustls::crypto::ring::default_provider;
    use zeroize::ZeroizeOnDrop;

    /// T111: keys and seeds clear their memory when they are dropped; the compiler says so.
    #[test]
    fn t111_keys_are_cleared() {
        const fn clears<T: ZeroizeOnDrop>(_: &T) {}
        let key = SecretKey::from_seed(&[7; 32]);
        clears(&key.0);
        clears(&key.seed());
        assert_eq!(format!("{key:?}"), format!("SecretKey(of {})", key.public().short()));
    }

    /// What was checked ahead counts for the same bytes, key, signature and fleet alone; what was
    /// not, or was wrong, is checked as ever.
    #[test]
    fn what_was_checked_ahead() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let ready = [&key, &other].map(|k| ReadyKey::new(k.public()));
        let (here, elsewhere) = (FleetId([1; 32]), FleetId([2; 32]));
        let body = |time: u64| Beacon {
            version: BODY_VERSION,
            publisher: PublisherId([3; 32]),
            epoch: 1,
            head: None,
            counter: 1_800_000_000,
            time: 1_800_000_000 + time,
            expires: 1_800_000_001 + time,
        };
        let envelope = Envelope::sign(&body(1), here, &key).unwrap();
        let all = |id| ready.iter().find(|k| k.id == id);
        let read = envelope.read_ahead::<Beacon>(here, all).unwrap();
        assert_eq!(read.good.len(), 1);
        let by = |read: &Claimed<_>, keys: &[ReadyKey]| {
            envelope.verify_read(read.clone(), here, keys, 1).map(|v| v.signers().to_vec())
        };
        assert_eq!(by(&read, &ready), Ok(vec![key.public()]));
        // A good signature says nothing of who may sign, nor for another fleet.
        assert_eq!(by(&read, &ready[1..]), Err(VerifyError::UnknownKey));
        let foreign = envelope.verify_read(read.clone(), elsewhere, &ready, 1);
        assert_eq!(foreign.unwrap_err(), VerifyError::BadSignature);
        // It stays with its body.
        let second = Envelope::sign(&body(2), here, &other).unwrap();
        assert!(second.verify_read(read, here, &ready, 1).is_err());
        // A wrong one is not kept, and found wrong again; so is one by a key that nobody knew.
        let mut wrong = envelope.clone();
        wrong.add(key.public(), SignatureBytes([7; 64])).unwrap();
        let read = wrong.read_ahead::<Beacon>(here, all).unwrap();
        assert!(read.good.is_empty());
        let found = wrong.verify_read(read, here, &ready, 1);
        assert_eq!(found.unwrap_err(), VerifyError::BadSignature);
        let unknown = envelope.read_ahead::<Beacon>(here, |_| None).unwrap();
        assert!(unknown.good.is_empty());
        assert_eq!(by(&unknown, &ready), Ok(vec![key.public()]));
    }

    /// The library computes with AVX-512, with AVX2 or plainly, as the processor can. Another
    /// library agrees with it, on good signatures and on those of which one bit is wrong.
    #[test]
    fn another_library_agrees() {
        let all = default_provider().signature_verification_algorithms.mapping;
        let ed25519 = all.iter().find(|(s, _)| *s == SignatureScheme::ED25519).unwrap().1[0];
        for i in 0..250u8 {
            let key = SecretKey::from_seed(&[i; 32]);
            let ready = ReadyKey::new(key.public());
            let message = vec![i; usize::from(i) * 5];
            let good = key.sign(&message);
            let other = |signature: &SignatureBytes| {
                ed25519.verify_signature(&ready.key.0, &message, &signature.0).is_ok()
            };
            assert!(ready.verifies(&message, &good) && other(&good), "seed {i}");
            let (mut r, mut s) = (good, good);
            r.0[usize::from(i) % 32] ^= 1 << (i % 8);
            s.0[32 + usize::from(i) % 32] ^= 1 << (i % 8);
            for bad in [r, s] {
                assert!(!ready.verifies(&message, &bad) && !other(&bad), "seed {i}");
            }
        }
    }
}
