//! The content of a release as its publisher packed it, and peers that serve it with lies.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use stork_publisher::pack::pack;
use stork_publisher::progress::Progress;
use stork_publisher::source::{ReadOptions, read};
use stork_wire::feed::ManifestRef;
use stork_wire::frame::{Bits, BulkHeader, Frame, TransferFrame};
use stork_wire::ids::SwarmId;
use stork_wire::limits::{GRANT_TTL_MS_MAX, MANIFEST_PIECE_LEN};
use stork_wire::manifest::{Manifest, Variant, manifest_pieces};

use super::{Deed, Manners, Pace};

/// Grants that a peer gives at the most after one was not used.
const GRANTS_MAX: u32 = 200;

/// How a peer lies about bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It does not.
    No,
    /// One bit is another.
    Flipped,
    /// More bytes than announced.
    Longer,
    /// Fewer bytes than announced.
    Shorter,
    /// The header announces another length than was signed.
    OtherLen,
}

/// A release's content.
#[derive(Debug, Clone)]
pub struct Content {
    /// The manifest's bytes.
    pub bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// How an entry names it.
    pub reference: ManifestRef,
    /// Its full pieces, in order.
    pub pieces: Vec<Vec<u8>>,
}

impl Content {
    /// Packs a folder as `stork-publish push` does.
    #[must_use]
    pub fn of_folder(folder: &Path, name: &str, version: &str) -> Self {
        let options = ReadOptions {
            name: Some(name.parse().unwrap()),
            version: Some(version.parse().unwrap()),
            arch: Some("all".parse().unwrap()),
            ..ReadOptions::default()
        };
        let package = read(folder, &options).unwrap();
        let packed = pack(&package, None, &Progress::Silent).unwrap();
        let piece_len = usize::try_from(packed.manifest.packing.piece_len).unwrap();
        let mut pieces = Vec::new();
        for pack in packed.manifest.packing.packs(Variant::Full) {
            let bytes = fs::read(packed.packs.path(&pack.id)).unwrap();
            pieces.extend(bytes.chunks(piece_len).map(<[u8]>::to_vec));
        }
        let reference = Manifest::reference(&packed.bytes);
        Self { bytes: packed.bytes, manifest: packed.manifest, reference, pieces }
    }

    /// The swarm of its full packs.
    #[must_use]
    pub fn swarm(&self) -> SwarmId {
        SwarmId::for_variant(self.reference.id, Variant::Full)
    }

    /// Opens the swarm as somebody who has all of it.
    #[must_use]
    pub fn open(&self) -> TransferFrame {
        let pieces = u32::try_from(self.pieces.len()).unwrap();
        TransferFrame::Open {
            swarm: self.swarm(),
            pieces,
            have: Bits::from_pieces(0..pieces, pieces),
        }
    }

    /// The stream that carries the manifest.
    #[must_use]
    pub fn manifest_stream(&self, lie: Lie) -> Vec<u8> {
        let manifest = self.reference.id;
        let mut body = Vec::new();
        if self.reference.size > MANIFEST_PIECE_LEN {
            body.extend(manifest_pieces(&self.bytes));
        }
        body.extend(&self.bytes);
        let len = self.reference.size;
        let header = |len| BulkHeader::Manifest { manifest, len };
        told(body, lie, header(len), header(len + 1))
    }

    /// The stream that carries a piece.
    #[must_use]
    pub fn piece_stream(&self, piece: u32, lie: Lie) -> Vec<u8> {
        let body = self.pieces.get(usize::try_from(piece).unwrap()).unwrap().clone();
        let len = u32::try_from(body.len()).unwrap();
        let header = |len| BulkHeader::Piece { swarm: self.swarm(), piece, len };
        told(body, lie, header(len), header(len + 1))
    }
}

fn told(mut body: Vec<u8>, lie: Lie, right: BulkHeader, wrong: BulkHeader) -> Vec<u8> {
    let mut header = right;
    match lie {
        Lie::No => {}
        Lie::Flipped => {
            let middle = body.len() / 2;
            body.iter_mut().skip(middle).take(1).for_each(|b| *b ^= 0x10);
        }
        Lie::Longer => body.push(0),
        Lie::Shorter => drop(body.pop()),
        Lie::OtherLen => header = wrong,
    }
    let mut out = header.to_bytes();
    out.extend(body);
    out
}

/// Serves a content: says that it has all of it, grants, and sends what is asked for, with these
/// lies about the manifest and about pieces.
#[must_use]
pub fn server(content: &Arc<Content>, manifest: Lie, piece: Lie) -> Manners {
    serve(content, manifest, piece, None)
}

/// Serves a content without a lie, but each piece at this pace.
#[must_use]
pub fn slow_server(content: &Arc<Content>, pace: Pace) -> Manners {
    serve(content, Lie::No, Lie::No, Some(pace))
}

fn serve(content: &Arc<Content>, manifest: Lie, lie: Lie, pace: Option<Pace>) -> Manners {
    let content = Arc::clone(content);
    let (id, swarm) = (content.reference.id, content.swarm());
    let mut grants = 0;
    let say = |frame| Deed::Send(Frame::Transfer(frame));
    Box::new(move |frame| {
        let Frame::Transfer(frame) = frame else { return Vec::new() };
        let grant = || say(TransferFrame::Grant { swarm, ttl_ms: GRANT_TTL_MS_MAX });
        match frame {
            TransferFrame::Interest(m) if *m == id => vec![say(TransferFrame::HasManifest(id))],
            TransferFrame::GetManifest(m) if *m == id => {
                vec![Deed::Bulk(content.manifest_stream(manifest))]
            }
            TransferFrame::Open { swarm: s, .. } if *s == swarm => {
                vec![say(content.open()), grant()]
            }
            TransferFrame::Request { swarm: s, piece } if *s == swarm => {
                let stream = content.piece_stream(*piece, lie);
                let deed = match pace {
                    Some(pace) => Deed::Badly(stream, pace),
                    None => Deed::Bulk(stream),
                };
                vec![deed, grant()]
            }
            TransferFrame::Pass(s) if *s == swarm && grants < GRANTS_MAX => {
                grants += 1;
                vec![grant()]
            }
            _ => Vec::new(),
        }
    })
}
