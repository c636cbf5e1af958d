//! One valid frame of each type of the three protocols.

use stork_wire::codec::{Blob, encode};
use stork_wire::feed::ManifestRef;
use stork_wire::frame::{
    Bits, BulkHeader, Frame, Have, Hello, HelloAck, ItemRange, JoinReply, JoinRequest, LinkClass,
    OverlayFrame, PROTOCOL_VERSION, PackState, PushReply, PushRequest, Refusal, ShortLog,
    SketchCell, TransferFrame,
};
use stork_wire::ids::{
    LogId, ManifestId, NodeId, PackId, PieceHash, Position, ReleaseHash, SwarmId,
};
use stork_wire::item::Head;

use super::samples::{FLEET, Fleet, group_key, hint, list, push_cert, token_envelope};

fn hellos(fleet: &Fleet) -> Vec<Frame> {
    let class = LinkClass::Near;
    let hello =
        Hello { protocol: PROTOCOL_VERSION, fleet: FLEET, peer: hint(), class, starving: true };
    let ack = HelloAck { peer: hint(), class: LinkClass::Far, hints: list([hint()]) };
    let join = JoinRequest { token: token_envelope(), name: "host-8".parse().unwrap() };
    let admitted = JoinReply::Admitted {
        cert: hint().cert,
        roots: list(fleet.documents.iter().take(1).cloned()),
        peers: list([hint(), hint()]),
    };
    vec![
        Frame::Hello(Box::new(hello)),
        Frame::HelloAck(Box::new(ack)),
        Frame::Join(Box::new(join)),
        Frame::Joined(Box::new(admitted)),
        Frame::Joined(Box::new(JoinReply::Refused("no".parse().unwrap()))),
        Frame::Bye("good night".parse().unwrap()),
        Frame::KeysAsk(list([group_key().id()])),
        Frame::Keys(list([group_key()])),
    ]
}

fn overlay(fleet: &Fleet) -> Vec<OverlayFrame> {
    let (log, nonce, fingerprint) = (LogId([5; 32]), 7, [3; 8]);
    let items = fleet.feed(2);
    let item = Box::new(items[0].clone());
    let envelope = Box::new(items[0].envelope.clone());
    let head = Head { log, seq: 300, hash: [1; 8] };
    let range = ItemRange { log, from: 1, to: 256 };
    let short = ShortLog::of(&log);
    vec![
        OverlayFrame::Ping { nonce, fingerprint, class: LinkClass::Near, carries: 5 },
        OverlayFrame::Pong { nonce, fingerprint, class: LinkClass::Transient },
        OverlayFrame::Records(list([hint()])),
        OverlayFrame::Shuffle { nonce: 300, peers: list([hint(), hint()]) },
        OverlayFrame::ShuffleReply { nonce: 300, peers: list([hint()]) },
        OverlayFrame::Unlink,
        OverlayFrame::Push { hop: 2, age_ms: 40, entry: 9, item },
        OverlayFrame::Push { hop: 0, age_ms: 0, entry: 0, item: Box::new(fleet.later()) },
        OverlayFrame::IHave(list([
            Have::new(log, 9),
            Have { log, seq: 10, more: 3, waited_ms: 300 },
        ])),
        OverlayFrame::Graft { log, seq: 9 },
        OverlayFrame::Prune { log },
        OverlayFrame::Heads { heads: list([head]), last: true, answer: false },
        OverlayFrame::Fetch(list([range])),
        OverlayFrame::Items(list(items.into_iter().chain([fleet.later()]))),
        OverlayFrame::SketchAsk { start: 2, count: 14 },
        OverlayFrame::Sketch {
            fingerprint,
            logs: 100,
            start: 0,
            cells: list([SketchCell([4; 24]); 2]),
        },
        OverlayFrame::HeadsAsk(list([short])),
        OverlayFrame::Ahead(list([(short, 128)])),
        OverlayFrame::OURS,
        OverlayFrame::PushEntry { hop: 2, age_ms: 40, entry: 9, envelope },
    ]
}

fn transfer() -> Vec<TransferFrame> {
    let (manifest, swarm, piece) = (ManifestId([1; 32]), SwarmId([2; 32]), 3);
    vec![
        TransferFrame::Interest(manifest),
        TransferFrame::HasManifest(manifest),
        TransferFrame::GetManifest(manifest),
        TransferFrame::Busy { manifest, retry_ms: 200 },
        TransferFrame::Open { swarm, pieces: 20, have: Bits::from_pieces([1, 9, 19], 20) },
        TransferFrame::Have { swarm, pieces: list([4, 5]) },
        TransferFrame::Grant { swarm, ttl_ms: 500 },
        TransferFrame::Request { swarm, piece },
        TransferFrame::Pass(swarm),
        TransferFrame::Cancel { swarm, piece },
        TransferFrame::Rare { swarm, piece },
        TransferFrame::Refuse { swarm, retry_ms: 1_000 },
        TransferFrame::Close(swarm),
        TransferFrame::Subscribe {
            swarm,
            stripe: 1,
            of: 4,
            pieces: 20,
            have: Bits::from_pieces([5, 9], 20),
        },
        TransferFrame::Unsubscribe { swarm, stripe: 1, of: 4 },
        TransferFrame::GetSmall { manifest, swarm },
        TransferFrame::Small { manifest, swarm, bytes: Blob::new(vec![7; 90]).unwrap_or_default() },
    ]
}

pub(super) fn frames() -> Vec<Vec<u8>> {
    let fleet = Fleet::new();
    let mut all = hellos(&fleet);
    all.extend(overlay(&fleet).into_iter().map(Frame::Overlay));
    all.extend(transfer().into_iter().map(Frame::Transfer));
    all.iter().map(Frame::to_bytes).collect()
}

/// Headers of streams of content, without their length.
pub(super) fn bulks() -> Vec<Vec<u8>> {
    let all = [
        BulkHeader::Piece { swarm: SwarmId([2; 32]), piece: 3, len: 65_536 },
        BulkHeader::Manifest { manifest: ManifestId([1; 32]), len: 1 << 20 },
    ];
    all.iter().map(encode).collect()
}

pub(super) fn push_requests() -> Vec<Vec<u8>> {
    let fleet = Fleet::new();
    let (manifest, pack) = (ManifestId([1; 32]), PackId([3; 32]));
    let (package, arch) = ("hello".parse().unwrap(), "all".parse().unwrap());
    let reference = ManifestRef { id: manifest, size: 100, pieces: PieceHash([4; 32]) };
    let all = [
        PushRequest::Hello { fleet: FLEET, cert: push_cert() },
        PushRequest::Documents(list(fleet.documents.clone())),
        PushRequest::Head,
        PushRequest::Latest { package, arch },
        PushRequest::Packs(list([(pack, 100), (pack, u64::MAX)])),
        PushRequest::PutPack { pack, size: 1_000, offset: 300 },
        PushRequest::PutManifest(reference),
        PushRequest::Commit(fleet.feed(1)[0].envelope.clone()),
        PushRequest::GetManifest(manifest),
        PushRequest::GetPack(pack),
        PushRequest::Releases { package: "hello".parse().unwrap(), before: None },
        PushRequest::Forked { package: "hello".parse().unwrap() },
        PushRequest::HelloDelegated { fleet: FLEET, cert: push_cert(), via: fleet.certificate() },
        PushRequest::Releases {
            package: "hello".parse().unwrap(),
            before: Some(Position { epoch: 1, seq: 300 }),
        },
        PushRequest::Live { before: None },
    ];
    all.iter().map(encode).collect()
}

pub(super) fn push_replies() -> Vec<Vec<u8>> {
    let entry = Some(Box::new(Fleet::new().feed(1)[0].envelope.clone()));
    let live = list([ReleaseHash([1; 32]), ReleaseHash([2; 32])]);
    let all = [
        PushReply::Welcome { node: NodeId([1; 32]), name: "host-1".parse().unwrap() },
        PushReply::Head { entry: entry.clone(), live },
        PushReply::Latest(entry),
        PushReply::Latest(None),
        PushReply::Packs(list([PackState::Whole, PackState::Partial(300)])),
        PushReply::Taken,
        PushReply::Committed { seq: 300, peers: 4 },
        PushReply::Blob(1 << 30),
        PushReply::Refused { code: Refusal::Busy, message: "later".parse().unwrap() },
        PushReply::Releases(list(Fleet::new().feed(3).into_iter().map(|i| i.envelope))),
    ];
    all.iter().map(encode).collect()
}
