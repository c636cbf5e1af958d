//! Decoders of bytes from strangers: what they accept is canonical, so that it encodes to the same
//! bytes again, and what they refuse is refused without a panic.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stork_wire::beacon::Beacon;
use stork_wire::charter::{
    GroupDoc, HostCert, JoinToken, PeerRecord, PublisherDoc, PushCert, RootDoc,
};
use stork_wire::codec::{DecodeError, decode, encode};
use stork_wire::delegated::Delegated;
use stork_wire::deny::Denial;
use stork_wire::feed::Entry;
use stork_wire::frame::{BulkHeader, Frame, PushReply, PushRequest};
use stork_wire::grant::HostGrant;
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::{DOC_LEN_MAX, FRAME_LEN_MAX, PUSH_FRAME_LEN_MAX};
use stork_wire::manifest::{Manifest, Variant};
use stork_wire::permit::DowngradePermit;
use stork_wire::proof::Proof;
use stork_wire::sign::{Body, Envelope};
use stork_wire::suicide::Suicide;
use stork_wire::withdrawal::Withdrawal;

use super::samples::{FLEET, key};
use super::{feature, kind_of};

/// Bytes of an envelope at the most: a body and sixteen signatures.
const ENVELOPE_LEN_MAX: usize = DOC_LEN_MAX + 2_048;

fn canonical<T: Serialize + DeserializeOwned>(data: &[u8], max: usize) -> Result<T, DecodeError> {
    let value: T = decode(data, max)?;
    assert!(data.len() <= max, "{} bytes were accepted", data.len());
    assert_eq!(encode(&value), data, "it was accepted, but is not canonical");
    Ok(value)
}

pub(super) fn frame(data: &[u8]) -> String {
    match Frame::from_bytes(data, FRAME_LEN_MAX) {
        Ok(f) => {
            assert_eq!(f.to_bytes(), data);
            assert!(!format!("{f:?}").is_empty());
            feature(f.name(), data.len())
        }
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

pub(super) fn bulk(data: &[u8]) -> String {
    match BulkHeader::from_bytes(data) {
        Ok(header) => {
            let bytes = header.to_bytes();
            assert_eq!(bytes.get(2..), Some(data));
            assert_eq!(bytes.first().map(|n| usize::from(*n)), Some(data.len()));
            feature("header", data.len())
        }
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

pub(super) fn push_request(data: &[u8]) -> String {
    match canonical::<PushRequest>(data, PUSH_FRAME_LEN_MAX) {
        Ok(r) => feature(&format!("{:?}", core::mem::discriminant(&r)), data.len()),
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

pub(super) fn push_reply(data: &[u8]) -> String {
    match canonical::<PushReply>(data, PUSH_FRAME_LEN_MAX) {
        Ok(r) => feature(&format!("{:?}", core::mem::discriminant(&r)), data.len()),
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

/// An envelope as every kind of body: whatever it claims, and whoever is asked for.
fn looked_at(envelope: &Envelope) -> String {
    let keys = [key(1).public(), key(2).public(), key(3).public()];
    let mut seen = format!("{} signatures:", envelope.signatures.len());
    let mut note = |what: &str, r: Result<(), String>| {
        if r.is_ok() {
            seen.push_str(what);
        }
    };
    macro_rules! each {
        ($($body:ty),*) => {$(
            let name = <$body as Body>::CONTEXT;
            let claimed = envelope.claimed::<$body>();
            note(name, claimed.as_ref().map(|_| ()).map_err(kind_of));
            for threshold in [0, 1, 2, usize::MAX] {
                let good = envelope.verify::<$body>(FLEET, &keys, threshold);
                assert!(good.is_err() || claimed.is_ok(), "{name}: verified, but not valid");
                let enough = threshold <= envelope.signatures.len();
                assert!(good.is_err() || enough, "{name}: too few signatures were enough");
                if let Ok(good) = good {
                    assert_eq!(good.hash(), envelope.hash());
                    note("!", Ok(()));
                }
            }
        )*};
    }
    each!(RootDoc, GroupDoc, PublisherDoc, Entry, Proof, HostCert, PeerRecord, PushCert);
    each!(JoinToken, Beacon, Denial, Suicide, Withdrawal, DowngradePermit, Delegated);
    each!(HostGrant);
    seen
}

pub(super) fn envelope(data: &[u8]) -> String {
    match canonical::<Envelope>(data, ENVELOPE_LEN_MAX) {
        Ok(e) => feature(&looked_at(&e), data.len()),
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

pub(super) fn item(data: &[u8]) -> String {
    match canonical::<Item>(data, FRAME_LEN_MAX) {
        Ok(item) => {
            let own = item.kind.is_first() || item.kind == ItemKind::Beacon;
            assert!(own || item.hash() == item.envelope.hash());
            feature(item.kind.name(), data.len())
        }
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

/// The first byte says as which kind of body the rest is read.
pub(super) fn body(data: &[u8]) -> String {
    fn one<T: Body + core::fmt::Debug>(data: &[u8]) -> String {
        match canonical::<T>(data, T::LEN_MAX) {
            Ok(body) => {
                let checked = body.check();
                assert_eq!(Envelope::unsigned(&body).is_ok(), checked.is_ok());
                let checked = checked.map_or_else(|e| kind_of(&e), |()| "valid".into());
                feature(&format!("{} {checked}", T::CONTEXT), data.len())
            }
            Err(e) => feature(&format!("{} {}", T::CONTEXT, kind_of(&e)), data.len()),
        }
    }
    let Some((kind, rest)) = data.split_first() else { return feature("nothing", 0) };
    match kind % 16 {
        0 => one::<RootDoc>(rest),
        1 => one::<GroupDoc>(rest),
        2 => one::<PublisherDoc>(rest),
        3 => one::<Entry>(rest),
        4 => one::<Proof>(rest),
        5 => one::<HostCert>(rest),
        6 => one::<PeerRecord>(rest),
        7 => one::<PushCert>(rest),
        8 => one::<JoinToken>(rest),
        9 => one::<Beacon>(rest),
        10 => one::<Denial>(rest),
        11 => one::<Suicide>(rest),
        12 => one::<Withdrawal>(rest),
        13 => one::<DowngradePermit>(rest),
        14 => one::<Delegated>(rest),
        _ => one::<HostGrant>(rest),
    }
}

pub(super) fn manifest(data: &[u8]) -> String {
    match Manifest::from_bytes(data) {
        Ok(m) => {
            // Those of the version before are read into the form of today.
            assert!(m.version == 1 || encode(&m) == data);
            let payload = m.tree.payload_len();
            for variant in [Variant::Full, Variant::Delta] {
                let packs = m.packing.packs(variant);
                let sum: u64 = packs.iter().map(|p| p.unpacked).sum();
                let all = variant == Variant::Full || m.version == 1;
                let right = if all { sum == payload } else { sum <= payload };
                assert!(packs.is_empty() || right, "{variant:?} holds {sum}");
                assert!(m.packing.bytes(variant) <= 2 * payload + 4_096 * packs.len() as u64);
            }
            for e in &m.tree.entries {
                assert!(!e.path.as_str().split('/').any(|p| matches!(p, "" | "." | "..")));
            }
            feature("manifest", data.len())
        }
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}
