//! What only holders of a group's key read: key files, sealed releases, and what was sealed in
//! them, which whoever has the key may have made of any bytes.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use stork_wire::codec::{Blob, decode, encode};
use stork_wire::ids::{GroupId, PublisherId};
use stork_wire::limits::ENTRY_LEN_MAX;
use stork_wire::seal::{GroupKey, Keyring, Sealed};

use super::samples::{group_key, release};
use super::{feature, kind_of};

const GROUP: GroupId = GroupId([1; 32]);
const PUBLISHER: PublisherId = PublisherId([7; 32]);
const SALT: [u8; 16] = [9; 16];

/// Seals any bytes, as docs/PROTOCOL.md has it: written from there, not by the code under test.
fn seal(mut plain: Vec<u8>) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("stork 2026 sealed release v1");
    hasher.update(&*group_key().bytes()).update(&SALT);
    hasher.update(GROUP.as_bytes()).update(PUBLISHER.as_bytes());
    let key = UnboundKey::new(&CHACHA20_POLY1305, hasher.finalize().as_bytes()).unwrap();
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::empty(), &mut plain).unwrap();
    head_of(plain)
}

/// The bytes of a sealed release with this ciphertext.
fn head_of(bytes: Vec<u8>) -> Vec<u8> {
    let blob = Blob::<{ ENTRY_LEN_MAX }>::new(bytes).unwrap_or_default();
    [encode(&(GROUP, group_key().id())), SALT.to_vec(), encode(&blob)].concat()
}

/// The first byte says whether the rest is a sealed release, or what is sealed in one.
pub(super) fn sealed(data: &[u8]) -> String {
    let Some((kind, rest)) = data.split_first() else { return feature("nothing", 0) };
    let ours = kind % 2 == 1;
    let bytes = if ours { seal(rest.to_vec()) } else { rest.to_vec() };
    let sealed: Sealed = match decode(&bytes, ENTRY_LEN_MAX) {
        Ok(sealed) => sealed,
        Err(e) => return feature(&kind_of(&e), data.len()),
    };
    assert_eq!(encode(&sealed), bytes);
    let mut keys = Keyring::default();
    keys.add(group_key());
    match sealed.read(PUBLISHER, &keys) {
        Ok(release) => {
            let again = Sealed::seal(&release, PUBLISHER, &group_key(), SALT).unwrap();
            assert_eq!(encode(&again), bytes, "one release is sealed in two ways");
            feature(&format!("read {ours}"), data.len())
        }
        Err(e) => feature(&format!("{ours} {}", kind_of(&e)), data.len()),
    }
}

pub(super) fn sealed_samples() -> Vec<Vec<u8>> {
    let release = release(GROUP, 1);
    let whole = Sealed::seal(&release, PUBLISHER, &group_key(), SALT).unwrap();
    let body = encode(&release);
    let mut plain = u16::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    plain.extend(body);
    plain.resize(plain.len().next_multiple_of(256), 0);
    assert_eq!(seal(plain.clone()), encode(&whole), "the two ways to seal agree");
    vec![[&[0], &*encode(&whole)].concat(), [&[1], &*plain].concat()]
}

/// The text of a key file.
pub(super) fn group_key_file(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match GroupKey::from_text(&text) {
        Some(key) => {
            assert!(key.to_text().trim().eq_ignore_ascii_case(text.trim()), "two texts");
            assert!(!format!("{key:?}").contains(text.trim()));
            feature("key", data.len())
        }
        None => feature("no key", data.len()),
    }
}

pub(super) fn group_key_files() -> Vec<Vec<u8>> {
    vec![group_key().to_text().as_bytes().to_vec(), b"stork-group-key1-00".to_vec()]
}
