//! Feed entries: what a publisher announces, one numbered and chained entry after the other.
//!
//! Design §4 "Feeds". One feed per publisher; the groups that a release is for are inside its
//! entry.

use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::codec::{List, encode};
use crate::ids::{
    GroupId, ItemHash, ManifestId, NodeId, PieceHash, Position, PublisherId, ReleaseHash, TreeId,
    ViewRoot,
};
use crate::limits::{
    DEPENDS_MAX, ENTRY_LEN_MAX, MANIFEST_LEN_MAX, PROVIDES_MAX, RELEASE_GROUPS_MAX,
    TREE_ENTRIES_MAX, UNPACKED_LEN_MAX,
};
use crate::retire::Retire;
use crate::seal::Sealed;
use crate::sign::{Body, Envelope};
use crate::text::{Arch, Line, PackageName, Version};

/// One signed entry of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// Whose feed this is.
    pub publisher: PublisherId,
    /// Raised only by the publisher's root role.
    pub epoch: u32,
    /// 1, 2, 3 … within the epoch.
    pub seq: u64,
    /// The hash of the previous entry's body; for the first of a later epoch, of the entry after
    /// which that epoch begins. `None` where there is none.
    pub prev: Option<ItemHash>,
    /// The number of the publisher document under which this was signed.
    pub document: u64,
    /// When it was signed.
    pub signed_at: UnixSeconds,
    /// From then on it is not installed anew.
    pub expires: UnixSeconds,
    /// Commits to all releases that are live after it: neither withdrawn nor retired.
    pub view_root: ViewRoot,
    /// What is announced.
    pub kind: Kind,
    /// The certificate of the delegated key that signs this; `None`: a release key does. It is not
    /// there where it has no value.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::delegated::last"
    )]
    pub via: Option<Box<Envelope>>,
}

/// What an entry announces. Kinds are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A new release.
    Release(Box<Release>),
    /// Withdraws releases.
    Recall(Recall),
    /// A new release for a private group, which only holders of the group's key can read.
    Sealed(Box<Sealed>),
    /// Releases that make room: they stay where they are shown, and are installed nowhere anew.
    Retire(Retire),
}

/// Size and hash of a blob that is fetched whole and checked piece by piece: pieces of
/// [`crate::limits::MANIFEST_PIECE_LEN`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// The hash of the whole.
    pub id: ManifestId,
    /// Its exact size in bytes.
    pub size: u64,
    /// The hash over the list of its pieces' hashes.
    pub pieces: PieceHash,
}

/// The delta that a release offers to those who hold one base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaOffer {
    /// The tree that a host must hold whole.
    pub base: TreeId,
    /// Bytes to fetch.
    pub bytes: u64,
}

/// One version of one package for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The package.
    pub package: PackageName,
    /// Its version, ordered by Debian's rules.
    pub version: Version,
    /// The machine it is for, or `all`.
    pub arch: Arch,
    /// Rises with every release of this package, whatever its version says.
    pub release: u64,
    /// Releases of this package below this counter must not be installed any more.
    pub min_secure_release: u64,
    /// The groups that it is for, sorted.
    pub groups: List<GroupId, RELEASE_GROUPS_MAX>,
    /// What a VM is shown.
    pub tree: TreeId,
    /// The manifest.
    pub manifest: ManifestRef,
    /// Bytes of the full packs.
    pub full_bytes: u64,
    /// The delta, if one is offered.
    pub delta: Option<DeltaOffer>,
    /// Bytes of all files once unpacked.
    pub unpacked_bytes: u64,
    /// Entries of the tree.
    pub files: u32,
    /// What the package needs, in the package's own words, one alternative group each.
    pub depends: List<Line, DEPENDS_MAX>,
    /// Names that it provides beside its own.
    pub provides: List<PackageName, PROVIDES_MAX>,
    /// How soon it matters.
    pub urgency: Urgency,
    /// Nodes that have the content on disk when this is announced: where a host turns last.
    pub origins: List<NodeId, 4>,
    /// The bundle that it belongs to, if it does not stand alone.
    pub bundle: Option<Box<Bundle>>,
}

/// How soon a release matters; orders transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Urgency {
    /// Closes a hole.
    Security,
    /// Soon.
    Urgent,
    /// As usual.
    Normal,
    /// When nothing else is to do.
    Background,
}

/// Withdraws releases of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// The package.
    pub package: PackageName,
    /// The release counters that are withdrawn.
    pub releases: List<u64, 64>,
    /// Why, for people.
    pub reason: Line,
}

impl Release {
    /// The hash that the view root commits to.
    #[must_use]
    pub fn hash(&self) -> ReleaseHash {
        ReleaseHash::of(&encode(self))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let m = &self.manifest;
        if m.size == 0 || m.size > MANIFEST_LEN_MAX {
            return Err(format!("a manifest of {} bytes", m.size));
        }
        if self.unpacked_bytes > UNPACKED_LEN_MAX || self.full_bytes > UNPACKED_LEN_MAX {
            return Err("more than 64 GiB".into());
        }
        if self.files as usize > TREE_ENTRIES_MAX {
            return Err("too many files".into());
        }
        if self.groups.is_empty() {
            return Err("is for no group".into());
        }
        if !self.groups.windows(2).all(|w| matches!(w, [a, b] if a < b)) {
            return Err("groups are not sorted, or twice the same".into());
        }
        if self.release == 0 {
            return Err("releases are counted from 1".into());
        }
        if self.min_secure_release > self.release {
            // It would shut out releases that are yet to come, for ever.
            return Err("its floor lies above its own number".into());
        }
        self.bundle.as_ref().map_or(Ok(()), |b| b.check(&self.package))
    }
}

impl Entry {
    /// Its place in the feed.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }
}

impl Body for Entry {
    const CONTEXT: &'static str = "entry";
    /// Room is left for two signatures in [`ENTRY_LEN_MAX`].
    const LEN_MAX: usize = ENTRY_LEN_MAX - 256;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if self.seq == 0 {
            return Err("entries are numbered from 1".into());
        }
        if self.epoch == 0 {
            return Err("epochs are numbered from 1".into());
        }
        let first = self.seq == 1;
        if (!first && self.prev.is_none()) || (first && self.epoch == 1 && self.prev.is_some()) {
            return Err("every entry but the first names its predecessor".into());
        }
        if self.expires <= self.signed_at {
            return Err("expires before it is signed".into());
        }
        if let Some(via) = &self.via {
            crate::delegated::check_shape(via)?;
            if matches!(self.kind, Kind::Recall(_) | Kind::Retire(_)) {
                return Err("a delegated key recalls and retires nothing".into());
            }
        }
        match &self.kind {
            Kind::Release(r) => r.check(),
            Kind::Recall(r) if r.releases.is_empty() => Err("recalls nothing".into()),
            Kind::Recall(_) => Ok(()),
            Kind::Sealed(s) => s.check(),
            Kind::Retire(r) => r.check(self.position()),
        }
    }
}

/// The view root over the hashes of all live releases, in any order.
#[must_use]
pub fn view_root(live: impl IntoIterator<Item = ReleaseHash>) -> ViewRoot {
    let mut all: Vec<ReleaseHash> = live.into_iter().collect();
    all.sort_unstable();
    all.dedup();
    let mut bytes = Vec::with_capacity(all.len() * 32);
    for h in all {
        bytes.extend_from_slice(h.as_bytes());
    }
    ViewRoot::of(&bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::FleetId;
    use crate::sign::{ReadyKey, SecretKey, VerifyError, signed_bytes};

    /// The view root is of the set, not of its order.
    #[test]
    fn view_root_ignores_order() {
        let (a, b) = (ReleaseHash([1; 32]), ReleaseHash([2; 32]));
        assert_eq!(view_root([a, b]), view_root([b, a, b]));
        assert_ne!(view_root([a]), view_root([a, b]));
    }

    pub(crate) fn a_recall() -> Recall {
        Recall {
            package: "hello".parse().unwrap(),
            releases: List::truncated([1]),
            reason: "why".parse().unwrap(),
        }
    }

    /// An entry with a release.
    pub(crate) fn release_entry() -> Entry {
        let release = Release {
            package: "hello".parse().unwrap(),
            version: "1".parse().unwrap(),
            arch: "all".parse().unwrap(),
            release: 1,
            min_secure_release: 0,
            groups: List::truncated([GroupId([1; 32])]),
            tree: TreeId([2; 32]),
            manifest: ManifestRef {
                id: ManifestId([3; 32]),
                size: 100,
                pieces: PieceHash([4; 32]),
            },
            full_bytes: 100,
            delta: None,
            unpacked_bytes: 200,
            files: 3,
            depends: List::empty(),
            provides: List::empty(),
            urgency: Urgency::Normal,
            origins: List::empty(),
            bundle: None,
        };
        Entry { kind: Kind::Release(Box::new(release)), ..recall() }
    }

    pub(crate) fn recall() -> Entry {
        Entry {
            version: 1,
            publisher: PublisherId([7; 32]),
            epoch: 1,
            seq: 1,
            prev: None,
            document: 1,
            signed_at: 1,
            expires: 2,
            view_root: ViewRoot([9; 32]),
            kind: Kind::Recall(a_recall()),
            via: None,
        }
    }

    /// T047: an entry that was signed for another fleet, or as another kind of body, is not an
    /// entry of this fleet.
    #[test]
    fn t047_wrong_fleet_or_context() {
        let (key, fleet) = (SecretKey::from_seed(&[1; 32]), FleetId([1; 32]));
        let keys = [key.public()];
        let good = Envelope::sign(&recall(), fleet, &key).unwrap();
        assert!(good.verify::<Entry>(fleet, &keys, 1).is_ok());
        let elsewhere = good.verify::<Entry>(FleetId([2; 32]), &keys, 1);
        assert_eq!(elsewhere.unwrap_err(), VerifyError::BadSignature);
        for context in ["beacon", "publisher", "proof", ""] {
            let mut other = Envelope::unsigned(&recall()).unwrap();
            let message = signed_bytes(context, fleet, &other.body);
            other.add(key.public(), key.sign(&message)).unwrap();
            let r = other.verify::<Entry>(fleet, &keys, 1);
            assert_eq!(r.unwrap_err(), VerifyError::BadSignature, "{context}");
        }
    }

    /// What was read from one envelope is never verified by the signature of another one.
    #[test]
    fn a_read_body_stays_with_its_envelope() {
        let (key, fleet) = (SecretKey::from_seed(&[1; 32]), FleetId([1; 32]));
        let good = Envelope::sign(&recall(), fleet, &key).unwrap();
        let other = Envelope::sign(&Entry { signed_at: 0, ..recall() }, fleet, &key).unwrap();
        let verified = |e: &Envelope, by: &Envelope| {
            by.verify_read(e.read::<Entry>().unwrap(), fleet, &[ReadyKey::new(key.public())], 1)
        };
        assert_eq!(verified(&good, &good).unwrap().hash(), good.hash());
        assert!(matches!(verified(&good, &other), Err(VerifyError::Invalid(_))));
    }

    /// T048: bytes that are not the one encoding of an entry are refused as such, although a good
    /// signature over these very bytes lies beside them: before any signature is looked at.
    #[test]
    fn t048_no_second_encoding_of_an_entry() {
        let (key, fleet) = (SecretKey::from_seed(&[1; 32]), FleetId([1; 32]));
        let good = encode(&recall());
        let at = |part: &[u8]| good.windows(part.len()).position(|w| w == part).unwrap();
        let (kind, text) = (at(b"\x05hello") - 1, at(b"why"));
        let forms: [(&str, usize, &[u8]); 5] = [
            ("long varint", 0, &[0x81, 0]),
            ("no such kind", kind, &[9]),
            ("invalid UTF-8", text, &[0xff]),
            ("control character", text, &[7]),
            ("option 2", 35, &[2]),
        ];
        assert_eq!(good[35], 0, "the option of `prev` stands where the test thinks");
        let mut bad: Vec<(&str, Vec<u8>)> = forms
            .map(|(what, i, new)| {
                let mut bytes = good.clone();
                bytes.splice(i..=i, new.iter().copied());
                (what, bytes)
            })
            .into();
        bad.push(("trailing byte", good.iter().copied().chain([0]).collect()));
        for (what, bytes) in bad {
            let mut e = Envelope {
                body: crate::codec::Blob::new(bytes).unwrap(),
                signatures: List::empty(),
            };
            for signed in [false, true] {
                if signed {
                    let message = signed_bytes(Entry::CONTEXT, fleet, &e.body);
                    e.add(key.public(), key.sign(&message)).unwrap();
                }
                let r = e.verify::<Entry>(fleet, &[key.public()], 1);
                assert!(matches!(r, Err(VerifyError::Decode(_))), "{what}: {r:?}");
            }
        }
    }
}
