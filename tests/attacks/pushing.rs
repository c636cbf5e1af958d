//! Publishers that do not keep to the push protocol, and a publisher that may push and lies.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use stork_publisher::keys::write_key;
use stork_tests::feed::{Feed, ask};
use stork_tests::fleet::{Fleet, Host, VmFile};
use stork_tests::hostile::{Content, Lie, Peer, place, runtime, server};
use stork_tests::raw_push::{Publisher, Session, now};
use stork_tests::wait::wait_until;
use stork_wire::codec::{List, encode};
use stork_wire::feed::{ManifestRef, Release};
use stork_wire::frame::{PackState, PushReply, PushRequest, Refusal};
use stork_wire::ids::{ManifestId, PackId};
use stork_wire::manifest::{Manifest, Pack, Packing, Variant};
use stork_wire::sign::SecretKey;

use crate::check::{await_counter, fails, has_event, pid_of, untouched};

/// More memory than this a hostile package must not cost a host.
const MEMORY_KIB_MAX: u64 = 64 * 1024;

fn refusal(reply: PushReply) -> (Refusal, String) {
    match reply {
        PushReply::Refused { code, message } => (code, message.to_string()),
        other => panic!("not refused: {other:?}"),
    }
}

/// Makes a request that is to be refused.
type Make<'a> = &'a dyn Fn(&Session) -> PushRequest;

/// Before hello nothing is done, and a hello needs a certificate that is in time, for this TLS key,
/// by a release key of this fleet. Each refusal is counted.
#[test]
fn push_needs_a_good_certificate() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let (node, addr) = place(host);
    let ours = Publisher::open(&fleet.charter).unwrap();
    let mut stranger = Publisher::open(&fleet.charter).unwrap();
    stranger.key = SecretKey::from_seed(&[5; 32]);
    let mut unknown = Publisher::open(&fleet.charter).unwrap();
    unknown.id.0 = [6; 32];
    let before = untouched(host);
    let first = |make: Make<'_>| {
        runtime().block_on(async {
            let session = Session::open(node, addr).await.unwrap();
            refusal(session.ask(&make(&session), &[]).await.unwrap().0)
        })
    };
    let (t, later) = (now(), now() + 600);
    let past = (t - 1_200, t - 600);
    let soon = (t + 3_000, t + 3_600);
    let other_key = SecretKey::from_seed(&[4; 32]).public();
    let cases: [(&str, Make<'_>); 7] = [
        ("malformed", &|_| PushRequest::Head),
        ("malformed", &|_| PushRequest::Packs(List::empty())),
        ("out_of_time", &|s| ours.hello(s.tls_key, past).unwrap()),
        ("out_of_time", &|s| ours.hello(s.tls_key, soon).unwrap()),
        ("other_key", &|_| ours.hello(other_key, (t, later)).unwrap()),
        ("bad_signature", &|s| stranger.hello(s.tls_key, (t, later)).unwrap()),
        ("unknown_publisher", &|s| unknown.hello(s.tls_key, (t, later)).unwrap()),
    ];
    for (code, make) in cases {
        let count = host.counter("pushes_refused", code);
        let (told, why) = first(make);
        let expected = if code == "malformed" { Refusal::Malformed } else { Refusal::Trust };
        assert_eq!(told, expected, "{code}: {why}");
        await_counter(host, "pushes_refused", code, count + 1);
        assert!(has_event(host, "push_refused", &why), "{why}");
    }
    assert_eq!(untouched(host), before);

    // The same by the command: a key that is in no document, and a host that is not the one named.
    let package = fleet.package("app", "1", &[("app", b"1")]);
    let key = fleet.folder("keys").join("stranger");
    write_key(&key, &stranger.key, "stranger", None).unwrap();
    let out = fleet.push_command(0, &package, &["web"]).arg("--key").arg(&key).output().unwrap();
    fails(&out, 4, "");
    let mut wrong = std::process::Command::new(stork_tests::fleet::binary("stork-publish"));
    wrong.arg("push").arg(&package.file).arg("--charter").arg(&fleet.charter);
    wrong.args(["--name", "app", "--version", "1", "--arch", "all"]);
    wrong.args(["--to", &format!("{}@{addr}", "07".repeat(32))]);
    fails(&wrong.output().unwrap(), 4, "is not the node that was named");
    assert_eq!(untouched(host), before);
}

/// What a manifest would be with another packing.
fn repacked(content: &Content, change: impl FnOnce(&mut Packing)) -> Vec<u8> {
    let mut manifest = content.manifest.clone();
    change(&mut manifest.packing);
    encode(&manifest)
}

/// A publisher that was let in: packs with wrong bytes, too many, too few, too large; a manifest
/// that is not canonical, breaks a rule, or is not the one announced; a commit before its content.
/// Each is refused with its own code, nothing is kept, and the right bytes are taken after that.
#[test]
fn t085_t095_wrong_content_by_push() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let old = fleet.package("app", "1", &[("app", b"1")]);
    fleet.push(&old, &["web"]);
    let feed = Feed::read(&fleet);
    let file = fleet.package("app", "2", &[("app", &stork_tests::fleet::noise("x", 100_000))]).file;
    let content = Content::of_folder(&file, "app", "2");
    let packs = || host.tell(&["store", "stat"])["packs"].clone();
    let before = (untouched(host), packs());
    let packing = &content.manifest.packing;
    let Pack { id: pack, size, .. } = packing.packs.first().unwrap().clone();
    let right: Vec<u8> = content.pieces.concat();
    let put = |pack, size| PushRequest::PutPack { pack, size, offset: 0 };
    let mut wrong = right.clone();
    wrong[5_000] ^= 1;
    let more = [right.as_slice(), &[0]].concat();
    let less = right.get(..right.len() - 1).unwrap();
    let large = stork_wire::limits::SEGMENT_LEN_MAX * 2;
    let trailing = [content.bytes.as_slice(), &[0]].concat();
    let empty = repacked(&content, |p| p.packs = List::empty());
    let manifest = |bytes: &[u8]| PushRequest::PutManifest(Manifest::reference(bytes));
    let other = ManifestRef { id: ManifestId([1; 32]), ..content.reference };
    let cases: [(&str, Refusal, PushRequest, &[u8]); 9] = [
        ("corrupt", Refusal::Corrupt, put(pack, size), &wrong),
        ("malformed", Refusal::Malformed, put(pack, size), &more),
        ("malformed", Refusal::Malformed, put(PackId([2; 32]), size), less),
        ("malformed", Refusal::Malformed, put(pack, large), &right),
        ("malformed", Refusal::Malformed, manifest(&trailing), &trailing),
        ("malformed", Refusal::Malformed, manifest(&empty), &empty),
        ("corrupt", Refusal::Corrupt, PushRequest::PutManifest(other), &content.bytes),
        ("not_found", Refusal::NotFound, PushRequest::GetManifest(ManifestId([1; 32])), &[]),
        ("not_found", Refusal::NotFound, PushRequest::GetPack(PackId([1; 32])), &[]),
    ];
    for (n, (word, code, request, bytes)) in cases.into_iter().enumerate() {
        let count = host.counter("pushes_refused", word);
        let (told, why) = refusal(feed.ask(&fleet, &request, bytes));
        assert_eq!(told, code, "case {n}: {why}");
        await_counter(host, "pushes_refused", word, count + 1);
    }
    let entry = feed.next(announce(&feed, &content));
    let (told, why) = refusal(feed.commit(&fleet, feed.sign(&entry)));
    assert_eq!(told, Refusal::NotFound, "a commit before its content: {why}");
    await_counter(host, "pushes_refused", "content_missing", 1);
    assert_eq!((untouched(host), packs()), before);
    host.verify_store();
    publish(&fleet, &content, &[(pack, right)]);
    assert!(host.release("app", "99").is_some());
}

fn announce(feed: &Feed, content: &Content) -> Release {
    let packing = &content.manifest.packing;
    Release {
        version: "99".parse().unwrap(),
        tree: content.manifest.tree.id(),
        manifest: content.reference,
        full_bytes: packing.bytes(Variant::Full),
        delta: None,
        unpacked_bytes: content.manifest.tree.payload_len(),
        files: u32::try_from(content.manifest.tree.entries.len()).unwrap(),
        ..feed.release()
    }
}

/// Publishes a content by hand, whatever is in its packs.
fn publish(fleet: &Fleet, content: &Content, packs: &[(PackId, Vec<u8>)]) {
    let publisher = Publisher::open(&fleet.charter).unwrap();
    let taken = |request: &PushRequest, bytes: &[u8]| {
        let reply = ask(&publisher, fleet, request, bytes);
        assert!(matches!(reply, PushReply::Taken), "{reply:?}");
    };
    for (pack, bytes) in packs {
        let size = bytes.len() as u64;
        let asked = List::new(vec![(*pack, size)]).unwrap();
        let PushReply::Packs(states) = ask(&publisher, fleet, &PushRequest::Packs(asked), &[])
        else {
            panic!("no states")
        };
        // A request that was refused may have left the first bytes there.
        if let [PackState::Partial(offset)] = *states {
            let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap();
            taken(&PushRequest::PutPack { pack: *pack, size, offset }, rest);
        }
    }
    taken(&PushRequest::PutManifest(content.reference), &content.bytes);
    let feed = Feed::read(fleet);
    let entry = feed.sign(&feed.next(announce(&feed, content)));
    let reply = feed.commit(fleet, entry);
    assert!(matches!(reply, PushReply::Committed { .. }), "{reply:?}");
}

/// A frame of so many zero bytes, and with a window of this many bits.
fn zeros(len: u64, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    let chunk = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        encoder.write_all(&chunk).unwrap();
    }
    encoder.finish().unwrap()
}

/// A content of one file whose pack is not what its manifest says.
fn with_pack(content: &Content, unpacked: u64, frame: &[u8]) -> Content {
    let mut manifest = content.manifest.clone();
    let piece_len = manifest.packing.piece_len;
    let pack = Pack::describe(frame, unpacked, piece_len).unwrap();
    manifest.packing.packs = List::new(vec![pack]).unwrap();
    let bytes = encode(&manifest);
    let reference = Manifest::reference(&bytes);
    Content { bytes, manifest, reference, pieces: vec![frame.to_vec()] }
}

/// The most memory that a host has had, in KiB.
fn peak_kib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of(host))).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A release of one file of so many bytes.
fn one_file(fleet: &Fleet, version: &str, len: usize) -> Content {
    let bytes = stork_tests::fleet::noise(version, len);
    let file: PathBuf = fleet.package("app", version, &[("app.bin", &bytes)]).file;
    Content::of_folder(&file, "app", version)
}

/// A publisher that may publish announces packs that hold 1 GiB where 64 KiB are declared, that ask
/// for a huge window, that hold other bytes than the files, and that end too early. The host takes
/// no more than what was declared: each release fails with its own reason, memory stays bounded,
/// the VM keeps what it had, and the next good release is shown.
#[test]
fn t086_bombs_of_an_authorised_publisher() {
    let fleet = Fleet::new(&["web"], 2);
    let host = &fleet.hosts[1];
    host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    fleet.push(&fleet.package("app", "1", &[("app.bin", b"1")]), &["web"]);
    host.await_vm("vm", &[("app", "1")]);
    let peak = peak_kib(host);
    let small = one_file(&fleet, "2", 64 * 1024);
    let len = small.manifest.tree.payload_len();
    let bomb = zeros(1 << 30, 20);
    let window = zeros(256 << 20, 27);
    let other = zstd::bulk::compress(&vec![7; 64 * 1024], 1).unwrap();
    let short = zstd::bulk::compress(&vec![7; 1024], 1).unwrap();
    let cases: [(&str, &[u8]); 4] = [
        ("holds more than the 65536 bytes that it should", &bomb),
        ("can't be unpacked", &window),
        ("holds wrong bytes for content", &other),
        ("it gives 1024 bytes instead of 65536", &short),
    ];
    for (n, (says, frame)) in (1u64..).zip(cases) {
        let bad = with_pack(&small, len, frame);
        let pack = bad.manifest.packing.packs.first().unwrap().id;
        publish(&fleet, &bad, &[(pack, frame.to_vec())]);
        await_counter(host, "contents", "unpack_failed", n);
        wait_until(says, || has_event(host, "content_failed", says));
        assert_eq!(host.vm_shows("vm")["app"], "1", "{says}");
    }
    let grown = peak_kib(host) - peak;
    assert!(grown < MEMORY_KIB_MAX, "{grown} KiB more at its peak");
    assert_eq!(fs::read(host.target("vm").join("app.bin")).unwrap(), b"1");
    host.verify_store();
    contradicts(&fleet, &small);
    let good = fleet.package("app", "100", &[("app.bin", b"good")]);
    fleet.push(&good, &["web"]);
    host.await_vm("vm", &[("app", "100")]);
    stork_tests::compare::compare_with_folder(&host.target("vm"), &good.file);
}

/// A manifest with another number of bytes than its announcement: the host that it is pushed to
/// refuses it, and a host that hears of it from an insider does not fetch what it names.
fn contradicts(fleet: &Fleet, small: &Content) {
    let host = &fleet.hosts[1];
    let feed = Feed::read(fleet);
    let mut release = announce(&feed, small);
    release.unpacked_bytes = 10;
    let entry = feed.next(release);
    let publisher = Publisher::open(&fleet.charter).unwrap();
    let pack = small.manifest.packing.packs.first().unwrap().id;
    let frame = small.pieces.concat();
    let put = PushRequest::PutPack { pack, size: frame.len() as u64, offset: 0 };
    assert!(matches!(ask(&publisher, fleet, &put, &frame), PushReply::Taken));
    let put = PushRequest::PutManifest(small.reference);
    assert!(matches!(ask(&publisher, fleet, &put, &small.bytes), PushReply::Taken));
    let says = "the manifest contradicts its announcement: more bytes once unpacked";
    let (told, why) = refusal(feed.commit(fleet, feed.sign(&entry)));
    assert_eq!((told, why.as_str()), (Refusal::Malformed, says));

    let insider = Peer::enlist(fleet, "insider");
    let talk = insider.dial_with(host, server(&Arc::new(small.clone()), Lie::No, Lie::No));
    talk.push(&feed.item(feed.sign(&entry), entry.seq));
    wait_until(says, || has_event(host, "content_failed", says));
    assert_eq!(host.vm_shows("vm")["app"], "1");
    let known = || Feed::read(fleet).entry.seq == entry.seq;
    wait_until("the entry, which is signed well, to be known everywhere", known);
}
