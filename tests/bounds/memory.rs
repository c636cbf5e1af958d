//! What messages take on the heap: nothing for lengths that lie, and never more than sixteen times
//! their bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use stork_tests::fuzz::{Fleet, TARGETS, corpus};
use stork_tests::heap::measure;
use stork_wire::beacon::Beacon;
use stork_wire::charter::{
    GroupDoc, HostCert, JoinToken, PeerRecord, PublisherDoc, PushCert, RootDoc,
};
use stork_wire::codec::{Blob, List, decode, encode};
use stork_wire::delegated::Delegated;
use stork_wire::deny::Denial;
use stork_wire::feed::Entry;
use stork_wire::frame::{BulkHeader, Frame, PushReply, PushRequest};
use stork_wire::grant::HostGrant;
use stork_wire::item::Item;
use stork_wire::manifest::{Manifest, Tree};
use stork_wire::permit::DowngradePermit;
use stork_wire::proof::Proof;
use stork_wire::seal::Sealed;
use stork_wire::sign::Envelope;
use stork_wire::suicide::Suicide;
use stork_wire::withdrawal::Withdrawal;

const MAX: usize = 64 * 1024 * 1024;
/// T050. The bytes beyond are the box in which a short message of a long type lies: a refusal to
/// join without a word is 3 bytes long and takes 64.
const TIMES: usize = 16;
const BOX: usize = 64;

/// Lengths that lie: 2^32 − 1, 2^32, u64::MAX, and one that is no number of 64 bits.
const LENGTHS: [&[u8]; 4] = [
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x10],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
];

/// T049: a length of 2^32 − 1 or u64::MAX in the place of any byte of any message, also deep inside
/// of nested collections, is refused, and takes no more than 64 KiB while it is.
#[test]
fn t049_lengths_that_lie_take_no_memory() {
    type Nested = List<List<List<Blob<100_000>, 100_000>, 100_000>, 100_000>;
    for length in LENGTHS {
        for depth in 0..4 {
            let bytes = [&[1u8; 4][..depth], length, &[0; 64]].concat();
            let (r, _, most) = measure(|| decode::<Nested>(&bytes, MAX));
            assert!(r.is_err() && most <= 4_096, "{most} bytes for a nested length");
        }
    }
    let mut worst = 0;
    for target in TARGETS.iter().filter(|t| t.decoder && !t.name.ends_with("toml")) {
        for sample in (target.samples)() {
            for at in 0..sample.len().min(400) {
                for length in LENGTHS {
                    let bytes = [&sample[..at], length, &sample[at + 1..]].concat();
                    let ((), _, most) = measure(|| drop((target.run)(&bytes)));
                    // Where it was no length, the message may be good: then it is decoded.
                    assert!(most <= 64 * 1024, "{}: {most} bytes at {at}", target.name);
                    worst = worst.max(most);
                }
            }
        }
    }
    println!("at most {worst} bytes");
}

/// Heap that a message keeps after it was decoded.
fn weigh<T: Serialize + DeserializeOwned>(what: &str, bytes: &[u8], worst: &mut (f64, String)) {
    let (value, kept, most) = measure(|| decode::<T>(bytes, MAX));
    if value.is_ok() {
        let times = kept as f64 / bytes.len().max(1) as f64;
        if times > worst.0 && bytes.len() > 8 {
            *worst = (times, format!("{what}: {kept} of {} bytes", bytes.len()));
        }
        assert!(kept <= TIMES * bytes.len() + BOX, "{what}: {kept} of {} bytes", bytes.len());
    }
    // While it is read, a growing list is there twice, and the copy that is compared.
    assert!(most <= 4 * TIMES * bytes.len() + 4_096, "{what}: {most} of {}", bytes.len());
}

fn weigh_as_all(bytes: &[u8], worst: &mut (f64, String)) {
    macro_rules! each {
        ($($t:ty),*) => {$( weigh::<$t>(stringify!($t), bytes, worst); )*};
    }
    each!(Frame, PushRequest, PushReply, BulkHeader, Envelope, Item, RootDoc, GroupDoc);
    each!(PublisherDoc, Entry, Proof, HostCert, PeerRecord, PushCert, JoinToken, Manifest, Tree);
    each!(Beacon, Denial, Suicide, Withdrawal, Delegated, HostGrant, DowngradePermit, Sealed);
}

/// T050: no message of any type takes more than sixteen times its bytes once it is decoded: neither
/// the samples and their mutations, read as every type, nor the smallest elements there are, as
/// many as fit.
#[test]
fn t050_no_message_takes_sixteen_times_its_bytes() {
    let mut worst = (0.0, String::new());
    for target in TARGETS.iter().filter(|t| t.decoder && !t.name.ends_with("toml")) {
        for bytes in corpus(&(target.samples)(), 50, 300) {
            // The kinds of bodies stand behind a tag.
            weigh_as_all(&bytes, &mut worst);
            weigh_as_all(bytes.get(1..).unwrap_or_default(), &mut worst);
        }
    }
    println!("samples and mutations: {worst:?}");
    for bytes in smallest() {
        weigh_as_all(&bytes, &mut worst);
    }
    println!("smallest elements: {worst:?}");
    assert!(!Fleet::new().documents.is_empty());
}

/// So many of the smallest elements in every list there is.
fn smallest() -> Vec<Vec<u8>> {
    let varint = |n: usize| encode(&(n as u64));
    let many = |n: usize, one: &[u8]| [varint(n), one.repeat(n)].concat();
    let mut out = Vec::new();
    // A tree of directories with names of one byte (they need not be in order to be decoded); of
    // empty files, and of files with 32 empty attributes.
    let dir = [1, b'a', 0, 0, 0, 0, 0];
    let file = [&[1, b'a', 0, 0, 0, 0, 1][..], &[0; 32], &[0, 0]].concat();
    let xattrs = [&[1, b'a', 0, 0, 0, 0, 1][..], &[0; 32], &[0], &many(32, &[0, 0])].concat();
    let link = [1, b'a', 0, 0, 0, 0, 2, 1, b'b'];
    for one in [&dir[..], &file, &xattrs, &link] {
        out.extend([1, 2, 3, 5, 9, 1_000, 1_025].map(|n| many(n, one)));
    }
    // A manifest with nothing but empty control files, and with delta packs without pieces.
    let control = many(64, &[0, 0, 0]);
    let source = [&[0, 0, 0][..], &[0; 32], &[0], &control].concat();
    out.push([&[1, 0][..], &source, &[0, 0, 0]].concat());
    let pack = [&[0; 32][..], &[1, 1, 0, 0]].concat();
    let delta = [&[1][..], &[0; 32], &many(1_000, &pack)].concat();
    out.push([&[1, 0][..], &[0, 0, 0], &[0; 32], &[0, 0, 0, 0], &delta].concat());
    // Frames: eight hosts with nothing in them, heads, short ids, cells, items and ranges.
    let hint = [0; 4];
    out.extend((1..=8).map(|n| [&[4, 2][..], &many(n, &hint)].concat()));
    out.push([&[4, 12][..], &many(100, &[&[3][..], &[0; 35]].concat())].concat());
    out.push([&[4, 16][..], &many(1_000, &[0; 9])].concat());
    out.push([&[4, 7][..], &many(100, &[0; 33])].concat());
    out.push([&[5, 5][..], &[0; 32], &many(1_000, &[0])].concat());
    out.push([&[4, 6][..], &[0; 2], &[0; 36]].concat());
    // Push: packs of one byte each, and documents with nothing in them.
    out.extend([1, 2, 3, 4_096].map(|n| [&[3][..], &many(n, &[0])].concat()));
    out.push([&[1][..], &many(4, &[0; 36])].concat());
    out.push(vec![1, 1, 0, 0, 0]);
    out.push(vec![2, 1, 0, 0]);
    // Documents: authorities, grants, release keys and patterns of one byte.
    let patterns = many(64, &[1, b'*']);
    let grant = [&[0; 32][..], &[1, b'a'], &patterns, &patterns, &[0]].concat();
    let head = [1, 1, 0, 1, b'a', 0, 1];
    out.push([&head[..], &[0, 0, 0, 0], &many(32, &[1, b'*', 0, 0])].concat());
    out.push([&head[..], &[0, 0], &many(64, &grant)].concat());
    let release_key = [&[0; 32][..], &patterns, &[0, 0]].concat();
    out.push([&head[..], &[0, 0, 1, 0], &many(16, &release_key), &[0, 0]].concat());
    out
}
