//! The golden vectors of docs/PROTOCOL.md: one frame of each type of every protocol, byte by byte.
//! Another implementation may read them from there; this test holds the page and the code together.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::codec::Blob;
use crate::feed::ManifestRef;
use crate::ids::{
    GroupKeyId, LogId, ManifestId, NodeId, PackId, PieceHash, Position, ReleaseHash, SwarmId, hex,
};
use crate::item::{Head, ItemKind};
use crate::limits::PUSH_FRAME_LEN_MAX;

/// Name and bytes of each.
type Vectors = Vec<(String, Vec<u8>)>;

fn list<T, const N: usize>(all: impl IntoIterator<Item = T>) -> List<T, N> {
    List::truncated(all)
}

/// An envelope that nobody signed, with a body of three bytes.
fn envelope() -> Envelope {
    Envelope { body: Blob::new(vec![1, 2, 3]).unwrap(), signatures: List::empty() }
}

fn hint() -> PeerHint {
    PeerHint { cert: envelope(), record: envelope() }
}

fn item(kind: u32) -> Item {
    Item { kind: ItemKind::of(kind), log: LogId([7; 32]), seq: 300, envelope: envelope() }
}

fn control() -> Vec<Frame> {
    let class = LinkClass::Near;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        fleet: FleetId([1; 32]),
        peer: hint(),
        class,
        starving: true,
    };
    let ack = HelloAck { peer: hint(), class: LinkClass::Transient, hints: list([hint()]) };
    let join = JoinRequest { token: envelope(), name: "host-8".parse().unwrap() };
    let joined =
        JoinReply::Admitted { cert: envelope(), roots: list([item(0)]), peers: list([hint()]) };
    vec![
        Frame::Hello(Box::new(hello)),
        Frame::HelloAck(Box::new(ack)),
        Frame::Join(Box::new(join)),
        Frame::Joined(Box::new(joined)),
        Frame::Joined(Box::new(JoinReply::Refused("no".parse().unwrap()))),
        Frame::Bye("good night".parse().unwrap()),
        Frame::KeysAsk(list([GroupKeyId([4; 32])])),
        Frame::Keys(list([GroupKey::from_bytes([8; 32])])),
    ]
}

fn overlay() -> Vec<OverlayFrame> {
    let (log, fingerprint, class) = (LogId([7; 32]), [3; 8], LinkClass::Far);
    let push =
        |kind| OverlayFrame::Push { hop: 2, age_ms: 40, entry: 9, item: Box::new(item(kind)) };
    let head = Head { log, seq: 300, hash: [5; 8] };
    let cells = list([SketchCell([6; 24])]);
    vec![
        OverlayFrame::Ping { nonce: 7, fingerprint, class, carries: 5 },
        OverlayFrame::Pong { nonce: 7, fingerprint, class: LinkClass::Transient },
        OverlayFrame::Records(list([hint()])),
        OverlayFrame::Shuffle { nonce: 300, peers: list([hint()]) },
        OverlayFrame::ShuffleReply { nonce: 300, peers: List::empty() },
        OverlayFrame::Unlink,
        push(3),
        push(9),
        OverlayFrame::IHave(list([Have { log, seq: 300, more: 2, waited_ms: 100 }])),
        OverlayFrame::Graft { log, seq: 9 },
        OverlayFrame::Prune { log },
        OverlayFrame::Heads { heads: list([head]), last: true, answer: false },
        OverlayFrame::Fetch(list([ItemRange { log, from: 1, to: 256 }])),
        OverlayFrame::Items(list([item(5), item(9)])),
        OverlayFrame::SketchAsk { start: 2, count: 14 },
        OverlayFrame::Sketch { fingerprint, logs: 100, start: 0, cells },
        OverlayFrame::HeadsAsk(list([ShortLog::of(&log)])),
        OverlayFrame::Ahead(list([(ShortLog::of(&log), 128)])),
        OverlayFrame::Knows(1),
        OverlayFrame::PushEntry { hop: 2, age_ms: 40, entry: 9, envelope: Box::new(envelope()) },
    ]
}

fn transfer() -> Vec<TransferFrame> {
    let (manifest, swarm, piece) = (ManifestId([0x11; 32]), SwarmId([0x22; 32]), 300);
    vec![
        TransferFrame::Interest(manifest),
        TransferFrame::HasManifest(manifest),
        TransferFrame::GetManifest(manifest),
        TransferFrame::Busy { manifest, retry_ms: 200 },
        TransferFrame::Open { swarm, pieces: 20, have: Bits::from_pieces([1, 9, 19], 20) },
        TransferFrame::Have { swarm, pieces: list([4, 300]) },
        TransferFrame::Grant { swarm, ttl_ms: 500 },
        TransferFrame::Request { swarm, piece },
        TransferFrame::Pass(swarm),
        TransferFrame::Cancel { swarm, piece },
        TransferFrame::Rare { swarm, piece },
        TransferFrame::Refuse { swarm, retry_ms: 200 },
        TransferFrame::Close(swarm),
        TransferFrame::Subscribe {
            swarm,
            stripe: 3,
            of: 16,
            pieces: 20,
            have: Bits::from_pieces([3], 20),
        },
        TransferFrame::Unsubscribe { swarm, stripe: 3, of: 16 },
        TransferFrame::GetSmall { manifest, swarm },
        TransferFrame::Small { manifest, swarm, bytes: Blob::new(vec![7, 8, 9]).unwrap() },
    ]
}

fn bulk() -> [(&'static str, BulkHeader); 2] {
    let manifest = ManifestId([0x11; 32]);
    [
        ("piece", BulkHeader::Piece { swarm: SwarmId([0x22; 32]), piece: 300, len: 65_536 }),
        ("manifest", BulkHeader::Manifest { manifest, len: 1_000 }),
    ]
}

fn requests() -> [(&'static str, PushRequest); 14] {
    let (pack, manifest) = (PackId([4; 32]), ManifestId([0x11; 32]));
    let reference = ManifestRef { id: manifest, size: 1_000, pieces: PieceHash([3; 32]) };
    let (package, arch) = ("app".parse().unwrap(), "all".parse().unwrap());
    [
        ("hello", PushRequest::Hello { fleet: FleetId([1; 32]), cert: envelope() }),
        ("documents", PushRequest::Documents(list([item(2)]))),
        ("head", PushRequest::Head),
        ("latest", PushRequest::Latest { package, arch }),
        ("packs", PushRequest::Packs(list([(pack, 300)]))),
        ("put_pack", PushRequest::PutPack { pack, size: 300, offset: 128 }),
        ("put_manifest", PushRequest::PutManifest(reference)),
        ("commit", PushRequest::Commit(envelope())),
        ("get_manifest", PushRequest::GetManifest(manifest)),
        ("get_pack", PushRequest::GetPack(pack)),
        ("releases", PushRequest::Releases { package: "app".parse().unwrap(), before: None }),
        (
            "hello_delegated",
            PushRequest::HelloDelegated {
                fleet: FleetId([1; 32]),
                cert: envelope(),
                via: envelope(),
            },
        ),
        ("live", PushRequest::Live { before: Some(Position { epoch: 1, seq: 300 }) }),
        ("forked", PushRequest::Forked { package: "app".parse().unwrap() }),
    ]
}

fn replies() -> Vec<(String, PushReply)> {
    let (node, name) = (NodeId([8; 32]), "host-1".parse().unwrap());
    let live = list([ReleaseHash([5; 32])]);
    let states = list([PackState::Whole, PackState::Partial(128)]);
    let mut all: Vec<(String, PushReply)> = [
        ("welcome", PushReply::Welcome { node, name }),
        ("head", PushReply::Head { entry: Some(Box::new(envelope())), live }),
        ("latest", PushReply::Latest(None)),
        ("packs", PushReply::Packs(states)),
        ("taken", PushReply::Taken),
        ("committed", PushReply::Committed { seq: 300, peers: 8 }),
        ("blob", PushReply::Blob(1_000)),
        ("releases", PushReply::Releases(list([envelope()]))),
    ]
    .map(|(name, reply)| (name.to_owned(), reply))
    .into();
    for code in [
        Refusal::Malformed,
        Refusal::Trust,
        Refusal::HeadMoved,
        Refusal::NotHome,
        Refusal::NotFound,
        Refusal::Corrupt,
        Refusal::NoSpace,
        Refusal::Busy,
        Refusal::Internal,
        Refusal::VersionTaken,
    ] {
        let name = format!("refused {code:?}");
        all.push((name, PushReply::Refused { code, message: "no".parse().unwrap() }));
    }
    all
}

/// All vectors, each read back from its bytes; two of one type are numbered.
fn vectors() -> Vectors {
    let mut out = Vec::new();
    let frames = control().into_iter().chain(overlay().into_iter().map(Frame::Overlay));
    for frame in frames.chain(transfer().into_iter().map(Frame::Transfer)) {
        let bytes = frame.to_bytes();
        let room = match &frame {
            Frame::Overlay(_) => "overlay",
            Frame::Transfer(_) => "transfer",
            _ => "control",
        };
        out.push((format!("{room} {}", frame.name()), bytes.clone()));
        assert_eq!(Frame::from_bytes(&bytes, 64 * 1024), Ok(frame));
    }
    for (name, header) in bulk() {
        let bytes = header.to_bytes();
        assert_eq!(BulkHeader::from_bytes(&bytes[2..]), Ok(header));
        out.push((format!("bulk {name}"), bytes));
    }
    for (name, request) in requests() {
        let bytes = encode(&request);
        assert_eq!(decode(&bytes, PUSH_FRAME_LEN_MAX), Ok(request));
        out.push((format!("push ask {name}"), bytes));
    }
    for (name, reply) in replies() {
        let bytes = encode(&reply);
        assert_eq!(decode(&bytes, PUSH_FRAME_LEN_MAX), Ok(reply));
        out.push((format!("push answer {name}"), bytes));
    }
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for (name, _) in &mut out {
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            *name = format!("{name} {times}");
        }
    }
    out
}

/// Bytes as the page writes them: so many equal ones in a row as `07*32`.
fn written(bytes: &[u8]) -> String {
    let mut out = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() > 4 {
            out += &format!(" {}*{} ", hex(&run[..1]), run.len());
        } else {
            out += &hex(run);
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The page has a row for each vector, and no other.
#[test]
fn the_page_has_every_vector() {
    let page = include_str!("../../../docs/PROTOCOL.md");
    let section = page.split("## Golden vectors").nth(1).and_then(|s| s.split("\n## ").next());
    let rows = section.unwrap_or_default().lines().filter(|l| l.starts_with("| `"));
    let rows: Vec<&str> = rows.collect();
    let row = |(name, bytes): &(String, Vec<u8>)| format!("| `{name}` | `{}` |", written(bytes));
    let right: Vec<String> = vectors().iter().map(row).collect();
    assert!(rows == right, "the rows must be:\n{}", right.join("\n"));
}

/// No type is forgotten: the first byte (of two protocols in one: the second) runs through all.
#[test]
fn every_type_has_a_vector() {
    let all = vectors();
    let numbers = |room: &str, at: usize| -> BTreeSet<u64> {
        let of = all.iter().filter(|(name, _)| name.starts_with(room));
        of.map(|(_, bytes)| u64::from(bytes[at])).collect()
    };
    let up_to = |n: u64| -> BTreeSet<u64> { (0..n).collect() };
    let outer: BTreeSet<u64> =
        ["control", "overlay", "transfer"].iter().flat_map(|room| numbers(room, 0)).collect();
    assert_eq!(outer, up_to(Frame::KINDS));
    assert_eq!(numbers("overlay", 1), up_to(OverlayFrame::KINDS));
    assert_eq!(numbers("transfer", 1), up_to(TransferFrame::KINDS));
    // The next number is no type: so these are all.
    let bulk = numbers("bulk", 2);
    assert_eq!(bulk, up_to(2));
    assert!(BulkHeader::from_bytes(&[2; 40]).is_err());
    let (asks, answers) = (numbers("push ask", 0), numbers("push answer", 0));
    assert_eq!((asks.len(), answers.len()), (14, 9));
    for n in [14u8, 15] {
        let e = decode::<PushRequest>(&[n], 64).unwrap_err();
        assert!(matches!(e, DecodeError::Malformed(_)));
        assert!(decode::<PushReply>(&[n - 3], 64).is_err());
    }
    let codes: BTreeSet<u8> =
        all.iter().filter(|(n, _)| n.contains("refused")).map(|(_, b)| b[1]).collect();
    assert!(codes.is_superset(&(0..10).collect()), "{codes:?}");
}
