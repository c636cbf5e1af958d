//! Packing, unpacking and deltas of whole packages.

use std::fs;

use super::*;
use crate::source::{ReadOptions, read};

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

fn package(files: &[(&str, Vec<u8>)]) -> Package {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let options = ReadOptions {
        name: Some("acme".parse().unwrap()),
        version: Some("1".parse().unwrap()),
        arch: Some("all".parse().unwrap()),
        ..ReadOptions::default()
    };
    let mut package = read(dir.path(), &options).unwrap();
    // Times are chance here, and would make two trees differ.
    let mut entries = package.tree.entries.to_vec();
    for e in &mut entries {
        e.mtime = 0;
    }
    package.tree.entries = List::new(entries).unwrap();
    package.source.file_name = "acme".parse().unwrap();
    package
}

fn open<'a>(packed: &'a Packed) -> impl Fn(&Pack) -> io::Result<Vec<u8>> + 'a {
    |p| fs::read(packed.packs.path(&p.id))
}

fn same_contents(package: &Package, got: &Spool) {
    for (id, size) in package.tree.payload() {
        assert_eq!(got.len_of(&id), Some(size));
    }
    assert_eq!(got.count(), package.tree.payload().len());
}

/// The same package gives the same bytes, equal files travel once, and everything comes back.
#[test]
fn packing_twice_gives_the_same_bytes() {
    let files = [
        ("a/one", noise(200_000, 1)),
        ("a/same", noise(200_000, 1)),
        ("b/text", b"stork ".repeat(50_000)),
        ("empty", Vec::new()),
    ];
    let (one, two) = (package(&files), package(&files));
    let a = pack(&one, None, &Progress::Silent).unwrap();
    let b = pack(&two, None, &Progress::Silent).unwrap();
    assert_eq!(a.bytes, b.bytes);
    assert_eq!(one.tree.payload().len(), 2);
    let bytes = a.manifest.packing.bytes(Variant::Full);
    assert!((200_000..203_000).contains(&bytes), "{bytes}");
    let got = unpack(&a.manifest, Variant::Full, None, &open(&a)).unwrap();
    same_contents(&one, &got);
    assert_eq!(Manifest::from_bytes(&a.bytes).unwrap(), a.manifest);
}

/// A package without a single byte is packed too.
#[test]
fn nothing_at_all() {
    let p = package(&[("empty", Vec::new())]);
    let packed = pack(&p, None, &Progress::Silent).unwrap();
    assert!(packed.all_packs().is_empty());
    same_contents(&p, &unpack(&packed.manifest, Variant::Full, None, &open(&packed)).unwrap());
}

/// Files longer than a segment are split, and every segment stays within its limit.
#[test]
fn long_files_are_split() {
    let p = package(&[("long", b"0123456789abcdef".repeat(5 << 20 >> 1)), ("x", noise(1000, 2))]);
    let packed = pack(&p, None, &Progress::Silent).unwrap();
    let lens: Vec<u64> = packed.manifest.packing.packs.iter().map(|p| p.unpacked).collect();
    assert_eq!(lens, [32 << 20, (8 << 20) + 1000]);
    same_contents(&p, &unpack(&packed.manifest, Variant::Full, None, &open(&packed)).unwrap());
}

/// A delta against the previous version is small, needs that version, and gives the same contents;
/// a renamed library is found by its name without numbers.
#[test]
fn deltas() {
    let lib = noise(3_000_000, 3);
    let mut newer = lib.clone();
    newer[1_000_000] ^= 1;
    let old = package(&[("usr/lib/libx.so.1.2", lib), ("usr/bin/y", noise(500_000, 4))]);
    let new = package(&[("usr/lib/libx.so.1.3", newer), ("usr/bin/y", noise(500_000, 4))]);
    let base = Base { tree: &old.tree, contents: &old.contents };
    let packed = pack(&new, Some(base), &Progress::Silent).unwrap();
    let packing = &packed.manifest.packing;
    assert_eq!(packing.delta.as_ref().unwrap().base, old.tree.id());
    assert!(packing.bytes(Variant::Delta) < 20_000, "{}", packing.bytes(Variant::Delta));
    same_contents(
        &new,
        &unpack(&packed.manifest, Variant::Delta, Some(base), &open(&packed)).unwrap(),
    );
    let e = unpack(&packed.manifest, Variant::Delta, None, &open(&packed)).unwrap_err();
    assert!(matches!(e, UnpackError::NoBase));
    let again = pack(&new, Some(base), &Progress::Silent).unwrap();
    assert_eq!(again.bytes, packed.bytes);
}

/// A delta that saves less than a fifth is not offered, and what it would have taken is told.
#[test]
fn useless_deltas_are_not_offered() {
    let old = package(&[("a", noise(400_000, 5))]);
    let new = package(&[("a", noise(400_000, 6))]);
    let base = Base { tree: &old.tree, contents: &old.contents };
    let packed = pack(&new, Some(base), &Progress::Silent).unwrap();
    assert_eq!(packed.manifest.packing.delta, None);
    assert!(packed.delta_tried.unwrap() > 390_000);
}

/// One damaged byte in a pack is seen before anything is unpacked.
#[test]
fn damaged_packs() {
    let p = package(&[("a", noise(100_000, 7))]);
    let packed = pack(&p, None, &Progress::Silent).unwrap();
    let (id, _) = packed.all_packs()[0];
    let mut bytes = fs::read(packed.packs.path(&id)).unwrap();
    bytes[50_000] ^= 1;
    fs::write(packed.packs.path(&id), bytes).unwrap();
    let e = unpack(&packed.manifest, Variant::Full, None, &open(&packed)).unwrap_err();
    assert!(matches!(e, UnpackError::Hash(p) if p == id) && e.is_mismatch());
    fs::remove_file(packed.packs.path(&id)).unwrap();
    let e = unpack(&packed.manifest, Variant::Full, None, &open(&packed)).unwrap_err();
    assert!(matches!(e, UnpackError::Read { .. }) && !e.is_mismatch());
}

/// A delta of `new` against `old`: its bytes, unpacked bytes, and the length of its prefixes.
fn delta_between(old: &Package, new: &Package) -> (u64, u64, u64) {
    let base = Base { tree: &old.tree, contents: &old.contents };
    let packed = pack(new, Some(base), &Progress::Silent).unwrap();
    let got = unpack(&packed.manifest, Variant::Delta, Some(base), &open(&packed)).unwrap();
    same_contents(new, &got);
    assert_eq!(Manifest::from_bytes(&packed.bytes).unwrap(), packed.manifest);
    let delta = packed.manifest.packing.delta.as_ref().unwrap();
    let prefixes = delta.packs.iter().flat_map(|p| p.prefix.iter().map(|r| r.len)).sum();
    let unpacked = delta.packs.iter().map(|p| p.pack.unpacked).sum();
    (packed.manifest.packing.bytes(Variant::Delta), unpacked, prefixes)
}

/// What the base has is in no pack of a delta, and is no part of a prefix where nothing is like it;
/// where all is there, no pack is left.
#[test]
fn a_delta_leaves_out_what_the_base_has() {
    let same = || [("a", noise(700_000, 8)), ("c", noise(700_000, 9))];
    let [a, c] = same();
    let old = package(&[a, ("b", noise(300_000, 10)), c]);
    let mut changed = noise(300_000, 10);
    changed[7] ^= 1;
    let [a, c] = same();
    let new = package(&[a, ("b", changed), c]);
    let (bytes, unpacked, prefixes) = delta_between(&old, &new);
    assert!(bytes < 1_000, "{bytes}");
    assert_eq!((unpacked, prefixes), (300_000, 300_000));
    let [a, c] = same();
    let moved = package(&[("other/a", a.1), ("c", c.1)]);
    assert_eq!(delta_between(&old, &moved), (0, 0, 0));
}

/// A file that has another name and place, with bytes of two old ones, is found by its bytes.
#[test]
fn a_delta_finds_what_was_moved() {
    let old = package(&[("x/one", noise(2_000_000, 11)), ("x/two", noise(2_000_000, 12))]);
    let mut joined = noise(2_000_000, 12);
    joined.extend(noise(2_000_000, 11));
    let (bytes, unpacked, _) = delta_between(&old, &package(&[("quite/another", joined)]));
    assert_eq!(unpacked, 4_000_000);
    assert!(bytes < 2_000, "{bytes}");
}

/// A file that is longer than a prefix and grew at its front: each segment gets the part of the old
/// one that it repeats, and no prefix is longer than it may be.
#[test]
fn a_delta_of_a_file_longer_than_a_prefix() {
    let body = noise(38 << 20, 13);
    let old = package(&[("disk.img", body.clone())]);
    let mut grown = noise(1 << 20, 14);
    grown.extend(&body);
    let (bytes, unpacked, prefixes) = delta_between(&old, &package(&[("disk.img", grown)]));
    assert_eq!(unpacked, 39 << 20);
    assert!(prefixes < 60 << 20, "{prefixes}");
    assert!((1 << 20..(1 << 20) + 200_000).contains(&bytes), "{bytes}");
}
