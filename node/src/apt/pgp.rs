//! OpenPGP as apt needs it: a certificate with one Ed25519 key, and cleartext signatures.
//!
//! apt takes no other signatures. Crates that speak OpenPGP bring a whole implementation, whose
//! reading half would be the largest parser of the daemon; external programs cannot be started by
//! it (sandbox) and are not on every host. What is written here are four packets of RFC 4880 with
//! the EdDSA of GnuPG 2.1 (2014): version 4 keys, since gpgv of Debian 12 and 13 knows no others.
//! Nothing is read. `gpgv` and `sqv` check it in tests.

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA512, digest};
use stork_wire::sign::SecretKey;

use super::EPOCH;

const TAG_SIGNATURE: u8 = 2;
const TAG_PUBLIC_KEY: u8 = 6;
const TAG_USER_ID: u8 = 13;
const EDDSA: u8 = 22;
const HASH_SHA512: u8 = 10;
const KIND_BYTES: u8 = 0x00;
const KIND_TEXT: u8 = 0x01;
const KIND_CERTIFICATION: u8 = 0x13;
/// 1.3.6.1.4.1.11591.15.1, with its length.
const ED25519: [u8; 10] = [9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
/// May certify and sign.
const KEY_FLAGS: u8 = 0x03;

/// The key that signs the repositories of a host.
#[derive(Debug)]
pub struct SigningKey {
    key: SecretKey,
    user: String,
}

fn short(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn long(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// A packet in the new format; ours are all shorter than 8 384 bytes.
fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0 | tag];
    match u8::try_from(body.len()) {
        Ok(len @ ..192) => out.push(len),
        _ => {
            let [high, low] = short(body.len() - 192);
            out.extend([high + 192, low]);
        }
    }
    out.extend_from_slice(body);
    out
}

/// A large number: its bits and its bytes without leading zeros.
fn number(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    let bytes = bytes.get(start..).unwrap_or_default();
    let bits = bytes.first().map_or(0, |b| bytes.len() * 8 - b.leading_zeros() as usize);
    let mut out = short(bits).to_vec();
    out.extend_from_slice(bytes);
    out
}

fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len() + 1).unwrap_or(u8::MAX);
    [&[len, kind], body].concat()
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    digest(algorithm, &parts.concat()).as_ref().to_vec()
}

impl SigningKey {
    /// A key from its seed, for a host of that name.
    #[must_use]
    pub fn new(seed: &[u8; 32], host: &str) -> Self {
        // Brackets would be read as an address, and controls change a terminal.
        let plain = |c: &char| !c.is_control() && !matches!(c, '<' | '>' | '(' | ')');
        let host: String = host.chars().filter(plain).take(100).collect();
        Self { key: SecretKey::from_seed(seed), user: format!("stork repositories of {host}") }
    }

    fn public(&self) -> Vec<u8> {
        let mut out = vec![4];
        out.extend(EPOCH.to_be_bytes());
        out.push(EDDSA);
        out.extend(ED25519);
        // 0x40 says that the point is in its native form.
        out.extend(number(&[&[0x40], self.key.public().as_bytes().as_slice()].concat()));
        out
    }

    /// The body of the key as it goes into hashes.
    fn hashed_public(&self) -> Vec<u8> {
        let body = self.public();
        [&[0x99], short(body.len()).as_slice(), &body].concat()
    }

    /// The fingerprint: what a version 4 key is named by.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 20] {
        let bytes = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&self.hashed_public()]);
        bytes.try_into().unwrap_or_default()
    }

    fn signature(&self, kind: u8, extra: &[u8], signed: &[&[u8]]) -> Vec<u8> {
        let fingerprint = self.fingerprint();
        let hashed = [
            subpacket(33, &[&[4], fingerprint.as_slice()].concat()),
            subpacket(2, &EPOCH.to_be_bytes()),
            extra.to_vec(),
        ]
        .concat();
        let mut out = vec![4, kind, EDDSA, HASH_SHA512];
        out.extend(short(hashed.len()));
        out.extend(hashed);
        let trailer = [&[4, 0xff], long(out.len()).as_slice()].concat();
        let mut parts = signed.to_vec();
        parts.extend([out.as_slice(), &trailer]);
        let digest = hash(&SHA512, &parts);
        let issuer = subpacket(16, fingerprint.get(12..).unwrap_or_default());
        let (r, s) = {
            let signature = self.key.sign(&digest).0;
            (number(&signature[..32]), number(&signature[32..]))
        };
        out.extend(short(issuer.len()));
        out.extend(issuer);
        out.extend(digest.get(..2).unwrap_or_default());
        out.extend([r, s].concat());
        packet(TAG_SIGNATURE, &out)
    }

    /// The certificate for `signed-by`, in its text form.
    #[must_use]
    pub fn certificate(&self) -> String {
        let user = self.user.as_bytes();
        let hashed_user = [&[0xb4], long(user.len()).as_slice(), user].concat();
        let flags = subpacket(27, &[KEY_FLAGS]);
        let signed: [&[u8]; 2] = [&self.hashed_public(), &hashed_user];
        let bytes = [
            packet(TAG_PUBLIC_KEY, &self.public()),
            packet(TAG_USER_ID, user),
            self.signature(KIND_CERTIFICATION, &flags, &signed),
        ]
        .concat();
        armor("PUBLIC KEY BLOCK", &bytes)
    }

    /// A signature of some bytes, which stands beside them.
    #[must_use]
    pub fn detached(&self, bytes: &[u8]) -> String {
        armor("SIGNATURE", &self.signature(KIND_BYTES, &[], &[bytes]))
    }

    /// A text with its signature, as an `InRelease` is. The text must end with a newline, and have
    /// no blanks at the end of a line: those are not signed.
    #[must_use]
    pub fn clearsign(&self, text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let signed = lines.iter().map(|l| l.trim_end()).collect::<Vec<_>>().join("\r\n");
        let signature = self.signature(KIND_TEXT, &[], &[signed.as_bytes()]);
        let mut out = String::from("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n");
        for line in lines {
            out.push_str(if line.starts_with('-') { "- " } else { "" });
            out.push_str(line);
            out.push('\n');
        }
        out.push_str(&armor("SIGNATURE", &signature));
        out
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = (bits >> (18 - 6 * i)) & 63;
            let digit = usize::try_from(digit).ok().and_then(|d| DIGITS.get(d));
            let there = i <= group.len();
            out.push(if there { digit.map_or('=', |d| char::from(*d)) } else { '=' });
        }
    }
    out
}

/// The checksum of RFC 4880 §6.1.
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc: u32 = 0x00b7_04ce;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    crc & 0x00ff_ffff
}

fn armor(what: &str, bytes: &[u8]) -> String {
    let mut out = format!("-----BEGIN PGP {what}-----\n\n");
    let text = base64(bytes);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, later) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = later;
    }
    let sum = crc24(bytes).to_be_bytes();
    out.push_str(&format!("={}\n-----END PGP {what}-----\n", base64(&sum[1..])));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of numbers and of text, by examples of RFC 4880 and RFC 4648.
    #[test]
    fn small_forms() {
        assert_eq!(number(&[1]), [0, 1, 1]);
        assert_eq!(number(&[0, 1, 0xff]), [0, 9, 1, 0xff]);
        assert_eq!(number(&[0, 0]), [0, 0]);
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
        assert_eq!(crc24(b""), 0x00b7_04ce);
        assert_eq!(crc24(b"123456789"), 0x0021_cf02, "CRC-24/OPENPGP");
        assert_eq!(packet(2, &[0; 200])[..3], [0xc2, 192, 8]);
    }

    /// The same key and text give the same bytes, and another text does not.
    #[test]
    fn signatures_are_the_same_again() {
        let key = SigningKey::new(&[7; 32], "host-1 <a@b>");
        assert_eq!(key.user, "stork repositories of host-1 a@b");
        assert_eq!(key.clearsign("a\n"), key.clearsign("a\n"));
        assert_ne!(key.clearsign("a\n"), key.clearsign("b\n"));
        assert!(key.clearsign("-a\n").contains("\n- -a\n"));
    }
}
